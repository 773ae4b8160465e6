/* SPDX-License-Identifier: MIT
 * Noticing that this process is a child of the one that made an object. */
#include "thread.h"

_Atomic(uint32_t) gyre__forks;
_Atomic(bool) gyre__has_forked;

static void in_parent(void)
{
    atomic_store_explicit(&gyre__has_forked, true, memory_order_relaxed);
}

static void in_child(void)
{
    atomic_fetch_add_explicit(&gyre__forks, 1, memory_order_relaxed);
}

static void watch(void)
{
    (void)pthread_atfork(NULL, in_parent, in_child);
}

void gyre__forks_watch(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    (void)pthread_once(&once, watch);
}
