/* SPDX-License-Identifier: MIT
 * Asking for the addresses of names on a bounded number of threads.
 *
 * What threads hold comes from malloc and not from a hook, because a thread inside getaddrinfo(3) cannot be interrupted
 * and outlives the resolver that asked. */
#ifndef GYRE_RESOLVE_ASK_H
#define GYRE_RESOLVE_ASK_H

#include "socket/addr.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

enum {
    GYRE_ASK_THREADS_MAX = 64,
};

/* What a question is answered with. Several requests and the cache share one. */
struct gyre__answer {
    _Atomic(uint32_t) refs;
    int err; /* 0: there is at least one address */
    uint32_t count;
    struct sockaddr_storage addresses[];
};

/* Fill `out` with at most `max` addresses of `name`. Returns how many, 0 for none, or the error. Called on a thread. */
typedef int gyre__ask_fn(struct sockaddr_storage *out, uint32_t max, const char *name, int family, void *user);

struct gyre__asker;

struct gyre__question {
    struct gyre__question *next;
    void *owner;  /* who is given the answer */
    bool started; /* a thread has it */
    int family;
    char name[GYRE_HOST_MAX + 2];
};

struct gyre__asker_config {
    uint32_t threads_max;
    uint32_t addresses_max;
    gyre__ask_fn *ask; /* NULL: getaddrinfo(3) */
    void *ask_user;
    /* The question of `owner` is answered; the reference is the callee's. Called on a thread, with the lock held. The
     * question is freed afterwards. */
    void (*answered)(void *owner, struct gyre__answer *answer);
};

/* Returns NULL when out of memory. */
struct gyre__asker *gyre__asker_new(const struct gyre__asker_config *config);

/* Drop what waits for a thread, join the threads that are idle, and leave the others to themselves: they call nobody
 * any more. */
void gyre__asker_destroy(struct gyre__asker *asker);

/* The lock that guards its questions, and whatever else the user wants. */
void gyre__asker_lock(struct gyre__asker *asker);
void gyre__asker_unlock(struct gyre__asker *asker);

/* Ask, with the lock held. Returns the question, or NULL: no memory (`*err` is -ENOMEM) or no thread (-EAGAIN). */
struct gyre__question *gyre__ask(struct gyre__asker *asker, void *owner, const char *name, int family, int *err);

/* Nobody wants the answer to `q`, which has not started, any more: drop it. With the lock held. */
void gyre__ask_drop(struct gyre__asker *asker, struct gyre__question *q);

/* An answer with one reference, made by `ask`; on the calling thread. Returns NULL when out of memory. */
struct gyre__answer *gyre__answer_new(gyre__ask_fn *ask, void *user, uint32_t max, const char *name, int family);
void gyre__answer_release(struct gyre__answer *answer); /* NULL is allowed */

static inline struct gyre__answer *gyre__answer_share(struct gyre__answer *answer)
{
    (void)atomic_fetch_add_explicit(&answer->refs, 1, memory_order_relaxed);
    return answer;
}

/* The addresses that the system knows. */
int gyre__ask_system(struct sockaddr_storage *out, uint32_t max, const char *name, int family, void *user);

#endif
