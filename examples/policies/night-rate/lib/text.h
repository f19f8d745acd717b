// Strings of the contract, and how to write them.
#pragma once
#include "bindings.h"

typedef bindings_string_t string;

// Constants may be returned to the host: nothing is ever freed, see memory.c.
#define TEXT(constant) ((string){(uint8_t *)(constant), sizeof(constant) - 1})

bool same(string left, string right);

// A string that is being written. It traps if there is no room: that is a bug in the policy.
typedef struct {
    string text;
    size_t room;
} writer;

writer write_text(size_t room);
void put(writer *to, const char *constant);
void put_text(writer *to, string text);
void put_number(writer *to, int64_t number);

// Writes a JSON string, with quotation marks.
void put_json(writer *to, string text);
