// The pages where requests fail, get no answer, or would take all connections of the browser.
import assert from 'node:assert/strict';
import { EventEmitter, once } from 'node:events';
import { createServer } from 'node:http';

const TIMEOUT_MS = 90_000;
const podNamed = (name) => ({
  pod_name: name,
  status: 'running',
  expires_at: new Date(Date.now() + 3_600_000).toISOString(),
  ssh_host: '127.0.0.1',
  ssh_port: 22,
  ssh_username: 'alice',
});
const loginOf = (name) => ({ ...podNamed(name), ssh_password: `password of ${name}`, receipt: { id: name, created_at: 1, content: '{}' } });

async function open(browser, script) {
  const context = await browser.newContext();
  context.setDefaultTimeout(TIMEOUT_MS);
  const page = await context.newPage();
  await page.addInitScript(script);
  return page;
}

/** A page that polls five times a second and more. */
const openImpatient = (browser) => open(browser, () => {
  const timer = window.setInterval.bind(window);
  window.setInterval = (work, pause) => timer(work, Math.min(pause, 200));
});

/** A customer's pods, at a server of its own, whose event streams stay open, or get this status. The rest is answered by the service at `url`. */
class Pods {
  names = [];
  streams = new Map();
  mostStreams = 0;
  streamStatus = 200;
  changes = new EventEmitter();
  #server = createServer((request, response) => this.#answer(request, response));

  static async listen(url, names) {
    const pods = new Pods();
    Object.assign(pods, { url, names });
    await once(pods.#server.listen(0, '127.0.0.1'), 'listening');
    pods.origin = `http://127.0.0.1:${pods.#server.address().port}`;
    return pods;
  }

  close() {
    this.#server.closeAllConnections();
    this.#server.close();
  }

  async until(condition) {
    const signal = AbortSignal.timeout(TIMEOUT_MS);
    while (!condition()) await once(this.changes, 'change', { signal });
  }

  end(name) {
    this.names = this.names.filter((other) => other !== name);
    this.streams.get(name).end('data: {"stage":"ended"}\n\n');
  }

  async #answer(request, response) {
    let body = '';
    for await (const chunk of request) body += chunk;
    const json = (status, content) => response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(content));
    const [, first, name, last] = request.url.split('/');
    if (request.url === '/pods') return json(200, { pods: this.names.map(podNamed) });
    if (first === 'orders') return this.#order(name, json);
    if (last === 'access') return json(200, loginOf(name));
    if (last === 'events') return this.streamStatus === 200 ? this.#stream(name, response) : json(this.streamStatus, {});
    if (first === 'pods') return json(200, this.names.includes(name) ? podNamed(name) : { pod_name: name, status: 'ended' });
    // The token names the pod, and the order.
    const { cashu_token: bought } = JSON.parse(body || '{}');
    if (bought) return json(202, { state: 'provisioning', pod_name: bought, order_id: bought });
    const passed = ['authorization', 'content-type'].filter((header) => header in request.headers);
    const headers = Object.fromEntries(passed.map((header) => [header, request.headers[header]]));
    const answer = await fetch(`${this.url}${request.url}`, { method: request.method, headers, body: body || undefined });
    response.writeHead(answer.status, { 'content-type': answer.headers.get('content-type') ?? '' });
    response.end(Buffer.from(await answer.arrayBuffer()));
  }

  /** The first answer is that it is being made. */
  #order(name, json) {
    if (this.names.includes(name)) return json(200, { type: 'access_details', ...loginOf(name) });
    this.names.push(name);
    return json(202, { state: 'provisioning', pod_name: name, order_id: name });
  }

  #stream(name, response) {
    if (!this.names.includes(name)) this.names.push(name);
    this.streams.set(name, response);
    this.mostStreams = Math.max(this.mostStreams, this.streams.size);
    response.on('close', () => {
      this.streams.delete(name);
      this.changes.emit('change');
    });
    response.writeHead(200, { 'content-type': 'text/event-stream' }).write('data: {"stage":"ready"}\n\n');
    this.changes.emit('change');
  }
}

async function buy(page, token) {
  await page.getByLabel('Paste a Cashu token').fill(token);
  await page.getByRole('button', { name: 'Buy', exact: true }).click();
}

