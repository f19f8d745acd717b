// Verifies a Paygress receipt with nostr-tools and jco, without any code in common with the service.
//
//   node verify.mjs FILE [SERVICE] [--components DIRECTORY]
//
// FILE: a receipt, or an answer with one; SERVICE: the signer's key, npub or hex; DIRECTORY: images.wasm, pricing.wasm and
// duration.wasm, with the settings of each as JSON beside it (pricing.json, left out for `{}`).
//
// It checks the signature, the form and the amounts; with the components, image, price, time and refund terms too.
import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { decode } from 'nostr-tools/nip19';
import { verifyEvent } from 'nostr-tools/pure';
import { canonical } from './canonical.mjs';

const KIND = 9383;
const CLAIMS = ['decision.context.active_leases', 'decision.context.capacity_leases'];
// Receipts of earlier versions do not have these, and do not name them.
const LATER_CLAIMS = ['history', 'utilisation'];

const least = (one, other) => (one < other ? one : other);

/** How much of an order's time was used; undefined where the receipt does not say. */
function timeUsed({ decision, served_until: servedUntil, expires_at: expiresAt, used }) {
  // Of the order that made a pod which the service lost, it follows from the pod's times.
  if (servedUntil == null || expiresAt == null || decision.order.extends) return used;
  return Math.max(servedUntil - Math.max(expiresAt - decision.grant.seconds, 0), 0);
}

/** What must be due of an order; undefined where that does not follow from the receipt. */
function dueOf(order, answer) {
  const { payment, redeemed, decision, served_until: servedUntil, stop_terms: stopTerms } = order;
  if (answer === 'refusal') return redeemed;
  // What the service lost goes back to the second.
  const terms = servedUntil == null ? stopTerms : { step: 1, percent: 100 };
  const used = timeUsed(order);
  if (!terms || used == null) return undefined;
  const [granted, step] = [BigInt(decision.grant.seconds), BigInt(Math.max(terms.step, 1))];
  const charged = ((BigInt(used) + step - 1n) / step) * step;
  const unused = charged < granted ? granted - charged : 0n;
  // Each rounded down.
  const percent = least(BigInt(terms.percent), 100n);
  const share = (amount) => (granted ? Number((((BigInt(amount) * unused) / granted) * percent) / 100n) : 0);
  const due = share(redeemed);
  // A token is over one sat at least.
  return servedUntil == null ? due : Math.max(due, least(share(payment.gross), 1));
}

/** What is wrong with a receipt; nothing if it is good. */
function* problems(receipt, service) {
  if (receipt?.kind !== KIND) return yield `not an event of kind ${KIND}`;
  // Not what another library may have marked as verified.
  const { id, pubkey, created_at, kind, tags, content, sig } = receipt;
  if (!verifyEvent({ id, pubkey, created_at, kind, tags, content, sig })) return yield 'its id or its signature is forged';
  if (service && pubkey !== service) return yield `signed by ${pubkey}, another key than the service's`;
  const stated = JSON.parse(content);
  if (canonical(stated) !== content) yield 'its content is not canonical JSON';
  if (stated.version !== 1) return yield `version ${stated.version}: a newer script reads it`;
  const later = LATER_CLAIMS.filter((name) => stated.orders.some(({ decision }) => decision.context[name]));
  const claims = [...CLAIMS, ...later.map((name) => `decision.context.${name}`)];
  if (!claims.every((claim) => stated.operator_claims.includes(claim))) yield 'it hides which fields only the operator knows';
  if (!stated.orders.length) yield 'it has no order';
  for (const sold of stated.orders) {
    const { payment, redeemed, decision, stop_terms: stopTerms, refund } = sold;
    const order = decision.order.id;
    if (payment.net !== payment.gross - payment.fee) yield `${order}: payment.net`;
    if (payment.net < decision.quote.minimum) yield `${order}: payment.net is below the minimum`;
    // None: the operator refunds no stop, whatever the policy says.
    if (stopTerms && decision.refund && canonical(stopTerms) !== canonical(decision.refund)) yield `${order}: stop_terms`;
    const paidBack = refund?.due ?? 0;
    const due = dueOf(sold, stated.answer) ?? least(paidBack, redeemed);
    if (paidBack !== due) yield `${order}: refund.due: the receipt has ${paidBack}, and must have ${due}`;
    if (refund && refund.amount + refund.fee < refund.due) yield `${order}: refund.amount`;
  }
}

function parse(json) {
  try {
    return JSON.parse(json);
  } catch {
    console.error('it is not JSON');
    return process.exit(1);
  }
}

/** The service's key in hex. */
function hexOf(key) {
  if (!key?.startsWith('npub1')) return key;
  try {
    return decode(key).data;
  } catch {
    console.error(`${key} is not an npub`);
    return process.exit(1);
  }
}

const { values, positionals } = parseArgs({ allowPositionals: true, options: { components: { type: 'string' } } });
const [file, key] = positionals;
const service = hexOf(key);
const read = parse(readFileSync(file ?? '/dev/stdin', 'utf8'));
const receipt = read.receipt ?? read;
const found = [...problems(receipt, service)];
if (!found.length && values.components) {
  const { recompute } = await import('./recompute.mjs');
  for (const order of JSON.parse(receipt.content).orders) {
    const { id } = order.decision.order;
    try {
      for await (const problem of recompute(order, values.components)) found.push(`${id}: ${problem}`);
    } catch (error) {
      found.push(`${id}: not recomputed: ${error.message}`);
    }
  }
}
for (const problem of found) console.error(problem);
if (found.length) process.exit(1);
const content = JSON.parse(receipt.content);
const recomputed = values.components ? 'image, price, time and refund terms were' : 'nothing was';
console.log(`good: ${content.answer} of ${content.pod_name}, signed by ${receipt.pubkey}; ${recomputed} recomputed`);
