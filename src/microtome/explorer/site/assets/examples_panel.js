// What drives the chosen unit: stored examples, or examples computed on request.
(function () {
  "use strict";
  const { make, panel } = window.explorer;

  window.explorer.examples = function (page) {
    const { state, socket, find } = page;
    let making = null;

    async function askExamples(compute) {
      if (making) { making.cancel(); making = null; }
      const question = { network: 0, layer: state.layer, unit: state.unit };
      const actions = { compute: askExamples, stop: () => askExamples(""), image: (index) => page.choosePicture(`data:${index}`) };
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
        panel.examples(find("examples"), frame, null, actions);
      } catch (error) {
        if (!error.cancelled && here()) find("examples").replaceChildren(make("p", error.message, "empty"));
      }
    }

    Object.assign(page, { askExamples });
  };
})();
