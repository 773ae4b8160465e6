/* SPDX-License-Identifier: MIT
 * Watching a descriptor that belongs to somebody else, on the same loop as the connections: a pipe, a signalfd, a
 * timerfd, inotify, or the socket of another library (c-ares, libpq, D-Bus). The loop reports when the descriptor is
 * ready. The loop does no I/O on the descriptor. For a socket of your own, use gyre_conn_adopt_fd().
 *
 * Level-triggered. The callback runs again in each turn while the condition holds, at most once per turn. Connections
 * still get their share of each turn. The condition was true a moment ago and may have changed. If anyone else uses the
 * descriptor too, make the descriptor non-blocking and handle EAGAIN.
 *
 * Ownership. The descriptor stays the caller's: gyre changes nothing about the descriptor, and the caller closes it.
 * The loop watches a duplicate, which uses one more descriptor. So any number of watches may be on one descriptor,
 * including the descriptor of a connection (gyre_conn_fd()). If you close a socket before its watch, the socket stays
 * open and its peer sees no close until the watch is closed.
 *
 * On the simulator only descriptors of the simulator can be watched. */
#ifndef GYRE_WATCH_H
#define GYRE_WATCH_H

#include <gyre/base.h>
#include <gyre/loop.h>

#ifdef __cplusplus
extern "C" {
#endif

struct gyre_watch;

/* What to wait for, and what is reported. HANGUP and ERROR are always reported. A watch for HANGUP or ERROR alone waits
 * for these two and nothing else. */
enum {
    GYRE_WATCH_READABLE = 1u << 0, /* a read does not block: bytes, end of file, a connection to accept, a signal, … */
    GYRE_WATCH_WRITABLE = 1u << 1, /* a write does not block */
    GYRE_WATCH_PRIORITY = 1u << 2, /* urgent data, or a change in a file of /sys or of cgroups. With kqueue and on the
                                      simulator this ends the watch with -EOPNOTSUPP */
    GYRE_WATCH_HANGUP = 1u << 3,   /* the other side is closed: the write end of a pipe, both directions of a socket */
    GYRE_WATCH_ERROR = 1u << 4,    /* an error is pending (SO_ERROR), or the read end of a pipe is closed */
};

/* Called on the loop when the descriptor is ready, or when the watch ends.
 *
 * `err` 0: `events` holds at least one event. The callback runs again in the next turn while the condition holds. If
 * you cannot handle the events now, call gyre_watch_set(watch, 0).
 * `err` not 0: `events` is 0 and the watch has ended. `watch` is freed when the callback returns. The errors are:
 *   GYRE_ESHUTDOWN         the loop is being destroyed
 *   -ENOMEM, -EOPNOTSUPP   the system refused to watch the descriptor */
typedef void gyre_watch_fn(struct gyre_watch *watch, unsigned events, int err, void *user);

/* Watch `fd` for `events`, a combination of the flags above; 0: nothing yet. `fn` runs in the next turn at the
 * earliest. Returns owned in `*out`. The watch is valid until gyre_watch_close(), or until `fn` returns from a call
 * with an error.
 *
 * Returns 0, or:
 *   -EINVAL           `out`, `loop` or `fn` is NULL, or `fd` is the loop's own gyre_loop_fd()
 *   GYRE_EOPTION      `events` has a bit that is not listed above
 *   -EBADF            `fd` is not open
 *   -EMFILE, -ENFILE  no descriptor is left for the duplicate
 *   -ENOMEM           out of memory
 *   GYRE_EFDTYPE      the descriptor is always ready: a file, a directory or a disk. With epoll also a device such as
 *                     /dev/null, which io_uring reports as ready
 *   GYRE_ESHUTDOWN    the loop is being destroyed
 *   GYRE_ETHREAD      called from another thread
 * Thread: the loop's. */
GYRE_API int gyre_watch_open(struct gyre_watch **out, struct gyre_loop *loop, int fd, unsigned events,
                             gyre_watch_fn *fn, void *user);

/* Replace the events to watch for; 0 pauses the watch. May be called in the callback, where the call is cheap.
 *
 * Returns 0, or:
 *   GYRE_EOPTION  `events` has a bit that is not listed above
 *   GYRE_ECLOSED  the watch has ended
 *   -EINVAL       `watch` is NULL
 *   GYRE_ETHREAD  called from another thread
 * Thread: the loop's. */
GYRE_API int gyre_watch_set(struct gyre_watch *watch, unsigned events);

/* Close the watch. `fn` does not run again, not even in this turn. After this call the descriptor may be closed. May be
 * called in any callback, including the watch's own. NULL is allowed.
 *
 * Returns 0, or:
 *   GYRE_ETHREAD  called from another thread
 * Thread: the loop's. */
GYRE_API int gyre_watch_close(struct gyre_watch *watch);

/* Return the descriptor that was passed to gyre_watch_open(), and the events that are watched for.
 * Thread: the loop's. */
GYRE_API int gyre_watch_fd(const struct gyre_watch *watch);
GYRE_API unsigned gyre_watch_events(const struct gyre_watch *watch);

#ifdef __cplusplus
}
#endif

#endif
