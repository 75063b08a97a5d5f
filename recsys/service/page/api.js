/** Questions to the service this page came from. */

/** A problem, as a sentence. */
export class Problem extends Error {
  constructor(sentence, status = 0) {
    super(sentence);
    this.status = status;
    this.comesAgain = status === 0 || status >= 500;
  }
}

let key = "";

/** Sends this key with every question; it is kept in this page alone. */
export function useKey(text) {
  key = text;
}

/** What the service answers: to a body, where there is one; throws a Problem. */
export async function ask(path, body, signal) {
  const headers = key ? { "X-API-Key": key } : {};
  const options = body === undefined ? { headers, signal }
    : { headers, signal, method: "POST", body: JSON.stringify(body) };
  let response, text;
  try {
    response = await fetch(path, options);
    text = await response.text();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem("the service does not answer; is it still running?");
  }
  const answer = parsed(text);
  if (response.ok && answer) return answer;
  throw new Problem(answer?.error ?? `the service answers ${response.status} to ${path}.`, response.status);
}

/** Asks as above; a newer question gives up the one before, whose answer never comes. */
export function newest() {
  let controller = new AbortController();
  return (path, body) => {
    controller.abort();
    controller = new AbortController();
    return ask(path, body, controller.signal);
  };
}

/** Numbers that JavaScript cannot hold, such as long ids, stay as they are written. */
function parsed(text) {
  const exact = (_, value, context) =>
    typeof value === "number" && Number.isInteger(value) && !Number.isSafeInteger(value)
      ? context?.source ?? value : value;
  try {
    return JSON.parse(text, exact);
  } catch {
    return null;
  }
}
