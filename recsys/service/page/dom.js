/**
 * Elements, and how values are written.
 *
 * Whatever comes from a log becomes a text node: it is never read as HTML.
 */

/** An element; functions listen, `vars` are properties of its style, the rest are its own. */
export function el(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined) continue;
    if (typeof value === "function") node.addEventListener(name, value);
    else if (name === "class") node.className = value;
    else if (name === "vars") for (const key in value) node.style.setProperty(`--${key}`, value[key]);
    else if (name in node) node[name] = value;
    else node.setAttribute(name, value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

export function note(...text) {
  return el("p", { class: "soft" }, ...text);
}

/** Says in a place what went wrong, with a way to try again; nothing for null. */
export function trouble(place, error, again) {
  const retry = again && error?.comesAgain
    ? el("button", { type: "button", click: again }, "Try again") : null;
  place.replaceChildren(...(error ? [el("div", { class: "trouble" }, error.message, retry)] : []));
}

/** Three digits that count; a dash for what is no number. */
export function number(value) {
  if (typeof value !== "number") return "–";
  if (value !== 0 && Math.abs(value) < 0.0005) return value.toExponential(1).replace("-", "−");
  const digits = Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : Math.abs(value) >= 1 ? 2 : 3;
  const text = value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
  return text.replace("-", "−");
}

export function signed(value) {
  return (value > 0 ? "+" : "") + number(value);
}

export function milliseconds(seconds) {
  return seconds === undefined ? "" : `${number(seconds * 1000)} ms`;
}

/** "1 item", "2 items". */
export function counted(count, one, many = `${one}s`) {
  return `${count.toLocaleString("en")} ${count === 1 ? one : many}`;
}

/** A moment in ms as 2026-01-03 20:37:35, in UTC. */
export function moment(ms) {
  const date = new Date(ms);
  return Number.isNaN(date.getTime()) ? String(ms) : date.toISOString().slice(0, 19).replace("T", " ");
}

/** What is stated of an item, in a line: names and ids first, measures last; texts need no name. */
export function stated(facts) {
  const known = Object.entries(facts ?? {}).filter(([, value]) => value !== null);
  const rank = ([, value]) => (typeof value === "string" ? 0 : Number.isInteger(value) ? 1 : 2);
  return known.sort((one, other) => rank(one) - rank(other))
    .map(([name, value]) => (typeof value === "string" ? value : `${words(name.replace(/_id$/, ""))} ${fact(value)}`))
    .join(" · ");
}

function fact(value) {
  if (typeof value !== "number") return JSON.stringify(value);
  return Number.isInteger(value) ? String(value) : number(value);
}

export function words(name) {
  return name.replaceAll("_", " ");
}