/** Event streams leave connections for the requests of a customer with many pods. */
export async function assertStreams(browser, url) {
  const pods = await Pods.listen(url, [...'abcdefgh'].map((name) => `ssh-pod-${name.repeat(10)}`));
  const page = await openImpatient(browser);
  await page.goto(pods.origin);
  await page.waitForFunction(() => [...document.querySelectorAll('.password')].filter(({ value }) => value).length === 8);
  await page.getByText('sat for').first().waitFor();
  await pods.until(() => pods.streams.size === 2);
  assert.equal(pods.mostStreams, 2);
  // A pod that is bought has a stream until it is ready, or is polled where there are too many.
  for (const [bought, status] of [['ssh-pod-streamed', 200], ['ssh-pod-polled', 429]]) {
    pods.streamStatus = status;
    await buy(page, bought);
    await page.locator(`article[data-pod=${bought}]`).getByText('running').waitFor();
    await page.waitForFunction(() => document.querySelectorAll('#stages li.done').length === 5);
    await page.locator('#pay:enabled').waitFor();
    await pods.until(() => pods.streams.size === 2);
    assert.equal(pods.mostStreams, 3);
  }
  // One that ends makes room for another.
  pods.streamStatus = 200;
  const [ended, other] = pods.streams.keys();
  pods.end(ended);
  await page.locator(`article[data-pod=${ended}]`).getByText('ended').waitFor();
  await pods.until(() => pods.streams.size === 2 && !pods.streams.has(ended) && pods.streams.has(other));
  assert.equal(pods.mostStreams, 3);
  await page.context().close();
  pods.close();
}

/** Where event streams never open, a pod that is bought is shown, and its end; also where a status gets no answer. */
export async function assertPolls(browser, url) {
  const pods = await Pods.listen(url, []);
  pods.streamStatus = 502;
  const page = await openImpatient(browser);
  await page.goto(pods.origin);
  await page.getByText('sat for').first().waitFor();
  const lost = [];
  await page.route(/\/pods(\/[^/]+)?$/, (route) => {
    lost.push(route.request().url());
    return route.abort();
  }, { times: 1 });
  await buy(page, 'ssh-pod-polled');
  const card = page.locator('article[data-pod=ssh-pod-polled]');
  await card.getByText('running').waitFor();
  await page.locator('#pay:enabled').waitFor();
  assert.equal(await page.locator('#stages li.done').count(), 5);
  assert.equal(await page.getByLabel('Paste a Cashu token').inputValue(), '');
  assert.equal(lost.length, 1);
  assert.ok(await page.locator('#alert').isHidden());
  pods.names = [];
  await card.getByText('ended').waitFor();
  await page.context().close();
  pods.close();
}

/** A login is requested until it is there, one request at a time; a silent event stream is opened again. */
async function assertLogins(page, url, name) {
  let [answers, requests, atOnce, mostAtOnce, streams] = [[], 0, 0, 0, 0];
  await page.route(/\/pods$/, (route) => route.fulfill({ json: { pods: [podNamed(name)] } }));
  await page.route(/\/pods\/[^/]+$/, (route) => route.fulfill({ json: podNamed(name) }));
  await page.route(/\/events$/, () => { streams += 1; });
  await page.route(/\/access$/, async (route) => {
    requests += 1;
    atOnce += 1;
    mostAtOnce = Math.max(mostAtOnce, atOnce);
    await (answers.shift() ?? ((of) => of.abort()))(route);
    atOnce -= 1;
  });
  const fulfill = (answer) => (route) => route.fulfill(answer);
  const { receipt, ...withoutReceipt } = loginOf(name);
  for (const [given, expected] of [
    [[fulfill({ status: 403, json: {} })], 1],
    [[fulfill({ json: withoutReceipt }), fulfill({ json: withoutReceipt })], 2],
    [[fulfill({ json: { ...withoutReceipt, receipt } })], 1],
    [[fulfill({ status: 503, json: {} }), (route) => route.abort(), fulfill({ status: 429, json: {} }), fulfill({ json: withoutReceipt }), fulfill({ json: loginOf(name) })], 5],
  ]) {
    [answers, requests, streams] = [given, 0, 0];
    await page.goto(url);
    // The pauses of both are the same.
    while (requests < expected || streams < expected + 5) await page.waitForRequest(/\/events$/);
    assert.equal(requests, expected);
  }
  assert.equal(mostAtOnce, 1);
  assert.equal(await page.locator('.password').inputValue(), `password of ${name}`);
  await page.getByText('Save the signed receipt').waitFor();
}

