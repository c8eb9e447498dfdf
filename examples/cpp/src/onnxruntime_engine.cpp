// ONNX Runtime on the CPU.
#include <cstring>
#include <onnxruntime_cxx_api.h>

#include "engine.h"
#include "error.h"

namespace gtp {

namespace {

ONNXTensorElementDataType type_of(DType dtype) {
  switch (dtype) {
    case DType::UINT8: return ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8;
    case DType::INT32: return ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32;
    case DType::INT64: return ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64;
    case DType::FLOAT32: return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
    default: return ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE;
  }
}

std::vector<std::int64_t> sides(const TensorSpec& spec) { return {spec.shape.begin(), spec.shape.end()}; }

void check(const Ort::TypeInfo& type, const TensorSpec& spec) {
  const auto info = type.GetTensorTypeAndShapeInfo();
  if (info.GetElementType() != type_of(dtype_named(spec.dtype)) || info.GetShape() != sides(spec))
    throw Error("the file has another " + spec.name + " than its manifest says: export again");
}

Ort::SessionOptions options(int threads) {
  Ort::SessionOptions settings;
  if (threads > 0) {
    settings.SetIntraOpNumThreads(threads);
    settings.SetInterOpNumThreads(1);
  }
  return settings;
}

class OnnxRuntime : public Engine {
 public:
  OnnxRuntime(const std::filesystem::path& file, const FileEntry& entry, int threads)
      : entry_(entry), environment_(ORT_LOGGING_LEVEL_ERROR, "gtp"), session_(environment_, file.c_str(), options(threads)) {
    check_all(session_.GetInputCount(), entry.inputs, &Ort::Session::GetInputNameAllocated, &Ort::Session::GetInputTypeInfo);
    check_all(session_.GetOutputCount(), entry.outputs, &Ort::Session::GetOutputNameAllocated, &Ort::Session::GetOutputTypeInfo);
    for (const TensorSpec& spec : entry_.outputs) names_.push_back(spec.name.c_str());
  }

  std::string name() const override { return "onnxruntime " + Ort::GetVersionString(); }

  Arrays run(const Array& input) override {
    const TensorSpec& spec = entry_.inputs.front();
    const std::vector<std::int64_t> shape = sides(spec);
    try {
      const Ort::Value tensor = Ort::Value::CreateTensor(memory_, const_cast<std::uint8_t*>(input.bytes.data()), input.bytes.size(),
                                                         shape.data(), shape.size(), type_of(input.dtype));
      const char* name = spec.name.c_str();
      const std::vector<Ort::Value> values = session_.Run(Ort::RunOptions{}, &name, &tensor, 1, names_.data(), names_.size());
      Arrays outputs;
      for (std::size_t index = 0; index < values.size(); ++index) {
        Array array(dtype_named(entry_.outputs[index].dtype), entry_.outputs[index].shape);
        std::memcpy(array.bytes.data(), values[index].GetTensorRawData(), array.bytes.size());
        outputs.emplace(entry_.outputs[index].name, std::move(array));
      }
      return outputs;
    } catch (const Ort::Exception& error) {
      throw Error(std::string("ONNX Runtime cannot run the file: ") + error.what(), MISSING);
    }
  }

 private:
  template <class Names, class Types>
  void check_all(std::size_t count, const std::vector<TensorSpec>& specs, Names name_at, Types type_at) {
    Ort::AllocatorWithDefaultOptions allocator;
    for (const TensorSpec& spec : specs) {
      std::size_t index = 0;
      while (index < count && (session_.*name_at)(index, allocator).get() != spec.name) ++index;
      if (index == count) throw Error("the file has no " + spec.name + ", which its manifest lists: export again");
      check((session_.*type_at)(index), spec);
    }
  }

  FileEntry entry_;
  Ort::Env environment_;
  Ort::Session session_;
  Ort::MemoryInfo memory_ = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  std::vector<const char*> names_;
};

}  // namespace

std::unique_ptr<Engine> open_onnxruntime(const std::filesystem::path& file, const FileEntry& entry, int threads) {
  try {
    return std::make_unique<OnnxRuntime>(file, entry, threads);
  } catch (const Ort::Exception& error) {
    throw Error("ONNX Runtime cannot load " + file.string() + ": " + error.what());
  }
}

}  // namespace gtp
