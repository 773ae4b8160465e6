/* SPDX-License-Identifier: MIT
 * Several engines in one program: two that share a port, of which one stops and the other goes on. */
#include "fixture.h"
#include "rig.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CLIENTS_MAX = 200, AFTER = 50 };

struct one {
    struct gyre_engine *engine;
    struct gyre_listener *listener;
    pthread_t thread;
    int result;
    _Atomic(bool) booted;
    _Atomic(unsigned) opens, closes, cut;
};

static struct one *one_of(const struct gyre_conn *c)
{
    return gyre_engine_user(gyre_listener_engine(gyre_conn_listener(c)));
}

static void on_open(struct gyre_conn *c)
{
    atomic_fetch_add(&one_of(c)->opens, 1);
}

static void on_data(struct gyre_conn *c)
{
    (void)gyre_conn_forward(c, c, SIZE_MAX);
}

static void on_close(struct gyre_conn *c, int err)
{
    struct one *o = one_of(c);
    atomic_fetch_add(&o->cut, err == GYRE_ESHUTDOWN);
    atomic_fetch_add(&o->closes, 1);
}

static void on_boot(struct gyre_engine *engine)
{
    struct one *o = gyre_engine_user(engine);
    atomic_store(&o->booted, true);
}

static void *run(void *arg)
{
    struct one *o = arg;
    o->result = gyre_engine_run(o->engine);
    return NULL;
}

static void start(struct one *o, const char *backend, const struct gyre_mem *mem, const char *address)
{
    static const struct gyre_engine_handlers told = {.on_boot = on_boot};
    static const struct gyre_conn_handlers handlers = {.on_open = on_open, .on_data = on_data, .on_close = on_close};
    const struct gyre_loop_options loop = {.backend = backend, .mem = mem};
    const struct gyre_engine_options options = {.loops = 2, .handlers = &told, .loop = loop, .user = o};
    const struct gyre_listener_options listening = {.share_port = true};
    *o = (struct one){.result = -1};
    cr_assert_eq(gyre_engine_create(&o->engine, &options), 0);
    int err = gyre_engine_listen(&o->listener, o->engine, address, &handlers, &listening);
    cr_assert_eq(err, 0, "listen on %s: %s", address, gyre_err_name(err));
    cr_assert_eq(pthread_create(&o->thread, NULL, run, o), 0);
    await(atomic_load(&o->booted));
}

static void join(struct one *o)
{
    cr_assert_eq(pthread_join(o->thread, NULL), 0);
    cr_assert_eq(o->result, 0, "%s", gyre_err_name(o->result));
}

/* Whether the other side has closed, or reset. */
static bool is_over(int fd)
{
    char byte;
    ssize_t n = recv(fd, &byte, 1, 0);
    while (n < 0 && errno == EINTR)
        n = recv(fd, &byte, 1, 0);
    return n == 0 || (n < 0 && errno == ECONNRESET);
}

/* Both serve. One is stopped: its connections end, those of the other go on, and whoever connects now is served, all by
 * the other. A stopped engine stays stopped, and says so. */
REAL_TEST(api_engines, on_one_port)
{
    struct rig probe; /* skips where the backend does not open */
    struct env_mem mem;
    struct one a, b;
    int fds[CLIENTS_MAX], late[AFTER], before = env_fd_count();
    unsigned count = 0, over = 0;
    rig_open(&probe, p, 1);
    rig_close(&probe);
    env_mem_init(&mem);
    start(&a, p->backend, &mem.mem, rig_tcp);
    char address[160];
    (void)snprintf(address, sizeof address, "%s", gyre_listener_address(a.listener));
    start(&b, p->backend, &mem.mem, address);
    while (count < 20 || atomic_load(&a.opens) < 3 || atomic_load(&b.opens) < 3) {
        cr_assert_lt(count, CLIENTS_MAX, "one engine gets nothing: %u and %u", a.opens, b.opens);
        fds[count] = rig_client(address);
        rig_ping(fds[count++]);
    }
    cr_assert_eq(a.opens + b.opens, count);

    gyre_engine_stop(a.engine);
    join(&a);
    unsigned had = a.opens, has = b.opens;
    cr_assert_eq(a.closes, had);
    cr_assert_eq(a.cut, had);
    gyre_engine_stop(a.engine); /* nothing */
    cr_assert_eq(gyre_engine_run(a.engine), GYRE_ESTATE);
    cr_assert_eq(gyre_engine_listen(NULL, a.engine, rig_tcp, &rig_handlers, NULL), GYRE_ESTATE);
    for (unsigned i = 0; i < AFTER; i++) {
        late[i] = rig_client(address);
        rig_ping(late[i]);
    }
    cr_assert_eq(b.opens, has + AFTER);
    cr_assert_eq(a.opens, had);
    cr_assert_eq(b.closes, 0, "the end of one engine was the end of the other's connections");

    gyre_engine_destroy(a.engine);
    gyre_engine_stop(b.engine);
    join(&b);
    cr_assert_eq(b.closes, has + AFTER);
    gyre_engine_destroy(b.engine);
    for (unsigned i = 0; i < count; i++) {
        over += is_over(fds[i]);
        (void)close(fds[i]);
    }
    cr_assert_eq(over, count);
    for (unsigned i = 0; i < AFTER; i++)
        (void)close(late[i]);
    cr_assert_eq(atomic_load(&mem.blocks), 0);
    cr_assert_eq(env_fd_count(), before);
}
