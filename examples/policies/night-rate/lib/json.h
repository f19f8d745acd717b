// As much JSON as settings need. Other values are checked and skipped.
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    const char *at, *end;
} json;

// `start` is null to skip a string.
typedef struct {
    char *start;
    size_t length;
} json_string;

typedef enum { JSON_BROKEN, JSON_NUMBER, JSON_OTHER } json_kind;

// Skips white space, and `sign` if it follows.
bool json_take(json *in, char sign);

// Skips white space; returns whether nothing follows.
bool json_end(json *in);

// Reads a string into `to`, which needs as many bytes as are left: decoding never makes a string longer.
bool json_text(json *in, json_string *to);

// Reads a value. Only whole numbers of at most 18 digits are JSON_NUMBER; 1.0 and 1e3 are JSON_OTHER.
json_kind json_value(json *in, int64_t *number);
