// Draws charts when they come into view, filters and sorts tables, and shows examples.
// Text from data only ever goes through textContent.

const data = JSON.parse(document.getElementById("data").textContent);

function element(name, text, className) {
  const node = document.createElement(name);
  if (text !== undefined) node.textContent = text;
  if (className) node.className = className;
  return node;
}

// --- Charts --------------------------------------------------------------------------------------

async function draw(box) {
  const spec = data.charts[Number(box.dataset.chart)];
  // The expression interpreter (ast) needs no eval, which the page's policy forbids.
  await vegaEmbed(box, spec, { actions: false, renderer: "svg", ast: true });
  box.dataset.drawn = "true";
}

const boxes = document.querySelectorAll("[data-chart]");
const watcher = new IntersectionObserver(
  (entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      watcher.unobserve(entry.target);
      draw(entry.target);
    }
  },
  { rootMargin: "400px" },
);
boxes.forEach((box) => watcher.observe(box));

window.addEventListener("beforeprint", () => {
  boxes.forEach((box) => {
    if (!box.dataset.drawn) draw(box);
  });
});

// --- Filter --------------------------------------------------------------------------------------

const filter = document.getElementById("filter");
const status = document.getElementById("filter-status");

function applyFilter() {
  const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const section of document.querySelectorAll("section.group")) {
    const where = section.dataset.where.toLowerCase();
    let any = false;
    for (const body of section.querySelectorAll("tbody")) {
      const text = `${where} ${body.dataset.recipe.toLowerCase()}`;
      body.hidden = !words.every((word) => text.includes(word));
      any ||= !body.hidden;
      shown += body.hidden ? 0 : 1;
    }
    section.hidden = !any;
  }
  status.textContent = words.length ? `${shown} ${shown === 1 ? "row" : "rows"} match` : "";
}

filter.addEventListener("input", applyFilter);

// --- Columns -------------------------------------------------------------------------------------

const tables = [...document.querySelectorAll("table.recipes")];
const heads = tables.flatMap((table) => [...table.tHead.rows[0].cells]);
const names = [...new Set(heads.map((head) => head.dataset.column).filter(Boolean))];
const kept = (name) => `${name} kept`;
const shares = new Set(names.map(kept));
// Quality kept follows its metric, even if the first table lacks it.
const columns = names
  .filter((name) => !shares.has(name))
  .flatMap((name) => [name, kept(name)].filter((column) => names.includes(column)));
const chooser = document.getElementById("columns");

function showColumn(name, shown) {
  for (const table of tables) {
    const cells = [...table.tHead.rows[0].cells];
    cells.forEach((head, column) => {
      if (head.dataset.column !== name) return;
      head.hidden = !shown;
      for (const row of table.rows) {
        const cell = row.cells[column];
        if (cell && !row.querySelector("[data-spans]")) cell.hidden = !shown;
      }
    });
    const visible = cells.filter((head) => head.dataset.column && !head.hidden).length;
    for (const cell of table.querySelectorAll("[data-spans]")) cell.colSpan = Math.max(1, visible);
  }
  watchWidths();
}

for (const name of columns) {
  const label = element("label");
  const box = element("input");
  box.type = "checkbox";
  box.checked = true;
  box.addEventListener("change", () => showColumn(name, box.checked));
  label.append(box, element("span", name));
  chooser.querySelector("fieldset").append(label);
}
chooser.hidden = !columns.length;

// --- Tables that are wider than the window -------------------------------------------------------

function watchWidths() {
  for (const box of document.querySelectorAll(".scroll")) {
    const beyond = box.scrollWidth - box.clientWidth;
    box.classList.toggle("overflows", beyond > 1);
    box.classList.toggle("at-end", box.scrollLeft >= beyond - 1);
    const hint = box.previousElementSibling;
    if (hint?.classList.contains("wide-hint")) hint.hidden = beyond <= 1;
  }
}

window.addEventListener("resize", watchWidths);
document.addEventListener("scroll", watchWidths, { capture: true, passive: true });
watchWidths();

// --- Sorting -------------------------------------------------------------------------------------

for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const head = button.closest("th");
    const table = head.closest("table");
    const column = [...head.parentNode.children].indexOf(head);
    const down = head.getAttribute("aria-sort") !== "descending";
    for (const other of head.parentNode.children) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const key = (body) => {
      const raw = body.rows[0].cells[column]?.dataset.value ?? "";
      return raw === "" ? null : Number.isNaN(Number(raw)) ? raw : Number(raw);
    };
    const bodies = [...table.tBodies].sort((a, b) => {
      const [x, y] = [key(a), key(b)];
      if (x === null || y === null) return (x === null) - (y === null);
      const order = x < y ? -1 : x > y ? 1 : 0;
      return down ? -order : order;
    });
    table.append(...bodies);
  });
}

// --- Examples ------------------------------------------------------------------------------------

const browser = document.getElementById("browser");
if (browser) {
  const group = document.getElementById("example-group");
  const search = document.getElementById("example-search");
  const place = document.getElementById("example-place");
  const view = document.getElementById("example");
  let matches = [];
  let at = 0;

  data.examples.forEach((entry, number) => {
    const option = element("option", entry.group);
    option.value = String(number);
    group.append(option);
  });

  function find() {
    const wanted = search.value.toLowerCase();
    const texts = (e) => [e.id, e.source, e.reference, ...e.predictions.map((p) => p.text)];
    matches = data.examples[Number(group.value)].examples.filter((example) =>
      texts(example).some((text) => text.toLowerCase().includes(wanted)),
    );
    at = 0;
    show();
  }

  function block(title, text, scores, className) {
    const box = element("article", undefined, className);
    box.append(element("h4", title), element("p", text || "(empty)", "text"));
    if (scores) {
      const list = element("dl");
      for (const [name, value] of Object.entries(scores)) {
        const pair = element("div");
        const shown = typeof value === "number" ? value.toFixed(2) : String(value);
        pair.append(element("dt", name), element("dd", shown));
        list.append(pair);
      }
      box.append(list);
    }
    return box;
  }

  function show() {
    view.replaceChildren();
    if (!matches.length) {
      place.textContent = "no example matches";
      return;
    }
    const example = matches[at];
    place.textContent = `${at + 1} of ${matches.length}: ${example.id}`;
    view.append(block("Source", example.source, null, "wide"));
    view.append(block("Reference", example.reference, null, "wide"));
    for (const p of example.predictions) {
      view.append(block(`${p.recipe}, seed ${p.seed}`, p.text, p.scores));
    }
  }

  function move(by) {
    if (!matches.length) return;
    at = (at + by + matches.length) % matches.length;
    show();
  }

  group.addEventListener("change", find);
  search.addEventListener("input", find);
  document.getElementById("example-before").addEventListener("click", () => move(-1));
  document.getElementById("example-after").addEventListener("click", () => move(1));
  browser.addEventListener("keydown", (event) => {
    if (event.target.matches("input, select")) return;
    if (event.key === "ArrowLeft") move(-1);
    if (event.key === "ArrowRight") move(1);
  });
  find();
}
