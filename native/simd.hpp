// A hot loop is compiled once per instruction set, and the version is chosen at load time, so that one
// wheel is fast on every x86-64 machine. Elsewhere the plain version is the only one.
#pragma once

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && defined(__linux__)
#define ISOTONE_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define ISOTONE_CLONES
#endif

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#define ISOTONE_X86 1
#endif
