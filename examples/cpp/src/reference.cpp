#include "reference.h"

#include <string>

#include "error.h"
#include "npz.h"

namespace gtp {

namespace {

const std::string NAME = "reference.npz", TWIN = "dense_";

[[noreturn]] void refuse(const std::string& what) { throw Error(NAME + " cannot be used (" + what + "): export again"); }

const Array& need(const Arrays& arrays, const std::string& name) {
  const auto found = arrays.find(name);
  if (found == arrays.end()) refuse("it has no " + name);
  return found->second;
}

Array ids(const Arrays& arrays, const std::string& name, std::size_t images) {
  const Array& array = need(arrays, name);
  if (array.shape.size() != 2 || array.rows() != images) refuse(name + " is " + described(array.dtype, array.shape));
  array.integers();  // throws where they are none
  return array;
}

LayerReference layer_of(const Arrays& arrays, const std::string& prefix, std::size_t images, std::size_t tokens) {
  LayerReference layer{ids(arrays, prefix + "propagated", images), need(arrays, prefix + "gap").numbers(), {}};
  if (arrays.count(prefix + "received_by")) layer.received_by = ids(arrays, prefix + "received_by", images);
  const bool fits = layer.gap.size() == images && (!layer.received_by || layer.received_by->shape == layer.propagated.shape);
  if (!fits || layer.propagated.shape[1] != tokens) refuse("its layers do not fit each other or the manifest");
  return layer;
}

void check_fits(const Reference& reference, const Manifest& manifest, const FileEntry& entry) {
  const std::vector<std::size_t>& shape = reference.images.shape;
  const int* crop = manifest.preprocessing.crop;
  if (reference.images.dtype != DType::UINT8 || shape.size() != 4 || !shape[0] || shape[1] != static_cast<std::size_t>(crop[0]) ||
      shape[2] != static_cast<std::size_t>(crop[1]) || shape[3] != 3)
    refuse("its images are not of the crop's size");
  if (reference.outputs.size() != entry.answers().size()) refuse("its outputs are not those of the manifest");
  for (const TensorSpec& spec : entry.answers()) {
    std::vector<std::size_t> wanted = spec.shape;
    wanted.front() = reference.images.rows();
    if (need(reference.outputs, spec.name).shape != wanted) refuse(spec.name + " has another shape than in the manifest");
    if (!reference.dense_outputs.empty() && need(reference.dense_outputs, spec.name).shape != wanted)
      refuse(TWIN + spec.name + " has another shape than in the manifest");
  }
}

}  // namespace

Reference read_reference(const Manifest& manifest, const FileEntry& entry) {
  const Arrays arrays = read_npz(manifest.checked(NAME));
  Reference reference;
  reference.images = need(arrays, "images");
  for (const auto& [name, array] : arrays) {
    const bool of_layer = name.find('/') != std::string::npos, is_twin = name.rfind(TWIN, 0) == 0;
    if (of_layer || name == "images") continue;
    if (name == "labels")
      reference.labels = array.integers();
    else
      (is_twin ? reference.dense_outputs : reference.outputs)[is_twin ? name.substr(TWIN.size()) : name] = array;
  }
  check_fits(reference, manifest, entry);
  const std::size_t images = reference.images.rows();
  if (!reference.labels.empty() && reference.labels.size() != images) refuse("labels are not one for each image");
  if (!arrays.count("layer0/gap")) return reference;
  for (std::size_t layer = 0; layer < manifest.num_prop.size(); ++layer)
    reference.layers.push_back(layer_of(arrays, "layer" + std::to_string(layer) + "/", images, manifest.num_prop[layer]));
  reference.tokens = ids(arrays, "layer0/kept", images).shape[1] + reference.layers.front().propagated.shape[1];
  return reference;
}

}  // namespace gtp
