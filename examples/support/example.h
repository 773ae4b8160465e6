/* SPDX-License-Identifier: MIT
 * What the example programs share: their flags, their one line when ready, their counters at the end. */
#ifndef EXAMPLE_H
#define EXAMPLE_H

#include <gyre.h>

enum { EXAMPLE_LOOPS_MAX = 1024 };

/* Read --backend, --loops and --stats. Returns the index of the first argument after them, or -1 after printing what is
 * wrong. `name` is the usage line. */
int example_flags(int argc, char **argv, const char *name, struct gyre_loop_options *loop,
                  struct gyre_engine_options *engine, bool *stats);

/* Print what is wrong and how the program is used; returns its exit status, 2. */
int example_usage(const char *name, const char *problem);

/* Print why the program cannot go on; returns its exit status, 1. */
int example_failed(const char *name, int err);

/* "listening on ADDRESS, backend NAME (REASON)" */
void example_ready(struct gyre_engine *engine, const struct gyre_listener *listener);

void example_ready_udp(struct gyre_engine *engine, const struct gyre_udp *socket);

/* The counters of all loops, one a line. */
void example_print_stats(struct gyre_engine *engine);

#endif
