// The customer's page: buy, watch, log in, add time, stop. Every rule is the service's; this only asks.
import { $, Problem, ask, copy, element, events, reveal, spell } from '/shared.js';

const STAGES = { received: 'Order written down', redeemed: 'Token redeemed', scheduled: 'Node found', pulling: 'Image being fetched', ready: 'Ready' };
const cards = new Map();
let terminal;

// ── The key: whoever shows it has the pods that it bought.

function newKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(32));
  return `pg_${btoa(String.fromCharCode(...bytes)).replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '')}`;
}

let key = localStorage.getItem('paygress.key') || newKey();
keep(key);

function keep(text) {
  key = text;
  localStorage.setItem('paygress.key', key);
  $('key').value = key;
}

// ── Telling

function complain(error) {
  $('alert').hidden = !error;
  $('alert').textContent = error ? error.message : '';
}

async function busy(button, work) {
  button.disabled = true;
  complain();
  try {
    await work();
  } catch (error) {
    complain(error);
    // What was paid and comes back is shown with its pod.
    if (error.body?.refund_token && error.body.pod_name) await settle(error.body.pod_name).catch(complain);
  } finally {
    button.disabled = false;
  }
}

// ── What is for sale

function wishes() {
  const form = new FormData($('buy'));
  const wanted = { duration_minutes: Number($('minutes').value) || undefined };
  if (form.get('tier')) wanted.tier = form.get('tier');
  if ($('username').value.trim()) wanted.ssh_username = $('username').value.trim();
  if ($('image').value.trim()) wanted.pod_image = $('image').value.trim();
  return wanted;
}

async function showOffers() {
  const offer = await ask('/offers');
  $('mints').textContent = offer.whitelisted_mints.join(', ');
  $('tiers').replaceChildren(...offer.pod_specs.map((spec, index) => {
    const radio = element('input', '', { type: 'radio', name: 'tier', value: spec.id });
    radio.checked = index === 0;
    const told = element('span');
    told.append(element('strong', spec.name), element('span', `${spec.cpu_millicores / 1000} CPU, ${spec.memory_mb} MiB`));
    const label = element('label', '', { class: 'tier' });
    label.append(radio, told);
    return label;
  }));
}

/** An order without a token says what it costs: the price is the policy's own. */
async function quote(order) {
  try {
    await ask('/spawn-pod', { method: 'POST', bearer: key, body: order });
  } catch (error) {
    if (error.status === 402) return error.body;
    throw error;
  }
  throw new Error('the service sold something for nothing');
}

let asking = 0;
let scanning = false;
async function showPrice() {
  const mine = ++asking;
  $('pay').disabled = true;
  try {
    const price = await quote(wishes());
    if (mine !== asking) return;
    $('price').textContent = `${price.amount} ${price.unit} for ${spell(price.duration_seconds)}`;
    $('pay').disabled = false;
    if (scanning) showRequest(price);
    complain();
  } catch (error) {
    if (mine !== asking) return;
    $('price').textContent = error.message;
    $('request').hidden = true;
  }
}

let pause;
function priceSoon() {
  clearTimeout(pause);
  pause = setTimeout(showPrice, 250);
}

// ── Buying

$('buy').addEventListener('input', (event) => { if (event.target.id !== 'token') priceSoon(); });
$('buy').addEventListener('submit', (event) => {
  event.preventDefault();
  busy($('pay'), async () => {
    const order = { ...wishes(), cashu_token: $('token').value.trim() };
    if (!order.cashu_token) throw new Error('Paste a Cashu token first, or have a wallet scan a request.');
    showStage('received');
    let taken;
    try {
      taken = await ask('/spawn-pod', { method: 'POST', bearer: key, body: order, headers: { prefer: 'respond-async' } });
    } catch (error) {
      $('progress').hidden = true;
      throw error;
    }
    $('token').value = '';
    await watch(taken.pod_name);
  });
});

function showRequest(price) {
  $('qr').src = `/qr.svg?text=${encodeURIComponent(price.payment_request)}`;
  $('creq').value = price.payment_request;
  $('request').hidden = false;
}

$('scan').addEventListener('click', () => {
  scanning = !scanning;
  $('scan').setAttribute('aria-expanded', String(scanning));
  if (scanning) busy($('scan'), showPrice);
  else $('request').hidden = true;
});
$('copy-creq').addEventListener('click', () => copy($('copy-creq'), $('creq').value));

