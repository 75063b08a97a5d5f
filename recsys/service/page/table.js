/** The candidates of a request, to be sorted and searched. */

import { counted, el, number, stated, words } from "./dom.js";

const TEXTS = ["item", "from", "ended", "text"];

/** Rows that are shown before somebody asks for all. */
const FIRST_ROWS = 50;

/** A table whose order and search stay when other candidates are shown. */
export class Candidates {
  constructor(place) {
    this.sorted = { name: "position", descending: false };
    this.rows = [];
    this.all = false;
    const changed = () => { this.all = false; this.#fill(); };
    this.source = el("select", { input: changed, "aria-label": "Source" });
    this.ended = el("select", { input: changed, "aria-label": "End" });
    this.text = el("input", { type: "search", placeholder: "item or fact", input: changed, "aria-label": "Item or fact", spellcheck: false });
    this.count = el("p", { class: "soft", role: "status" });
    this.table = el("table", { class: "numbers candidates" });
    this.more = el("button", { type: "button", click: () => { this.all = true; this.#fill(); } }, "Show all");
    place.replaceChildren(
      el("div", { class: "bar tight" }, this.source, this.ended, this.text, this.count),
      el("div", { class: "scroll tall", tabIndex: 0, role: "region", "aria-label": "Candidates" }, this.table), this.more);
  }

  /** Candidates of an explanation; names of sources, stages and tasks are those of the funnel. */
  show(rows, funnel) {
    this.rows = rows.map((row) => ({ ...row, text: `${row.item} ${stated(row.facts)}`, from: row.sources.join(" ") }));
    const has = (name) => rows.some((row) => name in row);
    this.columns = [
      ["position", "place"], ["item", "item"], ["from", "sources"], ["ended", "end"],
      ...["value", "fused", "first"].filter(has).map((name) => [name, name]),
      ...funnel.tasks.filter(has).map((task) => [task, words(task)]),
      ["text", "facts"],
    ];
    options(this.source, [["", "any source"], ...funnel.sources.map((one) => [one, words(one)])]);
    options(this.ended, [["", "any end"], ["list-", "in the list"], ...funnel.stages.map((one) => [`at-${one}`, `ended at ${one}`])]);
    this.#fill();
  }

  /** Shows those of a source, or that ended at a stage, alone. */
  choose({ source = "", ended = "" }) {
    this.source.value = source;
    this.ended.value = ended && `at-${ended}`;
    this.text.value = "";
    this.all = false;
    this.#fill();
    this.table.parentElement.scrollIntoView({ block: "nearest" });
  }

  #fill() {
    const wanted = this.rows.filter((row) => this.#wanted(row)).sort(this.#order());
    const shown = this.all ? wanted : wanted.slice(0, FIRST_ROWS);
    const scored = this.columns.filter(([name]) => name !== "position" && !TEXTS.includes(name));
    const most = new Map(scored.map(([name]) => [name, Math.max(...this.rows.map((row) => Math.abs(row[name] ?? 0)))]));
    this.table.replaceChildren(
      el("thead", {}, el("tr", {}, this.columns.map((column) => this.#head(...column)))),
      el("tbody", {}, shown.map((row) => el("tr", { class: row.position === null ? "" : "listed" },
        this.columns.map(([name]) => cell(row, name, most.get(name)))))));
    this.more.hidden = shown.length === wanted.length;
    this.more.textContent = `Show all ${wanted.length.toLocaleString("en")}`;
    this.count.textContent = wanted.length ? counted(wanted.length, "candidate") : "No candidate.";
  }

  #wanted(row) {
    const { source, ended, text } = this;
    if (source.value && !row.sources.includes(source.value)) return false;
    if (ended.value === "list-" ? row.position === null : ended.value && `at-${row.ended}` !== ended.value) return false;
    return row.text.toLowerCase().includes(text.value.trim().toLowerCase());
  }

  /** What is absent comes last, whichever way. */
  #order() {
    const { name, descending } = this.sorted;
    return (one, other) => {
      const [a, b] = [one[name], other[name]];
      if (a === null || b === null || a === undefined || b === undefined) return (a == null) - (b == null);
      const order = typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
      return descending ? -order : order;
    };
  }

  #head(name, title) {
    const { sorted } = this;
    const is = sorted.name === name;
    const click = () => {
      // of scores the highest are asked for first
      const first = name !== "position" && !TEXTS.includes(name);
      this.sorted = { name, descending: is ? !sorted.descending : first };
      this.#fill();
      this.table.querySelector(`th[data-name="${CSS.escape(name)}"] button`)?.focus();
    };
    const direction = !is ? "none" : sorted.descending ? "descending" : "ascending";
    return el("th", { scope: "col", class: TEXTS.includes(name) ? "text" : null, "aria-sort": direction, "data-name": name },
      el("button", { type: "button", click }, title, el("span", { class: "arrow", "aria-hidden": "true" }, !is ? "" : sorted.descending ? " ▾" : " ▴")));
  }
}

function cell(row, name, most) {
  if (name === "position") return el("td", {}, row.position === null ? "" : String(row.position));
  if (name === "item") return el("td", { class: "id" }, String(row.item));
  if (name === "from") return el("td", { class: "text" }, row.sources.map(words).join(", "));
  if (name === "ended") return el("td", { class: "text" }, row.ended ?? (typeof row.propensity === "number" ? "in the list, drawn" : "in the list"));
  if (name === "text") return el("td", { class: "text facts", title: stated(row.facts) }, stated(row.facts));
  const share = typeof row[name] === "number" && most ? Math.abs(row[name]) / most : 0;
  return el("td", { class: row[name] < 0 ? "scored below" : "scored", vars: { share: `${100 * share}%` } }, number(row[name]));
}

/** Fills a choice anew; what was chosen stays, if it is still there. */
function options(select, pairs) {
  const chosen = select.value;
  select.replaceChildren(...pairs.map(([value, text]) => el("option", { value }, text)));
  select.value = pairs.some(([value]) => value === chosen) ? chosen : "";
}
