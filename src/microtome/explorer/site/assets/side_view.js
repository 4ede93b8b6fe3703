// The view of a side: its units in order, scores, sums and the chosen unit on its picture.
(function () {
  "use strict";
  const { short, panel, classes } = window.explorer;

  window.explorer.showing = function (page) {
    const { facts, state, find } = page;

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
      classes.scores(side.boxes.scores, side.live, facts.classes, state.target, state.edits.length ? side.plain : null, page.chooseClass);
    }
    function showSum(side) { classes.sums(side.boxes.sums, side.sum, facts.classes, state.unit, (unit) => page.chooseUnit(unit, null)); }
    function showProjection(side) {
      if (!side.live || side.live.header.layer !== state.layer) return;
      const fits = side.sent && side.sent.header.layer === state.layer && side.sent.header.unit === state.unit;
      panel.projection(side.boxes.projections, side.live, fits ? side.sent : null, state.unit, side.fault);
    }

    function linkTo(layer, unit) {
      if (!facts.layers.some((one) => one.name === layer && unit < one.units)) return "";
      return window.explorer.state.write({ ...state, layer, unit });
    }

    Object.assign(page, { showLive, showScores, showSum, showProjection, linkTo });
  };
})();