// ── Progress

function showStage(stage, told = '') {
  const names = Object.keys(STAGES);
  const at = names.indexOf(stage);
  $('progress').hidden = false;
  $('stages').replaceChildren(...names.map((name, index) => {
    const item = element('li', STAGES[name]);
    if (index < at || stage === 'ready') item.className = 'done';
    if (name === stage && stage !== 'ready') item.setAttribute('aria-current', 'step');
    return item;
  }));
  $('stage-now').textContent = told || (at >= 0 ? `${STAGES[stage]}.` : '');
}

const watched = new Set();

/** Follows a pod from its order to its end. */
async function watch(pod) {
  if (watched.has(pod)) return;
  watched.add(pod);
  let ready;
  const isReady = new Promise((resolve) => { ready = resolve; });
  (async () => {
    for (;;) {
      try {
        for await (const event of events(`/pods/${encodeURIComponent(pod)}/events`, key)) {
          await onStage(pod, event);
          if (['ready', 'refused', 'refunded', 'ended'].includes(event.stage)) ready();
          if (['refused', 'refunded', 'ended'].includes(event.stage)) return;
        }
      } catch (error) {
        // Too many are being watched already: the others are asked for now and then.
        if (error instanceof Problem && [401, 403, 404, 429].includes(error.status)) {
          if (error.status === 429) watched.delete(pod);
          return ready();
        }
      }
      // The service was away for a moment.
      await new Promise((resolve) => { setTimeout(resolve, 2000); });
    }
  })();
  await isReady;
}

async function onStage(pod, event) {
  if (!cards.has(pod)) showStage(event.stage, event.message);
  if (event.stage === 'refused' || event.stage === 'refunded') {
    $('progress').hidden = true;
    complain(new Error(event.message || 'the order did not go through'));
  }
  if (event.stage !== 'refused' && ['ready', 'expiring', 'ended', 'refunded'].includes(event.stage)) await showPods();
  if (['ended', 'refunded'].includes(event.stage)) await settle(pod);
}

/** Shows how a pod ended, and what comes back, as soon as it is made. */
async function settle(pod) {
  for (let tries = 0; tries < 150; tries += 1) {
    const status = await ask(`/pods/${encodeURIComponent(pod)}`, { bearer: key });
    if (!cards.has(pod)) makeCard(pod);
    fill(status);
    if (!status.refund_pending) return;
    await new Promise((resolve) => { setTimeout(resolve, 2000); });
  }
}

// ── Pods

async function showPods() {
  const { pods } = await ask('/pods', { bearer: key });
  for (const pod of pods) {
    if (!cards.has(pod.pod_name)) makeCard(pod.pod_name);
    fill(pod);
    if (pod.status !== 'ended') watch(pod.pod_name);
  }
}

async function refresh(pod) {
  fill(await ask(`/pods/${encodeURIComponent(pod)}`, { bearer: key }));
}

function makeCard(pod) {
  if (!cards.size) $('pods').replaceChildren();
  const card = $('pod-card').content.cloneNode(true).querySelector('article');
  const part = (name) => card.querySelector(`.${name}`);
  part('pod-name').textContent = pod;
  card.setAttribute('aria-label', pod);
  card.dataset.pod = pod;
  reveal(part('show-password'), part('password'));
  part('copy-ssh').addEventListener('click', () => copy(part('copy-ssh'), part('ssh').value));
  part('open-terminal').addEventListener('click', () => busy(part('open-terminal'), () => openTerminal(pod)));
  part('stop').addEventListener('click', () => busy(part('stop'), async () => {
    if (!confirm(`Stop ${pod}? Everything in it is lost.`)) return;
    const stopped = await ask(`/pods/${encodeURIComponent(pod)}`, { method: 'DELETE', bearer: key });
    part('pod-said').textContent = stopped.message;
    await settle(pod);
  }));
  part('top-up').addEventListener('submit', (event) => {
    event.preventDefault();
    const field = part('top-up-token');
    busy(event.submitter, async () => {
      const body = { pod_name: pod, cashu_token: field.value.trim() };
      const said = await ask('/top-up-pod', { method: 'POST', bearer: key, body });
      field.value = '';
      part('pod-said').textContent = said.message;
      await refresh(pod);
    });
  });
  cards.set(pod, { card, part });
  $('pods').append(card);
}

