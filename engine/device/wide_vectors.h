#pragma once
// COLONNADE_WIDE_VECTORS before a leaf function compiles it for AVX-512 as well (x86-64-v4); the loader chooses by the
// processor. For loops that gain much: see docs/benchmarks.md, "Instruction sets". A function with an OpenMP parallel
// region gains nothing, since GCC moves the region into a function of its own that has no clone.

// The loader chooses before a sanitizer is ready to run code. If AVX-512 is enabled for everything, nothing is left to
// choose.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__AVX512F__) && \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define COLONNADE_WIDE_VECTORS [[gnu::target_clones("arch=x86-64-v4", "default")]]
#else
#define COLONNADE_WIDE_VECTORS
#endif
