/* SPDX-License-Identifier: MIT
 * The simulated network, for testing handlers.
 *
 * A simulation is a network in memory with its own clock. To run a loop on a simulation, name the simulation in the
 * options of the loop (gyre_loop_options.sim). Handlers see no difference, but the loop makes no system calls, and
 * hours pass in milliseconds. What may go wrong on a real network goes wrong here. Receives and sends are short.
 * Connections are refused, reset and aborted. Segments are lost or arrive late. Cancelled operations finish long
 * afterwards. Buffers run out. Operations of different connections complete in a different order. The seed decides what
 * happens and when. The same seed and the same program always give the same run, on any machine. To report a failure,
 * report the seed.
 *
 *     struct gyre_sim *sim;
 *     struct gyre_loop *loop;
 *     int err = gyre_sim_create(&sim, &(struct gyre_sim_options){.seed = 42});
 *     err = gyre_loop_create(&loop, &(struct gyre_loop_options){.sim = sim});
 *     // listen and connect on `loop` as on any other loop
 *     err = gyre_sim_run(sim, &loop, 1, 100000, is_finished, &state);
 *
 * Addresses exist only inside the simulation: a program may listen on and connect to any host, and unix paths are just
 * names. Established connections follow the rules of TCP and unix sockets on Linux. FIN arrives after all data. RST
 * keeps the bytes that the peer's side has received and loses the bytes still in flight. Closing with unread bytes
 * sends RST.
 *
 * A scripted peer is the other end of a connection. The test drives it, one call at a time. So a test can show how a
 * handler copes with a peer that stalls, sends one byte at a time, half-closes or resets.
 *
 * The simulator also checks the library and the program. The simulator aborts the program if an operation is submitted
 * twice, if a descriptor is closed while an operation uses the descriptor, if bytes change while they are being sent
 * (gyre_conn_write_ref() borrows the bytes until `done`), or if receive buffers are lost.
 *
 * Thread: a simulation and all its loops belong to one thread. Other threads may call gyre_loop_post(),
 * gyre_loop_stop() and the other functions marked "any", as on other loops. */
#ifndef GYRE_SIM_H
#define GYRE_SIM_H

#include <gyre/base.h>

