// A customer in a browser: buys, follows the order, logs in, adds time, stops. And the operator's page.
//
//   URL=… TOKENS=a,b OPERATOR=… SHOTS=directory WALLET=customer.mjs node customer.mjs
//
// WALLET is a program that pays the payment request in its last argument.
// Pods must have the SSH server of SSH_SERVER_IMAGE, and their customers be root.
// Prints the result as one line of JSON.
import assert from 'node:assert/strict';
import axe from 'axe-core';
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { chromium } from 'playwright-core';
import { assertLostAnswers, assertOverviews, assertPolls, assertStreams } from './faults.mjs';

const { URL: url, TOKENS, OPERATOR, SHOTS, WALLET } = process.env;
const [spawn, more] = TOKENS.split(',');
const TIMEOUT_MS = 90_000;

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM || '/usr/bin/chromium',
  args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
});
const context = await browser.newContext({ permissions: ['clipboard-read', 'clipboard-write'] });
context.setDefaultTimeout(TIMEOUT_MS);
const page = await context.newPage();
const errors = [];
const external = [];
page.on('pageerror', (error) => errors.push(String(error)));
page.on('console', (message) => { if (message.type() === 'error' && !/status of 40[12]/.test(message.text())) errors.push(message.text()); });
page.on('request', (request) => { if (![url, `blob:${url}`, 'data:'].some((own) => request.url().startsWith(own))) external.push(request.url()); });
// What may be sent only after a confirmation.
const sent = [];
context.on('request', (request) => {
  const [method, { pathname }] = [request.method(), new URL(request.url())];
  if (method === 'DELETE' || (method === 'POST' && pathname === '/operator/sales')) sent.push(`${method} ${pathname}`);
});
/** Clicks a button that must show this question, first to decline, then to confirm. */
async function confirm(button, question) {
  for (const answer of ['dismiss', 'accept']) {
    const questions = [];
    const onDialog = (dialog) => {
      questions.push(dialog.message());
      return dialog[answer]();
    };
    button.page().on('dialog', onDialog);
    await button.click();
    button.page().off('dialog', onDialog);
    assert.deepEqual(questions, [question]);
  }
}
/** Waits for this, or fails with the error that the page shows in its place. */
async function shown(locator) {
  await locator.or(page.locator('#alert:not([hidden])')).first().waitFor();
  assert.equal(await page.locator('#alert').textContent(), '');
  await locator.waitFor();
}
/** WCAG 2.2, levels A and AA. */
async function assertAccessible(of = page) {
  await of.evaluate(axe.source);
  const { violations } = await of.evaluate(() => window.axe.run(document, { runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa'] }));
  assert.deepEqual(violations.map(({ id, nodes }) => [id, nodes.map((node) => node.html)]), []);
}
/** Pages of leases on the operator's page: the next ones, the first one, and that of another search. */
async function assertPages() {
  const lease = (name) => ({ pod_name: name, status: 'ended', tier: 'basic', image: 'debian', port: null, expires_at: null, customer: 'bearer:0123456789abcdef', end_reason: 'expired' });
  const [first, second, third] = ['ssh-pod-aaaaaaaaaa', 'ssh-pod-bbbbbbbbbb', 'ssh-pod-cccccccccc'];
  const pages = {
    '': { leases: [lease(first)], next: '2.b' },
    '2.b': { leases: [lease(second)], next: '1.c' },
    '1.c': { leases: [lease(third)], next: null },
  };
  const queries = [];
  const ofLeases = /\/operator\/leases\?/;
  await operator.route(ofLeases, (route) => {
    const query = Object.fromEntries(new URL(route.request().url()).searchParams);
    queries.push(query);
    return route.fulfill({ json: pages[query.after ?? ''] });
  });
  await operator.getByLabel('Search').fill('ssh-pod');
  const [firstPage, nextPage] = ['First page', 'Next page'].map((name) => operator.getByRole('button', { name }));
  for (const [button, shown, isFirst, isLast] of [
    ['Search', first, true, false],
    ['Next page', second, false, false],
    ['Next page', third, false, true],
    ['First page', first, true, false],
    ['Next page', second, false, false],
    ['Search', first, true, false],
  ]) {
    await operator.getByRole('button', { name: button }).click();
    await operator.getByRole('cell', { name: shown, exact: true }).waitFor();
    assert.equal(await operator.locator('#leases tbody tr').count(), 1);
    assert.deepEqual([await firstPage.isHidden(), await nextPage.isHidden()], [isFirst, isLast], `${button}: ${shown}`);
  }
  const search = { state: 'current', limit: '50', q: 'ssh-pod' };
  assert.deepEqual(queries, ['', '2.b', '1.c', '', '2.b', ''].map((after) => (after ? { ...search, after } : search)));
  await operator.unroute(ofLeases);
  await operator.getByLabel('Search').fill(pod);
  await operator.getByRole('button', { name: 'Search' }).click();
  await row.waitFor();
}
const shot = (name, of = page) => of.screenshot({ path: `${SHOTS}/${name}.png`, fullPage: true });

await page.goto(url);
// The price comes from the policy, and follows the form.
await page.getByLabel('Duration in minutes').fill('2');
await page.getByText('sat for 2 min').waitFor();
const short = await page.locator('#price').textContent();
await page.getByLabel('Duration in minutes').fill('4');
await page.getByText('sat for 4 min').waitFor();
const long = await page.locator('#price').textContent();
assert.equal(Number.parseInt(long, 10), 2 * Number.parseInt(short, 10));
await page.locator('#root', { hasText: 'You are root in the pod.' }).waitFor();
await page.getByLabel('SSH user name').fill('alice');
// What images may be requested.
const [image] = (await page.evaluate(() => fetch('/offers').then((response) => response.json()))).images;
await page.getByText('Images that may be requested').click();
await page.locator('#image-names').getByText(image.reference).first().waitFor();
assert.equal(await page.locator('#images option').first().getAttribute('value'), image.reference);

// With the keyboard alone.
await page.getByRole('button', { name: 'Or scan a payment request with a wallet' }).press('Enter');
await page.getByAltText('Payment request as a QR code').waitFor();
assert.match(await page.getByLabel('Payment request as text').inputValue(), /^creqA/);
assert.ok(await page.locator('#qr').evaluate((image) => image.decode().then(() => image.naturalWidth > 100)));
await assertAccessible();
await shot('1-shop');
const scan = page.getByRole('button', { name: 'Or scan a payment request with a wallet' });
assert.equal(await scan.getAttribute('aria-expanded'), 'true');
// Without a price there is no request, and the button shows it as closed.
await page.route('**/spawn-pod', (route) => route.fulfill({ status: 401, json: { detail: 'no price now' } }));
await page.getByLabel('Duration in minutes').fill('5');
await page.getByText('no price now').first().waitFor();
assert.equal(await scan.getAttribute('aria-expanded'), 'false');
assert.ok(await page.locator('#request').isHidden());
await page.unroute('**/spawn-pod');
// It opens again, and closes.
await scan.press('Enter');
await page.locator('#request').waitFor();
await scan.press('Enter');
assert.ok(await page.locator('#request').isHidden());

// Buy, and follow the order.
await page.getByLabel('Duration in minutes').fill('1');
await page.getByText('sat for 1 min').waitFor();
await page.getByLabel('Paste a Cashu token').fill(spawn);
await page.getByRole('button', { name: 'Buy', exact: true }).click();
await page.locator('#stages li.done, #stages li[aria-current]').first().waitFor();
await shot('2-progress');
const card = page.locator('article.card');
await card.getByText('running').waitFor();
await card.getByText('left', { exact: false }).first().waitFor();
const ssh = await card.locator('.ssh').inputValue();
const [, port] = ssh.match(/^ssh -p (\d+) alice@/);
await card.getByRole('button', { name: 'Copy', exact: true }).click();
assert.equal(await page.evaluate(() => navigator.clipboard.readText()), ssh);
await card.getByRole('button', { name: 'Show' }).click();
await page.waitForFunction(() => document.querySelector('article.card .password').value.length >= 8);
await card.getByText('You are root in the pod.').waitFor();
// Its host keys are those that its server has, as ssh-keygen shows them, and the page says how to check them.
await card.locator('.identity').waitFor();
const lines = await card.getByLabel('Lines for known_hosts').inputValue();
assert.match(lines, /^\[127\.0\.0\.1\]:\d+ ssh-ed25519 AAAA/);
const ofServer = execFileSync('ssh-keyscan', ['-p', port, '127.0.0.1'], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).split('\n');
for (const line of lines.split('\n')) assert.ok(ofServer.includes(line), `${line} is not in ${ofServer}`);
const [fingerprint] = execFileSync('ssh-keygen', ['-lf', '-'], { input: `${lines}\n`, encoding: 'utf8' }).match(/SHA256:\S+/);
await card.getByText(`${fingerprint} (ssh-ed25519)`).waitFor();
await card.getByText('answer yes only if it is one of these').waitFor();
await card.getByRole('button', { name: 'Copy lines' }).click();
await page.waitForFunction((expected) => navigator.clipboard.readText().then((copied) => copied === expected), lines);
const left = async () => Date.parse(await card.getAttribute('data-expires'));
const firstEnd = await left();
await assertAccessible();
await shot('3-running');

// Another page, of a service whose pods only a jump host leads to, and whose customers are not root.
const gatewayPage = await context.newPage();
const hostKey = 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA==';
const withoutPort = (pod) => ({
  ...pod,
  ssh_host: pod.pod_name,
  ssh_port: 22,
  access: [
    { type: 'jump-host', command: `ssh -J ${pod.pod_name}@g.example:2222 alice@${pod.pod_name}`, host: 'g.example', port: 2222, host_key: hostKey, known_hosts: `[g.example]:2222 ${hostKey}` },
    { type: 'pigeon', command: 'of a later version' },
  ],
});
const answer = (change) => async (route) => {
  const response = await route.fetch();
  await route.fulfill({ response, json: change(await response.json()) });
};
await gatewayPage.route(/\/pods$/, answer(({ pods }) => ({ pods: pods.map(withoutPort) })));
await gatewayPage.route(/\/pods\/[^/]+(\/access)?$/, answer(withoutPort));
await gatewayPage.route(/\/offers$/, answer((offer) => ({ ...offer, root: false, access: [{ type: 'jump-host' }] })));
await gatewayPage.goto(url);
await gatewayPage.locator('#root', { hasText: 'You are not root in the pod.' }).waitFor();
const byGateway = gatewayPage.locator('article.card');
await byGateway.getByText('of the jump host SHA256:').waitFor();
assert.match(await byGateway.locator('.ssh').inputValue(), /^ssh -J (ssh-pod-\w+)@g\.example:2222 alice@\1$/);
assert.ok((await byGateway.getByLabel('Lines for known_hosts').inputValue()).includes(`[g.example]:2222 ${hostKey}`));
assert.ok(await byGateway.locator('.open-terminal').isHidden());
assert.ok(await gatewayPage.locator('#terminal-help').isHidden());
await assertAccessible(gatewayPage);
await shot('3-gateway', gatewayPage);
await gatewayPage.close();

// Another page, with a refund whose mint is away for long: the page polls more and more slowly, and after a reload too.
const refundPage = await context.newPage();
await refundPage.addInitScript(() => {
  const timer = window.setTimeout.bind(window);
  window.pauses = [];
  // Without the pauses.
  window.setTimeout = (work, pause) => { window.pauses.push(pause); return timer(work, 0); };
});
const withRefund = { pod_name: 'ssh-pod-aaaaaaaaaa', status: 'ended', refund_pending: true };
let statusRequests = 0;
await refundPage.route(/\/pods$/, (route) => route.fulfill({ json: { pods: [withRefund] } }));
await refundPage.route(/\/pods\/ssh-pod-aaaaaaaaaa$/, async (route) => {
  statusRequests += 1;
  // Now and then the service is unavailable.
  await route.fulfill(statusRequests % 10 ? { json: withRefund } : { status: 503, json: {} });
});
await refundPage.goto(url);
await refundPage.locator('.refund-pending').waitFor();
await refundPage.waitForFunction(() => window.pauses.filter((pause) => pause === 60000).length > 150);
await refundPage.reload();
await refundPage.waitForFunction(() => window.pauses.includes(60000));
// Nothing waits for it.
await refundPage.getByText('sat for').first().waitFor();
assert.ok(await refundPage.locator('#pay').isEnabled());
Object.assign(withRefund, { refund_pending: false, refund_token: 'cashuB', refund_tokens: ['cashuB'] });
await refundPage.locator('.refund-pending').waitFor({ state: 'hidden' });
assert.equal(await refundPage.locator('.refund-token').inputValue(), 'cashuB');
await refundPage.close();

// Log in with the page's terminal.
await card.getByRole('button', { name: 'Terminal' }).click();
await page.getByText('connected').waitFor();
await page.locator('.xterm').click();
await page.keyboard.type('echo "user is $USER, $((6 * 7))"\n');
await page.locator('.xterm-accessibility').getByText('user is alice, 42').first().waitFor();
await shot('4-terminal');

// Add time: the terminal stays open.
await card.getByText('Add time').first().click();
await card.getByLabel('Cashu token').fill(more);
await card.getByRole('button', { name: 'Add time' }).click();
await shown(card.getByText('extended by'));
// The pod is read again after that.
await page.waitForFunction((first) => Date.parse(document.querySelector('article.card').dataset.expires) > first, firstEnd);
await page.locator('.xterm').click();
await page.keyboard.type('echo "still $((40 + 3))"\n');
await page.locator('.xterm-accessibility').getByText('still 43').first().waitFor();

// The operator's page.
const operator = await context.newPage();
operator.on('pageerror', (error) => errors.push(String(error)));
await operator.goto(`${url}/operator`);
await operator.getByLabel('OPERATOR_TOKEN').fill('not-the-token-of-the-operator-but-a-guess');
await operator.getByRole('button', { name: 'Open' }).click();
await operator.getByRole('alert').filter({ hasText: 'operator' }).waitFor();
await operator.getByLabel('OPERATOR_TOKEN').fill(OPERATOR);
await operator.getByRole('button', { name: 'Open' }).click();
const pod = await card.getAttribute('data-pod');
await operator.getByText(pod).waitFor();
await operator.getByRole('cell', { name: 'pricing', exact: true }).waitFor();
assert.ok((await operator.locator('#revenue-chart rect').count()) >= 14);
// The charts have axes and units, and begin before the page was opened.
assert.ok((await operator.locator('#leases-chart rect').count()) >= 14 * 24);
assert.equal(await operator.locator('#leases-chart text.unit').textContent(), 'pods');
assert.equal(await operator.locator('#revenue-chart text.unit').textContent(), 'sat');
const ticks = (await operator.locator('#revenue-chart text.tick[text-anchor=end]').allTextContents()).map(Number);
assert.ok(ticks.includes(0) && ticks.at(-1) > 0, `ticks ${ticks}`);
assert.match(await operator.locator('#leases-chart title').last().textContent(), /^\d{4}-\d\d-\d\d \d\d:00 UTC: [1-9]\d* pods, /);
// A search is the service's.
const row = operator.locator('#leases tbody tr').filter({ hasText: pod });
await operator.getByLabel('Search').fill('no such pod');
await operator.getByRole('button', { name: 'Search' }).click();
await row.waitFor({ state: 'detached' });
await operator.getByText('Leases, the newest first: none').waitFor();
await operator.getByLabel('Search').fill(pod.slice(4, 14));
await operator.getByRole('button', { name: 'Search' }).click();
await row.waitFor();
// So are its filters.
const tierOf = await row.getByRole('cell').nth(2).textContent();
for (const [state, tier, isFound] of [
  ['Ended', '', false],
  ['All', '', true],
  ['All', 'no-such-tier', false],
  ['All', tierOf, true],
  ['Ended', tierOf, false],
  ['Not ended', '', true],
]) {
  await operator.getByLabel('State', { exact: true }).selectOption({ label: state });
  await operator.getByLabel('Tier', { exact: true }).fill(tier);
  await operator.getByRole('button', { name: 'Search' }).click();
  await row.waitFor({ state: isFound ? 'visible' : 'detached' });
}
await assertPages();
await assertAccessible(operator);
await shot('5-operator', operator);
// Sales are paused, drained and resumed.
for (const [name, question, shown] of [
  ['Pause sales', 'Pause sales? Orders for new pods are refused until you resume.', 'Sales are paused: no new pods are sold.'],
  ['Drain', 'Drain the service? All orders are refused until you resume, also those for more time.', 'The service is draining: nothing is sold.'],
  ['Resume sales', 'Sell new pods again?', 'Everything is sold.'],
]) {
  await confirm(operator.getByRole('button', { name }), question);
  await operator.getByText(shown).waitFor();
  // The overview warns of it too, as of pods that do not start.
  if (name === 'Pause sales') await operator.locator('#warnings', { hasText: 'sales are paused' }).waitFor();
}

// After a reload the key is still in this browser.
await page.reload();
await card.getByText('running').waitFor();

// Stop: the unused time is refunded.
await confirm(card.getByRole('button', { name: 'Stop' }), `Stop ${pod}? All data in it will be lost.`);
await card.getByText('ended').waitFor();
await card.getByText('stopped', { exact: false }).waitFor();
// Of the order and of the top-up: they are not there at the same time.
await card.locator('.refund-pending').waitFor({ state: 'hidden' });
const refund = await card.locator('.refund-token').inputValue();
// Without a comparison that prints what it compares: it is money.
assert.ok(/^cashu\S+\ncashu\S+$/.test(refund), 'two tokens are paid back');
await shot('6-stopped');
// After a reload the refund is still shown.
await page.reload();
await card.getByText('ended').waitFor();
assert.ok((await card.locator('.refund-token').inputValue()) === refund, 'the refund is the same');
// So are the receipts of all answers.
await page.getByText('This browser stores the newest 100 signed receipts').click();
const receipts = [];
for (const link of await page.locator('#receipt-list a').all()) {
  const [download] = await Promise.all([page.waitForEvent('download'), link.click()]);
  const receipt = JSON.parse(readFileSync(await download.path(), 'utf8'));
  assert.equal(download.suggestedFilename(), `receipt-${receipt.id}.json`);
  const { answer, pod_name: name } = JSON.parse(receipt.content);
  receipts.push([name, answer]);
}
assert.deepEqual(receipts, ['access', 'top_up', 'stop'].map((answer) => [pod, answer]));
await assertAccessible();
// Of more than it stores, the oldest go.
const stored = () => page.evaluate(() => JSON.parse(localStorage.getItem('paygress.receipts')).map(({ id }) => id));
const own = await stored();
await page.evaluate(() => {
  const older = Array.from({ length: 100 }, (_, number) => ({ id: `older ${number}`, created_at: number, content: '{}' }));
  localStorage.setItem('paygress.receipts', JSON.stringify([...older, ...JSON.parse(localStorage.getItem('paygress.receipts'))]));
});

// A wallet scans the request and pays: the pod appears without a click.
await page.getByLabel('Duration in minutes').fill('3');
await page.getByText('sat for 3 min').waitFor();
await page.getByRole('button', { name: 'Or scan a payment request with a wallet' }).click();
await page.waitForFunction(() => document.getElementById('creq').value.startsWith('creqA'));
execFileSync('node', [WALLET, 'pay', await page.getByLabel('Payment request as text').inputValue()], { timeout: TIMEOUT_MS, stdio: 'ignore' });
const scanned = page.locator('article.card').filter({ hasText: 'running' });
await scanned.getByText(/^2 min \d+ s left$/).waitFor();
await scanned.getByText('Save the signed receipt').waitFor();
const kept = await stored();
assert.equal(kept.length, 100);
assert.deepEqual(kept.slice(-4, -1), own);
const stopped = await scanned.getAttribute('data-pod');
await confirm(scanned.getByRole('button', { name: 'Stop' }), `Stop ${stopped}? All data in it will be lost.`);
await page.locator('article.card').filter({ hasText: 'stopped' }).waitFor();

// With a public key there is no password, and no terminal that would need one.
const PUBLIC_KEY = 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMUaPK8AAnKX7VeYLedY7erYKc8I7KZxPAGCOqLSELzH';
await page.getByLabel('SSH public key').fill(PUBLIC_KEY);
await page.getByLabel('Duration in minutes').fill('2');
await page.getByText('sat for 2 min').waitFor();
execFileSync('node', [WALLET, 'pay', await page.getByLabel('Payment request as text').inputValue()], { timeout: TIMEOUT_MS, stdio: 'ignore' });
const keyed = page.locator('article.card').filter({ hasText: 'running' });
await keyed.getByText('Your key logs in; there is no password.').waitFor();
assert.ok(await keyed.getByRole('button', { name: 'Terminal' }).isHidden());
assert.ok(await keyed.locator('.password').isHidden());
// The operator ends it.
const ended = await keyed.getAttribute('data-pod');
await operator.getByLabel('Search').fill(ended);
await operator.getByRole('button', { name: 'Search' }).click();
await confirm(
  operator.getByRole('button', { name: `End ${ended}` }),
  `End ${ended}? All data in it will be lost, and what is left of it is paid back.`,
);
await operator.getByText(`${ended} has ended; due to its customers:`, { exact: false }).waitFor();
await operator.close();
await keyed.waitFor({ state: 'detached' });

await assertStreams(browser, url);
await assertPolls(browser, url);
await assertLostAnswers(browser, url);
await assertOverviews(browser, url, OPERATOR);

// On a phone, in dark mode: nothing is wider than the screen.
const phone = await browser.newContext({ viewport: { width: 360, height: 740 }, colorScheme: 'dark', hasTouch: true });
const small = await phone.newPage();
await small.goto(url);
await small.getByText('sat for').first().waitFor();
assert.ok(await small.evaluate(() => document.documentElement.scrollWidth <= innerWidth), 'the page is wider than the phone');
await assertAccessible(small);
await small.screenshot({ path: `${SHOTS}/7-phone.png`, fullPage: true });

// The API documentation can be browsed.
await small.goto(`${url}/docs`);
await small.getByText('/spawn-pod').first().waitFor();

const sales = Array(3).fill('POST /operator/sales');
assert.deepEqual(sent, [...sales, `DELETE /pods/${pod}`, `DELETE /pods/${stopped}`, `DELETE /operator/leases/${ended}`]);
assert.deepEqual(errors, []);
assert.deepEqual(external, [], 'something was loaded from another origin');
console.log(JSON.stringify({ pod, ssh, refund }));
await browser.close();
