/* SPDX-License-Identifier: MIT
 * The bytes a load sends, so that every byte that comes back can be checked with one memcmp().
 *
 * All connections send from the same endless sequence, which repeats a template of a prime number of random bytes, each
 * from a starting point of its own. The prime has no common measure with messages, buffers or pages, so data that is
 * dropped, doubled, swapped within a stream or taken from another connection does not look right by accident. The
 * template is laid out longer than it is, so that a run of BENCH_PATTERN_RUN bytes from any point is contiguous. */
#ifndef BENCH_PATTERN_H
#define BENCH_PATTERN_H

#include <stddef.h>
#include <stdint.h>

enum { BENCH_PATTERN_PERIOD = 65521, BENCH_PATTERN_RUN = 256 * 1024 };

/* Call once, before anything else here. */
void bench_pattern_init(void);

/* The bytes from `position` on, BENCH_PATTERN_RUN of them. `position` is below BENCH_PATTERN_PERIOD. */
const uint8_t *bench_pattern_at(uint32_t position);

/* Where a connection's stream begins. */
uint32_t bench_pattern_start(uint32_t connection);

static inline uint32_t bench_pattern_advance(uint32_t position, size_t bytes)
{
    return (uint32_t)((position + bytes) % BENCH_PATTERN_PERIOD);
}

#endif
