// The settings of a policy: declared once, by name, with their types, defaults and limits. The declaration makes the JSON
// Schema, and reads the settings: all problems are reported at once, each with its JSON Pointer. The texts are those of the
// Rust SDK. A setting without a default is required.

export class Settings {
  #title;
  #object;

  // `check` reports what the declarations do not say: it gets the settings, and a function of a name and a message.
  constructor(title, fields, check) {
    this.#title = title;
    this.#object = object(fields, { check });
  }

  schema() {
    const dialect = "https://json-schema.org/draft/2020-12/schema";
    return JSON.stringify({ $schema: dialect, title: this.#title, ...this.#object.schema }, null, 2);
  }

  // The settings, by name. Throws the problems, if any, as the contract requires.
  read(json) {
    const problems = [];
    const settings = this.#read(json, (path, message) => {
      problems.push({ path, message });
    });
    // The contract bounds the size of an answer.
    const shortened = ({ path, message }) => ({ path: shorten(path), message: shorten(message) });
    if (problems.length > 0) throw problems.slice(0, 64).map(shortened);
    return settings;
  }

  #read(json, report) {
    let value;
    try {
      value = JSON.parse(json);
    } catch (error) {
      return report("", `is not JSON: ${error.message}`);
    }
    return isObject(value) ? this.#object.read(value, "", report) : report("", "must be a JSON object");
  }
}

// Each of these declares a setting or an entry of one. `about` has its `default` and `description`.

// A whole number, at most Number.MAX_SAFE_INTEGER.
export function integer(minimum, maximum, about) {
  const isGood = (value) => Number.isSafeInteger(value) && value >= minimum && value <= maximum;
  const message = `must be a whole number from ${minimum} to ${maximum}`;
  return simple({ type: "integer", minimum, maximum }, about, minimum, (value) => (isGood(value) ? undefined : message));
}

export function boolean(about) {
  return simple({ type: "boolean" }, about, false, (value) => (typeof value === "boolean" ? undefined : "must be true or false"));
}

// `about.minLength` and `about.maxLength` are in bytes: 1 and 512 without them, and any number of bytes for an entry of a list
// or a map. `about.check` returns what else is wrong with a text, or undefined.
export function text(about = {}) {
  const fault = (value, isEntry) => {
    const isFree = isEntry && about.minLength === undefined && about.maxLength === undefined;
    return textFault(value, isFree, about.minLength, about.maxLength);
  };
  return { ...simple({ type: "string" }, about, "", fault), plural: "texts" };
}

// One of these texts.
export function choice(names, about) {
  const message = `must be ${names.join(" or ")}`;
  const fault = (value) => (names.includes(value) ? undefined : (textFault(value) ?? message));
  return simple({ enum: names }, about, names[0], fault);
}

// `about.minItems` and `about.maxItems` are the least and the largest number of entries.
export function list(of, about = {}) {
  const { minItems: least = 0, maxItems: most = Infinity } = about;
  return {
    ...simple({ type: "array", items: of.schema }, about, []),
    read(value, path, report) {
      if (!Array.isArray(value)) return report(path, `must be a list${of.plural ? ` of ${of.plural}` : ""}`);
      const entries = value.map((each, index) => entry(of, each, `${path}/${index}`, report));
      const good = entries.filter((each) => each !== undefined);
      if (good.length < least || good.length > most) report(path, `must have ${entriesFrom(about)} entries`);
      return good;
    },
  };
}

// Any names, with a value each. It is read as a Map.
export function map(of, about) {
  return {
    ...simple({ type: "object", additionalProperties: of.schema }, about, new Map()),
    plural: "objects",
    read(value, path, report) {
      const message = of.plural ? `must be an object whose values are ${of.plural}` : "must be a JSON object";
      if (!isObject(value)) return report(path, message);
      // Texts are reported with their map.
      const isOfTexts = of.plural === "texts";
      const read = (key) => {
        const named = (_, message) => report(path, `the value of ${key} ${message}`);
        return entry(of, value[key], pointer(path, key), isOfTexts ? named : report);
      };
      const entries = Object.keys(value).sort().map((key) => [key, read(key)]);
      return new Map(entries.filter(([, each]) => each !== undefined));
    },
  };
}

