// From an image to the model's input, as docs/export.md says.
#pragma once

#include "array.h"
#include "image.h"
#include "manifest.h"

namespace gtp {

// Return the pixels that the model sees: resized, padded and cut. Throws Error: an image that is too long and thin, a
// setting that this program does not have (exif).
Image pixels_of(const Image& image, const Preprocessing& settings);

// Return one batch of input for a file: `count` images of the crop's size, row by row from `pixels`; zeros fill the rest.
Array input_of(const std::uint8_t* pixels, std::size_t count, const TensorSpec& spec, const Preprocessing& settings);

}  // namespace gtp
