// What a person can do on a page of the gallery: switch the theme, enlarge a figure, turn pages. No dependency.
"use strict";
(() => {
  const page = document.documentElement;
  const whole = document.getElementById("whole");

  function theme() {
    const dark = page.dataset.theme ? page.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    page.dataset.theme = dark ? "light" : "dark";
    try { localStorage.setItem("atlas-theme", page.dataset.theme); } catch (error) { /* nothing to remember with */ }
  }

  function turn(way) {
    const link = document.querySelector(`a[rel="${way}"]`);
    if (link) location.href = link.href;
  }

  document.addEventListener("click", (event) => {
    const act = event.target.closest("[data-act]");
    const picture = event.target.closest("[data-whole]");
    if (act) theme();
    if (picture) {
      const shown = whole.querySelector("img");
      shown.src = picture.dataset.whole;
      shown.alt = picture.querySelector("img").alt;
      whole.showModal();
    }
  });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || whole.open) return;
    if (event.key === "d") theme();
    if (event.key === "u") turn("up");
    if (event.key === "ArrowLeft" && !event.target.closest(".scroll")) turn("prev");
    if (event.key === "ArrowRight" && !event.target.closest(".scroll")) turn("next");
  });
})();
