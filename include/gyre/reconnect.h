/* SPDX-License-Identifier: MIT
 * A reconnector keeps one outgoing connection alive. It connects, and connects again when connecting failed or the
 * connection has ended. Before each new attempt it waits, and the wait grows with each failure.
 *
 * The wait is random, between `delay_min_ns` and an upper bound. The upper bound is `delay_min_ns` doubled once per
 * failure in a row, and at most `delay_max_ns`. The random wait keeps the clients of a restarted server from all
 * connecting at once.
 *
 * A connection that ends counts as a failure, whatever ended it. If the connection was open for `stable_ns`, the
 * failures before it are forgotten. */
#ifndef GYRE_RECONNECT_H
#define GYRE_RECONNECT_H

#include <gyre/base.h>
#include <gyre/conn.h>
#include <gyre/loop.h>

#ifdef __cplusplus
extern "C" {
#endif

struct gyre_reconnector;

/* The callbacks of a reconnector. Each may be NULL. All run on the loop, never inside a call that you made. */
struct gyre_reconnector_handlers {
    /* Connecting failed, or the connection has ended and its on_close has run. `err` is the cause; 0: a clean end. The
     * next attempt starts in `delay_ns` nanoseconds, unless the reconnector is stopped. */
    void (*on_wait)(struct gyre_reconnector *reconnector, int err, int64_t delay_ns, void *user);
    /* The reconnector has stopped after `failures_max` failures in a row. `err` is the cause of the last failure.
     * gyre_reconnector_start() starts it again. */
    void (*on_give_up)(struct gyre_reconnector *reconnector, int err, void *user);
};

struct gyre_reconnector_options {
    int64_t delay_min_ns;  /* shortest wait in nanoseconds; 0: 100 ms, or `delay_max_ns` if that is less */
    int64_t delay_max_ns;  /* longest wait; 0: 30 s, or `delay_min_ns` if that is more; at most INT64_MAX / 4 */
    int64_t stable_ns;     /* a connection open for this many nanoseconds resets the failures; 0: 10 s */
    uint32_t failures_max; /* give up after this many failures in a row; 0: never */
    uint64_t seed;         /* seed of the random waits; 0: different each time, but on the simulator the same */
    const struct gyre_reconnector_handlers *handlers; /* borrowed until the reconnector is destroyed; NULL: none */
    void *user;                                       /* passed to `handlers`; connections get conn.user */
    bool keep_queued; /* what was queued on a connection that could not be made is queued on the next one, before
                         on_open; see gyre_reconnector_queued(). false: it is dropped */
    struct gyre_conn_options conn; /* options of each connection; what they point to is borrowed until the reconnector
                                      is destroyed; the last field */
};

/* Create a stopped reconnector for connections to `address` with `handlers`. `address` is copied. A host name is looked
 * up for each attempt, as gyre_connect() does. Borrows `handlers` until the reconnector is destroyed and its last
 * connection has closed. Returns owned in `*out`; free the reconnector with gyre_reconnector_destroy().
 *
 * Returns 0, or:
 *   -EINVAL         `out`, `loop` or `address` is NULL
 *   GYRE_EADDRESS   `address` or conn.source_address is not a stream address, or the two differ in family
 *   GYRE_EPATHLEN   the unix path is empty or too long
 *   GYRE_EHANDLERS  `handlers` is NULL or lacks on_data (with a framer, on_frame)
 *   GYRE_EOPTION    an option is out of range, or `delay_min_ns` is more than `delay_max_ns`
 *   -E2BIG          an option is set that this library does not know
 *   -ENODEV         conn.device cannot be the name of a device
 *   -ENOMEM         out of memory
 *   GYRE_ETHREAD    called from another thread
 * Thread: the loop's. */
#define gyre_reconnector_create(out, loop, address, handlers, ...)                                                     \
    gyre_reconnector_create_sized((out), (loop), (address), (handlers),                                                \
                                  GYRE_LAST_ARGUMENT_IS_OPTIONS_OR_NULL(struct gyre_reconnector_options, __VA_ARGS__), \
                                  sizeof(struct gyre_conn_options))
GYRE_API int gyre_reconnector_create_sized(struct gyre_reconnector **out, struct gyre_loop *loop, const char *address,
                                           const struct gyre_conn_handlers *handlers,
                                           const struct gyre_reconnector_options *options, size_t size_bytes,
                                           size_t conn_size_bytes);

/* Stop and free the reconnector. The current connection stays open and keeps its handlers until you close the
 * connection. May be called in any callback. Destroy a reconnector before its loop. NULL is allowed.
 *
 * Returns 0, or:
 *   GYRE_ETHREAD  called from another thread; the reconnector stays as it is
 * Thread: the loop's. */
GYRE_API int gyre_reconnector_destroy(struct gyre_reconnector *reconnector);

/* Connect now, and keep connected. After the end of each connection the next attempt follows, even if you closed the
 * connection with gyre_conn_close(). Only gyre_reconnector_stop(), `failures_max` and the end of the loop stop the
 * attempts. This call sets the number of failures to 0. If the reconnector is waiting, the wait ends now. A current
 * connection stays as it is.
 *
 * Returns 0, or:
 *   GYRE_ETHREAD    called from another thread
 *   GYRE_ESHUTDOWN  the loop is draining or being destroyed
 * Returns 0 even if connecting fails at once. This counts as a failure, and the next attempt follows after a wait.
 * Thread: the loop's. */
GYRE_API int gyre_reconnector_start(struct gyre_reconnector *reconnector);

/* Stop connecting. The current connection stays as it is.
 *
 * Returns 0, or:
 *   GYRE_ETHREAD  called from another thread
 * Thread: the loop's. */
GYRE_API int gyre_reconnector_stop(struct gyre_reconnector *reconnector);

/* Returns the current connection, borrowed: connecting, open or closing. Returns NULL if there is none.
 * Thread: the loop's. */
GYRE_API struct gyre_conn *gyre_reconnector_conn(const struct gyre_reconnector *reconnector);

/* Returns the number of bytes kept for the next connection (option `keep_queued`). They count as queued on the next
 * connection and not as unsent on the failed one. The `done` of a kept piece runs when that piece has left, or with
 * GYRE_ECLOSED if the reconnector is destroyed, also during this call, or gives up. Only a connection that never opened
 * leaves bytes to keep: what was queued on an open connection may have arrived, so gyre never sends it again.
 * Thread: the loop's. */
GYRE_API uint64_t gyre_reconnector_queued(const struct gyre_reconnector *reconnector);

/* Returns the number of failures in a row, as the top of this file counts them. Thread: the loop's. */
GYRE_API uint32_t gyre_reconnector_failures(const struct gyre_reconnector *reconnector);

#ifdef __cplusplus
}
#endif

#endif
