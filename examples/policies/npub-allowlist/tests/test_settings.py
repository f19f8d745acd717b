"""python3 -m unittest discover tests"""

import json
import sys
import unittest
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType


class Err(Exception):
    def __init__(self, value):
        self.value = value


@dataclass
class Problem:
    path: str
    message: str


# What the component has of them, without the component.
for name in ("componentize_py_types", "wit_world", "wit_world.imports", "wit_world.imports.types"):
    sys.modules[name] = ModuleType(name)
sys.modules["componentize_py_types"].Err = Err
sys.modules["wit_world.imports.types"].Problem = Problem

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "src"))

from settings import Declared, boolean, choice, integer, list_of, map_of, read, schema, text

CASES = json.loads((HERE / "../../../../plugins/sdk/tests/cases.json").read_text())


class Step(Declared):
    percent: int = integer(1, 90)
    days: int = integer(0, 3_650, default=0)


class Settings(Declared, title="Of every kind"):
    seconds: int = integer(1, 3_600, default=60, description='A "comment".')
    enabled: bool = boolean(default=False)
    image: str = text(default="a:1")
    labels: list[str] = list_of(text(), most=2, default=[])
    mode: str = choice("slow", "very-fast", default="slow")
    steps: list[Step] = list_of(Step, most=2, default=[])

    def check(self, note):
        if self.enabled and self.seconds > 100:
            note("seconds", "must not be more than 100 when enabled")


def odd(text):
    if len(text) % 2 == 0:
        raise ValueError("must be odd")
    return text


class Maps(Declared, title="Maps"):
    texts: dict[str, str] = map_of(text(parse=odd), default={})
    lists: dict[str, list[str]] = map_of(list_of(text(parse=odd), most=1), default={})


def problems(declared, text):
    try:
        read(declared, text)
    except Err as error:
        return [[problem.path, problem.message] for problem in error.value]
    return []


class Test(unittest.TestCase):
    maxDiff = None

    def test_the_schema_and_the_problems_are_those_of_every_language(self):
        self.assertEqual(json.loads(schema(Settings)), CASES["schema"])
        for case in CASES["cases"]:
            self.assertEqual(problems(Settings, json.dumps(case["settings"])), case["problems"])

    def test_what_is_left_out_has_its_default(self):
        settings = read(Settings, '{"mode": "very-fast", "steps": [{"percent": 5}]}')
        self.assertEqual((settings.seconds, settings.mode, settings.steps[0].days), (60, "very-fast", 0))
        self.assertEqual((Settings().image, Settings().labels), ("a:1", []))

    def test_names_may_be_of_the_operators_choice(self):
        settings = read(Maps, '{"texts": {"a": "b"}, "lists": {"b": ["c"]}}')
        self.assertEqual((settings.texts, settings.lists), ({"a": "b"}, {"b": ["c"]}))
        wrong = problems(Maps, '{"texts": {"b": 1, "a": "ab"}, "lists": {"a/b": 1, "c": [1]}}')
        expected = [
            ["/texts", "the value of a must be odd"],
            ["/texts", "the value of b must be a text"],
            ["/lists/a~1b", "must be a list of texts"],
            ["/lists/c/0", "must be a text"],
        ]
        self.assertEqual(wrong, expected)
        expected = [["/lists/a/0", "must be odd"], ["/lists/a", "must have at most 1 entries"]]
        self.assertEqual(problems(Maps, '{"lists": {"a": ["ab", "b"]}}'), expected)
        self.assertEqual(problems(Maps, '{"texts": []}'), [["/texts", "must be an object whose values are texts"]])

    def test_an_answer_is_bounded(self):
        found = problems(Settings, json.dumps({"ü" * 1_000 + str(number): 1 for number in range(5_000)}))
        self.assertEqual(len(found), 64)
        self.assertTrue(all(len(text.encode()) <= 500 for each in found for text in each))
        self.assertTrue(found[0][0].endswith("ü…"))
        self.assertEqual(problems(Settings, json.dumps({"image": "ü" * 256})), [])
        self.assertEqual(len(problems(Settings, json.dumps({"image": "ü" * 257}))), 1)
        # A lone surrogate is JSON, and not UTF-8.
        self.assertEqual(problems(Settings, '{"\\ud800": 1}')[0][0], "/?")
        for text in ("", "nonsense", '{"seconds": NaN}', "{} {}"):
            self.assertTrue(problems(Settings, text)[0][1].startswith("is not JSON: "), text)
