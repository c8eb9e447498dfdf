#include "engine.h"

#include <algorithm>

#include "error.h"
#include "preprocessing.h"

namespace gtp {

namespace {

struct Opener {
  const char* name;
  std::unique_ptr<Engine> (*open)(const std::filesystem::path&, const FileEntry&, int);
};

const Opener ENGINES[] = {
#ifdef GTP_ONNXRUNTIME
    {"onnxruntime", open_onnxruntime},
#endif
#ifdef GTP_OPENVINO
    {"openvino", open_openvino},
#endif
};

}  // namespace

std::vector<std::string> engine_names() {
  std::vector<std::string> names;
  for (const Opener& engine : ENGINES) names.emplace_back(engine.name);
  return names;
}

std::unique_ptr<Engine> open_engine(const std::string& name, const std::filesystem::path& file, const FileEntry& entry, int threads) {
  if (file.extension() != ".onnx" || entry.inputs.size() != 1) throw Error(file.string() + " is no graph: give an .onnx file of the export", USAGE);
  for (const Opener& engine : ENGINES)
    if (name == engine.name) return engine.open(file, entry, threads);
  std::string names;
  for (const std::string& other : engine_names()) names += (names.empty() ? "" : ", ") + other;
  throw Error("this program was built without \"" + name + "\", with " + names + ": choose one of these, or configure it again", MISSING);
}

Arrays run_all(Engine& engine, const Array& images, const FileEntry& entry, const Preprocessing& settings) {
  Arrays all;
  const std::size_t batch = entry.batch(), count = images.rows();
  for (const TensorSpec& spec : entry.outputs) {
    std::vector<std::size_t> shape = spec.shape;
    shape.front() = count;
    all[spec.name] = Array(dtype_named(spec.dtype), shape);
  }
  for (std::size_t start = 0; start < count; start += batch) {
    const std::size_t taken = std::min(batch, count - start);
    const Arrays outputs = engine.run(input_of(images.bytes.data() + start * images.row_bytes(), taken, entry.inputs.front(), settings));
    for (auto& [name, array] : all)
      std::copy_n(outputs.at(name).bytes.begin(), taken * array.row_bytes(),
                  array.bytes.begin() + static_cast<std::ptrdiff_t>(start * array.row_bytes()));
  }
  return all;
}

}  // namespace gtp
