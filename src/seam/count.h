/* SPDX-License-Identifier: MIT
 * Counting: one thread counts, any may read.
 *
 * The loop's thread is the only one that writes, so a counter needs no locked instruction: a plain addition, stored in
 * one piece. Other threads read in one piece too (loop/stats.c), and so see each counter whole and never going back.
 * Everything that counts goes through the functions of this file (a tidy check sees to it). */
#ifndef GYRE_SEAM_COUNT_H
#define GYRE_SEAM_COUNT_H

#include <gyre/stats.h>

static inline void gyre__gauge(uint64_t *gauge, uint64_t value)
{
    __atomic_store_n(gauge, value, __ATOMIC_RELAXED);
}

static inline void gyre__count(uint64_t *counter, uint64_t n)
{
    gyre__gauge(counter, *counter + n);
}

/* Which bucket a value belongs to. */
static inline unsigned gyre__bucket(uint64_t value)
{
    unsigned i = value <= 1 ? (unsigned)value : 65u - (unsigned)__builtin_clzll(value - 1);
    return i < GYRE_HISTOGRAM_BUCKETS ? i : GYRE_HISTOGRAM_BUCKETS - 1;
}

static inline void gyre__observe(struct gyre_histogram *histogram, uint64_t value)
{
    gyre__count(&histogram->sum, value);
    gyre__count(&histogram->buckets[gyre__bucket(value)], 1);
}

#endif
