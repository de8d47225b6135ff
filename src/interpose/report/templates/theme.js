"use strict";
(() => {
  const root = document.documentElement;

  // Light and dark: the system's choice until the reader makes one.
  const button = document.getElementById("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const remembered = () => { try { return localStorage.getItem("interpose-theme"); } catch { return null; } };
  const remember = (theme) => { try { localStorage.setItem("interpose-theme", theme); } catch { /* a page may run without storage */ } };
  const current = () => root.dataset.theme || (system.matches ? "dark" : "light");
  const label = () => { button.textContent = current() === "dark" ? "Light" : "Dark"; };
  const asked = new URLSearchParams(location.search).get("theme") || remembered();
  if (asked === "light" || asked === "dark") root.dataset.theme = asked;
  button.hidden = false;
  button.addEventListener("click", () => {
    root.dataset.theme = current() === "dark" ? "light" : "dark";
    remember(root.dataset.theme);
    label();
  });
  system.addEventListener("change", label);
  label();
})();
