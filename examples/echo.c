/* SPDX-License-Identifier: MIT
 * An echo server: everything that comes in goes out again, without a copy.
 *
 * usage: echo [--backend auto|io_uring|epoll|kqueue] [--loops N] [--stats] ADDRESS...
 *
 * Prints one line for each address when ready. SIGINT and SIGTERM drain and end it; --stats prints the counters
 * then. */
#include <gyre.h>

#include <signal.h>

#include "example.h"

static struct gyre_engine *engine;

static void echo(struct gyre_conn *c)
{
    (void)gyre_conn_forward(c, c, SIZE_MAX);
}

static const struct gyre_conn_handlers handlers = {.on_data = echo};

static void on_signal(int number)
{
    (void)number;
    gyre_engine_drain(engine, INT64_C(5000000000));
}

int main(int argc, char **argv)
{
    struct gyre_loop_options loop = {.backend = NULL};
    struct gyre_engine_options options = {.loop = &loop};
    bool stats = false;
    const char *name = "echo [flags] ADDRESS...";
    int first = example_flags(argc, argv, name, &loop, &options, &stats);
    if (first < 0)
        return 2;
    if (first == argc)
        return example_usage(name, "it takes an address to listen on, such as tcp://127.0.0.1:7000");

    int err = gyre_engine_create(&engine, &options);
    for (int i = first; err == 0 && i < argc; i++) {
        struct gyre_listener *listener;
        err = gyre_engine_listen_sized(&listener, engine, argv[i], &handlers, NULL, 0);
        if (err == 0)
            example_ready(engine, listener);
        else
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
