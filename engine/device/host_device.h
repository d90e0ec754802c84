#pragma once
// COLONNADE_HOST_DEVICE marks a function that is compiled for both devices, so that a formula exists once.

#ifdef __CUDACC__
#define COLONNADE_HOST_DEVICE __host__ __device__
#else
#define COLONNADE_HOST_DEVICE
#endif
