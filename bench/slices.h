/* SPDX-License-Identifier: MIT
 * Load in slices: for a runner that compares servers. */
#ifndef BENCH_SLICES_H
#define BENCH_SLICES_H

#include "options.h"

/* Connect to every address, print one line for each ({"index": 0, "ready": true} or an error), then obey commands from
 * standard input until `quit` or its end:
 *
 *   run INDEX MILLISECONDS    a closed loop on that server; the answer comes when the last request is answered
 *   once INDEX                one batch on each connection
 *   quit
 *
 * Each is answered by one JSON line, with "error" in it if it failed. A server that failed stays failed; the others go
 * on. Returns the exit status: 0, or 1 if any server or command failed. */
int bench_slices_run(const struct bench_options *options);

#endif
