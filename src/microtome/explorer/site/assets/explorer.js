// The explorer's page: loads the facts, holds the state, keeps it in the address, and starts its parts.
(async function () {
  "use strict";
  const { Socket, unpack, state: address } = window.explorer;
  const find = (id) => document.getElementById(id);
  const say = (text) => { find("state").textContent = text; };
  const problem = (text) => { find("problem").hidden = !text; find("problem").textContent = text; };

  async function fetched(where, options) {
    const answer = await fetch(where, options);
    if (answer.ok) return answer;
    let why = `${answer.status}`;
    try { why = (await answer.json()).detail; } catch (error) { /* no reason given */ }
    throw new Error(why);
  }
  const frameOf = async (where) => unpack(await (await fetched(where)).arrayBuffer());

  let facts;
  try { facts = await (await fetched("/api/network")).json(); } catch (error) { problem(error.message); return; }
  const state = address.read(location.hash, facts);

  // What the parts share; each adds the functions by which the others call it.
  const page = { facts, state, socket: new Socket(say), sides: [], find, say, problem, fetched, frameOf };
  page.layerFacts = () => facts.layers.find((one) => one.name === state.layer);

  let written = "";
  page.remember = () => {
    written = address.write(state);
    history.replaceState(null, "", written);
    find("where").textContent = `${state.layer}:${state.unit}`;
  };
  addEventListener("hashchange", () => {
    if (location.hash === written) return;
    Object.assign(state, address.read(location.hash, facts));
    page.build();
  });

  ["sides", "questions", "showing", "pictures", "choices", "examples", "covering", "controls"].forEach((part) => window.explorer[part](page));

  find("clear").hidden = !facts.draw;
  find("upload").hidden = !facts.send;
  find("webcam").hidden = !facts.send || !navigator.mediaDevices;
  find("source-note").textContent = "";
  if (facts.notes.length) say(facts.notes[0]);
  const first = /^data:(\d+)$/.exec(state.pictures[state.side]);
  if (first) page.turnTo(Number(first[1]));
  page.build();
  page.thumbs();
  page.askExamples("");
  document.body.dataset.ready = "true";
})();
