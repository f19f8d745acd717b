// A customer of Paygress on nostr-tools and cashu-ts: no library in common with the service.
//
//   node customer.mjs token MINT SAT              prints a token of SAT sat (mints of tests pay their own invoices)
//   node customer.mjs state MINT TOKEN            prints the state of the token's proofs at the mint: UNSPENT or SPENT
//   node customer.mjs buy URL REQUEST             posts REQUEST (JSON) to URL, pays the 402, prints the answer (NUT-24)
//   node customer.mjs pay REQUEST                 pays a payment request (creqA…) where it says (NUT-18), as a wallet that scans it
//   node customer.mjs ask RELAY SERVICE REQUEST   sends REQUEST (JSON) to SERVICE (hex or npub), prints the answer
//
// CUSTOMER_KEY holds the customer's secret key in hex; pods belong to it. WebSocket is built into Node from version 22.
import { Wallet, decodePaymentRequest, getEncodedToken } from '@cashu/cashu-ts';
import { generateSecretKey, getPublicKey, finalizeEvent } from 'nostr-tools/pure';
import { createRumor, createSeal, createWrap, unwrapEvent } from 'nostr-tools/nip59';
import { Relay, useWebSocketImplementation } from 'nostr-tools/relay';
import { decode } from 'nostr-tools/nip19';
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
  // A little more than the token: the mint keeps a fee for every proof that is swapped.
  const total = Number(sat) + 10;
  const proofs = await mintProofs(wallet, total);
  const { send } = await wallet.send(Number(sat), proofs);
  return getEncodedToken({ mint, proofs: send, unit: 'sat' });
}

/** Proofs for what is asked, at a mint that is accepted. The amount is what must be left when the mint has taken its fee. */
async function proofsFor(asked) {
  const wallet = new Wallet(asked.mints[0], { unit: asked.unit });
  await wallet.loadMint();
  const proofs = await mintProofs(wallet, Number(asked.amount) + 10);
  const { send } = await wallet.send(Number(asked.amount), proofs, { includeFees: true });
  return { mint: asked.mints[0], unit: asked.unit, proofs: send };
}

async function pay(request) {
  const asked = decodePaymentRequest(request);
  const { target } = asked.transport.find(({ type }) => type === 'post');
  // Amounts are numbers of cashu-ts' own kind.
  const payment = JSON.stringify({ id: asked.id, ...(await proofsFor(asked)) }, (name, value) => (name === 'amount' ? Number(value) : value));
  const answer = await fetch(target, { method: 'POST', headers: { 'content-type': 'application/json' }, body: payment });
  if (!answer.ok) throw new Error(`not taken: ${answer.status} ${await answer.text()}`);
  return answer.text();
}

async function buy(url, request) {
  const post = (headers) => fetch(url, { method: 'POST', headers: { 'content-type': 'application/json', ...headers }, body: request });
  const unpaid = await post({});
  if (unpaid.status !== 402) throw new Error(`not asked to pay: ${unpaid.status} ${await unpaid.text()}`);
  const asked = decodePaymentRequest(unpaid.headers.get('x-cashu'));
  const paid = await post({ 'x-cashu': getEncodedToken(await proofsFor(asked)) });
  if (!paid.ok) throw new Error(`not sold: ${paid.status} ${await paid.text()}`);
  return paid.text();
}

async function state(mint, text) {
  const wallet = new Wallet(mint, { unit: 'sat' });
  await wallet.loadMint();
  const states = await wallet.checkProofsStates(wallet.decodeToken(text).proofs);
  return [...new Set(states.map((proof) => proof.state))].join(',');
}

async function ask(relayUrl, service, request) {
  const key = process.env.CUSTOMER_KEY ? Uint8Array.from(Buffer.from(process.env.CUSTOMER_KEY, 'hex')) : generateSecretKey();
  const me = getPublicKey(key);
  const to = service.startsWith('npub') ? decode(service).data : service;
  const relay = await Relay.connect(relayUrl);
  // Where I read private messages (NIP-17): the service answers there. A relay that has it already may say so.
  const list = finalizeEvent({ kind: 10050, created_at: Math.floor(Date.now() / 1000), tags: [['relay', relayUrl]], content: '' }, key);
  await relay.publish(list).catch(() => {});
  const message = createRumor({ kind: 14, content: request, tags: [['p', to, relayUrl]] }, key);
  const answer = new Promise((resolve) => {
    // Wraps are dated up to two days back. Mine is the one that answers my message.
    const since = Math.floor(Date.now() / 1000) - 3 * 86400;
    relay.subscribe([{ kinds: [1059], '#p': [me], since }], {
      onevent(wrap) {
        const letter = unwrapEvent(wrap, key);
        const mine = letter.tags.some(([name, id]) => name === 'e' && id === message.id);
        if (letter.pubkey === to && mine) resolve(letter.content);
      },
    });
  });
  await relay.publish(createWrap(createSeal(message, key, to), to));
  const text = await answer;
  relay.close();
  return text;
}

const [command, ...rest] = process.argv.slice(2);
const commands = { token, state, buy, pay, ask };
if (!commands[command]) throw new Error('usage: customer.mjs token MINT SAT | state MINT TOKEN | buy URL REQUEST | pay REQUEST | ask RELAY SERVICE REQUEST');
console.log(await commands[command](...rest));
process.exit(0);
