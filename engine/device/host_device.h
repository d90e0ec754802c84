#pragma once
// COLONNADE_HOST_DEVICE marks a function that both devices run: one formula, two compilers.

#ifdef __CUDACC__
#define COLONNADE_HOST_DEVICE __host__ __device__
#else
#define COLONNADE_HOST_DEVICE
#endif
