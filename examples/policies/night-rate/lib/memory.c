// Memory without a C library, which would import WASI.
//
// An instance serves one call and is dropped with its memory. So nothing is ever freed, and constants may be returned to
// the host.
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

extern unsigned char __heap_base; // set by the linker: the end of data and stack

static uintptr_t next = 0;

// Allocates the arguments of a call for the host. Replaces the weak definition in the bindings.
__attribute__((export_name("cabi_realloc"))) void *cabi_realloc(void *old, size_t old_size, size_t align, size_t size) {
    if (next == 0) next = (uintptr_t)&__heap_base;
    uintptr_t start = (next + align - 1) & ~(uintptr_t)(align - 1);
    uintptr_t end = start + size;
    if (end < next) abort();
    uintptr_t have = (uintptr_t)__builtin_wasm_memory_size(0) << 16;
    // Fails above the memory limit of the host.
    if (end > have && __builtin_wasm_memory_grow(0, (end - have + 0xffff) >> 16) == (size_t)-1) abort();
    next = end;
    if (old_size > 0) memcpy((void *)start, old, old_size < size ? old_size : size);
    return (void *)start;
}

// Only for new memory: the old size is unknown here.
void *realloc(void *old, size_t size) {
    if (old) abort();
    return cabi_realloc(NULL, 0, 8, size);
}

void free(void *memory) { (void)memory; }

_Noreturn void abort(void) { __builtin_trap(); }

void *memcpy(void *restrict to, const void *restrict from, size_t size) {
    for (size_t i = 0; i < size; i++) ((unsigned char *)to)[i] = ((const unsigned char *)from)[i];
    return to;
}

void *memset(void *to, int byte, size_t size) {
    for (size_t i = 0; i < size; i++) ((unsigned char *)to)[i] = (unsigned char)byte;
    return to;
}

int memcmp(const void *left, const void *right, size_t size) {
    for (size_t i = 0; i < size; i++) {
        int difference = ((const unsigned char *)left)[i] - ((const unsigned char *)right)[i];
        if (difference != 0) return difference;
    }
    return 0;
}

size_t strlen(const char *text) {
    size_t length = 0;
    while (text[length]) length++;
    return length;
}
