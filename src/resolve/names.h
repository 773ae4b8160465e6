/* SPDX-License-Identifier: MIT
 * The names of a resolver: those in the cache and those that are being looked up.
 *
 * Everything here is guarded by the lock of the resolver's asker. The requests of a name wait in its list. Each travels
 * to its loop as a task once there is an answer. */
#ifndef GYRE_RESOLVE_NAMES_H
#define GYRE_RESOLVE_NAMES_H

#include "ask.h"
#include "loop/loop.h"

#include <gyre/resolve.h>

enum { GYRE_RESOLVER_MAGIC = 0x6e616d65 };

struct gyre__name;

/* A request. `next`, `prev` and `name` are guarded by the lock, and so are `answer` and `err` until the request is
 * posted; the rest is the loop's. */
struct gyre_lookup {
    struct gyre__task task;
    struct gyre_lookup *next, **prev; /* those that wait for `name` */
    struct gyre__name *name;          /* NULL: the answer is here, or on its way */
    struct gyre__answer *answer;      /* NULL: `err` */
    int err;
    bool posted; /* `task` is on its way to the loop */
    bool forgotten;
    struct gyre_lookup *loop_next, **loop_prev; /* all of the loop's */
    struct gyre__loop_timer timer;              /* the time limit; on the simulator also when the answer comes */
    struct gyre_loop *loop;
    struct gyre_resolver *resolver;
    gyre_resolved_fn *done;
    void *user;
    int family;
    char text[]; /* the name, normalized */
};

/* A name and a family. With an answer it is in the cache, in order of use; with a question it is being looked up. */
struct gyre__name {
    struct gyre__name *hash_next;
    struct gyre__name *newer, *older;
    struct gyre_resolver *resolver;
    struct gyre__answer *answer; /* NULL: none, or none that is valid */
    uint64_t until_ns;           /* how long it is valid */
    struct gyre__question *question;
    struct gyre_lookup *waiters, **waiters_last;
    uint32_t hash;
    int family;
    char text[GYRE_HOST_MAX + 2]; /* in lower case */
};

struct gyre_resolver {
    uint32_t magic;
    uint32_t forks;
    const struct gyre_mem *mem;
    struct gyre_resolver_options options;
    struct gyre__asker *asker;
    struct gyre_resolver_counts counts;
    struct gyre__name *newest, *oldest; /* those with an answer, by use */
    struct gyre__name **buckets;
    uint32_t bucket_mask;
};

/* With an `ask` other than getaddrinfo(3), for tests. Returns 0, -ENOMEM or GYRE_EOPTION. */
int gyre__resolver_make(struct gyre_resolver **out, const struct gyre_resolver_options *options, gyre__ask_fn *ask,
                        void *ask_user);

/* All with the lock held. find(): the answer that is valid at `now_ns`, with a reference for the caller, or NULL.
 * wait(): let `r` wait for the name, which is looked up unless that is under way; 0, -ENOMEM or -EAGAIN. leave(): `r`
 * does not wait any more. keep(): put an answer that came otherwise into the cache. */
struct gyre__answer *gyre__names_find(struct gyre_resolver *res, const char *text, int family, uint64_t now_ns);
int gyre__names_wait(struct gyre_resolver *res, struct gyre_lookup *r, const char *text, int family);
void gyre__names_leave(struct gyre_lookup *r);
void gyre__names_keep(struct gyre_resolver *res, const char *text, int family, struct gyre__answer *answer,
                      uint64_t now_ns);

/* Copy a host name in lower case, without a trailing dot. Returns false if it is none. */
bool gyre__name_normalize(char *out, const char *text);

#endif
