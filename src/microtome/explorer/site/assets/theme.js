// The last chosen theme, light or dark, set before anything is drawn.
try { document.documentElement.dataset.theme = localStorage.getItem("atlas-theme") || ""; } catch (error) { /* nothing remembered */ }
