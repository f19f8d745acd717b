"""OCI image references, parsed as container runtimes do: `alpine` and `docker.io/library/alpine:latest` are the same."""

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
    """`name[:tag][@digest]`; the name starts with a registry."""

    name: str
    tag: str | None
    digest: str | None

    def complete(self) -> "Image":
        """With exactly one of digest and tag: a tag beside a digest has no meaning, and the default tag is `latest`."""
        return replace(self, tag=None if self.digest else self.tag or "latest")

    def allows(self, requested: "Image") -> bool:
        """Whether this entry of an allowlist allows a complete reference."""
        if self.name != requested.name:
            return False
        if self.digest:
            return requested.digest == self.digest
        if self.tag:
            return requested.digest is None and requested.tag == self.tag
        return True

    def __str__(self) -> str:
        return self.name + (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")


# The lists of customers often name the same images.
@cache
def image(text: str) -> Image:
    """Parses a name as people write it; a missing registry is `docker.io`. Raises ValueError with what is wrong."""
    # In a valid name every character is one byte.
    if not 1 <= len(text) <= 512:
        raise ValueError("an image name must have 1 to 512 bytes")
    name, at, digest = text.partition("@")
    # A colon after the last slash starts a tag; before it, the port of the registry.
    head, colon, tag = name.rpartition(":")
    if colon and "/" not in tag:
        name = head
    else:
        colon, tag = "", ""
    # The first component is a registry if it has a dot or a port, or is `localhost`.
    registry, slash, repository = name.partition("/")
    if not slash or not ("." in registry or ":" in registry or registry == "localhost"):
        registry, repository = "docker.io", name
    if registry == "index.docker.io":
        registry = "docker.io"
    if registry == "docker.io" and "/" not in repository:
        repository = f"library/{repository}"

    host = _REGISTRY.fullmatch(registry)
    if not host or int(host[1] or 0) > 65535:
        raise ValueError("not an image name: the registry must be a host name with an optional port")
    if not _REPOSITORY.fullmatch(repository):
        raise ValueError("not an image name: the repository may have lower-case letters, digits and single separators . _ -")
    if colon and not _TAG.fullmatch(tag):
        raise ValueError("not an image name: the tag must have 1 to 128 letters, digits, _ . -")
    if at and not _DIGEST.fullmatch(digest):
        raise ValueError("not an image name: the digest must be sha256: and 64 lower-case hex digits")
    return Image(f"{registry}/{repository}", tag or None, digest or None)
