// The parity pack, reference.npz: images, and what eager PyTorch made of them (gtp_runtime/reference.py).
#pragma once

#include <optional>
#include <vector>

#include "array.h"
#include "manifest.h"

namespace gtp {

struct LayerReference {
  Array propagated;                  // (N, P) ids of the tokens that left
  std::vector<double> gap;           // (N,) distance to a tie
  std::optional<Array> received_by;  // (N, P) where methods merge
};

struct Reference {
  Array images;                  // (N, H, W, 3) uint8
  Arrays outputs;                // (N, ...) by name
  Arrays dense_outputs;          // those of the dense model; empty without one
  std::vector<std::int64_t> labels;  // (N,), empty if unknown
  std::vector<LayerReference> layers;
  std::size_t tokens = 0;        // image tokens before the first layer
};

// Read the parity pack of an export. Throws Error: missing, changed, damaged, of another export than `entry` belongs to.
Reference read_reference(const Manifest& manifest, const FileEntry& entry);

}  // namespace gtp
