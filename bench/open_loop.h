/* SPDX-License-Identifier: MIT
 * The open loop. */
#ifndef BENCH_OPEN_LOOP_H
#define BENCH_OPEN_LOOP_H

#include "target.h"

/* Open loop: `rate` requests per second, evenly spaced, over all connections in turn. A latency counts from the time
 * the request was due, whether or not it could be sent then. At most `pipeline` are in flight on a connection; those
 * due beyond it wait, and their wait counts. Returns 0, or -1 with `error` set. */
int bench_run_open(struct bench_target *t, uint64_t rate, uint64_t warmup_ns, uint64_t duration_ns,
                   struct bench_result *result);

#endif
