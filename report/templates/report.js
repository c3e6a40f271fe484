"use strict";
// Tables sort by a click on a column's head, and long ones filter by what is typed above them.
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

function makeFilter(table, rows, title) {
  const label = document.createElement("label"), input = document.createElement("input");
  const count = document.createElement("span");
  label.className = "filter";
  input.type = "search";
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/);
    rows.forEach(row => { row.hidden = !words.every(word => row.textContent.toLowerCase().includes(word)); });
    count.textContent = `${rows.filter(row => !row.hidden).length} of ${rows.length}`;
  });
  label.append(`Filter: ${title} `, input, count);
  table.parentElement.before(label);
}

let title = "";
for (const element of document.querySelectorAll("h2, h3, table")) {
  if (element.tagName !== "TABLE") { title = element.firstChild.textContent; continue; }
  const rows = [...element.tBodies[0].rows];
  makeSortable(element, [...element.tHead.rows[0].cells], rows);
  if (rows.length > 9) makeFilter(element, rows, title);
}
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach(one => { one.open = true; }));
// A link to a run opens the fold that holds it.
const unfold = () => document.getElementById(decodeURIComponent(location.hash.slice(1)))
  ?.closest("details")?.setAttribute("open", "");
addEventListener("hashchange", unfold);
unfold();
