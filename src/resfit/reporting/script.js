// Sorting, filtering and reading of charts. The page says everything without it; text goes in as text, never as HTML.
"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  document.body.classList.add("live");

  // A click on a heading sorts its table; another one turns it round. Numbers by data-value, the rest as words.
  const value = (cell) => cell.dataset.value ?? cell.textContent.trim();
  function sort(table, heading) {
    const column = heading.cellIndex, up = heading.getAttribute("aria-sort") === "descending";
    const rows = all("tbody tr", table);
    const numeric = rows.every((row) => /^-?[\d.]+(e-?\d+)?%?$/.test(value(row.cells[column])) || value(row.cells[column]) === "–");
    const number = (row) => { const found = parseFloat(value(row.cells[column])); return isNaN(found) ? -Infinity : found; };
    rows.sort((a, b) => numeric
      ? number(a) - number(b)
      : value(a.cells[column]).localeCompare(value(b.cells[column]), undefined, { numeric: true }));
    if (!up) rows.reverse();
    for (const other of all("thead th", table)) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", up ? "ascending" : "descending");
    table.tBodies[0].append(...rows);
  }
  for (const table of all("table.sortable")) {
    for (const heading of all("thead th", table)) {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...heading.childNodes);
      button.addEventListener("click", () => sort(table, heading));
      heading.append(button);
    }
  }

  // What is typed leaves the rows or pictures that contain it.
  for (const input of all("input[data-filter]")) {
    const target = document.getElementById(input.dataset.filter);
    const items = all("tbody tr, .pictures li", target);
    input.addEventListener("input", () => {
      const wanted = input.value.trim().toLocaleLowerCase();
      let left = 0;
      for (const item of items) {
        item.hidden = !item.textContent.toLocaleLowerCase().includes(wanted);
        left += !item.hidden;
      }
      input.closest(".filter").querySelector(".found").textContent = wanted ? `${left} of ${items.length}` : "";
    });
  }

  // A chart says what is nearest to the pointer, or where the arrow keys have gone.
  for (const figure of all("figure.chart")) {
    const points = JSON.parse(figure.dataset.points), svg = figure.querySelector("svg");
    const readout = figure.querySelector(".readout");
    if (!points.length) continue;
    const order = points.map((_, i) => i).sort((a, b) => points[a].x - points[b].x);
    const mark = document.createElementNS(svg.namespaceURI, "path");
    mark.setAttribute("class", "mark");
    let now = -1;
    function show(place) {
      now = place;
      const point = points[order[place]], box = svg.viewBox.baseVal;
      mark.setAttribute("d", point.y === null
        ? `M${point.x} 56V${box.height - 46}`
        : `M${point.x - 7} ${point.y}a7 7 0 1 0 14 0a7 7 0 1 0 -14 0`);
      svg.append(mark);
      readout.textContent = point.text;
    }
    svg.addEventListener("pointermove", (event) => {
      const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
      const far = (i) => Math.hypot(points[i].x - at.x, points[i].y === null ? 0 : points[i].y - at.y);
      show(order.reduce((best, i, place) => (far(i) < far(order[best]) ? place : best), 0));
    });
    figure.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      event.preventDefault();
      show(now < 0 ? (step > 0 ? 0 : order.length - 1) : Math.min(order.length - 1, Math.max(0, now + step)));
    });
  }

  // A cell of the confusion matrix says itself in words.
  for (const matrix of all("table.matrix")) {
    const readout = matrix.closest(".wide").nextElementSibling;
    const names = all("tbody th", matrix).map((cell) => cell.textContent);
    matrix.addEventListener("pointerover", (event) => {
      const cell = event.target.closest("td");
      if (!cell) return;
      const row = cell.parentElement, n = Number(cell.textContent || 0);
      const of = all("td", row).reduce((sum, other) => sum + Number(other.textContent || 0), 0);
      const isolated = (name) => `\u2068${name}\u2069`;
      readout.textContent = `${isolated(names[row.sectionRowIndex])} taken for ${isolated(names[cell.cellIndex - 1])}: ${n} of ${of}`;
      for (const other of all(".on", matrix)) other.classList.remove("on");
      cell.classList.add("on");
    });
  }

  // Paper cannot be unfolded.
  addEventListener("beforeprint", () => { for (const folded of all("details")) folded.open = true; });
})();
