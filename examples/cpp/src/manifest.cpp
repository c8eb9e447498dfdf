#include "manifest.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <tuple>

#include "error.h"
#include "files.h"

namespace gtp {

namespace {

using Json = nlohmann::json;

constexpr std::uint64_t LARGEST = 1 << 24;  // bytes of a manifest
constexpr double MOST_BYTES = 4294967296.0;  // of a tensor
constexpr int MAX_SIDE = 4096;               // pixels
constexpr char MAJOR[] = "2.";               // of schema_version

[[noreturn]] void refuse(const std::string& what) { throw Error(what + ": export again"); }

bool is_plain(const std::string& name) {
  return !name.empty() && name != "." && name != ".." && name.find_first_of(std::string("/\\\0", 3)) == std::string::npos;
}

std::string text_or_none(const Json& values, const char* key) {
  const auto found = values.find(key);
  return found == values.end() || found->is_null() ? "" : found->get<std::string>();
}

TensorSpec tensor(const Json& values) {
  TensorSpec spec{values.at("name"), values.at("dtype"), {}};
  double bytes = 8;  // of the widest type: a file of a type that is unknown here is refused when it is opened
  for (const Json& side : values.at("shape")) {
    if (!side.is_number_integer() || side.get<std::int64_t>() < 1) refuse("tensor " + spec.name + " has no static shape");
    spec.shape.push_back(side.get<std::size_t>());
    bytes *= static_cast<double>(spec.shape.back());
  }
  if (spec.shape.empty() || bytes > MOST_BYTES) refuse("tensor " + spec.name + " has a shape that cannot be true");
  return spec;
}

FileEntry file_entry(const Json& values) {
  FileEntry entry;
  entry.role = values.at("role");
  entry.sha256 = values.at("sha256");
  entry.size = values.at("size").get<std::uint64_t>();
  entry.precision = text_or_none(values, "precision");
  entry.external_data = text_or_none(values, "external_data");
  entry.macs = values.value("macs", 0.0);
  for (const Json& spec : values.value("inputs", Json::array())) entry.inputs.push_back(tensor(spec));
  for (const Json& spec : values.value("outputs", Json::array())) entry.outputs.push_back(tensor(spec));
  if (!entry.external_data.empty() && !is_plain(entry.external_data)) refuse("external_data is no plain name of a file");
  return entry;
}

int side(const Json& values, std::size_t index, const char* what) {
  const std::int64_t pixels = values.at(index).get<std::int64_t>();
  if (pixels < 1 || pixels > MAX_SIDE) refuse(std::string("preprocessing.") + what + " is no size in pixels");
  return static_cast<int>(pixels);
}

Preprocessing preprocessing(const Json& values) {
  Preprocessing made{};
  for (std::size_t axis = 0; axis < 2; ++axis) {
    made.resize[axis] = side(values.at("resize"), axis, "resize");
    made.crop[axis] = side(values.at("crop"), axis, "crop");
  }
  made.mode = values.at("resize_mode");
  made.interpolation = values.at("interpolation");
  for (std::size_t channel = 0; channel < 3; ++channel) {
    made.mean[channel] = values.at("mean").at(channel);
    made.deviation[channel] = values.at("std").at(channel);
    const int fill = values.at("fill").at(channel);
    if (!std::isfinite(made.mean[channel]) || !(made.deviation[channel] >= std::numeric_limits<float>::min()) || fill < 0 || fill > 255)
      refuse("preprocessing has a mean, std or fill that cannot be true");
    made.fill[channel] = static_cast<std::uint8_t>(fill);
  }
  made.exif = values.value("exif", false);
  made.antialias = values.value("antialias", true);
  return made;
}

Manifest converted(const Json& values) {
  Manifest manifest;
  manifest.name = values.at("model").at("name");
  manifest.activation = values.at("model").value("activation", "softmax");
  manifest.classes = values.at("model").at("num_classes");
  manifest.weights = values.at("weights").at("source");
  for (const Json& layer : values.at("layers")) manifest.num_prop.push_back(layer.at("num_prop").get<std::size_t>());
  manifest.preprocessing = preprocessing(values.at("preprocessing"));
  if (const auto labels = values.find("labels"); labels != values.end() && !labels->is_null())
    manifest.labels = labels->get<std::vector<std::string>>();
  const std::size_t named = manifest.classes == 1 ? 2 : static_cast<std::size_t>(std::max(manifest.classes, 0));
  if (!manifest.labels.empty() && manifest.labels.size() != named) refuse("labels are not one for each class");
  for (const auto& [name, entry] : values.at("files").items()) {
    if (!is_plain(name)) refuse("files has a name with a folder in it");
    manifest.files[name] = file_entry(entry);
  }
  return manifest;
}

}  // namespace

std::vector<TensorSpec> FileEntry::answers() const {
  std::vector<TensorSpec> specs;
  for (const TensorSpec& spec : outputs)
    if (spec.name != "propagated" && spec.name != "received_by") specs.push_back(spec);
  return specs;
}

const FileEntry& Manifest::entry(const std::string& file) const {
  const auto found = files.find(file);
  if (found == files.end()) refuse("model.json does not list " + file);
  return found->second;
}

std::string Manifest::dense_of(const std::string& file) const {
  const FileEntry& own = entry(file);
  const std::string suffix = std::filesystem::path(file).extension().string();
  std::vector<std::tuple<bool, std::string>> twins;  // of the same precision first
  for (const auto& [name, other] : files)
    if (other.role == "dense" && std::filesystem::path(name).extension() == suffix && !other.inputs.empty() &&
        other.batch() == own.batch())
      twins.emplace_back(other.precision != own.precision, name);
  return own.role == "dense" || twins.empty() ? "" : std::get<1>(*std::min_element(twins.begin(), twins.end()));
}

std::filesystem::path Manifest::checked(const std::string& file) const {
  const std::string& weights = entry(file).external_data;
  for (const std::string& name : {file, weights.empty() ? file : weights})
    if (sha256_of(directory / name, entry(name).size) != entry(name).sha256)
      refuse((directory / name).string() + " is not the file that its manifest describes (sha256 differs)");
  return directory / file;
}

Manifest read_manifest(const std::filesystem::path& directory) {
  const std::filesystem::path path = directory / "model.json";
  const std::vector<std::uint8_t> content = read_regular(path, LARGEST);
  try {
    const Json values = Json::parse(content);
    const std::string version = values.is_object() ? values.value("schema_version", "") : "";
    if (version.rfind(MAJOR, 0) != 0)
      throw Error(path.string() + " has schema version \"" + version + "\", and this program reads 2.x: export again");
    Manifest manifest = converted(values);
    manifest.directory = directory;
    return manifest;
  } catch (const Json::exception& error) {
    throw Error(path.string() + " is not what docs/model.schema.json says (" + error.what() + "): export again");
  }
}

}  // namespace gtp
