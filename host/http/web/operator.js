// The operator's page: an overview, refreshed every few seconds; the history from the ledger; a search
// over leases; and what the operator does, after a confirmation.
import { $, WORK_MS, ask, element, formatDuration, poll } from '/shared.js';
import { drawBars } from '/charts.js';

const REFRESH_MS = 5000;
const HISTORY_MS = 60000;
const PAGE = 50;
const SALES = {
  open: { shown: 'Everything is sold.', confirm: 'Sell new pods again?' },
  paused: { shown: 'Sales are paused: no new pods are sold.', confirm: 'Pause sales? Orders for new pods are refused until you resume.' },
  draining: { shown: 'The service is draining: nothing is sold.', confirm: 'Drain the service? All orders are refused until you resume, also those for more time.' },
};
let token;
let after = null; // the place of the page of leases that is shown
let next = null;
const failures = new Map();

$('login').addEventListener('submit', async (event) => {
  event.preventDefault();
  token = $('operator-token').value.trim();
  if (await show() && !$('login').hidden) {
    $('operator-token').value = '';
    $('login').hidden = true;
    $('view').hidden = false;
    await Promise.all([showHistory(), showLeases()]);
    poll(show, REFRESH_MS);
    poll(showHistory, HISTORY_MS);
  }
});
$('days').addEventListener('change', showHistory);
$('search').addEventListener('submit', (event) => {
  event.preventDefault();
  showPage(null);
});
$('first-page').addEventListener('click', () => showPage(null));
$('next-page').addEventListener('click', () => showPage(next));
for (const button of document.querySelectorAll('[data-sales]')) {
  button.addEventListener('click', () => setSales(button.dataset.sales));
}

/** Runs this, and shows why it failed until the same succeeds; whether it did not. */
async function attempt(what, action) {
  try {
    await action();
    failures.delete(what);
  } catch (error) {
    failures.set(what, error.message);
  }
  $('alert').hidden = !failures.size;
  $('alert').textContent = [...new Set(failures.values())].join(' ');
  return !failures.has(what);
}

function show() {
  return attempt('overview', async () => {
    const [all, { sales }] = await Promise.all([
      ask('/operator/overview', { bearer: token }),
      ask('/operator/sales', { bearer: token }),
    ]);
    draw(all);
    drawSales(sales);
  });
}

function drawSales(sales) {
  $('sales').textContent = SALES[sales].shown;
  for (const button of document.querySelectorAll('[data-sales]')) button.disabled = button.dataset.sales === sales;
}

function setSales(sales) {
  if (!confirm(SALES[sales].confirm)) return;
  attempt('sales', async () => drawSales((await ask('/operator/sales', { method: 'POST', bearer: token, body: { sales } })).sales));
}

function showHistory() {
  return attempt('history', async () => drawHistory(await ask(`/operator/history?days=${$('days').value}`, { bearer: token })));
}

function showPage(place) {
  after = place;
  return showLeases();
}

function showLeases() {
  return attempt('leases', async () => {
    const query = new URLSearchParams({ state: $('search-state').value, limit: PAGE });
    const wanted = [['q', $('search-text').value.trim()], ['tier', $('search-tier').value.trim()], ['after', after]];
    for (const [name, value] of wanted) if (value) query.set(name, value);
    const page = await ask(`/operator/leases?${query}`, { bearer: token });
    next = page.next;
    drawLeases(page.leases);
    $('first-page').hidden = !after;
    $('next-page').hidden = !next;
  });
}

function endLease(pod) {
  if (!confirm(`End ${pod}? All data in it will be lost, and what is left of it is paid back.`)) return;
  attempt('end', async () => {
    const ended = await ask(`/operator/leases/${encodeURIComponent(pod)}`, { method: 'DELETE', bearer: token, ms: WORK_MS, remedy: 'Search for it: it may have ended.' });
    $('done').textContent = `${ended.pod_name} has ended; due to its customers: ${ended.refunded_sats} sat, and the mint's fees where you bear them.`;
    await showLeases();
  });
}

/** A cell with a text, or with an element. */
function cell(value, kind) {
  const created = element('td', '', { class: kind });
  created.append(value === null || value === undefined ? '–' : value instanceof Node ? value : String(value));
  return created;
}

function table(id, caption, columns, rows) {
  const head = element('tr');
  head.append(...columns.map(([name, kind]) => element('th', name, { scope: 'col', class: kind || '' })));
  const body = rows.map((row) => {
    const line = element('tr');
    line.append(...row.map((value, index) => cell(value, columns[index][1] || '')));
    return line;
  });
  const [thead, tbody] = [element('thead'), element('tbody')];
  thead.append(head);
  tbody.append(...body);
  $(id).replaceChildren(element('caption', rows.length ? caption : `${caption}: none`), thead, tbody);
}

