/* SPDX-License-Identifier: MIT
 * An echo server. It sends back everything it receives, without copying. It serves TCP, unix and UDP addresses.
 *
 * usage: echo [--backend auto|io_uring|epoll|kqueue] [--loops N] [--busy-poll MICROSECONDS] [--stats] ADDRESS...
 *
 * When ready, it prints one line for each address. SIGINT and SIGTERM close all connections gracefully and end the
 * program. With --stats it then prints the counters. */
#include <gyre.h>

#include <signal.h>
#include <string.h>

#include "example.h"

static struct gyre_engine *engine;

static void echo(struct gyre_conn *c)
{
    (void)gyre_conn_forward(c, c, SIZE_MAX);
}

static const struct gyre_conn_handlers handlers = {.on_data = echo};

static void echo_datagram(struct gyre_udp *u, const struct gyre_datagram *d)
{
    (void)gyre_udp_reply(u, d, d->data.data, d->data.len); /* if the queue is full, the reply is lost */
}

static const struct gyre_udp_handlers udp_handlers = {.on_datagram = echo_datagram};

static int serve(const char *address)
{
    if (strncmp(address, "udp", 3) != 0) {
        struct gyre_listener *listener;
        int err = gyre_engine_listen(&listener, engine, address, &handlers, NULL);
        if (err == 0)
            example_ready(engine, listener);
        return err;
    }
    struct gyre_udp_id ids[EXAMPLE_LOOPS_MAX];
    int err = gyre_engine_listen_udp(ids, engine, address, &udp_handlers, NULL);
    if (err == 0)
        example_ready_udp(engine, gyre_udp_from_id(ids[0]));
    return err;
}

static void on_signal(int number)
{
    signal(number, SIG_DFL); /* a second signal ends the program at once */
    (void)gyre_engine_drain(engine, &(struct gyre_drain_options){.deadline_ns = INT64_C(5000000000)});
}

int main(int argc, char **argv)
{
    struct gyre_engine_options options = {.loops = 1};
    bool stats = false;
    const char *name = "echo [flags] ADDRESS...";
    int first = example_flags(argc, argv, name, &options, &stats);
    if (first < 0)
        return 2;
    if (first == argc)
        return example_usage(name, "it takes an address to listen on, such as tcp://127.0.0.1:7000");

    int err = gyre_engine_create(&engine, &options);
    for (int i = first; err == 0 && i < argc; i++) {
        err = serve(argv[i]);
        if (err != 0)
            name = argv[i];
    }
    if (err == 0) {
        signal(SIGINT, on_signal);
        signal(SIGTERM, on_signal);
        err = gyre_engine_run(engine);
    }
    if (err == 0 && stats)
        example_print_stats(engine);
    gyre_engine_destroy(engine);
    return err == 0 ? 0 : example_failed(name, err);
}
