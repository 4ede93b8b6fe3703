// The explorer's page: holds the state, asks the server, hands answers to the panels.
(async function () {
  "use strict";
  const { Socket, PictureInput, UnitGrid, latest, unpack, encode, decode, make, canvas, colours, short, panel, classes } = window.explorer;
  const find = (id) => document.getElementById(id);
  const say = (text) => { find("state").textContent = text; };
  const problem = (text) => { find("problem").hidden = !text; find("problem").textContent = text; };

  async function fetched(address, options) {
    const answer = await fetch(address, options);
    if (answer.ok) return answer;
    let why = `${answer.status}`;
    try { why = (await answer.json()).detail; } catch (error) { /* no reason given */ }
    throw new Error(why);
  }
  const frameOf = async (address) => unpack(await (await fetched(address)).arrayBuffer());

  let facts;
  try { facts = await (await fetched("/api/network")).json(); } catch (error) { problem(error.message); return; }
  const state = window.explorer.state.read(location.hash, facts);
  const layerFacts = () => facts.layers.find((one) => one.name === state.layer);
  const socket = new Socket(say);
  let undone = []; // lists of changed units before the last ones
  let sides = [];
  let working = null; // what is being made for the chosen unit
  let stream = null; // the webcam

  // -- the address ------------------------------------------------------------------------------------------
  let written = "";
  function remember() {
    written = window.explorer.state.write(state);
    history.replaceState(null, "", written);
    find("where").textContent = `${state.layer}:${state.unit}`;
  }
  addEventListener("hashchange", () => {
    if (location.hash === written) return;
    Object.assign(state, window.explorer.state.read(location.hash, facts));
    build();
  });

  // -- sides: one, or two that are compared -----------------------------------------------------------------
  const network = (place) => (state.compare === "networks" ? place : 0);
  const pictureOf = (place) => state.pictures[state.compare === "networks" ? 0 : place];
  const asked = (side, more) => ({ network: network(side.place), picture: side.kept || pictureOf(side.place), edits: state.edits, ...more });
  const plainOf = (side, more) => ({ ...asked(side, more), edits: [] });
  const names = (place) => (state.compare === "networks" ? facts.networks[place].name : `picture ${"AB"[place]}`);

  function build() {
    stopWebcam();
    document.body.classList.toggle("two-sides", Boolean(state.compare));
    find("compare").setAttribute("aria-pressed", String(Boolean(state.compare)));
    sides = (state.compare ? [0, 1] : [0]).map((place) => ({ place, kept: "", live: null, plain: null, sent: null, sum: null, boxes: {} }));
    ["inputs", "grids", "projections", "scores", "sums", "maps", "occlusions"].forEach((id) => {
      find(id).replaceChildren(...sides.map((side) => {
        const box = make("div", undefined, "side");
        const label = make("span", names(side.place), "label");
        const inside = make("div");
        box.append(label, inside);
        side.boxes[id] = inside;
        if (id === "inputs" && side.place === 1 && state.compare === "networks") box.hidden = true;
        return box;
      }));
    });
    sides.forEach((side) => {
      const picture = canvas(`The picture${state.compare ? ` of ${names(side.place)}` : ""}${facts.draw ? "; draw on it" : ""}`, "picture");
      side.boxes.inputs.append(picture);
      side.input = new PictureInput(picture, facts, (pixels) => drawn(side, pixels));
      picture.addEventListener("pointerdown", () => chooseSide(side.place));
      picture.addEventListener("focus", () => chooseSide(side.place));
      const box = make("div", undefined, "grid");
      box.id = `grid-${side.place}`;
      side.boxes.grids.append(box);
      side.grid = new UnitGrid(box, (unit) => chooseUnit(unit, side), markOf);
      side.grid.unit = state.unit;
      side.grid.shared = state.shared;
      wire(side);
    });
    controls();
    chooseSide(state.side, true);
    sides.forEach((side) => load(side));
    remember();
  }

  function chooseSide(place, quiet) {
    state.side = state.compare ? place : 0;
    document.querySelectorAll("#inputs .side").forEach((box, at) => box.classList.toggle("chosen", at === state.side));
    if (!quiet) { remember(); thumbs(); }
  }

  // -- pictures ---------------------------------------------------------------------------------------------
  async function load(side) {
    const name = pictureOf(side.place);
    side.kept = "";
    if (!name) { if (facts.draw) side.input.blank(); return; }
    if (name.startsWith("drawn:")) {
      const gray = decode(name.slice(6), facts.input_shape[1] * facts.input_shape[2]);
      if (!gray || !facts.draw) { problem("the drawing in the address does not fit this network; draw again."); return; }
      side.input.takeGray(gray);
      side.input.send();
      return;
    }
    try {
      const frame = await frameOf(`/api/picture?name=${encodeURIComponent(name)}`);
      if (pictureOf(side.place) !== name) return;
      side.input.show(frame);
      side.title = [frame.header.name, frame.header.label >= 0 ? `class ${facts.classes[frame.header.label] || frame.header.label}` : ""].filter(Boolean).join(", ");
      find("source-note").textContent = sides[state.side].title || "";
      problem("");
      refresh(side);
    } catch (error) { problem(error.message); }
  }

  function choosePicture(name) {
    stopWebcam();
    const place = state.compare === "networks" ? 0 : state.side;
    state.pictures[place] = name;
    sides.forEach((side) => { if (state.compare === "networks" || side.place === place) load(side); });
    remember();
    thumbs();
  }

  // While one draws: the newest picture goes out as soon as the answer to the one before is there.
  function drawn(side, pixels) {
    side.pixels = pixels;
    side.title = "drawn";
    find("source-note").textContent = "";
    side.stream();
  }

  let start = 0;
  async function thumbs() {
    if (!facts.images) return;
    const count = 24;
    const current = /^data:(\d+)$/.exec(pictureOf(state.side));
    const frame = await frameOf(`/api/images?start=${start}&count=${count}`);
    find("images").replaceChildren(...frame.header.labels.map((label, i) => {
      const [, height, width] = frame.shapes.pictures;
      const picture = make("canvas");
      picture.setAttribute("aria-hidden", "true");
      colours.picture(picture, frame.blocks.pictures, height, width, i * height * width * 3);
      const button = make("button");
      button.type = "button";
      button.dataset.image = String(start + i);
      const said = `image ${frame.header.names[i]}${label >= 0 ? `, class ${facts.classes[label] || label}` : ""}`;
      button.setAttribute("aria-label", said);
      button.title = said;
      button.setAttribute("aria-pressed", String(Boolean(current) && Number(current[1]) === start + i));
      button.append(picture);
      button.addEventListener("click", () => choosePicture(`data:${button.dataset.image}`));
      return button;
    }));
    find("images-where").textContent = `${start + 1} to ${start + frame.header.labels.length} of ${facts.images.toLocaleString("en")}`;
    find("images-before").disabled = start === 0;
    find("images-after").disabled = start + count >= facts.images;
  }
  function turn(step) { start = Math.max(0, Math.min(facts.images - 1, start + step)); thumbs(); }

  function stepImage(step) {
    const current = /^data:(\d+)$/.exec(pictureOf(state.side));
    const next = current ? Number(current[1]) + step : 0;
    if (next < 0 || next >= facts.images) return;
    if (next < start || next >= start + 24) start = Math.floor(next / 24) * 24;
    choosePicture(`data:${next}`);
  }

  async function upload(file) {
    say("Sending the picture");
    try {
      if (file.size > facts.upload_bytes) throw new Error(`the file has ${Math.round(file.size / 1048576)} MB; at most ${Math.round(facts.upload_bytes / 1048576)} are taken.`);
      const answer = await fetched("/api/pictures", { method: "POST", body: file, headers: { "content-type": file.type || "application/octet-stream" } });
      choosePicture((await answer.json()).picture);
      problem("");
    } catch (error) { problem(error.message); }
    say("");
  }

  async function startWebcam() {
    try {
      stream = await navigator.mediaDevices.getUserMedia({ video: { width: 640, height: 480 }, audio: false });
    } catch (error) { problem(`the webcam cannot be used: ${error.message}`); return; }
    find("webcam").setAttribute("aria-pressed", "true");
    const video = make("video");
    video.muted = true;
    video.srcObject = stream;
    await video.play();
    const side = sides[state.side];
    const own = stream;
    const began = performance.now();
    let frames = 0;
    while (stream === own && sides.includes(side)) {
      side.pixels = side.input.takeVideo(video);
      await side.once();
      frames += 1;
      if (frames % 10 === 0) find("source-note").textContent = `${((1000 * frames) / (performance.now() - began)).toFixed(0)} frames a second`;
      if (frames % 20 === 0) sides.forEach((one) => one.others());
      await new Promise((resolve) => { requestAnimationFrame(resolve); });
    }
    own.getTracks().forEach((track) => track.stop());
  }
  function stopWebcam() {
    if (!stream) return;
    stream = null;
    find("webcam").setAttribute("aria-pressed", "false");
    sides.forEach((side) => side.others());
  }

  // -- questions of a side ----------------------------------------------------------------------------------
  function wire(side) {
    const alive = () => sides.includes(side);
    side.once = async () => {
      const { pixels, place } = side;
      side.pixels = null;
      try {
        const frame = await socket.ask("live", asked(side, { layer: state.layer }), { pixels });
        if (!alive()) return;
        if (pixels) {
          side.kept = frame.header.picture;
          state.pictures[state.compare === "networks" ? 0 : place] = facts.draw && !stream ? `drawn:${encode(pixels)}` : frame.header.picture;
          if (state.compare === "networks") sides.filter((one) => one !== side).forEach((one) => { one.kept = side.kept; one.input.pixels = side.input.pixels; one.live_(); });
        }
        if (frame.header.layer === state.layer) { side.live = frame; showLive(side); }
        problem("");
      } catch (error) { if (!error.cancelled) problem(error.message); }
    };
    const run = latest(side.once);
    let timer = 0;
    side.live_ = run;
    side.stream = () => {
      run();
      clearTimeout(timer);
      timer = setTimeout(() => { remember(); thumbs(); side.others(); }, 250);
    };
    const panelled = (kind, question, show, hide) => latest(async () => {
      if (!alive() || !(side.kept || pictureOf(side.place)) || pictureOf(side.place).startsWith("drawn:") && !side.kept) return;
      try {
        const frame = await socket.ask(kind, question());
        if (alive()) show(frame);
      } catch (error) { if (alive() && !error.cancelled) hide(error.message); }
    });
    const fail = (id) => (message) => side.boxes[id].replaceChildren(make("p", message, "empty"));
    side.project = panelled("project", () => asked(side, { layer: state.layer, unit: state.unit, method: state.projection }),
      (frame) => { side.sent = frame; side.fault = ""; showProjection(side); }, (message) => { side.sent = null; side.fault = message; showProjection(side); });
    side.explain = panelled("explain", () => asked(side, { method: state.method, target: state.target }),
      (frame) => classes.map(side.boxes.maps, side.input, frame, facts.classes), fail("maps"));
    side.summed = panelled("sum", () => asked(side, { layer: state.layer, target: state.target }),
      (frame) => { side.sum = frame; showSum(side); if (state.order === "sum") showLive(side); }, fail("sums"));
    side.plainly = panelled("live", () => plainOf(side, { layer: state.layer }), (frame) => { side.plain = frame; showScores(side); }, () => {});
    side.dissect = panelled("dissect", () => asked(side, { layer: state.layer, unit: state.unit }),
      (frame) => panel.dissection(find("dissection"), frame, linkTo, Boolean(editOf(state.unit))), (message) => find("dissection").replaceChildren(make("p", message, "empty")));
    side.others = () => {
      side.project();
      side.explain();
      side.summed();
      if (state.edits.length) side.plainly(); else side.plain = null;
      if (side.place === state.side) side.dissect();
      side.boxes.occlusions.replaceChildren();
      find("occluded-note").textContent = "";
    };
  }

  function refresh(side) {
    if (side.kept || !pictureOf(side.place).startsWith("drawn:")) { side.live_(); side.others(); } else load(side);
  }
  const refreshAll = () => sides.forEach(refresh);

  // -- showing ----------------------------------------------------------------------------------------------
  function ordered(side) {
    const { peak } = side.live.blocks;
    const units = Array.from(peak.keys());
    if (state.order === "peak") return units.sort((a, b) => peak[b] - peak[a] || a - b);
    if (state.order === "sum" && side.sum && side.sum.header.layer === state.layer) {
      const amount = new Float32Array(units.length);
      side.sum.blocks.unit.forEach((unit, i) => { amount[unit] = side.sum.blocks.amount[i]; });
      return units.sort((a, b) => Math.abs(amount[b]) - Math.abs(amount[a]) || a - b);
    }
    return units;
  }

  function showLive(side) {
    side.grid.show(side.live, ordered(side));
    side.grid.select(state.unit, false);
    showScores(side);
    showProjection(side);
    if (side.place === 0) {
      const { peak, mean } = side.live.blocks;
      find("unit-facts").textContent = `highest ${short(peak[state.unit])}, mean ${short(mean[state.unit])} on this picture`;
    }
  }

  function showScores(side) {
    if (!side.live) return;
    classes.scores(side.boxes.scores, side.live, facts.classes, state.target, state.edits.length ? side.plain : null, chooseClass);
  }
  function showSum(side) { classes.sums(side.boxes.sums, side.sum, facts.classes, state.unit, (unit) => chooseUnit(unit, null)); }
  function showProjection(side) {
    if (!side.live || side.live.header.layer !== state.layer) return;
    const fits = side.sent && side.sent.header.layer === state.layer && side.sent.header.unit === state.unit;
    panel.projection(side.boxes.projections, side.live, fits ? side.sent : null, state.unit, side.fault);
  }

  function linkTo(layer, unit) {
    if (!facts.layers.some((one) => one.name === layer && unit < one.units)) return "";
    return window.explorer.state.write({ ...state, layer, unit });
  }

  // -- choosing ---------------------------------------------------------------------------------------------
  const projectAll = () => sides.forEach((side) => { side.project(); if (side.place === state.side) side.dissect(); });

  function chooseUnit(unit, from) {
    state.unit = unit;
    sides.forEach((side) => { if (side !== from) side.grid.select(unit, true); });
    unitControls();
    sides.forEach((side) => { showProjection(side); if (side.sum) showSum(side); });
    remember();
    projectAll();
    askExamples("");
  }

  function chooseLayer(name) {
    state.layer = name;
    state.unit = Math.min(state.unit, layerFacts().units - 1);
    sides.forEach((side) => { side.sum = null; side.sent = null; side.plain = null; side.grid.unit = state.unit; side.grid.box.scrollTop = 0; });
    controls();
    remember();
    refreshAll();
    askExamples("");
  }

  function chooseClass(index) {
    state.target = index === state.target ? null : index;
    find("target").value = state.target === null ? "" : facts.classes[state.target];
    remember();
    sides.forEach((side) => { showScores(side); side.explain(); side.summed(); });
  }

  // -- changed units ----------------------------------------------------------------------------------------
  const editOf = (unit) => state.edits.find((edit) => edit.layer === state.layer && edit.unit === unit);
  const wordOf = (edit) => (edit.scale === null ? `= ${short(edit.clamp)}` : edit.scale === 0 ? "off" : `× ${short(edit.scale)}`);
  function markOf(unit) {
    const edit = editOf(unit);
    return edit ? wordOf(edit) : "";
  }

  function change(edits) {
    undone.push(state.edits);
    state.edits = edits;
    edited();
  }
  function edited() {
    unitControls();
    remember();
    sides.forEach((side) => side.grid.draw());
    refreshAll();
  }
  function setUnit(scale, clamp) {
    const rest = state.edits.filter((edit) => edit !== editOf(state.unit));
    change([...rest, { layer: state.layer, unit: state.unit, scale, clamp }]);
  }
  const restore = () => { if (editOf(state.unit)) change(state.edits.filter((edit) => edit !== editOf(state.unit))); };
  const undo = () => { if (undone.length) { state.edits = undone.pop(); edited(); } };
  const clamp = () => { const to = Number(find("clamp-to").value); if (Number.isFinite(to)) setUnit(null, to); };

  // -- controls ---------------------------------------------------------------------------------------------
  function unitControls() {
    const edit = editOf(state.unit);
    find("unit-name").textContent = `${state.layer}:${state.unit}${edit ? ` (${wordOf(edit)})` : ""}`;
    find("restore").hidden = !edit;
    find("edits").hidden = !state.edits.length && !undone.length;
    find("undo").disabled = !undone.length;
    find("edit-list").replaceChildren(...state.edits.map((one) => {
      const item = make("li");
      const button = make("button", `${one.layer}:${one.unit} ${wordOf(one)} ✕`);
      button.type = "button";
      button.setAttribute("aria-label", `Restore ${one.layer}:${one.unit}`);
      button.addEventListener("click", () => change(state.edits.filter((other) => other !== one)));
      item.append(button);
      return item;
    }));
    const live = sides[0] && sides[0].live;
    if (live && live.header.layer === state.layer) find("unit-facts").textContent = `highest ${short(live.blocks.peak[state.unit])}, mean ${short(live.blocks.mean[state.unit])} on this picture`;
  }

  function controls() {
    find("layer").value = state.layer;
    find("order").value = state.order;
    find("method").value = state.method;
    find("projection").value = state.projection;
    find("target").value = state.target === null ? "" : facts.classes[state.target];
    find("opacity").value = String(state.opacity);
    document.body.style.setProperty("--opacity", String(state.opacity / 100));
    find("scale").setAttribute("aria-pressed", String(state.shared));
    const layer = layerFacts();
    const field = layer.field ? `, each sees ${layer.field[0]} × ${layer.field[1]} px` : "";
    find("layer-facts").textContent = `${layer.kind}, ${layer.units} units of ${layer.grid[0]} × ${layer.grid[1]}${field}`;
    unitControls();
  }

  const options = (id, rows) => find(id).replaceChildren(...rows.map(([value, text]) => {
    const option = make("option", text);
    option.value = value;
    return option;
  }));
  options("layer", facts.layers.map((one) => [one.name, `${one.name} · ${one.units} units · ${one.grid.join("×")}`]));
  options("method", facts.methods.map((one) => [one.name, one.slow ? `${one.name} (slow)` : one.name]));
  options("projection", facts.projections.map((name) => [name, name === "relevance" ? "relevance" : name]));
  options("class-names", facts.classes.map((name) => [name, ""]));

  // -- examples ---------------------------------------------------------------------------------------------
  let making = null;
  async function askExamples(compute) {
    if (making) { making.cancel(); making = null; }
    working = compute || null;
    const question = { network: 0, layer: state.layer, unit: state.unit };
    const actions = { compute: askExamples, stop: () => askExamples(""), image: (index) => choosePicture(`data:${index}`) };
    const here = () => question.layer === state.layer && question.unit === state.unit;
    try {
      if (compute) {
        const before = await socket.ask("examples", question);
        if (here()) panel.examples(find("examples"), before, compute, actions);
      }
      const answer = socket.ask("examples", { ...question, compute }, { progress: (frame) => {
        const note = find("examples-note");
        if (note && here()) note.textContent = `${frame.header.stage}: ${frame.header.done} of ${frame.header.total}`;
      } });
      making = compute ? answer : null;
      const frame = await answer;
      if (!here()) return;
      making = null;
      working = null;
      panel.examples(find("examples"), frame, null, actions);
    } catch (error) {
      if (!error.cancelled && here()) find("examples").replaceChildren(make("p", error.message, "empty"));
    }
  }

  // -- occlusion --------------------------------------------------------------------------------------------
  let covering = [];
  async function occlude() {
    if (covering.length) { covering.forEach((answer) => answer.cancel()); return; }
    const bar = find("occluded");
    const began = performance.now();
    bar.hidden = false;
    find("occlude").textContent = "Stop";
    const work = sides.map((side) => {
      const [, height, width] = facts.input_shape;
      const gathered = new classes.Covering(height, width);
      const answer = socket.ask("occlusion", asked(side, { target: state.target }), { progress: (frame) => {
        gathered.add(frame);
        gathered.draw(side.boxes.occlusions, side.input);
        bar.value = frame.header.done / frame.header.total;
        find("occluded-note").textContent = `${frame.header.done} of ${frame.header.total} windows, ${Math.ceil(frame.header.remaining)} s`;
      } });
      covering.push(answer);
      return answer.then((frame) => {
        classes.map(side.boxes.occlusions, side.input, frame, facts.classes);
        const more = `Windows of ${frame.header.window} px, step ${frame.header.stride}; uncovered ${frame.header.named} ${short(frame.header.unoccluded)}. Red places are needed for the answer.`;
        side.boxes.occlusions.append(make("p", more, "note"));
      }).catch((error) => { if (!error.cancelled) side.boxes.occlusions.replaceChildren(make("p", error.message, "empty")); });
    });
    await Promise.all(work);
    covering = [];
    bar.hidden = true;
    find("occlude").textContent = "Cover each place";
    find("occluded-note").textContent = `${((performance.now() - began) / 1000).toFixed(1)} s`;
  }

  // -- share ------------------------------------------------------------------------------------------------
  async function share() {
    say("Computing the view anew, on one thread");
    try {
      const side = sides[state.side];
      const body = JSON.stringify(asked(side, { layer: state.layer, unit: state.unit, target: state.target, method: state.method, projection: state.projection }));
      const answer = await fetched(`/api/share?address=${encodeURIComponent(location.hash.slice(0, 4000))}`, { method: "POST", body, headers: { "content-type": "application/json" } });
      const link = make("a");
      link.href = URL.createObjectURL(await answer.blob());
      link.download = `${state.layer}-${state.unit}.html`.replace(/[^\w.-]+/g, "-");
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10000);
      say("Saved");
    } catch (error) { problem(error.message); say(""); }
  }

  function compare() {
    const modes = ["", "pictures", ...(facts.networks.length > 1 ? ["networks"] : [])];
    state.compare = modes[(modes.indexOf(state.compare) + 1) % modes.length];
    if (state.compare && !state.pictures[1]) state.pictures[1] = state.pictures[0];
    state.side = state.compare === "pictures" ? 1 : 0;
    build();
    thumbs();
  }

  function theme() {
    document.documentElement.dataset.theme = colours.dark() ? "light" : "dark";
    try { localStorage.setItem("atlas-theme", document.documentElement.dataset.theme); } catch (error) { /* nothing to remember with */ }
    sides.forEach((side) => { if (side.live) showLive(side); });
    refreshAll();
    askExamples("");
  }
  function shared() {
    state.shared = !state.shared;
    sides.forEach((side) => { side.grid.shared = state.shared; side.grid.draw(); });
    controls();
    remember();
  }
  function stepLayer(step) {
    const next = facts.layers[facts.layers.findIndex((one) => one.name === state.layer) + step];
    if (next) chooseLayer(next.name);
  }

  const press = (id, work) => find(id).addEventListener("click", work);
  press("clear", () => { chooseSide(state.side); sides[state.side].input.blank(); });
  press("upload", () => find("file").click());
  find("file").addEventListener("change", () => { if (find("file").files[0]) upload(find("file").files[0]); find("file").value = ""; });
  press("webcam", () => (stream ? stopWebcam() : startWebcam()));
  press("images-before", () => turn(-24));
  press("images-after", () => turn(24));
  press("ablate", () => setUnit(0, null));
  press("double", () => setUnit(2, null));
  press("clamp", clamp);
  press("restore", restore);
  press("undo", undo);
  press("occlude", occlude);
  press("share", share);
  press("compare", compare);
  press("theme", theme);
  press("scale", shared);
  press("keys-open", () => find("keys").showModal());
  find("layer").addEventListener("change", () => chooseLayer(find("layer").value));
  find("order").addEventListener("change", () => { state.order = find("order").value; remember(); sides.forEach((side) => side.live && showLive(side)); });
  find("method").addEventListener("change", () => { state.method = find("method").value; remember(); sides.forEach((side) => side.explain()); });
  find("projection").addEventListener("change", () => { state.projection = find("projection").value; remember(); projectAll(); });
  find("opacity").addEventListener("input", () => { state.opacity = Number(find("opacity").value); controls(); remember(); });
  find("target").addEventListener("change", () => {
    const index = facts.classes.indexOf(find("target").value);
    state.target = null;
    if (index >= 0) chooseClass(index); else { find("target").value = ""; remember(); sides.forEach((side) => { showScores(side); side.explain(); side.summed(); }); }
  });
  document.addEventListener("keydown", (event) => {
    if (/^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName) || event.ctrlKey || event.metaKey || event.altKey || find("keys").open) return;
    const table = { x: () => setUnit(0, null), 2: () => setUnit(2, null), c: clamp, r: restore, z: undo, "[": () => stepLayer(-1), "]": () => stepLayer(1), n: () => stepImage(1), p: () => stepImage(-1), s: shared, d: theme, "?": () => find("keys").showModal() };
    if (table[event.key]) { event.preventDefault(); table[event.key](); }
  });
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => { event.preventDefault(); if (event.dataTransfer.files[0] && facts.send) upload(event.dataTransfer.files[0]); });

  find("clear").hidden = !facts.draw;
  find("upload").hidden = !facts.send;
  find("webcam").hidden = !facts.send || !navigator.mediaDevices;
  find("source-note").textContent = "";
  if (facts.notes.length) say(facts.notes[0]);
  const first = /^data:(\d+)$/.exec(state.pictures[state.side]);
  if (first) start = Math.floor(Number(first[1]) / 24) * 24;
  build();
  thumbs();
  askExamples("");
  document.body.dataset.ready = "true";
})();
