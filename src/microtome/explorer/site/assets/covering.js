// Occlusion: a map that is shown while it is computed.
(function () {
  "use strict";
  const { make, short, classes } = window.explorer;

  window.explorer.covering = function (page) {
    const { facts, state, socket, find } = page;
    let covering = [];

    async function occlude() {
      if (covering.length) { covering.forEach((answer) => answer.cancel()); return; }
      const bar = find("occluded");
      const began = performance.now();
      bar.hidden = false;
      find("occlude").textContent = "Stop";
      const work = page.sides.map((side) => {
        const [, height, width] = facts.input_shape;
        const gathered = new classes.Covering(height, width);
        const answer = socket.ask("occlusion", page.asked(side, { target: state.target }), { progress: (frame) => {
          gathered.add(frame);
          gathered.draw(side.boxes.occlusions, side.input);
          bar.value = frame.header.done / frame.header.total;
          find("occluded-note").textContent = `${frame.header.done} of ${frame.header.total} windows, ${Math.ceil(frame.header.remaining)} s`;
        } });
        covering.push(answer);
        return answer.then((frame) => {
          classes.map(side.boxes.occlusions, side.input, frame, facts.classes);
          const more = `Windows of ${frame.header.window}\u00a0px, step ${frame.header.stride}; uncovered ${frame.header.named} ${short(frame.header.unoccluded)}. Red places are needed for the answer.`;
          side.boxes.occlusions.append(make("p", more, "note"));
        }).catch((error) => { if (!error.cancelled) side.boxes.occlusions.replaceChildren(make("p", error.message, "empty")); });
      });
      await Promise.all(work);
      covering = [];
      bar.hidden = true;
      find("occlude").textContent = "Cover each place";
      find("occluded-note").textContent = `${((performance.now() - began) / 1000).toFixed(1)} s`;
    }

    Object.assign(page, { occlude });
  };
})();
