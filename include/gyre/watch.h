/* SPDX-License-Identifier: MIT
 * Watching a descriptor that is somebody else's: a pipe, a signalfd or timerfd, inotify, or the socket of another
 * library (c-ares, libpq, D-Bus), on the same loop as the connections. The loop tells that something can be done and
 * does nothing with the descriptor itself. For sockets of one's own there is gyre_conn_adopt_fd().
 *
 * Level-triggered: the callback comes again in each turn as long as what was asked for holds, at most once per turn,
 * and connections have their share all the same. What it is told was true a moment ago; who shares the descriptor with
 * others makes it non-blocking, and takes "would block" for an answer.
 *
 * The descriptor stays the caller's: nothing of it is changed, and the caller closes it. The loop watches a copy, which
 * takes one descriptor more. So any number of watches may be on one descriptor, a connection's (gyre_conn_fd()) among
 * them; and closed before its watch it stays open, unseen by its peer, until that is closed too. On the simulator its
 * own descriptors can be watched, and no others. */
#ifndef GYRE_WATCH_H
#define GYRE_WATCH_H

#include <gyre/base.h>
#include <gyre/loop.h>

#ifdef __cplusplus
extern "C" {
#endif

struct gyre_watch;

/* What to wait for, and what there is. HANGUP and ERROR are told whether asked for or not; asking for them alone waits
 * for nothing else. */
enum {
    GYRE_WATCH_READABLE = 1u << 0, /* a read does not wait: bytes, the end, a connection to accept, a signal, … */
    GYRE_WATCH_WRITABLE = 1u << 1, /* a write does not wait */
    GYRE_WATCH_PRIORITY = 1u << 2, /* urgent data, a change in a file of /sys or of cgroups; not with kqueue or the
                                      simulator, which end the watch with -EOPNOTSUPP */
    GYRE_WATCH_HANGUP = 1u << 3,   /* the other side is gone: of a pipe to read, of a connection both ways */
    GYRE_WATCH_ERROR = 1u << 4,    /* an error waits (SO_ERROR), or nobody is left to read from the pipe */
};

/* `events` says what there is, at least one. With `err` other than 0, `events` is 0 and the watch has ended: nothing is
 * watched any more, and `watch` is gone when the callback returns. That is GYRE_ESHUTDOWN when the loop is destroyed,
 * else what the system had against it (-ENOMEM, -EOPNOTSUPP). A callback that leaves things as they are is called again
 * in the next turn; one that cannot do anything about them now calls gyre_watch_set(watch, 0). */
typedef void gyre_watch_fn(struct gyre_watch *watch, unsigned events, int err, void *user);

/* Watch `fd` for `events` (of the above; 0: nothing yet). `fn` comes in the next turn at the earliest. Returns owned,
 * until gyre_watch_close() or the call of `fn` that has an error.
 * Returns 0, or: -EINVAL without `out`, `loop` or `fn`, and for the loop's own gyre_loop_fd(); GYRE_EOPTION for other
 * events; -EBADF; -EMFILE, -ENFILE for want of a descriptor for the copy; -ENOMEM; GYRE_EFDTYPE for what is always
 * ready (files, directories, disks; devices like /dev/null with epoll, while io_uring says that they are ready);
 * GYRE_ESHUTDOWN while the loop is being destroyed; GYRE_ETHREAD. Thread: the loop's. */
GYRE_API int gyre_watch_open(struct gyre_watch **out, struct gyre_loop *loop, int fd, unsigned events,
                             gyre_watch_fn *fn, void *user);

/* Watch for `events` from now on, and for nothing that was asked for before; 0 pauses. Legal in the callback, and cheap
 * there. Returns 0, or GYRE_EOPTION for other events, GYRE_ECLOSED if it has ended, -EINVAL for NULL, GYRE_ETHREAD.
 * Thread: the loop's. */
GYRE_API int gyre_watch_set(struct gyre_watch *watch, unsigned events);

/* Stop watching, for good: `fn` does not come any more, not even in this turn. The descriptor may be closed. Legal in
 * any callback, the watch's own included. NULL is allowed. Returns 0, or GYRE_ETHREAD. Thread: the loop's. */
GYRE_API int gyre_watch_close(struct gyre_watch *watch);

/* The descriptor as it was given to gyre_watch_open(), and what is watched for. Thread: the loop's. */
GYRE_API int gyre_watch_fd(const struct gyre_watch *watch);
GYRE_API unsigned gyre_watch_events(const struct gyre_watch *watch);

#ifdef __cplusplus
}
#endif

#endif
