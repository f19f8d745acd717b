// A pricing policy: one size, so many sat an hour.
import { Reader } from "./reader.js";

const SCHEMA = `{schema}`;

// Set by `configure`, which the host calls first in every instance. An instance serves one call, so nothing else is kept.
let kept;

// A `result` of the contract is returned when it is good and thrown when it is not.
export const settings = {
  schema: () => SCHEMA,
  configure(json) {
    kept = Reader.read(json, readSettings);
  },
};

function readSettings(reader) {
  return {
    satsPerHour: reader.number("sats_per_hour", 60, 1, 10_000_000_000),
    minimumSat: reader.number("minimum_sat", 1, 0, 10_000_000_000),
  };
}

// What an offer and a quote have in common. 64-bit integers of the contract are BigInt.
function goods() {
  return {
    resources: { cpuMillicores: 1_000, memoryMib: 1_024 },
    price: { msat: BigInt(kept.satsPerHour) * 1_000n, seconds: 3_600n },
    minimumSat: BigInt(kept.minimumSat),
  };
}

export const pricing = {
  offers: () => [{ id: "standard", name: "Standard", description: "A pod with SSH", ...goods() }],
  quote(order, context) {
    // More time for a running pod is of its tier. An `option` that is none is undefined.
    const tier = order.purpose.tag === "extend" ? order.purpose.val.tier : order.tier;
    if (tier !== undefined && tier !== "standard") {
      throw { code: "invalid_spec", message: "there is no such tier; choose: standard" };
    }
    return { tier: "standard", ...goods() };
  },
};
