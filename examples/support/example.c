/* SPDX-License-Identifier: MIT
 * Flags, ready line and counters of the example programs. */
#include "example.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

static const char flags_text[] = "flags: --backend auto|io_uring|epoll|kqueue, --loops N (1 to 1024), "
                                 "--busy-poll MICROSECONDS (0 to 10000), --stats, --help";

int example_usage(const char *name, const char *problem)
{
    fprintf(stderr, "%s\nusage: %s\n%s\n", problem, name, flags_text);
    return 2;
}

bool example_number(const char *name, const char *what, const char *text, long min, long max, long *out)
{
    char *end = NULL;
    errno = 0;
    long number = strtol(text, &end, 10);
    if (end != text && *end == '\0' && errno == 0 && number >= min && number <= max) {
        *out = number;
        return true;
    }
    char problem[160];
    snprintf(problem, sizeof problem, "%s is a number from %ld to %ld, not \"%.40s\"", what, min, max, text);
    (void)example_usage(name, problem);
    return false;
}

int example_failed(const char *name, int err)
{
    fprintf(stderr, "%s: %s: %s\n", name, gyre_err_name(err), gyre_err_text(err));
    return 1;
}

int example_flags(int argc, char **argv, const char *name, struct gyre_engine_options *options, bool *stats)
{
    static const struct option flags[] = {{"backend", required_argument, NULL, 'b'},
                                          {"loops", required_argument, NULL, 'l'},
                                          {"busy-poll", required_argument, NULL, 'p'},
                                          {"stats", no_argument, NULL, 's'},
                                          {"help", no_argument, NULL, 'h'},
                                          {NULL, 0, NULL, 0}};
    for (int flag; (flag = getopt_long(argc, argv, "", flags, NULL)) != -1;) {
        long loops = 0, busy_poll_us = 0;
        switch (flag) {
        case 'b':
            options->loop.backend = optarg;
            break;
        case 'l':
            if (!example_number(name, "--loops", optarg, 1, EXAMPLE_LOOPS_MAX, &loops))
                return -1;
            options->loops = (uint32_t)loops;
            break;
        case 'p':
            if (!example_number(name, "--busy-poll", optarg, 0, 10000, &busy_poll_us))
                return -1;
            options->loop.busy_poll_us = (uint32_t)busy_poll_us;
            break;
        case 's':
            *stats = true;
            break;
        case 'h':
            printf("usage: %s\n%s\n", name, flags_text);
            exit(0);
        default:
            (void)example_usage(name, "unknown flag, or one without its value");
            return -1;
        }
    }
    return optind;
}

static void print_ready(struct gyre_engine *engine, const char *address)
{
    struct gyre_backend_report report;
    gyre_loop_backend(&report, gyre_engine_loop(engine, 0));
    printf("listening on %s, backend %s (%s)\n", address, report.backend, report.reason);
    fflush(stdout);
}

void example_ready(struct gyre_engine *engine, const struct gyre_listener *listener)
{
    print_ready(engine, gyre_listener_address(listener));
}

void example_ready_udp(struct gyre_engine *engine, const struct gyre_udp *socket)
{
    print_ready(engine, gyre_udp_address(socket));
}

static void print_number(const char *name, uint64_t value, const char *text)
{
    printf("%-20s %14" PRIu64 "  %s\n", name, value, text);
}

/* How many values, their mean, and what share of them is at most so much; shares below half a percent are left out. */
static void print_histogram(const char *name, const struct gyre_histogram *h)
{
    uint64_t count = 0;
    for (unsigned i = 0; i < GYRE_HISTOGRAM_BUCKETS; i++)
        count += h->buckets[i];
    printf("%-20s %14" PRIu64 "  mean %.1f", name, count, count > 0 ? (double)h->sum / (double)count : 0.0);
    for (unsigned i = 0; i < GYRE_HISTOGRAM_BUCKETS; i++)
        if (h->buckets[i] * 200 >= count && h->buckets[i] > 0)
            printf(", to %" PRIu64 ": %.0f%%", i == 0 ? 0 : UINT64_C(1) << (i - 1),
                   100.0 * (double)h->buckets[i] / (double)count);
    printf("\n");
}

void example_print_stats(struct gyre_engine *engine)
{
    struct gyre_stats stats;
    gyre_engine_stats(&stats, engine);
#define NUMBER(field, name, text) print_number(#field, stats.field, text);
#define HISTOGRAM(field, name, first, last, unit, text) print_histogram(#field, &stats.field);
    GYRE_STATS(NUMBER, NUMBER, HISTOGRAM)
#undef NUMBER
#undef HISTOGRAM
}

static struct gyre_engine *running;

static void on_signal(int number)
{
    signal(number, SIG_DFL); /* a second one ends it at once */
    (void)gyre_engine_drain(running, &(struct gyre_drain_options){.deadline_ns = INT64_C(5000000000)});
}

int example_serve(struct gyre_engine **engine, const struct gyre_engine_options *options, const char *address,
                  const struct gyre_conn_handlers *handlers, const struct gyre_conn_options *conn, bool stats)
{
    struct gyre_listener_options listen = {.conn = *conn};
    struct gyre_listener *listener;
    *engine = NULL;
    int err = gyre_engine_create(engine, options);
    if (err == 0)
        err = gyre_engine_listen(&listener, *engine, address, handlers, &listen);
    if (err == 0) {
        running = *engine;
        example_ready(*engine, listener);
        signal(SIGINT, on_signal);
        signal(SIGTERM, on_signal);
        err = gyre_engine_run(*engine);
    }
    if (err == 0 && stats)
        example_print_stats(*engine);
    gyre_engine_destroy(*engine);
    return err == 0 ? 0 : example_failed(address, err);
}
