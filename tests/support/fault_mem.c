/* SPDX-License-Identifier: MIT
 * Counting calls and refusing them. Freeing is never refused. */
#include "fault_mem.h"

static void *resize(void *ptr, size_t size_bytes, void *user)
{
    struct fault_mem *m = user;
    if (size_bytes > 0) {
        long call = atomic_fetch_add(&m->calls, 1) + 1;
        if (m->fail_at > 0 && (call == m->fail_at || (m->mode == FAULT_FOREVER && call > m->fail_at))) {
            (void)atomic_fetch_add(&m->refused, 1);
            return NULL;
        }
    }
    return m->counted.mem.resize(ptr, size_bytes, m->counted.mem.user);
}

void fault_mem_init(struct fault_mem *m, long fail_at, enum fault_mode mode)
{
    m->mem = (struct gyre_mem){.resize = resize, .user = m};
    m->mode = mode;
    env_mem_init(&m->counted);
    fault_mem_arm(m, fail_at);
}

void fault_mem_arm(struct fault_mem *m, long fail_at)
{
    m->fail_at = fail_at;
    atomic_init(&m->calls, 0);
    atomic_init(&m->refused, 0);
}

bool fault_mem_struck(const struct fault_mem *m)
{
    return atomic_load(&m->refused) > 0;
}
