// A duration policy: the whole amount at the quoted price, between a minimum and a maximum.
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
  const read = {
    minimum: reader.number("minimum_seconds", 60, 1, 315_360_000),
    maximum: reader.number("maximum_seconds", 2_592_000, 1, 315_360_000),
    refundPercent: reader.number("refund_percent", 100, 0, 100),
  };
  if (read.minimum > read.maximum) reader.note("minimum_seconds", "must not be more than maximum_seconds");
  return read;
}

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
    const room = larger(BigInt(kept.maximum) - (lease?.remainingSeconds ?? 0n), 0n);
    const least = larger(BigInt(kept.minimum), order.wantedSeconds ?? 0n);
    // Free time lasts as long as requested, or an hour.
    const seconds =
      quote.price.msat > 0n
        ? (payment.netSat * 1_000n * quote.price.seconds) / quote.price.msat
        : smaller(larger(order.wantedSeconds ?? 3_600n, BigInt(kept.minimum)), room);
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
  refund: (order, quote, payment, granted, context) => ({ stepSeconds: 60n, percent: kept.refundPercent }),
};
