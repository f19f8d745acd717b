"""Reads settings. A mistake does not stop it: all problems are reported at once, each with its JSON Pointer."""

import json
from collections.abc import Callable
from typing import TypeVar

from componentize_py_types import Err
from wit_world.imports.types import Problem

T = TypeVar("T")


class Reader:
    """One JSON object of settings."""

    def __init__(self, value: object, path: tuple[str | int, ...] = (), problems: list[Problem] | None = None):
        self.path = path
        self.problems: list[Problem] = [] if problems is None else problems
        self.known: list[str] = []
        self.object: dict[str, object] = {}
        if isinstance(value, dict):
            self.object = value
        else:
            self._note("must be a JSON object")

    @classmethod
    def parse(cls, text: str) -> "Reader":
        """Parses the settings."""
        try:
            # Python accepts NaN and Infinity; JSON does not.
            return cls(json.loads(text, parse_constant=_no_number))
        except ValueError as error:
            reader = cls({})
            reader._note(f"is not JSON: {error}")
            return reader

    def _note(self, message: str, *steps: str | int) -> None:
        # RFC 6901 escapes these two characters.
        pointer = "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in (*self.path, *steps))
        # JSON can escape lone surrogates, which UTF-8 cannot encode.
        self.problems.append(Problem(pointer.encode(errors="replace").decode(), message))

    def note(self, name: str, message: str) -> None:
        """Reports a problem with a setting."""
        self._note(message, name)

    def _take(self, name: str, default: object) -> object:
        self.known.append(name)
        return self.object.get(name, default)

    def number(self, name: str, default: int, least: int, most: int) -> int:
        """A whole number within a range."""
        value = self._take(name, default)
        # True and False are integers in Python.
        if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
            return value
        self._note(f"must be a whole number from {least} to {most}", name)
        return default

    def _text(self, value: object, read: Callable[[str], T], *steps: str | int) -> T | None:
        if not isinstance(value, str):
            self._note("must be a text", *steps)
            return None
        try:
            return read(value)
        except ValueError as error:
            self._note(str(error), *steps)
            return None

    def text(self, name: str, default: str, read: Callable[[str], T]) -> T:
        """What `read` makes of a string. It raises ValueError with what is wrong."""
        value = self._text(self._take(name, default), read, name)
        # After a problem the settings are not used.
        return read(default) if value is None else value

    def texts(self, name: str, most: int, read: Callable[[str], T]) -> list[T]:
        """What `read` makes of each of a list of strings, empty if omitted. It raises ValueError with what is wrong."""
        entries = self._take(name, [])
        if not isinstance(entries, list):
            self._note("must be a list of texts", name)
            return []
        if len(entries) > most:
            # One problem, not one per entry.
            self._note(f"must hold at most {most} entries", name)
            return []
        values = (self._text(entry, read, name, index) for index, entry in enumerate(entries))
        return [value for value in values if value is not None]

    def inner(self, name: str) -> "Reader":
        """An object with settings of its own, empty if omitted."""
        return Reader(self._take(name, {}), (*self.path, name), self.problems)

    def end(self) -> None:
        """Reports unknown settings, and raises all problems as the contract requires."""
        for name in self.object:
            if name not in self.known:
                self._note(f"is not a setting; known are: {', '.join(self.known)}", name)
        if self.problems:
            # The contract bounds the size of an answer.
            raise Err(self.problems[:64])


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number")
