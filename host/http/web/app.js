// The customer's page: buy, follow an order, log in, add time, stop. All rules are in the service.
import { $, NoAnswer, Problem, WORK_MS, ask, copy, element, events, poll, reveal, formatDuration } from '/shared.js';
import { offerReceipt, showReceipts, storeReceipt } from '/receipts.js';
import { openTerminal } from '/terminal.js';

const STAGES = { received: 'Order received', redeemed: 'Token redeemed', scheduled: 'Node assigned', pulling: 'Pulling image', ready: 'Ready' };
const WAYS = { 'host-port': 'SSH command', 'jump-host': 'SSH command, by the jump host', iroh: 'SSH command, by iroh (needs the program paygress)' };
/**
 * Event streams at the same time. A browser opens six connections to a host (HTTP/1.1), in all its pages together, and
 * each stream holds one. The last of these is for the pod that is being bought; what has none is polled.
 */
const STREAMS = 3;
/** A tier as it is sent, with the coupon (REQUESTED_TIER_BYTES of the service). */
const TIER_BYTES = 192;
const SAME_ORDER = 'Send the same token with the same options again: that is the same order, and is paid once.';
const cards = new Map();

// ── The bearer token: it that owns the pods bought with it

function newKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(32));
  return `pg_${btoa(String.fromCharCode(...bytes)).replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '')}`;
}

let key = localStorage.getItem('paygress.key') || newKey();
storeKey(key);

function storeKey(text) {
  key = text;
  localStorage.setItem('paygress.key', key);
  $('key').value = key;
}

// ── Messages

function showError(error) {
  $('alert').hidden = !error;
  $('alert').textContent = error ? error.message : '';
}

/** The buttons whose work is under way. */
const working = new Set();

async function busy(button, work) {
  working.add(button);
  button.disabled = true;
  showError();
  try {
    await work();
  } catch (error) {
    showError(error);
    if (error.body?.receipt) storeReceipt(error.body.receipt);
    // A refund is shown on the card of its pod.
    if (error.body?.refund_token && error.body.pod_name) showPod(error.body.pod_name);
  } finally {
    working.delete(button);
    button.disabled = false;
  }
}

const sleep = (ms) => new Promise((resolve) => { setTimeout(resolve, ms); });

/** Whether the same request may have another answer later. The refusal of an order is its answer. */
function isPassing(error) {
  if (error instanceof Problem) return !error.body.order_id && (error.status >= 500 || [408, 409, 429].includes(error.status));
  return error instanceof NoAnswer;
}

/** Tries this less and less often, at last once a minute, until it returns something true; returns that. */
async function untilDone(attempt) {
  for (let pause = 2000; ; pause = Math.min(1.2 * pause, 60000)) {
    const result = await attempt().catch((error) => {
      if (!isPassing(error)) throw error;
    });
    if (result) return result;
    await sleep(pause);
  }
}

/** The answer to an order; fetched, where the order has only been accepted. */
async function answerTo(order) {
  if (order.type) return order;
  return untilDone(async () => {
    const answer = await ask(`/orders/${order.order_id}`, { bearer: key });
    return answer.type && answer;
  });
}

/** Empties the field, unless it has the next token already. */
function clearSent(field, token) {
  if (field.value.trim() === token) field.value = '';
}

const inBackground = new Set();

/** Does this while nothing waits for it, but never twice at once. */
async function background(name, work) {
  if (inBackground.has(name)) return;
  inBackground.add(name);
  try {
    await work();
  } catch (error) {
    showError(error);
  } finally {
    inBackground.delete(name);
  }
}

// ── Offers and prices

