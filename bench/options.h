/* SPDX-License-Identifier: MIT
 * What gyre-load was asked to do. */
#ifndef BENCH_OPTIONS_H
#define BENCH_OPTIONS_H

#include "address.h"
#include "target.h"

enum { BENCH_TARGETS_MAX = 32 };

enum bench_mode { BENCH_CLOSED, BENCH_OPEN };

struct bench_options {
    struct bench_address addresses[BENCH_TARGETS_MAX];
    uint32_t naddresses;
    struct bench_shape shape;
    enum bench_mode mode;
    bool slices; /* driven by commands on standard input */
    bool json;
    uint32_t duration_ms;
    uint32_t warmup_ms;
    uint32_t rate; /* open loop: requests per second */
};

/* Returns 0; 1 if help was printed; -1 after a message on standard error. */
int bench_options_parse(struct bench_options *out, int argc, char **argv);

#endif
