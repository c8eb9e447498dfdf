// Reads files that come from elsewhere: regular ones, of bounded size.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

namespace gtp {

// Return what a regular file holds. Throws Error: missing, no regular file, more than `limit` bytes.
std::vector<std::uint8_t> read_regular(const std::filesystem::path& path, std::uint64_t limit);

// Return the SHA-256 of a file in hexadecimal digits. Throws Error: it cannot be read, or it has another size.
std::string sha256_of(const std::filesystem::path& path, std::uint64_t size);

}  // namespace gtp
