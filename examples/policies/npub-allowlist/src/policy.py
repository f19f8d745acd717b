"""An images policy: only customers on the operator's list may order, and each has its own images.

The classes `Settings` and `Images` are the interfaces that the component exports.
"""

from dataclasses import dataclass

from componentize_py_types import Err
from wit_world import exports
from wit_world.imports.types import Context, ImageRef, Order, Refusal

from image import Image, image
from npub import public_key
from reader import Reader

# The image that `cargo xtask images` builds.
DEFAULT = "paygress.local/ssh:1"

SCHEMA = """{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "title": "Customer allowlist",
  "type": "object",
  "additionalProperties": false,
  "properties": {
    "default": {
      "type": "string", "default": "paygress.local/ssh:1",
      "description": "The image of orders that do not name one; allowed to all customers on the list."
    },
    "allow": {
      "type": "array", "maxItems": 1000, "items": {"type": "string"}, "default": [],
      "description": "The images that all customers on the list may choose: registry/repository:tag, registry/repository@sha256:… or registry/repository (all its tags and digests)."
    },
    "customers": {
      "type": "object", "default": {},
      "propertyNames": {"pattern": "^(npub1[02-9ac-hj-np-z]{58}|NPUB1[02-9AC-HJ-NP-Z]{58}|[0-9a-f]{64})$"},
      "additionalProperties": {"type": "array", "maxItems": 1000, "items": {"type": "string"}},
      "description": "The list: npubs or public keys in hex, each with the images that only this customer may choose. If omitted, no customer may order."
    }
  }
}"""


@dataclass
class Rules:
    default: Image
    allow: list[Image]
    customers: dict[str, list[Image]]


# Set by `configure`, the first call in every instance. An instance serves one call, so there is no other state.
rules: Rules | None = None


class Settings(exports.Settings):
    def schema(self) -> str:
        return SCHEMA

    def configure(self, json: str) -> None:
        global rules
        reader = Reader.parse(json)
        # A call has 100 ms, and each call parses the settings: hence at most 1000 images.
        default = reader.text("default", DEFAULT, image).complete()
        read = Rules(default, reader.texts("allow", 1000, image), customers(reader.inner("customers")))
        reader.end()
        rules = read


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


def customers(reader: Reader) -> dict[str, list[Image]]:
    listed: dict[str, list[Image]] = {}
    for name in reader.object:
        images = reader.texts(name, 1000, image)
        try:
            key = public_key(name)
        except ValueError as error:
            reader.note(name, str(error))
            continue
        if key in listed:
            reader.note(name, "is the same public key as another entry")
        listed[key] = images
    return listed


def refusal(message: str) -> Err[Refusal]:
    return Err(Refusal("image_not_allowed", message))


def short(name: Image) -> str:
    """Shortens a name: it may have 512 bytes, a message only 500."""
    text = str(name)
    return text if len(text) <= 200 else f"{text[:199]}…"
