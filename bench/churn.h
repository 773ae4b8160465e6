/* SPDX-License-Identifier: MIT
 * Churn is a closed loop over `connections` places: in each, connect, send one request, read the answer, shut down,
 * wait for the server's end, close, and again. A latency is that of all this. */
#ifndef BENCH_CHURN_H
#define BENCH_CHURN_H

#include "target.h"

extern const struct bench_kind bench_churn;

/* Make the connection of a place and send its request. Returns 0, or -1 with `error` set. */
int bench_churn_begin(struct bench_target *t, struct bench_conn *c, uint64_t now_ns);

#endif
