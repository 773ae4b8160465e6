/* SPDX-License-Identifier: MIT
 * The simulated network, for testing handlers.
 *
 * A simulation is a network in memory with a clock of its own. Loops run on it by naming it in gyre_loop_options.sim;
 * to the handlers nothing is different, but no system call is made, hours pass in milliseconds, and everything that
 * may happen on a real network does: receives and sends come out short, connections are refused, reset and aborted,
 * segments are lost and come late, cancelled operations finish long after, buffers run out, completions of different
 * connections change places. Which of it happens when is drawn from the seed: the same seed and the same program give
 * the same run, wherever and whenever, so a failing seed is all there is to report of a failure.
 *
 *     struct gyre_sim *sim;
 *     struct gyre_loop *loop;
 *     int err = gyre_sim_create(&sim, &(struct gyre_sim_options){.seed = 42});
 *     err = gyre_loop_create(&loop, &(struct gyre_loop_options){.sim = sim});
 *     …listen and connect on `loop` as ever…
 *     err = gyre_sim_run(sim, &loop, 1, is_finished, &state, 100000);
 *
 * Addresses mean nothing outside: any host can be listened on and connected to, and unix paths are just names. On
 * established connections the rules are those of TCP (and unix sockets) on Linux: FIN comes after all data; RST keeps
 * what the peer's side has received and loses what was still on its way; closing with data unread resets.
 *
 * Besides gyre's own connections there are scripted peers: an end of a connection that the test drives by hand, call by
 * call, to see how a handler takes a peer that stalls, sends a byte at a time, half-closes or resets.
 *
 * The simulator also watches: it aborts the program when an operation is submitted twice, when a descriptor is closed
 * under an operation, when bytes change while they are being sent (gyre_conn_write_ref() borrows them until `done`), or
 * when receive buffers go astray.
 *
 * Thread: a simulation and all its loops belong to one thread. gyre_loop_post(), gyre_loop_stop() and the like may be
 * called from others as ever. */
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

/* Where the fields of the options that are 0 get their values from. */
enum gyre_sim_profile {
    GYRE_SIM_CHAOS = 0, /* everything goes wrong now and then */
    GYRE_SIM_QUIET      /* nothing does; no delays, first come first served */
};

enum { GYRE_SIM_NEVER = UINT16_MAX }; /* a probability of none, where 0 means the profile's */
#define GYRE_SIM_NO_DELAY UINT64_MAX   /* the same for `delay_max_ns` */

/* Probabilities are per mille, from 1 to 1000, or GYRE_SIM_NEVER; 0: the profile's, given here for GYRE_SIM_CHAOS.
 * With GYRE_SIM_QUIET they are all never. Those of the network concern TCP and UDP; unix sockets have no network. */
struct gyre_sim_options {
    uint64_t seed;                        /* any, 0 too */
    enum gyre_sim_profile profile;
    const struct gyre_mem *mem;           /* borrowed until the simulation is destroyed; NULL: malloc */

    /* Operations. */
    uint16_t recv_short_permille;         /* a receive gets less than is there; 0: 200 */
    uint16_t send_short_permille;         /* a send takes less than there is room for; 0: 200 */
    uint16_t more_dropped_permille;       /* a multishot operation ends at an event, data and all; 0: 100 */
    uint16_t cancel_late_permille;        /* a cancelled operation takes several turns to end; 0: 300 */
    uint16_t enobufs_permille;            /* a receive finds no buffer though there are some; 0: 20 */
    uint16_t shuffle_permille;            /* a ready operation changes places with another; 0: 1000 */
    uint16_t few_events_permille;         /* a turn brings fewer events than are ready; 0: 200 */
    uint16_t accept_emfile_permille;      /* an accept fails with -EMFILE; 0: 5 */
    uint16_t accept_aborted_permille;     /* with -ECONNABORTED, and the connection is lost; 0: 3 */

    /* The network. */
    uint16_t connect_timeout_permille;    /* a connect fails with -ETIMEDOUT, after 1 to 20 s; 0: 3 */
    uint16_t connect_unreachable_permille; /* with -EHOSTUNREACH; 0: 3 */
    uint16_t reset_permille;              /* per segment: the connection is reset for both ends; 0: 1 */
    uint16_t loss_permille;               /* per segment: it is sent again 200 to 800 ms later, and per UDP datagram: it
                                             is lost; 0: 10 */
    uint64_t delay_min_ns;                /* of each segment; 0: none */
    uint64_t delay_max_ns;                /* 0: 2 ms, with GYRE_SIM_QUIET none; at most 1 hour, or GYRE_SIM_NO_DELAY:
                                             what is sent is there, but for losses */

