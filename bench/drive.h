/* SPDX-License-Identifier: MIT
 * Driving a target: opening what its address asks for, streams or datagrams, and the closed loop over either. */
#ifndef BENCH_DRIVE_H
#define BENCH_DRIVE_H

#include "target.h"

/* Make all connections, or sockets for datagrams. Returns 0, or -1 with `error` set. Close it in any case. */
int bench_open(struct bench_target *t, const struct bench_address *address, const struct bench_shape *shape);
void bench_close(struct bench_target *t);

/* Closed loop: each connection writes `pipeline` requests at once and the next batch when all are answered. Begins
 * batches for `warmup_ns` and then `duration_ns`, and waits for the last ones. A latency is that of a request from the
 * time its batch was written. With both times 0 each connection sends one batch, and the window lasts until all are
 * answered. Returns 0, or -1 with `error` set. */
int bench_run_closed(struct bench_target *t, uint64_t warmup_ns, uint64_t duration_ns, struct bench_result *result);

#endif
