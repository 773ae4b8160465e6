/* SPDX-License-Identifier: MIT
 * The server of gnet's acceptance tests. */
#include "gnet.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define SECONDS(n) ((int64_t)(n)*INT64_C(1000000000))

static struct gnet *server; /* of this process: handlers find it here */

void gnet_pause(void)
{
    (void)poll(NULL, 0, 1);
}

uint32_t gnet_loop_index(const struct gyre_engine *engine, const struct gyre_loop *loop)
{
    for (uint32_t i = 0; i < gyre_engine_loop_count(engine); i++)
        if (gyre_engine_loop(engine, i) == loop)
            return i;
    cr_assert_fail("%s: not a loop of the engine", server->which->name);
    return 0;
}

/* ---- Answers from another thread ---- */

struct gnet_job *gnet_job(size_t len)
{
    struct gnet_job *job = malloc(sizeof *job + len);
    cr_assert_not_null(job);
    memset(job, 0, sizeof *job);
    job->len = len;
    return job;
}

static void on_sent(int err, void *user)
{
    _Atomic(unsigned) *sents = user;
    cr_assert_eq(err, 0, "%s: sent from another thread: %s", server->which->name, gyre_err_name(err));
    atomic_fetch_add(sents, 1);
}

static int send_job(struct gyre_work *w, void *user)
{
    struct gnet_job *job = user;
    (void)w;
    const struct sockaddr *to = job->to_len > 0 ? (const struct sockaddr *)&job->to : NULL;
    if (job->conn.loop == NULL)
        return gyre_udp_id_send(job->udp, to, job->to_len, job->data, job->len);
    cr_assert(!gyre_loop_is_current(job->conn.loop));
    if (!job->pieces)
        return gyre_conn_id_write(job->conn, job->data, job->len, on_sent, (void *)job->sents);
    struct iovec iov[2] = {{job->data, job->len / 2}, {job->data + job->len / 2, job->len - job->len / 2}};
    return gyre_conn_id_writev(job->conn, iov, 2, on_sent, (void *)job->sents);
}

static void job_done(struct gyre_loop *loop, int result, void *user)
{
    bool ended = atomic_load(&server->shutdowns) > 0; /* the last client may have gone before: told at the destroying */
    cr_assert(ended || gyre_loop_is_current(loop));
    cr_assert_eq(result, 0, "%s: from another thread: %s", server->which->name, gyre_err_name(result));
    free(user);
}

void gnet_hand_over(struct gyre_engine *engine, struct gnet_job *job)
{
    int err = gyre_engine_offload(engine, send_job, job_done, job);
    cr_assert_eq(err, 0, "gyre_engine_offload: %s", gyre_err_name(err));
}

/* ---- Options, each set and read back ---- */

struct option {
    enum gyre_sockopt option;
    int64_t value;
    bool on_unix;
    bool doubled; /* by Linux */
};

static const struct option options[] = {
    {GYRE_SOCKOPT_NODELAY, 0, false, false},
    {GYRE_SOCKOPT_NODELAY, 1, false, false},
    {GYRE_SOCKOPT_QUICKACK, 1, false, false},
    {GYRE_SOCKOPT_CORK, 1, false, false},
    {GYRE_SOCKOPT_CORK, 0, false, false},
    {GYRE_SOCKOPT_NOTSENT_LOWAT_BYTES, 131072, false, false},
    {GYRE_SOCKOPT_USER_TIMEOUT_MS, 20000, false, false},
    {GYRE_SOCKOPT_KEEPALIVE_IDLE_S, 30, false, false},
    {GYRE_SOCKOPT_KEEPALIVE_INTERVAL_S, 5, false, false},
    {GYRE_SOCKOPT_KEEPALIVE_COUNT, 6, false, false},
    {GYRE_SOCKOPT_LINGER_S, 0, true, false},
    {GYRE_SOCKOPT_LINGER_S, -1, true, false},
    {GYRE_SOCKOPT_RECV_BUFFER_BYTES, 150000, true, true},
    {GYRE_SOCKOPT_SEND_BUFFER_BYTES, 140000, true, true},
    {GYRE_SOCKOPT_TRAFFIC_CLASS, 0x10, false, false},
    {GYRE_SOCKOPT_PRIORITY, 3, true, false},
};

