// node --test
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { Settings, boolean, choice, integer, list, map, object, text } from "./settings.js";

const { schema, cases } = JSON.parse(readFileSync(new URL("../../../plugins/sdk/tests/cases.json", import.meta.url)));

const declared = new Settings(
  "Of every kind",
  {
    seconds: integer(1, 3_600, { default: 60, description: 'A "comment".' }),
    enabled: boolean({ default: false }),
    image: text({ default: "a:1" }),
    labels: list(text(), { maxItems: 2, default: [] }),
    mode: choice(["slow", "very-fast"], { default: "slow" }),
    steps: list(object({ percent: integer(1, 90), days: integer(0, 3_650, { default: 0 }) }), { maxItems: 2, default: [] }),
  },
  (read, note) => {
    if (read.enabled && read.seconds > 100) note("seconds", "must not be more than 100 when enabled");
  },
);

function problems(settings, json) {
  try {
    settings.read(json);
    return [];
  } catch (thrown) {
    assert(Array.isArray(thrown), thrown);
    return thrown.map(({ path, message }) => [path, message]);
  }
}

test("the schema and the problems are those of every language", () => {
  assert.deepEqual(JSON.parse(declared.schema()), schema);
  for (const { settings, problems: expected } of cases) {
    assert.deepEqual(problems(declared, JSON.stringify(settings)), expected, JSON.stringify(settings));
  }
});

test("what is left out has its default", () => {
  const read = declared.read('{"mode": "very-fast", "steps": [{"percent": 5}]}');
  const expected = { seconds: 60, enabled: false, image: "a:1", labels: [], mode: "very-fast", steps: [{ percent: 5, days: 0 }] };
  assert.deepEqual(read, expected);
});

test("names may be of the operator's choice", () => {
  const odd = (number) => (number.length % 2 === 0 ? "must be odd" : undefined);
  const settings = new Settings("Maps", {
    texts: map(text({ check: odd }), { default: {} }),
    lists: map(list(text()), { default: {} }),
  });
  const read = settings.read('{"texts": {"__proto__": "a"}, "lists": {"b": ["c"]}}');
  assert.deepEqual([read.texts.get("__proto__"), read.lists.get("b")], ["a", ["c"]]);
  assert.deepEqual(problems(settings, '{"texts": {"b": 1, "a": "ab"}, "lists": {"a/b": 1, "c": [1]}}'), [
    ["/texts", "the value of a must be odd"],
    ["/texts", "the value of b must be a text"],
    ["/lists/a~1b", "must be a list of texts"],
    ["/lists/c/0", "must be a text"],
  ]);
  assert.deepEqual(problems(settings, '{"texts": []}'), [["/texts", "must be an object whose values are texts"]]);
});

test("an answer is bounded", () => {
  const many = Object.fromEntries(Array.from({ length: 5_000 }, (_, index) => [`${"ü".repeat(1_000)}${index}`, 1]));
  const found = problems(declared, JSON.stringify(many));
  assert.equal(found.length, 64);
  assert(found.flat().every((text) => Buffer.byteLength(text) <= 500), found[0]);
  assert(found[0][0].endsWith("ü…"));
  assert.deepEqual(problems(declared, JSON.stringify({ image: "ü".repeat(256) })), []);
  assert.equal(problems(declared, JSON.stringify({ image: "ü".repeat(257) }))[0][1], "must be a text of 1 to 512 bytes");
  const [[path, message]] = problems(declared, "nonsense");
  assert(path === "" && message.startsWith("is not JSON: "), message);
});