// Settings inside a setting, mostly inside a list. `about.check` is that of `Settings`.
export function object(fields, about = {}) {
  const names = Object.keys(fields);
  const required = names.filter((name) => fields[name].fallback === undefined);
  const properties = Object.fromEntries(names.map((name) => [name, { ...fields[name].schema }]));
  const schema = { type: "object", additionalProperties: false, ...(required.length > 0 && { required }), properties };
  return {
    ...simple(schema, about, {}),
    plural: "objects",
    read(value, path, report) {
      if (!isObject(value)) return report(path, "must be a JSON object");
      const wrong = new Set();
      const note = (name, message) => {
        // What is wrong in itself was replaced: it is reported once.
        if (!wrong.has(name)) report(pointer(path, name), message);
      };
      const read = (name) => {
        const [field, place] = [fields[name], pointer(path, name)];
        const noted = (at, message) => {
          if (at === place) wrong.add(name);
          report(at, message);
        };
        if (!Object.hasOwn(value, name) && field.fallback === undefined) noted(place, "is missing");
        const given = Object.hasOwn(value, name) ? field.read(value[name], place, noted) : undefined;
        return given ?? (field.fallback === undefined ? field.standIn : field.read(field.fallback, place, noted));
      };
      const settings = Object.fromEntries(names.map((name) => [name, read(name)]));
      about.check?.(settings, note);
      const unknown = Object.keys(value).filter((name) => !names.includes(name)).sort();
      for (const name of unknown) note(name, `is not a setting; known are: ${names.join(", ")}`);
      return settings;
    },
  };
}

// `standIn` is in the place of a value that is missing or wrong, so that the others can be checked. `fault` returns what is
// wrong, or undefined.
function simple(schema, { check, ...about } = {}, standIn, fault) {
  const read = (value, path, report, isEntry) => {
    const message = fault(value, isEntry);
    if (message !== undefined) return report(path, message);
    const checked = check?.(value);
    if (checked !== undefined) report(path, checked);
    return value;
  };
  return { schema: { ...schema, ...about }, fallback: about.default, standIn, read };
}

// A value of a list or a map. One that should be an object is read as an empty one: what is missing is reported too.
function entry(of, value, path, report) {
  const isWrong = of.plural === "objects" && !isObject(value);
  if (isWrong) report(path, "must be a JSON object");
  return of.read(isWrong ? {} : value, path, report, true);
}

function textFault(value, isFree = false, least = 1, most = 512) {
  const isText = typeof value === "string";
  if (isFree) return isText ? undefined : "must be a text";
  return isText && bytes(value) >= least && bytes(value) <= most ? undefined : `must be a text of ${least} to ${most} bytes`;
}

function entriesFrom({ minItems, maxItems }) {
  if (maxItems === undefined) return `at least ${minItems}`;
  return minItems === undefined ? `at most ${maxItems}` : `${minItems} to ${maxItems}`;
}

const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);

// RFC 6901 escapes these two characters.
const pointer = (path, name) => `${path}/${name.replaceAll("~", "~0").replaceAll("/", "~1")}`;

// The length in UTF-8.
const bytes = (text) => [...text].reduce((sum, each) => sum + width(each.codePointAt(0)), 0);
const width = (character) => [0x80, 0x800, 0x10000].filter((first) => character >= first).length + 1;

// To the 500 bytes that the contract allows.
function shorten(message) {
  if (bytes(message) <= 500) return message;
  let short = "";
  for (const character of message.slice(0, 500)) {
    if (bytes(short + character) > 497) break;
    short += character;
  }
  return `${short}…`;
}
