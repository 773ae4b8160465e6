/* SPDX-License-Identifier: MIT
 * A memory hook that fails at the N-th call, once or from then on. Over the counting one of env.h, so that what a
 * failure leaves behind shows in the balance. Several threads may use it. */
#ifndef GYRE_TEST_FAULT_MEM_H
#define GYRE_TEST_FAULT_MEM_H

#include "env.h"

enum fault_mode {
    FAULT_ONCE,   /* only the N-th call fails */
    FAULT_FOREVER /* it and every one after it */
};

struct fault_mem {
    struct gyre_mem mem; /* give this one away */
    struct env_mem counted;
    enum fault_mode mode;
    long fail_at;        /* counted from 1; 0: never */
    atomic_long calls;   /* that asked for memory */
    atomic_long refused; /* of them */
};

void fault_mem_init(struct fault_mem *m, long fail_at, enum fault_mode mode);

/* Begin to count anew, and fail at the `fail_at`-th call from now; 0: never again. */
void fault_mem_arm(struct fault_mem *m, long fail_at);

/* Whether a call was refused since it was armed. */
bool fault_mem_struck(const struct fault_mem *m);

#endif