/** Whoever gets no answer learns that the same token may be sent again. */
async function assertTopUps(page, name) {
  const bodies = [];
  const answers = [() => {}, (route) => route.abort(), (route) => route.fulfill({ status: 504, body: 'of a proxy' }), (route) => route.fulfill({ json: { type: 'top_up_response', message: 'extended by 60 seconds' } })];
  await page.route('**/top-up-pod', (route) => {
    bodies.push(route.request().postDataJSON());
    return answers[bodies.length - 1](route);
  });
  await page.getByText('Add time').first().click();
  const token = page.locator('.top-up-token');
  await token.fill('cashuBmore');
  for (const reason of ['has not answered for 200 s.', 'cannot be reached, or its answer was lost.', 'returned status 504.']) {
    await page.getByRole('button', { name: 'Add time' }).click();
    await page.locator('#alert', { hasText: `The service ${reason} Send the same token with the same options again` }).waitFor();
    assert.equal(await token.inputValue(), 'cashuBmore');
  }
  // The status after that gets no answer at first.
  const expires = '2099-01-01T00:00:00Z';
  await page.route(/\/pods\/[^/]+$/, (route) => route.fulfill({ json: { ...podNamed(name), expires_at: expires } }));
  await page.route(/\/pods\/[^/]+$/, (route) => route.abort(), { times: 1 });
  await page.getByRole('button', { name: 'Add time' }).click();
  await page.getByText('extended by 60 seconds').waitFor();
  await page.locator(`article[data-expires="${expires}"]`).waitFor();
  assert.ok(await page.locator('#alert').isHidden());
  assert.equal(await token.inputValue(), '');
  assert.deepEqual(bodies, Array(4).fill({ pod_name: name, cashu_token: 'cashuBmore' }));
}

/** A top-up that is only accepted is followed until it is done, or refused. */
async function assertAcceptedTopUps(page, name) {
  const accepted = { state: 'provisioning', pod_name: name, order_id: 'more', message: 'the order is on its way' };
  await page.route('**/top-up-pod', (route) => route.fulfill({ status: 202, json: accepted }));
  const receipt = { id: 'more', created_at: 2, content: '{}' };
  const refund = { refund_token: 'cashuBback', refunded_sats: 7, refund_fee_sats: 0 };
  const status = podNamed(name);
  await page.route(/\/pods\/[^/]+$/, (route) => route.fulfill({ json: status }));
  const answers = [];
  await page.route('**/orders/more', (route) => route.fulfill(answers.shift()));
  const [token, message] = [page.locator('.top-up-token'), page.locator('.pod-message')];
  for (const [last, shown, left] of [
    [{ json: { type: 'top_up_response', message: 'extended by 120 seconds', receipt } }, message.filter({ hasText: 'extended by 120 seconds' }), ''],
    [{ status: 500, json: { detail: 'it ended meanwhile', pod_name: name, order_id: 'more', ...refund } }, page.locator('#alert', { hasText: 'it ended meanwhile' }), 'cashuBmore'],
  ]) {
    answers.push({ status: 202, json: accepted }, { status: 503, json: {} }, last);
    await token.fill('cashuBmore');
    await page.getByRole('button', { name: 'Add time' }).click();
    await shown.waitFor();
    assert.equal(answers.length, 0);
    assert.equal(await token.inputValue(), left);
    assert.equal(await page.locator('.receipt').getAttribute('download'), 'receipt-more.json');
    Object.assign(status, refund, { refund_tokens: ['cashuBback'] });
  }
  await page.waitForFunction(() => document.querySelector('.refund-token').value === 'cashuBback');
}

/** An order whose answer is lost stays in the form. A coupon follows the tier's id, in the price and in the order. */
async function assertOrders(page) {
  const tiers = [];
  const price = { amount: 7, unit: 'sat', duration_seconds: 3600, payment_request: 'creqA' };
  await page.route('**/spawn-pod', (route) => {
    const { tier, cashu_token: token } = route.request().postDataJSON();
    tiers.push(tier);
    return token ? route.abort() : route.fulfill({ status: 402, json: price });
  });
  const tier = await page.locator('input[name=tier]:checked').inputValue();
  await page.getByLabel('Coupon').fill(' CODE ');
  await page.getByText('7 sat for 1 h').waitFor();
  await buy(page, 'cashuBspawn');
  await page.locator('#alert', { hasText: 'the same order' }).waitFor();
  assert.equal(await page.getByLabel('Paste a Cashu token').inputValue(), 'cashuBspawn');
  assert.ok(await page.locator('#progress').isHidden());
  assert.deepEqual(tiers, Array(2).fill(`${tier}+CODE`));
}

