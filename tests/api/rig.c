/* SPDX-License-Identifier: MIT
 * The engine under test and its clients. */
#include "rig.h"

#include "socket/addr.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct rig *rig;

static void on_boot(struct gyre_engine *engine)
{
    cr_assert_eq(engine, rig->engine);
    cr_assert(gyre_loop_is_current(gyre_engine_loop(engine, 0)));
    atomic_fetch_add(&rig->boots, 1);
    if (rig->stop_in_boot)
        gyre_engine_stop(engine);
}

static void on_shutdown(struct gyre_engine *engine)
{
    cr_assert_eq(engine, rig->engine);
    cr_assert_eq(gyre_engine_conn_count(engine), 0);
    atomic_fetch_add(&rig->shutdowns, 1);
    atomic_store(&rig->closes_at_shutdown, atomic_load(&rig->closes));
}

void rig_on_open(struct gyre_conn *c)
{
    for (uint32_t i = 0; i < gyre_engine_loop_count(rig->engine); i++)
        if (gyre_engine_loop(rig->engine, i) == gyre_conn_loop(c))
            atomic_fetch_add(&rig->opens[i], 1);
}

void rig_on_data(struct gyre_conn *c)
{
    cr_assert(gyre_loop_is_current(gyre_conn_loop(c)));
    (void)gyre_conn_forward(c, c, SIZE_MAX);
}

void rig_on_close(struct gyre_conn *c, int err)
{
    (void)c;
    atomic_store(&rig->last_err, err);
    atomic_fetch_add(&rig->closes, 1);
}

const struct gyre_conn_handlers rig_handlers = {
    .on_open = rig_on_open, .on_data = rig_on_data, .on_close = rig_on_close};
static const struct gyre_engine_handlers engine_handlers = {.on_boot = on_boot, .on_shutdown = on_shutdown};

void rig_open(struct rig *r, const struct backend_param *p, uint32_t loops)
{
    rig_open_limited(r, p, loops, 0, 0);
}

void rig_open_limited(struct rig *r, const struct backend_param *p, uint32_t loops, uint32_t loop_max,
                      uint32_t engine_max)
{
    *r = (struct rig){.backend = p->backend, .fds = env_fd_count()};
    rig = r;
    env_mem_init(&r->mem);
    r->loop_options.mem = &r->mem.mem;
    r->loop_options.backend = r->backend;
    r->loop_options.conns_max = loop_max;
    struct gyre_engine_options options = {
        .loops = loops, .handlers = &engine_handlers, .loop = r->loop_options, .user = r, .conns_max = engine_max};
    int err = gyre_engine_create(&r->engine, &options);
    if (err != 0) {
        struct gyre_sim *sim;
        (void)backends_open(p->backend, (struct gyre__backend_config){.mem = &r->mem.mem}, &sim);
        cr_assert_fail("gyre_engine_create: %s", gyre_err_name(err));
    }
    cr_assert_eq(gyre_engine_user(r->engine), r);
    cr_assert_eq(gyre_engine_loop_count(r->engine), loops);
    cr_assert_null(gyre_engine_loop(r->engine, loops));
}

void rig_listen(struct rig *r, const char *address, const struct gyre_listener_options *options)
{
    struct gyre_listener_options none = {.backlog = 0};
    int err = gyre_engine_listen(&r->listener, r->engine, address, &rig_handlers, options != NULL ? options : &none);
    cr_assert_eq(err, 0, "listen on %s: %s", address, gyre_err_name(err));
}

static void *run_thread(void *arg)
{
    struct rig *r = arg;
    r->result = gyre_engine_run(r->engine);
    return NULL;
}

void rig_run(struct rig *r)
{
    cr_assert_eq(pthread_create(&r->thread, NULL, run_thread, r), 0);
    await(atomic_load(&r->boots) == 1);
}

void rig_join(struct rig *r)
{
    cr_assert_eq(pthread_join(r->thread, NULL), 0);
    cr_assert_eq(r->result, 0, "gyre_engine_run: %s", gyre_err_name(r->result));
    cr_assert_eq(r->boots, 1);
    cr_assert_eq(r->shutdowns, 1);
    cr_assert_eq(r->closes_at_shutdown, r->closes, "on_close after on_shutdown");
}

void rig_close(struct rig *r)
{
    env_no_workers();
    gyre_engine_destroy(r->engine);
    cr_assert_eq(atomic_load(&r->mem.blocks), 0, "%ld blocks are not freed", atomic_load(&r->mem.blocks));
    int fds = env_fd_count();
    cr_assert_eq(fds, r->fds, "%d descriptors were open, now %d", r->fds, fds);
}

unsigned rig_opened(const struct rig *r)
{
    unsigned sum = 0;
    for (unsigned i = 0; i < RIG_LOOPS_MAX; i++)
        sum += atomic_load(&r->opens[i]);
    return sum;
}

int rig_client(const char *address)
{
    return rig_client_from(address, NULL);
}

int rig_client_from(const char *address, const char *source)
{
    struct gyre__address parsed, from;
    cr_assert_eq(gyre__addr_parse(&parsed, address), 0, "%s", address);
    int fd = socket(parsed.addr.ss.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_geq(fd, 0);
    if (source != NULL) {
        cr_assert_eq(gyre__addr_parse(&from, source), 0, "%s", source);
        cr_assert_eq(bind(fd, (struct sockaddr *)&from.addr.ss, from.addr.len), 0, "%s", strerror(errno));
    }
    /* Before the time limits: with one, a call that io_uring's work for this thread interrupts is not restarted. */
    cr_assert_eq(connect(fd, (struct sockaddr *)&parsed.addr.ss, parsed.addr.len), 0, "%s", strerror(errno));
    struct timeval patience = {.tv_sec = API_PATIENCE_MS / 1000};
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    return fd;
}

/* The kernel interrupts a thread that made a ring soon after that ring is gone, and MSG_WAITALL ends early then. */
ssize_t rig_receive(int fd, void *data, size_t len)
{
    size_t got = 0;
    while (got < len) {
        ssize_t n = recv(fd, (char *)data + got, len - got, MSG_WAITALL);
        if (n > 0)
            got += (size_t)n;
        else if (n == 0 || errno != EINTR)
            return n == 0 || got > 0 ? (ssize_t)got : -1;
    }
    return (ssize_t)got;
}

void rig_ping(int fd)
{
    char data[5] = "";
    cr_assert_eq(send(fd, "hello", 5, MSG_NOSIGNAL), 5);
    cr_assert_eq(rig_receive(fd, data, 5), 5, "%s", strerror(errno));
    cr_assert_eq(memcmp(data, "hello", 5), 0);
}

const char *const rig_tcp = "tcp://127.0.0.1:0";

void rig_stop(struct rig *r)
{
    gyre_engine_stop(r->engine);
    rig_join(r);
    rig_close(r);
}