    /* Sizes. */
    uint32_t send_buf_bytes;              /* sent and not acknowledged, at most; 0: for each direction of each
                                             connection from 512 to 65536 at random, with GYRE_SIM_QUIET 65536; at
                                             most 16 MiB */
    uint32_t recv_buf_bytes;              /* received and not read, at most; 0: likewise */
    uint32_t fds_max;                     /* descriptors open, then -EMFILE; 0: 1048576 */

    uint16_t duplicate_permille;          /* per datagram: it comes twice; 0: 5 */
};

/* Make a simulation. Returns owned in `*out`; free with gyre_sim_destroy().
 * Returns 0, or: GYRE_EOPTION; -E2BIG; -ENOMEM. Thread: any; the simulation then belongs to one. */
#define gyre_sim_create(out, options) gyre_sim_create_sized((out), (options), sizeof(struct gyre_sim_options))
GYRE_API int gyre_sim_create_sized(struct gyre_sim **out, const struct gyre_sim_options *options, size_t size_bytes);

/* Free it with all that is still open on it: descriptors, peers, listeners. Its loops must have been destroyed before.
 * NULL is allowed. */
GYRE_API void gyre_sim_destroy(struct gyre_sim *sim);

/* The seed it was made with. */
GYRE_API uint64_t gyre_sim_seed(const struct gyre_sim *sim);

/* A hash over all events that came out so far, their order and times included. Two runs with the same hash did the
 * same; it proves a replay. */
GYRE_API uint64_t gyre_sim_trace_hash(const struct gyre_sim *sim);

/* What has happened in a simulation. */
struct gyre_sim_counts {
    uint64_t events;           /* that loops got */
    uint64_t segments;         /* sent, and the bytes in them */
    uint64_t bytes;
    uint64_t recvs_short;
    uint64_t sends_short;
    uint64_t mores_dropped;
    uint64_t cancels_late;
    uint64_t enobufs;          /* receives that found no buffer, or were told so */
    uint64_t connects_failed;  /* with injected errors */
    uint64_t accepts_failed;   /* with injected errors */
    uint64_t resets;           /* injected */
    uint64_t losses;
    uint64_t idle_waits;       /* endless waits of loops in which nothing could ever happen; they returned at once */
    uint64_t datagrams;        /* sent */
    uint64_t datagrams_lost;
    uint64_t datagrams_repeated;
};

/* Copy what has happened so far, for tests that want to be sure of having met it. */
GYRE_API void gyre_sim_stats(const struct gyre_sim *sim, struct gyre_sim_counts *out);

/* ---- Time ---- */

/* The clock of the simulation and its loops, in nanoseconds. */
GYRE_API uint64_t gyre_sim_now_ns(const struct gyre_sim *sim);

/* Let that much time pass. What is due on the network until then happens, each thing at its time; loops see it when
 * they run next. gyre_loop_run_nowait() lets no time pass, gyre_loop_run() does when it waits: to whichever comes
 * first, its next timer or the next thing on the network. So with several loops run them with gyre_sim_run(). It also
 * ends when nothing can happen any more, where gyre_loop_run() goes round and round until it is stopped. */
GYRE_API void gyre_sim_advance(struct gyre_sim *sim, uint64_t ns);

/* Go to the next thing due on the network and let it happen. Returns false if there is none. */
GYRE_API bool gyre_sim_step(struct gyre_sim *sim);

/* Whether nothing can happen any more, unless a handler, a timer or a peer does something. */
GYRE_API bool gyre_sim_idle(const struct gyre_sim *sim);

typedef bool gyre_sim_until_fn(void *user);

/* Run the loops, in turn and without waiting, until `until(user)` holds, which is asked before each round; when all of
 * them are idle, go on to the next timer or thing due on the network. `until` may act too, through scripted peers for
 * instance. It may be NULL: until nothing can happen any more. The loops of an engine are run so, too, all of them, in
 * place of gyre_engine_run(), which would need threads for more than one.
 *
 * Returns 0, or: -ETIMEDOUT after `rounds_max` rounds; -EDEADLK if nothing can happen any more and `until` does not
 * hold; what gyre_loop_run_nowait() said. */
