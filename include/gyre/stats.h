/* SPDX-License-Identifier: MIT
 * Counters, gauges and histograms of a loop or an engine, and their text for Prometheus.
 *
 * Counters count from the creation of the loop. Any thread may read them while the loop runs: each is whole and never
 * goes back, but they are read one after the other, so sums over several are only exact once the loop has come to rest.
 *
 * What tells what when something is slow:
 *
 *   enters per request near 1  The loop waits for every single event: little traffic, or one connection at a time. With
 *                              many busy connections enter_completions and turn_events should lie at 4 and above.
 *   calls                      Direct calls on sockets: on epoll two per request at least, on io_uring only for bulk.
 *   turn_ns reaches far up     A handler, timer or task holds the loop up. What takes long belongs on another thread;
 *                              gyre_loop_post() brings the result back. tasks_waiting grows meanwhile.
 *   enobufs, starved           Receives found no buffer: raise buf_count_max. If bufs_held is near bufs_max too,
 *                              destinations are slow or handlers hold what they received (gyre_buf_hold).
 *   recvs_heap                 Handlers and queues hold every receive buffer there is: as above, and urgent.
 *   recv_bytes at the buffers' size  Messages are larger than a receive buffer: raise buf_size_bytes.
 *   bytes_copied_in            Handlers leave bytes for later: take them as they come, or forward them.
 *   bytes_copied_out           gyre_conn_write() copies: gyre_conn_write_ref() and gyre_conn_forward() do not.
 *   bytes_forward_copied       Forwarding copied because receive buffers were scarce: raise buf_count_max.
 *   bytes_spliced              Far below bytes_forwarded on a relay of bulk over TCP: handlers look at bytes, forward
 *                              parts, or there are no descriptors for pipes.
 *   sends_short, congestions   Peers read more slowly than we send. forward_waits counts how often that made a source
 *                              wait; without it a proxy's memory would grow. bytes_outbound is what waits now.
 *   writes_refused             Handlers write on although the connection is congested: wait for on_drain.
 *   send_pieces per send       Near 1 with many writes per turn: they are flushed one by one across turns.
 *   rearms                     Multishot operations end early: see enobufs and overflows, or the kernel lacks them.
 *   overflows                  The completion queue is too small for what happens in a turn: raise ops_max.
 *   accept_pauses              conns_max, descriptors (ulimit -n) or memory run out; the log says which.
 *   bytes_dropped, failures, timeouts  Connections ended before what was queued for them had left. */
#ifndef GYRE_STATS_H
#define GYRE_STATS_H

#include <gyre/base.h>
#include <gyre/loop.h>

