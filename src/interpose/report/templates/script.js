"use strict";
(() => {
  const byId = (id) => document.getElementById(id);

  // The circuit: a part that is pointed at or focused shows its own edges.
  const readout = byId("circuit-readout");
  const resting = readout ? readout.textContent : "";
  const title = (element) => element.querySelector("title").textContent;
  for (const svg of document.querySelectorAll("svg.circuit")) {
    const lines = [...svg.querySelectorAll(".line")];
    const pills = [...svg.querySelectorAll(".pill")];
    const show = (marked, ends, text) => {
      svg.classList.add("picking");
      lines.forEach((line) => line.classList.toggle("on", marked.includes(line)));
      pills.forEach((pill) => pill.classList.toggle("on", ends.has(pill.dataset.node)));
      readout.textContent = text;
    };
    const clear = () => {
      svg.classList.remove("picking");
      [...lines, ...pills].forEach((element) => element.classList.remove("on"));
      readout.textContent = resting;
    };
    for (const pill of pills) {
      const node = pill.dataset.node;
      const pick = () => {
        const into = lines.filter((line) => line.dataset.to === node);
        const from = lines.filter((line) => line.dataset.from === node);
        const ends = new Set([node, ...into.map((line) => line.dataset.from), ...from.map((line) => line.dataset.to)]);
        const part = (name, some) => (some.length ? ` ${name}: ${some.map(title).reverse().join(" · ")}.` : "");
        show([...into, ...from], ends, `${title(pill)}.${part("In", into)}${part("Out", from)}`);
      };
      pill.addEventListener("pointerenter", pick);
      pill.addEventListener("focus", pick);
      pill.addEventListener("pointerleave", clear);
      pill.addEventListener("blur", clear);
      pill.addEventListener("keydown", (event) => { if (event.key === "Escape") clear(); });
    }
    for (const line of lines) {
      const ends = new Set([line.dataset.from, line.dataset.to]);
      line.addEventListener("pointerenter", () => show([line], ends, title(line)));
      line.addEventListener("pointerleave", clear);
    }
  }

  // The heat map: one tab stop, the arrow keys move from head to head.
  const told = byId("heat-readout");
  const ranked = told.textContent;
  for (const svg of document.querySelectorAll("svg.heat")) {
    const cells = [...svg.querySelectorAll(".cells rect")];
    const cursor = svg.querySelector(".cursor");
    const columns = Number(svg.dataset.columns);
    const order = cells.slice().sort((a, b) => a.y.baseVal.value - b.y.baseVal.value || a.x.baseVal.value - b.x.baseVal.value);
    let at = 0;
    const go = (to) => {
      if (to < 0 || to >= order.length) return;
      at = to;
      cursor.setAttribute("x", order[at].getAttribute("x"));
      cursor.setAttribute("y", order[at].getAttribute("y"));
      cursor.style.visibility = "visible";
      told.textContent = title(order[at]);
    };
    const leave = () => { cursor.style.visibility = "hidden"; told.textContent = ranked; };
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns };
    svg.addEventListener("keydown", (event) => {
      if (!(event.key in steps)) return;
      event.preventDefault();
      go(at + steps[event.key]);
    });
    svg.addEventListener("focus", () => go(at));
    svg.addEventListener("blur", leave);
    svg.addEventListener("pointerover", (event) => { const to = order.indexOf(event.target); if (to >= 0) go(to); });
    svg.addEventListener("pointerleave", leave);
    for (const bar of svg.querySelectorAll(".bar")) {
      bar.addEventListener("pointerenter", () => { cursor.style.visibility = "hidden"; told.textContent = title(bar); });
    }
  }

  // The command, for the clipboard.
  const copy = byId("copy");
  if (navigator.clipboard) {
    copy.hidden = false;
    copy.addEventListener("click", async () => {
      await navigator.clipboard.writeText(document.querySelector(".command code").textContent);
      copy.textContent = "Copied";
      setTimeout(() => { copy.textContent = "Copy"; }, 1500);
    });
  }
})();
