// The manifest, model.json: what an application needs of it. docs/model.schema.json is the whole of it.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "array.h"

namespace gtp {

struct TensorSpec {
  std::string name, dtype;
  std::vector<std::size_t> shape;
};

struct FileEntry {
  std::string role, sha256, precision, external_data;
  std::uint64_t size = 0;
  double macs = 0;  // for one image; 0 if unknown
  std::vector<TensorSpec> inputs, outputs;

  std::size_t batch() const { return inputs.front().shape.front(); }
  std::vector<TensorSpec> answers() const;  // outputs without the ids of the tokens that left
};

struct Preprocessing {
  int resize[2], crop[2];  // height, width
  std::string mode, interpolation;
  float mean[3], deviation[3];
  std::uint8_t fill[3];
  bool exif = false, antialias = true;
};

struct Manifest {
  std::filesystem::path directory;
  std::string name, activation, weights;  // weights: "pretrained", "file", "random"
  int classes = 0;                        // 0: features instead of logits
  std::vector<std::string> labels;        // empty if unknown
  std::vector<std::size_t> num_prop;      // tokens that leave in each layer
  Preprocessing preprocessing;
  std::map<std::string, FileEntry> files;

  // Return a file's entry. Throws Error where the manifest does not list it.
  const FileEntry& entry(const std::string& file) const;
  // Return the dense baseline of a file, "" if there is none.
  std::string dense_of(const std::string& file) const;
  // Return the path of a file, and that of the weights beside it, once their sizes and SHA-256 are those listed.
  std::filesystem::path checked(const std::string& file) const;
};

// Read DIR/model.json. Throws Error: missing, damaged, of another major version, values that cannot be true.
Manifest read_manifest(const std::filesystem::path& directory);

}  // namespace gtp
