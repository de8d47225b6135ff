"use strict";
(() => {
  // A column's head sorts the rows: first the direction that puts large numbers, or early letters, on top.
  const number = (text) => (text === "" ? null : Number(text));
  for (const table of document.querySelectorAll("table.sorted")) {
    const heads = [...table.tHead.rows[0].cells];
    const body = table.tBodies[0];
    const key = (row, column) => {
      // A cell without numbers spans them all, and sorts last either way.
      const cell = row.cells[column];
      return cell && !cell.classList.contains("blank-cell") ? cell.dataset.v : "";
    };
    heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
      const numeric = head.classList.contains("n") || column === heads.length - 1;
      const before = head.getAttribute("aria-sort");
      const down = before ? before === "ascending" : numeric;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const rows = [...body.rows].map((row) => [row, numeric ? number(key(row, column)) : key(row, column)]);
      rows.sort(([, a], [, b]) => {
        if (a === null || b === null) return (a === null) - (b === null);
        const order = numeric ? a - b : a.localeCompare(b);
        return down ? -order : order;
      });
      body.append(...rows.map(([row]) => row));
    }));
  }

  // Filters show the rows that fit all of them.
  const form = document.getElementById("filters");
  const rows = [...document.getElementById("board").tBodies[0].rows];
  const filter = () => {
    const { model, task, method, done } = form.elements;
    let shown = 0;
    for (const row of rows) {
      const fits = (!model.value || row.dataset.model === model.value)
        && (!task.value || row.dataset.task === task.value)
        && row.dataset.method.includes(method.value.trim().toLowerCase())
        && (!done.checked || row.dataset.status === "done");
      row.hidden = !fits;
      shown += fits;
    }
    document.getElementById("shown").textContent = `${shown} of ${rows.length} cells`;
  };
  form.hidden = false;
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  filter();
})();
