/* SPDX-License-Identifier: MIT
 * Looking names up for a loop. */
#ifndef GYRE_RESOLVE_RESOLVE_H
#define GYRE_RESOLVE_RESOLVE_H

#include "loop/loop.h"
#include "socket/addr.h"

#include <gyre/resolve.h>

/* What this room keeps of a loop. */
struct gyre__resolves {
    struct gyre_lookup *first;      /* the requests under way, those on their way to the loop included */
    struct gyre_resolver *resolver; /* NULL: none was given, and none was needed so far */
    bool own;                       /* it goes with the loop */
};

/* `resolver` may be NULL. Returns 0 or -ENOMEM. */
int gyre__resolves_init(struct gyre_loop *l, struct gyre_resolver *resolver);
void gyre__resolves_fini(struct gyre_loop *l);

/* The loop ends: its requests get GYRE_ESHUTDOWN. Those that have their answer already keep it. */
void gyre__resolves_end(struct gyre_loop *l);

/* A request for a name or number. `timeout_ns` 0: none. Returns as gyre_resolve(). Thread: the loop's. */
struct gyre__resolve_request {
    const char *name;
    int family;
    bool fresh;
    int64_t timeout_ns;
    gyre_resolved_fn *done;
    void *user;
};
int gyre__resolve(struct gyre_lookup **out, struct gyre_loop *l, const struct gyre__resolve_request *request);

/* Like gyre_resolve_cancel(), but `done` does not run. */
void gyre__resolve_forget(struct gyre_lookup *r);

/* The address to listen on for a name: the first of IPv4, or if there is none the first. "localhost" is known. For
 * every other name the calling thread waits; in a callback of one of the loops it is refused.
 * Returns 0, GYRE_EADDRESS or an error of a lookup. */
int gyre__resolve_now(struct gyre__address *out, struct gyre_loop *const *loops, uint32_t count,
                      const struct gyre__host *host);

void gyre__resolve_on_timer(struct gyre__loop_timer *t);

#endif
