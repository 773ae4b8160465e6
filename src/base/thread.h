/* SPDX-License-Identifier: MIT
 * Threads of the library's: making them, and what only some systems can do to them. */
#ifndef GYRE_BASE_THREAD_H
#define GYRE_BASE_THREAD_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum { GYRE_THREAD_NAME_SIZE = 16, GYRE_PROCESSORS_MAX = 8192 };

/* A thread called "NAME-INDEX", cut to what the system takes, where threads can have names. It blocks every signal, so
 * that the program's handlers run on the program's threads. Returns 0 or -errno. */
int gyre__thread_start(pthread_t *out, const char *name, uint32_t index, void *(*run)(void *), void *arg);

/* How many processors this thread may run on, and not more than its control group has time for; the number of the
 * `index`-th of those that it may run on, beginning anew after the last. */
uint32_t gyre__processors(void);
uint32_t gyre__processor(uint32_t index);

/* Let `thread` run on processor `cpu` alone. Returns 0, -EINVAL if there is none of that number (or none that it may
 * use), or -EOPNOTSUPP. */
int gyre__thread_pin(pthread_t thread, uint32_t cpu);

/* How many forks this process is away from the one that first called gyre__forks_watch(): what was made when it was
 * less is the parent's. With the next one the library's only variables that are no constants, for nobody else learns of
 * a fork. */
extern _Atomic(uint32_t) gyre__forks;

/* Whether it has had children since, who may have its descriptors: closing them tells nobody. */
extern _Atomic(bool) gyre__has_forked;

/* Begin to count. Any thread, any number of times. */
void gyre__forks_watch(void);

static inline uint32_t gyre__forks_now(void)
{
    return atomic_load_explicit(&gyre__forks, memory_order_relaxed);
}

/* Where the calling thread may run, kept to be put back. */
struct gyre__affinity {
    bool known;
    uint8_t bits[GYRE_PROCESSORS_MAX / 8];
};

void gyre__affinity_keep(struct gyre__affinity *kept);
void gyre__affinity_restore(const struct gyre__affinity *kept);

#endif
