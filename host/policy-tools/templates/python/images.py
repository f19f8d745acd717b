"""An images policy: a default, and a list of what else customers may ask for.

The classes `Settings` and `Images` are the interfaces that the component exports.
"""

from dataclasses import dataclass, field

from componentize_py_types import Err
from wit_world import exports
from wit_world.imports.types import Context, ImageRef, Order, Refusal

from reader import Reader

SCHEMA = """{schema}"""

DEFAULT = "paygress.local/ssh:1"


@dataclass
class Kept:
    default: str = DEFAULT
    allow: list[str] = field(default_factory=list)


def read(reader: Reader) -> Kept:
    return Kept(reader.text("default", DEFAULT, complete), reader.texts("allow", 1000, complete))


def complete(image: str) -> str:
    """The image as it is, if it is complete. A digest has a colon too."""
    name, slash, last = image.rpartition("/")
    if not slash or ":" not in last or len(image) > 512:
        raise ValueError("must be complete: registry/repository:tag")
    return image


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


class Images(exports.Images):
    def admit(self, order: Order, context: Context) -> ImageRef:
        wanted = kept.default if order.image is None else order.image
        if wanted != kept.default and wanted not in kept.allow:
            message = "this image is not on the operator's list; leave pod_image out to get the default"
            # The error of a `result` is raised.
            raise Err(Refusal("image_not_allowed", message))
        return ImageRef(wanted)