#ifdef __cplusplus
extern "C" {
#endif

struct gyre_engine;

/* How often a value fell where: buckets[0] counts values of 0, buckets[i] those above 2^(i-2) and up to 2^(i-1), the
 * last one also everything above. */
enum { GYRE_HISTOGRAM_BUCKETS = 34 };

struct gyre_histogram {
    uint64_t sum; /* of all values */
    uint64_t buckets[GYRE_HISTOGRAM_BUCKETS];
};

/* Everything there is. New ones are appended.
 *
 * C(field, name, text): a counter, for Prometheus gyre_NAME_total.
 * G(field, name, text): a gauge, a value of the moment, as of the end of the loop's last turn.
 * H(field, name, first, last, unit, text): a histogram; Prometheus gets the buckets from first to last. The unit is
 * GYRE_UNIT_ONE, or GYRE_UNIT_NS for nanoseconds, which Prometheus gets as seconds. */
#define GYRE_STATS(C, G, H)                                                                                            \
    C(turns, "turns", "turns of the loop: waits, each followed by the callbacks of what it brought")                   \
    C(enters, "enters", "system calls that wait or submit: io_uring_enter, epoll_wait, kevent")                        \
    C(sqes, "submission_entries", "entries that the kernel took from the submission queue (io_uring)")                 \
    C(calls, "socket_calls", "system calls on sockets made directly: recv, send, accept, connect")                     \
    C(events, "events", "events that came out of the backend")                                                         \
    C(ops, "operations", "operations submitted")                                                                       \
    C(cancels, "cancels", "operations asked to cancel")                                                                \
    C(rearms, "rearms", "multishot operations that had ended and were armed again")                                    \
    C(enobufs, "receives_without_buffer", "receives that found no buffer (ENOBUFS)")                                   \
    C(stale, "stale_completions", "completions whose operation was gone")                                              \
    C(overflows, "completion_overflows", "times the completion queue overflowed (io_uring)")                           \
    C(wakes, "wakeups", "times another thread woke the loop")                                                          \
    C(accepted, "accepted_connections", "connections accepted")                                                        \
    C(accept_errors, "accept_errors", "accepts that failed, and accepted connections that had no place")               \
    C(connected, "made_connections", "connections made")                                                               \
    C(closed, "closed_connections", "connections closed, those included that could not be made")                       \
    C(bytes_in, "received_bytes", "bytes received")                                                                    \
    C(bytes_out, "sent_bytes", "bytes the kernel took to send")                                                        \
    C(bytes_copied_in, "copied_in_bytes", "bytes copied into elastic inbound buffers: left, joined or held")           \
    C(bytes_forwarded, "forwarded_bytes", "bytes forwarded in place")                                                  \
    C(sends, "sends", "send operations submitted")                                                                     \
    C(timers, "timers_fired", "timers fired")                                                                          \
    C(tasks, "tasks", "posted tasks run")                                                                              \
    G(bufs_max, "receive_buffers", "receive buffers that exist: the most that were in use at once")                    \
    C(bytes_forward_copied, "forward_copied_bytes", "bytes forwarded with a copy because buffers were scarce")         \
    C(bytes_copied_out, "copied_out_bytes", "bytes copied by writes")                                                  \
    C(bytes_queued, "queued_bytes", "bytes queued to be sent, by writes and by forwarding")                            \
    C(bytes_dropped, "dropped_bytes", "bytes queued and never sent: the connection broke, was aborted or timed out")   \
    C(sends_gathered, "gathered_sends", "send operations of more than one piece")                                      \
    C(send_pieces, "sent_pieces", "pieces (queued writes, forwarded buffers) in all send operations")                  \
    C(sends_short, "short_sends", "sends of which the kernel took a part only")                                        \
    C(congestions, "congestions", "times a connection's queue passed write_high_bytes")                                \
    C(forward_waits, "forward_waits", "times a source stopped receiving until its destination had drained")            \
    C(writes_refused, "refused_writes", "writes refused because write_max_bytes would wait (EAGAIN)")                  \
    C(read_limits, "read_limits", "times receiving stopped because read_max_bytes were not taken")                     \
    C(recvs_heap, "heap_receives", "receives into other memory because every receive buffer was held")                 \
    C(connect_errors, "connect_errors", "connections that could not be made")                                          \
    C(failures, "failed_connections", "connections that ended with an error, those that could not be made included")   \
    C(timeouts, "timed_out_connections", "of those, the ones whose connect, idle or linger time had passed")           \
    C(accept_pauses, "accept_pauses", "times accepting paused: conns_max, or no descriptors or memory")                \
    C(timers_started, "timers_started", "timers started, the library's own and restarts included")                     \
    C(tasks_refused, "refused_tasks", "posts refused because tasks_max waited (EAGAIN)")                               \
    G(conns, "connections", "connections open, those included that are being made or closed")                          \
    G(bytes_outbound, "outbound_bytes", "bytes queued and not yet sent")                                               \
    G(bufs_posted, "receive_buffers_posted", "receive buffers with the kernel, ready to be filled")                    \
    G(bufs_held, "receive_buffers_held", "receive buffers that queues and handlers hold")                              \
    G(bufs_held_max, "receive_buffers_held_max", "most receive buffers held at once")                                  \
    G(starved, "starved_receives", "connections that wait for a receive buffer")                                       \
    G(tasks_waiting, "tasks_waiting", "posted tasks that have yet to run")                                             \
    G(accepts_paused, "accepts_paused", "listening sockets on which accepting pauses")                                 \
    C(datagrams_in, "received_datagrams", "datagrams received; each socket counts more (udp.h)")                       \
    C(datagrams_out, "sent_datagrams", "datagrams that the kernel took")                                               \
    H(turn_events, "turn_events", 0, 9, GYRE_UNIT_ONE, "events of one turn")                                           \
    H(enter_completions, "enter_completions", 0, 10, GYRE_UNIT_ONE,                                                    \
      "completions (io_uring) or ready descriptors (epoll, kqueue) that one entering system call brought")             \
    H(recv_bytes, "receive_bytes", 7, 21, GYRE_UNIT_ONE, "bytes of one receive")                                       \
    H(turn_ns, "turn_duration_seconds", 11, 31, GYRE_UNIT_NS,                                                          \
      "time from the end of one wait to the next, where the clock is read anyway: not before turns that do not wait")  \
    C(refused, "refused_connections", "connections closed as soon as accepted: the filter or a limit said so")         \
    C(balance_errors, "balance_errors", "times the user's balance function named a loop that there is not")            \
    C(adopted, "adopted_connections", "connections made of a descriptor that the user gave")                           \
    C(detached, "detached_connections", "of those closed, the ones whose descriptor went to the user")             \
    C(bytes_spliced, "spliced_bytes", "bytes of those forwarded that went from socket to socket within the kernel")    \
    C(urgent_tasks, "urgent_tasks", "of the posted tasks run, the urgent ones")                                        \
    C(urgent_tasks_refused, "refused_urgent_tasks", "urgent posts refused because urgent_tasks_max waited (EAGAIN)")   \
    G(bufs_resident, "receive_buffers_resident", "receive buffers with memory of their own; the others gave it back")  \
    C(bufs_trimmed, "receive_buffers_trimmed", "times that a receive buffer gave its memory back to the system")       \
    G(watches, "watches", "descriptors of the user's that are watched")

enum { GYRE_UNIT_ONE = 0, GYRE_UNIT_NS };

struct gyre_stats {
#define GYRE_STATS_NUMBER(field, name, text) uint64_t field;
#define GYRE_STATS_HISTOGRAM(field, name, first, last, unit, text) struct gyre_histogram field;
    GYRE_STATS(GYRE_STATS_NUMBER, GYRE_STATS_NUMBER, GYRE_STATS_HISTOGRAM)
#undef GYRE_STATS_NUMBER
#undef GYRE_STATS_HISTOGRAM
};

/* Copy what the loop has counted. It waits for nothing, the loop neither: cheap enough for every second.
 * Thread: any, until the loop is destroyed. */
#define gyre_loop_stats(loop, out) gyre_loop_stats_sized((loop), (out), sizeof(struct gyre_stats))
GYRE_API void gyre_loop_stats_sized(const struct gyre_loop *loop, struct gyre_stats *out, size_t size_bytes);

/* The same, summed over the loops of an engine: counters, gauges and buckets alike. Sums of a `…_max` may be more than
 * there ever were at once. Thread: any, until the engine is destroyed. */
#define gyre_engine_stats(engine, out) gyre_engine_stats_sized((engine), (out), sizeof(struct gyre_stats))
GYRE_API void gyre_engine_stats_sized(const struct gyre_engine *engine, struct gyre_stats *out, size_t size_bytes);

/* A label of the user's. Names match [a-zA-Z_][a-zA-Z0-9_]*, do not begin with __, differ from each other and from
 * loop, backend and le. Values are any UTF-8. */
struct gyre_label {
    const char *name;
    const char *value;
};

/* Write everything in Prometheus' text format, version 0.0.4 (serve it as `text/plain; version=0.0.4`), into `out`, of
 * `size_bytes`, with a 0 at the end. Each sample is labelled loop="0" (its index in the engine), backend="io_uring" and
 * with `labels`, which are borrowed until it returns; an engine has one sample per loop.
 *
 * Returns how many bytes it takes, the 0 not counted: if that is `size_bytes` or more, whole lines are missing at the
 * end. Another call may need a little more, because numbers grow. `out` may be NULL if `size_bytes` is 0. Or returns
 * -EINVAL for labels that are not as above; `out` is then an empty text.
 * Thread: any, until loop or engine are destroyed. */
GYRE_API int64_t gyre_loop_prometheus(char *out, size_t size_bytes, const struct gyre_loop *loop,
                                      const struct gyre_label *labels, size_t label_count);
GYRE_API int64_t gyre_engine_prometheus(char *out, size_t size_bytes, const struct gyre_engine *engine,
                                        const struct gyre_label *labels, size_t label_count);

#ifdef __cplusplus
}
#endif

#endif