function orderFields() {
  const form = new FormData($('buy'));
  const order = { duration_minutes: Number($('minutes').value) || undefined };
  const [tier, coupon] = [form.get('tier') || '', $('coupon').value.trim()];
  if (coupon && !tier) throw new Error('A coupon needs a size, and none is offered now. Leave the coupon out, or load the page again.');
  if (tier) order.tier = coupon ? `${tier}+${coupon}` : tier;
  const { length } = new TextEncoder().encode(order.tier);
  if (length > TIER_BYTES) throw new Error(`The coupon is too long: with the size it has ${length} bytes, of ${TIER_BYTES} at most. Check the coupon.`);
  if ($('username').value.trim()) order.ssh_username = $('username').value.trim();
  if ($('image').value.trim()) order.pod_image = $('image').value.trim();
  if ($('run-image').checked && !$('run-image-field').hidden) order.run = 'image';
  if ($('http-port').value && !$('http-field').hidden) {
    order.http_port = Number($('http-port').value);
    order.http_public = $('http-public').checked;
  }
  if ($('public-key').value.trim()) order.ssh_public_key = $('public-key').value.trim();
  return order;
}

/** Nothing where it is not known. */
function describeRoot(root) {
  if (root === undefined) return '';
  return root ? 'You are root in the pod.' : 'You are not root in the pod.';
}

/** The operator's list, where there is one: suggested in the field, and shown. The service decides what is allowed. */
function showImages(images = []) {
  $('image-list').hidden = !images.length;
  if (images.length) $('image').placeholder = images[0].reference;
  const isImage = ({ reference }) => !reference.endsWith(':*');
  $('images').replaceChildren(...images.filter(isImage).map(({ reference, description = '' }) => (
    element('option', '', { value: reference, label: description || reference }))));
  $('image-names').replaceChildren(...images.map(({ reference, description }) => {
    const item = element('li');
    item.append(element('code', reference), description ? ` ${description}` : '');
    return item;
  }));
}

async function showOffers() {
  const offer = await ask('/offers');
  showImages(offer.images);
  $('mints').textContent = offer.whitelisted_mints.join(', ');
  $('root').textContent = describeRoot(offer.root);
  $('run-image-field').hidden = !offer.run_image;
  $('http-field').hidden = !offer.http_ports;
  $('terminal-help').hidden = Boolean(offer.access) && !offer.access.some(({ type }) => type === 'host-port');
  $('tiers').replaceChildren(...offer.pod_specs.map((spec, index) => {
    const radio = element('input', '', { type: 'radio', name: 'tier', value: spec.id });
    radio.checked = index === 0;
    const summary = element('span');
    summary.append(element('strong', spec.name), element('span', `${spec.cpu_millicores / 1000} CPU, ${spec.memory_mb} MiB`), element('span', spec.description, { class: 'quiet' }));
    const label = element('label', '', { class: 'tier' });
    label.append(radio, summary);
    return label;
  }));
}

/** The service answers an order without a token with its price. */
async function quote(order) {
  try {
    await ask('/spawn-pod', { method: 'POST', bearer: key, body: order });
  } catch (error) {
    if (error.status === 402) return error.body;
    throw error;
  }
  throw new Error('The service accepted an order without a payment.');
}

let latestQuote = 0;
let requestOpen = false;

/** Opens or closes the payment request for wallets. */
function setRequestOpen(open, price) {
  requestOpen = open;
  $('scan').setAttribute('aria-expanded', String(open));
  $('request').hidden = !(open && price);
  if (open && price) {
    $('qr').src = `/qr.svg?text=${encodeURIComponent(price.payment_request)}`;
    $('creq').value = price.payment_request;
  }
}

async function showPrice() {
  const mine = ++latestQuote;
  $('pay').disabled = true;
  try {
    const price = await quote(orderFields());
    if (mine !== latestQuote) return;
    $('price').textContent = `${price.amount} ${price.unit} for ${formatDuration(price.duration_seconds)}`;
    $('pay').disabled = working.has($('pay'));
    if (requestOpen) setRequestOpen(true, price);
  } catch (error) {
    if (mine !== latestQuote) return;
    $('price').textContent = error.message;
    setRequestOpen(false);
  }
}

let priceTimer;
function schedulePrice() {
  clearTimeout(priceTimer);
  if (!working.has($('pay'))) showError();
  priceTimer = setTimeout(showPrice, 250);
}

// ── Buying

