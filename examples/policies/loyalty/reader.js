// Reads settings. A mistake does not stop it: all problems are reported at once, each with its JSON Pointer.

export class Reader {
  #path;
  #object;
  #known = [];
  #problems = [];

  constructor(path, value) {
    this.#path = path;
    const isObject = typeof value === "object" && value !== null && !Array.isArray(value);
    this.#object = isObject ? value : {};
    if (!isObject) this.#problems.push({ path, message: "must be a JSON object" });
  }

  // Returns what `read` makes of the settings; throws the problems, if any, as the contract requires.
  static read(json, read) {
    const reader = Reader.#parse(json);
    const settings = read(reader);
    const problems = reader.problems();
    // The contract bounds the size of an answer.
    if (problems.length > 0) throw problems.slice(0, 64);
    return settings;
  }

  static #parse(json) {
    try {
      return new Reader("", JSON.parse(json));
    } catch (error) {
      const reader = new Reader("", {});
      reader.#problems.push({ path: "", message: `is not JSON: ${error.message}` });
      return reader;
    }
  }

  // RFC 6901 escapes these two characters.
  #pointer(name) {
    return `${this.#path}/${name.replaceAll("~", "~0").replaceAll("/", "~1")}`;
  }

  #take(name) {
    this.#known.push(name);
    return Object.hasOwn(this.#object, name) ? this.#object[name] : undefined;
  }

  // Reports a problem with a setting.
  note(name, message) {
    this.#problems.push({ path: this.#pointer(name), message });
  }

  // A whole number within a range. Without a default (undefined) it is required.
  number(name, fallback, least, most) {
    const value = this.#take(name);
    if (value === undefined && fallback !== undefined) return fallback;
    if (Number.isSafeInteger(value) && value >= least && value <= most) return value;
    this.note(name, value === undefined ? "is missing" : `must be a whole number from ${least} to ${most}`);
    return least;
  }

  // A string. `wrong` returns what is wrong with it, or undefined.
  text(name, fallback, wrong) {
    const value = this.#take(name);
    if (value === undefined) return fallback;
    const problem = typeof value === "string" ? wrong(value) : "must be a text";
    if (problem === undefined) return value;
    this.note(name, problem);
    return fallback;
  }

  #list(name, most, of) {
    const value = this.#take(name);
    if (value === undefined) return undefined;
    if (!Array.isArray(value)) {
      this.note(name, `must be a list of ${of}`);
      return undefined;
    }
    if (value.length > most) {
      // One problem, not one per entry.
      this.note(name, `must hold at most ${most} entries`);
      return undefined;
    }
    return value;
  }

  // An array of strings, empty if omitted. `wrong` returns what is wrong with one, or undefined.
  texts(name, most, wrong) {
    const texts = this.#list(name, most, "texts") ?? [];
    texts.forEach((text, index) => {
      const message = typeof text === "string" ? wrong(text) : "must be a text";
      if (message !== undefined) this.#problems.push({ path: `${this.#pointer(name)}/${index}`, message });
    });
    return texts;
  }

  // An array of objects, each read by `read`; undefined if omitted.
  objects(name, most, read) {
    return this.#list(name, most, "objects")?.map((item, index) => {
      const reader = new Reader(`${this.#pointer(name)}/${index}`, item);
      const object = read(reader);
      this.#problems.push(...reader.problems());
      return object;
    });
  }

  // All problems, those of unknown settings last.
  problems() {
    const unknown = Object.keys(this.#object).filter((name) => !this.#known.includes(name));
    const message = `is not a setting; known are: ${this.#known.join(", ")}`;
    return [...this.#problems, ...unknown.map((name) => ({ path: this.#pointer(name), message }))];
  }
}
