// A frozen view: draws the full-precision numbers of the file. No server, no dependency.
(function () {
  "use strict";
  const { colours, short } = window.explorer;
  const view = JSON.parse(document.getElementById("view").textContent);
  const { state } = view;
  const find = (id) => document.getElementById(id);

  function numbers(name) {
    const { dtype, base64, shape } = view.tensors[name];
    const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
    const values = dtype === "float64" ? Float32Array.from(new Float64Array(bytes.buffer)) : new Float32Array(bytes.buffer);
    return { values, shape };
  }

  // Sum over the channels of a picture-sized result: one number per pixel.
  function flat({ values, shape }) {
    const [, channels, height, width] = shape;
    const sum = new Float32Array(height * width);
    for (let c = 0; c < channels; c += 1) for (let i = 0; i < sum.length; i += 1) sum[i] += values[c * sum.length + i];
    return { sum, height, width };
  }

  function picture() {
    const { values, shape } = numbers("image");
    const [, channels, height, width] = shape;
    const [low, high] = state.pixels || [Math.min(...values), Math.max(...values)];
    const bytes = new Uint8Array(3 * height * width);
    for (let i = 0; i < height * width; i += 1) {
      for (let c = 0; c < 3; c += 1) {
        const value = values[(channels === 3 ? c : 0) * height * width + i];
        bytes[3 * i + c] = Math.round(255 * Math.max(0, Math.min(1, (value - low) / (high - low || 1))));
      }
    }
    colours.picture(find("picture"), bytes, height, width);
  }

  function map(id, signed) {
    const { sum, height, width } = flat(numbers(id));
    colours.map(find(id), colours.quantised(sum, 0, sum.length, signed), height, width, signed);
    find(id).classList.toggle("squares", Math.max(height, width) <= 64);
  }

  function scores() {
    const { values } = numbers("scores");
    const order = Array.from(values.keys()).sort((a, b) => values[b] - values[a]).slice(0, 6);
    const table = document.createElement("table");
    table.className = "plain";
    order.forEach((index) => {
      const row = table.insertRow();
      row.insertCell().textContent = state.classes ? state.classes[index] : String(index);
      const cell = row.insertCell();
      cell.className = "amount";
      cell.textContent = String(values[index]);
      cell.title = "the score, all digits";
    });
    find("scores").append(table);
    const target = state.target === null ? order[0] : state.target;
    find("explained").textContent = `for ${state.classes ? state.classes[target] : target}`;
  }

  function units() {
    const { values, shape } = numbers("activations");
    const count = shape[1];
    const [height, width] = shape.length === 4 ? shape.slice(2) : [shape.length === 3 ? shape[2] : 1, 1];
    const canvas = find("units");
    const side = count <= 36 ? 92 : count <= 200 ? 64 : 40;
    const pitch = side + 8;
    const columns = Math.max(1, Math.floor(canvas.parentElement.clientWidth / pitch));
    const area = height * width;
    let chosen = state.unit;
    const signed = values.some((value) => value < 0);
    const sheet = document.createElement("canvas");
    function draw() {
      const context = colours.size(canvas, columns * pitch, Math.ceil(count / columns) * pitch);
      context.clearRect(0, 0, canvas.width, canvas.height);
      context.imageSmoothingEnabled = Math.max(height, width) > 64;
      for (let unit = 0; unit < count; unit += 1) {
        colours.map(sheet, colours.quantised(values, unit * area, area, signed), height, width, signed);
        const [x, y] = [(unit % columns) * pitch + 4, Math.floor(unit / columns) * pitch + 4];
        context.drawImage(sheet, x, y, side, side);
        if (unit === chosen) {
          context.strokeStyle = getComputedStyle(document.body).getPropertyValue("--link").trim();
          context.lineWidth = 3;
          context.strokeRect(x - 1.5, y - 1.5, side + 3, side + 3);
        }
      }
    }
    function tell() {
      let high = -Infinity;
      for (let i = 0; i < area; i += 1) high = Math.max(high, values[chosen * area + i]);
      find("under").textContent = `unit ${chosen}, highest ${short(high)} (${high})`;
      canvas.setAttribute("aria-label", `Activation maps of all units; ${find("under").textContent}`);
    }
    function go(unit) {
      if (unit < 0 || unit >= count) return;
      chosen = unit;
      draw();
      tell();
    }
    canvas.addEventListener("pointerdown", (event) => {
      const box = canvas.getBoundingClientRect();
      const scale = canvas.width / box.width;
      go(Math.floor(((event.clientY - box.top) * scale) / pitch) * columns + Math.floor(((event.clientX - box.left) * scale) / pitch));
    });
    canvas.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[event.key];
      if (step) { event.preventDefault(); go(chosen + step); }
    });
    go(chosen);
  }

  picture();
  map("explanation", state.signed);
  map("projection", true);
  scores();
  units();
  document.body.dataset.ready = "true";
})();
