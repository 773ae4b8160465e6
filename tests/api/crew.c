/* SPDX-License-Identifier: MIT
 * The engine under test, its thread and its clients. */
#include "crew.h"

#include "socket/addr.h"
#include "loop/loop.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

struct crew *crew_of(const struct gyre_engine *engine)
{
    return gyre_engine_user(engine);
}

uint32_t crew_loop_index(const struct gyre_loop *loop)
{
    return loop->index;
}

void crew_pause(void)
{
    (void)poll(NULL, 0, 1);
}

static void on_boot(struct gyre_engine *engine)
{
    atomic_fetch_add(&crew_of(engine)->boots, 1);
}

static void on_shutdown(struct gyre_engine *engine)
{
    struct crew *crew = crew_of(engine);
    cr_assert_eq(gyre_engine_conn_count(engine), 0);
    cr_assert_eq(atomic_load(&crew->opens), atomic_load(&crew->closes), "on_shutdown before an on_close");
    atomic_fetch_add(&crew->shutdowns, 1);
}

static void on_open(struct gyre_conn *c)
{
    struct crew *crew = gyre_conn_user(c);
    (void)pthread_mutex_lock(&crew->lock);
    unsigned n = atomic_load(&crew->opens);
    if (n < CREW_CLIENTS_MAX)
        crew->ids[n] = gyre_conn_id_of(c);
    atomic_store(&crew->opens, n + 1);
    (void)pthread_mutex_unlock(&crew->lock);
    atomic_fetch_add(&crew->opens_on[crew_loop_index(gyre_conn_loop(c))], 1);
}

static void on_data(struct gyre_conn *c)
{
    (void)gyre_conn_forward(c, c, SIZE_MAX);
}

static void on_close(struct gyre_conn *c, int err)
{
    struct crew *crew = gyre_conn_user(c);
    (void)err;
    atomic_fetch_add(&crew->closes, 1);
}

static const struct gyre_conn_handlers echo = {.on_open = on_open, .on_data = on_data, .on_close = on_close};

void crew_init(struct crew *crew, const struct backend_param *p, uint32_t loops)
{
    cr_assert_leq(loops, CREW_LOOPS_MAX);
    *crew = (struct crew){.backend = p->backend, .fds = env_fd_count()};
    (void)pthread_mutex_init(&crew->lock, NULL);
    env_mem_init(&crew->mem);
    crew->handlers.on_boot = on_boot;
    crew->handlers.on_shutdown = on_shutdown;
    crew->loop_options.mem = &crew->mem.mem;
    crew->loop_options.backend = crew->backend;
    crew->options = (struct gyre_engine_options){.loops = loops, .handlers = &crew->handlers, .user = crew};
}

void crew_open(struct crew *crew)
{
    crew->options.loop = crew->loop_options;
    int err = gyre_engine_create(&crew->engine, &crew->options);
    if (err == 0)
        return;
    struct gyre_sim *sim;
    (void)backends_open(crew->backend, (struct gyre__backend_config){.mem = &crew->mem.mem}, &sim);
    cr_assert_fail("gyre_engine_create: %s", gyre_err_name(err));
}

void crew_listen(struct crew *crew, const struct gyre_conn_options *options)
{
    struct gyre_listener_options o = {.balance = GYRE_BALANCE_ROUND_ROBIN};
    if (options != NULL)
        o.conn = *options;
    o.conn.user = crew;
    int err = gyre_engine_listen(&crew->listener, crew->engine, "tcp://127.0.0.1:0", &echo, &o);
    cr_assert_eq(err, 0, "listen: %s", gyre_err_name(err));
}

static void *run_thread(void *arg)
{
    struct crew *crew = arg;
    crew->result = gyre_engine_run(crew->engine);
    return NULL;
}

void crew_start(struct crew *crew)
{
    cr_assert_eq(pthread_create(&crew->thread, NULL, run_thread, crew), 0);
    crew->running = true;
    if (crew->handlers.on_boot == on_boot)
        crew_until(atomic_load(&crew->boots) == 1);
}

void crew_join(struct crew *crew)
{
    cr_assert_eq(pthread_join(crew->thread, NULL), 0);
    crew->running = false;
}

void crew_close(struct crew *crew)
{
    env_no_workers();
    if (crew->running) {
        gyre_engine_stop(crew->engine);
        crew_join(crew);
        cr_assert_eq(crew->result, 0, "gyre_engine_run: %s", gyre_err_name(crew->result));
    }
    for (unsigned i = 0; i < crew->client_count; i++)
        (void)close(crew->clients[i]);
    gyre_engine_destroy(crew->engine);
    cr_assert_eq(atomic_load(&crew->mem.blocks), 0, "%ld blocks are not freed", atomic_load(&crew->mem.blocks));
    int fds = env_fd_count();
    cr_assert_eq(fds, crew->fds, "%d descriptors were open, now %d", crew->fds, fds);
}

static int client(const char *address)
{
    struct gyre__address parsed;
    cr_assert_eq(gyre__addr_parse(&parsed, address), 0, "%s", address);
    int fd = socket(parsed.addr.ss.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_geq(fd, 0);
    cr_assert_eq(connect(fd, (struct sockaddr *)&parsed.addr.ss, parsed.addr.len), 0, "%s", strerror(errno));
    struct timeval patience = {.tv_sec = API_PATIENCE_MS / 1000};
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    return fd;
}

void crew_connect(struct crew *crew, unsigned count)
{
    unsigned before = atomic_load(&crew->opens);
    for (unsigned i = 0; i < count; i++) {
        cr_assert_lt(crew->client_count, CREW_CLIENTS_MAX);
        crew->clients[crew->client_count++] = client(gyre_listener_address(crew->listener));
    }
    crew_until(atomic_load(&crew->opens) == before + count);
}

size_t crew_receive(int fd, void *data, size_t len)
{
    size_t got = 0;
    while (got < len) {
        ssize_t n = recv(fd, (char *)data + got, len - got, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        got += (size_t)n;
    }
    return got;
}