static void check_option(struct gyre_conn *c, const struct option *o, bool is_unix)
{
    int64_t value = -7;
    int err = gyre_conn_set_sockopt(c, o->option, o->value);
    if (is_unix && !o->on_unix) {
        cr_assert_eq(err, -EOPNOTSUPP, "%s: option %d: %s", server->which->name, (int)o->option, gyre_err_name(err));
        return;
    }
    cr_assert_eq(err, 0, "%s: option %d: %s", server->which->name, (int)o->option, gyre_err_name(err));
    cr_assert_eq(gyre_conn_sockopt(&value, c, o->option), 0);
    cr_assert_eq(value, o->doubled ? 2 * o->value : o->value, "%s: option %d reads %lld", server->which->name,
                 (int)o->option, (long long)value);
}

/* What the listener's options said, then each of its own, then what there is not. */
static void check_options(struct gyre_conn *c, bool is_unix)
{
    struct gyre_keepalive inherited, set = {.idle_ns = SECONDS(10), .interval_ns = SECONDS(2), .count = 3};
    char algorithm[16];
    if (is_unix) {
        cr_assert_eq(gyre_conn_set_keepalive(c, &set), -EOPNOTSUPP);
        cr_assert_eq(gyre_conn_congestion(algorithm, sizeof algorithm, c), -EOPNOTSUPP);
    } else {
        cr_assert_eq(gyre_conn_keepalive(&inherited, c), 0);
        cr_assert(inherited.idle_ns == SECONDS(60) && inherited.interval_ns == SECONDS(12) && inherited.count == 4);
        cr_assert_eq(gyre_conn_set_keepalive(c, &set), 0);
        cr_assert_eq(gyre_conn_keepalive(&inherited, c), 0);
        cr_assert(inherited.idle_ns == SECONDS(10) && inherited.interval_ns == SECONDS(2) && inherited.count == 3);
        cr_assert_eq(gyre_conn_congestion(algorithm, sizeof algorithm, c), 0);
        cr_assert_eq(gyre_conn_set_congestion(c, algorithm), 0);
    }
    for (size_t i = 0; i < sizeof options / sizeof options[0]; i++)
        check_option(c, &options[i], is_unix);
    cr_assert_eq(gyre_conn_set_sockopt(c, GYRE_SOCKOPT_LINGER_S, 5), GYRE_EOPTION);
    cr_assert_eq(gyre_conn_set_sockopt(c, GYRE_SOCKOPT_END, 5), -EINVAL);
    cr_assert_eq(gyre_conn_sendfile(c, gyre_conn_fd(c), 0, 1, NULL, NULL), -EINVAL, "a socket is no file");
}

/* A second descriptor of the connection's, which is the user's to close. */
static void check_dup(const struct gyre_conn *c)
{
    struct sockaddr_storage ours, dups;
    socklen_t ours_len, dups_len = sizeof dups;
    int fd = fcntl(gyre_conn_fd(c), F_DUPFD_CLOEXEC, 0);
    cr_assert_geq(fd, 0);
    cr_assert_eq(gyre_conn_peer_address(&ours, &ours_len, c), 0);
    cr_assert_eq(getpeername(fd, (struct sockaddr *)&dups, &dups_len), 0);
    cr_assert(ours_len == dups_len && memcmp(&ours, &dups, ours_len) == 0);
    cr_assert_eq(gyre_conn_local_address(&ours, &ours_len, c), 0);
    cr_assert_gt(ours_len, 0);
    cr_assert_eq(close(fd), 0);
}

/* ---- Streams ---- */

