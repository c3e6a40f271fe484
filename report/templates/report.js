"use strict";
// Tables sort by a click on a column's head.
const numeric = cell => cell.className === "num";
const text = cell => cell.textContent.trim();
const number = cell => parseFloat(text(cell).replace(/,/g, "").replace("−", "-"));

function order(one, other, sign) {
  if (!numeric(one)) return sign * text(one).localeCompare(text(other));
  const [a, b] = [number(one), number(other)];
  if (isNaN(a) || isNaN(b)) return isNaN(a) - isNaN(b);  // cells without a number come last
  return sign * (a - b);
}

function makeSortable(table, heads, rows) {
  heads.forEach((head, place) => {
    const button = document.createElement("button");
    button.append(...head.childNodes);
    head.append(button);
    head.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach(other => other.setAttribute("aria-sort", "none"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const sorted = [...rows].sort((a, b) => order(a.cells[place], b.cells[place], up ? 1 : -1));
      table.tBodies[0].append(...sorted);
    });
  });
}

for (const element of document.querySelectorAll("table")) {
  makeSortable(element, [...element.tHead.rows[0].cells], [...element.tBodies[0].rows]);
}