/** The next order may be prepared while one is under way: it waits, and nothing that is shown or pasted goes. */
async function assertNextOrders(page, name) {
  await page.route('**/top-up-pod', (route) => route.abort());
  await page.route('**/spawn-pod', (route) => {
    const { cashu_token: token, duration_minutes: minutes } = route.request().postDataJSON();
    if (token) return route.fulfill({ status: 202, json: { state: 'provisioning', pod_name: name, order_id: 'first' } });
    return route.fulfill({ status: 402, json: { amount: 7, unit: 'sat', duration_seconds: 60 * minutes, payment_request: 'creqA' } });
  });
  const ordered = new Promise((resolve) => { page.route('**/orders/first', resolve); });
  await buy(page, 'cashuBfirst');
  const order = await ordered;
  await page.locator('.top-up-token').fill('cashuBmore');
  await page.getByRole('button', { name: 'Add time' }).click();
  await page.locator('#alert', { hasText: 'its answer was lost' }).waitFor();
  await page.getByLabel('Duration in minutes').fill('5');
  await page.getByText('7 sat for 5 min').waitFor();
  assert.ok(await page.locator('#pay').isDisabled());
  assert.match(await page.locator('#alert').textContent(), /its answer was lost/);
  await page.getByLabel('Paste a Cashu token').fill('cashuBnext');
  await order.fulfill({ json: { type: 'access_details', ...loginOf(name) } });
  await page.locator('#pay:enabled').waitFor();
  assert.equal(await page.getByLabel('Paste a Cashu token').inputValue(), 'cashuBnext');
  // Between orders a change takes the message away.
  await page.getByLabel('Duration in minutes').fill('6');
  await page.getByText('7 sat for 6 min').waitFor();
  assert.ok(await page.locator('#alert').isHidden());
}

/** A coupon that the service would refuse for its length, or without a tier, is not sent. */
async function assertCoupons(page, url) {
  const tiers = [];
  await page.route('**/spawn-pod', (route) => {
    tiers.push(route.request().postDataJSON().tier);
    return route.fulfill({ status: 402, json: { amount: tiers.length, unit: 'sat', duration_seconds: 3600, payment_request: 'creqA' } });
  });
  const tier = await page.locator('input[name=tier]:checked').inputValue();
  const most = 192 - `${tier}+`.length;
  const [coupon, price] = [page.getByLabel('Coupon'), page.locator('#price')];
  const fits = 'x'.repeat(most);
  const wide = 'é'.repeat(Math.floor(most / 2) + 1);
  for (const [code, shown] of [
    [`${fits}x`, 'The coupon is too long: with the size it has 193 bytes, of 192 at most.'],
    [fits, '1 sat for 1 h'],
    [wide, `The coupon is too long: with the size it has ${192 - most + 2 * wide.length} bytes, of 192 at most.`],
    ['', '2 sat for 1 h'],
  ]) {
    await coupon.fill(code);
    await price.filter({ hasText: shown }).waitFor();
    assert.equal(await page.locator('#pay').isEnabled(), shown.includes('sat for'));
  }
  await page.route(/\/pods$/, (route) => route.fulfill({ json: { pods: [] } }));
  await page.route('**/offers', (route) => route.fulfill({ json: { pod_specs: [], whitelisted_mints: [] } }));
  await page.goto(url);
  await price.filter({ hasText: '3 sat for 1 h' }).waitFor();
  await coupon.fill('CODE');
  await price.filter({ hasText: 'A coupon needs a size' }).waitFor();
  assert.deepEqual(tiers, [`${tier}+${fits}`, tier, undefined]);
}

export async function assertLostAnswers(browser, url) {
  const page = await open(browser, () => {
    const [timer, limit] = [window.setTimeout.bind(window), AbortSignal.timeout.bind(AbortSignal)];
    // Without the pauses, and without the time that the service may work.
    window.setTimeout = (work, pause) => timer(work, Math.min(pause, 50));
    AbortSignal.timeout = (pause) => limit(pause > 60_000 ? 500 : pause);
  });
  const name = 'ssh-pod-aaaaaaaaaa';
  await assertLogins(page, url, name);
  await page.getByText('sat for').first().waitFor();
  await assertTopUps(page, name);
  await assertAcceptedTopUps(page, name);
  await assertOrders(page);
  await assertNextOrders(page, name);
  await assertCoupons(page, url);
  await page.context().close();
}

/** The operator's page waits for an answer before it requests the next one. */
export async function assertOverviews(browser, url, token) {
  const page = await open(browser, () => {
    const timer = window.setInterval.bind(window);
    window.ticks = 0;
    window.setInterval = (work, pause) => timer(() => {
      window.ticks += 1;
      work();
    }, pause === 5000 ? 50 : pause);
  });
  await page.goto(`${url}/operator`);
  await page.getByLabel('OPERATOR_TOKEN').fill(token);
  await page.getByRole('button', { name: 'Open' }).click();
  await page.locator('#view').waitFor();
  const held = [];
  const overview = '**/operator/overview';
  await new Promise((resolve) => {
    page.route(overview, (route) => {
      held.push(route);
      resolve();
    });
  });
  const ticks = await page.evaluate(() => window.ticks);
  await page.waitForFunction((since) => window.ticks > since + 20, ticks);
  assert.equal(held.length, 1);
  await Promise.all([page.waitForRequest(overview), held[0].continue()]);
  await page.context().close();
}
