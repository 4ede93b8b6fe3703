// Interaction on a page: search, paging, theme, scales, sorting, overlays. No dependency.
(function () {
  "use strict";
  const root = document.body.dataset.root;
  const all = (selector, inside) => Array.from((inside || document).querySelectorAll(selector));
  const press = (buttons, chosen) => buttons.forEach((b) => b.setAttribute("aria-pressed", String(b === chosen)));

  // -- theme: remembered where the browser lets a page from disk remember ---------------------------
  function theme() {
    const page = document.documentElement;
    const dark = page.dataset.theme ? page.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    page.dataset.theme = dark ? "light" : "dark";
    try { localStorage.setItem("atlas-theme", page.dataset.theme); } catch (error) { /* nothing to remember with */ }
  }

  // -- scales: shared by all pictures of a figure, or each its own -----------------------------------
  function scale(figure, own) {
    figure.classList.toggle("own", own);
    all("button.scale", figure).forEach((b) => b.setAttribute("aria-pressed", String(own)));
  }
  all("button.scale").forEach((button) => button.addEventListener("click", () => {
    const figure = button.closest("figure");
    scale(figure, !figure.classList.contains("own"));
  }));
  function scales() {
    const figures = all("figure").filter((f) => f.querySelector("button.scale"));
    const own = figures.some((f) => !f.classList.contains("own"));
    figures.forEach((f) => scale(f, own));
  }

  // -- layer: the order of the cards ------------------------------------------------------------------
  const orders = {
    unit: (c) => [Number(c.dataset.unit)],
    paged: (c) => [c.querySelector(".line a") ? 0 : 1, Number(c.dataset.unit)],
    label: (c) => [c.dataset.label === "" || /^not selective/.test(c.dataset.label) ? 1 : 0, c.dataset.label],
    selectivity: (c) => [c.dataset.selectivity === "" ? 1 : 0, -Number(c.dataset.selectivity)],
    sparsity: (c) => [c.dataset.sparsity === "" ? 1 : 0, -Number(c.dataset.sparsity)],
    class: (c) => [c.dataset.class === "" ? 1 : 0, Number(c.dataset.class), -Number(c.dataset.selectivity)],
    similarity: (c) => [Number(c.dataset.similarity)],
  };
  function compare(a, b) {
    for (let i = 0; i < a.length; i += 1) {
      const order = typeof a[i] === "string" ? a[i].localeCompare(b[i], undefined, { numeric: true }) : a[i] - b[i];
      if (order) return order;
    }
    return 0;
  }
  function sort(container, rows, key) {
    const keyed = rows.map((row, index) => [key(row), index, row]).sort((a, b) => compare(a[0], b[0]) || a[1] - b[1]);
    container.append(...keyed.map((item) => item[2]));
  }
  const sorts = all("[data-sort]");
  function arrange(name) {
    const cards = document.querySelector(".cards");
    const button = sorts.find((b) => b.dataset.sort === name);
    if (!cards || !button) return;
    press(sorts, button);
    cards.dataset.sorted = name;
    sort(cards, all(".card", cards), orders[name]);
    const pages = all(".card .line a", cards).map((a) => a.href);
    try { sessionStorage.setItem("atlas-order:" + location.pathname, JSON.stringify(pages)); } catch (error) { /* arrows follow the numbers */ }
  }
  sorts.forEach((button) => button.addEventListener("click", () => {
    arrange(button.dataset.sort);
    history.replaceState(null, "", "#sort=" + button.dataset.sort);
  }));
  if (location.hash.startsWith("#sort=")) arrange(location.hash.slice(6));

  // -- dissection: order and folding of the rows --------------------------------------------------------
  all(".dissection").forEach((figure) => {
    const body = figure.querySelector("tbody");
    const buttons = all("[data-rows]", figure);
    buttons.forEach((button) => button.addEventListener("click", () => {
      press(buttons, button);
      figure.classList.toggle("ranked", button.dataset.rows === "rank");
      sort(body, all("tr", body), (row) => [Number(row.dataset[button.dataset.rows])]);
    }));
    const unfold = figure.querySelector(".unfold");
    if (unfold) unfold.addEventListener("click", () => {
      unfold.setAttribute("aria-expanded", String(!figure.classList.toggle("fold")));
    });
  });

  // -- image: a map laid over the picture ---------------------------------------------------------------
  const over = document.querySelector(".over");
  const slider = document.querySelector(".opacity input");
  const maps = all("button.map");
  function lay(button) {
    const shown = button.getAttribute("aria-pressed") === "true";
    const stack = button.querySelector(".stack");
    const map = button.querySelector(".p:not(.under)");
    press(maps, shown ? null : button);
    over.className = shown ? "over" : "over " + map.className.replace(/\bon\b/, "");
    over.style.cssText = shown ? "" : map.style.cssText;
    over.parentElement.className = shown ? "stack" : stack.className;
    const out = document.querySelector(".opacity output");
    if (out) out.textContent = shown ? "no map is chosen" : button.dataset.name;
    fade();
  }
  function fade() { if (over && slider) over.style.setProperty("--o", String(slider.value / 100)); }
  if (over) maps.forEach((button) => button.addEventListener("click", () => lay(button)));
  if (slider) slider.addEventListener("input", fade);
  if (over && maps.length) lay(maps[0]);

  // -- shares: a finger is wider than a bar, so a touch names the bar and offers its page as a wide link -----
  all(".shares").forEach((bars) => {
    let finger = false;
    bars.addEventListener("pointerdown", (event) => { finger = event.pointerType === "touch"; });
    bars.addEventListener("click", (event) => {
      const bar = event.target.closest(".shares > a");
      if (!finger || !bar || bar.offsetWidth >= 24) return;
      event.preventDefault();
      const link = document.createElement("a");
      link.href = bar.href;
      link.textContent = bar.title;
      all(".touched", bars).forEach((other) => other.classList.remove("touched"));
      bar.classList.add("touched");
      bars.closest("figure").querySelector(".shares-touched").replaceChildren(link);
    });
  });

  // -- patches: the whole image with the place of the patch ------------------------------------------------
  const whole = document.getElementById("whole");
  all("button.patch").forEach((button) => button.addEventListener("click", () => {
    const [picture, spot] = all(".spotted > *", whole);
    const link = whole.querySelector("a");
    picture.className = button.dataset.picture;
    picture.style.cssText = button.dataset.cell;
    picture.setAttribute("aria-label", button.dataset.about);
    spot.style.cssText = button.dataset.box;
    whole.querySelector(".about").textContent = button.dataset.about;
    link.hidden = !button.dataset.page;
    link.href = button.dataset.page || "#";
    whole.showModal();
  }));
  if (whole) whole.addEventListener("click", (event) => { if (event.target === whole) whole.close(); });

  // -- commands name the folder of this atlas, where the page is opened from disk -----------------------------
  if (location.protocol === "file:") {
    const folder = decodeURIComponent(new URL(root || ".", location.href).pathname).replace(/\/$/, "");
    const quoted = /^[\w./@:+-]+$/.test(folder) ? folder : "'" + folder.replace(/'/g, "'\\''") + "'";
    all("code").forEach((code) => { code.textContent = code.textContent.replace("--out FOLDER", "--out " + quoted); });
  }

  // -- search: the index is one script, read at the first search ------------------------------------------
  const dialog = document.getElementById("search");
  const field = dialog.querySelector("input");
  const list = dialog.querySelector("ul");
  let entries = null;
  function unpack(index) {
    const found = [];
    index.layers.forEach(([name, address, folder, units, labels]) => {
      found.push({ text: name, kind: "layer", address });
      units.forEach((unit, at) => found.push({
        text: name + ":" + unit + (labels[at] ? "  " + labels[at] : ""), kind: "unit", address: folder + unit + ".html" }));
    });
    index.classes.forEach(([name, address]) => found.push({ text: name, kind: "class", address }));
    index.images.forEach(([id, title, address, label]) => found.push({
      text: title + (title.includes(id) ? "" : "  " + id) + (label ? "  " + label : ""), kind: "image", address, number: Number(id) }));
    index.others.forEach((name) => found.push({ text: name, kind: "layer without a page", address: "index.html" }));
    found.forEach((entry) => { entry.key = (entry.kind + " " + entry.text).toLowerCase(); });
    return found;
  }
  // Entries that hold all words; if there is none, those with the nearest numbers.
  function matching(words) {
    const hits = (entries || []).filter((e) => words.every((w) => e.key.includes(w)));
    const asked = words.filter((w) => /^\d+(\.\d+)?°?$/.test(w)).map(parseFloat);
    if (hits.length || !asked.length) return hits;
    const rest = words.filter((w) => !/^\d/.test(w));
    const away = (e) => Math.min(...(e.text.split("  ").slice(1).join(" ").match(/\d+(\.\d+)?/g) || []).map((n) => Math.abs(n - asked[0])), Infinity);
    const near = (entries || []).filter((e) => e.kind === "unit" && rest.every((w) => e.key.includes(w)) && away(e) < Infinity);
    return near.sort((a, b) => away(a) - away(b));
  }
  function find() {
    const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    const number = words.length && /^\d+$/.test(words[words.length - 1]) ? Number(words[words.length - 1]) : -1;
    const rank = (e) => (e.text.toLowerCase() === words.join(" ") || e.number === number ? 0
      : e.text.toLowerCase().startsWith(words[0] || "") ? 1 : 2);
    const hits = matching(words);
    hits.sort((a, b) => rank(a) - rank(b));
    list.replaceChildren(...hits.slice(0, 40).map((entry) => {
      const item = document.createElement("li");
      const link = document.createElement("a");
      const kind = document.createElement("span");
      link.href = root + entry.address.split("/").map(encodeURIComponent).join("/");
      link.textContent = entry.text;
      kind.className = "label";
      kind.textContent = entry.kind;
      link.append(kind);
      item.append(link);
      return item;
    }));
    if (entries && !hits.length) {
      const none = document.createElement("li");
      none.className = "none";
      none.textContent = "Nothing has this name. Try a layer, a unit as conv1:5, a label, a class or an image.";
      list.append(none);
    }
  }
  function search() {
    if (!dialog.open) dialog.showModal();
    field.select();
    if (entries) return;
    const script = document.createElement("script");
    script.src = root + "assets/search.js";
    script.onload = () => { entries = unpack(window.atlasIndex); find(); };
    document.head.append(script);
  }
  field.addEventListener("input", find);
  dialog.querySelector("form").addEventListener("submit", (event) => {
    const first = list.querySelector("a");
    event.preventDefault();
    if (first) location.href = first.href;
  });
  dialog.addEventListener("keydown", (event) => {
    if (event.key !== "ArrowDown" && event.key !== "ArrowUp") return;
    const stops = [field, ...all("a", list)];
    const next = stops.indexOf(document.activeElement) + (event.key === "ArrowDown" ? 1 : -1);
    if (stops[next]) { stops[next].focus(); event.preventDefault(); }
  });

  // -- units: the arrows follow the order that was chosen on the page of the layer ----------------------------
  function follow() {
    const up = all(".crumbs a").pop();
    if (!document.body.classList.contains("page-unit") || !up) return;
    let order = null;
    try { order = JSON.parse(sessionStorage.getItem("atlas-order:" + new URL(up.href).pathname)); } catch (error) { return; }
    const at = order ? order.indexOf(location.href.split("#")[0]) : -1;
    if (at < 0) return;
    [["prev", order[at - 1], "first-child"], ["next", order[at + 1], "last-child"]].forEach(([relation, href, place]) => {
      let link = document.querySelector("link[rel=" + relation + "]");
      const arrow = document.querySelector(".turn > :" + place);
      if (!href) { if (link) link.remove(); if (arrow && arrow.tagName === "A") arrow.removeAttribute("href"); return; }
      if (!link) { link = document.createElement("link"); link.rel = relation; document.head.append(link); }
      link.href = href;
      if (arrow && arrow.tagName === "A") arrow.href = href;
    });
  }
  follow();

  // -- keys ---------------------------------------------------------------------------------------------
  function turn(relation) {
    const link = document.querySelector("link[rel=" + relation + "]");
    if (link) location.href = link.href;
  }
  function up() {
    const links = all(".crumbs a");
    if (links.length) location.href = links[links.length - 1].href;
  }
  const keys = document.getElementById("keys");
  // A layer of a thousand units would hide the sections after its cards.
  function allCards() {
    document.querySelector(".cards").classList.add("all");
    document.querySelector("[data-act=all-cards]").parentElement.remove();
  }
  const acts = { search, theme, keys: () => (keys.open ? keys.close() : keys.showModal()), "all-cards": allCards };
  const table = { "/": search, "?": acts.keys, d: theme, s: scales, u: up, ArrowLeft: () => turn("prev"), ArrowRight: () => turn("next") };
  all("[data-act]").forEach((button) => button.addEventListener("click", () => acts[button.dataset.act]()));
  document.addEventListener("keydown", (event) => {
    const typing = /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName) || event.target.closest(".scroll") === event.target;
    if (event.ctrlKey || event.metaKey || event.altKey || (typing && event.key.startsWith("Arrow"))) return;
    if (/^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName) && event.target.type !== "range") return;
    if (dialog.open || (whole && whole.open) || (keys.open && event.key !== "?")) return;
    if (table[event.key]) { event.preventDefault(); table[event.key](); }
  });
})();
