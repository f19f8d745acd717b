// A duration policy: the whole amount at the quoted price, between a minimum and a maximum.
import { Settings, integer } from "./settings.js";

// Ten years, the most that the contract allows.
const LONGEST = 315_360_000;

const declared = new Settings(
  "A minimum and a maximum",
  {
    minimum_seconds: integer(1, LONGEST, { default: 60, description: "A payment that buys less is refused." }),
    maximum_seconds: integer(1, LONGEST, {
      default: 2_592_000,
      description: "A pod never has more than this before it; a payment that would exceed it is refused.",
    }),
    refund_percent: integer(0, 100, {
      default: 100,
      description: "The part of the price of unused time that is refunded when a customer stops a pod.",
    }),
  },
  // What the declarations do not say.
  (read, note) => {
    if (read.minimum_seconds > read.maximum_seconds) note("minimum_seconds", "must not be more than maximum_seconds");
  },
);

// Set by `configure`, which the host calls first in every instance. An instance serves one call, so nothing else is kept.
let kept;

// A `result` of the contract is returned when it is good and thrown when it is not.
export const settings = {
  schema: () => declared.schema(),
  configure(json) {
    kept = declared.read(json);
  },
};

const larger = (one, other) => (one > other ? one : other);
const smaller = (one, other) => (one < other ? one : other);

export const duration = {
  // 64-bit integers of the contract are BigInt; an `option` that is none is undefined.
  grant(order, quote, payment, context) {
    const lease = order.purpose.tag === "extend" ? order.purpose.val : undefined;
    if (lease?.remainingSeconds === 0n) {
      throw { code: "lease_expired", message: "this pod has ended; order a new one" };
    }
    if (lease?.ownedByCustomer === false) {
      throw { code: "not_owner", message: "only the customer who bought this pod may extend it" };
    }
    const room = larger(BigInt(kept.maximum_seconds) - (lease?.remainingSeconds ?? 0n), 0n);
    const least = larger(BigInt(kept.minimum_seconds), order.wantedSeconds ?? 0n);
    // Free time lasts as long as requested, or an hour.
    const seconds =
      quote.price.msat > 0n
        ? (payment.netSat * 1_000n * quote.price.seconds) / quote.price.msat
        : smaller(larger(order.wantedSeconds ?? 3_600n, BigInt(kept.minimum_seconds)), room);
    if (seconds < least) {
      const message = `the token is worth ${payment.netSat} sat and buys ${seconds} s; the least is ${least} s`;
      throw { code: "insufficient_payment", message };
    }
    if (seconds > room) {
      const message = `the token buys ${seconds} s, and this pod may have at most ${room} s more`;
      throw { code: "invalid_request", message };
    }
    return { seconds };
  },
  // Used minutes are charged whole.
  refund: (order, quote, payment, granted, context) => ({ stepSeconds: 60n, percent: kept.refund_percent }),
};
