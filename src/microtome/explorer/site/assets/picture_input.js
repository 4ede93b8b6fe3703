// The picture of one side: shown, drawn on by pointer or keys, taken from a file or the webcam.
(function () {
  "use strict";
  const { colours } = window.explorer;

  class PictureInput {
    // onPixels(bytes) is called while the user draws or the webcam runs, with a picture in the network's format.
    constructor(canvas, facts, onPixels) {
      this.canvas = canvas;
      this.facts = facts;
      [this.channels, this.height, this.width] = facts.input_shape;
      this.onPixels = onPixels;
      this.pixels = null;
      this.pen = { x: Math.floor(this.width / 2), y: Math.floor(this.height / 2), down: false };
      colours.size(canvas, this.width, this.height);
      canvas.classList.toggle("squares", facts.small);
      if (facts.draw) this.listen();
    }

    show(frame) {
      const [height, width] = frame.shapes.pixels;
      this.pixels = frame.blocks.pixels;
      colours.picture(this.canvas, this.pixels, height, width);
    }

    blank() {
      this.pixels = new Uint8Array(3 * this.height * this.width);
      colours.picture(this.canvas, this.pixels, this.height, this.width);
      this.send();
    }

    // Bytes of the network's own channels, row by row.
    bytes() {
      const count = this.height * this.width;
      if (this.channels === 3) return this.pixels.slice();
      const gray = new Uint8Array(count);
      for (let i = 0; i < count; i += 1) gray[i] = this.pixels[3 * i];
      return gray;
    }

    send() { this.onPixels(this.bytes()); }

    takeGray(gray) {
      this.pixels = new Uint8Array(3 * gray.length);
      for (let i = 0; i < gray.length; i += 1) this.pixels.fill(gray[i], 3 * i, 3 * i + 3);
      colours.picture(this.canvas, this.pixels, this.height, this.width);
    }

    // -- drawing ------------------------------------------------------------------------------------------
    listen() {
      const canvas = this.canvas;
      canvas.classList.add("pad");
      canvas.tabIndex = 0;
      let last = null;
      const at = (event) => {
        const box = canvas.getBoundingClientRect();
        return [((event.clientX - box.left) / box.width) * this.width, ((event.clientY - box.top) / box.height) * this.height];
      };
      canvas.addEventListener("pointerdown", (event) => {
        if (event.button) return;
        canvas.setPointerCapture(event.pointerId);
        last = at(event);
        this.stroke(last, last);
      });
      canvas.addEventListener("pointermove", (event) => {
        if (!last) return;
        const now = at(event);
        this.stroke(last, now);
        last = now;
      });
      const end = () => { last = null; };
      canvas.addEventListener("pointerup", end);
      canvas.addEventListener("pointercancel", end);
      canvas.addEventListener("keydown", (event) => this.key(event));
    }

    key(event) {
      const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      if (event.key === " ") {
        this.pen.down = !this.pen.down;
        if (this.pen.down) this.stroke([this.pen.x + 0.5, this.pen.y + 0.5], [this.pen.x + 0.5, this.pen.y + 0.5]);
      } else if (step) {
        const from = [this.pen.x + 0.5, this.pen.y + 0.5];
        this.pen.x = Math.max(0, Math.min(this.width - 1, this.pen.x + step[0]));
        this.pen.y = Math.max(0, Math.min(this.height - 1, this.pen.y + step[1]));
        if (this.pen.down) this.stroke(from, [this.pen.x + 0.5, this.pen.y + 0.5]);
      } else return;
      event.preventDefault();
      event.stopPropagation();
    }

    // A soft round pen, a twentieth of the picture wide.
    stroke(from, to) {
      if (!this.pixels) this.pixels = new Uint8Array(3 * this.height * this.width);
      const radius = Math.max(0.8, this.width / 22);
      const length = Math.hypot(to[0] - from[0], to[1] - from[1]);
      const steps = Math.max(1, Math.ceil(length / 0.4));
      for (let s = 0; s <= steps; s += 1) {
        const x = from[0] + ((to[0] - from[0]) * s) / steps;
        const y = from[1] + ((to[1] - from[1]) * s) / steps;
        for (let row = Math.floor(y - radius - 1); row <= y + radius + 1; row += 1) {
          for (let column = Math.floor(x - radius - 1); column <= x + radius + 1; column += 1) {
            if (row < 0 || column < 0 || row >= this.height || column >= this.width) continue;
            const away = Math.hypot(column + 0.5 - x, row + 0.5 - y);
            const ink = Math.round(255 * Math.max(0, Math.min(1, radius + 0.5 - away)));
            const place = 3 * (row * this.width + column);
            if (ink > this.pixels[place]) this.pixels.fill(ink, place, place + 3);
          }
        }
      }
      colours.picture(this.canvas, this.pixels, this.height, this.width);
      this.send();
    }

    // -- webcam -------------------------------------------------------------------------------------------
    // The middle of a video frame at the network's size, as for files.
    takeVideo(video) {
      if (!this.scratch) this.scratch = document.createElement("canvas");
      const context = colours.size(this.scratch, this.width, this.height);
      const scale = Math.max(this.width / video.videoWidth, this.height / video.videoHeight);
      const [w, h] = [video.videoWidth * scale, video.videoHeight * scale];
      context.drawImage(video, (this.width - w) / 2, (this.height - h) / 2, w, h);
      const data = context.getImageData(0, 0, this.width, this.height).data;
      this.pixels = new Uint8Array(3 * this.width * this.height);
      for (let i = 0; i < this.width * this.height; i += 1) {
        if (this.channels === 1) {
          const luma = Math.round(0.299 * data[4 * i] + 0.587 * data[4 * i + 1] + 0.114 * data[4 * i + 2]);
          this.pixels.fill(luma, 3 * i, 3 * i + 3);
        } else {
          for (let c = 0; c < 3; c += 1) this.pixels[3 * i + c] = data[4 * i + c];
        }
      }
      colours.picture(this.canvas, this.pixels, this.height, this.width);
      return this.bytes();
    }
  }

  // Small gray pictures fit into the address, as URL-safe base64.
  const encode = (bytes) => btoa(String.fromCharCode(...bytes)).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
  function decode(text, count) {
    try {
      const bytes = Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), (c) => c.charCodeAt(0));
      return bytes.length === count ? bytes : null;
    } catch (error) { return null; }
  }

  Object.assign(window.explorer, { PictureInput, encode, decode });
})();
