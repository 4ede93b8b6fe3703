// The chosen layer, unit and class, and the changed units, with undo.
(function () {
  "use strict";
  const { short } = window.explorer;

  window.explorer.choices = function (page) {
    const { facts, state, find } = page;
    const undone = []; // lists of changed units before the last ones

    const projectAll = () => page.sides.forEach((side) => { side.project(); if (side.place === state.side) side.dissect(); });

    function chooseUnit(unit, from) {
      state.unit = unit;
      page.sides.forEach((side) => { if (side !== from) side.grid.select(unit, true); });
      page.unitControls();
      page.sides.forEach((side) => { page.showProjection(side); if (side.sum) page.showSum(side); });
      page.remember();
      projectAll();
      page.askExamples("");
    }

    function chooseLayer(name) {
      state.layer = name;
      state.unit = Math.min(state.unit, page.layerFacts().units - 1);
      page.sides.forEach((side) => { side.sum = null; side.sent = null; side.plain = null; side.grid.unit = state.unit; side.grid.box.scrollTop = 0; });
      page.controls();
      page.remember();
      page.refreshAll();
      page.askExamples("");
    }

    function chooseClass(index) {
      state.target = index === state.target ? null : index;
      find("target").value = state.target === null ? "" : facts.classes[state.target];
      page.remember();
      page.sides.forEach((side) => { page.showScores(side); side.explain(); side.summed(); });
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
      page.unitControls();
      page.remember();
      page.sides.forEach((side) => side.grid.draw());
      page.refreshAll();
    }
    function setUnit(scale, clamp) {
      const rest = state.edits.filter((edit) => edit !== editOf(state.unit));
      change([...rest, { layer: state.layer, unit: state.unit, scale, clamp }]);
    }
    const restore = () => { if (editOf(state.unit)) change(state.edits.filter((edit) => edit !== editOf(state.unit))); };
    const undo = () => { if (undone.length) { state.edits = undone.pop(); edited(); } };
    const canUndo = () => Boolean(undone.length);
    const clamp = () => { const to = Number(find("clamp-to").value); if (Number.isFinite(to)) setUnit(null, to); };

    Object.assign(page, { projectAll, chooseUnit, chooseLayer, chooseClass, editOf, wordOf, markOf, change, setUnit, restore, undo, clamp, canUndo });
  };
})();
