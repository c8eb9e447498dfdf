// From RGBA pixels to the input of a model, as gtp_runtime.images.preprocessing does it: Pillow's antialiased resize in
// its fixed-point arithmetic (each pass is rounded to 8 bits), padding, a centre crop, and normalising.

const BITS = 22; // of the fraction of a weight
const sinc = (x) => (x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x));

const FILTERS = {
  box: [0.5, (x) => (x > -0.5 && x <= 0.5 ? 1 : 0)],
  bilinear: [1, (x) => Math.max(0, 1 - Math.abs(x))],
  hamming: [1, (x) => (Math.abs(x) >= 1 ? 0 : sinc(x) * (0.54 + 0.46 * Math.cos(Math.PI * x)))],
  bicubic: [2, (x) => keys(Math.abs(x), -0.5)],
  lanczos: [3, (x) => (x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0)],
};

function keys(x, a) {
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  return x < 2 ? ((x - 5) * x + 8) * x * a - 4 * a : 0;
}

const clip = (value) => (value < 0 ? 0 : value > 255 ? 255 : value);

export function roundEven(value) {
  const low = Math.floor(value);
  const rest = value - low;
  return rest > 0.5 || (rest === 0.5 && low % 2 !== 0) ? low + 1 : low;
}

// Return the bytes of a JPEG file without its Exif segments, and others as they are: browsers turn an image as its Exif
// says, whatever they are asked for. Segments are a marker, 0xff and its kind, a length of two bytes, and content.
export function withoutExif(bytes) {
  if (bytes[0] !== 0xff || bytes[1] !== 0xd8) return bytes;
  const parts = [bytes.subarray(0, 2)];
  let at = 2;
  while (at + 10 < bytes.length && bytes[at] === 0xff && bytes[at + 1] !== 0xda) { // up to the start of the scan
    const end = at + 2 + bytes[at + 2] * 256 + bytes[at + 3];
    const name = String.fromCharCode(...bytes.subarray(at + 4, at + 8));
    if (bytes[at + 1] !== 0xe1 || name !== "Exif") parts.push(bytes.subarray(at, end));
    at = end;
  }
  parts.push(bytes.subarray(at));
  const result = new Uint8Array(parts.reduce((total, part) => total + part.length, 0));
  let to = 0;
  for (const part of parts) {
    result.set(part, to);
    to += part.length;
  }
  return result;
}

// An image is {width, height, data}, data with three bytes a pixel.
export function fromRGBA(width, height, rgba) {
  const data = new Uint8Array(width * height * 3);
  for (let from = 0, to = 0; to < data.length; from += 4, to += 3) {
    data[to] = rgba[from];
    data[to + 1] = rgba[from + 1];
    data[to + 2] = rgba[from + 2];
  }
  return { width, height, data };
}

// Which places of a line of `old` pixels make each of `size` new ones, and their weights in fixed point.
function antialiased(old, size, [reach, filter]) {
  const scale = old / size;
  const stretch = Math.max(scale, 1);
  return Array.from({ length: size }, (_, place) => {
    const centre = (place + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - reach * stretch + 0.5));
    const last = Math.min(old, Math.trunc(centre + reach * stretch + 0.5));
    const weights = Array.from({ length: last - first }, (_, step) => filter((first + step - centre + 0.5) / stretch));
    const sum = weights.reduce((total, weight) => total + weight, 0) || 1;
    const fixed = Int32Array.from(weights, (weight) => {
      const scaled = (weight / sum) * (1 << BITS);
      return Math.trunc(scaled < 0 ? scaled - 0.5 : scaled + 0.5);
    });
    return { first, weights: fixed };
  });
}

// One pass along lines of pixels: `step` bytes lie between the pixels of a line.
function pass(source, target, lines, taps, from, to, step, advance) {
  for (let line = 0; line < lines; line++) {
    for (let place = 0; place < taps.length; place++) {
      const { first, weights } = taps[place];
      const start = from(line) + first * step;
      for (let channel = 0; channel < 3; channel++) {
        let sum = 1 << (BITS - 1);
        for (let tap = 0, at = start + channel; tap < weights.length; tap++, at += step) sum += source[at] * weights[tap];
        target[to(line) + place * advance + channel] = clip(sum >> BITS);
      }
    }
  }
}

export function resize(image, width, height, interpolation) {
  if (interpolation === "nearest") return nearest(image, width, height);
  const filter = FILTERS[interpolation];
  let { data } = image;
  if (width !== image.width) {
    const wide = new Uint8Array(width * image.height * 3);
    const taps = antialiased(image.width, width, filter);
    pass(data, wide, image.height, taps, (row) => row * image.width * 3, (row) => row * width * 3, 3, 3);
    data = wide;
  }
  if (height !== image.height) {
    const high = new Uint8Array(width * height * 3);
    const taps = antialiased(image.height, height, filter);
    pass(data, high, width, taps, (column) => column * 3, (column) => column * 3, width * 3, width * 3);
    data = high;
  }
  return { width, height, data };
}

