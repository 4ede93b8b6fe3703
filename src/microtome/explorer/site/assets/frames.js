// The socket: questions go out with a number, frames come back with it. Reconnects after an interruption.
(function () {
  "use strict";
  const kinds = { u1: Uint8Array, f4: Float32Array, i4: Int32Array };
  const encoder = new TextEncoder();

  function unpack(buffer) {
    const view = new DataView(buffer);
    const length = view.getUint32(4, true);
    const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, length)));
    const frame = { header, blocks: {}, shapes: {} };
    header.blocks.forEach(([name, kind, shape, start]) => {
      frame.shapes[name] = shape;
      frame.blocks[name] = new kinds[kind](buffer, 8 + length + start, shape.reduce((a, b) => a * b, 1));
    });
    return frame;
  }

  class Socket {
    constructor(onState) {
      this.waiting = new Map();
      this.number = 0;
      this.onState = onState;
      this.open();
    }

    open() {
      this.socket = new WebSocket(location.origin.replace(/^http/, "ws") + "/live");
      this.socket.binaryType = "arraybuffer";
      this.ready = new Promise((resolve) => { this.socket.onopen = () => { this.onState(""); resolve(); }; });
      this.socket.onmessage = (event) => this.take(unpack(event.data));
      this.socket.onclose = () => {
        this.waiting.forEach((entry) => entry.reject(new Error("the server does not answer.")));
        this.waiting.clear();
        this.onState("The server does not answer; trying again.");
        setTimeout(() => this.open(), 1000);
      };
    }

    take(frame) {
      const entry = this.waiting.get(frame.header.id);
      if (!entry) return;
      if (frame.header.progress) { entry.progress(frame); return; }
      this.waiting.delete(frame.header.id);
      if (frame.header.error !== undefined) entry.reject(Object.assign(new Error(frame.header.error), { busy: frame.header.busy }));
      else if (frame.header.cancelled) entry.reject(Object.assign(new Error("cancelled"), { cancelled: true }));
      else entry.resolve(frame);
    }

    // A promise of a frame, with .cancel(); pixels are the bytes of an attached picture.
    ask(kind, question, options) {
      this.number += 1;
      const id = this.number;
      const given = options || {};
      const answer = new Promise((resolve, reject) => {
        this.waiting.set(id, { resolve, reject, progress: given.progress || (() => {}) });
      });
      const text = JSON.stringify({ id, ask: kind, question });
      this.ready.then(() => {
        if (!this.waiting.has(id)) return;
        if (!given.pixels) { this.socket.send(text); return; }
        const head = encoder.encode(text);
        const message = new Uint8Array(4 + head.length + given.pixels.length);
        new DataView(message.buffer).setUint32(0, head.length, true);
        message.set(head, 4);
        message.set(given.pixels, 4 + head.length);
        this.socket.send(message);
      });
      answer.cancel = () => { if (this.waiting.has(id)) this.socket.send(JSON.stringify({ id, cancel: true })); };
      return answer;
    }
  }

  // Runs a function repeatedly, one call at a time, with the newest arguments; calls in between are dropped.
  function latest(work) {
    let running = false;
    let again = false;
    return function run() {
      if (running) { again = true; return; }
      running = true;
      Promise.resolve(work()).catch(() => {}).finally(() => {
        running = false;
        if (again) { again = false; run(); }
      });
    };
  }

  Object.assign(window.explorer, { Socket, unpack, latest });
})();
