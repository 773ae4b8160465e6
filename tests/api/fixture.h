/* SPDX-License-Identifier: MIT
 * What the tests of the public interface stand on: a loop on the backend under test, a listener, connections that count
 * and check their callbacks, and peers that the test drives by hand.
 *
 * Everything happens on one thread. A test makes a peer do something, turns the loop until a condition holds, and
 * looks. Peers are plain non-blocking sockets, or scripted peers of the simulator; the tests do not see the difference.
 * Every byte belongs to a pattern, so loss, doubling and exchange show at the first wrong byte.
 *
 * Every callback checks the rules of base.h and conn.h by itself: it comes from a turn of the loop, never from inside a
 * call; one at a time; on_open first; on_close once and last. api_close() draws the balance: every connection closed,
 * the allocator at zero, the descriptors as before. */
#ifndef GYRE_TEST_API_FIXTURE_H
#define GYRE_TEST_API_FIXTURE_H

#include "backends.h"
#include "env.h"

#include <gyre.h>
#include <gyre/sim.h>

#define MS(n) ((int64_t)(n)*INT64_C(1000000))
#define KIB(n) ((size_t)(n) << 10)
#define MIB(n) ((size_t)(n) << 20)

enum { API_PATIENCE_MS = 10000 };

struct api;
struct end;

/* What the connections of one side do. NULL: on_data takes everything and compares it with the pattern, the others only
 * count. on_eof and on_timeout are given to the library only if they are here, or api_eof_ignored() is used. */
struct script {
    void (*open)(struct end *e);
    void (*data)(struct end *e);
    void (*drain)(struct end *e);
    void (*eof)(struct end *e);
    void (*timeout)(struct end *e);
    void (*close)(struct end *e);
    void (*frame)(struct end *e, struct gyre_slice frame); /* given to the library only if it is here */
    void (*bad_frame)(struct end *e, int err);             /* likewise */
};

/* An on_eof or on_timeout that does nothing but being there. */
void end_ignore(struct end *e);

/* Listening or connecting: what their connections share. */
struct side {
    int kind;
    struct api *api;
    const struct script *script;
    struct gyre_conn_handlers handlers;
    uint32_t key_in, key_out; /* of the next connection; each takes two on */
    struct side *next;
};

/* One connection of the library's, living on after it is closed. */
struct end {
    int kind;
    struct api *api;
    struct side *side;
    struct gyre_conn *c; /* NULL once closed */
    struct gyre_conn_id id;
    unsigned opens, datas, drains, eofs, timeouts, closes, sents, sent_errs, frames,
        bad_frames;
    int err;
    enum gyre_close_reason reason;
    uint64_t unsent;
    uint32_t key_in, key_out;
    uint64_t got, put; /* bytes taken and compared; bytes queued */
    size_t left_at_eof;
    uint64_t n;        /* for the test */
    void *user;        /* for the test */
    struct end *next;  /* older */
};

struct api {
    const char *backend;
    const struct backend_param *param;
    enum transport transport;
    bool is_sim;
    struct env_mem mem;
    int fds;
    struct gyre_sim *sim;
    struct gyre_loop *loop;
    struct gyre_listener *listener;
    char address[160];
    char dir[64];
    struct side *sides;
    struct end *ends; /* newest first */
    unsigned accepted;
    uint64_t closed;
    bool in_turn;
    int depth;
    unsigned paths;
    void *user;

    /* To be set between api_init() and api_open(). */
    struct gyre_loop_options options;
    uint32_t cq_entries;
    bool quiet_sim; /* nothing goes wrong on the simulator */
    const struct gyre_sim_options *sim_options; /* instead of those that break no connection */
};

/* ---- The loop ---- */

void api_init(struct api *api, const struct backend_param *p);
/* Make the loop, or skip the test if the backend does not open here. */
void api_open(struct api *api);
/* Listen as the transport says; `options` may be NULL. */
void api_listen(struct api *api, const struct script *script, const struct gyre_listener_options *options);
/* All of the above. */
void api_start(struct api *api, const struct backend_param *p, const struct script *script);
/* A fresh address of the transport, to listen on. */
void api_fresh_address(struct api *api, char *out, size_t size);
/* Destroy the loop if that was not done, and check that nothing is left. */
void api_close(struct api *api);
/* Only destroy the loop. */
void api_destroy_loop(struct api *api);

