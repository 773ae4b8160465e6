/* SPDX-License-Identifier: MIT
 * The histogram of the load generator: what it promises about its precision. */
#include "../../bench/histogram.h"

#include <criterion/criterion.h>

static struct bench_histogram h;

static void reset(void)
{
    bench_histogram_reset(&h);
}

TestSuite(bench_histogram, .init = reset);

/* Every value lies in its bucket: above the one before, at most its upper edge, which is at most 1/128 higher. */
static void check_value(uint64_t value)
{
    unsigned index = bench_histogram_index(value);
    uint64_t upper = bench_histogram_upper(index);
    cr_assert(upper >= value, "value %llu, upper edge %llu", (unsigned long long)value, (unsigned long long)upper);
    cr_assert(upper - value <= value / BENCH_HISTOGRAM_SUB, "value %llu, upper edge %llu", (unsigned long long)value,
              (unsigned long long)upper);
    cr_assert(index == 0 || bench_histogram_upper(index - 1) < value, "value %llu", (unsigned long long)value);
}

Test(bench_histogram, buckets_hold_their_values)
{
    for (uint64_t value = 0; value < 100000; value++)
        check_value(value);
    for (unsigned bit = 10; bit < BENCH_HISTOGRAM_BITS; bit++) {
        uint64_t power = 1ull << bit;
        check_value(power - 1);
        check_value(power);
        check_value(power + 1);
        check_value(power + power / 3);
    }
    check_value((1ull << BENCH_HISTOGRAM_BITS) - 1);
}

Test(bench_histogram, the_last_bucket_takes_what_is_too_long)
{
    cr_assert_eq(bench_histogram_index(1ull << BENCH_HISTOGRAM_BITS), BENCH_HISTOGRAM_BUCKETS - 1);
    cr_assert_eq(bench_histogram_index(UINT64_MAX), BENCH_HISTOGRAM_BUCKETS - 1);
    bench_histogram_add(&h, 1ull << 50, 1);
    cr_assert_eq(bench_histogram_quantile(&h, 50000), 1ull << 50);
}

Test(bench_histogram, empty)
{
    cr_assert_eq(bench_histogram_quantile(&h, 50000), 0);
    cr_assert_eq(bench_histogram_mean(&h), 0);
    bench_histogram_add(&h, 5, 0);
    cr_assert_eq(h.count, 0);
    cr_assert_eq(h.max_ns, 0);
}

Test(bench_histogram, quantiles_of_few_values)
{
    bench_histogram_add(&h, 10, 1);
    for (uint32_t per_100k = 0; per_100k <= 100000; per_100k += 10000)
        cr_assert_eq(bench_histogram_quantile(&h, per_100k), 10);
    bench_histogram_add(&h, 20, 1);
    cr_assert_eq(bench_histogram_quantile(&h, 50000), 10);
    cr_assert_eq(bench_histogram_quantile(&h, 50001), 20);
    bench_histogram_add(&h, 30, 98);
    cr_assert_eq(bench_histogram_quantile(&h, 1000), 10);
    cr_assert_eq(bench_histogram_quantile(&h, 2000), 20);
    cr_assert_eq(bench_histogram_quantile(&h, 2001), 30);
    cr_assert_eq(bench_histogram_quantile(&h, 100000), 30);
    cr_assert_eq(bench_histogram_mean(&h), (10 + 20 + 98 * 30) / 100);
    cr_assert_eq(h.min_ns, 10);
    cr_assert_eq(h.max_ns, 30);
}

/* 1 to 1 000 000, each once: the quantile q is q * 10 within 0.8 %, and never below. */
Test(bench_histogram, quantiles_of_many_values)
{
    static const uint32_t wanted[] = {1000, 50000, 90000, 99000, 99900, 99999, 100000};
    for (uint64_t value = 1; value <= 1000000; value++)
        bench_histogram_add(&h, value, 1);
    cr_assert_eq(h.count, 1000000);
    for (unsigned i = 0; i < sizeof wanted / sizeof wanted[0]; i++) {
        uint64_t exact = wanted[i] * 10ull;
        uint64_t told = bench_histogram_quantile(&h, wanted[i]);
        cr_assert(told >= exact && told - exact <= exact / BENCH_HISTOGRAM_SUB, "quantile %u: %llu for %llu", wanted[i],
                  (unsigned long long)told, (unsigned long long)exact);
    }
}

/* Counts so great that count * 100000 would not fit. */
Test(bench_histogram, quantiles_of_great_counts)
{
    uint64_t many = 1ull << 60;
    bench_histogram_add(&h, 1, many);
    bench_histogram_add(&h, 2, many);
    cr_assert_eq(bench_histogram_quantile(&h, 50000), 1);
    cr_assert_eq(bench_histogram_quantile(&h, 50001), 2);
}
