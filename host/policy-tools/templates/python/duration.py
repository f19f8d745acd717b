"""A duration policy: the whole amount at the quoted price, between a minimum and a maximum.

The classes `Settings` and `Duration` are the interfaces that the component exports.
"""

from dataclasses import dataclass

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.duration import RefundTerms
from wit_world.imports.types import Context, Grant, Order, Payment, Purpose_Extend, Quote, Refusal

from reader import Reader

SCHEMA = """{schema}"""


@dataclass
class Kept:
    minimum: int = 60
    maximum: int = 2_592_000
    refund_percent: int = 100


def read(reader: Reader) -> Kept:
    settings = Kept(
        reader.number("minimum_seconds", 60, 1, 315_360_000),
        reader.number("maximum_seconds", 2_592_000, 1, 315_360_000),
        reader.number("refund_percent", 100, 0, 100),
    )
    if settings.minimum > settings.maximum:
        reader.note("minimum_seconds", "must not be more than maximum_seconds")
    return settings


# Set by `configure`, which the host calls first in every instance. An instance serves one call, so nothing else is kept.
kept = Kept()


class Settings(exports.Settings):
    def schema(self) -> str:
        return SCHEMA

    def configure(self, json: str) -> None:
        global kept
        reader = Reader.parse(json)
        kept = read(reader)
        reader.end()


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
        room = max(kept.maximum - remaining, 0)
        least = max(kept.minimum, order.wanted_seconds or 0)
        if quote.price.msat > 0:
            seconds = payment.net_sat * 1_000 * quote.price.seconds // quote.price.msat
        else:
            # Free time lasts as long as requested, or an hour.
            wanted = 3_600 if order.wanted_seconds is None else order.wanted_seconds
            seconds = min(max(wanted, kept.minimum), room)
        if seconds < least:
            message = f"the token is worth {payment.net_sat} sat and buys {seconds} s; the least is {least} s"
            raise refusal("insufficient_payment", message)
        if seconds > room:
            raise refusal("invalid_request", f"the token buys {seconds} s, and this pod may have at most {room} s more")
        return Grant(seconds, None)

    def refund(self, order: Order, quote: Quote, payment: Payment, granted: Grant, context: Context) -> RefundTerms:
        # Used minutes are charged whole.
        return RefundTerms(step_seconds=60, percent=kept.refund_percent)
