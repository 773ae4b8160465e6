/* SPDX-License-Identifier: MIT
 * An engine under test: it runs on a thread of its own and echoes; its handlers count. Clients are plain blocking
 * sockets. rig_close() draws the balance: descriptors as before, memory given back. */
#ifndef GYRE_TEST_API_RIG_H
#define GYRE_TEST_API_RIG_H

#include "fixture.h"

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>

enum { RIG_LOOPS_MAX = 4 };

struct rig {
    const char *backend;
    int fds;
    struct env_mem mem;
    struct gyre_engine *engine;
    struct gyre_listener *listener;
    struct gyre_loop_options loop_options;
    pthread_t thread;
    int result;
    _Atomic(unsigned) boots, shutdowns, opens[RIG_LOOPS_MAX], closes;
    _Atomic(unsigned) closes_at_shutdown;
    _Atomic(int) last_err;
    bool stop_in_boot;
};

extern struct rig *rig; /* of this process: handlers find it here */

/* Count and echo. */
extern const struct gyre_conn_handlers rig_handlers;
void rig_on_open(struct gyre_conn *c);
void rig_on_data(struct gyre_conn *c);
void rig_on_close(struct gyre_conn *c, int err);

/* Make the engine, or skip the test if the backend does not open here. */
void rig_open(struct rig *r, const struct backend_param *p, uint32_t loops);
/* The same with at most so many connections on each loop, and in all; 0: no limit. */
void rig_open_limited(struct rig *r, const struct backend_param *p, uint32_t loops, uint32_t loop_max,
                      uint32_t engine_max);
void rig_listen(struct rig *r, const char *address, const struct gyre_listener_options *options);
/* Run it on a thread, and wait for on_boot; wait for its end; destroy it. */
void rig_run(struct rig *r);
void rig_join(struct rig *r);
void rig_close(struct rig *r);
/* Stop, join, close. */
void rig_stop(struct rig *r);
/* How many connections opened, on all loops. */
unsigned rig_opened(const struct rig *r);

/* A connected client, with time limits. */
int rig_client(const char *address);
int rig_client_from(const char *address, const char *source);
/* recv() with MSG_WAITALL, called again where it was interrupted, as it may be with a time limit. */
ssize_t rig_receive(int fd, void *data, size_t len);
/* Five bytes there and back. */
void rig_ping(int fd);

extern const char *const rig_tcp; /* any port */

/* Wait for what another thread does; nothing else tells of it. */
#define await(cond)                                                                                                    \
    do {                                                                                                               \
        uint64_t await_end_ns = env_now_ns() + (uint64_t)MS(API_PATIENCE_MS);                                          \
        while (!(cond)) {                                                                                              \
            cr_assert(env_now_ns() < await_end_ns, "%s:%d: in vain: %s", __FILE__, __LINE__, #cond);                   \
            (void)poll(NULL, 0, 1);                                                                                    \
        }                                                                                                              \
    } while (0)

#endif
