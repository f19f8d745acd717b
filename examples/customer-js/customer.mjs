// A Paygress client on nostr-tools and cashu-ts, without any library in common with the service.
//
//   node customer.mjs token MINT SAT              prints a new token (test mints pay their own invoices)
//   node customer.mjs state MINT TOKEN            prints the state of the token at the mint: UNSPENT or SPENT
//   node customer.mjs buy URL REQUEST             posts REQUEST (JSON) to URL, pays the 402, prints the answer (NUT-24)
//   node customer.mjs pay REQUEST                 pays a payment request (creqA…), as a wallet that scans it (NUT-18)
//   node customer.mjs ask RELAY SERVICE REQUEST   sends REQUEST (JSON) to SERVICE (hex or npub), prints the answer
//   node customer.mjs login ANSWER [COMMAND]      logs in to the pod of ANSWER (JSON) with ssh, if its host key is the pod's
//
// CUSTOMER_KEY holds the customer's secret key, nsec or hex; pods belong to it. WebSocket is built into Node from version 22.
// SSH_KEY names the file of the private key to log in with; ssh has its own by default.
import { Wallet, decodePaymentRequest, getEncodedToken } from '@cashu/cashu-ts';
import { generateSecretKey, getPublicKey, finalizeEvent } from 'nostr-tools/pure';
import { createRumor, createSeal, createWrap, unwrapEvent } from 'nostr-tools/nip59';
import { Relay, useWebSocketImplementation } from 'nostr-tools/relay';
import { decode } from 'nostr-tools/nip19';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import WebSocket from 'ws';

if (!globalThis.WebSocket) useWebSocketImplementation(WebSocket);

async function mintProofs(wallet, sat) {
  const quote = await wallet.createMintQuoteBolt11(sat);
  for (let state = quote.state; state !== 'PAID'; ) {
    state = (await wallet.checkMintQuoteBolt11(quote.quote)).state;
  }
  return wallet.mintProofsBolt11(sat, quote.quote);
}

async function token(mint, sat) {
  const wallet = new Wallet(mint, { unit: 'sat' });
  await wallet.loadMint();
  // More than the token: the mint charges a fee for every proof that is swapped.
  const total = Number(sat) + 10;
  const proofs = await mintProofs(wallet, total);
  const { send } = await wallet.send(Number(sat), proofs);
  return getEncodedToken({ mint, proofs: send, unit: 'sat' });
}

/** Proofs for a payment request. Its amount has the mint's fee in it: the exact amount buys what it says. */
async function proofsFor(payment) {
  const wallet = new Wallet(payment.mints[0], { unit: payment.unit });
  await wallet.loadMint();
  const proofs = await mintProofs(wallet, Number(payment.amount) + 10);
  const { send } = await wallet.send(Number(payment.amount), proofs);
  return { mint: payment.mints[0], unit: payment.unit, proofs: send };
}

async function pay(request) {
  const requested = decodePaymentRequest(request);
  const { target } = requested.transport.find(({ type }) => type === 'post');
  // cashu-ts has a type of its own for amounts.
  const payment = JSON.stringify({ id: requested.id, ...(await proofsFor(requested)) }, (name, value) => (name === 'amount' ? Number(value) : value));
  const answer = await fetch(target, { method: 'POST', headers: { 'content-type': 'application/json' }, body: payment });
  if (!answer.ok) throw new Error(`the payment was rejected: ${answer.status} ${await answer.text()}`);
  return answer.text();
}

async function buy(url, request) {
  // With the same key, the same request gets the same answer, if one is lost. Nobody else gets it.
  const key = crypto.randomUUID();
  const post = (headers) => fetch(url, { method: 'POST', headers: { 'content-type': 'application/json', 'idempotency-key': key, ...headers }, body: request });
  const unpaid = await post({});
  if (unpaid.status !== 402) throw new Error(`no payment was requested: ${unpaid.status} ${await unpaid.text()}`);
  const requested = decodePaymentRequest(unpaid.headers.get('x-cashu'));
  const payment = { 'x-cashu': getEncodedToken(await proofsFor(requested)) };
  const paid = await post(payment).catch(() => post(payment));
  if (!paid.ok) throw new Error(`the order was rejected: ${paid.status} ${await paid.text()}`);
  return paid.text();
}

