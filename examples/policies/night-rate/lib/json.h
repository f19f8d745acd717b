// As much JSON as settings need: one object of whole numbers. What else there may be is checked and passed over.
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    const char *at, *end;
} json;

// `start` is null for a text that nobody wants to see.
typedef struct {
    char *start;
    size_t length;
} json_string;

typedef enum { JSON_BROKEN, JSON_NUMBER, JSON_OTHER } json_kind;

// Passes over white space, and over `sign` if it follows.
bool json_take(json *in, char sign);

// Passes over white space. Whether nothing follows.
bool json_end(json *in);

// Reads a text to `to`, which needs room for as many bytes as are left: nothing gets longer when it is decoded.
bool json_text(json *in, json_string *to);

// Reads a value. A number is one that is written as a whole number and has at most 18 digits; 1.0 and 1e3 are other values.
json_kind json_value(json *in, int64_t *number);
