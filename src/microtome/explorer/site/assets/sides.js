// Sides: one picture before one network, or two pictures or two networks that are compared.
(function () {
  "use strict";
  const { PictureInput, UnitGrid, make, canvas } = window.explorer;

  window.explorer.sides = function (page) {
    const { facts, state, find } = page;
    const network = (place) => (state.compare === "networks" ? place : 0);
    const pictureOf = (place) => state.pictures[state.compare === "networks" ? 0 : place];
    const asked = (side, more) => ({ network: network(side.place), picture: side.kept || pictureOf(side.place), edits: state.edits, ...more });
    const plainOf = (side, more) => ({ ...asked(side, more), edits: [] });
    const names = (place) => (state.compare === "networks" ? facts.networks[place].name : `picture ${"AB"[place]}`);

    function build() {
      page.stopWebcam();
      document.body.classList.toggle("two-sides", Boolean(state.compare));
      find("compare").setAttribute("aria-pressed", String(Boolean(state.compare)));
      page.sides = (state.compare ? [0, 1] : [0]).map((place) => ({ place, kept: "", live: null, plain: null, sent: null, sum: null, boxes: {} }));
      ["inputs", "grids", "projections", "scores", "sums", "maps", "occlusions"].forEach((id) => {
        find(id).replaceChildren(...page.sides.map((side) => {
          const box = make("div", undefined, "side");
          const label = make("span", names(side.place), "label");
          const inside = make("div");
          box.append(label, inside);
          side.boxes[id] = inside;
          if (id === "inputs" && side.place === 1 && state.compare === "networks") box.hidden = true;
          return box;
        }));
      });
      page.sides.forEach((side) => {
        const picture = canvas(`The picture${state.compare ? ` of ${names(side.place)}` : ""}${facts.draw ? "; draw on it" : ""}`, "picture");
        side.boxes.inputs.append(picture);
        side.input = new PictureInput(picture, facts, (pixels) => page.drawn(side, pixels));
        picture.addEventListener("pointerdown", () => chooseSide(side.place));
        picture.addEventListener("focus", () => chooseSide(side.place));
        const box = make("div", undefined, "grid");
        box.id = `grid-${side.place}`;
        side.boxes.grids.append(box);
        side.grid = new UnitGrid(box, (unit) => page.chooseUnit(unit, side), page.markOf);
        side.grid.unit = state.unit;
        side.grid.shared = state.shared;
        page.wire(side);
      });
      page.controls();
      chooseSide(state.side, true);
      page.sides.forEach((side) => page.load(side));
      page.remember();
    }

    function chooseSide(place, quiet) {
      state.side = state.compare ? place : 0;
      document.querySelectorAll("#inputs .side").forEach((box, at) => box.classList.toggle("chosen", at === state.side));
      if (!quiet) { page.remember(); page.thumbs(); }
    }

    Object.assign(page, { pictureOf, asked, plainOf, names, build, chooseSide });
  };
})();
