// OpenVINO on the CPU, in float32 whatever the CPU offers: its own default is bfloat16 where there are instructions for it.
#include <cstring>
#include <openvino/openvino.hpp>

#include "engine.h"
#include "error.h"

namespace gtp {

namespace {

ov::element::Type type_of(DType dtype) {
  switch (dtype) {
    case DType::UINT8: return ov::element::u8;
    case DType::INT32: return ov::element::i32;
    case DType::INT64: return ov::element::i64;
    case DType::FLOAT32: return ov::element::f32;
    default: return ov::element::f64;
  }
}

void check(const ov::Output<const ov::Node>& port, const TensorSpec& spec) {
  const ov::Shape shape(spec.shape.begin(), spec.shape.end());
  if (port.get_element_type() != type_of(dtype_named(spec.dtype)) || port.get_partial_shape().is_dynamic() || port.get_shape() != shape)
    throw Error("the file has another " + spec.name + " than its manifest says: export again");
}

class OpenVino : public Engine {
 public:
  OpenVino(const std::filesystem::path& file, const FileEntry& entry, int threads) : entry_(entry) {
    ov::AnyMap settings = {ov::hint::performance_mode(ov::hint::PerformanceMode::LATENCY), ov::hint::inference_precision(ov::element::f32)};
    if (threads > 0) settings.insert(ov::inference_num_threads(threads));
    const ov::CompiledModel compiled = core_.compile_model(core_.read_model(file.string()), "CPU", settings);
    for (const TensorSpec& spec : entry.inputs) check(compiled.input(spec.name), spec);
    for (const TensorSpec& spec : entry.outputs) check(compiled.output(spec.name), spec);
    request_ = const_cast<ov::CompiledModel&>(compiled).create_infer_request();
  }

  std::string name() const override { return std::string("openvino ") + ov::get_openvino_version().buildNumber; }

  Arrays run(const Array& input) override {
    try {
      ov::Tensor tensor = request_.get_tensor(entry_.inputs.front().name);
      if (tensor.get_byte_size() != input.bytes.size()) throw Error("an input of another size than the file takes", USAGE);
      std::memcpy(tensor.data(), input.bytes.data(), input.bytes.size());
      request_.infer();
      Arrays outputs;
      for (const TensorSpec& spec : entry_.outputs) {
        Array array(dtype_named(spec.dtype), spec.shape);
        std::memcpy(array.bytes.data(), request_.get_tensor(spec.name).data(), array.bytes.size());
        outputs.emplace(spec.name, std::move(array));
      }
      return outputs;
    } catch (const ov::Exception& error) {
      throw Error(std::string("OpenVINO cannot run the file: ") + error.what(), MISSING);
    }
  }

 private:
  FileEntry entry_;
  ov::Core core_;
  ov::InferRequest request_;
};

}  // namespace

std::unique_ptr<Engine> open_openvino(const std::filesystem::path& file, const FileEntry& entry, int threads) {
  try {
    return std::make_unique<OpenVino>(file, entry, threads);
  } catch (const ov::Exception& error) {
    throw Error("OpenVINO cannot load " + file.string() + ": " + error.what());
  }
}

}  // namespace gtp
