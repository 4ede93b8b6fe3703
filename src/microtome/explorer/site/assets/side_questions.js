// Questions of a side about its picture, and the panels that show the answers.
(function () {
  "use strict";
  const { latest, encode, make, panel, classes } = window.explorer;

  window.explorer.questions = function (page) {
    const { facts, state, socket, find, problem } = page;

    function wire(side) {
      const alive = () => page.sides.includes(side);
      side.once = async () => {
        const { pixels, place } = side;
        side.pixels = null;
        try {
          const frame = await socket.ask("live", page.asked(side, { layer: state.layer }), { pixels });
          if (!alive()) return;
          if (pixels) {
            side.kept = frame.header.picture;
            state.pictures[state.compare === "networks" ? 0 : place] = facts.draw && !page.webcamOn() ? `drawn:${encode(pixels)}` : frame.header.picture;
            if (state.compare === "networks") page.sides.filter((one) => one !== side).forEach((one) => { one.kept = side.kept; one.input.pixels = side.input.pixels; one.live_(); });
          }
          if (frame.header.layer === state.layer) { side.live = frame; page.showLive(side); }
          problem("");
        } catch (error) { if (!error.cancelled) problem(error.message); }
      };
      const run = latest(side.once);
      let timer = 0;
      side.live_ = run;
      side.stream = () => {
        run();
        clearTimeout(timer);
        timer = setTimeout(() => { page.remember(); page.thumbs(); side.others(); }, 250);
      };
      const panelled = (kind, question, show, hide) => latest(async () => {
        if (!alive() || !(side.kept || page.pictureOf(side.place)) || page.pictureOf(side.place).startsWith("drawn:") && !side.kept) return;
        try {
          const frame = await socket.ask(kind, question());
          if (alive()) show(frame);
        } catch (error) { if (alive() && !error.cancelled) hide(error.message); }
      });
      const fail = (id) => (message) => side.boxes[id].replaceChildren(make("p", message, "empty"));
      side.project = panelled("project", () => page.asked(side, { layer: state.layer, unit: state.unit, method: state.projection }),
        (frame) => { side.sent = frame; side.fault = ""; page.showProjection(side); }, (message) => { side.sent = null; side.fault = message; page.showProjection(side); });
      side.explain = panelled("explain", () => page.asked(side, { method: state.method, target: state.target }),
        (frame) => classes.map(side.boxes.maps, side.input, frame, facts.classes), fail("maps"));
      side.summed = panelled("sum", () => page.asked(side, { layer: state.layer, target: state.target }),
        (frame) => { side.sum = frame; page.showSum(side); if (state.order === "sum") page.showLive(side); }, fail("sums"));
      side.plainly = panelled("live", () => page.plainOf(side, { layer: state.layer }), (frame) => { side.plain = frame; page.showScores(side); }, () => {});
      side.dissect = panelled("dissect", () => page.asked(side, { layer: state.layer, unit: state.unit }),
        (frame) => panel.dissection(find("dissection"), frame, page.linkTo, Boolean(page.editOf(state.unit))), (message) => find("dissection").replaceChildren(make("p", message.charAt(0).toUpperCase() + message.slice(1), "empty")));
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
      if (side.kept || !page.pictureOf(side.place).startsWith("drawn:")) { side.live_(); side.others(); } else page.load(side);
    }
    const refreshAll = () => page.sides.forEach(refresh);

    Object.assign(page, { wire, refresh, refreshAll });
  };
})();
