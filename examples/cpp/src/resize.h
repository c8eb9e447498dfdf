// Resizing of 8-bit RGB images as Pillow does it, and without antialiasing as OpenCV does it.
#pragma once

#include <string>

#include "image.h"

namespace gtp {

// Resize by "bilinear", "bicubic", "lanczos", "box", "hamming" or "nearest". The filter widens as the image shrinks, as
// Pillow's does, unless `antialias` is false, which is for "bilinear" and "bicubic". Throws Error for another method.
Image resized(const Image& image, int width, int height, const std::string& method, bool antialias);

}  // namespace gtp