$('buy').addEventListener('input', (event) => { if (event.target.id !== 'token') schedulePrice(); });
$('buy').addEventListener('submit', (event) => {
  event.preventDefault();
  busy($('pay'), async () => {
    const order = { ...orderFields(), cashu_token: $('token').value.trim() };
    if (!order.cashu_token) throw new Error('Paste a Cashu token, or pay the payment request with a wallet.');
    showStage('received');
    try {
      const accepted = await ask('/spawn-pod', { method: 'POST', bearer: key, body: order, headers: { prefer: 'respond-async' }, ms: WORK_MS, remedy: SAME_ORDER });
      // Only shows how far it is: there may be no stream.
      watch(accepted.pod_name);
      await answerTo(accepted);
      clearSent($('token'), order.cashu_token);
      showStage('ready');
      showPod(accepted.pod_name);
    } catch (error) {
      $('progress').hidden = true;
      throw error;
    }
  });
});

$('scan').addEventListener('click', () => {
  setRequestOpen(!requestOpen);
  if (requestOpen) busy($('scan'), showPrice);
});
$('copy-creq').addEventListener('click', () => copy($('copy-creq'), $('creq').value));

// ── Progress

function showStage(stage, message = '') {
  const names = Object.keys(STAGES);
  const at = names.indexOf(stage);
  $('progress').hidden = false;
  $('stages').replaceChildren(...names.map((name, index) => {
    const item = element('li', STAGES[name]);
    if (index < at || stage === 'ready') item.className = 'done';
    if (name === stage && stage !== 'ready') item.setAttribute('aria-current', 'step');
    return item;
  }));
  $('stage-now').textContent = message || (at >= 0 ? `${STAGES[stage]}.` : '');
}

/** The pods with an event stream, and whether it has sent something since it was opened. */
const watched = new Map();

/** Follows the events of a pod until it ends, or until it can only be polled. */
function watch(pod) {
  if (watched.has(pod) || watched.size >= STREAMS) return;
  watched.set(pod, false);
  follow(pod).finally(() => watched.delete(pod));
}

async function follow(pod) {
  for (;;) {
    try {
      for await (const event of events(`/pods/${encodeURIComponent(pod)}/events`, key)) {
        watched.set(pod, true);
        await onStage(pod, event);
        const isReady = ['ready', 'expiring'].includes(event.stage);
        const isOver = ['refused', 'refunded', 'ended'].includes(event.stage);
        // The last stream is for the next pod that is bought.
        if (isOver || (isReady && watched.size >= STREAMS)) return;
      }
    } catch (error) {
      // 429: too many event streams are open, of other pages too.
      if (error instanceof Problem && [401, 403, 404, 429].includes(error.status)) return;
    }
    watched.set(pod, false);
    // The service is unavailable for a moment.
    await sleep(2000);
  }
}

async function onStage(pod, event) {
  if (!cards.has(pod)) showStage(event.stage, event.message);
  if (event.stage === 'refused' || event.stage === 'refunded') {
    $('progress').hidden = true;
    showError(new Error(event.message || 'The order failed.'));
  }
  if (event.stage !== 'refused' && ['ready', 'expiring', 'ended', 'refunded'].includes(event.stage)) await showPods();
  if (['ended', 'refunded'].includes(event.stage)) showPod(pod);
}

/** Shows a pod, and each of its refunds as soon as it is there, which may be in days. */
function showPod(pod) {
  return background(`status of ${pod}`, () => untilDone(async () => {
    const status = await ask(`/pods/${encodeURIComponent(pod)}`, { bearer: key });
    if (!cards.has(pod)) makeCard(pod);
    fillCard(status);
    return !status.refund_pending;
  }));
}

// ── Pods

/** Shows the pods that are listed; returns their names. */
async function showPods() {
  const { pods } = await ask('/pods', { bearer: key });
  for (const pod of pods) {
    if (!cards.has(pod.pod_name)) makeCard(pod.pod_name);
    fillCard(pod);
    if (pod.status === 'ended') {
      if (pod.refund_pending) showPod(pod.pod_name);
    } else if (watched.size < STREAMS - 1) watch(pod.pod_name);
  }
  return pods.map((pod) => pod.pod_name);
}