static void on_open(struct gyre_conn *c)
{
    struct gnet_place *place = gyre_listener_user(gyre_conn_listener(c));
    unsigned n = atomic_fetch_add(&server->opens, 1);
    cr_assert_lt(n, GNET_CONNS);
    cr_assert(gyre_loop_is_current(gyre_conn_loop(c)));
    cr_assert_eq(place->listener, gyre_conn_listener(c), "%s: of another address", server->which->name);
    atomic_fetch_add(&place->on_loop[gnet_loop_index(server->engine, gyre_conn_loop(c))], 1);
    server->conns[n] = (struct gnet_conn){.c = c, .pinged = !server->ping};
    gyre_conn_set_user(c, &server->conns[n]);
    check_options(c, place->net == GNET_UNIX);
    check_dup(c);
    cr_assert_eq(gyre_conn_write(c, GNET_GREETING, strlen(GNET_GREETING)), 0);
}

static void answer(struct gyre_conn *c)
{
    struct gyre_slice view;
    while (gyre_conn_inbound(c) > 0) {
        cr_assert_eq(gyre_conn_next(&view, c, 0), 0);
        cr_assert_eq(gyre_conn_write(c, view.data, view.len), 0);
    }
}

static void answer_in_pieces(struct gyre_conn *c)
{
    struct iovec iov[16];
    while (gyre_conn_inbound(c) > 0) {
        int count = gyre_conn_peekv(iov, 16, c);
        size_t bytes = 0;
        for (int i = 0; i < count; i++)
            bytes += iov[i].iov_len;
        cr_assert_eq(gyre_conn_writev(c, iov, count), 0);
        cr_assert_eq(gyre_conn_discard(c, bytes), bytes);
    }
}

static void answer_later(struct gyre_conn *c)
{
    struct gnet_job *job = gnet_job(gyre_conn_inbound(c));
    job->conn = gyre_conn_id_of(c);
    job->pieces = server->which->way == GNET_ASYNCV;
    job->sents = &server->sents;
    cr_assert_eq(gyre_conn_read(job->data, job->len, c), job->len);
    atomic_fetch_add(&server->jobs, 1);
    gnet_hand_over(server->engine, job);
}

static void on_data(struct gyre_conn *c)
{
    struct gnet_conn *conn = gyre_conn_user(c);
    char ping[sizeof GNET_PING - 1];
    cr_assert_eq(conn->c, c);
    if (!conn->pinged) {
        if (gyre_conn_inbound(c) < sizeof ping)
            return;
        cr_assert_eq(gyre_conn_read(ping, sizeof ping, c), sizeof ping);
        cr_assert_eq(memcmp(ping, GNET_PING, sizeof ping), 0, "%s: no PING first", server->which->name);
        conn->pinged = true;
    }
    if (gyre_conn_inbound(c) == 0)
        return;
    if (server->which->way == GNET_WRITE)
        answer(c);
    else if (server->which->way == GNET_WRITEV)
        answer_in_pieces(c);
    else
        answer_later(c);
}

static void on_close(struct gyre_conn *c, int err)
{
    struct gnet_conn *conn = gyre_conn_user(c);
    cr_assert_eq(conn->c, c);
    cr_assert_eq(err, 0, "%s: on_close: %s", server->which->name, gyre_err_name(err));
    cr_assert_eq(gyre_conn_unsent(c), 0);
    conn->c = NULL;
    atomic_fetch_add(&server->closes, 1);
}

static const struct gyre_conn_handlers streams = {.on_open = on_open, .on_data = on_data, .on_close = on_close};

/* ---- Datagrams ---- */

static void on_datagram(struct gyre_udp *u, const struct gyre_datagram *d)
{
    const struct gyre_slice data = d->data;
    cr_assert(!d->truncated);
    cr_assert_eq(gyre_udp_send(u, "x", 1), -EDESTADDRREQ, "the server's socket has no single peer");
    cr_assert_eq(gyre_udp_join(u, d->peer, d->peer_len, 0), GYRE_EADDRESS, "a client is no group");
    if (server->which->way == GNET_WRITE) {
        cr_assert_eq(gyre_udp_reply(u, d, data.data, data.len), 0);
        return;
    }
    if (server->which->way == GNET_WRITEV) {
        cr_assert_eq(gyre_udp_send_to(u, d->peer, d->peer_len, data.data, data.len), 0);
        return;
    }
    struct gnet_job *job = gnet_job(data.len);
    job->udp = gyre_udp_id_of(u);
    memcpy(&job->to, d->peer, d->peer_len);
    job->to_len = d->peer_len;
    memcpy(job->data, data.data, data.len);
    gnet_hand_over(server->engine, job);
}

