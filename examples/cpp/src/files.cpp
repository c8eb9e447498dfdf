#include "files.h"

#include <openssl/evp.h>

#include <fstream>
#include <memory>

#include "error.h"

namespace gtp {

namespace {

std::ifstream opened(const std::filesystem::path& path) {
  std::error_code problem;
  if (!std::filesystem::exists(path, problem)) throw Error("no file " + path.string() + ": copy it there, or export again");
  if (!std::filesystem::is_regular_file(path, problem)) throw Error(path.string() + " is no regular file: give a file");
  std::ifstream file(path, std::ios::binary);
  if (!file) throw Error("cannot read " + path.string() + ": check that this user may read it");
  return file;
}

}  // namespace

std::vector<std::uint8_t> read_regular(const std::filesystem::path& path, std::uint64_t limit) {
  std::ifstream file = opened(path);
  const std::uint64_t size = std::filesystem::file_size(path);
  if (size > limit)
    throw Error(path.string() + " has " + std::to_string(size) + " bytes, at most " + std::to_string(limit) + " are read");
  std::vector<std::uint8_t> content(size);
  file.read(reinterpret_cast<char*>(content.data()), static_cast<std::streamsize>(size));
  if (static_cast<std::uint64_t>(file.gcount()) != size) throw Error("cannot read all of " + path.string() + ": try again");
  return content;
}

std::string sha256_of(const std::filesystem::path& path, std::uint64_t size) {
  std::ifstream file = opened(path);
  if (const std::uint64_t actual = std::filesystem::file_size(path); actual != size)
    throw Error(path.string() + " is not the file that its manifest describes (" + std::to_string(actual) +
                " bytes, not " + std::to_string(size) + "): export again");
  const std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context(EVP_MD_CTX_new(), EVP_MD_CTX_free);
  if (!context || !EVP_DigestInit_ex(context.get(), EVP_sha256(), nullptr)) throw Error("libcrypto has no SHA-256 here");
  std::vector<char> block(1 << 20);
  while (file.read(block.data(), static_cast<std::streamsize>(block.size())) || file.gcount())
    EVP_DigestUpdate(context.get(), block.data(), static_cast<std::size_t>(file.gcount()));
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int length = 0;
  EVP_DigestFinal_ex(context.get(), digest, &length);
  std::string text;
  for (unsigned int index = 0; index < length; ++index)
    for (const int shift : {4, 0}) text += "0123456789abcdef"[(digest[index] >> shift) & 15];
  return text;
}

}  // namespace gtp
