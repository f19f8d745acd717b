"""The settings of a policy: a class, whose attributes are declared once, with their types, defaults and limits.

    class OnePrice(Declared, title="One price"):
        sats_per_hour: int = integer(1, 1_000_000, default=60)

`schema` makes the JSON Schema, and `read` the settings: all problems are reported at once, each with its JSON Pointer. The
texts are those of the Rust SDK. A setting without a default is required. `OnePrice()` has the defaults.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from componentize_py_types import Err
from wit_world.imports.types import Problem

# Reports a problem: where, and what to write instead.
Report = Callable[[str, str], None]

# What is wrong, which has been reported: of another type, or not what `parse` takes.
_WRONG: Any = object()
_NOT_PARSED: Any = object()
_MISSING: Any = object()


class Declared:
    """The base class of settings, and of the entries of a list that are settings themselves."""

    _title: str | None = None
    _fields: dict[str, "_Kind"] = {}

    def __init_subclass__(cls, title: str | None = None):
        cls._title = title
        cls._fields = {name: value for name, value in vars(cls).items() if isinstance(value, _Kind)}

    def __init__(self) -> None:
        for name, field in self._fields.items():
            setattr(self, name, field.otherwise("", lambda path, message: None))

    def check(self, note: Report) -> None:
        """Reports what the declarations do not say: `note(name, message)`."""


def schema(declared: type[Declared]) -> str:
    """The JSON Schema."""
    described = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": declared._title, **_schema(declared)}
    return json.dumps(described, indent=2, ensure_ascii=False)


def read(declared: type[Declared], text: str) -> Any:
    """The settings. Raises all problems as the contract requires."""
    problems: list[Problem] = []

    def report(path: str, message: str) -> None:
        # The contract bounds the size of an answer.
        if len(problems) < 64:
            problems.append(Problem(_shorten(path), _shorten(message)))

    settings = None
    try:
        # Python accepts NaN and Infinity; JSON does not.
        value = json.loads(text, parse_constant=_no_number)
    except ValueError as error:
        report("", f"is not JSON: {error}")
    else:
        if isinstance(value, dict):
            settings = _read(declared, value, "", report)
        else:
            report("", "must be a JSON object")
    if problems:
        raise Err(problems)
    return settings


@dataclass
class _Kind:
    """How a value is described and read. `stand_in` is in the place of one that is missing or wrong."""

    schema: dict[str, Any]
    stand_in: Any
    take: Callable[[Any, str, Report], Any]
    default: Any = _MISSING
    plural: str = ""
    # As a value of a list or a map, if that is another.
    inner: Callable[[Any, str, Report], Any] | None = None

    def otherwise(self, path: str, report: Report) -> Any:
        return self.stand_in if self.default is _MISSING else self.take(self.default, path, report)

    def entry(self, value: Any, path: str, report: Report) -> Any:
        if self.plural == "objects" and not isinstance(value, dict):
            # What is missing is reported too.
            report(path, "must be a JSON object")
            value = {}
        return (self.inner or self.take)(value, path, report)


def _kind(schema: dict[str, Any], stand_in: Any, take: Callable[..., Any], default: Any, description: str, **more: Any) -> Any:
    if default is not _MISSING:
        schema["default"] = default
    if description:
        schema["description"] = description
    return _Kind(schema, stand_in, take, default, **more)


def integer(minimum: int, maximum: int, default: Any = _MISSING, description: str = "") -> Any:
    """A whole number."""

    def take(value: Any, path: str, report: Report) -> Any:
        # True and False are integers in Python.
        if isinstance(value, int) and not isinstance(value, bool) and minimum <= value <= maximum:
            return value
        report(path, f"must be a whole number from {minimum} to {maximum}")
        return _WRONG

    schema = {"type": "integer", "minimum": minimum, "maximum": maximum}
    return _kind(schema, minimum, take, default, description)


def boolean(default: Any = _MISSING, description: str = "") -> Any:
    def take(value: Any, path: str, report: Report) -> Any:
        if isinstance(value, bool):
            return value
        report(path, "must be true or false")
        return _WRONG

    return _kind({"type": "boolean"}, False, take, default, description)


def text(parse: Callable[[str], Any] = str, default: Any = _MISSING, description: str = "") -> Any:
    """What `parse` makes of a text, for instance of 1 to 512 bytes; an entry of a list or a map may have any number. It
    raises ValueError with what is wrong."""

    def inner(value: Any, path: str, report: Report) -> Any:
        if not isinstance(value, str):
            report(path, "must be a text")
            return _WRONG
        try:
            return parse(value)
        except ValueError as error:
            report(path, str(error))
            return _NOT_PARSED

    def take(value: Any, path: str, report: Report) -> Any:
        fault = _text_fault(value)
        if fault is None:
            return inner(value, path, report)
        report(path, fault)
        return _WRONG

    return _kind({"type": "string"}, "", take, default, description, plural="texts", inner=inner)


def choice(*names: str, default: Any = _MISSING, description: str = "") -> Any:
    """One of these texts."""

    def take(value: Any, path: str, report: Report) -> Any:
        if isinstance(value, str) and value in names:
            return value
        report(path, _text_fault(value) or f"must be {' or '.join(names)}")
        return _WRONG

    return _kind({"enum": list(names)}, names[0], take, default, description)


def list_of(of: Any, most: int, default: Any = _MISSING, description: str = "") -> Any:
    """A list of at most so many entries, each of them of a kind or `Declared`."""
    of = _as_kind(of)

    def take(value: Any, path: str, report: Report) -> Any:
        if not isinstance(value, list):
            report(path, "must be a list" + (f" of {of.plural}" if of.plural else ""))
            return _WRONG
        read = [of.entry(entry, f"{path}/{index}", report) for index, entry in enumerate(value)]
        if sum(entry is not _WRONG for entry in read) > most:
            report(path, f"must have at most {most} entries")
        return [entry for entry in read if not _is_wrong(entry)]

    return _kind({"type": "array", "maxItems": most, "items": of.schema}, [], take, default, description)


def map_of(
    of: Any,
    names: str = "",
    parse: Callable[[dict[str, Any], Report], Any] = lambda read, note: read,
    default: Any = _MISSING,
    description: str = "",
) -> Any:
    """Any names, with a value each, of a kind or `Declared`. `names` is a pattern, for the schema only. It is what `parse`
    makes of a dict, which may report problems of an entry: `note(name, message)`."""
    of = _as_kind(of)

    def take(value: Any, path: str, report: Report) -> Any:
        if not isinstance(value, dict):
            report(path, f"must be an object whose values are {of.plural}" if of.plural else "must be a JSON object")
            return _WRONG

        def entry(key: str) -> Any:
            if of.plural != "texts":
                return of.entry(value[key], _pointer(path, key), report)
            # Reported with their map.
            return of.entry(value[key], path, lambda path, message: report(path, f"the value of {key} {message}"))

        read = {key: entry(key) for key in sorted(value)}
        good = {key: each for key, each in read.items() if not _is_wrong(each)}
        return parse(good, lambda name, message: report(_pointer(path, name), message))

    schema = {"type": "object", "additionalProperties": of.schema}
    if names:
        schema["propertyNames"] = {"pattern": names}
    return _kind(schema, {}, take, default, description, plural="objects")


def _as_kind(of: Any) -> _Kind:
    if isinstance(of, _Kind):
        return of

    def take(value: Any, path: str, report: Report) -> Any:
        return _read(of, value, path, report)

    return _Kind(_schema(of), None, take, plural="objects")


def _schema(declared: type[Declared]) -> dict[str, Any]:
    described: dict[str, Any] = {"type": "object", "additionalProperties": False}
    required = [name for name, field in declared._fields.items() if field.default is _MISSING]
    if required:
        described["required"] = required
    return {**described, "properties": {name: field.schema for name, field in declared._fields.items()}}


def _read(declared: type[Declared], given: dict[str, Any], path: str, report: Report) -> Declared:
    settings = declared.__new__(declared)
    wrong = set()
    for name, field in declared._fields.items():
        place = _pointer(path, name)
        value = _WRONG
        if name in given:
            value = field.take(given[name], place, report)
        elif field.default is _MISSING:
            report(place, "is missing")
        if _is_wrong(value):
            if name in given or field.default is _MISSING:
                wrong.add(name)
            value = field.otherwise(place, report)
        setattr(settings, name, value)

    def note(name: str, message: str) -> None:
        # What is wrong in itself was replaced: it is reported once.
        if name not in wrong:
            report(_pointer(path, name), message)

    settings.check(note)
    for name in sorted(given.keys() - declared._fields.keys()):
        report(_pointer(path, name), f"is not a setting; known are: {', '.join(declared._fields)}")
    return settings


def _is_wrong(value: Any) -> bool:
    return value is _WRONG or value is _NOT_PARSED


def _text_fault(value: Any) -> str | None:
    if isinstance(value, str) and 1 <= len(value.encode(errors="replace")) <= 512:
        return None
    return "must be a text of 1 to 512 bytes"


def _pointer(path: str, name: str) -> str:
    # RFC 6901 escapes these two characters.
    return f"{path}/{name.replace('~', '~0').replace('/', '~1')}"


def _shorten(message: str) -> str:
    # To the 500 bytes that the contract allows. JSON can escape lone surrogates, which UTF-8 cannot encode.
    encoded = message.encode(errors="replace")
    return encoded.decode() if len(encoded) <= 500 else encoded[:497].decode(errors="ignore") + "…"


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number")
