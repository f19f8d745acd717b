"""An images policy: a default, and a list of what else customers may ask for.

The classes `Settings` and `Images` are the interfaces that the component exports.
"""

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.images import ImageOffer
from wit_world.imports.types import Context, ImageRef, Order, Refusal

from settings import Declared, list_of, read, schema, text


def complete(image: str) -> str:
    """The image as it is, if it is complete. A digest has a colon too."""
    name, slash, last = image.rpartition("/")
    if not slash or ":" not in last or len(image) > 512:
        raise ValueError("must be complete: registry/repository:tag")
    return image


class Kept(Declared, title="A list of images"):
    default: str = text(
        parse=complete,
        default="paygress.local/ssh:1",
        description="The image of orders that name none: registry/repository:tag.",
    )
    allow: list[str] = list_of(
        text(parse=complete),
        most=1_000,
        default=[],
        description="Other images that customers may choose, compared exactly: registry/repository:tag.",
    )


# Set by `configure`, which the host calls first in every instance. An instance serves one call, so nothing else is kept.
kept = Kept()


class Settings(exports.Settings):
    def schema(self) -> str:
        return schema(Kept)

    def configure(self, json: str) -> None:
        global kept
        kept = read(Kept, json)


class Images(exports.Images):
    def admit(self, order: Order, context: Context) -> ImageRef:
        wanted = kept.default if order.image is None else order.image
        if wanted != kept.default and wanted not in kept.allow:
            message = "this image is not on the operator's list; leave pod_image out to get the default"
            # The error of a `result` is raised.
            raise Err(Refusal("image_not_allowed", message))
        return ImageRef(wanted)

    def catalog(self, context: Context) -> list[ImageOffer]:
        # At most 64 are published.
        return [ImageOffer(image, None) for image in [kept.default, *kept.allow][:64]]
