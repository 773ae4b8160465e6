/* SPDX-License-Identifier: MIT
 * An engine on a thread of its own, for tests of what reaches all of its loops, and blocking clients.
 *
 * Handlers run on the engine's threads, so what they count is atomic. crew_close() draws the balance. */
#ifndef GYRE_TEST_API_CREW_H
#define GYRE_TEST_API_CREW_H

#include "fixture.h"

#include <pthread.h>
#include <stdatomic.h>

enum { CREW_LOOPS_MAX = 8, CREW_CLIENTS_MAX = 64 };

struct crew {
    const char *backend;
    int fds;
    struct env_mem mem;
    struct gyre_engine *engine;
    struct gyre_listener *listener;
    pthread_t thread;
    bool running;
    int result;
    _Atomic(unsigned) boots, opens, closes, shutdowns;
    _Atomic(unsigned) opens_on[CREW_LOOPS_MAX];
    struct gyre_conn_id ids[CREW_CLIENTS_MAX]; /* in the order of opening, under `lock` */
    pthread_mutex_t lock;
    int clients[CREW_CLIENTS_MAX];
    unsigned client_count;
    void *user;

    /* To be set between crew_init() and crew_open(). */
    struct gyre_engine_options options;
    struct gyre_loop_options loop_options;
    struct gyre_engine_handlers handlers; /* on_boot and on_shutdown are the crew's, unless they are set */
};

void crew_init(struct crew *crew, const struct backend_param *p, uint32_t loops);
/* Make the engine, or skip the test if the backend does not open here. */
void crew_open(struct crew *crew);
/* Echoes. Round-robin, so that connections are on all loops alike. */
void crew_listen(struct crew *crew, const struct gyre_conn_options *options);
/* gyre_engine_run() on a thread; returns when on_boot was called. */
void crew_start(struct crew *crew);
/* Wait for the thread to end. */
void crew_join(struct crew *crew);
/* Stop it, join it, close the clients, destroy it, and check that nothing is left. */
void crew_close(struct crew *crew);

/* Connect so many blocking clients, and wait until all are accepted. */
void crew_connect(struct crew *crew, unsigned count);
/* Receive exactly so many bytes, or as many as come before the end, an error or a time limit; returns how many. */
size_t crew_receive(int fd, void *data, size_t len);

struct crew *crew_of(const struct gyre_engine *engine);
uint32_t crew_loop_index(const struct gyre_loop *loop);

/* Wait for what another thread does; nothing else tells of it. */
#define crew_until(cond)                                                                                               \
    do {                                                                                                               \
        uint64_t until_end_ns = env_now_ns() + (uint64_t)MS(API_PATIENCE_MS);                                          \
        while (!(cond)) {                                                                                              \
            cr_assert(env_now_ns() < until_end_ns, "%s:%d: in vain: %s", __FILE__, __LINE__, #cond);                   \
            crew_pause();                                                                                              \
        }                                                                                                              \
    } while (0)
void crew_pause(void);

#endif