static void on_udp_close(struct gyre_udp *u, int err)
{
    (void)u;
    cr_assert(err == 0 || err == GYRE_ESHUTDOWN);
    atomic_fetch_add(&server->udp_closes, 1);
}

static void on_udp_error(struct gyre_udp *u, int err)
{
    (void)u;
    cr_assert_fail("%s: on_error: %s", server->which->name, gyre_err_name(err));
}

static const struct gyre_udp_handlers datagrams = {
    .on_datagram = on_datagram, .on_error = on_udp_error, .on_close = on_udp_close};

/* ---- The engine ---- */

static void on_boot(struct gyre_engine *engine)
{
    (void)engine;
    atomic_fetch_add(&server->boots, 1);
}

static void on_shutdown(struct gyre_engine *engine)
{
    cr_assert_eq(gyre_engine_conn_count(engine), 0);
    cr_assert_eq(atomic_load(&server->opens), atomic_load(&server->closes));
    atomic_fetch_add(&server->shutdowns, 1);
}

static const struct gyre_engine_handlers engine_handlers = {.on_boot = on_boot, .on_shutdown = on_shutdown};

static void place_datagrams(struct gnet *g, struct gnet_place *place, const char *address)
{
    struct gyre_udp_id ids[GNET_LOOPS];
    struct gyre_udp *u;
    int err;
    if (g->which->per_loop) {
        err = gyre_engine_listen_udp(ids, g->engine, address, &datagrams, NULL);
        cr_assert_eq(err, 0, "%s: %s: %s", g->which->name, address, gyre_err_name(err));
        u = gyre_udp_from_id(ids[0]);
        g->udp_opens += g->which->loops;
    } else {
        err = gyre_udp_open(&u, gyre_engine_loop(g->engine, 0), address, &datagrams, NULL);
        cr_assert_eq(err, 0, "%s: %s: %s", g->which->name, address, gyre_err_name(err));
        g->udp_opens++;
    }
    (void)snprintf(place->address, sizeof place->address, "%s", gyre_udp_address(u));
}

static void place_streams(struct gnet *g, struct gnet_place *place, const char *address)
{
    static const enum gyre_balance balance_of_way[] = {
        [GNET_WRITE] = GYRE_BALANCE_ROUND_ROBIN,
        [GNET_WRITEV] = GYRE_BALANCE_LEAST_CONNS,
        [GNET_ASYNC] = GYRE_BALANCE_SOURCE_HASH,
        [GNET_ASYNCV] = GYRE_BALANCE_RANDOM,
    };
    enum gyre_balance balance = g->which->per_loop ? GYRE_BALANCE_KERNEL : balance_of_way[g->which->way];
    struct gyre_listener_options o = {.balance = balance,
                                      .user = place,
                                      .seed = 5,
                                      .conn = {.keepalive = {.idle_ns = SECONDS(60), .count = 4},
                                               .turn_max_bytes = g->which->piecemeal ? 4096 : 0}};
    int err = gyre_engine_listen(&place->listener, g->engine, address, &streams, &o);
    if (o.balance == GYRE_BALANCE_KERNEL && place->net == GNET_UNIX) {
        cr_assert_eq(err, GYRE_EOPTION, "%s: a path for each loop: %s", g->which->name, gyre_err_name(err));
        o.balance = GYRE_BALANCE_AUTO;
        err = gyre_engine_listen(&place->listener, g->engine, address, &streams, &o);
    }
    cr_assert_eq(err, 0, "%s: %s: %s", g->which->name, address, gyre_err_name(err));
    place->balance = o.balance;
    (void)snprintf(place->address, sizeof place->address, "%s", gyre_listener_address(place->listener));
}

