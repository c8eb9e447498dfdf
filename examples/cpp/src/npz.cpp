#include "npz.h"

#include <zlib.h>

#include <algorithm>
#include <cstring>

#include "error.h"
#include "files.h"

namespace gtp {

namespace {

constexpr std::uint64_t LARGEST = 1 << 30;  // bytes of the file, and of all arrays
constexpr std::size_t END_BYTES = 22, ENTRY_BYTES = 46, LOCAL_BYTES = 30;
constexpr std::uint64_t END = 0x06054b50, ENTRY = 0x02014b50, LOCAL = 0x04034b50;
constexpr std::uint64_t STORED = 0, DEFLATED = 8;

[[noreturn]] void refuse(const std::string& what) { throw Error("the parity pack cannot be used (" + what + "): export again"); }

// Bytes whose every access is checked.
class Span {
 public:
  Span(const std::uint8_t* start, std::size_t size) : start_(start), size_(size) {}

  std::size_t size() const { return size_; }
  const std::uint8_t* data() const { return start_; }

  Span part(std::size_t offset, std::size_t count) const {
    if (offset > size_ || count > size_ - offset) refuse("it ends too early");
    return {start_ + offset, count};
  }
  std::uint64_t number(std::size_t offset, std::size_t count) const {
    const Span field = part(offset, count);
    std::uint64_t value = 0;
    for (std::size_t index = count; index-- > 0;) value = value << 8 | field.start_[index];
    return value;
  }
  std::string text(std::size_t offset, std::size_t count) const {
    const Span field = part(offset, count);
    return {reinterpret_cast<const char*>(field.start_), count};
  }

 private:
  const std::uint8_t* start_;
  std::size_t size_;
};

struct Member {
  std::string name;
  std::uint64_t method, packed, unpacked, offset;
};

std::vector<Member> members(const Span& file) {
  if (file.size() < END_BYTES) refuse("it is no .npz archive");
  std::size_t end = file.size() - END_BYTES;  // numpy writes no comment, which could follow
  if (file.number(end, 4) != END) refuse("it is no .npz archive");
  std::vector<Member> list;
  std::size_t place = file.number(end + 16, 4);
  for (std::uint64_t left = file.number(end + 10, 2); left > 0; --left) {
    if (file.number(place, 4) != ENTRY) refuse("its directory is damaged");
    const std::uint64_t name = file.number(place + 28, 2), extra = file.number(place + 30, 2), comment = file.number(place + 32, 2);
    list.push_back({file.text(place + ENTRY_BYTES, name), file.number(place + 10, 2), file.number(place + 20, 4),
                    file.number(place + 24, 4), file.number(place + 42, 4)});
    place += ENTRY_BYTES + name + extra + comment;
  }
  return list;
}

std::vector<std::uint8_t> inflated(const Span& packed, std::uint64_t size) {
  std::vector<std::uint8_t> content(size);
  z_stream stream{};
  if (inflateInit2(&stream, -MAX_WBITS) != Z_OK) refuse("zlib does not start");
  stream.next_in = const_cast<Bytef*>(packed.data());
  stream.avail_in = static_cast<uInt>(packed.size());
  stream.next_out = content.data();
  stream.avail_out = static_cast<uInt>(size);
  const int outcome = inflate(&stream, Z_FINISH);
  const bool whole = outcome == Z_STREAM_END && stream.total_out == size;
  inflateEnd(&stream);
  if (!whole) refuse("a member is damaged");
  return content;
}

std::vector<std::uint8_t> content_of(const Span& file, const Member& member) {
  if (file.number(member.offset, 4) != LOCAL) refuse("a member is damaged");
  const std::uint64_t names = file.number(member.offset + 26, 2) + file.number(member.offset + 28, 2);
  const Span packed = file.part(member.offset + LOCAL_BYTES + names, member.packed);
  if (member.method == DEFLATED) return inflated(packed, member.unpacked);
  if (member.method != STORED || member.packed != member.unpacked) refuse(member.name + " is packed in another way than numpy's");
  return {packed.data(), packed.data() + packed.size()};
}

// Return what follows a key of the header, a Python dictionary as text: "'<f4'", "False", "(8, 10)".
std::string value_of(const std::string& header, const std::string& key) {
  const std::size_t found = header.find("'" + key + "':");
  if (found == std::string::npos) refuse("a header has no " + key);
  const std::size_t start = header.find_first_not_of(' ', found + key.size() + 3);
  const std::size_t end = start == std::string::npos ? start : header.find_first_of(header[start] == '(' ? ")" : ",}", start);
  if (end == std::string::npos) refuse("a header is damaged");
  return header.substr(start, end - start);
}

DType dtype_of(const std::string& descr) {
  const std::pair<const char*, DType> types[] = {{"'|u1'", DType::UINT8},
                                                 {"'<i4'", DType::INT32},
                                                 {"'<i8'", DType::INT64},
                                                 {"'<f4'", DType::FLOAT32},
                                                 {"'<f8'", DType::FLOAT64}};
  for (const auto& [name, dtype] : types)
    if (descr == name) return dtype;
  refuse("an array has the type " + descr);
}

std::vector<std::size_t> shape_of(const std::string& text) {
  std::vector<std::size_t> shape;
  for (std::size_t place = 0; (place = text.find_first_of("0123456789", place)) != std::string::npos;) {
    const std::size_t end = std::min(text.find_first_not_of("0123456789", place), text.size());
    if (end - place > 9) refuse("an array is too large");
    shape.push_back(std::stoul(text.substr(place, end - place)));
    place = end;
  }
  return shape;
}

Array array_of(const std::vector<std::uint8_t>& content) {
  const Span npy(content.data(), content.size());
  const std::uint64_t version = npy.number(6, 1);
  if (npy.text(0, 6) != "\x93NUMPY" || version < 1 || version > 2) refuse("a member is no array of numpy's");
  const std::size_t start = version == 1 ? 10 : 12;
  const std::size_t length = npy.number(8, start - 8);
  const std::string header = npy.text(start, length);
  if (value_of(header, "fortran_order") != "False") refuse("an array is stored by columns");
  Array array;
  array.dtype = dtype_of(value_of(header, "descr"));
  array.shape = shape_of(value_of(header, "shape"));
  std::uint64_t bytes = bytes_of(array.dtype);
  for (const std::size_t side : array.shape)
    if ((bytes *= side) > LARGEST) refuse("an array is too large");
  if (start + length + bytes != content.size()) refuse("an array is not as large as its shape says");
  const Span values = npy.part(start + length, bytes);
  array.bytes.assign(values.data(), values.data() + values.size());
  return array;
}

}  // namespace

Arrays read_npz(const std::filesystem::path& path) {
  const std::vector<std::uint8_t> bytes = read_regular(path, LARGEST);
  const Span file(bytes.data(), bytes.size());
  Arrays arrays;
  std::uint64_t total = 0;
  for (const Member& member : members(file)) {
    if ((total += member.unpacked) > LARGEST) refuse("it unpacks to more than 1 GiB");
    const std::string suffix = ".npy";
    const std::string name = member.name.substr(0, member.name.rfind(suffix));
    arrays[name] = array_of(content_of(file, member));
  }
  return arrays;
}

}  // namespace gtp
