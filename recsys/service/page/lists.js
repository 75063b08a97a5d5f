/** A list, and how it differs from another one. */

import { counted, el, note, number, signed, stated, words } from "./dom.js";
import { contributions } from "./terms.js";

const FALLBACKS = {
  busy: "So many ask that the funnel was not run: this is what is popular in the user's group.",
  late: "The funnel was late: this is what is popular in the user's group.",
};

const VALUE = "what the item is worth; nothing is said where the second stage has not scored it";

/** Why a list was made without the funnel; nothing where it was not. */
export function fallback(answer) {
  return answer.fallback
    ? el("p", { class: "trouble" }, FALLBACKS[answer.fallback] ?? `Made before: ${answer.fallback}.`) : null;
}

/** Items in both lists, those at another place in the second, and those of one alone. */
export function difference(before, after) {
  const place = new Map(before.items.map((item, at) => [item, at]));
  const both = after.items.filter((item) => place.has(item));
  const moved = after.items.filter((item, at) => place.has(item) && place.get(item) !== at);
  const there = new Set(after.items);
  return {
    place,
    both: both.length,
    moved: moved.length,
    came: after.items.length - both.length,
    left: before.items.filter((item) => !there.has(item)),
  };
}

/**
 * The list of an answer.
 *
 * Where there is an answer `against` it, places are marked by how they differ; items that `other`
 * has not are marked as well. `expression` says what a value is made of. What the place held before
 * is moved to where it is now.
 */
export function showList(place, answer, { expression, against = null, other = null, name = "List" }) {
  const tops = positions(place);
  if (!answer.items.length) {
    place.replaceChildren(...filled(fallback(answer), note(`The list is empty: ${answer.empty}.`)));
    return;
  }
  const rows = new Map((answer.explanation?.candidates ?? []).map((row) => [row.item, row]));
  const before = against && difference(against, answer).place;
  const alone = new Set(other && difference(answer, other).left);
  const mark = (item, at) => {
    if (other) return el("span", { class: "move alone" }, alone.has(item) ? "gone" : "");
    return before && move(before.get(item), at);
  };
  const items = answer.items.map((item, at) =>
    entry(item, at, rows.get(item), answer.scores[at], expression, mark(item, at)));
  place.replaceChildren(...filled(fallback(answer), el("ol", { class: "list", "aria-label": name }, items)));
  glide(place, tops);
}

function entry(item, at, row, score, expression, mark) {
  const parts = row ? contributions(expression, row) : [];
  const drawn = typeof row?.propensity === "number";
  return el("li", { "data-item": String(item) },
    el("span", { class: "rank" }, el("span", { class: "place" }, String(at + 1)), mark),
    el("div", { class: "line" }, el("strong", {}, String(item)),
      ...(row?.sources ?? []).map((source) => el("span", { class: "chip" }, words(source))),
      drawn ? el("span", { class: "chip drawn", title: `probability ${number(row.propensity)}` }, "drawn") : null),
    el("span", { class: "value", title: VALUE }, number(score)),
    el("div", { class: "soft facts", title: stated(row?.facts) }, stated(row?.facts)),
    parts.length ? el("div", { class: "soft parts" },
      parts.slice(0, 3).map(({ name, adds }) => el("span", {}, `${words(name)} ${signed(adds)}`))) : null);
}

/** How far an item has moved up or down, or that it came. */
function move(before, at) {
  if (before === undefined) return el("span", { class: "move came" }, "new");
  const up = before - at;
  if (!up) return el("span", { class: "move", "aria-label": "same place" }, "=");
  const said = `${Math.abs(up)} ${up > 0 ? "up" : "down"}`;
  return el("span", { class: `move ${up > 0 ? "up" : "down"}`, "aria-label": said }, `${up > 0 ? "▲" : "▼"} ${Math.abs(up)}`);
}

/** In a sentence, how the second list differs from the first. */
export function told(first, second) {
  const { both, moved, came, left } = difference(first, second);
  if (!moved && !came && !left.length) return "The same list.";
  const other = `${came.toLocaleString("en")} came, ${left.length.toLocaleString("en")} left`;
  if (!both) return `No item is in both: ${other}.`;
  return `${counted(both, "item is", "items are")} in both, ${moved.toLocaleString("en")} of them at another place; ${other}.`;
}

/** What the second list has no more, by the place it had in the first. */
export function gone(first, second, title) {
  const { place, left } = difference(first, second);
  if (!left.length) return "";
  return el("p", { class: "soft gone" }, `${title}: `,
    left.map((item) => `${item} (was ${place.get(item) + 1})`).join(", "), ".");
}

/** Mean predictions over the items of two lists, by task: down the table, or across it. */
export function promises(tasks, first, second, names, across = false) {
  const down = [["Mean prediction", ...names, "Difference"], ...tasks.map((task) => {
    const [one, other] = [mean(first, task), mean(second, task)];
    return [words(task), number(one), number(other), change(one, other)];
  })];
  const rows = across ? down[0].map((_, column) => down.map((row) => row[column])) : down;
  const cells = (row, top) => row.map((text, place) =>
    el(top || !place ? "th" : "td", top ? { scope: "col" } : place ? {} : { scope: "row" }, text));
  return el("div", { class: "scroll", tabIndex: 0, role: "region", "aria-label": "Mean predictions" },
    el("table", { class: "numbers" },
      el("thead", {}, el("tr", {}, cells(rows[0], true))),
      el("tbody", {}, rows.slice(1).map((row) => el("tr", {}, cells(row, false))))));
}

function change(one, other) {
  if (one === null || other === null) return "–";
  if (one === other) return "=";
  if (one === 0) return signed(other - one);
  const percent = 100 * (other - one) / Math.abs(one);
  return `${percent < 0 ? "−" : "+"}${Math.abs(percent).toFixed(1)} %`;
}

/** Of the items that were scored; null where none was. */
function mean(answer, task) {
  const rows = answer.explanation?.candidates ?? [];
  const found = rows.filter((row) => row.position !== null && typeof row[task] === "number");
  return found.length ? found.reduce((sum, row) => sum + row[task], 0) / found.length : null;
}

function filled(...nodes) {
  return nodes.filter((node) => node !== null);
}

function positions(place) {
  const items = [...place.querySelectorAll("[data-item]")];
  return new Map(items.map((node) => [node.dataset.item, node.getBoundingClientRect().top]));
}

/** Moves items from where they were to where they are. */
function glide(place, tops) {
  if (matchMedia("(prefers-reduced-motion: reduce)").matches) return;
  for (const node of place.querySelectorAll("[data-item]")) {
    const from = tops.get(node.dataset.item);
    const by = from === undefined ? 0 : from - node.getBoundingClientRect().top;
    if (by) node.animate([{ transform: `translateY(${by}px)` }, { transform: "none" }], { duration: 250, easing: "ease-out" });
  }
}
