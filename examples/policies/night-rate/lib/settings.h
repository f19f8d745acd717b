// The settings of a policy: an array, in which each is declared once, with its default and its limits. It makes the JSON
// Schema, and reads the settings: all problems are reported at once, each with its JSON Pointer. The texts are those of the
// Rust SDK.
#pragma once
#include "text.h"

typedef exports_paygress_policy_settings_problem_t problem;
typedef exports_paygress_policy_settings_list_problem_t problem_list;

// A setting. Its value is the default until `read_settings` has read another.
typedef struct {
    const char *name, *description;
    enum { A_NUMBER, A_TRUTH, A_TEXT, SOME_TEXTS } kind;
    // The value by its kind; `number` is 0 or 1 for A_TRUTH.
    int64_t number;
    string text;
    bindings_list_string_t texts;
    // The limits of a number, and of the number of texts.
    int64_t least, most;
    // Returns what is wrong with a text, or null; optional.
    const char *(*wrong)(string);
    // The default.
    int64_t otherwise;
    string otherwise_text;
    // Where its value is in the JSON.
    const char *given;
} setting;

// Each of these declares a setting; the description may be null.

// A whole number of at most 18 digits.
#define NUMBER(called, usual, minimum, maximum, describes)                                                                    \
    {.name = (called), .description = (describes), .kind = A_NUMBER, .number = (usual), .otherwise = (usual),                 \
     .least = (minimum), .most = (maximum)}
#define TRUTH(called, usual, describes)                                                                                       \
    {.name = (called), .description = (describes), .kind = A_TRUTH, .number = (usual), .otherwise = (usual)}
// Has 1 to 512 bytes. The default is a literal.
#define STRING(called, usual, check, describes)                                                                               \
    {.name = (called), .description = (describes), .kind = A_TEXT, .wrong = (check),                                          \
     .text = {(uint8_t *)(usual), sizeof(usual) - 1}, .otherwise_text = {(uint8_t *)(usual), sizeof(usual) - 1}}
// Is empty if it is left out.
#define STRINGS(called, maximum, check, describes)                                                                            \
    {.name = (called), .description = (describes), .kind = SOME_TEXTS, .most = (maximum), .wrong = (check)}

// The JSON Schema.
string write_schema(const char *title, const setting *settings, size_t count);

// Reads the JSON. Returns whether there are no problems. `check` reports what the declarations do not say; it may be null.
bool read_settings(string json, setting *settings, size_t count, void (*check)(problem_list *), problem_list *problems);

// Reports a problem with a setting; not if it is wrong in itself, for then its default is in its place.
void note(problem_list *problems, const char *name, const char *message);
