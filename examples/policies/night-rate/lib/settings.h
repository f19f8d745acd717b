// Reads settings: every problem is noted with its JSON Pointer, and reading goes on, so that all are told at once.
#pragma once
#include "text.h"

typedef exports_paygress_policy_settings_problem_t problem;
typedef exports_paygress_policy_settings_list_problem_t problem_list;

// What may be set. Its value is the default until `read_settings` has found another.
typedef struct {
    const char *name;
    enum { A_NUMBER, A_TEXT, SOME_TEXTS } kind;
    // A whole number, and its range. Of texts: how many there may be at most.
    int64_t number, least, most;
    string text;
    bindings_list_string_t texts;
    // What is wrong with a text, or null; left out: any text is good.
    const char *(*wrong)(string);
} setting;

// Reads the JSON. The settings are good if no problem is in the list afterwards. False: it is no object of JSON at all.
bool read_settings(string json, setting *settings, size_t count, problem_list *problems);

// Notes a problem with a setting.
void note(problem_list *problems, const char *name, string message);
