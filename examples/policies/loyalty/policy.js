// A pricing policy with one tier: customers with running pods get a discount on the next one.
import { Reader } from "./reader.js";

// A hundred bitcoin an hour: more is a mistake in the settings.
const MAX_SATS_PER_HOUR = 10_000_000_000;

const SCHEMA = `{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "title": "Loyalty discount",
  "type": "object",
  "additionalProperties": false,
  "properties": {
    "sats_per_hour": {
      "type": "integer", "minimum": 1, "maximum": 10000000000, "default": 60,
      "description": "The price of an hour without a discount."
    },
    "minimum_sat": {
      "type": "integer", "minimum": 0, "maximum": 10000000000, "default": 1,
      "description": "The smallest net amount that is accepted, in sat."
    },
    "cpu_millicores": {"type": "integer", "minimum": 1, "maximum": 1000000, "default": 1000},
    "memory_mib": {"type": "integer", "minimum": 1, "maximum": 16777216, "default": 1024},
    "discounts": {
      "type": "array", "maxItems": 16,
      "description": "The discounts; the largest one that applies is given. If omitted: 5 % from 1 pod, 10 % from 3 pods, 15 % from 30 days.",
      "items": {
        "type": "object", "additionalProperties": false, "required": ["percent"],
        "properties": {
          "percent": {"type": "integer", "minimum": 1, "maximum": 90},
          "leases": {
            "type": "integer", "minimum": 1, "maximum": 64, "default": 1,
            "description": "Applies to customers with at least this many running pods."
          },
          "days": {
            "type": "integer", "minimum": 0, "maximum": 3650, "default": 0,
            "description": "Applies if the oldest of these pods was ordered at least this many days ago."
          }
        }
      }
    }
  }
}`;

const DEFAULT_DISCOUNTS = [
  { percent: 5, leases: 1, days: 0 },
  { percent: 10, leases: 3, days: 0 },
  { percent: 15, leases: 1, days: 30 },
];

// Set by `configure`, the first call in every instance. An instance serves one call, so there is no other state.
let config;

// The success of a `result` is returned, its error is thrown.
export const settings = {
  schema: () => SCHEMA,
  configure(json) {
    config = Reader.read(json, readSettings);
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

function readSettings(reader) {
  return {
    satsPerHour: reader.number("sats_per_hour", 60, 1, MAX_SATS_PER_HOUR),
    minimumSat: reader.number("minimum_sat", 1, 0, MAX_SATS_PER_HOUR),
    cpuMillicores: reader.number("cpu_millicores", 1_000, 1, 1_000_000),
    memoryMib: reader.number("memory_mib", 1_024, 1, 16_777_216),
    discounts:
      reader.objects("discounts", 16, (item) => ({
        percent: item.number("percent", undefined, 1, 90),
        leases: item.number("leases", 1, 1, 64),
        days: item.number("days", 0, 0, 3_650),
      })) ?? DEFAULT_DISCOUNTS,
  };
}

// The fields that an offer and a quote share.
function terms() {
  return {
    resources: { cpuMillicores: config.cpuMillicores, memoryMib: config.memoryMib },
    minimumSat: BigInt(config.minimumSat),
  };
}

// Exact: sat × 1000 × (100 − percent) / 100 is a whole number of msat per hour. The contract's 64-bit integers are BigInt.
function price(percent) {
  return { msat: BigInt(config.satsPerHour) * 10n * BigInt(100 - percent), seconds: 3_600n };
}

// The largest discount in percent that applies to this customer.
function discount(context) {
  const own = context.customerLeases.filter((lease) => lease.ownedByCustomer);
  const now = context.nowUnixSeconds;
  // The host's clock may have been set back since: no age is negative.
  const ages = own.map((lease) => (lease.createdAtUnixSeconds < now ? now - lease.createdAtUnixSeconds : 0n));
  const oldest = ages.reduce((longest, age) => (age > longest ? age : longest), 0n);
  const applicable = config.discounts.filter((step) => own.length >= step.leases && oldest >= BigInt(step.days) * 86_400n);
  return Math.max(0, ...applicable.map((step) => step.percent));
}

function description() {
  const size = `${config.cpuMillicores} mCPU, ${config.memoryMib} MiB of memory, SSH`;
  const most = Math.max(0, ...config.discounts.map((step) => step.percent));
  return most > 0 ? `${size}. Up to ${most} % less for customers with running pods.` : size;
}
