// The operator's page: one overview, refreshed every few seconds.
import { $, ask, element, formatDuration } from '/shared.js';

const REFRESH_MS = 5000;
const DAYS = 14;
const samples = [];
let token;

$('login').addEventListener('submit', async (event) => {
  event.preventDefault();
  token = $('operator-token').value.trim();
  if (await show()) {
    $('operator-token').value = '';
    $('login').hidden = true;
    $('view').hidden = false;
    setInterval(show, REFRESH_MS);
  }
});

async function show() {
  try {
    draw(await ask('/operator/overview', { bearer: token }));
    $('alert').hidden = true;
    return true;
  } catch (error) {
    $('alert').hidden = false;
    $('alert').textContent = error.message;
    return false;
  }
}

function table(id, caption, columns, rows) {
  const head = element('tr');
  head.append(...columns.map(([name, kind]) => element('th', name, { scope: 'col', class: kind || '' })));
  const body = rows.map((row) => {
    const line = element('tr');
    line.append(...row.map((value, index) => element('td', value === null ? '–' : String(value), { class: columns[index][1] || '' })));
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

function svg(name, attributes, title) {
  const created = document.createElementNS('http://www.w3.org/2000/svg', name);
  for (const [key, value] of Object.entries(attributes)) created.setAttribute(key, value);
  if (title) {
    const titleElement = document.createElementNS('http://www.w3.org/2000/svg', 'title');
    titleElement.textContent = title;
    created.append(titleElement);
  }
  return created;
}

/** Revenue per day, the newest last, including days without any. */
function byDay(hours, now) {
  const days = new Map();
  for (let back = DAYS - 1; back >= 0; back -= 1) days.set(new Date(now - back * 86400000).toISOString().slice(0, 10), { orders: 0, sats: 0 });
  for (const hour of hours) {
    const day = days.get(hour.from.slice(0, 10));
    if (day) {
      day.orders += hour.orders;
      day.sats += hour.earned_sats;
    }
  }
  return [...days];
}

function drawRevenue(days) {
  const most = Math.max(1, ...days.map(([, day]) => day.sats));
  const width = 600 / days.length;
  $('revenue-chart').replaceChildren(...days.map(([date, day], index) => {
    const height = (Math.max(0, day.sats) / most) * 140; // a day of losses has no bar
    return svg('rect', { x: index * width + 3, y: 150 - height, width: width - 6, height }, `${date}: ${day.sats} sat, ${day.orders} orders`);
  }));
  const [best] = [...days].sort(([, a], [, b]) => b.sats - a.sats);
  $('revenue-summary').textContent = `Last ${DAYS} days; highest: ${best[1].sats} sat on ${best[0]}.`;
  table('revenue', 'Revenue per day', [['Day'], ['Orders', 'number'], ['Sats', 'number']], days.map(([date, day]) => [date, day.orders, day.sats]));
}

function drawUtilisation(share) {
  samples.push(share);
  if (samples.length > 240) samples.shift();
  const line = samples.length > 1 ? samples : [share, share];
  const step = 600 / (line.length - 1);
  const points = line.map((value, index) => `${index ? 'L' : 'M'}${(index * step).toFixed(1)} ${(145 - value * 140).toFixed(1)}`);
  $('utilisation-chart').replaceChildren(svg('path', { d: points.join('') }));
  const percent = (value) => `${(value * 100).toFixed(1)} %`;
  $('utilisation-summary').textContent = `Range since this page was opened: ${percent(Math.min(...samples))} to ${percent(Math.max(...samples))}.`;
}

function draw(all) {
  const now = Date.parse(all.now);
  const share = all.capacity ? all.ports_in_use / all.capacity : 0;
  const days = byDay(all.income, now);
  const balance = all.mints.reduce((sum, mint) => sum + mint.held_sats, 0);
  $('tiles').replaceChildren(
    tile('leases', String(all.leases.length)),
    tile('of ports in use', `${(share * 100).toFixed(1)} %`),
    tile('sat today', String(days.at(-1)[1].sats)),
    tile('sat in the wallet', String(balance)),
  );
  $('warnings').hidden = !all.warnings.length;
  $('warnings').textContent = all.warnings.join(' ');
  $('utilisation').value = share;
  drawUtilisation(share);
  drawRevenue(days);
  const left = (lease) => (lease.expires_at ? formatDuration((Date.parse(lease.expires_at) - now) / 1000) : null);
  table('leases', 'Leases that have not ended', [['Pod'], ['Status'], ['Tier'], ['Image'], ['Port', 'number'], ['Left', 'number'], ['Customer']],
    all.leases.map((lease) => [lease.pod_name, lease.status, lease.tier, lease.image, lease.port, left(lease), `${lease.customer.slice(0, 20)}…`]));
  table('policies', 'Statistics since each policy was loaded', [['Slot'], ['SHA-256'], ['Configured'], ['Calls', 'number'], ['Refusals', 'number'], ['Faults', 'number'], ['p50 ≤ µs', 'number'], ['p99 ≤ µs', 'number']],
    all.policies.map((policy) => [policy.slot, policy.digest.slice(0, 16), policy.configured, policy.calls, policy.refusals, policy.faults, policy.p50_us, policy.p99_us]));
  table('mints', 'Accepted mints, and mints with a balance', [['Mint'], ['Accepted'], ['Balance, sat', 'number'], ['Latency, ms', 'number'], ['Health']],
    all.mints.map((mint) => [mint.mint, mint.accepted ? 'yes' : 'no', mint.held_sats, mint.answered_in_ms, mint.fault || 'ok']));
  $('as-of').textContent = `As of ${all.now}`;
}
