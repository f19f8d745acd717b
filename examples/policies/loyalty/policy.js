// A pricing policy with one tier: customers with running pods get a discount on the next one.
import { Settings, integer, list, object } from "./settings.js";

// A hundred bitcoin an hour: more is a mistake in the settings.
const MAX_SATS_PER_HOUR = 10_000_000_000;

const declared = new Settings("Loyalty discount", {
  sats_per_hour: integer(1, MAX_SATS_PER_HOUR, { default: 60, description: "The price of an hour without a discount." }),
  minimum_sat: integer(0, MAX_SATS_PER_HOUR, { default: 1, description: "The smallest net amount that is accepted, in sat." }),
  cpu_millicores: integer(1, 1_000_000, { default: 1_000 }),
  memory_mib: integer(1, 16_777_216, { default: 1_024 }),
  discounts: list(
    object({
      percent: integer(1, 90),
      leases: integer(1, 64, { default: 1, description: "Applies to customers with at least this many running pods." }),
      days: integer(0, 3_650, {
        default: 0,
        description: "Applies if the oldest of these pods was ordered at least this many days ago.",
      }),
    }),
    {
      maxItems: 16,
      default: [{ percent: 5 }, { percent: 10, leases: 3 }, { percent: 15, days: 30 }],
      description: "The discounts; the largest one that applies is given.",
    },
  ),
});

// Set by `configure`, the first call in every instance. An instance serves one call, so there is no other state.
let config;

// The success of a `result` is returned, its error is thrown.
export const settings = {
  schema: () => declared.schema(),
  configure(json) {
    config = declared.read(json);
  },
};

export const pricing = {
  offers: () => [
    {
      id: "standard",
      name: "Standard",
      description: description(),
      ...terms(),
      price: price(0),
    },
  ],
  quote(order, context) {
    const tier = order.purpose.tag === "extend" ? order.purpose.val.tier : order.tier;
    // An `option` without a value is undefined. The empty string is a tier that does not exist.
    if (tier !== undefined && tier !== "standard") {
      throw { code: "invalid_spec", message: "there is no such tier; choose: standard" };
    }
    return { tier: "standard", ...terms(), price: price(discount(context)) };
  },
};

// The fields that an offer and a quote share.
function terms() {
  return {
    resources: { cpuMillicores: config.cpu_millicores, memoryMib: config.memory_mib },
    minimumSat: BigInt(config.minimum_sat),
  };
}

// Exact: sat × 1000 × (100 − percent) / 100 is a whole number of msat per hour. The contract's 64-bit integers are BigInt.
function price(percent) {
  return { msat: BigInt(config.sats_per_hour) * 10n * BigInt(100 - percent), seconds: 3_600n };
}

// The largest discount in percent that applies to this customer.
function discount(context) {
  // A pod that is being made has no time yet, and may not be paid for.
  const own = context.customerLeases.filter((lease) => lease.ownedByCustomer && lease.remainingSeconds > 0n);
  const now = context.nowUnixSeconds;
  // The host's clock may have been set back since: no age is negative.
  const ages = own.map((lease) => (lease.createdAtUnixSeconds < now ? now - lease.createdAtUnixSeconds : 0n));
  const oldest = ages.reduce((longest, age) => (age > longest ? age : longest), 0n);
  const applicable = config.discounts.filter((step) => own.length >= step.leases && oldest >= BigInt(step.days) * 86_400n);
  return Math.max(0, ...applicable.map((step) => step.percent));
}

function description() {
  const size = `${config.cpu_millicores} mCPU, ${config.memory_mib} MiB of memory, SSH`;
  const most = Math.max(0, ...config.discounts.map((step) => step.percent));
  return most > 0 ? `${size}. Up to ${most} % less for customers with running pods.` : size;
}