function nearest(image, width, height) {
  const data = new Uint8Array(width * height * 3);
  for (let row = 0, to = 0; row < height; row++) {
    const y = Math.trunc(((row + 0.5) * image.height) / height);
    for (let column = 0; column < width; column++, to += 3) {
      const from = (y * image.width + Math.trunc(((column + 0.5) * image.width) / width)) * 3;
      data.set(image.data.subarray(from, from + 3), to);
    }
  }
  return { width, height, data };
}

// Without antialiasing, as OpenCV: two (bilinear) or four (bicubic, a = -0.75) pixels, however much the image shrinks.
function plainTaps(old, size, interpolation) {
  const offsets = interpolation === "bilinear" ? [0, 1] : [-1, 0, 1, 2];
  return Array.from({ length: size }, (_, place) => {
    const at = (place + 0.5) * (old / size) - 0.5;
    const low = Math.floor(at);
    return offsets.map((offset) => {
      const distance = Math.abs(at - low - offset);
      const weight = interpolation === "bilinear" ? 1 - distance : keys(distance, -0.75);
      return [Math.min(Math.max(low + offset, 0), old - 1), weight];
    });
  });
}

export function resizePlain(image, width, height, interpolation) {
  const columns = plainTaps(image.width, width, interpolation);
  const rows = plainTaps(image.height, height, interpolation);
  const data = new Uint8Array(width * height * 3);
  for (let row = 0, to = 0; row < height; row++) {
    for (let column = 0; column < width; column++) {
      for (let channel = 0; channel < 3; channel++, to++) {
        let sum = 0;
        for (const [x, across] of columns[column]) {
          for (const [y, down] of rows[row]) sum += across * down * image.data[(y * image.width + x) * 3 + channel];
        }
        data[to] = clip(roundEven(sum));
      }
    }
  }
  return { width, height, data };
}

// The size, [width, height], that an image is resized to.
export function resizedSize(width, height, { resize, resize_mode: mode }) {
  if (mode === "squash") return [resize[1], resize[0]];
  if (mode === "shortest") {
    const long = Math.trunc((resize[0] * Math.max(width, height)) / Math.min(width, height));
    return width <= height ? [resize[0], long] : [long, resize[0]];
  }
  const ratios = [height / resize[0], width / resize[1]];
  const ratio = mode === "contain" ? Math.max(...ratios) : Math.min(...ratios);
  return [Math.max(1, roundEven(width / ratio)), Math.max(1, roundEven(height / ratio))];
}

function cropped(image, [height, width], fill) {
  const padded = { width: Math.max(image.width, width), height: Math.max(image.height, height) };
  const left = Math.floor((padded.width - image.width) / 2);
  const top = Math.floor((padded.height - image.height) / 2);
  const x = roundEven((padded.width - width) / 2);
  const y = roundEven((padded.height - height) / 2);
  const data = new Uint8Array(width * height * 3);
  for (let row = 0, to = 0; row < height; row++) {
    for (let column = 0; column < width; column++, to += 3) {
      const [from, line] = [column + x - left, row + y - top];
      const inside = from >= 0 && from < image.width && line >= 0 && line < image.height;
      const at = (line * image.width + from) * 3;
      for (let channel = 0; channel < 3; channel++) data[to + channel] = inside ? image.data[at + channel] : fill[channel];
    }
  }
  return { width, height, data };
}

// The pixels that the model sees.
export function pixels(image, preprocessing) {
  const [width, height] = resizedSize(image.width, image.height, preprocessing);
  const { antialias, interpolation, crop, fill } = preprocessing;
  const same = width === image.width && height === image.height;
  const resized = same ? image : (antialias ? resize : resizePlain)(image, width, height, interpolation);
  return cropped(resized, crop, fill);
}

// Pixels of one or more images, (N, H, W, 3) bytes, as the input: float32 (N, 3, H, W), or the pixels themselves.
export function prepare(data, dtype, { crop: [height, width], mean, std }) {
  if (dtype === "uint8") return data;
  const area = height * width;
  const values = new Float32Array(data.length);
  for (let image = 0; image < data.length / (3 * area); image++) {
    for (let channel = 0; channel < 3; channel++) {
      const shift = Math.fround(mean[channel]);
      const scale = Math.fround(std[channel]);
      const start = image * 3 * area;
      for (let at = 0; at < area; at++) {
        const share = Math.fround(data[start + at * 3 + channel] / 255);
        values[start + channel * area + at] = Math.fround(share - shift) / scale;
      }
    }
  }
  return values;
}
