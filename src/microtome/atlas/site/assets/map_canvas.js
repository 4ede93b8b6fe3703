// Maps of images on a canvas: pan, zoom, colour, thumbnails, a grid of pictures, and units that separate a selection.
(function () {
  "use strict";
  const CLASSES = ["#4e79a7", "#f28e2b", "#e15759", "#59a14f", "#b07aa1", "#edc948", "#76b7b2", "#9c755f", "#ff9da7", "#79706e"];
  const PICTURES = 300; // thumbnails drawn at once at most; more hide each other
  const UNITS = 6;

  function bytes(text) {
    const raw = atob(text), found = new Uint8Array(raw.length);
    for (let i = 0; i < raw.length; i += 1) found[i] = raw.charCodeAt(i);
    return found;
  }
  const words = (text, Kind) => new Kind(bytes(text).buffer);

  function classColour(index, count) {
    if (index < 0) return [128, 128, 128];
    if (count <= CLASSES.length) return [1, 3, 5].map((at) => parseInt(CLASSES[index].slice(at, at + 2), 16));
    const hue = (index * 0.61803398875) % 1, light = 0.45 + 0.15 * ((index * 7) % 3 - 1);
    return [0, 8, 4].map((n) => {
      const k = (n + hue * 12) % 12;
      return Math.round(255 * (light - 0.32 * Math.max(-1, Math.min(k - 3, 9 - k, 1))));
    });
  }
  const RAMP = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];
  function ramp(share) {
    const at = Math.min(share * 4, 3.999), low = Math.floor(at), part = at - low;
    return RAMP[low].map((value, i) => Math.round(value + part * (RAMP[low + 1][i] - value)));
  }

  function start(figure) {
    const given = JSON.parse(figure.querySelector("script[type='application/json']").textContent);
    if (given.sprite.startsWith("data:")) { // thumbnails within the page: decoded once, not at each use
      const [kind, content] = given.sprite.slice(5).split(";base64,");
      given.sprite = URL.createObjectURL(new Blob([bytes(content)], { type: kind }));
    }
    const data = given.data, n = data.count;
    const x = words(data.x, Uint16Array), y = words(data.y, Uint16Array);
    const trust = bytes(data.trust), confidence = bytes(data.confidence), responses = bytes(data.responses);
    const label = words(data.label, Int16Array), predicted = words(data.predicted, Int16Array);
    const nearest = words(data.nearest, Uint32Array);
    const canvas = figure.querySelector("canvas"), side = figure.querySelector(".map-side");
    const legend = figure.querySelector(".map-legend"), patches = figure.querySelector("template").content;
    const context = canvas.getContext("2d"), sprite = new Image();
    const known = label.some((one) => one >= 0);
    let colours = new Uint8Array(3 * n), chosen = null, at = -1;
    let colour = known ? "label" : "predicted", show = "dots", drag = "move";
    let scale = 1, left = 0, top = 0, width = 0, height = 0, ratio = 1, pixels = null, lasso = null, asked = false;

    // -- geometry -------------------------------------------------------------------------------
    function whole() {
      const room = 24, [w, h] = data.size;
      scale = Math.min((width - 2 * room) / (w || 1), (height - 2 * room) / (h || 1)) / 65535;
      left = (width - scale * 65535 * w) / 2;
      top = (height - scale * 65535 * h) / 2;
    }
    const px = (i) => left + scale * x[i];
    const py = (i) => height - top - scale * y[i];
    function zoom(factor, cx, cy) {
      const above = height - cy;
      left = cx - factor * (cx - left);
      top = above - factor * (above - top);
      scale *= factor;
      ask();
    }
    function fit() {
      const box = canvas.getBoundingClientRect();
      const first = !width;
      width = Math.max(1, Math.round(box.width)); height = Math.max(1, Math.round(box.height));
      ratio = Math.min(2, window.devicePixelRatio || 1);
      canvas.width = Math.round(width * ratio); canvas.height = Math.round(height * ratio);
      pixels = context.createImageData(canvas.width, canvas.height);
      if (first) whole();
      ask();
    }

    // -- colours ------------------------------------------------------------------------------------
    function paint() {
      for (let i = 0; i < n; i += 1) {
        let rgb;
        if (colour === "label") rgb = classColour(label[i], data.classes.length);
        else if (colour === "predicted") rgb = classColour(predicted[i], data.classes.length);
        else if (colour === "error") rgb = label[i] < 0 ? [128, 128, 128] : label[i] === predicted[i] ? [90, 140, 190] : [214, 39, 40];
        else rgb = ramp(confidence[i] / 255);
        colours.set(rgb, 3 * i);
      }
      explain();
      ask();
    }
    function explain() {
      const entry = (rgb, text) => `<span><i style="background:rgb(${rgb.join(",")})"></i>${escaped(text)}</span>`;
      if (colour === "error") {
        legend.innerHTML = known ? entry([90, 140, 190], "right") + entry([214, 39, 40], "wrong") : "There are no labels.";
      } else if (colour === "confidence") {
        const stops = RAMP.map((rgb) => `rgb(${rgb.join(",")})`).join(",");
        legend.innerHTML = `<span>0 <i class="ramp" style="background:linear-gradient(90deg,${stops})"></i> 1, ${escaped(data.quantity)} of the predicted class</span>`;
      } else if (data.classes.length > 40) {
        const shown = new Set((colour === "label" ? label : predicted).filter((c) => c >= 0)).size;
        legend.textContent = `${shown} of ${data.total.toLocaleString("en")} classes have an image here. A click on a dot names its class.`;
      } else {
        legend.innerHTML = data.classes.map((name, i) => entry(classColour(i, data.classes.length), name)).join("");
      }
    }
    const escaped = (text) => String(text).replace(/[&<>"]/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" }[c]));

    // -- drawing ------------------------------------------------------------------------------------
    function ask() {
      if (!asked) { asked = true; requestAnimationFrame(() => { asked = false; draw(); }); }
    }
    function dots() {
      const w = canvas.width, h = canvas.height, out = pixels.data;
      const back = getComputedStyle(canvas).backgroundColor.match(/\d+/g).map(Number);
      const plain = new Uint32Array(out.buffer);
      plain.fill((255 << 24) | (back[2] << 16) | (back[1] << 8) | back[0]);
      const r = Math.max(1, Math.round(ratio * (n > 20000 ? 1 : n > 4000 ? 1.5 : 3)));
      for (let i = 0; i < n; i += 1) {
        const cx = Math.round(px(i) * ratio), cy = Math.round(py(i) * ratio);
        if (cx < r || cy < r || cx >= w - r || cy >= h - r) continue;
        let alpha = 0.15 + 0.85 * trust[i] / 255;
        if (chosen) alpha = chosen[i] ? 1 : 0.12 * alpha;
        const rest = 1 - alpha, red = alpha * colours[3 * i], green = alpha * colours[3 * i + 1], blue = alpha * colours[3 * i + 2];
        for (let dy = -r; dy <= r; dy += 1) {
          const span = dy === r || dy === -r ? r - 1 : r;
          let o = 4 * ((cy + dy) * w + cx - span);
          for (let dx = -span; dx <= span; dx += 1, o += 4) {
            out[o] = red + rest * out[o]; out[o + 1] = green + rest * out[o + 1]; out[o + 2] = blue + rest * out[o + 2];
          }
        }
      }
      context.putImageData(pixels, 0, 0);
    }
    const [cellHeight, cellWidth] = given.cell;
    function picture(i, cx, cy, size) {
      const sx = (i % given.columns) * cellWidth, sy = Math.floor(i / given.columns) * cellHeight;
      const big = Math.max(cellWidth, cellHeight), w = size * cellWidth / big, h = size * cellHeight / big;
      context.globalAlpha = chosen && !chosen[i] ? 0.2 : 0.35 + 0.65 * trust[i] / 255;
      context.drawImage(sprite, sx, sy, cellWidth, cellHeight, cx - w / 2, cy - h / 2, w, h);
      context.strokeStyle = `rgb(${colours[3 * i]},${colours[3 * i + 1]},${colours[3 * i + 2]})`;
      context.lineWidth = 1.5;
      context.strokeRect(cx - w / 2, cy - h / 2, w, h);
    }
    function inside() {
      const found = [];
      for (let i = 0; i < n; i += 1) {
        const cx = px(i), cy = py(i);
        if (cx >= 0 && cy >= 0 && cx < width && cy < height) found.push(i);
      }
      return found;
    }
    function pictures() {
      const seen = inside(), step = Math.ceil(seen.length / PICTURES);
      const size = Math.min(56, Math.max(20, Math.sqrt(width * height / Math.max(1, Math.min(seen.length, PICTURES))) * 0.6));
      for (let k = 0; k < seen.length; k += step) picture(seen[k], px(seen[k]), py(seen[k]), size);
    }
    function grid() {
      const size = 32, columns = Math.floor(width / size), rows = Math.floor(height / size);
      const best = new Int32Array(columns * rows).fill(-1), far = new Float64Array(columns * rows).fill(Infinity);
      for (let i = 0; i < n; i += 1) {
        const cx = px(i) / size, cy = py(i) / size, column = Math.floor(cx), row = Math.floor(cy);
        if (column < 0 || row < 0 || column >= columns || row >= rows) continue;
        const away = (cx - column - 0.5) ** 2 + (cy - row - 0.5) ** 2, cell = row * columns + column;
        if (away < far[cell]) { far[cell] = away; best[cell] = i; }
      }
      best.forEach((i, cell) => {
        if (i >= 0) picture(i, (cell % columns + 0.5) * size, (Math.floor(cell / columns) + 0.5) * size, size - 3);
      });
    }
    function draw() {
      const began = performance.now();
      context.setTransform(1, 0, 0, 1, 0, 0);
      context.globalAlpha = 1;
      if (show === "dots") dots();
      else context.clearRect(0, 0, canvas.width, canvas.height);
      context.setTransform(ratio, 0, 0, ratio, 0, 0);
      if (show !== "dots" && sprite.complete && sprite.naturalWidth) (show === "grid" ? grid : pictures)();
      context.globalAlpha = 1;
      const ink = getComputedStyle(canvas).color;
      if (at >= 0) { context.strokeStyle = ink; context.lineWidth = 2; context.beginPath(); context.arc(px(at), py(at), 8, 0, 7); context.stroke(); }
      if (lasso && lasso.length > 1) {
        context.strokeStyle = ink; context.lineWidth = 1.5; context.setLineDash([4, 3]); context.beginPath();
        lasso.forEach(([a, b], k) => (k ? context.lineTo(a, b) : context.moveTo(a, b)));
        context.closePath(); context.stroke(); context.setLineDash([]);
      }
      figure.dataset.drawn = String(Number(figure.dataset.drawn || 0) + 1);
      figure.dataset.milliseconds = String(performance.now() - began);
    }

    // -- selection --------------------------------------------------------------------------------
    function shot(i, size) {
      const zoomed = size / Math.max(cellWidth, cellHeight), href = given.links[i];
      const name = `image ${data.names[i]}, ${says(i)}`;
      const style = `width:${zoomed * cellWidth}px;height:${zoomed * cellHeight}px;background-image:url('${given.sprite}');` +
        `background-size:${zoomed * given.columns * cellWidth}px auto;` +
        `background-position:${-zoomed * (i % given.columns) * cellWidth}px ${-zoomed * Math.floor(i / given.columns) * cellHeight}px`;
      const kind = `class="shot${given.pixelated ? " px" : ""}" style="${style}" title="${escaped(name)}"`;
      return href ? `<a ${kind} href="${href}" aria-label="${escaped(name)}"></a>` : `<span ${kind} role="img" aria-label="${escaped(name)}"></span>`;
    }
    function says(i) {
      const guess = data.classes[predicted[i]];
      return label[i] < 0 ? `says ${guess}` : label[i] === predicted[i] ? `a ${guess}` : `true ${data.classes[label[i]]}, says ${guess}`;
    }
    function one(i) {
      at = i; chosen = null;
      let text = `${shot(i, 112)}<p>image ${escaped(data.names[i])}: ${escaped(says(i))}<br><span class="label">${escaped(data.quantity)} ${(confidence[i] / 255).toFixed(2)}; ` +
        `${Math.round(100 * trust[i] / 255)} % of its nearest images are near here</span></p><h4>Nearest in the layer</h4>`;
      for (let k = 0; k < data.near; k += 1) text += shot(nearest[i * data.near + k], 56);
      side.innerHTML = text;
      ask();
    }
    function separating() {
      const units = data.units.length, found = [];
      let many = 0;
      for (let i = 0; i < n; i += 1) many += chosen[i];
      for (let u = 0; u < units; u += 1) {
        let sum = 0, mine = 0, squares = 0;
        for (let i = 0; i < n; i += 1) {
          const value = responses[i * units + u];
          sum += value; squares += value * value;
          if (chosen[i]) mine += value;
        }
        const deviation = Math.sqrt(Math.max(squares / n - (sum / n) ** 2, 1e-9));
        found.push([data.units[u], (mine / many - (sum - mine) / (n - many)) / deviation]);
      }
      return found.sort((a, b) => Math.abs(b[1]) - Math.abs(a[1])).slice(0, UNITS);
    }
    function selected() {
      const places = [];
      for (let i = 0; i < n; i += 1) if (chosen[i]) places.push(i);
      if (!places.length || places.length === n) {
        chosen = null;
        side.innerHTML = "<p>No dot, or every dot, lies in the line. Draw around a group.</p>";
        return ask();
      }
      const counts = new Map();
      places.forEach((i) => { const c = known ? label[i] : predicted[i]; counts.set(c, (counts.get(c) || 0) + 1); });
      const common = [...counts].sort((a, b) => b[1] - a[1]).slice(0, 3);
      const share = common.map(([c, k]) => `${escaped(c < 0 ? "no label" : data.classes[c])} ${Math.round(100 * k / places.length)} %`).join(", ");
      let text = `<p>${places.length} images: ${share}</p><h4>Units that separate them from the rest</h4><div class="found">`;
      separating().forEach(([unit, effect]) => {
        const cell = patches.querySelector(`[data-unit="${unit}"]`);
        text += `<span>${cell ? cell.innerHTML : ""}<br>unit ${unit}<br><span class="label">${effect > 0 ? "+" : "−"}${Math.abs(effect).toFixed(1)} deviations</span></span>`;
      });
      text += "</div><h4>Some of them</h4>";
      for (let k = 0; k < places.length; k += Math.ceil(places.length / 12)) text += shot(places[k], 56);
      side.innerHTML = text;
      ask();
    }
    function enclosed(line) {
      const mask = new Uint8Array(n);
      for (let i = 0; i < n; i += 1) {
        const cx = px(i), cy = py(i);
        let odd = false;
        for (let a = 0, b = line.length - 1; a < line.length; b = a, a += 1) {
          if ((line[a][1] > cy) !== (line[b][1] > cy) &&
            cx < (line[b][0] - line[a][0]) * (cy - line[a][1]) / (line[b][1] - line[a][1]) + line[a][0]) odd = !odd;
        }
        mask[i] = odd ? 1 : 0;
      }
      return mask;
    }
    function under(cx, cy) {
      let best = -1, far = 15 * 15;
      for (let i = 0; i < n; i += 1) {
        const away = (px(i) - cx) ** 2 + (py(i) - cy) ** 2;
        if (away < far) { far = away; best = i; }
      }
      return best;
    }

    // -- input ----------------------------------------------------------------------------------------
    const touches = new Map();
    let moved = 0;
    const place = (event) => { const box = canvas.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };
    canvas.addEventListener("pointerdown", (event) => {
      touches.set(event.pointerId, place(event));
      try { canvas.setPointerCapture(event.pointerId); } catch (error) { /* a pointer that a script made */ }
      moved = 0;
      lasso = drag === "select" && touches.size === 1 ? [place(event)] : null;
    });
    canvas.addEventListener("pointermove", (event) => {
      const before = touches.get(event.pointerId);
      if (!before) return;
      const now = place(event), others = [...touches.keys()].filter((id) => id !== event.pointerId);
      moved += Math.abs(now[0] - before[0]) + Math.abs(now[1] - before[1]);
      if (others.length) {
        const other = touches.get(others[0]);
        const gap = (p) => Math.hypot(p[0] - other[0], p[1] - other[1]) || 1;
        zoom(gap(now) / gap(before), (now[0] + other[0]) / 2, (now[1] + other[1]) / 2);
        lasso = null;
      } else if (lasso) lasso.push(now);
      else { left += now[0] - before[0]; top -= now[1] - before[1]; }
      touches.set(event.pointerId, now);
      ask();
    });
    function up(event) {
      if (!touches.delete(event.pointerId)) return;
      if (moved < 5) { lasso = null; const i = under(...place(event)); if (i >= 0) one(i); else { at = -1; chosen = null; ask(); } return; }
      if (lasso) { at = -1; chosen = enclosed(lasso); lasso = null; selected(); }
    }
    canvas.addEventListener("pointerup", up);
    canvas.addEventListener("pointercancel", (event) => { touches.delete(event.pointerId); lasso = null; ask(); });
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      zoom(Math.exp(-Math.max(-60, Math.min(60, event.deltaY)) * 0.005), ...place(event));
    }, { passive: false });
    canvas.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: [40, 0], ArrowRight: [-40, 0], ArrowUp: [0, -40], ArrowDown: [0, 40] }[event.key];
      if (step) { left += step[0]; top += step[1]; }
      else if (event.key === "+" || event.key === "=") zoom(1.3, width / 2, height / 2);
      else if (event.key === "-") zoom(1 / 1.3, width / 2, height / 2);
      else return;
      event.preventDefault(); event.stopPropagation(); // the page's arrows turn pages
      ask();
    });
    const buttons = Array.from(figure.querySelectorAll(".map-acts button"));
    function press(kind, value) {
      buttons.filter((b) => kind in b.dataset).forEach((b) => b.setAttribute("aria-pressed", String(b.dataset[kind] === value)));
    }
    buttons.forEach((button) => button.addEventListener("click", () => {
      const set = button.dataset;
      if (set.colour) { colour = set.colour; press("colour", colour); paint(); }
      if (set.show) { show = set.show; press("show", show); ask(); }
      if (set.drag) { drag = set.drag; press("drag", drag); canvas.classList.toggle("selecting", drag === "select"); }
      if (set.map === "whole") { whole(); ask(); }
      if (set.map === "in") zoom(1.5, width / 2, height / 2);
      if (set.map === "out") zoom(1 / 1.5, width / 2, height / 2);
    }));
    press("colour", colour);
    sprite.addEventListener("load", ask);
    sprite.src = given.sprite;
    new ResizeObserver(fit).observe(canvas);
    new MutationObserver(ask).observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });
    figure.mapDraw = draw; // for measurements
    figure.mapMove = (dx, dy) => { left += dx; top += dy; };
    fit();
    paint();
  }
  document.querySelectorAll("figure.map-of-images").forEach((figure) => { if (!figure.dataset.drawn) { figure.dataset.drawn = "0"; start(figure); } });
}());
