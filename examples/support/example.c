/* SPDX-License-Identifier: MIT
 * Flags, ready line and counters of the example programs. */
#include "example.h"

#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

static const char flags_text[] = "flags: --backend auto|io_uring|epoll|kqueue, --loops N (1 to 1024), --stats";

int example_usage(const char *name, const char *problem)
{
    fprintf(stderr, "%s\nusage: %s\n%s\n", problem, name, flags_text);
    return 2;
}

int example_failed(const char *name, int err)
{
    fprintf(stderr, "%s: %s: %s\n", name, gyre_err_name(err), gyre_err_text(err));
    return 1;
}

int example_flags(int argc, char **argv, const char *name, struct gyre_loop_options *loop,
                  struct gyre_engine_options *engine, bool *stats)
{
    static const struct option flags[] = {{"backend", required_argument, NULL, 'b'},
                                          {"loops", required_argument, NULL, 'l'},
                                          {"stats", no_argument, NULL, 's'},
                                          {NULL, 0, NULL, 0}};
    for (int flag; (flag = getopt_long(argc, argv, "", flags, NULL)) != -1;) {
        char *end = NULL;
        unsigned long loops = 0;
        switch (flag) {
        case 'b':
            loop->backend = optarg;
            break;
        case 'l':
            loops = strtoul(optarg, &end, 10);
            if (*end != '\0' || loops == 0 || loops > 1024) {
                (void)example_usage(name, "--loops takes a number from 1 to 1024");
                return -1;
            }
            engine->loops = (uint32_t)loops;
            break;
        case 's':
            *stats = true;
            break;
        default:
            (void)example_usage(name, "unknown flag, or one without its value");
            return -1;
        }
    }
    return optind;
}

void example_ready(struct gyre_engine *engine, const struct gyre_listener *listener)
{
    struct gyre_backend_report report;
    gyre_backend_report(gyre_engine_loop(engine, 0), &report);
    printf("listening on %s, backend %s (%s)\n", gyre_listener_address(listener), report.backend, report.reason);
    fflush(stdout);
}

void example_print_stats(struct gyre_engine *engine)
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
