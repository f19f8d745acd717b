"""An images policy: only customers whose npub is on the operator's list may order, and only images that are theirs.

The classes `Settings` and `Images` are the interfaces that the component exports.
"""

from dataclasses import dataclass

from componentize_py_types import Err
from wit_world import exports
from wit_world.imports.types import Context, ImageRef, Order, Refusal

from image import Image, image
from npub import public_key
from reader import Reader

# What runs when the customer names no image: the one that `cargo xtask ssh-image` makes.
DEFAULT = "paygress.local/ssh:1"

SCHEMA = """{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "title": "Customers on a list",
  "type": "object",
  "additionalProperties": false,
  "properties": {
    "default": {
      "type": "string", "default": "paygress.local/ssh:1",
      "description": "The image of orders that name none; everybody on the list may have it."
    },
    "allow": {
      "type": "array", "maxItems": 1000, "items": {"type": "string"}, "default": [],
      "description": "What else everybody on the list may ask for: registry/repository:tag, registry/repository@sha256:… or registry/repository (every tag and digest of it)."
    },
    "customers": {
      "type": "object", "default": {},
      "propertyNames": {"pattern": "^(npub1[02-9ac-hj-np-z]{58}|NPUB1[02-9AC-HJ-NP-Z]{58}|[0-9a-f]{64})$"},
      "additionalProperties": {"type": "array", "maxItems": 1000, "items": {"type": "string"}},
      "description": "The list: npubs or public keys in hex, and what each may ask for besides. Left out, nobody may order."
    }
  }
}"""


@dataclass
class Rules:
    default: Image
    allow: list[Image]
    customers: dict[str, list[Image]]


# Set by `configure`, which the host calls first in every instance. An instance serves one call, so nothing else is kept.
rules: Rules | None = None


class Settings(exports.Settings):
    def schema(self) -> str:
        return SCHEMA

    def configure(self, json: str) -> None:
        global rules
        reader = Reader.parse(json)
        # A call has 100 ms, and the settings are read anew in each: hence at most 1000 images.
        default = reader.text("default", DEFAULT, image).complete()
        read = Rules(default, reader.texts("allow", 1000, image), customers(reader.inner("customers")))
        reader.end()
        rules = read


class Images(exports.Images):
    def admit(self, order: Order, context: Context) -> ImageRef:
        if rules is None:
            raise refusal("the image policy is not configured")
        # `bearer:…` and the empty customer are no keys, so they are not on the list.
        own = rules.customers.get(order.customer)
        if own is None:
            raise refusal("this service is for invited customers, and your public key is not on the operator's list")
        if order.image is None:
            return ImageRef(str(rules.default))
        try:
            wanted = image(order.image).complete()
        except ValueError as why:
            raise refusal(str(why)) from None
        if wanted != rules.default and not any(entry.allows(wanted) for entry in (*rules.allow, *own)):
            raise refusal(f"{short(wanted)} is not among your images; leave pod_image out to get {short(rules.default)}")
        return ImageRef(str(wanted))


def customers(reader: Reader) -> dict[str, list[Image]]:
    listed: dict[str, list[Image]] = {}
    for name in reader.object:
        images = reader.texts(name, 1000, image)
        try:
            key = public_key(name)
        except ValueError as why:
            reader.note(name, str(why))
            continue
        if key in listed:
            reader.note(name, "is the public key of another entry, written differently")
        listed[key] = images
    return listed


def refusal(message: str) -> Err[Refusal]:
    return Err(Refusal("image_not_allowed", message))


def short(name: Image) -> str:
    """A message has 500 bytes, a name up to 512."""
    text = str(name)
    return text if len(text) <= 200 else f"{text[:199]}…"
