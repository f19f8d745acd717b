// A pricing policy: one size, so many sat an hour.
import { Settings, integer } from "./settings.js";

// More is a mistake in the settings.
const MOST = 10_000_000_000;

const declared = new Settings("One price", {
  sats_per_hour: integer(1, MOST, { default: 60 }),
  minimum_sat: integer(0, MOST, { default: 1, description: "The least net amount that is accepted, in sat." }),
});

// Set by `configure`, which the host calls first in every instance. An instance serves one call, so nothing else is kept.
let kept;

// A `result` of the contract is returned when it is good and thrown when it is not.
export const settings = {
  schema: () => declared.schema(),
  configure(json) {
    kept = declared.read(json);
  },
};

// What an offer and a quote have in common. 64-bit integers of the contract are BigInt.
function goods() {
  return {
    resources: { cpuMillicores: 1_000, memoryMib: 1_024 },
    price: { msat: BigInt(kept.sats_per_hour) * 1_000n, seconds: 3_600n },
    minimumSat: BigInt(kept.minimum_sat),
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
