#include "preprocessing.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "error.h"
#include "resize.h"

namespace gtp {

namespace {

struct Size {
  int width, height;
};

// Python rounds half to even, as nearbyint does.
int rounded(double value) { return static_cast<int>(std::nearbyint(value)); }

Size target(const Image& image, const Preprocessing& settings) {
  const int* resize = settings.resize;
  const double width = image.width, height = image.height;
  if (settings.mode == "squash") return {resize[1], resize[0]};
  if (settings.mode == "shortest") {
    const double longer = std::floor(resize[0] * std::max(width, height) / std::min(width, height));
    if (longer > static_cast<double>(MOST_PIXELS)) throw Error("the image is too long and thin: cut it first");
    return width <= height ? Size{resize[0], static_cast<int>(longer)} : Size{static_cast<int>(longer), resize[0]};
  }
  if (settings.mode != "contain" && settings.mode != "cover")
    throw Error("preprocessing.resize_mode is \"" + settings.mode + "\", which this program does not know: update it");
  const double ratios[] = {height / resize[0], width / resize[1]};
  const double ratio = settings.mode == "contain" ? std::max(ratios[0], ratios[1]) : std::min(ratios[0], ratios[1]);
  if (std::max(width, height) / ratio > static_cast<double>(MOST_PIXELS)) throw Error("the image is too long and thin: cut it first");
  return {std::max(1, rounded(width / ratio)), std::max(1, rounded(height / ratio))};
}

void check_work(const Image& image, Size size) {
  const auto product = [](int left, int right) { return static_cast<std::uint64_t>(left) * static_cast<std::uint64_t>(right); };
  const std::uint64_t most =
      std::max({product(size.width, size.height), product(size.width, image.height), product(image.width, size.height)});
  if (most > MOST_PIXELS) throw Error("the image is too long and thin to be resized: cut it first");
}

Image padded(const Image& image, const Preprocessing& settings) {
  Image canvas(std::max(image.width, settings.crop[1]), std::max(image.height, settings.crop[0]));
  for (std::size_t index = 0; index < canvas.rgb.size(); ++index) canvas.rgb[index] = settings.fill[index % 3];
  const int top = (canvas.height - image.height) / 2, left = (canvas.width - image.width) / 2;
  for (int y = 0; y < image.height; ++y) std::copy_n(image.row(y), image.width * 3, canvas.row(top + y) + left * 3);
  return canvas;
}

}  // namespace

Image pixels_of(const Image& image, const Preprocessing& settings) {
  if (settings.exif) throw Error("preprocessing.exif is true, and this program does not turn images: turn them before");
  const Size size = target(image, settings);
  check_work(image, size);
  Image whole = resized(image, size.width, size.height, settings.interpolation, settings.antialias);
  if (whole.width < settings.crop[1] || whole.height < settings.crop[0]) whole = padded(whole, settings);
  Image crop(settings.crop[1], settings.crop[0]);
  const int top = rounded((whole.height - crop.height) / 2.0), left = rounded((whole.width - crop.width) / 2.0);
  for (int y = 0; y < crop.height; ++y) std::copy_n(whole.row(top + y) + left * 3, crop.width * 3, crop.row(y));
  return crop;
}

Array input_of(const std::uint8_t* pixels, std::size_t count, const TensorSpec& spec, const Preprocessing& settings) {
  Array input(dtype_named(spec.dtype), spec.shape);
  const std::size_t area = static_cast<std::size_t>(settings.crop[0]) * static_cast<std::size_t>(settings.crop[1]);
  if (input.row_size() != area * 3 || count > input.rows()) throw Error("the input of the file is not of the crop's size: export again");
  if (input.dtype == DType::UINT8) {  // the graph normalises by itself
    std::memcpy(input.bytes.data(), pixels, count * area * 3);
    return input;
  }
  if (input.dtype != DType::FLOAT32) throw Error("the input of the file is " + spec.dtype + ", not float32 or uint8: export again");
  auto* values = reinterpret_cast<float*>(input.bytes.data());
  for (std::size_t image = 0; image < count; ++image)
    for (std::size_t channel = 0; channel < 3; ++channel)
      for (std::size_t place = 0; place < area; ++place)
        *values++ = (static_cast<float>(pixels[(image * area + place) * 3 + channel]) / 255.0f - settings.mean[channel]) /
                    settings.deviation[channel];
  return input;
}

}  // namespace gtp
