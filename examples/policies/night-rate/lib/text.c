#include "text.h"
#include <stdlib.h>
#include <string.h>

bool same(string left, string right) { return left.len == right.len && memcmp(left.ptr, right.ptr, left.len) == 0; }

writer write_text(size_t room) { return (writer){{realloc(NULL, room), 0}, room}; }

static void put_bytes(writer *to, const void *bytes, size_t length) {
    if (length > to->room - to->text.len) abort();
    memcpy(to->text.ptr + to->text.len, bytes, length);
    to->text.len += length;
}

void put(writer *to, const char *constant) { put_bytes(to, constant, strlen(constant)); }

void put_text(writer *to, string text) { put_bytes(to, text.ptr, text.len); }

void put_number(writer *to, int64_t number) {
    char digits[20];
    size_t start = sizeof digits;
    uint64_t rest = number < 0 ? 0 - (uint64_t)number : (uint64_t)number;
    do digits[--start] = (char)('0' + rest % 10);
    while ((rest /= 10) > 0);
    if (number < 0) put(to, "-");
    put_bytes(to, digits + start, sizeof digits - start);
}

void put_json(writer *to, string text) {
    put(to, "\"");
    for (size_t i = 0; i < text.len; i++) {
        uint8_t c = text.ptr[i];
        char escaped[6] = {'\\', 'u', '0', '0', "0123456789abcdef"[c >> 4], "0123456789abcdef"[c & 15]};
        if (c < 0x20 || c == '"' || c == '\\') put_bytes(to, escaped, sizeof escaped);
        else put_bytes(to, &c, 1);
    }
    put(to, "\"");
}
