// Verifies a Paygress receipt with nostr-tools, without any code in common with the service.
//
//   node verify.mjs FILE [SERVICE]    FILE: a receipt, or an answer with one; SERVICE: the signer's key in hex
//
// It checks the signature, the form and the amounts. It does not recompute price, time and refund terms in the policies'
// components: that takes a host for WebAssembly components, as `paygress receipt verify --components` is.
import { createRequire } from 'node:module';
import { readFileSync } from 'node:fs';

// The packages of the other example: one installation for both.
const require = createRequire(new URL('../customer-js/package.json', import.meta.url));
const { verifyEvent } = require('nostr-tools/pure');

const KIND = 9383;
const CLAIMS = ['decision.context.active_leases', 'decision.context.capacity_leases'];

function canonical(value) {
  if (Array.isArray(value)) return `[${value.map(canonical).join(',')}]`;
  if (value === null || typeof value !== 'object') return JSON.stringify(value);
  // By code points, as UTF-8 sorts; the names in receipts are ASCII.
  const fields = Object.keys(value).sort().map((name) => `${JSON.stringify(name)}:${canonical(value[name])}`);
  return `{${fields.join(',')}}`;
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
  if (!CLAIMS.every((claim) => stated.operator_claims.includes(claim))) yield 'it hides which fields only the operator knows';
  if (!stated.orders.length) yield 'it has no order';
  for (const { payment, redeemed, decision, refund } of stated.orders) {
    const order = decision.order.id;
    if (payment.net !== payment.gross - payment.fee) yield `${order}: payment.net`;
    if (payment.net < decision.quote.minimum) yield `${order}: payment.net is below the minimum`;
    if (refund && refund.due > redeemed) yield `${order}: refund.due`;
    if (refund && stated.answer === 'refusal' && refund.due !== redeemed) yield `${order}: refund.due`;
    if (refund && refund.amount + refund.fee < refund.due) yield `${order}: refund.amount`;
  }
}

const [file, service] = process.argv.slice(2);
const read = JSON.parse(readFileSync(file ?? '/dev/stdin', 'utf8'));
const receipt = read.receipt ?? read;
const found = [...problems(receipt, service)];
for (const problem of found) console.error(problem);
if (found.length) process.exit(1);
const content = JSON.parse(receipt.content);
console.log(`good: ${content.answer} of ${content.pod_name}, signed by ${receipt.pubkey}; nothing was recomputed`);
