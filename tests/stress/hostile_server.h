/* SPDX-License-Identifier: MIT
 * The servers of hostile.c: an echo, a relay in front of the echo, and one that answers each frame with the same frame,
 * each on TCP and on a unix socket. They do nothing against their clients: no limit of time ends a connection that is
 * open, and what is not closed at the peer's FIN stays. */
#ifndef GYRE_STRESS_HOSTILE_SERVER_H
#define GYRE_STRESS_HOSTILE_SERVER_H

#include "stress.h"

#include <errno.h>
#include <malloc.h>

enum service { ECHO, RELAY, FRAMED, SERVICES };

enum {
    LOOPS = 2,
    ADDRESS_SIZE = 128,
    FRAME_MAX = 8 * 1024,
    MARK = 32 * 1024,         /* of each connection, in both directions */
    KERNEL_BYTES = 16 * 1024, /* of the server's send buffers, so that they fill up */
    EOF_WAYS = 3,
};

struct server {
    struct gyre_engine *engine; /* or a loop alone, of which the last test is that it is destroyed */
    struct gyre_loop *loop;
    char addresses[SERVICES][2][ADDRESS_SIZE]; /* TCP, unix */
    atomic_ulong opened, closed, eofs;
    atomic_bool may_go; /* the loop was stopped, and whoever did that has returned from it */
    atomic_long memory, memory_most;
    struct gyre_mem mem;
    struct gyre_framer framer;
};

/* ---- The library's memory ---- */

static inline void *count_memory(void *ptr, size_t size_bytes, void *user)
{
    struct server *s = user;
    long before = ptr != NULL ? (long)malloc_usable_size(ptr) : 0;
    void *p = NULL;
    if (size_bytes == 0)
        free(ptr);
    else if ((p = realloc(ptr, size_bytes)) == NULL)
        return NULL;
    long more = (p != NULL ? (long)malloc_usable_size(p) : 0) - before;
    long now = atomic_fetch_add(&s->memory, more) + more, most = atomic_load(&s->memory_most);
    while (now > most && !atomic_compare_exchange_weak(&s->memory_most, &most, now))
        ;
    return p;
}

/* ---- What all have in common ---- */

static inline struct server *server_of(const struct gyre_conn *c)
{
    return gyre_loop_user(gyre_conn_loop(c));
}

static inline void count_open(struct gyre_conn *c)
{
    (void)atomic_fetch_add(&server_of(c)->opened, 1);
}

static inline void count_close(struct gyre_conn *c, int err)
{
    (void)err;
    MUST(gyre_conn_close_reason(c) != GYRE_CLOSE_NONE);
    (void)atomic_fetch_add(&server_of(c)->closed, 1);
}

/* The peer's FIN, of which a server may make three things. */
static inline void answer_fin(struct gyre_conn *c)
{
    switch (atomic_fetch_add(&server_of(c)->eofs, 1) % EOF_WAYS) {
    case 0: (void)gyre_conn_shutdown(c); return;
    case 1: (void)gyre_conn_close(c); return;
    default: return;
    }
}

/* ---- Echo ---- */

static inline void echo(struct gyre_conn *c)
{
    (void)gyre_conn_forward(c, c, SIZE_MAX);
}

static const struct gyre_conn_handlers echo_handlers = {.on_open = count_open, .on_data = echo, .on_eof = answer_fin,
                                                        .on_close = count_close};

/* ---- Relay: the connection to the echo server is the user pointer of the client's, and the other way round ---- */

static inline void relay_data(struct gyre_conn *c)
{
    if (gyre_conn_user(c) != NULL)
        (void)gyre_conn_forward(c, gyre_conn_user(c), SIZE_MAX);
}

static inline void relay_fin(struct gyre_conn *c)
{
    if (gyre_conn_user(c) != NULL)
        (void)gyre_conn_shutdown(gyre_conn_user(c));
}

static inline void relay_close(struct gyre_conn *c, int err)
{
    struct gyre_conn *other = gyre_conn_user(c);
    if (gyre_conn_listener(c) != NULL)
        count_close(c, err);
    if (other == NULL)
        return;
    gyre_conn_set_user(other, NULL);
    (void)(err != 0 ? gyre_conn_abort(other) : gyre_conn_close(other));
}

