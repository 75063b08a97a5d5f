/** Whom the page is about, and which of its two views is shown. */

import { ask, Problem, useKey } from "./api.js";
import { Compare } from "./compare.js";
import { counted, el, trouble } from "./dom.js";
import { Look } from "./look.js";

const at = (id) => document.getElementById(id);
const views = { look: new Look(), compare: new Compare(at("compare")) };
const shown = new Set(); // views that show the last question
let users = [];
let draws = 1;
let asked = 0;
let question = null; // what was asked last: request, person and funnel

/** What is asked for stands in the address, so that it can be passed on. */
function remember() {
  const wanted = new URLSearchParams({ user: at("user").value, k: at("k").value });
  if (at("moment").value) wanted.set("moment", at("moment").value);
  if (view() !== "look") wanted.set("view", view());
  history.replaceState(null, "", `#${wanted}`);
}

function recall() {
  const wanted = new URLSearchParams(location.hash.slice(1));
  for (const name of ["user", "k", "moment"]) if (wanted.get(name)) at(name).value = wanted.get(name);
  const radio = document.querySelector(`[name=view][value="${CSS.escape(wanted.get("view") ?? "")}"]`);
  if (radio) radio.checked = true;
}

function view() {
  return document.querySelector("[name=view]:checked").value;
}

/** Asks about the user, and hands that to the view. */
async function show() {
  const number = ++asked;
  const current = () => number === asked;
  remember();
  try {
    const user = at("user").value.trim();
    const [funnel, person] = await Promise.all([ask("funnel"), ask(`users/${encodeURIComponent(user)}`)]);
    if (!current()) return;
    about(funnel);
    trouble(at("trouble"), null);
    const moment = at("moment").value ? Date.parse(`${at("moment").value}Z`) : funnel.now;
    const request = { user, k: at("k").valueAsNumber, moment, draws };
    question = { request, person, funnel };
    shown.clear();
    await turn();
  } catch (error) {
    if (current()) failed(error, show);
  }
}

/** Turns to the view that is chosen; one that shows the last question already stays as it is. */
async function turn() {
  for (const name in views) at(name).hidden = name !== view();
  at("views").hidden = false;
  remember();
  if (shown.has(view())) return;
  shown.add(view());
  await views[view()].show(question.request, question.person, question.funnel);
}

async function start() {
  try {
    users = (await ask("users")).users;
    at("users").replaceChildren(...users.slice(0, 200).map((user) => el("option", { value: String(user) })));
    at("another").disabled = !users.length;
    if (!at("user").value && users.length) at("user").value = String(users[0]);
    if (at("user").value) await show();
    else throw new Problem("the log has no users; type one to see what somebody new would get.");
  } catch (error) {
    failed(error, start);
  }
}

function failed(error, again) {
  for (const name of ["views", ...Object.keys(views)]) at(name).hidden = true; // of another question
  at("key").hidden = error.status !== 401;
  if (error.status === 401) at("secret").focus();
  trouble(at("trouble"), error, again);
}

function about(funnel) {
  const clock = funnel.clock === "log" ? ", now is just after the newest known event" : "";
  at("about").textContent = `${funnel.dataset}, generation ${funnel.generation}: `
    + `${counted(funnel.sources.length, "source")}, ${counted(funnel.stages.length, "stage")}${clock}`;
}

at("question").addEventListener("submit", (event) => { event.preventDefault(); show(); });
at("another").addEventListener("click", () => {
  at("user").value = String(users[Math.floor(Math.random() * users.length)]);
  show();
});
at("draw").addEventListener("click", () => { draws += 1; show(); });
at("key").addEventListener("submit", (event) => {
  event.preventDefault();
  useKey(at("secret").value);
  at("key").hidden = true;
  start();
});
at("views").addEventListener("change", turn);

recall();
start();
