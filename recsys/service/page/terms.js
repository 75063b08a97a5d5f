/**
 * The weights in the text of a value model.
 *
 * A term is `number * name`; the name may be a call, such as p(liked) or log1p(watch_time).
 */

const TERM = /(\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?)\s*\*\s*([A-Za-z_]\w*)/g;

/** Terms by place: what is weighted, the weight with its sign, and where that stands. */
export function terms(expression) {
  const found = [];
  for (const match of expression.matchAll(TERM)) {
    const before = expression.slice(0, match.index);
    if (/[\w.]$/.test(before)) continue; // the end of a name or of another number
    const [, ahead, sign] = before.match(/^(.*?)([+-]?)\s*$/s);
    const previous = ahead.trimEnd().at(-1) ?? "";
    if (sign ? /[+\-*/]/.test(previous) : /[*/]/.test(previous)) continue;
    const weight = Number(match[1]) * (sign === "-" ? -1 : 1);
    found.push({
      name: called(expression, match.index + match[0].length, match[2]),
      weight,
      begin: ahead.length,
      end: match.index + match[1].length,
      joins: sign !== "" && /[\w)]/.test(previous),
    });
  }
  return found;
}

/** The task whose probability or prediction is weighted; what is more than that stays as it is. */
export function task(name) {
  return name.replace(/^p\(\s*(\w+)\s*\)$/, "$1");
}

/** The expression with other weights, one for each of its terms. */
export function withWeights(expression, weights) {
  let text = expression;
  for (const [place, term] of [...terms(expression).entries()].reverse()) {
    const weight = weights[place];
    const size = String(Math.abs(weight));
    const sign = weight < 0 ? "-" : term.joins ? "+" : "";
    text = text.slice(0, term.begin) + sign + (term.joins ? " " : "") + size + text.slice(term.end);
  }
  return text;
}

/** What weighted predictions add to an item's value, the largest first; predictions by task. */
export function contributions(expression, predictions) {
  return terms(expression)
    .map(({ name, weight }) => ({ name: task(name), weight }))
    .filter(({ name }) => typeof predictions[name] === "number")
    .map(({ name, weight }) => ({ name, adds: weight * predictions[name] }))
    .sort((one, other) => Math.abs(other.adds) - Math.abs(one.adds));
}

/** A name with the brackets after it, if it is called. */
function called(expression, end, name) {
  if (expression[end] !== "(") return name;
  let depth = 0;
  for (let place = end; place < expression.length; place++) {
    depth += { "(": 1, ")": -1 }[expression[place]] ?? 0;
    if (depth === 0) return name + expression.slice(end, place + 1);
  }
  return name;
}
