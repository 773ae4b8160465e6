/* SPDX-License-Identifier: MIT
 * An echo engine to be tormented, and a client that only uses the kernel's sockets.
 *
 * No Criterion in here: much of it runs in forked children, whose word to the test is a struct in shared memory. */
#ifndef GYRE_FAULT_SERVER_H
#define GYRE_FAULT_SERVER_H

#include "env.h"

#include <gyre.h>
#include <pthread.h>

struct server {
    struct gyre_engine *engine;
    struct env_mem mem;
    struct gyre_listener *tcp, *local;
    pthread_t thread;
    bool running;
    int run_err;
    int fds_before;
    atomic_ulong opened, closed; /* connections, as told by callbacks */
};

/* Make an engine that echoes on a TCP port and an abstract unix name, and run it on a thread. Returns 0 or what failed,
 * and then nothing is left. `loop` may be NULL; its memory hook is replaced. */
int server_start(struct server *s, const struct gyre_loop_options *loop, uint32_t loops);

/* Stop, join, destroy. Returns NULL, or what is wrong: memory or descriptors left, callbacks missing. */
const char *server_stop(struct server *s);

/* A blocking socket connected to `address` ("tcp://127.0.0.1:…" or "unix://@…"). Returns it or -1. */
int client_connect(const char *address);

/* Send `bytes` bytes of a pattern, in pieces of at most `piece`, and compare what comes back. Returns NULL or what is
 * wrong. */
const char *client_echo(int fd, size_t bytes, size_t piece, uint32_t key);

/* Connect, echo 100 KiB, close, over both listeners. Returns NULL or what is wrong. */
const char *server_check(struct server *s);

/* Open descriptors, counted without opening one. */
int open_descriptors(void);

#endif
