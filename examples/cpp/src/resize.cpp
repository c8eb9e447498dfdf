#include "resize.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include "error.h"

namespace gtp {

namespace {

constexpr double PI = 3.14159265358979323846;
constexpr int BITS = 22;  // of the fraction of a weight: 32 less 8 of a pixel and 2 for overshoot and sign, as in Pillow
constexpr double PILLOW = -0.5, OPENCV = -0.75;  // sharpness a of the cubic kernels

// A kernel weighs pixels by their distance from the place of the new one; it is 0 from `reach` on.
struct Kernel {
  double reach;
  std::function<double(double)> weight;
};

double sinc(double x) { return x == 0 ? 1 : std::sin(PI * x) / (PI * x); }

double hamming(double x) { return x < 1 ? sinc(x) * (0.54 + 0.46 * std::cos(PI * x)) : 0; }

// R. Keys, Cubic convolution interpolation for digital image processing (1981).
double keys(double x, double a) {
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}

Kernel kernel(const std::string& method, double sharpness) {
  if (method == "box") return {0.5, [](double x) { return x > -0.5 && x <= 0.5 ? 1.0 : 0.0; }};
  if (method == "bilinear") return {1, [](double x) { return std::max(0.0, 1 - std::abs(x)); }};
  if (method == "hamming") return {1, [](double x) { return hamming(std::abs(x)); }};
  if (method == "bicubic") return {2, [sharpness](double x) { return keys(std::abs(x), sharpness); }};
  if (method == "lanczos") return {3, [](double x) { return std::abs(x) < 3 ? sinc(x) * sinc(x / 3) : 0.0; }};
  throw Error("preprocessing.interpolation is \"" + method + "\", which this program does not know: update it");
}

// The old pixels that make one new pixel: from `first` on, one for each weight.
struct Taps {
  int first;
  std::vector<int> weights;  // fixed point, with BITS of fraction
};

// Place the kernel at the middle of each new pixel, as wide as the image shrinks, and make its weights add up to 1.
std::vector<Taps> antialiased(int old, int fresh, const Kernel& shape) {
  const double scale = static_cast<double>(old) / fresh, widening = std::max(scale, 1.0), reach = shape.reach * widening;
  std::vector<Taps> all;
  for (int place = 0; place < fresh; ++place) {
    const double middle = (place + 0.5) * scale;
    const int first = std::max(0, static_cast<int>(middle - reach + 0.5));
    const int end = std::min(old, static_cast<int>(middle + reach + 0.5));
    std::vector<double> weights;
    double sum = 0;
    for (int pixel = first; pixel < end; ++pixel) {
      weights.push_back(shape.weight((pixel - middle + 0.5) / widening));
      sum += weights.back();
    }
    Taps taps{first, {}};
    for (const double weight : weights)
      taps.weights.push_back(static_cast<int>(std::lround((sum != 0 ? weight / sum : weight) * (1 << BITS))));
    all.push_back(std::move(taps));
  }
  return all;
}

std::uint8_t level(std::int32_t sum) {
  return static_cast<std::uint8_t>(std::clamp((sum + (1 << (BITS - 1))) >> BITS, 0, 255));
}

Image across(const Image& image, const std::vector<Taps>& columns) {
  Image made(static_cast<int>(columns.size()), image.height);
  for (int y = 0; y < made.height; ++y) {
    std::uint8_t* target = made.row(y);
    for (const Taps& taps : columns)
      for (int channel = 0; channel < 3; ++channel) {
        const std::uint8_t* source = image.row(y) + taps.first * 3 + channel;
        std::int32_t sum = 0;
        for (const int weight : taps.weights) {
          sum += weight * *source;
          source += 3;
        }
        *target++ = level(sum);
      }
  }
  return made;
}

Image down(const Image& image, const std::vector<Taps>& rows) {
  Image made(image.width, static_cast<int>(rows.size()));
  std::vector<std::int32_t> sums(static_cast<std::size_t>(image.width) * 3);
  for (int y = 0; y < made.height; ++y) {
    const Taps& taps = rows[static_cast<std::size_t>(y)];
    std::fill(sums.begin(), sums.end(), 0);
    for (std::size_t tap = 0; tap < taps.weights.size(); ++tap) {
      const std::uint8_t* source = image.row(taps.first + static_cast<int>(tap));
      for (std::size_t index = 0; index < sums.size(); ++index) sums[index] += taps.weights[tap] * source[index];
    }
    std::transform(sums.begin(), sums.end(), made.row(y), level);
  }
  return made;
}

// The old pixel of each new one. The step is added again and again, as Pillow does: its rounding counts at ties.
std::vector<int> nearest_places(int old, int fresh) {
  std::vector<int> places;
  const double step = static_cast<double>(old) / fresh;
  double place = step * 0.5;
  for (int index = 0; index < fresh; ++index, place += step) places.push_back(std::min(static_cast<int>(place), old - 1));
  return places;
}

Image nearest(const Image& image, int width, int height) {
  Image made(width, height);
  const std::vector<int> columns = nearest_places(image.width, width), rows = nearest_places(image.height, height);
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x) std::copy_n(image.row(rows[y]) + columns[x] * 3, 3, made.row(y) + x * 3);
  return made;
}

// The old pixels, held at the edges, and the weights of one new pixel along an axis, without antialiasing.
struct PlainTaps {
  int places[4];
  float weights[4];
};

std::vector<PlainTaps> plain_taps(int old, int fresh, const Kernel& shape) {
  const int reach = static_cast<int>(shape.reach);
  std::vector<PlainTaps> all;
  for (int index = 0; index < fresh; ++index) {
    const double place = (index + 0.5) * (static_cast<double>(old) / fresh) - 0.5, lowest = std::floor(place);
    PlainTaps taps{};
    for (int tap = 0; tap < 2 * reach; ++tap) {
      const int offset = tap + 1 - reach;
      taps.places[tap] = std::clamp(static_cast<int>(lowest) + offset, 0, old - 1);
      taps.weights[tap] = static_cast<float>(shape.weight(place - lowest - offset));
    }
    all.push_back(taps);
  }
  return all;
}

// Half-pixel centres; rows first, in float32, rounded once, half to even (gtp_runtime.images.resizing).
Image plain(const Image& image, int width, int height, const Kernel& shape) {
  Image made(width, height);
  const std::vector<PlainTaps> columns = plain_taps(image.width, width, shape), rows = plain_taps(image.height, height, shape);
  const int count = 2 * static_cast<int>(shape.reach);
  std::vector<float> high(static_cast<std::size_t>(image.width) * 3);
  for (int y = 0; y < height; ++y) {
    const PlainTaps& taps = rows[static_cast<std::size_t>(y)];
    std::fill(high.begin(), high.end(), 0.0f);
    for (int tap = 0; tap < count; ++tap) {
      const std::uint8_t* source = image.row(taps.places[tap]);
      for (std::size_t index = 0; index < high.size(); ++index) high[index] += taps.weights[tap] * source[index];
    }
    for (int x = 0; x < width * 3; ++x) {
      const PlainTaps& across = columns[static_cast<std::size_t>(x / 3)];
      float sum = 0;
      for (int tap = 0; tap < count; ++tap) sum += across.weights[tap] * high[static_cast<std::size_t>(across.places[tap] * 3 + x % 3)];
      made.row(y)[x] = static_cast<std::uint8_t>(std::clamp(std::nearbyint(sum), 0.0f, 255.0f));
    }
  }
  return made;
}

}  // namespace

Image resized(const Image& image, int width, int height, const std::string& method, bool antialias) {
  if (image.width == width && image.height == height) return image;
  if (!antialias) {
    if (method != "bilinear" && method != "bicubic") throw Error("preprocessing.antialias false is for bilinear and bicubic: export again");
    return plain(image, width, height, kernel(method, OPENCV));
  }
  if (method == "nearest") return nearest(image, width, height);
  const Kernel shape = kernel(method, PILLOW);
  const Image wide = image.width == width ? image : across(image, antialiased(image.width, width, shape));
  return wide.height == height ? wide : down(wide, antialiased(image.height, height, shape));
}

}  // namespace gtp
