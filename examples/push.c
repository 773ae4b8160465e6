/* SPDX-License-Identifier: MIT
 * Timed broadcast. Every MILLISECONDS each connection gets a numbered line. Input is ignored.
 *
 * usage: push [--backend auto|io_uring|epoll|kqueue] [--loops N] [--stats] ADDRESS MILLISECONDS [BYTES]
 *
 * The lines are "tick 1", "tick 2" and so on, padded with dots to BYTES (default 32). A client that reads too slowly
 * misses whole lines, and costs the others neither memory nor time: once more than 256 KiB are queued for it
 * (write_high_bytes), the broadcast skips it until most of that is sent. At the end the program prints how many lines
 * were queued and how many were skipped. */
#include <gyre.h>

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "example.h"

static int64_t period_ns;

/* The line, and the number of ticks so far. Used only on the first loop. */
static char *line;
static size_t line_bytes;
static uint64_t ticks;

/* Added to on the loop that finishes a broadcast, which may be any loop. */
static _Atomic(uint64_t) queued, left_out;

static void count(struct gyre_engine *e, const struct gyre_broadcast_result *result, void *user)
{
    (void)e, (void)user;
    queued += result->queued;
    left_out += result->skipped;
}

/* Every loop of the engine has a ticker. One ticker is enough, because a broadcast reaches the connections of all. */
static int64_t on_tick(struct gyre_engine *e, struct gyre_loop *loop)
{
    if (loop != gyre_engine_loop(e, 0))
        return -1;
    char head[32];
    int len = snprintf(head, sizeof head, "tick %" PRIu64, ++ticks);
    memcpy(line, head, (size_t)len);
    struct gyre_broadcast_options options = {.slow = GYRE_SLOW_SKIP, .done = count};
    int err = gyre_engine_broadcast(e, line, line_bytes, &options); /* copied once, for all connections */
    if (err != 0)
        fprintf(stderr, "push: tick %" PRIu64 " is lost: %s\n", ticks, gyre_err_text(err));
    return period_ns;
}

static const struct gyre_engine_handlers engine_handlers = {.on_tick = on_tick};

static void ignore(struct gyre_conn *c)
{
    (void)gyre_conn_discard(c, SIZE_MAX);
}

static void on_drain_begin(struct gyre_conn *c)
{
    gyre_conn_close(c); /* after the lines that are queued */
}

static const struct gyre_conn_handlers handlers = {.on_data = ignore};

static bool make_line(size_t bytes)
{
    line = malloc(bytes);
    if (line == NULL)
        return false;
    memset(line, '.', bytes);
    line[bytes - 1] = '\n';
    line_bytes = bytes;
    return true;
}

int main(int argc, char **argv)
{
    struct gyre_engine_options options = {.handlers = &engine_handlers};
    bool stats = false;
    const char *name = "push [flags] ADDRESS MILLISECONDS [BYTES]";
    int first = example_flags(argc, argv, name, &options, &stats);
    if (first < 0)
        return 2;
    if (argc - first < 2 || argc - first > 3)
        return example_usage(name, "it takes an address and a time");

    long period_ms = 0, bytes = 32;
    if (!example_number(name, "MILLISECONDS", argv[first + 1], 1, 3600000, &period_ms))
        return 2;
    if (argc - first == 3 && !example_number(name, "BYTES", argv[first + 2], 32, 1 << 20, &bytes))
        return 2;
    period_ns = period_ms * INT64_C(1000000);
    if (!make_line((size_t)bytes))
        return example_failed(name, -ENOMEM);
    struct gyre_conn_options conn = {.write_high_bytes = 256 << 10, .on_drain_begin = on_drain_begin};
    struct gyre_engine *engine;
    int status = example_serve(&engine, &options, argv[first], &handlers, &conn, stats);
    if (status == 0)
        printf("%" PRIu64 " ticks, %" PRIu64 " lines queued, %" PRIu64 " left out for slow clients\n", ticks,
               (uint64_t)queued, (uint64_t)left_out);
    free(line);
    return status;
}
