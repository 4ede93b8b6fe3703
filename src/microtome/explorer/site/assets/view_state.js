// The state of the page, in its address: a link opens the same view again.
(function () {
  "use strict";
  const EDIT = /^(.+):(\d+)([*=])(-?[0-9.e+-]+)$/;

  // conv2:3*0 ablates unit 3 of conv2, conv2:5=1.5 holds unit 5 at 1.5.
  const editText = (edit) => `${edit.layer}:${edit.unit}${edit.scale === null ? `=${edit.clamp}` : `*${edit.scale}`}`;
  function editOf(text) {
    const found = EDIT.exec(text);
    if (!found || !Number.isFinite(Number(found[4]))) return null;
    const number = Number(found[4]);
    return { layer: found[1], unit: Number(found[2]), scale: found[3] === "*" ? number : null, clamp: found[3] === "=" ? number : null };
  }

  function read(hash, facts) {
    const given = new URLSearchParams(hash.replace(/^#/, ""));
    const known = (name, table, other) => (table.includes(given.get(name)) ? given.get(name) : other);
    const whole = (name, most, other) => {
      const number = Number(given.get(name));
      return given.has(name) && Number.isInteger(number) && number >= 0 && number < most ? number : other;
    };
    const layer = known("layer", facts.layers.map((one) => one.name), facts.layer);
    const units = facts.layers.find((one) => one.name === layer).units;
    const picture = (name, other) => (/^(data:\d{1,9}|kept:[0-9a-f]{32}|drawn:[\w-]*)$/.test(given.get(name) || "") ? given.get(name) : other);
    const pictures = [picture("picture", facts.images ? "data:0" : ""), picture("second", "")];
    const compare = known("compare", facts.networks.length > 1 ? ["pictures", "networks"] : ["pictures"], "");
    if (compare && !pictures[1]) pictures[1] = pictures[0];
    return {
      layer, unit: whole("unit", units, 0), pictures, compare,
      side: whole("side", 2, 0) && compare ? 1 : 0,
      target: whole("target", facts.classes.length, null),
      method: known("method", facts.methods.map((one) => one.name), facts.methods.some((one) => one.name === "grad-cam") ? "grad-cam" : facts.methods[0].name),
      projection: known("projection", facts.projections, "gradient"),
      order: known("order", ["unit", "peak", "sum"], "unit"),
      shared: given.get("scale") === "shared",
      opacity: whole("opacity", 101, 80),
      edits: (given.get("edits") || "").split(";").map(editOf).filter(Boolean).slice(0, 200),
    };
  }

  function write(state) {
    const made = new URLSearchParams();
    made.set("layer", state.layer);
    made.set("unit", String(state.unit));
    made.set("picture", state.pictures[0]);
    if (state.compare) {
      made.set("compare", state.compare);
      if (state.compare === "pictures") made.set("second", state.pictures[1]);
      if (state.side) made.set("side", "1");
    }
    if (state.target !== null) made.set("target", String(state.target));
    made.set("method", state.method);
    made.set("projection", state.projection);
    if (state.order !== "unit") made.set("order", state.order);
    if (state.shared) made.set("scale", "shared");
    if (state.opacity !== 80) made.set("opacity", String(state.opacity));
    if (state.edits.length) made.set("edits", state.edits.map(editText).join(";"));
    return `#${made}`;
  }

  window.explorer.state = { read, write };
})();
