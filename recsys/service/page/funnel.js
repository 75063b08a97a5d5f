/** The picture of a funnel: what each source found, and what is left after each stage. */

import { counted, el, milliseconds, words } from "./dom.js";

/** Why candidates end at a stage, as far as the settings say. */
function why(stage, settings, k) {
  const { filters } = settings;
  const known = {
    mix: `beyond the best ${settings.limit} of all sources`,
    seen: "the user has seen it",
    integrity: `integrity below ${filters?.min_integrity}, or unknown`,
    region: "of another region than the user's",
    age: `older than ${filters?.max_age_hours} hours`,
    first: `not among the best ${settings.second.candidates} by ${settings.first ? "the first score" : "the order of the sources"}`,
    second: "the second stage has not scored it",
    value: "its value is no number",
    list: `not among the ${k} that the rules of the list choose by value`,
  };
  return known[stage] ?? "left out";
}

/**
 * Shows sources and stages; chosen({source}) or chosen({ended}) is called for the one that is
 * clicked. `settings` are those of the answer's funnel, as far as they are known.
 */
export function showFunnel(place, answer, funnel, settings, k, chosen) {
  const { candidates, seconds = {}, missed = {} } = answer.explanation;
  const drawn = candidates.some((row) => typeof row.propensity === "number");
  place.replaceChildren(el("div", { class: "halves" },
    el("div", {}, el("h3", {}, "Found by each source"), ...sources(candidates, funnel, seconds, missed, chosen)),
    el("div", {}, el("h3", {}, "Left after each stage"), ...stages(candidates, funnel, settings, k, seconds, missed, chosen))),
  el("p", { class: "soft legend" },
    el("span", { class: "key in" }), "in the list ", el("span", { class: "key left" }), "found, or left after the stage ",
    el("span", { class: "key ended" }), "ended at the stage. ",
    drawn ? "An item that was drawn for its place is back from wherever it had ended." : ""));
}

function sources(candidates, funnel, seconds, missed, chosen) {
  const found = funnel.sources.map((name) => {
    const rows = candidates.filter((row) => row.sources.includes(name));
    return { name, all: rows.length, listed: rows.filter((row) => row.position !== null).length };
  });
  const most = Math.max(1, ...found.map(({ all }) => all));
  return found.map(({ name, all, listed }) => bar({
    name: words(name), time: seconds[name], problem: missed[name],
    parts: [["in", listed / most], ["left", (all - listed) / most]],
    said: all ? `${counted(all, "item")}, ${listed} in the list` : seconds[name] === undefined ? "not asked" : "nothing",
    click: () => chosen({ source: name }),
  }));
}

function stages(candidates, funnel, settings, k, seconds, missed, chosen) {
  const listed = candidates.filter((row) => row.position !== null).length;
  const total = Math.max(candidates.length, 1);
  let left = candidates.length;
  const begin = bar({ name: "all sources", parts: [["in", listed / total], ["left", (left - listed) / total]], said: `${left} different`, click: () => chosen({}) });
  return [begin, ...funnel.stages.map((stage) => {
    const ended = candidates.filter((row) => row.ended === stage).length;
    left -= ended;
    return bar({
      name: stage, time: seconds[stage], problem: missed[stage],
      parts: [["in", listed / total], ["left", (left - listed) / total], ["ended", ended / total]],
      said: ended ? `${left} left, ${ended} ended: ${why(stage, settings, k)}` : `${left} left`,
      click: () => chosen({ ended: stage }),
    });
  })];
}

function bar({ name, parts, said, time, problem, click }) {
  return el("button", { type: "button", class: "bar-row", click, title: "show these candidates" },
    el("span", { class: "name" }, name),
    el("span", { class: "track", "aria-hidden": "true" },
      parts.map(([kind, share]) => el("span", { class: kind, vars: { share: `${100 * share}%` } }))),
    el("span", { class: "soft time" }, milliseconds(time)),
    el("span", { class: "soft said" }, said),
    problem ? el("span", { class: "problem" }, `missed: ${problem}`) : null);
}
