/** Two settings side by side, for the same user, moment and draws. */

import { newest } from "./api.js";
import { el, trouble } from "./dom.js";
import { gone, promises, showList, told } from "./lists.js";
import { Settings } from "./settings.js";

/** The view of two lists. */
export class Compare {
  constructor(place) {
    this.said = el("p", { class: "headline", role: "status" });
    this.more = el("div");
    this.sides = ["A", "B"].map((name) => new Side(name, () => this.#update(name)));
    place.replaceChildren(
      el("div", { class: "halves apart" }, this.sides.map((side) => side.panel)),
      el("section", { class: "card", "aria-label": "Difference" }, this.said, this.more),
      el("div", { class: "halves apart" }, this.sides.map((side) => side.list)));
  }

  /** Shows both lists for a request; settings stay, if they fit. */
  async show(request, person, funnel) {
    this.funnel = funnel;
    for (const side of this.sides) side.begin(request, person, funnel);
    await Promise.all(this.sides.map((side) => this.#update(side.name)));
  }

  async #update(name) {
    const side = this.sides.find((one) => one.name === name);
    if (await side.ask()) this.#fill();
  }

  #fill() {
    const [a, b] = this.sides;
    if (!a.answer || !b.answer) return;
    a.fill({ other: b.answer });
    b.fill({ against: a.answer });
    this.said.textContent = `From A to B: ${told(a.answer, b.answer)}`;
    this.more.replaceChildren(
      gone(a.answer, b.answer, "In A alone"), promises(this.funnel.tasks, a.answer, b.answer, ["A", "B"], true));
  }
}

/** One of the two. */
class Side {
  constructor(name, changed) {
    Object.assign(this, { name, changed, answer: null, question: newest() });
    this.problem = el("div", { role: "alert" });
    this.items = el("div");
    this.controls = el("div", { class: "wide-settings" });
    this.panel = el("section", { class: "card", "aria-label": `Settings of ${name}` },
      el("h2", {}, `Settings of ${name}`), this.problem, this.controls);
    this.list = el("section", { class: "card", "aria-label": name }, el("h2", {}, `List of ${name}`), this.items);
  }

  begin(request, person, funnel) {
    Object.assign(this, { request, answer: null });
    if (this.settings?.fits(funnel, person.group)) return;
    this.settings = new Settings(funnel, person.group, this.changed);
    this.controls.replaceChildren(this.settings.element);
  }

  /** Asks for the list; whether there is one. */
  async ask() {
    try {
      const changes = this.settings.changes();
      this.answer = await this.question("recommend", { ...this.request, changes, explain: true });
      trouble(this.problem, null);
      this.items.classList.remove("old");
      return true;
    } catch (error) {
      if (error.name === "AbortError") return false;
      trouble(this.problem, error, this.changed);
      if (this.answer) this.items.classList.add("old");
      else this.items.replaceChildren(); // what is there is of another question
      return false;
    }
  }

  fill(marks) {
    showList(this.items, this.answer, { expression: this.settings.expression(), name: `List of ${this.name}`, ...marks });
  }
}
