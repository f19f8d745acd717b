// A pricing policy: one size, and those who already run pods pay less for the next one.
import { Reader } from "./reader.js";

// A hundred bitcoin an hour: more is a mistake in the settings.
const SATS_PER_HOUR = 10_000_000_000;

const SCHEMA = `{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "title": "Loyalty discount",
  "type": "object",
  "additionalProperties": false,
  "properties": {
    "sats_per_hour": {
      "type": "integer", "minimum": 1, "maximum": 10000000000, "default": 60,
      "description": "The price without a discount."
    },
    "minimum_sat": {
      "type": "integer", "minimum": 0, "maximum": 10000000000, "default": 1,
      "description": "The least net amount that is accepted, in sat."
    },
    "cpu_millicores": {"type": "integer", "minimum": 1, "maximum": 1000000, "default": 1000},
    "memory_mib": {"type": "integer", "minimum": 1, "maximum": 16777216, "default": 1024},
    "discounts": {
      "type": "array", "maxItems": 16,
      "description": "Who gets a discount; of those that apply, the largest counts. Left out: 5 % from 1 pod, 10 % from 3 pods, 15 % from 30 days.",
      "items": {
        "type": "object", "additionalProperties": false, "required": ["percent"],
        "properties": {
          "percent": {"type": "integer", "minimum": 1, "maximum": 90},
          "leases": {
            "type": "integer", "minimum": 1, "maximum": 64, "default": 1,
            "description": "The customer runs at least so many pods."
          },
          "days": {
            "type": "integer", "minimum": 0, "maximum": 3650, "default": 0,
            "description": "The oldest of them was ordered at least so many days ago."
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

// Set by `configure`, which the host calls first in every instance. An instance serves one call, so nothing else is kept.
let kept;

// A `result` of the contract is returned when it is good and thrown when it is not.
export const settings = {
  schema: () => SCHEMA,
  configure(json) {
    kept = Reader.read(json, readSettings);
  },
};

export const pricing = {
  offers: () => [
    {
      id: "standard",
      name: "Standard",
      description: description(),
      ...goods(),
      price: price(0),
    },
  ],
  quote(order, context) {
    const tier = order.purpose.tag === "extend" ? order.purpose.val.tier : order.tier;
    // An `option` that is none is undefined. An empty text is a tier that does not exist.
    if (tier !== undefined && tier !== "standard") {
      throw { code: "invalid_spec", message: "there is no such tier; choose: standard" };
    }
    return { tier: "standard", ...goods(), price: price(discount(context)) };
  },
};

function readSettings(reader) {
  return {
    satsPerHour: reader.number("sats_per_hour", 60, 1, SATS_PER_HOUR),
    minimumSat: reader.number("minimum_sat", 1, 0, SATS_PER_HOUR),
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

// What an offer and a quote have in common.
function goods() {
  return {
    resources: { cpuMillicores: kept.cpuMillicores, memoryMib: kept.memoryMib },
    minimumSat: BigInt(kept.minimumSat),
  };
}

// Exact: sat × 1000 × (100 − percent) / 100 is a whole number of msat an hour. BigInt, as 64-bit integers of the contract are.
function price(percent) {
  return { msat: BigInt(kept.satsPerHour) * 10n * BigInt(100 - percent), seconds: 3_600n };
}

// The largest discount, in percent, that this customer has earned.
function discount(context) {
  const own = context.customerLeases.filter((lease) => lease.ownedByCustomer);
  const now = context.nowUnixSeconds;
  // The host's clock may have been set back since: nobody's pod is younger than new.
  const ages = own.map((lease) => (lease.createdAtUnixSeconds < now ? now - lease.createdAtUnixSeconds : 0n));
  const oldest = ages.reduce((longest, age) => (age > longest ? age : longest), 0n);
  const earned = kept.discounts.filter((step) => own.length >= step.leases && oldest >= BigInt(step.days) * 86_400n);
  return Math.max(0, ...earned.map((step) => step.percent));
}

function description() {
  const size = `${kept.cpuMillicores} mCPU, ${kept.memoryMib} MiB of memory, SSH`;
  const most = Math.max(0, ...kept.discounts.map((step) => step.percent));
  return most > 0 ? `${size}. Up to ${most} % less for customers who run pods already.` : size;
}
