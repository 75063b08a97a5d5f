/** What a user did, the newest first. */

import { counted, el, moment, note, number, stated, words } from "./dom.js";

/** A person's history; what came at or after `until`, ms, is marked as not known to the request. */
export function showHistory(place, person, until) {
  const visits = joined(person.history);
  const known = person.known ? null : note("The log has no such user: the funnel answers as for somebody new.");
  if (!visits.length) {
    place.replaceChildren(...[known ?? group(person), note("No events: nothing is known of what the user likes.")].filter(Boolean));
    return;
  }
  place.replaceChildren(...[known, group(person, visits.length)].filter(Boolean),
    el("ol", { class: "history", tabIndex: 0, "aria-label": "History" }, visits.map((visit) => entry(visit, until))));
}

function group(person, items) {
  const shown = items ? ` The newest ${counted(items, "item")}, times in UTC.` : "";
  return note(`Of the group ${person.group}.${shown}`);
}

function entry({ item, facts, events }, until) {
  const later = events[0].timestamp >= until;
  return el("li", { class: later ? "later" : null },
    el("div", { class: "line" }, el("strong", {}, item === null ? "an item that the data set does not have" : String(item)),
      events.map((event) => el("span", { class: event.action === "impression" ? "chip" : "chip did" }, did(event)))),
    el("div", { class: "soft facts", title: stated(facts) }, stated(facts)),
    el("div", { class: "soft" }, moment(events[0].timestamp), later ? " · after the moment of the request" : ""));
}

function did({ action, dwell_time: seconds }) {
  const name = action === "impression" ? "seen" : words(action);
  return typeof seconds === "number" ? `${name} ${number(seconds)} s` : name;
}

/** Events with the same item, one after the other, as one. */
function joined(history) {
  const found = [];
  for (const { item, facts, ...event } of history) {
    const last = found.at(-1);
    if (last?.item === item) last.events.push(event);
    else found.push({ item, facts, events: [event] });
  }
  return found;
}
