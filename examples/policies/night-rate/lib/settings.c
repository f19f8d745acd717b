#include "settings.h"
#include "json.h"
#include <stdlib.h>
#include <string.h>

// The contract bounds the size of an answer.
enum { PROBLEMS = 64 };
static problem noted[PROBLEMS];

// The longest message of the contract, in bytes.
enum { MESSAGE = 500 };

static void add(problem_list *problems, string path, string message) {
    if (problems->len < PROBLEMS) problems->ptr[problems->len++] = (problem){path, message};
}

// A JSON Pointer to a setting (RFC 6901 escapes two characters), with room for an index.
static writer pointer(string name) {
    writer path = write_text(1 + 2 * name.len + 20);
    put(&path, "/");
    for (size_t i = 0; i < name.len; i++) {
        if (name.ptr[i] == '~') put(&path, "~0");
        else if (name.ptr[i] == '/') put(&path, "~1");
        else put_text(&path, (string){name.ptr + i, 1});
    }
    return path;
}

static string of(const char *constant) { return (string){(uint8_t *)constant, strlen(constant)}; }

void note(problem_list *problems, const char *name, string message) { add(problems, pointer(of(name)).text, message); }

static string range(int64_t least, int64_t most) {
    writer message = write_text(MESSAGE);
    put(&message, "must be a whole number from ");
    put_number(&message, least);
    put(&message, " to ");
    put_number(&message, most);
    return message.text;
}

static string at_most(int64_t most) {
    writer message = write_text(MESSAGE);
    put(&message, "must hold at most ");
    put_number(&message, most);
    put(&message, " entries");
    return message.text;
}

static string unknown(const setting *settings, size_t count) {
    writer message = write_text(MESSAGE);
    put(&message, "is not a setting; known are: ");
    for (size_t i = 0; i < count; i++) {
        if (i > 0) put(&message, ", ");
        put(&message, settings[i].name);
    }
    return message.text;
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

// Each function reads a value and reports its problems. Returns false if it is not JSON.

static bool read_number(json *in, setting *to, problem_list *problems) {
    int64_t number;
    json_kind kind = json_value(in, &number);
    if (kind == JSON_NUMBER && number >= to->least && number <= to->most) to->number = number;
    else note(problems, to->name, range(to->least, to->most));
    return kind != JSON_BROKEN;
}

static bool read_text(json *in, string *to, const setting *setting, string path, problem_list *problems) {
    int64_t ignored;
    if (!begins(*in, '"')) {
        add(problems, path, TEXT("must be a text"));
        return json_value(in, &ignored) != JSON_BROKEN;
    }
    if (!text(in, to)) return false;
    const char *wrong = setting->wrong ? setting->wrong(*to) : NULL;
    if (wrong) add(problems, path, of(wrong));
    return true;
}

static bool read_texts(json *in, setting *to, problem_list *problems) {
    int64_t ignored;
    if (!json_take(in, '[')) {
        note(problems, to->name, TEXT("must be a list of texts"));
        return json_value(in, &ignored) != JSON_BROKEN;
    }
    if (!to->texts.ptr) to->texts.ptr = realloc(NULL, (size_t)to->most * sizeof(string));
    to->texts.len = 0;
    if (json_take(in, ']')) return true;
    size_t entries = 0;
    do {
        string unused, *entry = entries < (size_t)to->most ? &to->texts.ptr[to->texts.len++] : &unused;
        *entry = (string){0};
        writer path = pointer(of(to->name));
        put(&path, "/");
        put_number(&path, (int64_t)entries++);
        if (!read_text(in, entry, to, path.text, problems)) return false;
    } while (json_take(in, ','));
    if (entries > (size_t)to->most) note(problems, to->name, at_most(to->most));
    return json_take(in, ']');
}

static bool read_value(json *in, setting *to, problem_list *problems) {
    switch (to->kind) {
    case A_TEXT: return read_text(in, &to->text, to, pointer(of(to->name)).text, problems);
    case SOME_TEXTS: return read_texts(in, to, problems);
    default: return read_number(in, to, problems);
    }
}

// The members of an object, after its `{`. Returns false if it is not JSON.
static bool members(json *in, setting *settings, size_t count, problem_list *problems) {
    if (json_take(in, '}')) return true;
    do {
        string name;
        int64_t ignored;
        // `text` also skips white space.
        if (!text(in, &name) || !json_take(in, ':')) return false;
        size_t i = 0;
        while (i < count && !same(of(settings[i].name), name)) i++;
        if (i < count) {
            if (!read_value(in, &settings[i], problems)) return false;
        } else {
            if (json_value(in, &ignored) == JSON_BROKEN) return false;
            if (problems->len < PROBLEMS) add(problems, pointer(name).text, unknown(settings, count));
        }
    } while (json_take(in, ','));
    return json_take(in, '}');
}

bool read_settings(string text, setting *settings, size_t count, problem_list *problems) {
    json in = {(const char *)text.ptr, (const char *)text.ptr + text.len};
    int64_t ignored;
    *problems = (problem_list){noted, 0};
    bool object = json_take(&in, '{');
    bool good = object ? members(&in, settings, count, problems) : json_value(&in, &ignored) != JSON_BROKEN;
    good = good && json_end(&in);
    if (!good) {
        problems->len = 0;
        add(problems, TEXT(""), TEXT("is not JSON"));
    } else if (!object) {
        add(problems, TEXT(""), TEXT("must be a JSON object"));
    }
    return object && good;
}
