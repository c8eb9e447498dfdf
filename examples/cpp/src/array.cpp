#include "array.h"

#include <cstring>
#include <functional>
#include <numeric>

#include "error.h"

namespace gtp {

namespace {

struct Type {
  DType dtype;
  const char* name;
  std::size_t bytes;
};

constexpr Type TYPES[] = {{DType::UINT8, "uint8", 1},
                          {DType::INT32, "int32", 4},
                          {DType::INT64, "int64", 8},
                          {DType::FLOAT32, "float32", 4},
                          {DType::FLOAT64, "float64", 8}};

const Type& type(DType dtype) {
  for (const Type& entry : TYPES)
    if (entry.dtype == dtype) return entry;
  throw Error("unknown type of an array");
}

template <class Stored, class Wide>
std::vector<Wide> widened(const std::vector<std::uint8_t>& bytes) {
  std::vector<Stored> values(bytes.size() / sizeof(Stored));
  if (!values.empty()) std::memcpy(values.data(), bytes.data(), values.size() * sizeof(Stored));
  return {values.begin(), values.end()};
}

}  // namespace

DType dtype_named(const std::string& name) {
  for (const Type& entry : TYPES)
    if (name == entry.name) return entry.dtype;
  throw Error("a tensor has the type " + name + ", which this program does not read: export it with another precision");
}

const char* name_of(DType dtype) { return type(dtype).name; }
std::size_t bytes_of(DType dtype) { return type(dtype).bytes; }

Array::Array(DType kind, std::vector<std::size_t> sizes) : dtype(kind), shape(std::move(sizes)) {
  bytes.resize(rows() * row_bytes());
}

std::size_t Array::row_size() const {
  return shape.empty() ? 0 : std::accumulate(shape.begin() + 1, shape.end(), std::size_t{1}, std::multiplies<>());
}

std::vector<double> Array::numbers() const {
  switch (dtype) {
    case DType::UINT8: return widened<std::uint8_t, double>(bytes);
    case DType::INT32: return widened<std::int32_t, double>(bytes);
    case DType::INT64: return widened<std::int64_t, double>(bytes);
    case DType::FLOAT32: return widened<float, double>(bytes);
    default: return widened<double, double>(bytes);
  }
}

std::vector<std::int64_t> Array::integers() const {
  switch (dtype) {
    case DType::UINT8: return widened<std::uint8_t, std::int64_t>(bytes);
    case DType::INT32: return widened<std::int32_t, std::int64_t>(bytes);
    case DType::INT64: return widened<std::int64_t, std::int64_t>(bytes);
    default: throw Error("ids of tokens or classes are " + std::string(name_of(dtype)) + ", not whole numbers: export again");
  }
}

std::string described(DType dtype, const std::vector<std::size_t>& shape) {
  std::string text = name_of(dtype) + std::string(" (");
  for (std::size_t axis = 0; axis < shape.size(); ++axis) text += (axis ? ", " : "") + std::to_string(shape[axis]);
  return text + ")";
}

}  // namespace gtp