async function refresh(pod) {
  fillCard(await ask(`/pods/${encodeURIComponent(pod)}`, { bearer: key }));
}

/** With a link of its own each time: it logs this browser in, once. */
async function openHttp(pod) {
  const status = await ask(`/pods/${encodeURIComponent(pod)}`, { bearer: key });
  if (!status.http_url) throw new Error('This pod has no website any more.');
  window.open(status.http_login_url || status.http_url, '_blank', 'noopener,noreferrer');
}

function makeCard(pod) {
  if (!cards.size) $('pods').replaceChildren();
  const card = $('pod-card').content.cloneNode(true).querySelector('article');
  const part = (name) => card.querySelector(`.${name}`);
  part('pod-name').textContent = pod;
  card.setAttribute('aria-label', pod);
  card.dataset.pod = pod;
  reveal(part('show-password'), part('password'));
  part('copy-known-hosts').addEventListener('click', () => copy(part('copy-known-hosts'), part('known-hosts').value));
  part('open-terminal').addEventListener('click', () => busy(part('open-terminal'), () => openTerminal(pod, key)));
  part('open-http').addEventListener('click', () => busy(part('open-http'), () => openHttp(pod)));
  part('stop').addEventListener('click', () => busy(part('stop'), async () => {
    if (!confirm(`Stop ${pod}? All data in it will be lost.`)) return;
    const stopped = await ask(`/pods/${encodeURIComponent(pod)}`, { method: 'DELETE', bearer: key, ms: WORK_MS, remedy: 'Stop it again: the answer is the same.' });
    part('pod-message').textContent = stopped.message;
    offerReceipt(part('receipt'), stopped.receipt);
    showPod(pod);
  }));
  part('top-up').addEventListener('submit', (event) => {
    event.preventDefault();
    const field = part('top-up-token');
    busy(event.submitter, async () => {
      const body = { pod_name: pod, cashu_token: field.value.trim() };
      const extended = await answerTo(await ask('/top-up-pod', { method: 'POST', bearer: key, body, ms: WORK_MS, remedy: SAME_ORDER }));
      clearSent(field, body.cashu_token);
      part('pod-message').textContent = extended.message;
      offerReceipt(part('receipt'), extended.receipt);
      showPod(pod);
    });
  });
  cards.set(pod, { card, part });
  $('pods').append(card);
}

/** Of a pod without a port of the nodes the answers have its name as the host, which only the gateway knows. */
function hasPort(pod) {
  return pod.ssh_host !== pod.pod_name;
}

/** The commands that log in; a page of an older version leaves out ways that it does not know. */
function loginWays(pod) {
  const port = { type: 'host-port', command: `ssh -p ${pod.ssh_port} ${pod.ssh_username}@${pod.ssh_host}` };
  const ways = pod.access || (hasPort(pod) ? [port] : []);
  return ways.filter(({ type }) => type in WAYS);
}

/** Shows them again only where they have changed: somebody may be copying one. */
function fillWays({ card, part }, pod) {
  const ways = loginWays(pod);
  part('without-way').hidden = ways.length > 0;
  const commands = ways.map(({ command }) => command).join('\n');
  if (card.dataset.commands === commands) return;
  card.dataset.commands = commands;
  part('ways').replaceChildren(...ways.map(({ type, command }) => {
    const way = $('pod-way').content.cloneNode(true);
    const [button, field] = [way.querySelector('.copy-ssh'), way.querySelector('.ssh')];
    way.querySelector('.way-name').textContent = WAYS[type];
    field.value = command;
    button.addEventListener('click', () => copy(button, command));
    return way;
  }));
}

function fillCard(pod) {
  const { card, part } = cards.get(pod.pod_name);
  const ended = pod.status === 'ended';
  card.dataset.status = pod.status;
  card.dataset.expires = ended ? '' : pod.expires_at || '';
  part('pod-status').textContent = pod.status;
  part('pod-status').classList.toggle('ended', ended);
  for (const name of ['actions', 'more']) part(name).hidden = pod.status !== 'running';
  const startsNow = pod.status === 'running' && part('login').hidden;
  part('login').hidden = pod.status !== 'running';
  part('open-http').hidden = !pod.http_url;
  if (ended) part('pod-left').textContent = '';
  if (pod.refund_token) {
    part('refund').hidden = false;
    part('refund-token').value = pod.refund_tokens.join('\n');
  }
  part('refund-pending').hidden = !pod.refund_pending;
  if (pod.status === 'running') fillWays({ card, part }, pod);
  if (startsNow) showLogin(pod.pod_name, part);
}

