// Where pictures come from: the data set, a drawing, a file, the webcam.
(function () {
  "use strict";
  const { decode, make, colours } = window.explorer;

  window.explorer.pictures = function (page) {
    const { facts, state, find, say, problem, fetched, frameOf } = page;
    let start = 0; // the first image that the strip shows
    let stream = null; // the webcam

    async function load(side) {
      const name = page.pictureOf(side.place);
      side.kept = "";
      if (!name) { if (facts.draw) side.input.blank(); return; }
      if (name.startsWith("drawn:")) {
        const gray = decode(name.slice(6), facts.input_shape[1] * facts.input_shape[2]);
        if (!gray || !facts.draw) { problem("the drawing in the address does not fit this network; draw again."); return; }
        side.input.takeGray(gray);
        side.input.send();
        return;
      }
      try {
        const frame = await frameOf(`/api/picture?name=${encodeURIComponent(name)}`);
        if (page.pictureOf(side.place) !== name) return;
        side.input.show(frame);
        side.title = [frame.header.name, frame.header.label >= 0 ? `class ${facts.classes[frame.header.label] || frame.header.label}` : ""].filter(Boolean).join(", ");
        find("source-note").textContent = page.sides[state.side].title || "";
        problem("");
        page.refresh(side);
      } catch (error) { problem(error.message); }
    }

    function choosePicture(name) {
      stopWebcam();
      const place = state.compare === "networks" ? 0 : state.side;
      state.pictures[place] = name;
      page.sides.forEach((side) => { if (state.compare === "networks" || side.place === place) load(side); });
      page.remember();
      thumbs();
    }

    // During drawing: the newest picture is sent as soon as the previous answer has arrived.
    function drawn(side, pixels) {
      side.pixels = pixels;
      side.title = "drawn";
      find("source-note").textContent = "";
      side.stream();
    }

    async function thumbs() {
      if (!facts.images) return;
      const count = 24;
      const current = /^data:(\d+)$/.exec(page.pictureOf(state.side));
      const frame = await frameOf(`/api/images?start=${start}&count=${count}`);
      find("images").replaceChildren(...frame.header.labels.map((label, i) => {
        const [, height, width] = frame.shapes.pictures;
        const picture = make("canvas");
        picture.setAttribute("aria-hidden", "true");
        colours.picture(picture, frame.blocks.pictures, height, width, i * height * width * 3);
        const button = make("button");
        button.type = "button";
        button.dataset.image = String(start + i);
        const said = `image ${frame.header.names[i]}${label >= 0 ? `, class ${facts.classes[label] || label}` : ""}`;
        button.setAttribute("aria-label", said);
        button.title = said;
        button.setAttribute("aria-pressed", String(Boolean(current) && Number(current[1]) === start + i));
        button.append(picture);
        button.addEventListener("click", () => choosePicture(`data:${button.dataset.image}`));
        return button;
      }));
      find("images-where").textContent = `${start + 1} to ${start + frame.header.labels.length} of ${facts.images.toLocaleString("en")}`;
      find("images-before").disabled = start === 0;
      find("images-after").disabled = start + count >= facts.images;
    }
    function turn(step) { start = Math.max(0, Math.min(facts.images - 1, start + step)); thumbs(); }
    function turnTo(image) { start = Math.floor(image / 24) * 24; }

    function stepImage(step) {
      const current = /^data:(\d+)$/.exec(page.pictureOf(state.side));
      const next = current ? Number(current[1]) + step : 0;
      if (next < 0 || next >= facts.images) return;
      if (next < start || next >= start + 24) turnTo(next);
      choosePicture(`data:${next}`);
    }

    async function upload(file) {
      say("Sending the picture");
      try {
        if (file.size > facts.upload_bytes) throw new Error(`the file has ${Math.round(file.size / 1048576)} MB; at most ${Math.round(facts.upload_bytes / 1048576)} are taken.`);
        const answer = await fetched("/api/pictures", { method: "POST", body: file, headers: { "content-type": file.type || "application/octet-stream" } });
        choosePicture((await answer.json()).picture);
        problem("");
      } catch (error) { problem(error.message); }
      say("");
    }

    async function startWebcam() {
      try {
        stream = await navigator.mediaDevices.getUserMedia({ video: { width: 640, height: 480 }, audio: false });
      } catch (error) { problem(`the webcam cannot be used: ${error.message}`); return; }
      find("webcam").setAttribute("aria-pressed", "true");
      const video = make("video");
      video.muted = true;
      video.srcObject = stream;
      await video.play();
      const side = page.sides[state.side];
      const own = stream;
      const began = performance.now();
      let frames = 0;
      while (stream === own && page.sides.includes(side)) {
        side.pixels = side.input.takeVideo(video);
        await side.once();
        frames += 1;
        if (frames % 10 === 0) find("source-note").textContent = `${((1000 * frames) / (performance.now() - began)).toFixed(0)} frames a second`;
        if (frames % 20 === 0) page.sides.forEach((one) => one.others());
        await new Promise((resolve) => { requestAnimationFrame(resolve); });
      }
      own.getTracks().forEach((track) => track.stop());
    }
    const webcamOn = () => Boolean(stream);
    function stopWebcam() {
      if (!stream) return;
      stream = null;
      find("webcam").setAttribute("aria-pressed", "false");
      page.sides.forEach((side) => side.others());
    }

    Object.assign(page, { load, choosePicture, drawn, thumbs, turn, stepImage, upload, startWebcam, stopWebcam, webcamOn, turnTo });
  };
})();
