// Charts with axes, in SVG. Their numbers are in the page's text and tables, too.

const WIDTH = 600;
const HEIGHT = 200;
const [LEFT, RIGHT, TOP, BOTTOM] = [56, 8, 10, 26];
const PLOT = { width: WIDTH - LEFT - RIGHT, height: HEIGHT - TOP - BOTTOM };

function svg(name, attributes, text) {
  const created = document.createElementNS('http://www.w3.org/2000/svg', name);
  for (const [key, value] of Object.entries(attributes)) created.setAttribute(key, value);
  if (text !== undefined) created.textContent = text;
  return created;
}

/** The least of 1, 2 and 5 times a power of ten so that at most four of them cover this. */
export function stepOf(most) {
  const rough = Math.max(most, 1) / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((value) => value >= rough);
  return Math.max(1, step); // everything here is counted in whole things
}

/** The ticks from the least to the most: whole steps that cover them, and zero. */
export function ticksOf(least, most) {
  const step = stepOf(most - Math.min(0, least));
  const [first, last] = [Math.floor(Math.min(0, least) / step), Math.max(1, Math.ceil(most / step))];
  return Array.from({ length: last - first + 1 }, (_, index) => (first + index) * step);
}

/** Draws bars, one for each `{ label, value, title }`, on axes; the values are in `unit`. */
export function drawBars(place, name, unit, bars) {
  const values = bars.map((bar) => bar.value);
  const ticks = ticksOf(Math.min(0, ...values), Math.max(0, ...values));
  const [low, high] = [ticks[0], ticks.at(-1)];
  const y = (value) => TOP + ((high - value) / (high - low)) * PLOT.height;
  const chart = svg('svg', { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: 'img', 'aria-label': name });
  for (const tick of ticks) {
    chart.append(
      svg('line', { class: tick ? 'grid' : 'axis', x1: LEFT, x2: WIDTH - RIGHT, y1: y(tick), y2: y(tick) }),
      svg('text', { class: 'tick', x: LEFT - 6, y: y(tick) + 4, 'text-anchor': 'end' }, String(tick)),
    );
  }
  chart.append(svg('text', { class: 'unit', x: 2, y: HEIGHT - 8 }, unit));
  const width = PLOT.width / Math.max(1, bars.length);
  const labelled = Math.ceil(bars.length / 7);
  bars.forEach(({ label, value, title }, index) => {
    const x = LEFT + index * width;
    const gap = Math.min(2, width / 8);
    const bar = svg('rect', { x: x + gap, width: width - 2 * gap, y: Math.min(y(value), y(0)), height: Math.abs(y(value) - y(0)) });
    bar.append(svg('title', {}, title));
    chart.append(bar);
    if (index % labelled === 0) chart.append(svg('text', { class: 'tick', x: x + width / 2, y: HEIGHT - 8, 'text-anchor': 'middle' }, label));
  });
  place.replaceChildren(chart);
}
