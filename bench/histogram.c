/* SPDX-License-Identifier: MIT
 * The log-linear histogram. A value of b + 1 significant bits, b >= 7, has the exponent b - 7: shifted right by it, 128
 * to 255 are left, and these are the exponent's 128 buckets. */
#include "histogram.h"

#include <string.h>

void bench_histogram_reset(struct bench_histogram *h)
{
    memset(h, 0, sizeof *h);
    h->min_ns = UINT64_MAX;
}

unsigned bench_histogram_index(uint64_t value_ns)
{
    if (value_ns < BENCH_HISTOGRAM_SUB)
        return (unsigned)value_ns;
    if (value_ns >> BENCH_HISTOGRAM_BITS != 0)
        return BENCH_HISTOGRAM_BUCKETS - 1;
    unsigned shift = 63u - (unsigned)__builtin_clzll(value_ns) - BENCH_HISTOGRAM_SUB_BITS;
    return shift * BENCH_HISTOGRAM_SUB + (unsigned)(value_ns >> shift);
}

uint64_t bench_histogram_upper(unsigned index)
{
    if (index < 2 * BENCH_HISTOGRAM_SUB)
        return index;
    unsigned shift = index / BENCH_HISTOGRAM_SUB - 1;
    uint64_t base = index - shift * BENCH_HISTOGRAM_SUB;
    return ((base + 1) << shift) - 1;
}

void bench_histogram_add(struct bench_histogram *h, uint64_t value_ns, uint64_t times)
{
    if (times == 0)
        return;
    h->buckets[bench_histogram_index(value_ns)] += times;
    h->count += times;
    h->sum_ns += value_ns * times;
    if (value_ns < h->min_ns)
        h->min_ns = value_ns;
    if (value_ns > h->max_ns)
        h->max_ns = value_ns;
}

uint64_t bench_histogram_quantile(const struct bench_histogram *h, uint32_t per_100k)
{
    if (h->count == 0)
        return 0;
    /* How many values must not exceed the answer: at least one, rounded up, in parts so that nothing overflows. */
    uint64_t whole = h->count / 100000 * per_100k;
    uint64_t rest = (h->count % 100000 * per_100k + 99999) / 100000;
    uint64_t wanted = whole + rest;
    if (wanted == 0)
        wanted = 1;
    uint64_t seen = 0;
    for (unsigned i = 0; i < BENCH_HISTOGRAM_BUCKETS - 1; i++) {
        seen += h->buckets[i];
        if (seen < wanted)
            continue;
        uint64_t upper = bench_histogram_upper(i);
        return upper < h->max_ns ? upper : h->max_ns;
    }
    return h->max_ns;
}

uint64_t bench_histogram_mean(const struct bench_histogram *h)
{
    return h->count == 0 ? 0 : h->sum_ns / h->count;
}
