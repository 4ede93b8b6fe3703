// Light or dark as it was chosen last, before anything is drawn.
try { document.documentElement.dataset.theme = localStorage.getItem("atlas-theme") || ""; } catch (error) { /* nothing remembered */ }