GYRE_API int gyre_sim_run(struct gyre_sim *sim, struct gyre_loop *const *loops, size_t count, gyre_sim_until_fn *until,
                          void *user, uint64_t rounds_max);

/* ---- Scripted peers ---- */

/* What gyre_sim_peer_state() returns. */
enum gyre_sim_peer_phase {
    GYRE_SIM_PEER_CONNECTING = 0,
    GYRE_SIM_PEER_OPEN,
    GYRE_SIM_PEER_EOF,   /* the other end sends no more, and all it sent was taken */
    GYRE_SIM_PEER_FAILED /* not connected, or reset: gyre_sim_peer_error() */
};

/* Connect to `address` ("tcp://127.0.0.1:7000", "tcp://[::1]:7000", "unix:///any/name", "unix://@name"). It takes the
 * network its time; see gyre_sim_peer_state(). Returns owned in `*out`; free with gyre_sim_peer_close().
 * Returns 0, or: GYRE_EADDRESS, GYRE_EPATHLEN, -ENOMEM. */
GYRE_API int gyre_sim_connect(struct gyre_sim *sim, struct gyre_sim_peer **out, const char *address);

/* Listen on `address`, for gyre's own connections to connect to; port 0 takes a free one. Returns owned in `*out`; free
 * with gyre_sim_listener_close(). Returns 0, or: GYRE_EADDRESS, GYRE_EPATHLEN, -EADDRINUSE, -ENOMEM. */
GYRE_API int gyre_sim_listen_peer(struct gyre_sim *sim, struct gyre_sim_listener **out, const char *address);

/* The address it listens on, port 0 resolved, as gyre_connect() takes it. Static to the listener. */
GYRE_API const char *gyre_sim_listener_address(const struct gyre_sim_listener *listener);

/* Take the next connection waiting. Returns 0 and owned in `*out`, or: -EAGAIN if none waits; -ENOMEM. */
GYRE_API int gyre_sim_listener_accept(struct gyre_sim_listener *listener, struct gyre_sim_peer **out);

/* Stop listening. Connections not taken are reset, those taken live on. */
GYRE_API void gyre_sim_listener_close(struct gyre_sim_listener *listener);

/* Send. Copies as many of the `len` bytes as the window has room for, at once, as one segment. Returns how many: 0 if
 * there is no room now or the connection is not yet made; or -EPIPE, -ECONNRESET, … */
GYRE_API int64_t gyre_sim_peer_send(struct gyre_sim_peer *peer, const void *data, size_t len);

/* Receive: copy up to `len` bytes of what has come and take them. Returns how many; 0 at the end of the stream; -EAGAIN
 * if nothing is here now; -ECONNRESET. A peer that does not call this stalls the other end. */
GYRE_API int64_t gyre_sim_peer_recv(struct gyre_sim_peer *peer, void *buf, size_t len);

/* How many bytes gyre_sim_peer_recv() would get, and how many sent are not yet with the other side. */
GYRE_API size_t gyre_sim_peer_inbound(const struct gyre_sim_peer *peer);
GYRE_API size_t gyre_sim_peer_unacked(const struct gyre_sim_peer *peer);

/* Send FIN after all that was sent. Returns 0, or -ENOTCONN. */
GYRE_API int gyre_sim_peer_shutdown(struct gyre_sim_peer *peer);

/* Where it stands. */
GYRE_API enum gyre_sim_peer_phase gyre_sim_peer_state(const struct gyre_sim_peer *peer);
/* Whether its state is GYRE_SIM_PEER_EOF. */
GYRE_API bool gyre_sim_peer_eof(const struct gyre_sim_peer *peer);
/* Why its state is GYRE_SIM_PEER_FAILED (-ECONNREFUSED, -ECONNRESET, …), else 0. */
GYRE_API int gyre_sim_peer_error(const struct gyre_sim_peer *peer);

/* Close the way a process does that ends: all that was sent is delivered, then FIN; or RST if data is unread, or comes
 * afterwards. Frees `peer`. NULL is allowed. */
GYRE_API void gyre_sim_peer_close(struct gyre_sim_peer *peer);

/* Send RST; what was sent and is still on its way is lost. Frees `peer`. */
GYRE_API void gyre_sim_peer_reset(struct gyre_sim_peer *peer);

#ifdef __cplusplus
}
#endif

#endif
