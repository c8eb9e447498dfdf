#include "image.h"

#include <csetjmp>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>

#include <jpeglib.h>
#include <png.h>

#include "error.h"
#include "files.h"

// libpng and libjpeg report errors by longjmp: what a decoder allocates belongs to an object outside of it.

namespace gtp {

namespace {

constexpr std::uint64_t LARGEST = 1 << 29;  // bytes of a file

struct Source {
  const std::uint8_t* next;
  std::size_t left;
};

struct Outcome {
  Image image;
  std::vector<png_bytep> rows;
  char problem[JMSG_LENGTH_MAX] = "";
};

bool fits(std::uint64_t width, std::uint64_t height) { return width && height && width * height <= MOST_PIXELS; }

void make_room(Outcome& outcome, std::uint64_t width, std::uint64_t height) {
  outcome.image = Image(static_cast<int>(width), static_cast<int>(height));
  for (int y = 0; y < outcome.image.height; ++y) outcome.rows.push_back(outcome.image.row(y));
}

void fail_png(png_structp png, png_const_charp message) {
  auto& outcome = *static_cast<Outcome*>(png_get_error_ptr(png));
  std::snprintf(outcome.problem, sizeof outcome.problem, "%s", message);
  png_longjmp(png, 1);
}

void read_png_bytes(png_structp png, png_bytep target, png_size_t count) {
  auto& source = *static_cast<Source*>(png_get_io_ptr(png));
  if (count > source.left) png_error(png, "it ends too early");
  std::memcpy(target, source.next, count);
  source.next += count;
  source.left -= count;
}

// Only grey of 16 bits is scaled: of colours Pillow takes the high bytes.
void ask_for_rgb(png_structp png, png_infop info) {
  const int colour = png_get_color_type(png, info);
  if (colour == PNG_COLOR_TYPE_GRAY) png_set_scale_16(png);
  png_set_strip_16(png);
  if (colour == PNG_COLOR_TYPE_PALETTE) png_set_palette_to_rgb(png);
  if (!(colour & PNG_COLOR_MASK_COLOR)) {
    png_set_expand_gray_1_2_4_to_8(png);
    png_set_gray_to_rgb(png);
  }
  png_set_strip_alpha(png);
  png_set_interlace_handling(png);
  png_read_update_info(png, info);
}

void decode_png(png_structp png, png_infop info, Outcome& outcome) {
  if (setjmp(png_jmpbuf(png))) return;
  png_read_info(png, info);
  if (!fits(png_get_image_width(png, info), png_get_image_height(png, info))) png_error(png, "it has too many pixels");
  ask_for_rgb(png, info);
  make_room(outcome, png_get_image_width(png, info), png_get_image_height(png, info));
  if (png_get_rowbytes(png, info) != static_cast<std::size_t>(outcome.image.width) * 3) png_error(png, "it has an unknown form");
  png_read_image(png, outcome.rows.data());
  png_read_end(png, nullptr);
}

void read_png(Source source, Outcome& outcome) {
  png_structp png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &outcome, fail_png, [](png_structp, png_const_charp) {});
  png_infop info = png ? png_create_info_struct(png) : nullptr;
  if (!info) throw Error("libpng does not start");
  png_set_read_fn(png, &source, read_png_bytes);
  decode_png(png, info, outcome);
  png_destroy_read_struct(&png, &info, nullptr);
}

struct JpegErrors {
  jpeg_error_mgr manager;  // first: libjpeg knows this part alone
  std::jmp_buf back;
  Outcome* outcome;
};

void fail_jpeg(j_common_ptr jpeg) {
  auto& errors = *reinterpret_cast<JpegErrors*>(jpeg->err);
  errors.manager.format_message(jpeg, errors.outcome->problem);
  std::longjmp(errors.back, 1);
}

void decode_jpeg(jpeg_decompress_struct& jpeg, JpegErrors& errors, const Source& source) {
  Outcome& outcome = *errors.outcome;
  if (setjmp(errors.back)) return;
  jpeg_mem_src(&jpeg, const_cast<unsigned char*>(source.next), static_cast<unsigned long>(source.left));
  jpeg_read_header(&jpeg, TRUE);
  const bool has_colours = jpeg.jpeg_color_space == JCS_CMYK || jpeg.jpeg_color_space == JCS_YCCK;
  if (has_colours || !fits(jpeg.image_width, jpeg.image_height)) {
    std::snprintf(outcome.problem, sizeof outcome.problem, has_colours ? "it is in CMYK" : "it has too many pixels");
    return;
  }
  jpeg.out_color_space = JCS_RGB;
  jpeg_start_decompress(&jpeg);
  make_room(outcome, jpeg.output_width, jpeg.output_height);
  while (jpeg.output_scanline < jpeg.output_height) jpeg_read_scanlines(&jpeg, &outcome.rows[jpeg.output_scanline], 1);
  jpeg_finish_decompress(&jpeg);
}

void read_jpeg(const Source& source, Outcome& outcome) {
  jpeg_decompress_struct jpeg{};
  JpegErrors errors{};
  jpeg.err = jpeg_std_error(&errors.manager);
  errors.manager.error_exit = fail_jpeg;
  errors.manager.emit_message = [](j_common_ptr, int) {};
  errors.outcome = &outcome;
  jpeg_create_decompress(&jpeg);
  decode_jpeg(jpeg, errors, source);
  jpeg_destroy_decompress(&jpeg);
}

}  // namespace

Image read_image(const std::filesystem::path& path) {
  const std::vector<std::uint8_t> content = read_regular(path, LARGEST);
  const Source source{content.data(), content.size()};
  Outcome outcome;
  if (content.size() >= 8 && !png_sig_cmp(content.data(), 0, 8))
    read_png(source, outcome);
  else if (content.size() >= 3 && content[0] == 0xff && content[1] == 0xd8)
    read_jpeg(source, outcome);
  else
    throw Error(path.string() + " is neither a PNG nor a JPEG file: convert it to one");
  if (*outcome.problem) throw Error("cannot read the image " + path.string() + ": " + outcome.problem);
  return outcome.image;
}

}  // namespace gtp
