// An 8-bit RGB image, read from a PNG or JPEG file as docs/export.md says: the alpha channel is dropped without blending,
// 16-bit grey is divided by 257 and rounded, and the EXIF orientation is ignored.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

namespace gtp {

constexpr std::uint64_t MOST_PIXELS = 1 << 26;

struct Image {
  int width = 0, height = 0;
  std::vector<std::uint8_t> rgb;  // height rows of width pixels of three values

  Image() = default;
  Image(int wide, int high) : width(wide), height(high), rgb(static_cast<std::size_t>(wide) * static_cast<std::size_t>(high) * 3) {}
  std::uint8_t* row(int y) { return rgb.data() + static_cast<std::size_t>(y) * static_cast<std::size_t>(width) * 3; }
  const std::uint8_t* row(int y) const { return rgb.data() + static_cast<std::size_t>(y) * static_cast<std::size_t>(width) * 3; }
};

// Throws Error: no PNG or JPEG, damaged, a JPEG in CMYK, more than MOST_PIXELS.
Image read_image(const std::filesystem::path& path);

}  // namespace gtp
