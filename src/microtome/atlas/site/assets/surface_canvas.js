// A surface over a plane on a canvas: turned by pointer, keys or buttons, drawn from the farthest patch to the nearest.
(function () {
  "use strict";
  const AZIMUTH = -60, ELEVATION = 35, HALF = 0.6; // as in site/surface_drawing.py, which draws the still picture
  const CORNERS = [[-1, -1], [1, -1], [1, 1], [-1, 1]];

  function start(figure) {
    const data = JSON.parse(figure.querySelector("script[type='application/json']").textContent);
    const canvas = figure.querySelector("canvas"), says = figure.querySelector(".surface-says");
    const context = canvas.getContext("2d");
    if (!context) return; // the still picture stays
    figure.querySelectorAll("[hidden]").forEach((part) => { part.hidden = false; });
    figure.querySelector(".surface-picture").hidden = true;
    const rows = data.x.length, columns = data.y.length;
    let azimuth = AZIMUTH, elevation = ELEVATION, zoom = 1, height = 0, asked = false, chosen = -1;
    let width = 0, tall = 0, ratio = 1, scale = 1;

    // -- geometry -------------------------------------------------------------------------------
    function seen(x, y, z) { // right, down and away, in pixels of the page and sides of the box
      const a = azimuth * Math.PI / 180, e = elevation * Math.PI / 180, up = HALF * (2 * z - 1);
      const far = -x * Math.cos(a) - y * Math.sin(a);
      return [
        width / 2 + scale * (y * Math.cos(a) - x * Math.sin(a)),
        tall / 2 - scale * (up * Math.cos(e) + far * Math.sin(e)),
        far * Math.cos(e) - up * Math.sin(e),
      ];
    }
    const z = (place) => data.heights[height].z[place];
    const point = (place) => seen(data.x[Math.floor(place / columns)], data.y[place % columns], z(place));
    function fit() {
      const box = canvas.getBoundingClientRect();
      width = Math.max(1, box.width); tall = Math.max(1, box.height);
      ratio = Math.min(2, window.devicePixelRatio || 1);
      canvas.width = Math.round(width * ratio); canvas.height = Math.round(tall * ratio);
      ask();
    }

    // -- drawing ------------------------------------------------------------------------------------
    function ask() {
      if (!asked) { asked = true; requestAnimationFrame(() => { asked = false; draw(); }); }
    }
    function patches() {
      const found = [];
      for (let i = 0; i + 1 < rows; i += 1) {
        for (let j = 0; j + 1 < columns; j += 1) {
          const places = [i * columns + j, (i + 1) * columns + j, (i + 1) * columns + j + 1, i * columns + j + 1];
          if (places.some((place) => z(place) === null)) continue;
          const colour = Math.floor(places.reduce((sum, place) => sum + data.colour[place], 0) / 4 + 0.5);
          const away = seen((data.x[i] + data.x[i + 1]) / 2, (data.y[j] + data.y[j + 1]) / 2, 0)[2];
          found.push([away, places.map(point), data.colours[colour]]);
        }
      }
      return found.sort((one, other) => other[0] - one[0]);
    }
    function line(points, colour, wide) {
      context.strokeStyle = colour; context.lineWidth = wide;
      context.beginPath();
      points.forEach(([x, y], k) => (k ? context.lineTo(x, y) : context.moveTo(x, y)));
      context.stroke();
    }
    function words(text, x, y, align) {
      context.textAlign = align;
      context.fillText(text, x, y);
    }
    function axes(ink) {
      context.fillStyle = ink;
      context.font = "12px system-ui, sans-serif";
      context.textBaseline = "middle";
      const nearY = seen(0, -1, 0)[2] < seen(0, 1, 0)[2] ? -1 : 1, nearX = seen(-1, 0, 0)[2] < seen(1, 0, 0)[2] ? -1 : 1;
      [nearY, nearX].forEach((side, axis) => {
        const on = (share, beyond) => (axis === 0 ? seen(share, side * beyond, 0) : seen(side * beyond, share, 0));
        data.ticks[axis].forEach(([share, text]) => {
          line([on(share, 1), on(share, 1.04)], ink, 1);
          words(text, ...on(share, 1.12).slice(0, 2), "center");
        });
        const [x, y] = on(0, 1.26), aside = (x - width / 2) / scale; // beside the numbers, or below them
        if (Math.abs(aside) < 0.3) words(data.names[axis], x, y + 14, "center");
        else words(data.names[axis], x, y + 4, aside < 0 ? "right" : "left");
      });
      if (elevation > 75) return; // heights are seen from above
      const left = CORNERS.reduce((best, corner) => (seen(...corner, 0)[0] < seen(...best, 0)[0] ? corner : best));
      line([seen(...left, 0), seen(...left, 1)], ink, 1);
      data.heights[height].ticks.forEach(([share, text]) => {
        const [x, y] = seen(...left, share);
        line([[x - 4, y], [x, y]], ink, 1);
        words(text, x - 7, y, "right");
      });
      const [x, y] = seen(...left, 1);
      words("mean loss", Math.max(x, 34), y - 14, "center");
    }
    function marks(ink, ground) {
      const dot = ([x, y], r, fill) => {
        context.beginPath(); context.arc(x, y, r, 0, 7);
        context.fillStyle = fill; context.fill(); context.lineWidth = 1.5; context.strokeStyle = ink; context.stroke();
      };
      const path = (data.marks.path || []).filter((row) => row[2 + height] !== null).map((row) => seen(row[0], row[1], row[2 + height]));
      line(path, ink, 3); line(path, ground, 1.5);
      path.forEach((at) => dot(at, 3, ground));
      data.marks.network.forEach((row) => { if (row[2 + height] !== null) dot(seen(row[0], row[1], row[2 + height]), 5, "#cc3311"); });
      if (chosen >= 0 && z(chosen) !== null) dot(point(chosen), 4, ground);
      context.strokeStyle = "#cc3311"; context.lineWidth = 1.5;
      data.heights[0].z.forEach((value, place) => { // losses that are not finite: crosses on the floor
        if (value !== null) return;
        const [x, y] = seen(data.x[Math.floor(place / columns)], data.y[place % columns], 0);
        line([[x - 3, y - 3], [x + 3, y + 3]], "#cc3311", 1.5); line([[x - 3, y + 3], [x + 3, y - 3]], "#cc3311", 1.5);
      });
    }
    function draw() {
      const began = performance.now(), style = getComputedStyle(canvas), ink = style.color, ground = style.backgroundColor;
      const reach = Math.min((width - 108) / 2 / 1.42, (tall - 76) / 2 / (HALF * Math.cos(Math.PI / 5) + 1.42 * Math.sin(Math.PI / 5)));
      scale = zoom * Math.max(20, reach);
      context.setTransform(ratio, 0, 0, ratio, 0, 0);
      context.clearRect(0, 0, width, tall);
      const floor = CORNERS.map((corner) => seen(...corner, 0)), middle = seen(0, 0, 0)[2];
      context.globalAlpha = 0.35;
      line([...floor, floor[0]], ink, 1);
      CORNERS.forEach((corner, k) => { if (floor[k][2] > middle) line([floor[k], seen(...corner, 1)], ink, 1); });
      context.globalAlpha = 1;
      context.lineJoin = "round";
      patches().forEach(([, corners, colour]) => {
        context.beginPath();
        corners.forEach(([x, y], k) => (k ? context.lineTo(x, y) : context.moveTo(x, y)));
        context.closePath();
        context.fillStyle = colour; context.fill();
        context.strokeStyle = "rgba(0,0,0,.22)"; context.lineWidth = 0.5; context.stroke();
      });
      axes(ink);
      marks(ink, ground);
      Object.assign(figure.dataset, { drawn: Number(figure.dataset.drawn || 0) + 1, azimuth, elevation, zoom, height, milliseconds: performance.now() - began });
    }

    // -- input ----------------------------------------------------------------------------------------
    const places = new Map();
    const place = (event) => { const box = canvas.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };
    function turn(right, up) {
      azimuth = ((azimuth - right + 540) % 360) - 180;
      elevation = Math.max(0, Math.min(90, elevation + up));
      ask();
    }
    function larger(factor) { zoom = Math.max(0.5, Math.min(6, zoom * factor)); ask(); }
    function first() { azimuth = AZIMUTH; elevation = ELEVATION; zoom = 1; ask(); }
    const moves = {
      ArrowLeft: () => turn(-5, 0), ArrowRight: () => turn(5, 0), ArrowUp: () => turn(0, 5), ArrowDown: () => turn(0, -5),
      "+": () => larger(1.2), "=": () => larger(1.2), "-": () => larger(1 / 1.2), Home: first,
    };
    const pressed = { left: () => turn(-15, 0), right: () => turn(15, 0), up: () => turn(0, 10), down: () => turn(0, -10), in: () => larger(1.2), out: () => larger(1 / 1.2), first };
    function tell(at) {
      let far = 18 ** 2, nearest = Infinity;
      chosen = -1;
      for (let k = 0; k < rows * columns; k += 1) {
        if (z(k) === null) continue;
        const [x, y, away] = point(k), off = (x - at[0]) ** 2 + (y - at[1]) ** 2;
        if (off < far - 1 || (off < far + 1 && away < nearest)) { far = off; nearest = away; chosen = k; }
      }
      if (chosen >= 0) {
        const [a, b] = [data.at[0][Math.floor(chosen / columns)], data.at[1][chosen % columns]], off = data.error[chosen];
        says.textContent = `loss ${data.loss[chosen]}${off === null ? "" : ` ± ${off} (standard error)`} at ${data.names[0]} ${a}, ${data.names[1]} ${b}`;
      }
      ask();
    }
    canvas.addEventListener("pointerdown", (event) => {
      places.set(event.pointerId, place(event));
      try { canvas.setPointerCapture(event.pointerId); } catch (error) { /* a pointer that a script made */ }
    });
    canvas.addEventListener("pointermove", (event) => {
      const before = places.get(event.pointerId), now = place(event);
      if (!before) { tell(now); return; }
      const others = [...places.keys()].filter((id) => id !== event.pointerId);
      if (others.length) {
        const other = places.get(others[0]), gap = (p) => Math.hypot(p[0] - other[0], p[1] - other[1]) || 1;
        larger(gap(now) / gap(before));
      } else turn((now[0] - before[0]) * 0.5, (now[1] - before[1]) * 0.5);
      places.set(event.pointerId, now);
    });
    ["pointerup", "pointercancel"].forEach((kind) => canvas.addEventListener(kind, (event) => places.delete(event.pointerId)));
    canvas.addEventListener("pointerleave", () => { chosen = -1; ask(); });
    canvas.addEventListener("keydown", (event) => {
      const move = event.ctrlKey || event.metaKey || event.altKey ? null : moves[event.key];
      if (!move) return;
      event.preventDefault(); event.stopPropagation(); // the page's arrows turn pages
      move();
    });
    const buttons = Array.from(figure.querySelectorAll(".surface-acts button"));
    buttons.forEach((button) => button.addEventListener("click", () => {
      if (button.dataset.turn) { pressed[button.dataset.turn](); return; }
      height = Number(button.dataset.height);
      buttons.filter((b) => b.dataset.height).forEach((b) => b.setAttribute("aria-pressed", String(b === button)));
      ask();
    }));
    new ResizeObserver(fit).observe(canvas);
    new MutationObserver(ask).observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });
    window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", ask);
    figure.surfacePoint = (i, j) => point(i * columns + j); // for measurements
    figure.surfaceDraw = draw;
    fit();
  }
  document.querySelectorAll("figure.loss-surface").forEach((figure) => { if (!figure.dataset.drawn) { figure.dataset.drawn = "0"; start(figure); } });
}());
