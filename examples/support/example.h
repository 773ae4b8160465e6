/* SPDX-License-Identifier: MIT
 * What the example programs share: their flags, their one line when ready, their counters at the end. */
#ifndef EXAMPLE_H
#define EXAMPLE_H

#include <gyre.h>

enum { EXAMPLE_LOOPS_MAX = 1024 };

/* Read --backend, --loops, --busy-poll, --stats and --help. Returns the index of the first argument after them, or -1
 * after printing what is wrong; --help prints `name`, the usage line, and the flags, and ends the program. */
int example_flags(int argc, char **argv, const char *name, struct gyre_engine_options *options, bool *stats);

/* Print what is wrong and how the program is used; returns its exit status, 2. */
int example_usage(const char *name, const char *problem);

/* Read a whole number from `min` to `max`. Returns whether `text` is one, after printing what is wrong if it is not:
 * `what` names the argument, `name` is the usage line. */
bool example_number(const char *name, const char *what, const char *text, long min, long max, long *out);

/* Print why the program cannot go on; returns its exit status, 1. */
int example_failed(const char *name, int err);

/* "listening on ADDRESS, backend NAME (REASON)" */
void example_ready(struct gyre_engine *engine, const struct gyre_listener *listener);

void example_ready_udp(struct gyre_engine *engine, const struct gyre_udp *socket);

/* A server from its making to its end, as echo.c and relay.c have it written out: make `*engine`, listen on `address`,
 * print the ready line, run until SIGINT or SIGTERM, which close all connections gently within five seconds, print the
 * counters if `stats`, destroy the engine. Returns the program's exit status, after printing what went wrong. */
int example_serve(struct gyre_engine **engine, const struct gyre_engine_options *options, const char *address,
                  const struct gyre_conn_handlers *handlers, const struct gyre_conn_options *conn, bool stats);

/* The counters of all loops, one a line. */
void example_print_stats(struct gyre_engine *engine);

#endif
