// The controls: their content, and the actions of clicks, keys and dropped files.
(function () {
  "use strict";
  const { make, colours, short } = window.explorer;

  window.explorer.controls = function (page) {
    const { facts, state, find, say, problem, fetched } = page;

    function unitControls() {
      const edit = page.editOf(state.unit);
      find("unit-name").textContent = `${state.layer}:${state.unit}${edit ? ` (${page.wordOf(edit)})` : ""}`;
      find("restore").hidden = !edit;
      find("edits").hidden = !state.edits.length && !page.canUndo();
      find("undo").disabled = !page.canUndo();
      find("edit-list").replaceChildren(...state.edits.map((one) => {
        const item = make("li");
        const button = make("button", `${one.layer}:${one.unit} ${page.wordOf(one)} ✕`);
        button.type = "button";
        button.setAttribute("aria-label", `Restore ${one.layer}:${one.unit}`);
        button.addEventListener("click", () => page.change(state.edits.filter((other) => other !== one)));
        item.append(button);
        return item;
      }));
      const live = page.sides[0] && page.sides[0].live;
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
      const layer = page.layerFacts();
      const field = layer.field ? `, each sees ${layer.field[0]} × ${layer.field[1]}\u00a0px` : "";
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

    async function share() {
      say("Recomputing the view on one thread");
      try {
        const side = page.sides[state.side];
        const body = JSON.stringify(page.asked(side, { layer: state.layer, unit: state.unit, target: state.target, method: state.method, projection: state.projection }));
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
      page.build();
      page.thumbs();
    }

    function theme() {
      document.documentElement.dataset.theme = colours.dark() ? "light" : "dark";
      try { localStorage.setItem("atlas-theme", document.documentElement.dataset.theme); } catch (error) { /* nothing to remember with */ }
      page.sides.forEach((side) => { if (side.live) page.showLive(side); });
      page.refreshAll();
      page.askExamples("");
    }
    function shared() {
      state.shared = !state.shared;
      page.sides.forEach((side) => { side.grid.shared = state.shared; side.grid.draw(); });
      controls();
      page.remember();
    }
    function stepLayer(step) {
      const next = facts.layers[facts.layers.findIndex((one) => one.name === state.layer) + step];
      if (next) page.chooseLayer(next.name);
    }

    const press = (id, work) => find(id).addEventListener("click", work);
    press("clear", () => { page.chooseSide(state.side); page.sides[state.side].input.blank(); });
    press("upload", () => find("file").click());
    find("file").addEventListener("change", () => { if (find("file").files[0]) page.upload(find("file").files[0]); find("file").value = ""; });
    press("webcam", () => (page.webcamOn() ? page.stopWebcam() : page.startWebcam()));
    press("images-before", () => page.turn(-24));
    press("images-after", () => page.turn(24));
    press("ablate", () => page.setUnit(0, null));
    press("double", () => page.setUnit(2, null));
    press("clamp", page.clamp);
    press("restore", page.restore);
    press("undo", page.undo);
    press("occlude", page.occlude);
    press("share", share);
    press("compare", compare);
    press("theme", theme);
    press("scale", shared);
    press("keys-open", () => find("keys").showModal());
    find("layer").addEventListener("change", () => page.chooseLayer(find("layer").value));
    find("order").addEventListener("change", () => { state.order = find("order").value; page.remember(); page.sides.forEach((side) => side.live && page.showLive(side)); });
    find("method").addEventListener("change", () => { state.method = find("method").value; page.remember(); page.sides.forEach((side) => side.explain()); });
    find("projection").addEventListener("change", () => { state.projection = find("projection").value; page.remember(); page.projectAll(); });
    find("opacity").addEventListener("input", () => { state.opacity = Number(find("opacity").value); controls(); page.remember(); });
    find("target").addEventListener("change", () => {
      const index = facts.classes.indexOf(find("target").value);
      state.target = null;
      if (index >= 0) page.chooseClass(index); else { find("target").value = ""; page.remember(); page.sides.forEach((side) => { page.showScores(side); side.explain(); side.summed(); }); }
    });
    document.addEventListener("keydown", (event) => {
      if (/^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName) || event.ctrlKey || event.metaKey || event.altKey || find("keys").open) return;
      const table = { x: () => page.setUnit(0, null), 2: () => page.setUnit(2, null), c: page.clamp, r: page.restore, z: page.undo, "[": () => stepLayer(-1), "]": () => stepLayer(1), n: () => page.stepImage(1), p: () => page.stepImage(-1), s: shared, d: theme, "?": () => find("keys").showModal() };
      if (table[event.key]) { event.preventDefault(); table[event.key](); }
    });
    document.addEventListener("dragover", (event) => event.preventDefault());
    document.addEventListener("drop", (event) => { event.preventDefault(); if (event.dataTransfer.files[0] && facts.send) page.upload(event.dataTransfer.files[0]); });

    Object.assign(page, { controls, unitControls });
  };
})();
