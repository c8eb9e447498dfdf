// An inference engine that runs one file. OpenVINO and ONNX Runtime are each there if they were found when this was built.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "array.h"
#include "manifest.h"

namespace gtp {

class Engine {
 public:
  virtual ~Engine() = default;

  // Name and version.
  virtual std::string name() const = 0;

  // Run one batch: the input to every output by name.
  virtual Arrays run(const Array& input) = 0;
};

// Names of the engines that this program was built with, the default first.
std::vector<std::string> engine_names();

// Open a file, which must be checked, with an engine. Throws Error: it is not there, cannot load the file, or finds other tensors in it than
// the manifest says.
std::unique_ptr<Engine> open_engine(const std::string& name, const std::filesystem::path& file, const FileEntry& entry, int threads);

// Run any number of images, (N, H, W, 3) uint8 of the crop's size, batch by batch; zeros fill the last batch.
Arrays run_all(Engine& engine, const Array& images, const FileEntry& entry, const Preprocessing& settings);

#ifdef GTP_OPENVINO
std::unique_ptr<Engine> open_openvino(const std::filesystem::path& file, const FileEntry& entry, int threads);
#endif
#ifdef GTP_ONNXRUNTIME
std::unique_ptr<Engine> open_onnxruntime(const std::filesystem::path& file, const FileEntry& entry, int threads);
#endif

}  // namespace gtp