/** Shows the login of a pod that runs. The receipt may follow it, or be off: it is awaited once. */
function showLogin(pod, part) {
  return background(`login of ${pod}`, async () => {
    let answers = 0;
    await untilDone(async () => {
      if (part('login').hidden) return true;
      const access = await ask(`/pods/${encodeURIComponent(pod)}/access`, { bearer: key });
      await fillLogin(part, access);
      answers += 1;
      return Boolean(access.receipt) || answers === 2;
    });
  });
}

async function fillLogin(part, access) {
  offerReceipt(part('receipt'), access.receipt);
  const password = access.ssh_password;
  part('password').value = password || '';
  part('with-password').hidden = !password;
  part('without-password').hidden = Boolean(password);
  // The service logs in with the password, at the pod's port; it does not have the customer's key.
  part('open-terminal').hidden = !password || !hasPort(access);
  part('pod-root').textContent = describeRoot(access.root);
  const ways = access.access || [];
  const lines = [access, ...ways].flatMap(({ known_hosts: known = '' }) => known.split('\n')).filter(Boolean);
  if (!lines.length) return;
  part('known-hosts').value = [...new Set(lines)].join('\n');
  part('identity').hidden = false;
  const jumpHosts = ways.filter(({ type }) => type === 'jump-host');
  part('of-jump-host').hidden = !jumpHosts.length;
  const ofPod = await Promise.all((access.ssh_host_keys || []).map(fingerprint));
  const ofJumpHost = await Promise.all(jumpHosts.map(async ({ host_key: line }) => `of the jump host ${await fingerprint(line)}`));
  part('fingerprints').textContent = [...ofPod, ...ofJumpHost].join(', ');
}

/** As ssh and ssh-keygen -l show a host key. */
async function fingerprint(line) {
  const [kind, data] = line.split(' ');
  // Browsers hash only on pages that nobody on the way can have changed.
  if (!crypto.subtle) return `${kind} (this page was loaded without TLS: do not trust it for host keys)`;
  const bytes = Uint8Array.from(atob(data), (character) => character.charCodeAt(0));
  const hash = new Uint8Array(await crypto.subtle.digest('SHA-256', bytes));
  return `SHA256:${btoa(String.fromCharCode(...hash)).replaceAll('=', '')} (${kind})`;
}

setInterval(() => {
  for (const { card, part } of cards.values()) {
    if (!card.dataset.expires) continue;
    part('pod-left').textContent = `${formatDuration((Date.parse(card.dataset.expires) - Date.now()) / 1000)} left`;
  }
}, 1000);

// A wallet may have paid the open request: look for the new pod.
poll(async () => { if (!$('request').hidden && !document.hidden) await showPods(); }, 2000);

// Pods whose event stream sends nothing, or that have none, are polled.
poll(async () => {
  const polled = [...cards].filter(([pod, { card }]) => card.dataset.status !== 'ended' && !watched.get(pod)).map(([pod]) => pod);
  if (!polled.length || document.hidden) return;
  const listed = await showPods();
  // Those that have ended are not listed.
  for (const pod of polled) if (!listed.includes(pod)) await refresh(pod).catch(() => {});
}, 15000);

// ── Showing and replacing the bearer token

reveal($('show-key'), $('key'));
$('use-key').addEventListener('click', () => {
  if ($('key').value.length < 32) return showError(new Error('A bearer token must have at least 32 characters.'));
  storeKey($('key').value.trim());
  location.reload();
});

ask('/service.json').then(({ name }) => { document.title = name; $('name').textContent = name; }, showError);
showOffers().then(showPrice, showError);
showPods().catch(showError);
showReceipts();
