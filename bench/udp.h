/* SPDX-License-Identifier: MIT
 * UDP load: the closed loop over datagrams, in the place of the streams of target.h.
 *
 * Each of `connections` is a connected socket with `pipeline` datagrams of `size` bytes under way. An answer lets the
 * next one go. A datagram carries which one it is, and the rest is of the pattern, so that one that is changed, cut,
 * doubled or taken from another socket is noticed. One that has no answer after 100 ms is lost: it is counted and
 * another one takes its place. An answer that comes after that is late, is checked and counted, and is no answer. */
#ifndef BENCH_UDP_H
#define BENCH_UDP_H

#include "target.h"

enum { BENCH_UDP_SIZE_MIN = 8, BENCH_UDP_SIZE_MAX = 65507 };

/* Make the sockets. Returns 0, or -1 with `error` of the target set. Close it in any case. */
int bench_udp_open(struct bench_target *t);
void bench_udp_close(struct bench_target *t);

/* What bench_run_closed() does for streams. Returns 0, or -1 with `error` set. */
int bench_udp_run(struct bench_target *t);

#endif
