// The grid of all units of a layer: only the visible part is drawn, so that a thousand units stay smooth.
(function () {
  "use strict";
  const { colours, short } = window.explorer;
  const LINE = 20; // pixels of the number below a map

  class UnitGrid {
    // choose(unit) is called when the cursor moves; marks(unit) describes the change of a unit, or "".
    constructor(box, choose, marks) {
      this.box = box;
      this.choose = choose;
      this.marks = marks;
      this.frame = null;
      this.order = [];
      this.unit = 0;
      this.shared = false;
      this.canvas = document.createElement("canvas");
      this.spacer = document.createElement("div");
      this.spacer.className = "spacer";
      this.option = document.createElement("div");
      this.option.className = "sr";
      this.option.setAttribute("role", "option");
      this.option.setAttribute("aria-selected", "true");
      this.option.id = `${box.id}-option`;
      this.canvas.setAttribute("aria-hidden", "true");
      box.append(this.canvas, this.spacer, this.option);
      box.tabIndex = 0;
      box.setAttribute("role", "listbox");
      box.setAttribute("aria-activedescendant", this.option.id);
      this.sheet = document.createElement("canvas");
      box.addEventListener("scroll", () => this.draw());
      box.addEventListener("keydown", (event) => this.key(event));
      this.canvas.addEventListener("pointerdown", (event) => {
        const place = this.placeAt(event);
        if (place >= 0) this.go(place);
      });
      new ResizeObserver(() => this.draw()).observe(box);
    }

    show(frame, order) {
      this.frame = frame;
      this.order = order;
      this.box.setAttribute("aria-label", `Units of ${frame.header.layer}`);
      this.draw();
    }

    select(unit, reveal) {
      this.unit = unit;
      if (reveal) this.reveal();
      this.draw();
      this.tell();
    }

    tell() {
      if (!this.frame || this.unit >= this.frame.blocks.peak.length) return;
      const change = this.marks(this.unit);
      this.option.textContent = `unit ${this.unit}, highest ${short(this.frame.blocks.peak[this.unit])}${change ? `, ${change}` : ""}`;
    }

    layout() {
      const width = this.box.clientWidth - 8;
      const count = this.order.length;
      const least = count <= 36 ? 84 : count <= 160 ? 64 : 48;
      const columns = Math.max(1, Math.floor(width / (least + 8)));
      const side = Math.min(2 * least, Math.floor(width / columns) - 8);
      const rows = Math.ceil(count / columns);
      return { side, columns, rows, pitch: side + 8, height: side + LINE + 4 };
    }

    placeAt(event) {
      const { columns, pitch, height } = this.layout();
      const area = this.canvas.getBoundingClientRect();
      const column = Math.floor((event.clientX - area.left - 4) / pitch);
      const row = Math.floor((event.clientY - area.top + this.box.scrollTop - 4) / height);
      const place = row * columns + column;
      return column >= 0 && column < columns && place < this.order.length ? place : -1;
    }

    key(event) {
      const place = this.order.indexOf(this.unit);
      const { columns } = this.layout();
      const last = this.order.length - 1;
      const moves = { ArrowLeft: place - 1, ArrowRight: place + 1, ArrowUp: place - columns, ArrowDown: place + columns, Home: 0, End: last };
      if (!(event.key in moves) || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      event.stopPropagation();
      const next = moves[event.key];
      if (next >= 0 && next <= last) this.go(next);
    }

    go(place) {
      this.unit = this.order[place];
      this.reveal();
      this.draw();
      this.tell();
      this.choose(this.unit);
    }

    reveal() {
      const place = this.order.indexOf(this.unit);
      if (place < 0) return;
      const { columns, height } = this.layout();
      const top = Math.floor(place / columns) * height;
      const view = this.box.clientHeight;
      if (top < this.box.scrollTop) this.box.scrollTop = top;
      else if (top + height + 8 > this.box.scrollTop + view) this.box.scrollTop = top + height + 8 - view;
    }

    draw() {
      if (!this.frame) return;
      const { side, columns, rows, pitch, height } = this.layout();
      const [width, view] = [this.box.clientWidth, this.box.clientHeight];
      this.spacer.style.height = `${rows * height + 8}px`;
      const dots = Math.min(2, window.devicePixelRatio || 1);
      const context = colours.size(this.canvas, Math.round(width * dots), Math.round(view * dots));
      this.canvas.style.height = `${view}px`;
      context.setTransform(dots, 0, 0, dots, 0, 0);
      context.clearRect(0, 0, width, view);
      const style = getComputedStyle(document.body);
      const [ink, quiet, link, warn] = ["--ink", "--quiet", "--link", "--warn-ink"].map((name) => style.getPropertyValue(name).trim());
      const { blocks, shapes, header } = this.frame;
      const [, h, w] = shapes.maps;
      const first = Math.floor(this.box.scrollTop / height) * columns;
      const last = Math.min(this.order.length, (Math.floor((this.box.scrollTop + view) / height) + 1) * columns);
      if (last <= first) return;
      const most = this.shared ? this.range(blocks.limits) : 0;
      const sheet = colours.size(this.sheet, w, h * (last - first));
      const image = sheet.createImageData(w, h * (last - first));
      const pixels = new Uint32Array(image.data.buffer);
      for (let place = first; place < last; place += 1) {
        const unit = this.order[place];
        const own = blocks.limits[2 * unit + 1] - (header.signed ? 0 : blocks.limits[2 * unit]);
        colours.paint(blocks.maps, pixels, unit * h * w, (place - first) * h * w, h * w, header.signed, this.shared ? (most ? own / most : 0) : 1);
      }
      sheet.putImageData(image, 0, 0);
      context.imageSmoothingEnabled = Math.max(h, w) > 64;
      context.font = "13px system-ui, sans-serif";
      context.textAlign = "left";
      context.textBaseline = "top";
      const [mapHeight, mapWidth] = h >= w ? [side, (side * w) / h] : [(side * h) / w, side];
      for (let place = first; place < last; place += 1) {
        const unit = this.order[place];
        const x = 4 + (place % columns) * pitch;
        const y = 4 + Math.floor(place / columns) * height - this.box.scrollTop;
        context.drawImage(this.sheet, 0, (place - first) * h, w, h, x, y, mapWidth, mapHeight);
        const change = this.marks(unit);
        if (change) {
          context.strokeStyle = warn;
          context.lineWidth = 2;
          context.setLineDash([4, 3]);
          context.strokeRect(x + 1, y + 1, side - 2, side - 2);
          context.setLineDash([]);
        }
        if (unit === this.unit) {
          context.strokeStyle = link;
          context.lineWidth = 3;
          context.strokeRect(x - 1.5, y - 1.5, side + 3, side + 3);
        }
        context.fillStyle = unit === this.unit ? ink : quiet;
        context.fillText(change && side > 60 ? `${unit} ${change}` : String(unit), x, y + side + 3, side + 4);
      }
    }

    range(limits) {
      let [low, high] = [0, 0];
      for (let i = 0; i < limits.length; i += 2) {
        low = Math.min(low, limits[i]);
        high = Math.max(high, limits[i + 1]);
      }
      return this.frame.header.signed ? high : high - low;
    }
  }

  window.explorer.UnitGrid = UnitGrid;
})();
