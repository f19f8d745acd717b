"""An images policy: only customers on the operator's list may order, and each has its own images.

The classes `Settings` and `Images` are the interfaces that the component exports.
"""

from componentize_py_types import Err
from wit_world import exports
from wit_world.imports.types import Context, ImageRef, Order, Refusal

from image import Image, image
from npub import public_key
from settings import Declared, Report, list_of, map_of, read, schema, text

# A call has 100 ms, and it may be one that parses the settings.
IMAGES = 1000


def customers(listed: dict[str, list[Image]], note: Report) -> dict[str, list[Image]]:
    """By the public key in hex."""
    known: dict[str, list[Image]] = {}
    for name, images in listed.items():
        try:
            key = public_key(name)
        except ValueError as error:
            note(name, str(error))
            continue
        if key in known:
            note(name, "is the same public key as another entry")
        known[key] = images
    return known


class Rules(Declared, title="Customer allowlist"):
    # The image that `cargo xtask images` builds.
    default: Image = text(
        parse=lambda name: image(name).complete(),
        default="paygress.local/ssh:1",
        description="The image of orders that do not name one; allowed to all customers on the list.",
    )
    allow: list[Image] = list_of(
        text(parse=image),
        most=IMAGES,
        default=[],
        description="The images that all customers on the list may choose: registry/repository:tag, "
        "registry/repository@sha256:… or registry/repository (all its tags and digests).",
    )
    customers: dict[str, list[Image]] = map_of(
        list_of(text(parse=image), most=IMAGES),
        names="^(npub1[02-9ac-hj-np-z]{58}|NPUB1[02-9AC-HJ-NP-Z]{58}|[0-9a-f]{64})$",
        parse=customers,
        default={},
        description="The list: npubs or public keys in hex, each with the images that only this customer may choose. "
        "If omitted, no customer may order.",
    )


# Set by `configure`, the first call in every instance. An instance serves one call, so there is no other state.
rules: Rules | None = None


class Settings(exports.Settings):
    def schema(self) -> str:
        return schema(Rules)

    def configure(self, json: str) -> None:
        global rules
        rules = read(Rules, json)


class Images(exports.Images):
    def admit(self, order: Order, context: Context) -> ImageRef:
        if rules is None:
            raise refusal("the images policy is not configured")
        # `bearer:…` and the empty customer are not public keys, so they are never on the list.
        own = rules.customers.get(order.customer)
        if own is None:
            raise refusal("this service is for invited customers, and your public key is not on the operator's list")
        if order.image is None:
            return ImageRef(str(rules.default))
        try:
            requested = image(order.image).complete()
        except ValueError as error:
            raise refusal(str(error)) from None
        if requested != rules.default and not any(entry.allows(requested) for entry in (*rules.allow, *own)):
            raise refusal(f"{short(requested)} is not among your images; leave pod_image out to get {short(rules.default)}")
        return ImageRef(str(requested))


def refusal(message: str) -> Err[Refusal]:
    return Err(Refusal("image_not_allowed", message))


def short(name: Image) -> str:
    """Shortens a name: it may have 512 bytes, a message only 500."""
    text = str(name)
    return text if len(text) <= 200 else f"{text[:199]}…"
