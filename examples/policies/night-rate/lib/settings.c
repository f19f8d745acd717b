#include "settings.h"
#include "json.h"
#include <stdlib.h>
#include <string.h>

// The contract bounds the size of an answer, and a message in bytes.
enum { PROBLEMS = 64, MESSAGE = 500, TEXT_BYTES = 512, SCHEMA = 65536 };
static problem noted[PROBLEMS];

static string of(const char *constant) { return (string){(uint8_t *)constant, strlen(constant)}; }

static string shorten(string message) {
    if (message.len <= MESSAGE) return message;
    size_t end = MESSAGE - 3;
    while ((message.ptr[end] & 0xc0) == 0x80) end--;
    writer to = write_text(MESSAGE);
    put_text(&to, (string){message.ptr, end});
    put(&to, "…");
    return to.text;
}

static void add(problem_list *problems, string path, string message) {
    if (problems->len < PROBLEMS) problems->ptr[problems->len++] = (problem){shorten(path), shorten(message)};
}

// A JSON Pointer to a setting (RFC 6901 escapes two characters), with room for an index.
static writer pointer(string name) {
    writer path = write_text(1 + 2 * name.len + 21);
    put(&path, "/");
    for (size_t i = 0; i < name.len; i++) {
        if (name.ptr[i] == '~') put(&path, "~0");
        else if (name.ptr[i] == '/') put(&path, "~1");
        else put_text(&path, (string){name.ptr + i, 1});
    }
    return path;
}

// A message with a number or two.
static string counted(const char *before, int64_t number, const char *after, const int64_t *other) {
    writer message = write_text(MESSAGE);
    put(&message, before);
    put_number(&message, number);
    put(&message, after);
    if (other) put_number(&message, *other);
    return message.text;
}

static void add_wrong(problem_list *problems, const setting *setting, string message) {
    add(problems, pointer(of(setting->name)).text, message);
}

void note(problem_list *problems, const char *name, const char *message) {
    string path = pointer(of(name)).text;
    for (size_t i = 0; i < problems->len; i++) {
        if (same(problems->ptr[i].path, path)) return;
    }
    add(problems, path, of(message));
}

// Reads a string. Its length is measured first, so that no more memory than needed is allocated.
static bool text(json *in, string *read) {
    json ahead = *in;
    json_string measured = {0};
    if (!json_text(&ahead, &measured)) return false;
    json_string to = {realloc(NULL, measured.length), 0};
    json_text(in, &to);
    *read = (string){(uint8_t *)to.start, to.length};
    return true;
}

static bool begins(json in, char sign) { return json_take(&in, sign); }

// Each function reads a value, which is JSON: that is known.

static void read_number(json in, setting *to, problem_list *problems) {
    int64_t number;
    if (json_value(&in, &number) == JSON_NUMBER && number >= to->least && number <= to->most) to->number = number;
    else add_wrong(problems, to, counted("must be a whole number from ", to->least, " to ", &to->most));
}

static void read_truth(json in, setting *to, problem_list *problems) {
    bool truth = begins(in, 't');
    if (truth || begins(in, 'f')) to->number = truth;
    else add_wrong(problems, to, TEXT("must be true or false"));
}

static void read_text(json in, setting *to, problem_list *problems) {
    string read;
    if (!text(&in, &read) || read.len < 1 || read.len > TEXT_BYTES) {
        add_wrong(problems, to, TEXT("must be a text of 1 to 512 bytes"));
        return;
    }
    to->text = read;
    const char *wrong = to->wrong ? to->wrong(read) : NULL;
    if (wrong) add_wrong(problems, to, of(wrong));
}

static void read_texts(json in, setting *to, problem_list *problems) {
    if (!json_take(&in, '[')) {
        add_wrong(problems, to, TEXT("must be a list of texts"));
        return;
    }
    to->texts = (bindings_list_string_t){realloc(NULL, (size_t)to->most * sizeof(string)), 0};
    if (json_take(&in, ']')) return;
    size_t texts = 0;
    int64_t index = 0;
    do {
        string read;
        int64_t ignored;
        const char *wrong = "must be a text";
        if (text(&in, &read)) {
            wrong = to->wrong ? to->wrong(read) : NULL;
            if (++texts <= (size_t)to->most) to->texts.ptr[to->texts.len++] = read;
        } else {
            json_value(&in, &ignored);
        }
        if (wrong) {
            writer path = pointer(of(to->name));
            put(&path, "/");
            put_number(&path, index);
            add(problems, path.text, of(wrong));
        }
        index++;
    } while (json_take(&in, ','));
    if (texts > (size_t)to->most) add_wrong(problems, to, counted("must have at most ", to->most, " entries", NULL));
}

static void read_value(json in, setting *to, problem_list *problems) {
    switch (to->kind) {
    case A_NUMBER: read_number(in, to, problems); break;
    case A_TRUTH: read_truth(in, to, problems); break;
    case A_TEXT: read_text(in, to, problems); break;
    case SOME_TEXTS: read_texts(in, to, problems); break;
    }
}

