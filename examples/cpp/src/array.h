// An array of any shape, as it goes into an engine, comes out of it, and stands in the parity pack.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace gtp {

enum class DType { UINT8, INT32, INT64, FLOAT32, FLOAT64 };

// Return the type of numpy's name, "float32". Throws Error for one that no export of ours has as an input or output.
DType dtype_named(const std::string& name);
const char* name_of(DType dtype);
std::size_t bytes_of(DType dtype);

struct Array {
  DType dtype = DType::FLOAT32;
  std::vector<std::size_t> shape;
  std::vector<std::uint8_t> bytes;  // row by row, little-endian

  Array() = default;
  Array(DType dtype, std::vector<std::size_t> shape);  // zeros

  std::size_t rows() const { return shape.empty() ? 0 : shape.front(); }
  std::size_t row_size() const;  // values of a row
  std::size_t row_bytes() const { return row_size() * bytes_of(dtype); }
  std::vector<double> numbers() const;         // all values
  std::vector<std::int64_t> integers() const;  // all values; throws Error for floats
};

using Arrays = std::map<std::string, Array>;

// Return "float32 (1, 10)".
std::string described(DType dtype, const std::vector<std::size_t>& shape);

}  // namespace gtp
