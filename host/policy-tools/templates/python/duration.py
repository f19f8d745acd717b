"""A duration policy: the whole amount at the quoted price, between a minimum and a maximum.

The classes `Settings` and `Duration` are the interfaces that the component exports.
"""

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.duration import RefundTerms
from wit_world.imports.types import Context, Grant, Order, Payment, Purpose_Extend, Quote, Refusal

from settings import Declared, Report, integer, read, schema

# Ten years, the most that the contract allows.
LONGEST = 315_360_000


class Kept(Declared, title="A minimum and a maximum"):
    minimum_seconds: int = integer(1, LONGEST, default=60, description="A payment that buys less is refused.")
    maximum_seconds: int = integer(
        1,
        LONGEST,
        default=2_592_000,
        description="A pod never has more than this before it; a payment that would exceed it is refused.",
    )
    refund_percent: int = integer(
        0,
        100,
        default=100,
        description="The part of the price of unused time that is refunded when a customer stops a pod.",
    )

    def check(self, note: Report) -> None:
        if self.minimum_seconds > self.maximum_seconds:
            note("minimum_seconds", "must not be more than maximum_seconds")


# Set by `configure`, which the host calls first in every instance. An instance serves one call, so nothing else is kept.
kept = Kept()


class Settings(exports.Settings):
    def schema(self) -> str:
        return schema(Kept)

    def configure(self, json: str) -> None:
        global kept
        kept = read(Kept, json)


def refusal(code: str, message: str) -> Err[Refusal]:
    """The error of a `result` is raised."""
    return Err(Refusal(code, message))


class Duration(exports.Duration):
    def grant(self, order: Order, quote: Quote, payment: Payment, context: Context) -> Grant:
        remaining = 0
        if isinstance(order.purpose, Purpose_Extend):
            lease = order.purpose.value
            remaining = lease.remaining_seconds
            if remaining == 0:
                raise refusal("lease_expired", "this pod has ended; order a new one")
            if not lease.owned_by_customer:
                raise refusal("not_owner", "only the customer who bought this pod may extend it")
        room = max(kept.maximum_seconds - remaining, 0)
        least = max(kept.minimum_seconds, order.wanted_seconds or 0)
        if quote.price.msat > 0:
            seconds = payment.net_sat * 1_000 * quote.price.seconds // quote.price.msat
        else:
            # Free time lasts as long as requested, or an hour.
            wanted = 3_600 if order.wanted_seconds is None else order.wanted_seconds
            seconds = min(max(wanted, kept.minimum_seconds), room)
        if seconds < least:
            message = f"the token is worth {payment.net_sat} sat and buys {seconds} s; the least is {least} s"
            raise refusal("insufficient_payment", message)
        if seconds > room:
            raise refusal("invalid_request", f"the token buys {seconds} s, and this pod may have at most {room} s more")
        return Grant(seconds, None)

    def refund(self, order: Order, quote: Quote, payment: Payment, granted: Grant, context: Context) -> RefundTerms:
        # Used minutes are charged whole.
        return RefundTerms(step_seconds=60, percent=kept.refund_percent)
