/* SPDX-License-Identifier: MIT
 * The byte sequence of a load: a template of random bytes from a fixed seed, the same in every run. */
#include "pattern.h"

static uint8_t template_bytes[BENCH_PATTERN_PERIOD + BENCH_PATTERN_RUN];

static uint64_t mix(uint64_t x)
{
    x ^= x >> 33;
    x *= 0xff51afd7ed558ccdull;
    x ^= x >> 33;
    x *= 0xc4ceb9fe1a85ec53ull;
    return x ^ (x >> 33);
}

void bench_pattern_init(void)
{
    for (size_t i = 0; i < BENCH_PATTERN_PERIOD; i++)
        template_bytes[i] = (uint8_t)mix(i + 1);
    for (size_t i = BENCH_PATTERN_PERIOD; i < sizeof template_bytes; i++)
        template_bytes[i] = template_bytes[i - BENCH_PATTERN_PERIOD];
}

const uint8_t *bench_pattern_at(uint32_t position)
{
    return template_bytes + position;
}

uint32_t bench_pattern_start(uint32_t connection)
{
    return (uint32_t)(mix(connection + 0x9e3779b97f4a7c15ull) % BENCH_PATTERN_PERIOD);
}
