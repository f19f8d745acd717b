// A customer of Paygress on nostr-tools and cashu-ts: no library in common with the service.
//
//   node customer.mjs token MINT SAT              prints a token of SAT sat (mints of tests pay their own invoices)
//   node customer.mjs state MINT TOKEN            prints the state of the token's proofs at the mint: UNSPENT or SPENT
//   node customer.mjs ask RELAY SERVICE REQUEST   sends REQUEST (JSON) to SERVICE (hex or npub), prints the answer
//
// CUSTOMER_KEY holds the customer's secret key in hex; pods belong to it. WebSocket is built into Node from version 22.
import { Wallet, getEncodedToken } from '@cashu/cashu-ts';
import { generateSecretKey, getPublicKey, finalizeEvent } from 'nostr-tools/pure';
import { createRumor, createSeal, createWrap, unwrapEvent } from 'nostr-tools/nip59';
import { Relay, useWebSocketImplementation } from 'nostr-tools/relay';
import { decode } from 'nostr-tools/nip19';
import WebSocket from 'ws';

if (!globalThis.WebSocket) useWebSocketImplementation(WebSocket);

async function token(mint, sat) {
  const wallet = new Wallet(mint, { unit: 'sat' });
  await wallet.loadMint();
  // A little more than the token: the mint keeps a fee for every proof that is swapped.
  const total = Number(sat) + 10;
  const quote = await wallet.createMintQuoteBolt11(total);
  for (let state = quote.state; state !== 'PAID'; ) {
    state = (await wallet.checkMintQuoteBolt11(quote.quote)).state;
  }
  const proofs = await wallet.mintProofsBolt11(total, quote.quote);
  const { send } = await wallet.send(Number(sat), proofs);
  return getEncodedToken({ mint, proofs: send, unit: 'sat' });
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
const commands = { token, state, ask };
if (!commands[command]) throw new Error('usage: customer.mjs token MINT SAT | state MINT TOKEN | ask RELAY SERVICE REQUEST');
console.log(await commands[command](...rest));
process.exit(0);
