/* SPDX-License-Identifier: MIT
 * A bidirectional relay. It opens one connection to the upstream for each accepted connection, and moves bytes both
 * ways without copying.
 *
 * usage: relay [--backend auto|io_uring|epoll|kqueue] [--loops N] [--stats] LISTEN-ADDRESS UPSTREAM-ADDRESS
 *
 * gyre_conn_forward() provides the back-pressure: while one side cannot take more, the other side receives nothing.
 * When one direction ends, the relay passes the end on after all bytes before it; the other direction continues. */
#include <gyre.h>

#include <signal.h>
#include <stdio.h>

#include "example.h"

static struct gyre_engine *engine;
static const char *upstream;

/* The user pointer of a connection is the other connection of its pair, or NULL once that one has closed. */
static void on_data(struct gyre_conn *c)
{
    struct gyre_conn *peer = gyre_conn_user(c);
    if (peer != NULL)
        (void)gyre_conn_forward(c, peer, SIZE_MAX); /* if the peer is closing, its on_close ends this side too */
}

static void on_eof(struct gyre_conn *c)
{
    struct gyre_conn *peer = gyre_conn_user(c);
    if (peer == NULL)
        gyre_conn_close(c);
    else
        gyre_conn_shutdown(peer);
}

/* After a clean end the other connection still sends what is queued. After an error it is reset. */
static void on_close(struct gyre_conn *c, int err)
{
    struct gyre_conn *peer = gyre_conn_user(c);
    if (peer == NULL)
        return;
    gyre_conn_set_user(peer, NULL);
    if (err == 0)
        gyre_conn_close(peer);
    else
        gyre_conn_abort(peer);
}

static const struct gyre_conn_handlers upstream_handlers = {.on_data = on_data, .on_eof = on_eof, .on_close = on_close};

static void on_accepted(struct gyre_conn *c)
{
    struct gyre_conn *peer;
    struct gyre_conn_options options = {.user = c};
    int err = gyre_connect(&peer, gyre_conn_loop(c), upstream, &upstream_handlers, &options);
    if (err == 0) {
        gyre_conn_set_user(c, peer);
        return;
    }
    fprintf(stderr, "relay: %s: %s\n", upstream, gyre_err_text(err));
    gyre_conn_abort(c);
}

static const struct gyre_conn_handlers handlers = {
    .on_open = on_accepted, .on_data = on_data, .on_eof = on_eof, .on_close = on_close};

/* A pair may pause in the middle of a transfer, and the relay does not know the protocol. So it waits for a second
 * without a byte in either direction before it closes a pair. */
static void on_signal(int number)
{
    signal(number, SIG_DFL); /* a second signal ends the program at once */
    (void)gyre_engine_drain(engine, &(struct gyre_drain_options){.quiet_ns = INT64_C(1000000000)});
}

int main(int argc, char **argv)
{
    struct gyre_engine_options options = {.loops = 1};
    struct gyre_listener *listener = NULL;
    bool stats = false;
    const char *name = "relay [flags] LISTEN-ADDRESS UPSTREAM-ADDRESS";
    int first = example_flags(argc, argv, name, &options, &stats);
    if (first < 0)
        return 2;
    if (argc - first != 2)
        return example_usage(name, "it takes two addresses");
    upstream = argv[first + 1];

    int err = gyre_engine_create(&engine, &options);
    if (err == 0)
        err = gyre_engine_listen(&listener, engine, argv[first], &handlers, NULL);
    if (err == 0) {
        example_ready(engine, listener);
        signal(SIGINT, on_signal);
        signal(SIGTERM, on_signal);
        err = gyre_engine_run(engine);
    }
    if (err == 0 && stats)
        example_print_stats(engine);
    gyre_engine_destroy(engine);
    return err == 0 ? 0 : example_failed(name, err);
}
