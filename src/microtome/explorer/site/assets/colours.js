// Colours of maps: bytes and numbers to pixels, zero neutral, black in the dark theme's twin. No dependency.
(function () {
  "use strict";
  const MAGMA = [[0, 0, 4], [10, 8, 34], [29, 17, 71], [54, 16, 107], [81, 18, 124], [106, 28, 129], [131, 38, 129], [156, 46, 127], [183, 55, 121], [208, 65, 111], [231, 82, 99], [245, 107, 92], [252, 137, 97], [254, 167, 114], [254, 196, 136], [253, 226, 163], [252, 253, 191]];
  const BLUE_RED = [[5, 48, 97], [23, 82, 144], [42, 113, 178], [63, 142, 192], [107, 172, 209], [155, 201, 224], [194, 221, 236], [224, 236, 243], [247, 247, 247], [251, 229, 216], [251, 204, 180], [245, 170, 137], [228, 128, 102], [208, 85, 72], [186, 40, 50], [147, 14, 38], [103, 0, 31]];
  const BLUE_RED_DARK = [[158, 214, 255], [126, 196, 250], [97, 176, 240], [70, 153, 222], [50, 126, 194], [35, 98, 158], [24, 70, 117], [18, 43, 72], [15, 17, 20], [62, 25, 26], [105, 34, 32], [150, 45, 38], [192, 62, 50], [224, 90, 72], [244, 124, 102], [252, 162, 138], [255, 200, 178]];

  function table(anchors, steps) {
    const made = new Uint32Array(steps);
    for (let i = 0; i < steps; i += 1) {
      const at = (i / (steps - 1)) * (anchors.length - 1);
      const low = Math.min(Math.floor(at), anchors.length - 2);
      const mix = at - low;
      const [r, g, b] = [0, 1, 2].map((c) => Math.round(anchors[low][c] * (1 - mix) + anchors[low + 1][c] * mix));
      made[i] = (255 << 24) | (b << 16) | (g << 8) | r;
    }
    return made;
  }
  const tables = { magnitude: table(MAGMA, 256), signed: table(BLUE_RED, 255), signedDark: table(BLUE_RED_DARK, 255) };

  function dark() {
    const chosen = document.documentElement.dataset.theme;
    return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  }
  const colours = (signed) => (signed ? tables[dark() ? "signedDark" : "signed"] : tables.magnitude);

  // Bytes of the server as colours; ratio scales a map from its own range to a shared one.
  function paint(bytes, pixels, from, to, count, signed, ratio) {
    const lookup = colours(signed);
    const most = signed ? 254 : 255;
    for (let i = 0; i < count; i += 1) {
      const byte = bytes[from + i];
      const at = signed ? 127 + (byte - 127) * ratio : byte * ratio;
      pixels[to + i] = lookup[Math.max(0, Math.min(most, Math.round(at)))];
    }
  }

  function size(canvas, width, height) {
    if (canvas.width !== width || canvas.height !== height) { canvas.width = width; canvas.height = height; }
    return canvas.getContext("2d");
  }

  // One map of bytes (h, w) on a canvas of its own size.
  function map(canvas, bytes, height, width, signed, from) {
    const context = size(canvas, width, height);
    const image = context.createImageData(width, height);
    paint(bytes, new Uint32Array(image.data.buffer), from || 0, 0, width * height, signed, 1);
    context.putImageData(image, 0, 0);
    canvas.classList.toggle("squares", Math.max(width, height) <= 64);
  }

  // The same as an overlay of a picture: small values are transparent.
  function overlay(canvas, bytes, height, width, signed) {
    map(canvas, bytes, height, width, signed);
    const context = canvas.getContext("2d");
    const image = context.getImageData(0, 0, width, height);
    for (let i = 0; i < width * height; i += 1) {
      const strength = signed ? Math.abs(bytes[i] - 127) / 127 : bytes[i] / 255;
      image.data[4 * i + 3] = Math.round(255 * Math.min(1, 1.5 * strength));
    }
    context.putImageData(image, 0, 0);
  }

  // A picture (h, w, 3) in bytes.
  function picture(canvas, bytes, height, width, from) {
    const context = size(canvas, width, height);
    const image = context.createImageData(width, height);
    const start = from || 0;
    for (let i = 0; i < width * height; i += 1) {
      image.data[4 * i] = bytes[start + 3 * i];
      image.data[4 * i + 1] = bytes[start + 3 * i + 1];
      image.data[4 * i + 2] = bytes[start + 3 * i + 2];
      image.data[4 * i + 3] = 255;
    }
    context.putImageData(image, 0, 0);
    canvas.classList.toggle("squares", Math.max(width, height) <= 64);
  }

  // Numbers (n) as bytes, with the server's quantisation.
  function quantised(numbers, from, count, signed) {
    const bytes = new Uint8Array(count);
    let low = 0;
    let high = 0;
    for (let i = 0; i < count; i += 1) {
      low = Math.min(low, numbers[from + i]);
      high = Math.max(high, numbers[from + i]);
    }
    const most = signed ? Math.max(-low, high) : high - low;
    for (let i = 0; i < count; i += 1) {
      const value = numbers[from + i];
      bytes[i] = signed ? Math.round(127 + (most ? value / most : 0) * 127) : Math.round((most ? (value - low) / most : 0) * 255);
    }
    return bytes;
  }

  function short(value) {
    if (value === null || value === undefined || !Number.isFinite(value)) return "–";
    const size_ = Math.abs(value);
    if (size_ !== 0 && (size_ < 0.001 || size_ >= 1e5)) return value.toExponential(1).replace("-", "−");
    return String(Number(value.toPrecision(3))).replace("-", "−");
  }
  const signedNumber = (value) => (value > 0 ? "+" : "") + short(value);

  window.explorer = { colours: { paint, map, overlay, picture, quantised, size, dark }, short, signedNumber };
})();
