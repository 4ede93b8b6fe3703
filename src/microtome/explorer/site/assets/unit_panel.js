// The chosen unit: its map, its backward image, its examples and its dissection.
(function () {
  "use strict";
  const { colours, short, signedNumber } = window.explorer;
  const FEW = 8; // rows of a dissection that are shown at first
  const make = (tag, text, kind) => {
    const element = document.createElement(tag);
    if (text !== undefined) element.textContent = text;
    if (kind) element.className = kind;
    return element;
  };

  function canvas(alt, kind) {
    const made = make("canvas", undefined, kind);
    made.setAttribute("role", "img");
    made.setAttribute("aria-label", alt);
    return made;
  }

  function figure(picture, caption) {
    const made = make("figure");
    made.append(picture, make("figcaption", caption));
    return made;
  }

  // The unit's activation map next to its activation at the pixels.
  function projection(place, live, sent, unit, error) {
    place.replaceChildren();
    const pair = make("div", undefined, "pairing");
    const [, h, w] = live.shapes.maps;
    const map = canvas(`Activation map of unit ${unit}`, "picture");
    colours.map(map, live.blocks.maps, h, w, live.header.signed, unit * h * w);
    const [rows, columns] = live.header.grid;
    pair.append(figure(map, `activation, ${rows} × ${columns}, highest ${short(live.blocks.peak[unit])}`));
    if (sent) {
      const [, height, width] = sent.shapes.map;
      const back = canvas(`Unit ${unit} sent back to the pixels by ${sent.header.method}`, "picture");
      colours.map(back, sent.blocks.map, height, width, true);
      const [row, column] = sent.header.position;
      pair.append(figure(back, `${sent.header.method} of the activation ${short(sent.header.activation)} at row ${row}, column ${column}`));
    }
    place.append(pair);
    if (error) place.append(make("p", error, "empty"));
  }

  function strip(frame, name, title, captions, press) {
    const [count, height, width] = frame.shapes[name];
    const row = make("div", undefined, "row-pictures");
    for (let i = 0; i < count; i += 1) {
      const picture = canvas(`${title} ${i + 1}: ${captions[i]}`);
      if (frame.shapes[name].length === 4) colours.picture(picture, frame.blocks[name], height, width, i * height * width * 3);
      else colours.map(picture, frame.blocks[name], height, width, true, i * height * width);
      let shown = picture;
      if (press) {
        shown = make("button");
        shown.type = "button";
        shown.title = press.title(i);
        shown.addEventListener("click", () => press.go(i));
        shown.append(picture);
      }
      row.append(figure(shown, captions[i]));
    }
    return row;
  }

  // Superstimuli and patches; missing ones are computed on a click.
  function examples(place, frame, working, actions) {
    place.replaceChildren();
    const header = frame.header;
    const missing = [];
    if (frame.blocks.stimuli) {
      place.append(strip(frame, "stimuli", "superstimulus", header.stimulus_activations.map((value) => short(value))));
      place.append(make("p", "Superstimuli with their activation.", "note"));
    } else missing.push(["superstimulus", "Compute a superstimulus"]);
    if (frame.blocks.patches) {
      const open = { title: (i) => `Look at image ${header.patch_images[i]}`, go: (i) => actions.image(header.patch_images[i]) };
      place.append(strip(frame, "patches", "patch", header.patch_activations.map((value) => short(value)), open));
      place.append(make("p", `Patches of ${header.searched.toLocaleString("en")} images that drive it most; a click opens the image.`, "note"));
      if (frame.blocks.reconstructions) {
        place.append(strip(frame, "reconstructions", "reconstruction of patch", header.patch_activations.map(() => "")));
        place.append(make("p", "The same activations at the pixels, by guided backpropagation.", "note"));
      }
    } else missing.push(["patches", "Search the images for its patches"]);
    const acts = make("div", undefined, "acts");
    missing.forEach(([what, text]) => {
      const button = make("button", working === what ? "Stop" : text);
      button.type = "button";
      button.dataset.compute = what;
      button.disabled = Boolean(working) && working !== what;
      button.addEventListener("click", () => (working === what ? actions.stop() : actions.compute(what)));
      acts.append(button);
    });
    const note = make("span", "", "note");
    note.id = "examples-note";
    note.setAttribute("role", "status");
    acts.append(note);
    if (missing.length) place.append(acts);
    if (header.page) {
      const link = make("a", "Its page in the atlas");
      link.href = `/atlas/${header.page.split("/").map(encodeURIComponent).join("/")}`;
      const line = make("p");
      line.append(link);
      place.append(line);
    }
  }

  // One row for each input channel: x, w, their product a, and the amount where the unit is strongest.
  function dissection(place, frame, go, changed) {
    place.replaceChildren();
    const { header, blocks, shapes } = frame;
    const other = header.layer === header.asked ? "" : ` It is read at ${header.layer}, whose units the layer passes on.`;
    const before = changed ? " This is its value before it is changed." : "";
    place.append(make("p", `At row ${header.position[0]}, column ${header.position[1]} the amounts of ${header.inputs} input channels and the bias add up to ${short(header.value)}.${other}${before}`, "note"));
    const table = make("table", undefined, "sheet-rows");
    const head = make("thead");
    const names = make("tr");
    [["j", "input channel"], ["x", "its activation"], ["w", "weights on it"], ["a", "x * w"], ["amount", ""]].forEach(([name, title]) => {
      const cell = make("th", name);
      cell.scope = "col";
      if (title) cell.title = title;
      names.append(cell);
    });
    names.lastChild.className = "amount";
    head.append(names);
    const body = make("tbody");
    const count = blocks.channel.length;
    for (let i = 0; i < count; i += 1) {
      const row = make("tr");
      const channel = make("th");
      channel.scope = "row";
      const target = go(header.source, blocks.channel[i]);
      if (target) {
        const link = make("a", String(blocks.channel[i]));
        link.href = target;
        link.title = `${header.source}:${blocks.channel[i]}`;
        channel.append(link);
      } else channel.textContent = String(blocks.channel[i]);
      row.append(channel);
      ["x", "w", "a"].forEach((name) => {
        const [, h, w] = shapes[name];
        const picture = canvas(`${name} of input channel ${blocks.channel[i]}`);
        colours.map(picture, blocks[name], h, w, name === "x" ? header.x_signed : true, i * h * w);
        row.append(make("td"));
        row.lastChild.append(picture);
      });
      row.append(make("td", signedNumber(blocks.amount[i]), "amount"));
      if (i >= FEW) row.hidden = true;
      body.append(row);
    }
    const foot = make("tfoot");
    const rest = header.inputs - count;
    [...(rest > 0 ? [[`${rest} weaker channels`, header.rest]] : []), ["bias", header.bias], ["y", header.value]].forEach(([name, value]) => {
      const row = make("tr");
      const cell = make("th", name);
      cell.scope = "row";
      cell.colSpan = 4;
      row.append(cell, make("td", signedNumber(value), "amount"));
      foot.append(row);
    });
    table.append(head, body, foot);
    place.append(table);
    if (count > FEW) {
      const more = make("button", `Show ${count - FEW} more`);
      more.type = "button";
      more.addEventListener("click", () => {
        body.querySelectorAll("tr").forEach((row) => { row.hidden = false; });
        more.remove();
      });
      place.append(more);
    }
    place.append(make("p", `The sum equals the network's own value to ${header.gap.toExponential(1)}; rounding allows ${header.bound.toExponential(1)}.`, "note"));
  }

  Object.assign(window.explorer, { make, canvas, panel: { projection, examples, dissection } });
})();