#ifdef __cplusplus
extern "C" {
#endif

struct gyre_loop;
struct gyre_sim;
struct gyre_sim_listener;
struct gyre_sim_peer;

/* A profile gives the defaults for options that are 0. */
enum gyre_sim_profile {
    GYRE_SIM_CHAOS = 0, /* every fault happens now and then */
    GYRE_SIM_QUIET      /* no faults, no delays, operations finish in order */
};

enum { GYRE_SIM_NEVER = UINT16_MAX }; /* a probability of zero; 0 means the profile's default */
#define GYRE_SIM_NO_DELAY UINT64_MAX   /* no delay; 0 means the profile's default */

/* Options of a simulation. Probabilities are per mille, from 1 to 1000, or GYRE_SIM_NEVER. 0 means the profile's
 * default: the number given here for GYRE_SIM_CHAOS, and never for GYRE_SIM_QUIET. The options under "The network"
 * apply to TCP and UDP, not to unix sockets. */
struct gyre_sim_options {
    uint64_t seed;                        /* any number, 0 included */
    enum gyre_sim_profile profile;
    const struct gyre_mem *mem;           /* borrowed until the simulation is destroyed; NULL: malloc */

    /* Operations. */
    uint16_t recv_short_permille;         /* a receive returns fewer bytes than are available; 0: 200 */
    uint16_t send_short_permille;         /* a send takes fewer bytes than there is room for; 0: 200 */
    uint16_t more_dropped_permille;       /* an event ends its multishot operation early; no data is lost; 0: 100 */
    uint16_t cancel_late_permille;        /* a cancelled operation takes several turns to end; 0: 300 */
    uint16_t enobufs_permille;            /* a receive finds no buffer, although some are free; 0: 20 */
    uint16_t shuffle_permille;            /* a ready operation changes places with another; 0: 1000 */
    uint16_t few_events_permille;         /* a turn returns fewer events than are ready; 0: 200 */
    uint16_t accept_emfile_permille;      /* an accept fails with -EMFILE; 0: 5 */
    uint16_t accept_aborted_permille;     /* an accept fails with -ECONNABORTED and the connection is lost; not on unix
                                             sockets; 0: 3 */

    /* The network. */
    uint16_t connect_timeout_permille;    /* a connect fails with -ETIMEDOUT after 1 to 20 s; 0: 3 */
    uint16_t connect_unreachable_permille; /* a connect fails with -EHOSTUNREACH; 0: 3 */
    uint16_t reset_permille;              /* a segment resets the connection for both ends; 0: 1 */
    uint16_t loss_permille;               /* a segment is sent again 200 to 800 ms later; a UDP datagram is lost;
                                             0: 10 */
    uint64_t delay_min_ns;                /* shortest delay of a segment; 0: none; at most 1 hour */
    uint64_t delay_max_ns;                /* longest delay of a segment; 0: 2 ms, or none with GYRE_SIM_QUIET; at most
                                             1 hour; GYRE_SIM_NO_DELAY: segments arrive at once unless they are lost */

    /* Sizes. */
    uint32_t send_buffer_bytes;           /* limit on bytes sent and not acknowledged; at most 16 MiB; 0: random from
                                             512 to 65536 for each direction of each connection, or 65536 with
                                             GYRE_SIM_QUIET */
    uint32_t recv_buffer_bytes;           /* limit on bytes received and not read; range and default as
                                             send_buffer_bytes */
    uint32_t fds_max;                     /* limit on open descriptors, then -EMFILE; 0: 1048576; at most 1048576 */

    uint16_t duplicate_permille;          /* a UDP datagram arrives twice; 0: 5 */
};

/* Create a simulation. The caller owns `*out` and frees it with gyre_sim_destroy(). `options` is copied; NULL means all
 * defaults.
 *
 * Returns 0, or:
 *   GYRE_EOPTION  an option is out of range
 *   -E2BIG        `options` is larger than this library knows, and its unknown part is not zero
 *   -ENOMEM       out of memory
 * Thread: any; afterwards the simulation belongs to one thread. */
#define gyre_sim_create(out, ...)                                                                                      \
    gyre_sim_create_sized((out), GYRE_LAST_ARGUMENT_IS_OPTIONS_OR_NULL(struct gyre_sim_options, __VA_ARGS__))
GYRE_API int gyre_sim_create_sized(struct gyre_sim **out, const struct gyre_sim_options *options, size_t size_bytes);

/* Free a simulation and everything still open on it: descriptors, peers, listeners. Destroy its loops first. NULL is
 * allowed. */
GYRE_API void gyre_sim_destroy(struct gyre_sim *sim);

/* Returns the seed of the simulation. */
GYRE_API uint64_t gyre_sim_seed(const struct gyre_sim *sim);

/* Returns a hash over all events so far, with their order and times. Two runs with equal hashes did the same things. A
 * test compares hashes to prove that a run was repeated exactly. */
GYRE_API uint64_t gyre_sim_trace_hash(const struct gyre_sim *sim);

/* Counts of what happened in a simulation. */
struct gyre_sim_counts {
    uint64_t events;           /* events that loops received */
    uint64_t segments;         /* segments sent */
    uint64_t bytes;            /* bytes in these segments */
    uint64_t recvs_short;
    uint64_t sends_short;
    uint64_t mores_dropped;
    uint64_t cancels_late;
    uint64_t enobufs;          /* receives without a buffer: real and injected */
    uint64_t connects_failed;  /* by injected errors */
    uint64_t accepts_failed;   /* by injected errors */
    uint64_t resets;           /* injected */
    uint64_t losses;
    uint64_t idle_waits;       /* waits without a time limit that returned at once because nothing could happen */
    uint64_t datagrams;        /* datagrams sent */
    uint64_t datagrams_lost;
    uint64_t datagrams_repeated;
};

/* Copy the counts so far to `*out`. A test can check that the faults which it needs did happen. */
GYRE_API void gyre_sim_stats(struct gyre_sim_counts *out, const struct gyre_sim *sim);

/* ---- Time ---- */

/* Returns the time of the simulation and its loops, in nanoseconds. */
GYRE_API uint64_t gyre_sim_now_ns(const struct gyre_sim *sim);

/* Advance the clock by `ns` nanoseconds. Everything that is due on the network in that time happens, each thing at its
 * own time. Loops see the results when they run next.
 *
 * gyre_loop_run_nowait() does not advance the clock. gyre_loop_run() advances the clock whenever the loop waits: to the
 * next timer of the loop or to the next thing due on the network, whichever comes first. If several loops share a
 * simulation, use gyre_sim_run(). gyre_sim_run() also returns when nothing can happen any more. gyre_loop_run() returns
 * only when the loop is stopped. */
GYRE_API void gyre_sim_advance(struct gyre_sim *sim, uint64_t ns);

/* Advance the clock to the next thing that is due on the network, which then happens. Returns false if nothing is due.
 */
GYRE_API bool gyre_sim_step(struct gyre_sim *sim);

/* Returns whether nothing can happen any more unless a handler, a timer or a peer acts. */
GYRE_API bool gyre_sim_idle(const struct gyre_sim *sim);

/* Returns whether gyre_sim_run() has reached its goal. The function may also act, such as through scripted peers. */
typedef bool gyre_sim_until_fn(void *user);

/* Run `count` loops in rounds, one turn of each per round, without waiting. When all loops are idle, advance the clock
 * to the next timer or the next thing due on the network. Return when `until(user)`, called before each round, returns
 * true. If `until` is NULL, run until nothing can happen any more. Use this function also for an engine: pass all loops
 * of the engine instead of calling gyre_engine_run(), which would need one thread per loop.
 *
 * Returns 0, or:
 *   -ETIMEDOUT  `rounds_max` rounds passed
 *   -EDEADLK    nothing can happen any more, and `until` still returns false
 *   an error of gyre_loop_run_nowait() */
GYRE_API int gyre_sim_run(struct gyre_sim *sim, struct gyre_loop *const *loops, size_t count, uint64_t rounds_max,
                          gyre_sim_until_fn *until, void *user);

/* ---- Names ---- */

/* Set what a lookup of `name` finds (resolve.h): `count` IP addresses as text without brackets, in this order, after
 * `delay_ns` nanoseconds of simulated time. With `count` 0 the lookup fails with `err`, such as GYRE_ENAMESERVER. 0
 * means GYRE_ENONAME, which is also the answer for every name that was not set. Replaces what was set before.
 * Everything is copied. The cache of a resolver keeps its answers for its own time all the same. "localhost" is
 * 127.0.0.1 and ::1 from the beginning.
 *
 * Returns 0, or:
 *   GYRE_EADDRESS  `name` is not a host name, or an address does not parse
 *   GYRE_EOPTION   `err` is not negative, or `count` is more than 1024
 *   -EINVAL        `sim` or `name` is NULL, or `addresses` is NULL and `count` is not 0
 *   -ENOMEM        out of memory */
GYRE_API int gyre_sim_set_name(struct gyre_sim *sim, const char *name, const char *const *addresses, size_t count,
                               int err, uint64_t delay_ns);

/* ---- Scripted peers ---- */

/* The state of a scripted peer, as gyre_sim_peer_state() returns it. */
enum gyre_sim_peer_phase {
    GYRE_SIM_PEER_CONNECTING = 0,
    GYRE_SIM_PEER_OPEN,
    GYRE_SIM_PEER_EOF,   /* the other end sent FIN, and all its bytes were taken */
    GYRE_SIM_PEER_FAILED /* connecting failed, or reset; see gyre_sim_peer_error() */
};

/* Connect a scripted peer to `address` ("tcp://127.0.0.1:7000", "tcp://[::1]:7000", "unix:///any/name",
 * "unix://@name"). Connecting takes simulated time; gyre_sim_peer_state() returns the progress. The caller owns `*out`
 * and frees it with gyre_sim_peer_close() or gyre_sim_peer_reset().
 *
 * Returns 0, or:
 *   GYRE_EADDRESS  `address` does not parse
 *   GYRE_EPATHLEN  the unix path is empty or too long
 *   -ENOMEM        out of memory */
GYRE_API int gyre_sim_connect(struct gyre_sim_peer **out, struct gyre_sim *sim, const char *address);

/* Listen on `address`, for connections of the library or of other peers. Port 0 chooses a free port. The caller owns
 * `*out` and frees it with gyre_sim_listener_close().
 *
 * Returns 0, or:
 *   GYRE_EADDRESS  `address` does not parse
 *   GYRE_EPATHLEN  the unix path is empty or too long
 *   -EADDRINUSE    something listens on the address already
 *   -ENOMEM        out of memory */
GYRE_API int gyre_sim_listen_peer(struct gyre_sim_listener **out, struct gyre_sim *sim, const char *address);

/* Returns the address of the listener, with port 0 resolved, in the form that gyre_connect() takes. Borrowed: valid
 * until the listener is closed. */
GYRE_API const char *gyre_sim_listener_address(const struct gyre_sim_listener *listener);

/* Accept the next waiting connection. The caller owns `*out`, as from gyre_sim_connect().
 *
 * Returns 0, or:
 *   -EAGAIN  no connection is waiting
 *   -ENOMEM  out of memory; the connection is closed */
GYRE_API int gyre_sim_listener_accept(struct gyre_sim_peer **out, struct gyre_sim_listener *listener);

/* Stop listening and free the listener. Connections that were not accepted are reset. Accepted ones stay open. */
GYRE_API void gyre_sim_listener_close(struct gyre_sim_listener *listener);

/* Send up to `len` bytes at once, as one segment. The bytes are copied.
 *
 * Returns the number of bytes sent, which is limited by the room in the window; 0 if there is no room now or the
 * connection is still connecting. On failure returns -EPIPE, -ECONNRESET or another error of the connection. */
GYRE_API int64_t gyre_sim_peer_send(struct gyre_sim_peer *peer, const void *data, size_t len);

/* Receive up to `len` of the bytes that have arrived: copy the bytes to `buf` and consume them. If a test does not call
 * this function, the other end stalls once the buffers are full.
 *
 * Returns the number of bytes, 0 at the end of the stream, or:
 *   -EAGAIN      nothing has arrived, or the connection is still connecting
 *   -ECONNRESET  the connection was reset
 *   another error of the connection, as gyre_sim_peer_error() */
GYRE_API int64_t gyre_sim_peer_recv(void *buf, size_t len, struct gyre_sim_peer *peer);

/* gyre_sim_peer_inbound() returns the number of bytes that gyre_sim_peer_recv() would return. gyre_sim_peer_unacked()
 * returns the number of bytes sent that have not reached the other end. */
GYRE_API size_t gyre_sim_peer_inbound(const struct gyre_sim_peer *peer);
GYRE_API size_t gyre_sim_peer_unacked(const struct gyre_sim_peer *peer);

/* Send FIN after all bytes sent so far. Returns 0, or -ENOTCONN: the peer is not connected, or both directions have
 * ended. */
GYRE_API int gyre_sim_peer_shutdown(struct gyre_sim_peer *peer);

/* Returns the peer's state. */
GYRE_API enum gyre_sim_peer_phase gyre_sim_peer_state(const struct gyre_sim_peer *peer);
/* Returns whether the state is GYRE_SIM_PEER_EOF. */
GYRE_API bool gyre_sim_peer_eof(const struct gyre_sim_peer *peer);
/* Returns the error (-ECONNREFUSED, -ECONNRESET, …) if the state is GYRE_SIM_PEER_FAILED, otherwise 0. */
GYRE_API int gyre_sim_peer_error(const struct gyre_sim_peer *peer);

/* Close the connection, as the kernel does when a process exits. All bytes sent are delivered, then FIN. If bytes are
 * unread, or arrive later, RST is sent instead. Frees `peer`. NULL is allowed. */
GYRE_API void gyre_sim_peer_close(struct gyre_sim_peer *peer);

/* Send RST. Bytes still in flight are lost. Frees `peer`. */
GYRE_API void gyre_sim_peer_reset(struct gyre_sim_peer *peer);

#ifdef __cplusplus
}
#endif

#endif
