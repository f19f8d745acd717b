// What the bindings use of the standard library. See memory.c.
#pragma once
#include <stddef.h>

void *realloc(void *old, size_t size);
void free(void *memory);
_Noreturn void abort(void);
