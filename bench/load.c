/* SPDX-License-Identifier: MIT
 * gyre-load: a load generator for echo servers, on plain epoll and one thread.
 *
 * It shares no code with the library, so that it can judge it: it checks every byte of every answer, and tells requests
 * per second and a histogram of latencies. `--help` says what it can do; drive.h, open_loop.h, churn.h and udp.h say
 * what exactly is measured. */
#include "drive.h"
#include "open_loop.h"
#include "options.h"
#include "pattern.h"
#include "report.h"
#include "slices.h"

#include <stdio.h>
#include <stdlib.h>

enum { EXIT_USAGE = 2 };

static int run(const struct bench_options *options, struct bench_target *t, struct bench_result *result)
{
    uint64_t warmup_ns = options->warmup_ms * 1000000ull;
    uint64_t duration_ns = options->duration_ms * 1000000ull;
    if (bench_open(t, &options->addresses[0], &options->shape) != 0)
        return -1;
    if (options->mode == BENCH_OPEN)
        return bench_run_open(t, options->rate, warmup_ns, duration_ns, result);
    return bench_run_closed(t, warmup_ns, duration_ns, result);
}

static int run_once(const struct bench_options *options)
{
    static struct bench_target target;
    static struct bench_result result;
    int err = run(options, &target, &result);
    if (err != 0)
        (void)fprintf(stderr, "gyre-load: %s\n", target.error);
    if (err != 0 && options->json)
        bench_report_error(-1, target.error);
    if (err == 0 && options->json)
        bench_report_json(options, &result);
    if (err == 0 && !options->json)
        bench_report_text(options, &result);
    bench_close(&target);
    return err == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

int main(int argc, char **argv)
{
    static struct bench_options options;
    int parsed = bench_options_parse(&options, argc, argv);
    if (parsed != 0)
        return parsed > 0 ? EXIT_SUCCESS : EXIT_USAGE;
    bench_pattern_init();
    return options.slices ? bench_slices_run(&options) : run_once(&options);
}
