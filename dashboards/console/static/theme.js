// Theme: sets the chosen colours before the first paint. A file of its own because the page may hold no inline script.
"use strict";
(() => {
  try {
    const chosen = localStorage.getItem("icecap-theme");
    if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
  } catch {
    // Storage may be switched off; then the system's colours hold.
  }
})();