static const struct gyre_conn_options marks = {.read_max_bytes = MARK, .write_high_bytes = MARK,
                                               .linger_timeout_ns = 300000000, .send_buffer_bytes = KERNEL_BYTES};
static const struct gyre_conn_handlers upstream_handlers = {.on_data = relay_data, .on_eof = relay_fin,
                                                            .on_close = relay_close};

static inline void relay_open(struct gyre_conn *c)
{
    struct gyre_conn_options options = marks;
    struct gyre_conn *up;
    count_open(c);
    options.user = c;
    const char *address = server_of(c)->addresses[ECHO][atomic_load(&server_of(c)->opened) % 2];
    int err = gyre_connect(&up, gyre_conn_loop(c), address, &upstream_handlers, &options);
    MUST(err == 0 || err == GYRE_ESHUTDOWN || err == -EAGAIN);
    if (err == 0)
        gyre_conn_set_user(c, up);
    else
        (void)gyre_conn_abort(c);
}

static const struct gyre_conn_handlers relay_handlers = {.on_open = relay_open, .on_data = relay_data,
                                                         .on_eof = relay_fin, .on_close = relay_close};

/* ---- Frames: a length of four bytes and as many bytes ---- */

static inline void answer_frame(struct gyre_conn *c, struct gyre_slice frame)
{
    int err = gyre_frame_write(c, &server_of(c)->framer, frame.data, frame.len);
    MUST(err != -EAGAIN && err != -EMSGSIZE && err != -EINVAL && err != -ENOMEM && err != GYRE_ETHREAD);
    if (gyre_conn_congested(c))
        (void)gyre_conn_pause(c);
}

static inline void resume(struct gyre_conn *c)
{
    (void)gyre_conn_resume(c);
}

static const struct gyre_conn_handlers framed_handlers = {.on_open = count_open, .on_frame = answer_frame,
                                                          .on_drain = resume, .on_eof = answer_fin,
                                                          .on_close = count_close};

/* ---- Begin and end ---- */

static inline void listen_on(struct server *s, enum service service, unsigned unix_socket,
                             const struct gyre_conn_handlers *handlers)
{
    struct gyre_listener_options options = {.conn = marks};
    struct gyre_listener *listener;
    char address[ADDRESS_SIZE] = "tcp://127.0.0.1:0";
    if (unix_socket)
        (void)snprintf(address, sizeof address, "unix:///tmp/gyre-hostile-%d-%d.sock", (int)getpid(), (int)service);
    options.conn.framer = service == FRAMED ? &s->framer : NULL;
    MUST((s->engine != NULL ? gyre_engine_listen(&listener, s->engine, address, handlers, &options)
                            : gyre_loop_listen(&listener, s->loop, address, handlers, &options)) == 0);
    (void)snprintf(s->addresses[service][unix_socket], ADDRESS_SIZE, "%s", gyre_listener_address(listener));
}

static inline struct server *server_open(const char *backend, bool engine)
{
    static const struct gyre_length_field field = {.width = 4, .strip = 4};
    static const struct gyre_conn_handlers *const handlers[] = {&echo_handlers, &relay_handlers, &framed_handlers};
    struct server *s = calloc(1, sizeof *s);
    MUST(s != NULL);
    s->mem = (struct gyre_mem){.resize = count_memory, .user = s};
    MUST(gyre_framer_init_length(&s->framer, &field, FRAME_MAX) == 0);
    const struct gyre_engine_options options = {
        .loops = LOOPS, .loop = {.backend = backend, .mem = &s->mem, .user = s}};
    MUST((engine ? gyre_engine_create(&s->engine, &options) : gyre_loop_create(&s->loop, &options.loop)) == 0);
    for (enum service service = ECHO; service < SERVICES; service++)
        for (unsigned unix_socket = 0; unix_socket < 2; unix_socket++)
            listen_on(s, service, unix_socket, handlers[service]);
    return s;
}

/* The engine, or the loop, has been destroyed: nothing may be left of it. */
static inline void server_free(struct server *s)
{
    MUST(atomic_load(&s->opened) == atomic_load(&s->closed));
    MUST(atomic_load(&s->memory) == 0);
    free(s);
}

#endif
