/* SPDX-License-Identifier: MIT
 * Counters, gauges and histograms of a loop or an engine, and the same as text for Prometheus.
 *
 * Counters start at 0 when the loop is created. Any thread may read them while the loop runs. Each value is read whole,
 * and counters never decrease. The values are read one after the other, so a sum over several values is exact only
 * while the loop is idle.
 *
 * When something is slow, look at these fields of struct gyre_stats:
 *
 *   enters / requests near 1   The loop waits for every single event: there is little traffic, or one connection at a
 *                              time. With many busy connections expect enter_completions and turn_events at 4 or more.
 *   calls                      System calls made directly on sockets: at least two per request on epoll, and only for
 *                              bulk data on io_uring.
 *   turn_ns has high buckets   A handler, timer or task blocks the loop, and tasks_waiting grows meanwhile. Move slow
 *                              work to another thread; gyre_loop_post() brings the result back.
 *   enobufs, starved           Receives found no buffer: raise buf_count_max. If bufs_held is close to bufs_max, too,
 *                              destinations are slow, or handlers hold buffers (gyre_buf_hold).
 *   recvs_heap                 Handlers and queues hold all receive buffers. Act as for enobufs, and soon.
 *   recv_bytes near buf_size_bytes
 *                              Messages are larger than a receive buffer: raise buf_size_bytes.
 *   bytes_copied_in            Handlers leave bytes for later. Take bytes as they arrive, or forward them.
 *   bytes_copied_out           gyre_conn_write() copies. gyre_conn_write_ref() and gyre_conn_forward() do not.
 *   bytes_forward_copied       Forwarding copied because receive buffers were scarce: raise buf_count_max.
 *   bytes_spliced              If this is far below bytes_forwarded on a relay of bulk data over TCP: handlers read
 *                              bytes or forward only a part, or no descriptors are left for pipes.
 *   sends_short, congestions   Peers read more slowly than this side sends. forward_waits counts how often a source
 *                              had to wait for a slow destination. Without these waits a proxy's memory would grow.
 *                              bytes_outbound is the number of bytes queued now.
 *   writes_refused             Handlers write although the connection is congested: wait for on_drain.
 *   send_pieces / sends near 1 If there are many writes: each write leaves as a send of its own, because the writes are
 *                              made in different turns.
 *   rearms                     Multishot operations end early: see enobufs and overflows. Or the kernel has no
 *                              multishot operations.
 *   rearms_idle                If this grows by thousands a second, the loop spins: report it as a bug.
 *   overflows                  The completion queue is too small for the events of one turn: raise ops_max.
 *   accept_pauses              conns_max is reached, or descriptors (ulimit -n) or memory run out. The log says which.
 *   bytes_dropped, failures, timeouts
 *                              Connections ended before all their queued bytes were sent. */
#ifndef GYRE_STATS_H
#define GYRE_STATS_H

#include <gyre/base.h>
#include <gyre/loop.h>

