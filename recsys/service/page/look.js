/** One list: history, funnel, candidates, and what other settings would make of it. */

import { newest } from "./api.js";
import { el, note, trouble } from "./dom.js";
import { showFunnel } from "./funnel.js";
import { showHistory } from "./history.js";
import { fallback, gone, promises, showList, told } from "./lists.js";
import { Settings } from "./settings.js";
import { Candidates } from "./table.js";

const at = (id) => document.getElementById(id);

/** The view of one list. */
export class Look {
  constructor() {
    this.ask = newest();
    this.problem = el("div", { role: "alert" });
    this.said = el("p", { class: "soft", role: "status" });
    this.items = el("div");
    this.more = el("div");
    this.answer = el("div", {}, this.said, this.items, this.more);
    at("list").replaceChildren(this.problem, this.answer);
    this.table = new Candidates(at("candidates"));
  }

  /** Shows the list of a request for a person; settings stay, if they fit. */
  async show(request, person, funnel) {
    Object.assign(this, { request, funnel, served: null });
    showHistory(at("history"), person, request.moment);
    if (!this.settings?.fits(funnel, person.group)) {
      this.settings = new Settings(funnel, person.group, () => this.update());
      at("settings").replaceChildren(this.settings.element);
    }
    await this.update();
  }

  /** Asks for the list by the settings, and shows how it differs from the one that is served. */
  async update() {
    try {
      const changes = this.settings.changes();
      const asked = { ...this.request, explain: true };
      const served = this.served ?? await this.ask("recommend", asked);
      this.served = served.fallback ? null : served;
      const changed = Object.keys(changes).length > 0;
      const answer = changed ? await this.ask("recommend", { ...asked, changes }) : served;
      trouble(this.problem, null);
      this.#fill(answer, changed ? served : null);
    } catch (error) {
      if (error.name === "AbortError") return;
      trouble(this.problem, error, () => this.update());
      if (this.served) this.answer.classList.add("old");
      else this.#empty(); // what is there is of another question
    }
  }

  #empty() {
    this.said.textContent = "";
    for (const place of [this.items, this.more, at("funnel")]) place.replaceChildren();
    this.table.show([], this.funnel);
  }

  #fill(answer, against) {
    this.answer.classList.remove("old");
    this.said.textContent = against ? `Against the list that is served: ${told(against, answer)}`
      : "As it is served: by value, under the rules of the list. Move a weight to see what changes.";
    showList(this.items, answer, { expression: this.settings.expression(), against });
    this.more.replaceChildren(...(against
      ? [gone(against, answer, "No longer there"), promises(this.funnel.tasks, against, answer, ["Served", "Now"])] : []));
    if (!answer.explanation) {
      at("funnel").replaceChildren(fallback(answer) ?? note("Nothing is known of how this list came about."));
      this.table.show([], this.funnel);
      return;
    }
    const settings = merged(this.funnel.settings, this.settings.changes());
    showFunnel(at("funnel"), answer, this.funnel, settings, this.request.k, (chosen) => this.table.choose(chosen));
    this.table.show(answer.explanation.candidates, this.funnel);
  }
}

/** Settings with changes, whose keys have dots. */
function merged(settings, changes) {
  const found = structuredClone(settings);
  for (const [key, value] of Object.entries(changes)) {
    const parts = key.split(".");
    const last = parts.pop();
    let place = found;
    for (const part of parts) place = place?.[part];
    if (place) place[last] = value && typeof value === "object" && !Array.isArray(value) ? { ...place[last], ...value } : value;
  }
  return found;
}