static void listen_at(struct gnet *g, unsigned index)
{
    char address[160];
    struct gnet_place *place = &g->places[index];
    bool v6 = g->which->places[index].v6;
    place->net = g->which->places[index].net;
    if (place->net == GNET_UNIX)
        (void)snprintf(address, sizeof address, v6 ? "unix://@%s/%u" : "unix:///%s/%u", g->dir + 1, index);
    else
        (void)snprintf(address, sizeof address, "%s://%s:0", place->net == GNET_UDP ? "udp" : "tcp",
                       v6 ? "[::1]" : "127.0.0.1");
    if (place->net == GNET_UDP)
        place_datagrams(g, place, address);
    else
        place_streams(g, place, address);
}

/* Each listening socket can be had a second time, to be handed on. */
static void check_listener(const struct gnet *g, const struct gnet_place *place)
{
    const struct gyre_listener *l = place->listener;
    uint32_t count = gyre_listener_socket_count(l);
    bool kernel = place->balance == GYRE_BALANCE_KERNEL;
    cr_assert_eq(count, kernel ? g->which->loops : 1, "%s: %u sockets", g->which->name, count);
    cr_assert_eq(gyre_listener_engine(l), g->engine);
    cr_assert_eq(gyre_listener_dup_fd(l, count), -EINVAL);
    for (uint32_t i = 0; i < count; i++) {
        int listening = 0, fd = gyre_listener_dup_fd(l, i);
        socklen_t len = sizeof listening;
        cr_assert_geq(fd, 0);
        cr_assert_eq(getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &len), 0);
        cr_assert_eq(listening, 1);
        cr_assert_eq(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
        cr_assert_eq(close(fd), 0);
    }
}

static void *run_thread(void *arg)
{
    struct gnet *g = arg;
    g->result = gyre_engine_run(g->engine);
    return NULL;
}

void gnet_open(struct gnet *g, const struct gnet_case *which, bool ping)
{
    *g = (struct gnet){.which = which, .ping = ping, .fds = env_fd_count()};
    server = g;
    env_mem_init(&g->mem);
    env_dir_make(g->dir, sizeof g->dir);
    const struct gyre_loop_options loop = {.backend = which->backend, .mem = &g->mem.mem};
    const struct gyre_engine_options o = {.loops = which->loops,
                                          .handlers = &engine_handlers,
                                          .loop = loop,
                                          .user = g,
                                          .work_threads = 1, /* so that answers keep their order */
                                          .work_queue_max = 65536};
    int err = gyre_engine_create(&g->engine, &o);
    if (err != 0) {
        struct gyre_sim *sim;
        env_dir_remove(g->dir);
        (void)backends_open(which->backend, (struct gyre__backend_config){.mem = &g->mem.mem}, &sim);
        cr_assert_fail("gyre_engine_create: %s", gyre_err_name(err));
    }
    for (unsigned i = 0; i < which->place_count; i++)
        listen_at(g, i);
    cr_assert_eq(pthread_create(&g->thread, NULL, run_thread, g), 0);
    gnet_until(g, atomic_load(&g->boots) == 1);
    for (unsigned i = 0; i < which->place_count; i++)
        if (g->places[i].listener != NULL)
            check_listener(g, &g->places[i]);
}

void gnet_close(struct gnet *g)
{
    gnet_until(g, gyre_engine_conn_count(g->engine) == 0);
    for (unsigned i = 0; i < g->which->place_count; i++)
        if (g->places[i].listener != NULL)
            cr_assert_eq(gyre_listener_conn_count(g->places[i].listener), 0);
    gyre_engine_stop(g->engine);
    cr_assert_eq(pthread_join(g->thread, NULL), 0);
    cr_assert_eq(g->result, 0, "gyre_engine_run: %s", gyre_err_name(g->result));
    cr_assert_eq(g->shutdowns, 1);
    cr_assert_eq(g->opens, g->closes);
    cr_assert_eq(g->udp_opens, g->udp_closes);
    cr_assert_eq(g->sents, g->jobs, "%s: %u answers from another thread, %u told of", g->which->name, g->jobs,
                 g->sents);
    gyre_engine_destroy(g->engine);
    env_dir_remove(g->dir);
    cr_assert_eq(atomic_load(&g->mem.blocks), 0, "%ld blocks are not freed", atomic_load(&g->mem.blocks));
    int fds = env_fd_count();
    cr_assert_eq(fds, g->fds, "%d descriptors were open, now %d", g->fds, fds);
}
