#include "json.h"

// Each level uses stack space. Settings have one level.
enum { DEEPEST = 100 };

// Skips the next byte if it is in this range.
static bool next(json *in, char least, char most) {
    if (in->at == in->end || *in->at < least || *in->at > most) return false;
    in->at++;
    return true;
}

static bool literal(json *in, const char *text) {
    while (*text && next(in, *text, *text)) text++;
    return !*text;
}

bool json_end(json *in) {
    while (next(in, ' ', ' ') || next(in, '\t', '\n') || next(in, '\r', '\r')) {}
    return in->at == in->end;
}

bool json_take(json *in, char sign) { return !json_end(in) && next(in, sign, sign); }

static void put(json_string *to, uint32_t byte) {
    if (to->start) to->start[to->length] = (char)byte;
    to->length++;
}

// A character as UTF-8: never more bytes than its `\u` escape.
static void put_character(json_string *to, uint32_t c) {
    if (c < 0x80) {
        put(to, c);
        return;
    }
    if (c < 0x800) {
        put(to, 0xc0 | c >> 6);
    } else {
        if (c < 0x10000) {
            put(to, 0xe0 | c >> 12);
        } else {
            put(to, 0xf0 | c >> 18);
            put(to, 0x80 | (c >> 12 & 0x3f));
        }
        put(to, 0x80 | (c >> 6 & 0x3f));
    }
    put(to, 0x80 | (c & 0x3f));
}

static bool hex(json *in, uint32_t *unit) {
    *unit = 0;
    for (int i = 0; i < 4; i++) {
        uint32_t digit;
        if (next(in, '0', '9')) digit = (uint32_t)(in->at[-1] - '0');
        else if (next(in, 'a', 'f')) digit = (uint32_t)(in->at[-1] - 'a') + 10;
        else if (next(in, 'A', 'F')) digit = (uint32_t)(in->at[-1] - 'A') + 10;
        else return false;
        *unit = *unit << 4 | digit;
    }
    return true;
}

// The part of an escape after the backslash.
static bool escape(json *in, json_string *to) {
    static const char escapes[] = "\"\\/bfnrt", meanings[] = "\"\\/\b\f\n\r\t";
    for (int i = 0; escapes[i]; i++) {
        if (next(in, escapes[i], escapes[i])) {
            put(to, (uint32_t)meanings[i]);
            return true;
        }
    }
    uint32_t unit, low;
    if (!next(in, 'u', 'u') || !hex(in, &unit)) return false;
    if (unit >= 0xd800 && unit < 0xe000) {
        // Two surrogates are a character. A lone one is replaced with U+FFFD.
        json ahead = *in;
        bool pair = unit < 0xdc00 && literal(&ahead, "\\u") && hex(&ahead, &low) && low >= 0xdc00 && low < 0xe000;
        if (pair) *in = ahead;
        unit = pair ? 0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00) : 0xfffd;
    }
    put_character(to, unit);
    return true;
}

bool json_text(json *in, json_string *to) {
    if (!json_take(in, '"')) return false;
    to->length = 0;
    while (!next(in, '"', '"')) {
        if (next(in, '\\', '\\')) {
            if (!escape(in, to)) return false;
            continue;
        }
        // The host guarantees UTF-8; JSON requires control characters to be escaped.
        if (in->at == in->end || (unsigned char)*in->at < 0x20) return false;
        put(to, (unsigned char)*in->at++);
    }
    return true;
}

static bool digits(json *in) {
    const char *start = in->at;
    while (next(in, '0', '9')) {}
    return in->at > start;
}

static json_kind number(json *in, int64_t *read) {
    bool negative = next(in, '-', '-');
    const char *first = in->at;
    if (!digits(in)) return JSON_BROKEN;
    const char *last = in->at;
    if (*first == '0' && last - first > 1) return JSON_BROKEN;
    if (next(in, '.', '.') && !digits(in)) return JSON_BROKEN;
    if (next(in, 'e', 'e') || next(in, 'E', 'E')) {
        if (!next(in, '+', '+')) next(in, '-', '-');
        if (!digits(in)) return JSON_BROKEN;
    }
    if (in->at != last || last - first > 18) return JSON_OTHER;
    *read = 0;
    for (; first < last; first++) *read = *read * 10 + (*first - '0');
    if (negative) *read = -*read;
    return JSON_NUMBER;
}

static json_kind value(json *in, int64_t *read, int depth) {
    json_string unseen = {0};
    int64_t ignored;
    if (depth > DEEPEST) return JSON_BROKEN;
    bool good;
    if (json_take(in, '{')) {
        good = json_take(in, '}');
        while (!good) {
            if (!json_text(in, &unseen) || !json_take(in, ':') || !value(in, &ignored, depth + 1)) return JSON_BROKEN;
            good = json_take(in, '}');
            if (!good && !json_take(in, ',')) return JSON_BROKEN;
        }
        return JSON_OTHER;
    }
    if (json_take(in, '[')) {
        good = json_take(in, ']');
        while (!good) {
            if (!value(in, &ignored, depth + 1)) return JSON_BROKEN;
            good = json_take(in, ']');
            if (!good && !json_take(in, ',')) return JSON_BROKEN;
        }
        return JSON_OTHER;
    }
    if (in->at == in->end) return JSON_BROKEN;
    switch (*in->at) {
    case '"': good = json_text(in, &unseen); break;
    case 't': good = literal(in, "true"); break;
    case 'f': good = literal(in, "false"); break;
    case 'n': good = literal(in, "null"); break;
    default: return number(in, read);
    }
    return good ? JSON_OTHER : JSON_BROKEN;
}

json_kind json_value(json *in, int64_t *number) { return value(in, number, 0); }