// The names that are no settings, sorted: the first ones that can be reported.
typedef struct {
    string names[PROBLEMS];
    size_t len;
} unknown_names;

static bool is_before(string left, string right) {
    size_t shorter = left.len < right.len ? left.len : right.len;
    int difference = memcmp(left.ptr, right.ptr, shorter);
    return difference < 0 || (difference == 0 && left.len < right.len);
}

static void insert(unknown_names *unknown, string name) {
    size_t at = 0;
    while (at < unknown->len && is_before(unknown->names[at], name)) at++;
    if (at == PROBLEMS || (at < unknown->len && same(unknown->names[at], name))) return;
    if (unknown->len < PROBLEMS) unknown->len++;
    for (size_t i = unknown->len - 1; i > at; i--) unknown->names[i] = unknown->names[i - 1];
    unknown->names[at] = name;
}

// Finds the values, after the `{` of their object. Returns false if it is not JSON.
static bool find(json *in, setting *settings, size_t count, unknown_names *unknown) {
    if (json_take(in, '}')) return true;
    do {
        string name;
        int64_t ignored;
        // `text` also skips white space.
        if (!text(in, &name) || !json_take(in, ':')) return false;
        size_t i = 0;
        while (i < count && !same(of(settings[i].name), name)) i++;
        if (i < count) settings[i].given = in->at;
        else insert(unknown, name);
        if (json_value(in, &ignored) == JSON_BROKEN) return false;
    } while (json_take(in, ','));
    return json_take(in, '}');
}

static string known(const setting *settings, size_t count) {
    static const char BEFORE[] = "is not a setting; known are: ";
    size_t room = sizeof BEFORE;
    for (size_t i = 0; i < count; i++) room += strlen(settings[i].name) + 2;
    writer message = write_text(room);
    put(&message, BEFORE);
    for (size_t i = 0; i < count; i++) {
        if (i > 0) put(&message, ", ");
        put(&message, settings[i].name);
    }
    return message.text;
}

bool read_settings(string text, setting *settings, size_t count, void (*check)(problem_list *), problem_list *problems) {
    static unknown_names unknown;
    const char *start = (const char *)text.ptr, *end = start + text.len;
    json in = {start, end};
    int64_t ignored;
    *problems = (problem_list){noted, 0};
    unknown.len = 0;
    for (size_t i = 0; i < count; i++) settings[i].given = NULL;
    bool object = json_take(&in, '{');
    bool good = object ? find(&in, settings, count, &unknown) : json_value(&in, &ignored) != JSON_BROKEN;
    if (!good || !json_end(&in)) {
        add(problems, TEXT(""), counted("is not JSON: reading ended at byte ", in.at - start, "", NULL));
        return false;
    }
    if (!object) {
        add(problems, TEXT(""), TEXT("must be a JSON object"));
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        if (settings[i].given) read_value((json){settings[i].given, end}, &settings[i], problems);
    }
    if (check) check(problems);
    for (size_t i = 0; i < unknown.len; i++) add(problems, pointer(unknown.names[i]).text, known(settings, count));
    return problems->len == 0;
}

static void describe(writer *to, const setting *setting) {
    switch (setting->kind) {
    case A_NUMBER:
        put(to, "\"type\": \"integer\", \"minimum\": ");
        put_number(to, setting->least);
        put(to, ", \"maximum\": ");
        put_number(to, setting->most);
        put(to, ", \"default\": ");
        put_number(to, setting->otherwise);
        break;
    case A_TRUTH:
        put(to, "\"type\": \"boolean\", \"default\": ");
        put(to, setting->otherwise ? "true" : "false");
        break;
    case A_TEXT:
        put(to, "\"type\": \"string\", \"default\": ");
        put_json(to, setting->otherwise_text);
        break;
    case SOME_TEXTS:
        put(to, "\"type\": \"array\", \"maxItems\": ");
        put_number(to, setting->most);
        put(to, ", \"items\": {\"type\": \"string\"}, \"default\": []");
        break;
    }
    if (!setting->description) return;
    put(to, ",\n      \"description\": ");
    put_json(to, of(setting->description));
}

string write_schema(const char *title, const setting *settings, size_t count) {
    // A larger one is not accepted.
    writer to = write_text(SCHEMA);
    put(&to, "{\n  \"$schema\": \"https://json-schema.org/draft/2020-12/schema\",\n  \"title\": ");
    put_json(&to, of(title));
    put(&to, ",\n  \"type\": \"object\",\n  \"additionalProperties\": false,\n  \"properties\": {");
    for (size_t i = 0; i < count; i++) {
        put(&to, i > 0 ? ",\n    " : "\n    ");
        put_json(&to, of(settings[i].name));
        put(&to, ": {\n      ");
        describe(&to, &settings[i]);
        put(&to, "\n    }");
    }
    put(&to, "\n  }\n}");
    return to.text;
}