function tile(name, value) {
  const card = element('div', '', { class: 'card' });
  const line = element('p');
  line.append(element('strong', value), name);
  card.append(line);
  return card;
}

/** By the day, the newest last. */
function byDay(hours) {
  const days = new Map();
  for (const { from, orders, earned_sats: sats } of hours) {
    const day = days.get(from.slice(0, 10)) || { orders: 0, sats: 0 };
    days.set(from.slice(0, 10), { orders: day.orders + orders, sats: day.sats + sats });
  }
  return [...days];
}

function drawHistory({ hours }) {
  const time = (from) => `${from.slice(0, 10)} ${from.slice(11, 16)} UTC`;
  drawBars($('leases-chart'), 'Pods in each hour', 'pods', hours.map(({ from, leases, leases_begun: begun }) => (
    { label: hours.length > 48 ? from.slice(5, 10) : from.slice(11, 16), value: leases, title: `${time(from)}: ${leases} pods, ${begun} of them new` })));
  const most = hours.reduce((best, hour) => (hour.leases > best.leases ? hour : best));
  $('leases-summary').textContent = `Most: ${most.leases} pods in the hour from ${time(most.from)}.`;
  const days = byDay(hours);
  drawBars($('revenue-chart'), 'Revenue in each day', 'sat', days.map(([date, day]) => (
    { label: date.slice(5), value: day.sats, title: `${date}: ${day.sats} sat, ${day.orders} orders` })));
  const [best] = [...days].sort(([, a], [, b]) => b.sats - a.sats);
  $('revenue-summary').textContent = `Last ${$('days').value} days, in UTC; highest: ${best[1].sats} sat on ${best[0]}.`;
  table('revenue', 'Revenue per day', [['Day'], ['Orders', 'number'], ['Sats', 'number']], days.map(([date, day]) => [date, day.orders, day.sats]));
}

function drawLeases(leases) {
  const now = Date.now();
  const left = (lease) => (lease.status !== 'ended' && lease.expires_at ? formatDuration((Date.parse(lease.expires_at) - now) / 1000) : null);
  const end = (lease) => {
    if (lease.status !== 'running' || lease.end_reason) return lease.end_reason;
    const button = element('button', 'End', { type: 'button', class: 'second', 'aria-label': `End ${lease.pod_name}` });
    button.addEventListener('click', () => endLease(lease.pod_name));
    return button;
  };
  table('leases', 'Leases, the newest first', [['Pod'], ['Status'], ['Tier'], ['Image'], ['Port', 'number'], ['Left', 'number'], ['Customer'], ['End']],
    leases.map((lease) => [lease.pod_name, lease.status, lease.tier, lease.image, lease.port, left(lease), `${lease.customer.slice(0, 20)}…`, end(lease)]));
}

function draw(all) {
  const share = all.capacity ? all.ports_in_use / all.capacity : 0;
  const today = all.now.slice(0, 10);
  const income = all.income.filter((hour) => hour.from.startsWith(today)).reduce((sum, hour) => sum + hour.earned_sats, 0);
  const balance = all.mints.reduce((sum, mint) => sum + mint.held_sats, 0);
  $('tiles').replaceChildren(
    tile('leases', String(all.leases.length)),
    tile('of ports in use', `${(share * 100).toFixed(1)} %`),
    tile('sat today', String(income)),
    tile('sat in the wallet', String(balance)),
  );
  $('warnings').hidden = !all.warnings.length;
  $('warnings').textContent = all.warnings.join(' ');
  $('utilisation').value = share;
  table('policies', 'Statistics since each policy was loaded', [['Slot'], ['SHA-256'], ['Configured'], ['Calls', 'number'], ['Refusals', 'number'], ['Faults', 'number'], ['p50 ≤ µs', 'number'], ['p99 ≤ µs', 'number']],
    all.policies.map((policy) => [policy.slot, policy.digest.slice(0, 16), policy.configured, policy.calls, policy.refusals, policy.faults, policy.p50_us, policy.p99_us]));
  table('mints', 'Accepted mints, and mints with a balance', [['Mint'], ['Accepted'], ['Balance, sat', 'number'], ['Latency, ms', 'number'], ['Health']],
    all.mints.map((mint) => [mint.mint, mint.accepted ? 'yes' : 'no', mint.held_sats, mint.answered_in_ms, mint.fault || 'ok']));
  $('as-of').textContent = `As of ${all.now}`;
}
