"""A pricing policy: one size, so many sat an hour.

The classes `Settings` and `Pricing` are the interfaces that the component exports.
"""

from componentize_py_types import Err
from wit_world import exports
from wit_world.imports.types import Context, Offer, Order, Price, Purpose_Extend, Quote, Refusal, Resources

from settings import Declared, integer, read, schema

# More is a mistake in the settings.
MOST = 10_000_000_000


class Kept(Declared, title="One price"):
    sats_per_hour: int = integer(1, MOST, default=60)
    minimum_sat: int = integer(0, MOST, default=1, description="The least net amount that is accepted, in sat.")


# Set by `configure`, which the host calls first in every instance. An instance serves one call, so nothing else is kept.
kept = Kept()


class Settings(exports.Settings):
    def schema(self) -> str:
        return schema(Kept)

    def configure(self, json: str) -> None:
        global kept
        kept = read(Kept, json)


SIZE = Resources(cpu_millicores=1_000, memory_mib=1_024)


def price() -> Price:
    """Exact: in thousandths of a sat, for an hour."""
    return Price(msat=kept.sats_per_hour * 1_000, seconds=3_600)


class Pricing(exports.Pricing):
    def offers(self, context: Context) -> list[Offer]:
        return [Offer("standard", "Standard", "A pod with SSH", SIZE, price(), kept.minimum_sat)]

    def quote(self, order: Order, context: Context) -> Quote:
        # More time for a running pod is of its tier.
        tier = order.purpose.value.tier if isinstance(order.purpose, Purpose_Extend) else order.tier
        if tier not in (None, "standard"):
            # The error of a `result` is raised.
            raise Err(Refusal("invalid_spec", "there is no such tier; choose: standard"))
        return Quote("standard", SIZE, price(), kept.minimum_sat)
