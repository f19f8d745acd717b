// What the settings need of the bindings.
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    uint8_t *ptr;
    size_t len;
} bindings_string_t;

typedef struct {
    bindings_string_t *ptr;
    size_t len;
} bindings_list_string_t;

typedef struct {
    bindings_string_t path, message;
} exports_paygress_policy_settings_problem_t;

typedef struct {
    exports_paygress_policy_settings_problem_t *ptr;
    size_t len;
} exports_paygress_policy_settings_list_problem_t;
