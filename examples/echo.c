/* SPDX-License-Identifier: MIT
 * An echo server: everything that comes in goes out again, without a copy.
 *
 * usage: echo [--backend auto|io_uring|epoll|kqueue] [--loops N] [--stats] ADDRESS...
 *
 * Prints one line for each address when ready. SIGINT and SIGTERM drain and end it; --stats prints the counters then. */
#include <gyre.h>

#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct gyre_engine *engine;

static void echo(struct gyre_conn *c)
{
    gyre_conn_forward(c, c, SIZE_MAX);
}

static void on_signal(int number)
{
    (void)number;
    gyre_engine_drain(engine, INT64_C(5000000000));
}

static void print_stats(void)
{
    struct gyre_loop_stats sum = {0}, one;
    for (uint32_t i = 0; i < gyre_engine_loop_count(engine); i++) {
        gyre_loop_stats(gyre_engine_loop(engine, i), &one);
#define ADD(name, text) sum.name += one.name;
        GYRE_STATS(ADD)
#undef ADD
    }
#define PRINT(name, text) printf("%-16s %14" PRIu64 "  %s\n", #name, sum.name, text);
    GYRE_STATS(PRINT)
#undef PRINT
    printf("%-16s %14.2f  completions per wait\n", "events_per_enter",
           sum.enters > 0 ? (double)sum.events / (double)sum.enters : 0.0);
}

static int usage(const char *problem)
{
    fprintf(stderr, "echo: %s\nusage: echo [--backend auto|io_uring|epoll|kqueue] [--loops N] [--stats] ADDRESS...\n",
            problem);
    return 2;
}

static int fail(const char *what, int err)
{
    fprintf(stderr, "echo: %s: %s: %s\n", what, gyre_err_name(err), gyre_err_text(err));
    gyre_engine_destroy(engine);
    return 1;
}

static int serve(char **addresses, int count, bool stats)
{
    static const struct gyre_conn_handlers handlers = {.on_data = echo};
    struct gyre_backend_report report;
    gyre_loop_backend_report(gyre_engine_loop(engine, 0), &report);
    for (int i = 0; i < count; i++) {
        struct gyre_listener *listener;
        int err = gyre_engine_listen_sized(&listener, engine, addresses[i], &handlers, NULL, 0);
        if (err != 0)
            return fail(addresses[i], err);
        printf("listening on %s, backend %s (%s)\n", gyre_listener_address(listener), report.backend, report.reason);
    }
    fflush(stdout);

    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    int err = gyre_engine_run(engine);
    if (err != 0)
        return fail("serving", err);
    if (stats)
        print_stats();
    gyre_engine_destroy(engine);
    return 0;
}

int main(int argc, char **argv)
{
    static const struct option flags[] = {{"backend", required_argument, NULL, 'b'},
                                          {"loops", required_argument, NULL, 'l'},
                                          {"stats", no_argument, NULL, 's'},
                                          {NULL, 0, NULL, 0}};
    struct gyre_loop_options loop = {.backend = NULL};
    struct gyre_engine_options options = {.loop = &loop};
    bool stats = false;
    for (int flag; (flag = getopt_long(argc, argv, "", flags, NULL)) != -1;) {
        char *end;
        unsigned long loops;
        switch (flag) {
        case 'b':
            loop.backend = optarg;
            break;
        case 'l':
            loops = strtoul(optarg, &end, 10);
            if (*end != '\0' || loops == 0 || loops > 1024)
                return usage("--loops takes a number from 1 to 1024");
            options.loops = (uint32_t)loops;
            break;
        case 's':
            stats = true;
            break;
        default:
            return usage("unknown flag, or one without its value");
        }
    }
    if (optind == argc)
        return usage("no address to listen on");
    int err = gyre_engine_create(&engine, &options);
    if (err != 0)
        return fail("starting", err);
    return serve(argv + optind, argc - optind, stats);
}
