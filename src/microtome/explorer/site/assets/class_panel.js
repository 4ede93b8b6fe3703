// Answers about classes: scores, the units behind a score, maps over the picture, progressive occlusion.
(function () {
  "use strict";
  const { colours, short, signedNumber, make, canvas } = window.explorer;

  function row(name, number, share, kind, pressed, press) {
    const item = make("li");
    const button = make("button");
    button.type = "button";
    button.setAttribute("aria-pressed", String(pressed));
    button.append(make("span", name, "name"), make("span", number, "number"));
    button.firstChild.title = name;
    const track = make("span", undefined, "track");
    const bar = make("i", undefined, kind);
    bar.style.width = `${100 * Math.min(1, Math.abs(share))}%`;
    track.append(bar);
    button.append(track);
    button.addEventListener("click", press);
    item.append(button);
    return item;
  }

  // The best classes and the chosen one; before holds the same scores without changed units.
  function scores(place, frame, classes, target, before, choose) {
    const { scores: logits, probabilities } = frame.blocks;
    const values = probabilities || logits;
    const order = Array.from(values.keys()).sort((a, b) => values[b] - values[a]).slice(0, 6);
    if (target !== null && !order.includes(target)) order.push(target);
    const most = Math.max(...Array.from(values, Math.abs), 1e-12);
    const list = make("ul", undefined, "rows");
    order.forEach((index) => {
      const was = before && before.blocks.scores.length === logits.length ? before.blocks.scores[index] : null;
      const change = was === null ? "" : ` (${signedNumber(logits[index] - was)})`;
      const shown = probabilities && frame.header.output !== "value" ? `${(100 * values[index]).toFixed(1)}\u00a0%` : "";
      const number = frame.header.output === "probabilities" ? shown + change : `${shown} ${short(logits[index])}${change}`;
      const item = row(classes[index] || String(index), number.trim(), probabilities ? values[index] : values[index] / most, values[index] < 0 ? "neg" : "", index === target, () => choose(index));
      item.querySelector("button").dataset.class = String(index);
      if (was !== null && before.blocks.probabilities) {
        const mark = make("b", undefined, "was");
        mark.style.left = `${100 * before.blocks.probabilities[index]}%`;
        mark.title = "without the changes";
        item.querySelector(".track").append(mark);
      }
      list.append(item);
    });
    const what = { logits: "Probability and logit", sigmoid: "Probability and score", probabilities: "Probability", value: "Value" }[frame.header.output];
    place.replaceChildren(list, make("p", `${what}${before ? "; in brackets the change by the changed units" : ""}. A click asks about the class.`, "note"));
  }

  function sums(place, frame, classes, unit, choose) {
    const { blocks, header } = frame;
    const count = Math.min(8, blocks.unit.length);
    const most = Math.max(...Array.from(blocks.amount, Math.abs), 1e-12);
    const list = make("ul", undefined, "rows");
    for (let i = 0; i < count; i += 1) {
      const amount = blocks.amount[i];
      const item = row(`unit ${blocks.unit[i]}`, signedNumber(amount), amount / most, amount < 0 ? "neg" : "pos", blocks.unit[i] === unit, () => choose(blocks.unit[i]));
      item.querySelector("button").dataset.unit = String(blocks.unit[i]);
      list.append(item);
    }
    let others = header.rest;
    for (let i = count; i < blocks.amount.length; i += 1) others += blocks.amount[i];
    const how = header.held ? "" : " An operation has no relevance rule: amounts are gradient times activation.";
    place.replaceChildren(list, make("p", `The score ${short(header.score)} of ${classes[header.target]} is the sum of these units of ${header.layer}, of others ${signedNumber(others)}, and of biases ${signedNumber(header.bias)}. A click opens a unit.${how}`, "note"));
  }

  function over(place, input, bytes, height, width, signed, alt) {
    const stack = make("div", undefined, "overlaid");
    const under = canvas("The picture", "");
    colours.size(under, input.canvas.width, input.canvas.height).drawImage(input.canvas, 0, 0);
    under.classList.toggle("squares", Math.max(under.width, under.height) <= 64);
    const top = canvas(alt, "on-top");
    colours.overlay(top, bytes, height, width, signed);
    top.classList.add("on-top");
    stack.append(under, top);
    place.replaceChildren(stack);
    return stack;
  }

  function map(place, input, frame, classes) {
    const { header } = frame;
    const [, height, width] = frame.shapes.map;
    over(place, input, frame.blocks.map, height, width, header.signed, `Map of ${header.method} for ${classes[header.target]}`);
    const range = frame.blocks.limits;
    place.append(make("p", `${header.method} for ${classes[header.target]}${header.layer ? `, at ${header.layer}` : ""}: ${short(range[0])} to ${short(range[1])} ${header.quantity}`, "note"));
    header.checks.forEach(([name, value, good]) => {
      const line = make("p", undefined, "note");
      line.append(make("span", good ? "✓ " : "! ", good ? "ok" : "badge warn"), `${name} ${short(value)}`);
      place.append(line);
    });
    header.notes.forEach((note) => place.append(make("p", note, "note")));
  }

  // Collects windows as they arrive: the mean drop over the windows that cover a pixel.
  class Covering {
    constructor(height, width) {
      this.height = height;
      this.width = width;
      this.total = new Float32Array(height * width);
      this.count = new Float32Array(height * width);
    }

    add(frame) {
      const { boxes, probability } = frame.blocks;
      for (let i = 0; i < probability.length; i += 1) {
        const drop = frame.header.unoccluded - probability[i];
        for (let y = boxes[4 * i]; y < boxes[4 * i + 2]; y += 1) {
          for (let x = boxes[4 * i + 1]; x < boxes[4 * i + 3]; x += 1) {
            this.total[y * this.width + x] += drop;
            this.count[y * this.width + x] += 1;
          }
        }
      }
    }

    draw(place, input) {
      const drops = this.total.map((sum, i) => (this.count[i] ? sum / this.count[i] : 0));
      over(place, input, colours.quantised(drops, 0, drops.length, true), this.height, this.width, true, "Occlusion so far");
    }
  }

  Object.assign(window.explorer, { classes: { scores, sums, map, Covering } });
})();
