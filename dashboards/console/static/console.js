// Console: what every page needs beside htmx: the colour button, refreshing while somebody looks, and saying so when the server is gone.
"use strict";
(() => {
  const root = document.documentElement;
  const names = { auto: "as the system", light: "light", dark: "dark" };

  function themeButton() {
    const button = document.querySelector("[data-theme-button]");
    if (!button) return;
    const label = button.querySelector("[data-theme-name]");
    const show = () => {
      const now = root.dataset.theme || "auto";
      label.textContent = names[now];
      button.title = `Colours: ${names[now]}`;
    };
    button.hidden = false;
    button.addEventListener("click", () => {
      const dark = matchMedia("(prefers-color-scheme: dark)").matches;
      // From the system's colours go to the other ones, then to the ones named, then back to the system's.
      const order = dark ? ["auto", "light", "dark"] : ["auto", "dark", "light"];
      const next = order[(order.indexOf(root.dataset.theme || "auto") + 1) % order.length];
      if (next === "auto") delete root.dataset.theme;
      else root.dataset.theme = next;
      try {
        if (next === "auto") localStorage.removeItem("icecap-theme");
        else localStorage.setItem("icecap-theme", next);
      } catch {
        // Not kept; the page still changes.
      }
      show();
      document.dispatchEvent(new Event("icecap:theme"));
    });
    show();
  }

  function refreshing() {
    const due = new Map();
    setInterval(() => {
      if (document.visibilityState !== "visible") return;
      const now = performance.now();
      for (const part of document.querySelectorAll("[data-refresh]")) {
        const at = due.get(part.id);
        if (at === undefined) due.set(part.id, now + Number(part.dataset.refresh));
        else if (now >= at) {
          due.set(part.id, now + Number(part.dataset.refresh));
          htmx.trigger(part, "refresh");
        }
      }
    }, 250);
  }

  function connection() {
    const banner = document.querySelector("[data-lost]");
    const since = document.querySelector("[data-lost-since]");
    let good = new Date();
    document.body.addEventListener("htmx:afterRequest", (event) => {
      const status = event.detail.xhr.status;
      if (status >= 200 && status < 500) {
        good = new Date();
        banner.hidden = true;
        root.classList.remove("is-lost");
        return;
      }
      since.dateTime = good.toISOString();
      since.textContent = good.toLocaleTimeString("en-GB");
      banner.hidden = false;
      root.classList.add("is-lost");
    });
  }

  function speaking() {
    // A live region that is replaced with the same words would be read out again and again; it changes only when the words do.
    const spoken = document.querySelector("[data-spoken]");
    if (!spoken) return;
    const speak = () => {
      const words = document.querySelector("[data-say]")?.dataset.say ?? "";
      if (spoken.textContent !== words) spoken.textContent = words;
    };
    speak();
    document.body.addEventListener("htmx:afterSwap", speak);
  }

  document.addEventListener("DOMContentLoaded", () => {
    themeButton();
    refreshing();
    connection();
    speaking();
  });
})();
