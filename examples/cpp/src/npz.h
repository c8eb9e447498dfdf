// Reads numpy's archives (.npz): a zip file of stored or deflated .npy members.
// Sources: PKWARE's APPNOTE.TXT; numpy.lib.format, versions 1.0 and 2.0.
#pragma once

#include <filesystem>

#include "array.h"

namespace gtp {

// Return the arrays of an archive by name. Throws Error: no such archive, damaged, more than 1 GiB of arrays.
Arrays read_npz(const std::filesystem::path& path);

}  // namespace gtp
