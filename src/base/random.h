/* SPDX-License-Identifier: MIT
 * splitmix64: random numbers from a seed, good enough for spreading load and jitter, not for secrets. */
#ifndef GYRE_BASE_RANDOM_H
#define GYRE_BASE_RANDOM_H

#include <stdint.h>

#define GYRE_RANDOM_STEP UINT64_C(0x9e3779b97f4a7c15)

/* Mix all bits of a state into a number. */
static inline uint64_t gyre__random_mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

/* The next number; the state moves on. */
static inline uint64_t gyre__random_next(uint64_t *state)
{
    *state += GYRE_RANDOM_STEP;
    return gyre__random_mix(*state);
}

#endif
