/* SPDX-License-Identifier: MIT
 * The cases of gnet's acceptance tests, and the server that all of them talk to.
 *
 * A case says where the server listens, how it answers and with how many loops; its handlers are the same whatever the
 * backend. The server greets in on_open, sets every option of the socket and reads it back, and echoes. gnet_close()
 * waits until every connection is gone by itself, and draws the balance. */
#ifndef GYRE_TEST_API_GNET_H
#define GYRE_TEST_API_GNET_H

#include "fixture.h"

#include <pthread.h>
#include <stdatomic.h>

enum { GNET_LOOPS = 4, GNET_CONNS = 32, GNET_PLACES = 4, GNET_PIECE = 65536 };

enum gnet_net { GNET_TCP, GNET_UDP, GNET_UNIX };

/* How it answers: in the handler, or from another thread, which gets the bytes handed over. */
enum gnet_way { GNET_WRITE, GNET_WRITEV, GNET_ASYNC, GNET_ASYNCV };

/* Plain data: Criterion copies it into the test's process. */
struct gnet_case {
    char backend[16];
    char name[80]; /* for messages */
    enum gnet_way way;
    uint32_t loops;
    bool piecemeal; /* a connection receives a few KiB per turn */
    bool per_loop; /* each loop has a listening socket of its own, else the first accepts for all */
    unsigned place_count;
    struct {
        enum gnet_net net;
        bool v6; /* or, of unix names, an abstract one */
    } places[GNET_PLACES];
};

/* Where the server listens. */
struct gnet_place {
    char address[160];
    enum gnet_net net;
    struct gyre_listener *listener; /* NULL: datagrams */
    enum gyre_balance balance;
    _Atomic(unsigned) on_loop[GNET_LOOPS]; /* connections that came to each */
};

struct gnet_conn {
    struct gyre_conn *c;
    bool pinged;
};

struct gnet {
    const struct gnet_case *which;
    bool ping; /* what clients send begins with GNET_PING */
    int fds;
    struct env_mem mem;
    char dir[64];
    struct gyre_engine *engine;
    pthread_t thread;
    int result;
    struct gnet_place places[GNET_PLACES];
    struct gnet_conn conns[GNET_CONNS];
    _Atomic(unsigned) boots, shutdowns, opens, closes, udp_opens, udp_closes, jobs, sents;
};

#define GNET_GREETING "sweetness\r\n"
#define GNET_PING "PING\r\n"

/* Make the server and run it, or skip the test if the backend does not open here. */
void gnet_open(struct gnet *g, const struct gnet_case *which, bool ping);
/* Every connection is gone, or about to go: wait for that, stop, and check that nothing is left. */
void gnet_close(struct gnet *g);

/* The bytes of a block that another thread sends; see gnet_hand_over(). */
struct gnet_job {
    struct gyre_conn_id conn; /* loop NULL: a datagram */
    struct gyre_udp_id udp;
    struct sockaddr_storage to;
    socklen_t to_len; /* 0: where it is connected to */
    bool pieces;
    _Atomic(unsigned) *sents;
    size_t len;
    uint8_t data[];
};

/* A job with room for `len` bytes. */
struct gnet_job *gnet_job(size_t len);
/* Have a thread of the engine's pool send it; frees it. */
void gnet_hand_over(struct gyre_engine *engine, struct gnet_job *job);

/* Which loop of the engine it is. */
uint32_t gnet_loop_index(const struct gyre_engine *engine, const struct gyre_loop *loop);

/* Wait for what another thread does; nothing else tells of it. */
#define gnet_until(g, cond)                                                                                            \
    do {                                                                                                               \
        uint64_t until_end_ns = env_now_ns() + (uint64_t)MS(API_PATIENCE_MS);                                          \
        while (!(cond)) {                                                                                              \
            cr_assert(env_now_ns() < until_end_ns, "%s: in vain: %s", (g)->which->name, #cond);                        \
            gnet_pause();                                                                                              \
        }                                                                                                              \
    } while (0)
void gnet_pause(void);

#endif