function fill(pod) {
  const { card, part } = cards.get(pod.pod_name);
  const over = pod.status === 'ended';
  card.dataset.expires = over ? '' : pod.expires_at || '';
  part('pod-status').textContent = pod.status;
  part('pod-status').classList.toggle('over', over);
  for (const name of ['actions', 'more']) part(name).hidden = pod.status !== 'running';
  part('login').hidden = pod.status !== 'running';
  if (over) part('pod-left').textContent = '';
  if (pod.refund_token) {
    part('refund').hidden = false;
    part('refund-token').value = pod.refund_tokens.join('\n');
  }
  if (pod.status === 'running' && !part('ssh').value) {
    part('ssh').value = `ssh -p ${pod.ssh_port} ${pod.ssh_username}@${pod.ssh_host}`;
    ask(`/pods/${encodeURIComponent(pod.pod_name)}/access`, { bearer: key })
      .then((access) => { part('password').value = access.ssh_password; }, complain);
  }
}

setInterval(() => {
  for (const { card, part } of cards.values()) {
    if (!card.dataset.expires) continue;
    part('pod-left').textContent = `${spell((Date.parse(card.dataset.expires) - Date.now()) / 1000)} left`;
  }
}, 1000);

// A wallet may have paid: its pod shows up by itself.
setInterval(() => { if (!$('request').hidden && !document.hidden) showPods().catch(() => {}); }, 2000);

// What is not watched is looked at now and then.
setInterval(async () => {
  for (const [pod, { card }] of cards) {
    if (card.dataset.expires && !watched.has(pod) && !document.hidden) await refresh(pod).catch(() => {});
  }
}, 15000);

// ── Terminal

function script(path) {
  return new Promise((resolve, reject) => {
    const loaded = element('script', '', { src: path });
    loaded.addEventListener('load', resolve);
    loaded.addEventListener('error', () => reject(new Error('this build of the page has no terminal; use ssh')));
    document.head.append(loaded);
  });
}

async function openTerminal(pod) {
  if (!window.Terminal) {
    document.head.append(element('link', '', { rel: 'stylesheet', href: '/lib/xterm.css' }));
    await script('/lib/xterm.js');
    await script('/lib/addon-fit.js');
  }
  terminal?.close();
  $('shell').hidden = false;
  $('screen').replaceChildren();
  $('shell-title').textContent = `Terminal: ${pod}`;
  const screen = new window.Terminal({ cursorBlink: true, screenReaderMode: true, fontSize: 14 });
  const fit = new window.FitAddon.FitAddon();
  screen.loadAddon(fit);
  screen.open($('screen'));
  fit.fit();
  const url = new URL(`/pods/${encodeURIComponent(pod)}/terminal`, location.href);
  url.protocol = url.protocol.replace('http', 'ws');
  const socket = new WebSocket(url);
  socket.binaryType = 'arraybuffer';
  const state = (text) => { $('shell-state').textContent = text; };
  const size = () => ({ columns: screen.cols, rows: screen.rows });
  const encoder = new TextEncoder();
  socket.addEventListener('open', () => { socket.send(JSON.stringify({ bearer_token: key, ...size() })); state('connected'); });
  socket.addEventListener('message', (event) => screen.write(new Uint8Array(event.data)));
  socket.addEventListener('close', (event) => state(event.reason || 'closed'));
  screen.onData((text) => {
    const bytes = encoder.encode(text);
    // What is pasted at once goes in pieces that the service takes.
    for (let at = 0; at < bytes.length && socket.readyState === 1; at += 32768) socket.send(bytes.slice(at, at + 32768));
  });
  screen.onResize(() => { if (socket.readyState === 1) socket.send(JSON.stringify(size())); });
  const onResize = () => fit.fit();
  addEventListener('resize', onResize);
  terminal = { close: () => { removeEventListener('resize', onResize); socket.close(); screen.dispose(); } };
  screen.focus();
  $('shell').scrollIntoView({ block: 'nearest' });
}

$('hang-up').addEventListener('click', () => { terminal?.close(); terminal = undefined; $('shell').hidden = true; });

// ── The key, by hand

reveal($('show-key'), $('key'));
$('use-key').addEventListener('click', () => {
  if ($('key').value.length < 32) return complain(new Error('a key has 32 characters at least'));
  keep($('key').value.trim());
  location.reload();
});

ask('/service.json').then(({ name }) => { document.title = name; $('name').textContent = name; }, complain);
showOffers().then(showPrice, complain);
showPods().catch(complain);
