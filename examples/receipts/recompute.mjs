// Recomputes an order of a receipt in the components that it names. jco makes each of them JavaScript, with core modules
// for Node's own WebAssembly: no code in common with the service, nor with `paygress receipt verify`.
//
// Names and numbers of a receipt become those of the contract (wit/), and what the policies return becomes those of a receipt.
import { transpile } from '@bytecodealliance/jco';
import { createHash } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { canonical } from './canonical.mjs';

const sha256 = (data) => createHash('sha256').update(data).digest('hex');

const toLease = (lease) => ({
  id: lease.id,
  tier: lease.tier,
  image: lease.image,
  createdAtUnixSeconds: BigInt(lease.created_at),
  expiresAtUnixSeconds: BigInt(lease.expires_at),
  remainingSeconds: BigInt(lease.remaining),
  ownedByCustomer: lease.owned_by_customer,
});
const toOrder = (order) => ({
  id: order.id,
  customer: order.customer,
  purpose: order.extends ? { tag: 'extend', val: toLease(order.extends) } : { tag: 'spawn' },
  image: order.image ?? undefined,
  tier: order.tier ?? undefined,
  username: order.username,
  wantedSeconds: order.wanted == null ? undefined : BigInt(order.wanted),
});
const toHistory = (history) => ({
  orders: history.orders,
  firstOrderSecondsAgo: history.first_ago == null ? undefined : BigInt(history.first_ago),
  lastDaySat: BigInt(history.last_day_paid),
  lastDaySeconds: BigInt(history.last_day_bought),
  lastDayFirstSecondsAgo: history.last_day_first_ago == null ? undefined : BigInt(history.last_day_first_ago),
  lastDayUndecided: history.last_day_undecided,
});
const toUtilisation = (nodes) => ({ cpuPerMille: nodes.cpu_per_mille, memoryPerMille: nodes.memory_per_mille });
const toContext = (context) => ({
  nowUnixSeconds: BigInt(context.now),
  capacityLeases: context.capacity_leases,
  activeLeases: context.active_leases,
  customerLeases: context.customer_leases.map(toLease),
  // Components of contracts before 1.3 have no such fields, and do not read them.
  history: context.history ? toHistory(context.history) : undefined,
  utilisation: context.utilisation ? toUtilisation(context.utilisation) : undefined,
});
const toQuote = (quote) => ({
  tier: quote.tier,
  resources: { cpuMillicores: quote.resources.cpu_millicores, memoryMib: quote.resources.memory_mib },
  price: { msat: BigInt(quote.price.msat), seconds: BigInt(quote.price.seconds) },
  minimumSat: BigInt(quote.minimum),
});
const toPayment = (payment) => ({
  mint: payment.mint,
  grossSat: BigInt(payment.gross),
  feeSat: BigInt(payment.fee),
  netSat: BigInt(payment.net),
});
const toGrant = (grant) => ({ seconds: BigInt(grant.seconds), note: grant.note ?? undefined });

const ofQuote = (quote) => ({
  tier: quote.tier,
  resources: { cpu_millicores: quote.resources.cpuMillicores, memory_mib: quote.resources.memoryMib },
  price: { msat: Number(quote.price.msat), seconds: Number(quote.price.seconds) },
  minimum: Number(quote.minimumSat),
});
const ofGrant = (grant) => ({ seconds: Number(grant.seconds), note: grant.note ?? null });
const ofRefund = (terms) => ({ step: Number(terms.stepSeconds), percent: terms.percent });

/** The component of a slot, as a function that calls it; it and its settings must be those of the receipt. */
async function load(directory, slot, digests) {
  const component = readFileSync(join(directory, `${slot}.wasm`));
  if (sha256(component) !== digests[slot]) throw new Error(`${slot}.wasm has not the SHA-256 ${digests[slot]} of the receipt`);
  const file = join(directory, `${slot}.json`);
  const settings = canonical(existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')) : {});
  const ofSettings = digests.settings?.[slot];
  if (sha256(settings) !== ofSettings) throw new Error(`${slot}.json has not the SHA-256 ${ofSettings} of the receipt`);
  const { files, imports } = await transpile(component, { name: slot, instantiation: 'sync' });
  if (imports.length) throw new Error(`${slot}.wasm is no policy: it imports ${imports}`);
  const source = Buffer.from(files[`${slot}.js`]).toString('base64');
  const { instantiate } = await import(`data:text/javascript;base64,${source}`);
  return (call) => {
    // Each call in a new instance, as in the service.
    const exported = instantiate((module) => new WebAssembly.Module(files[module]), {});
    exported.settings.configure(settings);
    try {
      return call(exported[slot]);
    } catch (error) {
      if (!error.payload?.code) throw error;
      return `refused: ${error.payload.code}`;
    }
  };
}

const isObject = (value) => value !== null && typeof value === 'object' && !Array.isArray(value);

/** The fields, as deep as there are objects, that are not the same. */
function* differences(field, receipt, recomputed) {
  if (isObject(receipt) && isObject(recomputed)) {
    const names = new Set([...Object.keys(receipt), ...Object.keys(recomputed)]);
    for (const name of [...names].sort()) {
      yield* differences(`${field}.${name}`, receipt[name] ?? null, recomputed[name] ?? null);
    }
  } else if (canonical(receipt) !== canonical(recomputed)) {
    yield `${field}: the receipt has ${canonical(receipt)}, and must have ${canonical(recomputed)}`;
  }
}

/** What of an order is not what its policies decide, each called with what the receipt says the one before returned. */
export async function* recompute({ decision, payment, image }, directory) {
  const { digests } = decision;
  const [order, context] = [toOrder(decision.order), toContext(decision.context)];
  if (!decision.order.extends) {
    const images = await load(directory, 'images', digests);
    yield* differences('image', image, images((policy) => policy.admit(order, context).reference));
  }
  const pricing = await load(directory, 'pricing', digests);
  const quoted = pricing((policy) => ofQuote(policy.quote(order, context)));
  yield* differences('decision.quote', decision.quote, quoted);
  const duration = await load(directory, 'duration', digests);
  const [quote, paid] = [toQuote(decision.quote), toPayment(payment)];
  const granted = duration((policy) => ofGrant(policy.grant(order, quote, paid, context)));
  yield* differences('decision.grant', decision.grant, granted);
  const grant = toGrant(decision.grant);
  // Contract 1.0 has no refund terms.
  const terms = duration((policy) => policy.refund ? ofRefund(policy.refund(order, quote, paid, grant, context)) : null);
  yield* differences('decision.refund', decision.refund, terms);
}