async function state(mint, text) {
  const wallet = new Wallet(mint, { unit: 'sat' });
  await wallet.loadMint();
  const states = await wallet.checkProofsStates(wallet.decodeToken(text).proofs);
  return [...new Set(states.map((proof) => proof.state))].join(',');
}

/** The key of CUSTOMER_KEY, or a new one. */
function customerKey() {
  const text = process.env.CUSTOMER_KEY?.trim();
  if (!text) return generateSecretKey();
  try {
    const hex = /^[0-9a-f]{64}$/i.test(text) ? text : '';
    const key = text.startsWith('nsec1') ? decode(text).data : Uint8Array.from(Buffer.from(hex, 'hex'));
    // Fails for what is none.
    getPublicKey(key);
    return key;
  } catch {
    console.error('CUSTOMER_KEY is not a secret key; write nsec1… or 64 hex digits');
    return process.exit(1);
  }
}

async function ask(relayUrl, service, request) {
  const key = customerKey();
  const me = getPublicKey(key);
  const to = service.startsWith('npub') ? decode(service).data : service;
  const relay = await Relay.connect(relayUrl);
  // The relays of this customer for private messages (NIP-17): the service replies there. The relay may reject a duplicate.
  const list = finalizeEvent({ kind: 10050, created_at: Math.floor(Date.now() / 1000), tags: [['relay', relayUrl]], content: '' }, key);
  await relay.publish(list).catch(() => {});
  const message = createRumor({ kind: 14, content: request, tags: [['p', to, relayUrl]] }, key);
  const answer = new Promise((resolve) => {
    // Gift wraps are dated up to two days back. The reply has an e tag with the id of the message.
    const since = Math.floor(Date.now() / 1000) - 3 * 86400;
    relay.subscribe([{ kinds: [1059], '#p': [me], since }], {
      onevent(wrap) {
        const rumor = unwrapEvent(wrap, key);
        const isReply = rumor.tags.some(([name, id]) => name === 'e' && id === message.id);
        if (rumor.pubkey === to && isReply) resolve(rumor.content);
      },
    });
  });
  await relay.publish(createWrap(createSeal(message, key, to), to));
  const text = await answer;
  relay.close();
  return text;
}

/** A file of its own for each login: what ssh knows of the same port is of another pod. */
function login(answer, ...command) {
  const { ssh_host: host, ssh_port: port, ssh_username: user, known_hosts: lines } = JSON.parse(answer);
  if (!lines) throw new Error('the answer has no host keys; ssh shows the one that it finds');
  const directory = mkdtempSync(join(tmpdir(), 'paygress-'));
  try {
    const file = join(directory, 'known_hosts');
    writeFileSync(file, `${lines}\n`);
    const options = ['-p', String(port), '-o', 'StrictHostKeyChecking=yes', '-o', `UserKnownHostsFile=${file}`];
    if (process.env.SSH_KEY) options.push('-i', process.env.SSH_KEY);
    const { status, error } = spawnSync('ssh', [...options, '--', `${user}@${host}`, ...command], { stdio: 'inherit' });
    if (error) throw error;
    if (status !== 0) throw new Error(`ssh ended with ${status}`);
    return '';
  } finally {
    rmSync(directory, { recursive: true });
  }
}

const [command, ...rest] = process.argv.slice(2);
const commands = { token, state, buy, pay, ask, login };
if (!commands[command]) throw new Error('usage: customer.mjs token MINT SAT | state MINT TOKEN | buy URL REQUEST | pay REQUEST | ask RELAY SERVICE REQUEST | login ANSWER [COMMAND]');
console.log(await commands[command](...rest));
process.exit(0);
