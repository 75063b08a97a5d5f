/** Settings of a funnel that may be otherwise: weights with sliders, and any other as text. */

import { Problem } from "./api.js";
import { el, note, words } from "./dom.js";
import { task, terms, withWeights } from "./terms.js";

/**
 * Controls of the settings.
 *
 * changed() is called after each change. `element` is shown, `changes()` gives what differs from
 * what is served, by key, and `expression()` the value model.
 */
export class Settings {
  constructor(funnel, group, changed) {
    this.changed = changed;
    this.served = servedValue(funnel, group);
    this.funnel = funnel;
    this.element = el("div", { class: "settings" });
    this.reset();
  }

  /** As it is served. */
  reset() {
    this.text = this.served.expression;
    this.otherwise = {};
    this.others = "";
    this.element.replaceChildren(this.#value(), this.#sources(), this.#rules(), this.#rest());
  }

  /** Whether these are settings of this funnel, with the value model of this group. */
  fits(funnel, group) {
    return JSON.stringify([funnel.settings, servedValue(funnel, group).key])
      === JSON.stringify([this.funnel.settings, this.served.key]);
  }

  expression() {
    return this.text;
  }

  /** What differs from what is served; throws a Problem for a line that cannot be read. */
  changes() {
    // a source that is left out has no weight
    const there = ([key]) => this.otherwise[key.replace(/\.\w+$/, "")] !== null;
    const found = Object.fromEntries(Object.entries(this.otherwise).filter(there));
    if (this.text !== this.served.expression) Object.assign(found, this.served.changes(this.text));
    return Object.assign(found, lines(this.others));
  }

  #value() {
    const weights = el("div", { class: "rows" });
    const written = el("textarea", {
      rows: 5, spellcheck: false, value: this.text, "aria-label": "Value model",
      input: () => { this.text = written.value; fill(); this.changed(); },
    });
    const fill = () => {
      const found = terms(this.text);
      const rows = found.map((term, place) => slider(words(task(term.name)), term.weight, bounds(term.weight), (weight) => {
        const all = terms(this.text).map((one) => one.weight);
        all[place] = weight;
        this.text = written.value = withWeights(this.text, all);
        this.changed();
      }));
      weights.replaceChildren(...(rows.length ? rows : [note("No term of the form number * p(task).")]));
    };
    fill();
    const text = el("details", {}, el("summary", {}, "As text"), written);
    return part("Value of an item", weights, text);
  }

  #sources() {
    const rows = declared(this.funnel.settings.sources).map(([name, key, source]) => {
      const weight = slider(words(name), source.weight, bounds(source.weight), (chosen) =>
        this.#set(`${key}.weight`, chosen, source.weight));
      const on = el("input", {
        type: "checkbox", checked: true, "aria-label": `${words(name)} is asked`,
        input: () => {
          for (const input of weight.querySelectorAll("input")) if (input !== on) input.disabled = !on.checked;
          this.#set(key, on.checked ? undefined : null);
        },
      });
      weight.prepend(on);
      weight.classList.add("with-switch");
      return weight;
    });
    return part("Weight of a source", el("div", { class: "rows" }, rows));
  }

  #rules() {
    const { exploration, filters } = this.funnel.settings;
    const rows = [];
    if (typeof filters?.min_integrity === "number") {
      const least = filters.min_integrity;
      const set = (chosen) => this.#set("filters.min_integrity", chosen, least);
      rows.push(slider("least integrity", least, { min: 0, max: 1, step: 0.01 }, set));
    }
    if (exploration) {
      const on = el("input", {
        type: "checkbox", checked: true,
        input: () => this.#set("exploration", on.checked ? undefined : null),
      });
      const places = exploration.places.join(", ");
      rows.push(el("label", { class: "check" }, on, `draws from ${words(exploration.source)} for the places ${places}`));
    }
    return rows.length ? part("Rules", el("div", { class: "rows" }, rows)) : "";
  }

  #rest() {
    const written = el("textarea", {
      rows: 3, spellcheck: false, placeholder: "limit = 100\nrerank.apart = []", "aria-label": "Other settings, one a line",
      input: () => { this.others = written.value; this.changed(); },
    });
    const served = el("pre", { tabIndex: 0 }, JSON.stringify(this.funnel.settings, null, 1));
    return el("div", { class: "part" },
      el("details", {}, el("summary", {}, "Other settings"),
        note("One a line, by their keys in conf/funnel: limit = 100"), written,
        el("details", {}, el("summary", {}, "What is served"), served)),
      el("button", { type: "button", click: () => { this.reset(); this.changed(); } }, "As it is served"));
  }

  /** A setting that is otherwise; not, where it is as served. */
  #set(key, value, served) {
    if (value === served) delete this.otherwise[key];
    else this.otherwise[key] = value;
    this.changed();
  }
}

/** Sources with the keys of their settings; those of models are declared by name, by their kind. */
function declared(sources) {
  return Object.entries(sources).filter(([, source]) => source !== null).flatMap(([name, source]) =>
    "quota" in source ? [[name, `sources.${name}`, source]]
      : Object.entries(source).filter(([, one]) => one !== null)
        .map(([one, its]) => [one, `sources.${name}.${one}`, its]));
}

/** The value model of a user's group, and how another one is said. */
function servedValue(funnel, group) {
  const { expression, of_group } = funnel.settings.value;
  const number = funnel.groups.indexOf(group);
  if (of_group && number in of_group) {
    const key = "value.of_group";
    return { key: `${key}.${number}`, expression: of_group[number], changes: (text) => ({ [key]: { [number]: text } }) };
  }
  const key = "value.expression";
  return { key, expression, changes: (text) => ({ [key]: text }) };
}

/** Settings as they are typed, a line each: key = JSON, or text. */
function lines(text) {
  const found = {};
  for (const line of text.split("\n")) {
    const [, key, value] = line.match(/^\s*([^=]+?)\s*=\s*(.*?)\s*$/) ?? [];
    if (!line.trim()) continue;
    if (key === undefined) throw new Problem(`“${line.trim()}” is no setting; write key = value, such as limit = 100.`, 400);
    try {
      found[key] = JSON.parse(value);
    } catch {
      found[key] = value;
    }
  }
  return found;
}

/** From nothing to three times a weight, in steps that are seen. */
function bounds(weight) {
  const size = Math.abs(weight) || 1;
  const step = 10 ** Math.floor(Math.log10(size) - 1);
  return { min: weight < 0 ? -3 * size : 0, max: weight < 0 ? 0 : 3 * size, step };
}

/** A row that moves a number by a slider or by typing. */
function slider(name, value, { min, max, step }, moved) {
  const range = el("input", { type: "range", "aria-label": name });
  Object.assign(range, { min, max, step });
  range.value = value;
  const typed = el("input", { type: "number", step: "any", value, required: true, "aria-label": `${name}, as a number` });
  range.addEventListener("input", () => { typed.value = range.value; moved(Number(range.value)); });
  typed.addEventListener("input", () => {
    if (typed.value === "" || !Number.isFinite(typed.valueAsNumber)) return;
    range.value = typed.value;
    moved(typed.valueAsNumber);
  });
  return el("div", { class: "slider" }, el("span", { class: "name" }, name), range, typed);
}

function part(title, ...children) {
  return el("div", { class: "part" }, el("h3", {}, title), ...children);
}
