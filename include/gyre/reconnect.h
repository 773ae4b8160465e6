/* SPDX-License-Identifier: MIT
 * Keeping one outgoing connection alive: a reconnector connects, and connects again when the connection could not be
 * made or has ended, waiting longer each time. How long is drawn at random between a lower bound and one that doubles
 * with each failure, so that many clients of a server that comes back do not all arrive at once. */
#ifndef GYRE_RECONNECT_H
#define GYRE_RECONNECT_H

#include <gyre/base.h>
#include <gyre/conn.h>
#include <gyre/loop.h>

#ifdef __cplusplus
extern "C" {
#endif

struct gyre_reconnector;

/* What a reconnector calls, on its loop; never from inside a call the user made. All optional. */
struct gyre_reconnector_handlers {
    /* The connection was not made, or has ended, with `err` (0: a clean end), and its on_close has been called. The
     * next attempt comes after `delay_ns`, unless the reconnector is stopped. */
    void (*on_wait)(struct gyre_reconnector *reconnector, int err, int64_t delay_ns, void *user);
    /* `failures_max` failures in a row: it has stopped; gyre_reconnector_start() begins anew. */
    void (*on_give_up)(struct gyre_reconnector *reconnector, int err, void *user);
};

struct gyre_reconnector_options {
    int64_t delay_min_ns;  /* wait no less; 0: 100 ms */
    int64_t delay_max_ns;  /* and no more; 0: 30 s, or delay_min_ns if that is more */
    int64_t stable_ns;     /* a connection that was open for so long makes the failures before it forgotten; 0: 10 s */
    uint32_t failures_max; /* give up after so many in a row; 0: never */
    uint64_t seed;         /* of the delays; 0: another each time, on the simulator the same each time */
    const struct gyre_reconnector_handlers *handlers; /* borrowed until the reconnector is destroyed; NULL: none */
    void *user;                                       /* for those; the connections have conn.user */
    uint32_t reserved[8];          /* zero */
    struct gyre_conn_options conn; /* of each connection; what it points to is borrowed like `handlers`; stays last */
};

/* Make a reconnector, stopped, for connections to `address` (copied) with `handlers`, which are borrowed until it is
 * destroyed and its connection has closed. Returns owned; free with gyre_reconnector_destroy().
 * Returns 0, or: -EINVAL; GYRE_EADDRESS, GYRE_EPATHLEN; GYRE_EHANDLERS; GYRE_EOPTION; -E2BIG; -ENOMEM; GYRE_ETHREAD.
 * Thread: the loop's. */
#define gyre_reconnector_create(out, loop, address, handlers, ...)                                                     \
    gyre_reconnector_create_sized((out), (loop), (address), (handlers), (__VA_ARGS__),                                 \
                                  sizeof(struct gyre_reconnector_options))
GYRE_API int gyre_reconnector_create_sized(struct gyre_reconnector **out, struct gyre_loop *loop, const char *address,
                                           const struct gyre_conn_handlers *handlers,
                                           const struct gyre_reconnector_options *options, size_t size_bytes);

/* Stop it and free it; a connection that it has lives on, with its handlers, until it is closed. Legal in every
 * callback. A reconnector must be destroyed before its loop. NULL is allowed. Thread: the loop's. */
GYRE_API void gyre_reconnector_destroy(struct gyre_reconnector *reconnector);

/* Connect now, and keep connected. Whatever ends the connection, gyre_conn_close() of the user's included, is followed
 * by the next attempt; only the end of the loop stops it. Failures are counted from 0 again. While it is started it
 * does nothing, but cuts a wait short.
 * Returns 0 (also if connecting fails at once: that is a failure like any other), or GYRE_ETHREAD, GYRE_ESHUTDOWN.
 * Thread: the loop's. */
GYRE_API int gyre_reconnector_start(struct gyre_reconnector *reconnector);

/* Connect no more. A connection that it has stays as it is. Thread: the loop's. */
GYRE_API void gyre_reconnector_stop(struct gyre_reconnector *reconnector);

/* Its connection, connecting, open or closing; borrowed; NULL if it has none. Thread: the loop's. */
GYRE_API struct gyre_conn *gyre_reconnector_conn(const struct gyre_reconnector *reconnector);

/* Failures since the last connection that was stable. Thread: the loop's. */
GYRE_API uint32_t gyre_reconnector_failures(const struct gyre_reconnector *reconnector);

#ifdef __cplusplus
}
#endif

#endif
