// Texts of the contract, and how they are put together.
#pragma once
#include "bindings.h"

typedef bindings_string_t string;

// What is handed to the host may be constant: nothing is ever freed, see memory.c.
#define TEXT(constant) ((string){(uint8_t *)(constant), sizeof(constant) - 1})

bool same(string left, string right);

// A text that is being written. What has no room is a trap: a mistake of the policy.
typedef struct {
    string text;
    size_t room;
} writer;

writer write_text(size_t room);
void put(writer *to, const char *constant);
void put_text(writer *to, string text);
void put_number(writer *to, int64_t number);

// As a text of JSON, with its quotation marks.
void put_json(writer *to, string text);
