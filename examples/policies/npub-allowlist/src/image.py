"""The name of an image, taken apart as container runtimes do, so that `alpine` and `docker.io/library/alpine:latest` are the same."""

import re
from dataclasses import dataclass, replace
from functools import cache

_LABEL = "[a-z0-9](?:[a-z0-9-]*[a-z0-9])?"
_REGISTRY = re.compile(rf"{_LABEL}(?:\.{_LABEL})*(?::([1-9][0-9]{{0,4}}))?")
_PART = "[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_PART}(?:/{_PART})*")
_TAG = re.compile("[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile("sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class Image:
    """`name[:tag][@digest]`, where the name begins with a registry."""

    name: str
    tag: str | None
    digest: str | None

    def complete(self) -> "Image":
        """The one image that it means: by digest if it has one (the tag beside it means nothing), or by tag."""
        return replace(self, tag=None if self.digest else self.tag or "latest")

    def allows(self, wanted: "Image") -> bool:
        """Whether this entry of a list allows that complete image."""
        if self.name != wanted.name:
            return False
        if self.digest:
            return wanted.digest == self.digest
        if self.tag:
            return wanted.digest is None and wanted.tag == self.tag
        return True

    def __str__(self) -> str:
        return self.name + (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")


# Customers' lists repeat each other.
@cache
def image(text: str) -> Image:
    """Reads a name as a customer or an operator writes it. Raises ValueError with what is wrong."""
    # 512 bytes, of which no name has more than one in a character.
    if not 1 <= len(text) <= 512:
        raise ValueError("an image's name has 1 to 512 bytes")
    name, at, digest = text.partition("@")
    # A colon after the last slash begins a tag; before it, a registry's port.
    head, colon, tag = name.rpartition(":")
    if colon and "/" not in tag:
        name = head
    else:
        colon, tag = "", ""
    # The first part is a registry if it could not be a repository's: with a dot, a port, or `localhost`.
    registry, slash, repository = name.partition("/")
    if not slash or not ("." in registry or ":" in registry or registry == "localhost"):
        registry, repository = "docker.io", name
    if registry == "index.docker.io":
        registry = "docker.io"
    if registry == "docker.io" and "/" not in repository:
        repository = f"library/{repository}"

    host = _REGISTRY.fullmatch(registry)
    if not host or int(host[1] or 0) > 65535:
        raise ValueError("not an image's name: its registry is not a host name, with a port or without")
    if not _REPOSITORY.fullmatch(repository):
        raise ValueError("not an image's name: its repository may hold lower-case letters, digits and single separators . _ -")
    if colon and not _TAG.fullmatch(tag):
        raise ValueError("not an image's name: its tag may hold 1 to 128 letters, digits, _ . -")
    if at and not _DIGEST.fullmatch(digest):
        raise ValueError("not an image's name: its digest must be sha256: and 64 lower-case hex digits")
    return Image(f"{registry}/{repository}", tag or None, digest or None)
