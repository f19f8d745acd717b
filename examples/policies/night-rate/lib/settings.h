// Reads settings. A mistake does not stop it: all problems are reported at once, each with its JSON Pointer.
#pragma once
#include "text.h"

typedef exports_paygress_policy_settings_problem_t problem;
typedef exports_paygress_policy_settings_list_problem_t problem_list;

// A setting. Its value is the default until `read_settings` has read another.
typedef struct {
    const char *name;
    enum { A_NUMBER, A_TEXT, SOME_TEXTS } kind;
    // A whole number and its range. For SOME_TEXTS, `most` is the maximum number of entries.
    int64_t number, least, most;
    string text;
    bindings_list_string_t texts;
    // Returns what is wrong with a string, or null; optional.
    const char *(*wrong)(string);
} setting;

// Parses the JSON. The settings are valid if there are no problems. Returns false if it is not a JSON object.
bool read_settings(string json, setting *settings, size_t count, problem_list *problems);

// Reports a problem with a setting.
void note(problem_list *problems, const char *name, string message);
