// Shared by both pages.

/** The element with this id. */
export const $ = (id) => document.getElementById(id);

/** How long a request may take that the service answers at once. */
const REQUEST_MS = 60_000;
/** How long one may take that the service works for: it answers an order within 180 s, and a stop within 120 s. */
export const WORK_MS = 200_000;
/** An event stream that sends nothing for so long is over: the service sends a comment every 15 s. */
const SILENCE_MS = 60_000;

/** An error response: problem details as in RFC 9457. */
export class Problem extends Error {
  constructor(status, body, remedy = '') {
    super(body.detail || body.message || `The service returned status ${status}. ${remedy}`);
    this.status = status;
    this.body = body;
  }
}

/** A request without an answer: whether it was done is not known. */
export class NoAnswer extends Error {}

/** Sends a request; returns the JSON of the response, or throws a Problem, or after `ms` NoAnswer, with this remedy. */
export async function ask(path, { bearer, body, ms = REQUEST_MS, remedy = 'Try again in a moment.', ...rest } = {}) {
  const headers = { ...rest.headers };
  if (bearer) headers.authorization = `Bearer ${bearer}`;
  if (body !== undefined) headers['content-type'] = 'application/json';
  let response;
  try {
    response = await fetch(path, { ...rest, headers, body: body === undefined ? undefined : JSON.stringify(body), signal: AbortSignal.timeout(ms) });
    if (response.ok) return await response.json();
  } catch (cause) {
    const reason = cause.name === 'TimeoutError' ? `The service has not answered for ${ms / 1000} s.` : 'The service cannot be reached, or its answer was lost.';
    throw new NoAnswer(`${reason} ${remedy}`, { cause });
  }
  throw new Problem(response.status, await response.json().catch(() => ({})), remedy);
}

/** Does this every `ms`, but never twice at once. What fails is tried again then. */
export function poll(work, ms) {
  let isRunning = false;
  setInterval(async () => {
    if (isRunning) return;
    isRunning = true;
    await work().catch(() => {});
    isRunning = false;
  }, ms);
}

/** Server-sent events with a bearer token, which EventSource cannot send. Ends with the stream. */
export async function* events(path, bearer) {
  const connection = new AbortController();
  let silence;
  const awaitMore = () => {
    clearTimeout(silence);
    silence = setTimeout(() => connection.abort(), SILENCE_MS);
  };
  try {
    awaitMore();
    const response = await fetch(path, { headers: { authorization: `Bearer ${bearer}` }, signal: connection.signal });
    if (!response.ok) throw new Problem(response.status, await response.json().catch(() => ({})));
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = '';
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      awaitMore();
      text += value;
      for (let end = text.indexOf('\n\n'); end >= 0; end = text.indexOf('\n\n')) {
        const data = text.slice(0, end).split('\n').filter((line) => line.startsWith('data:')).map((line) => line.slice(5)).join('\n');
        text = text.slice(end + 2);
        if (data) yield JSON.parse(data);
      }
    }
  } finally {
    clearTimeout(silence);
    // Its reader may have left early: other requests need the connection.
    connection.abort();
  }
}

/** Formats a duration in its two largest units. */
export function formatDuration(seconds) {
  const left = Math.max(0, Math.round(seconds));
  const [days, hours, minutes] = [Math.floor(left / 86400), Math.floor(left / 3600) % 24, Math.floor(left / 60) % 60];
  if (days) return `${days} d ${hours} h`;
  if (hours) return minutes ? `${hours} h ${minutes} min` : `${hours} h`;
  if (minutes) return left % 60 ? `${minutes} min ${left % 60} s` : `${minutes} min`;
  return `${left} s`;
}

/** Creates an element; the text is never parsed as markup. */
export function element(name, text = '', attributes = {}) {
  const created = document.createElement(name);
  created.textContent = text;
  for (const [key, value] of Object.entries(attributes)) created.setAttribute(key, value);
  return created;
}

/** Copies text, and shows the result on the button for a moment. */
export async function copy(button, text) {
  const before = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = 'Copied';
  } catch {
    button.textContent = 'Copy failed';
  }
  setTimeout(() => { button.textContent = before; }, 1500);
}

/** Makes a button show and hide the value of a password field. */
export function reveal(button, field) {
  button.addEventListener('click', () => {
    const hidden = field.type === 'password';
    field.type = hidden ? 'text' : 'password';
    button.textContent = hidden ? 'Hide' : 'Show';
    button.setAttribute('aria-pressed', String(hidden));
  });
}
