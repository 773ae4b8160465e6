/* SPDX-License-Identifier: MIT
 * Counters of a loop. All count from its creation. */
#ifndef GYRE_STATS_H
#define GYRE_STATS_H

#include <gyre/base.h>
#include <gyre/loop.h>

#ifdef __cplusplus
extern "C" {
#endif

#define GYRE_STATS(X)                                                                                                  \
    X(turns, "turns of the loop")                                                                                      \
    X(enters, "system calls that wait or submit: io_uring_enter, epoll_wait, kevent")                                  \
    X(calls, "system calls on sockets made directly: recv, send, accept, connect")                                     \
    X(events, "events that came out of the backend")                                                                   \
    X(ops, "operations submitted")                                                                                     \
    X(cancels, "operations asked to cancel")                                                                           \
    X(rearms, "multishot operations that had ended and were armed again")                                              \
    X(enobufs, "receives that found no buffer")                                                                        \
    X(stale, "completions whose operation was gone")                                                                   \
    X(overflows, "times the completion queue overflowed")                                                              \
    X(wakes, "times another thread woke the loop")                                                                     \
    X(accepted, "connections accepted")                                                                                \
    X(accept_errors, "accepts that failed")                                                                            \
    X(connected, "connections made")                                                                                   \
    X(closed, "connections closed")                                                                                    \
    X(bytes_in, "bytes received")                                                                                      \
    X(bytes_out, "bytes the kernel took to send")                                                                      \
    X(bytes_copied_in, "bytes copied into elastic inbound buffers")                                                    \
    X(bytes_forwarded, "bytes forwarded in place")                                                                     \
    X(sends, "send operations submitted")                                                                              \
    X(timers, "timers fired")                                                                                          \
    X(tasks, "posted tasks run")                                                                                       \
    X(bufs_max, "most receive buffers in use at once: posted, held and queued")

struct gyre_loop_stats {
#define GYRE_STATS_FIELD(name, text) uint64_t name;
    GYRE_STATS(GYRE_STATS_FIELD)
#undef GYRE_STATS_FIELD
};

/* Copy the counters. Thread: the loop's, or any once it has stopped. */
GYRE_API void gyre_loop_stats(const struct gyre_loop *loop, struct gyre_loop_stats *out);

#ifdef __cplusplus
}
#endif

#endif