#ifdef __cplusplus
extern "C" {
#endif

struct gyre_engine;

/* A histogram has this many buckets. buckets[0] counts values of 0. buckets[i] counts values above 2^(i-2) and up to
 * 2^(i-1). The last bucket also counts all larger values. */
enum { GYRE_HISTOGRAM_BUCKETS = 34 };

struct gyre_histogram {
    uint64_t sum; /* sum of all values */
    uint64_t buckets[GYRE_HISTOGRAM_BUCKETS];
};

/* All counters, gauges and histograms. New entries are appended.
 *
 * C(field, name, text): a counter, gyre_NAME_total in Prometheus.
 * G(field, name, text): a gauge, gyre_NAME in Prometheus. The value is as of the end of the loop's last turn, or newer.
 * H(field, name, first, last, unit, text): a histogram, gyre_NAME in Prometheus, with the buckets from `first` to
 * `last`. `unit` is GYRE_UNIT_ONE, or GYRE_UNIT_NS for nanoseconds, which Prometheus gets as seconds. */
#define GYRE_STATS(C, G, H)                                                                                            \
    C(turns, "turns", "turns of the loop: one wait, then the callbacks of its events")                                 \
    C(enters, "enters", "system calls that wait or submit: io_uring_enter, epoll_wait, kevent")                        \
    C(sqes, "submission_entries", "entries that the kernel took from the submission queue (io_uring)")                 \
    C(calls, "socket_calls", "system calls on sockets made directly: recv, send, accept, connect")                     \
    C(events, "events", "events that the backend returned")                                                            \
    C(ops, "operations", "operations submitted")                                                                       \
    C(cancels, "cancels", "operations that were asked to cancel")                                                      \
    C(rearms, "rearms", "multishot operations that had ended and were armed again")                                    \
    C(enobufs, "receives_without_buffer", "receives that found no buffer (ENOBUFS)")                                   \
    C(stale, "stale_completions", "completions whose operation was gone")                                              \
    C(overflows, "completion_overflows", "times the completion queue overflowed (io_uring)")                           \
    C(wakes, "wakeups", "times another thread woke the loop")                                                          \
    C(accepted, "accepted_connections", "connections accepted")                                                        \
    C(accept_errors, "accept_errors", "accepts that failed, and accepted connections that could not be opened")        \
    C(connected, "made_connections", "connections made")                                                               \
    C(closed, "closed_connections", "connections closed, including those that could not be made")                      \
    C(bytes_in, "received_bytes", "bytes received")                                                                    \
    C(bytes_out, "sent_bytes", "bytes that the kernel accepted for sending")                                           \
    C(bytes_copied_in, "copied_in_bytes", "bytes copied into elastic inbound buffers: left, joined or held")           \
    C(bytes_forwarded, "forwarded_bytes", "bytes forwarded in place")                                                  \
    C(sends, "sends", "send operations submitted")                                                                     \
    C(timers, "timers_fired", "timers fired")                                                                          \
    C(tasks, "tasks", "posted tasks run")                                                                              \
    G(bufs_max, "receive_buffers", "receive buffers that exist: the most that were in use at once")                    \
    C(bytes_forward_copied, "forward_copied_bytes", "bytes forwarded with a copy because buffers were scarce")         \
    C(bytes_copied_out, "copied_out_bytes", "bytes copied by writes")                                                  \
    C(bytes_queued, "queued_bytes", "bytes queued for sending, by writes and by forwarding")                           \
    C(bytes_dropped, "dropped_bytes", "bytes queued and never sent: the connection broke, was aborted or timed out")   \
    C(sends_gathered, "gathered_sends", "send operations of more than one piece")                                      \
    C(send_pieces, "sent_pieces", "pieces (queued writes, forwarded buffers) in all send operations")                  \
    C(sends_short, "short_sends", "sends that the kernel accepted only in part")                                       \
    C(congestions, "congestions", "times a connection's queue passed write_high_bytes")                                \
    C(forward_waits, "forward_waits", "times a source stopped receiving until its destination had drained")            \
    C(writes_refused, "refused_writes", "writes refused because the queue would exceed write_max_bytes (EAGAIN)")      \
    C(read_limits, "read_limits", "times receiving stopped because read_max_bytes were unread")                        \
    C(recvs_heap, "heap_receives", "receives into heap memory because every receive buffer was held")                  \
    C(connect_errors, "connect_errors", "connections that could not be made")                                          \
    C(failures, "failed_connections", "connections that ended with an error, including those that could not be made")  \
    C(timeouts, "timed_out_connections", "connections that ended because a time limit was exceeded")                   \
    C(accept_pauses, "accept_pauses", "times accepting paused: conns_max, or no descriptors or memory")                \
    C(timers_started, "timers_started", "timers started, including restarts and the library's own timers")             \
    C(tasks_refused, "refused_tasks", "posts refused: tasks_max were queued (EAGAIN)")                                 \
    G(conns, "connections", "connections open, including those that are being made or closed")                         \
    G(bytes_outbound, "outbound_bytes", "bytes queued and not yet sent")                                               \
    G(bufs_posted, "receive_buffers_posted", "receive buffers that the kernel has, ready to be filled")                \
    G(bufs_held, "receive_buffers_held", "receive buffers that queues and handlers hold")                              \
    G(bufs_held_max, "receive_buffers_held_max", "most receive buffers held at once")                                  \
    G(starved, "starved_receives", "connections that wait for a receive buffer")                                       \
    G(tasks_waiting, "tasks_waiting", "posted tasks that have yet to run")                                             \
    G(accepts_paused, "accepts_paused", "listening sockets on which accepting pauses")                                 \
    C(datagrams_in, "received_datagrams", "datagrams received; each socket counts more (udp.h)")                       \
    C(datagrams_out, "sent_datagrams", "datagrams that the kernel accepted")                                           \
    H(turn_events, "turn_events", 0, 9, GYRE_UNIT_ONE, "events of one turn")                                           \
    H(enter_completions, "enter_completions", 0, 10, GYRE_UNIT_ONE,                                                    \
      "completions (io_uring) or ready descriptors (epoll, kqueue) that one entering system call brought")             \
    H(recv_bytes, "receive_bytes", 7, 21, GYRE_UNIT_ONE, "bytes of one receive")                                       \
    H(turn_ns, "turn_duration_seconds", 11, 31, GYRE_UNIT_NS,                                                          \
      "time from one wait to the next; not measured before turns that do not wait")                                    \
    C(refused, "refused_connections", "accepted connections closed at once because of the filter or a limit")          \
    C(balance_errors, "balance_errors", "times the balance function returned an index out of range")                   \
    C(adopted, "adopted_connections", "connections made from a descriptor of the user")                                \
    C(detached, "detached_connections", "closed connections whose descriptor was handed to the user")                  \
    C(bytes_spliced, "spliced_bytes", "forwarded bytes that stayed in the kernel (splice)")                            \
    C(urgent_tasks, "urgent_tasks", "posted tasks run that were urgent")                                               \
    C(urgent_tasks_refused, "refused_urgent_tasks", "urgent posts refused: urgent_tasks_max were queued (EAGAIN)")     \
    G(bufs_resident, "receive_buffers_resident", "receive buffers whose memory has not been released to the system")   \
    C(bufs_trimmed, "receive_buffers_trimmed", "times the memory of a receive buffer was released to the system")      \
    G(watches, "watches", "watched descriptors")                                                                       \
    C(rearms_idle, "idle_rearms", "waits for a socket that ended although the socket was not ready")

enum { GYRE_UNIT_ONE = 0, GYRE_UNIT_NS };

struct gyre_stats {
#define GYRE_STATS_NUMBER(field, name, text) uint64_t field;
#define GYRE_STATS_HISTOGRAM(field, name, first, last, unit, text) struct gyre_histogram field;
    GYRE_STATS(GYRE_STATS_NUMBER, GYRE_STATS_NUMBER, GYRE_STATS_HISTOGRAM)
#undef GYRE_STATS_NUMBER
#undef GYRE_STATS_HISTOGRAM
};

/* Copy the loop's statistics to `*out`. Neither this call nor the loop waits, so calling it every second is cheap.
 * Thread: any, until the loop is destroyed. */
#define gyre_loop_stats(out, loop) gyre_loop_stats_sized((out), sizeof(struct gyre_stats), (loop))
GYRE_API void gyre_loop_stats_sized(struct gyre_stats *out, size_t size_bytes, const struct gyre_loop *loop);

/* Copy the sums over the loops of an engine to `*out`: of counters, gauges and buckets. A sum of a `…_max` field may be
 * higher than the true maximum, because the loops reach theirs at different times.
 * Thread: any, until the engine is destroyed. */
#define gyre_engine_stats(out, engine) gyre_engine_stats_sized((out), sizeof(struct gyre_stats), (engine))
GYRE_API void gyre_engine_stats_sized(struct gyre_stats *out, size_t size_bytes, const struct gyre_engine *engine);

/* A label for every sample. A name matches [a-zA-Z_][a-zA-Z0-9_]* and does not begin with __. Names differ from each
 * other and from loop, backend and le. A value is any UTF-8 text. */
struct gyre_label {
    const char *name;
    const char *value;
};

/* Write all statistics to `out` (`size_bytes` long) in Prometheus' text format 0.0.4, with a 0 byte at the end. Serve
 * the text as `text/plain; version=0.0.4`. Each sample has the labels loop="0" (the loop's index in the engine),
 * backend="io_uring", and the `label_count` labels at `labels`, which are borrowed during the call. For an engine there
 * is one sample per loop. `out` may be NULL if `size_bytes` is 0.
 *
 * Returns the length of the whole text without the 0 byte. If that is `size_bytes` or more, the text in `out` lacks
 * whole lines at its end. A second call may need a little more room, because numbers grow. On error returns:
 *   -EINVAL  the labels break the rules of struct gyre_label; `out` is an empty text
 * Thread: any, until the loop or the engine is destroyed. */
GYRE_API int64_t gyre_loop_prometheus(char *out, size_t size_bytes, const struct gyre_loop *loop,
                                      const struct gyre_label *labels, size_t label_count);
GYRE_API int64_t gyre_engine_prometheus(char *out, size_t size_bytes, const struct gyre_engine *engine,
                                        const struct gyre_label *labels, size_t label_count);

#ifdef __cplusplus
}
#endif

#endif