/* One turn; waits a millisecond if there was nothing to do. On the simulator time goes on to the next thing due. */
void api_turn(struct api *api);
/* One turn, certainly without waiting. */
void api_turn_now(struct api *api);
/* Turn for that long, to see that something does not happen. */
void api_watch(struct api *api, int64_t ns);
/* The loop's clock is the simulator's or the system's. */
uint64_t api_now_ns(const struct api *api);
struct gyre_stats api_stats(const struct api *api);

#define api_until(api, cond)                                                                                           \
    do {                                                                                                               \
        uint64_t until_end_ns = env_now_ns() + (uint64_t)MS(API_PATIENCE_MS);                                          \
        while (!(cond)) {                                                                                              \
            cr_assert(env_now_ns() < until_end_ns, "%s:%d: in vain: %s", __FILE__, __LINE__, #cond);                   \
            api_turn(api);                                                                                             \
        }                                                                                                              \
    } while (0)

/* Callbacks of the test's own (timers, tasks, done functions) stand between these. */
void api_enter(struct api *api);
void api_leave(struct api *api);

/* ---- Connections ---- */

struct end *api_connect(struct api *api, const char *address, const struct script *script,
                        const struct gyre_conn_options *options);
/* The newest connection that was accepted, open or not. */
struct end *api_newest(struct api *api);
/* Take all there is and compare. Returns how much. */
size_t end_take(struct end *e);
/* Queue so many bytes of the pattern with gyre_conn_write(), which must take them. */
void end_put(struct end *e, size_t bytes);
/* The same, as gyre_conn_write() says. */
int end_try_put(struct end *e, size_t bytes);
/* Echo by forwarding. */
void end_forward_back(struct end *e);
/* For gyre_conn_write_ref() with the end as user: counts. */
void end_on_sent(int err, void *user);

/* ---- Peers ---- */

struct peer {
    struct api *api;
    int fd;
    struct gyre_sim_peer *sp;
    uint32_t key_in, key_out;
    uint64_t sent, got;
    bool eof;
    int err;
};

/* Connect to the api's address and turn until the connection was accepted. Keys: what an accepted end puts, this
 * gets. */
struct end *peer_open(struct api *api, struct peer *p);
/* Without waiting for it to be accepted. */
void peer_connect(struct api *api, struct peer *p, const char *address);
/* Send at most so many bytes of the pattern at once; returns how many went. */
size_t peer_send_some(struct peer *p, size_t bytes);
/* Send so many, turning the loop meanwhile. */
void peer_send(struct peer *p, size_t bytes);
/* Send these, which are not of the pattern, turning the loop meanwhile. */
void peer_send_raw(struct peer *p, const void *data, size_t len);
/* Receive at most so many bytes at once and compare; returns how many came. Sets eof, err. */
size_t peer_recv_some(struct peer *p, size_t bytes);
/* The same, not compared, to `buf`; returns how many, or -EAGAIN, 0 at the end, -ECONNRESET, … */
int64_t peer_recv_raw(struct peer *p, void *buf, size_t len);
/* Turn until so many bytes in all have come. */
void peer_expect(struct peer *p, uint64_t total);
/* Turn, receiving what comes, until the end or an error. */
void peer_until_end(struct peer *p);
void peer_shutdown(struct peer *p);
void peer_close(struct peer *p); /* zeroed memory is closed already */
void peer_reset(struct peer *p);
/* Two peers through a relay: the ends have each other as user, and what `a` puts, `b` is to get. */
void peer_relay_open(struct api *api, struct peer *a, struct peer *b, struct end **ea, struct end **eb);
/* Bulk from a to b until it goes through pipes, where it can. */
void peer_relay_warm_up(struct api *api, struct peer *a, struct peer *b);
/* Fill the way from a to b until nothing moves any more. */
void peer_relay_fill(struct api *api, struct peer *a, const struct end *eb);

/* A listener of the test's, for gyre_connect(). */
struct stage {
    struct api *api;
    int fd;
    struct gyre_sim_listener *sl;
    char address[160];
};

void stage_open(struct api *api, struct stage *s);
/* Turn until a connection came. Keys as the end that connected has them. */
void stage_accept(struct stage *s, struct peer *p, const struct end *e);
void stage_close(struct stage *s);

static inline bool is_tcp(const struct api *api)
{
    return api->transport == TRANSPORT_TCP4 || api->transport == TRANSPORT_TCP6;
}

#endif
