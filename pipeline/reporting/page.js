"use strict";
// Sorting of tables, pictures that can be enlarged, galleries that can be filtered. Without it the page shows all it has.

const SVG = "http://www.w3.org/2000/svg";

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function shape(name, attributes, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

// A cell's number, or its text where it holds none; n/a sorts last in both directions.
function sortKey(row, column) {
  const text = (row.cells[column]?.querySelector(".value") ?? row.cells[column])?.textContent.trim() ?? "";
  if (text === "" || text === "n/a") return null;
  const number = Number(text.replace(/,/g, ""));
  return Number.isNaN(number) ? text.toLowerCase() : number;
}

function sortBy(table, column, descending) {
  const rows = [...table.tBodies[0].rows].map((row) => [sortKey(row, column), row]);
  rows.sort(([a], [b]) => {
    if (a === null || b === null) return (a === null) - (b === null);
    const order = typeof a === typeof b ? (a < b ? -1 : a > b ? 1 : 0) : typeof a === "number" ? -1 : 1;
    return descending ? -order : order;
  });
  table.tBodies[0].append(...rows.map(([, row]) => row));
}

function makeSortable(table) {
  [...table.tHead.rows[0].cells].forEach((cell, column) => {
    if (cell.tagName !== "TH") return;
    const button = element("button", { type: "button", class: "sort" });
    button.append(...cell.childNodes);
    cell.append(button);
    button.addEventListener("click", () => {
      const descending = cell.getAttribute("aria-sort") !== "descending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      cell.setAttribute("aria-sort", descending ? "descending" : "ascending");
      sortBy(table, column, descending);
    });
  });
}

// Labels of a large picture are too small to read in half a card: a click or the enter key gives it the whole, and
// on a phone its own size, to scroll.
function makeEnlargeable(figure) {
  const button = element("button", { type: "button", class: "enlarge", title: "Enlarge", "aria-expanded": "false" });
  const image = figure.querySelector("img");
  image.replaceWith(button);
  button.append(image);
  button.addEventListener("click", () => button.setAttribute("aria-expanded", figure.classList.toggle("wide")));
}

function marks(figure, item, colours) {
  const drawing = shape("svg", { viewBox: `0 0 ${item.width} ${item.height}`, role: "img" });
  drawing.append(shape("title", {}, item.id));
  drawing.append(shape("image", { href: item.picture, width: item.width, height: item.height }));
  for (const [name, layer] of Object.entries(item.layers)) {
    drawing.append(shape("image", { href: layer, width: item.width, height: item.height, class: "layer", "data-layer": name }));
  }
  const drawn = [];
  const lines = element("ul", { class: "marks" });
  const size = Math.max(item.width, item.height) / 18;
  for (const [side, listed] of [["truth", item.truth], ["answer", item.answers]]) {
    const groups = []; // the best answer is listed first and drawn last, on top
    for (const mark of listed) {
      const score = mark.score === null ? "" : ` ${mark.score.toFixed(2)}`;
      const group = shape("g", { class: `mark ${side}` });
      if (mark.box !== null) {
        const [left, top, right, bottom] = mark.box;
        const colour = colours[mark.label] ?? "#888888";
        group.append(shape("rect", {
          x: left, y: top, width: right - left, height: bottom - top, stroke: colour, class: mark.kind,
          "stroke-width": size / 6, "stroke-dasharray": side === "truth" ? `${size / 3}` : "none",
        }));
        if (side === "answer") {
          const anchor = left > 0.5 * item.width ? "end" : "start"; // towards the nearer edge it would be cut
          const x = anchor === "end" ? right - size / 5 : left + size / 5;
          const place = { x, y: Math.max(top - size / 4, size), "font-size": size, "text-anchor": anchor };
          group.append(shape("text", place, `${mark.label}${score}`));
        }
        groups.push(group);
      }
      const line = element("li", {}, element("span", { class: `kind ${mark.kind}` }, mark.kind), ` ${side === "truth" ? "is" : "said"} ${mark.label}${score}`);
      lines.append(line);
      drawn.push({ ...mark, side, nodes: [group, line] });
    }
    drawing.append(...groups.reverse());
  }
  figure.append(drawing, element("figcaption", {}, item.id), lines);
  return drawn;
}

// Of labels that would lie over each other the best answer's stays; the list below the picture has them all.
function separateLabels(figure) {
  const taken = [];
  for (const text of [...figure.querySelectorAll(".answer:not([data-hidden]) text")].reverse()) {
    text.removeAttribute("data-hidden");
    const { x, y, width, height } = text.getBBox();
    const isOver = taken.some((o) => x < o.x + o.width && o.x < x + width && y < o.y + o.height && o.y < y + height);
    text.toggleAttribute("data-hidden", isOver);
    if (!isOver) taken.push({ x, y, width, height });
  }
}

function option(text) {
  return element("option", { value: text }, text || "all");
}

// One gallery: pictures with their marks, and the controls that hide marks and pictures.
function makeGallery(place) {
  const { colours, items } = JSON.parse(place.querySelector("script").textContent);
  const all = items.map((item) => {
    const figure = element("figure", { class: "item" });
    return { item, figure, marks: marks(figure, item, colours) };
  });
  const listed = all.flatMap((one) => one.marks);
  const labels = [...new Set(listed.map((mark) => mark.label))].sort();
  const kinds = [...new Set(listed.map((mark) => mark.kind))].sort();
  const hasScores = listed.some((mark) => mark.score !== null);
  const layers = [...new Set(items.flatMap((item) => Object.keys(item.layers)))];
  const controls = element("div", { class: "controls" });
  const add = (name, control) => {
    controls.append(element("label", {}, element("span", {}, name), control));
    control.addEventListener("input", update);
    return control;
  };
  const range = (value) => element("input", { type: "range", min: 0, max: 1, step: 0.01, value });
  const score = hasScores ? add("score from", range(0.3)) : null;
  const shownScore = element("output");
  if (score) score.after(shownScore);
  const label = labels.length ? add("class", element("select", {}, ...["", ...labels].map(option))) : null;
  const kind = kinds.length ? add("outcome", element("select", {}, ...["", ...kinds].map(option))) : null;
  const layer = layers.length ? add("layer", element("select", {}, ...layers.map((name) => element("option", { value: name }, name)))) : null;
  const opacity = layers.length ? add("opacity", range(0.7)) : null;
  const count = element("p", { class: "note", role: "status" });

  function update() {
    let numShown = 0;
    if (score) shownScore.textContent = Number(score.value).toFixed(2);
    for (const { figure, marks: own } of all) {
      let matches = false;
      for (const mark of own) {
        const passes = mark.side === "truth" || mark.score === null || mark.score >= Number(score.value);
        const fits = (!label?.value || mark.label === label.value) && (!kind?.value || mark.kind === kind.value);
        for (const node of mark.nodes) node.toggleAttribute("data-hidden", !passes || !fits);
        matches ||= passes && fits;
      }
      const hidden = own.length > 0 && !matches && Boolean(label?.value || kind?.value);
      figure.toggleAttribute("data-hidden", hidden);
      numShown += !hidden;
      separateLabels(figure);
      for (const picture of figure.querySelectorAll(".layer")) {
        picture.style.opacity = picture.dataset.layer === layer.value ? opacity.value : 0;
      }
    }
    count.textContent = `${numShown} of ${all.length} images`;
  }
  place.append(controls, count, element("div", { class: "items" }, ...all.map((one) => one.figure)));
  update();
}

for (const table of document.querySelectorAll("table.sortable")) makeSortable(table);
for (const figure of document.querySelectorAll("figure:not(.wide):has(> img)")) makeEnlargeable(figure);
for (const gallery of document.querySelectorAll(".gallery")) {
  const details = gallery.closest("details");
  details.addEventListener("toggle", () => makeGallery(gallery), { once: true });
}
