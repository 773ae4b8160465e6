/* SPDX-License-Identifier: MIT
 * A log-linear histogram of durations in nanoseconds.
 *
 * Below 128 ns every value has a bucket of its own. Above, each power of two is cut into 128 equal buckets, so a bucket
 * is at most 1/128 (0.8 %) of its values wide, from nanoseconds up to 2^42 ns (73 minutes). Longer values fall into the
 * last bucket; count, mean, least and greatest value are exact always. A quantile is told as the upper edge of its
 * bucket, never above the greatest value: at most 0.8 % too high, never too low. */
#ifndef BENCH_HISTOGRAM_H
#define BENCH_HISTOGRAM_H

#include <stdint.h>

enum {
    BENCH_HISTOGRAM_SUB_BITS = 7,
    BENCH_HISTOGRAM_SUB = 1 << BENCH_HISTOGRAM_SUB_BITS,
    BENCH_HISTOGRAM_BITS = 42,
    BENCH_HISTOGRAM_BUCKETS = (BENCH_HISTOGRAM_BITS - BENCH_HISTOGRAM_SUB_BITS + 1) * BENCH_HISTOGRAM_SUB
};

struct bench_histogram {
    uint64_t count;
    uint64_t sum_ns;
    uint64_t min_ns;
    uint64_t max_ns;
    uint64_t buckets[BENCH_HISTOGRAM_BUCKETS];
};

void bench_histogram_reset(struct bench_histogram *h);

/* The bucket a value falls into, and the greatest value of a bucket. */
unsigned bench_histogram_index(uint64_t value_ns);
uint64_t bench_histogram_upper(unsigned index);

/* Count `value_ns` `times` times. */
void bench_histogram_add(struct bench_histogram *h, uint64_t value_ns, uint64_t times);

/* The value that `per_100k` of 100 000 values do not exceed: 50000 is the median, 99900 the 99.9th percentile.
 * 0 if nothing was counted. */
uint64_t bench_histogram_quantile(const struct bench_histogram *h, uint32_t per_100k);

uint64_t bench_histogram_mean(const struct bench_histogram *h);

#endif
