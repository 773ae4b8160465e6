/* SPDX-License-Identifier: MIT
 * Sockets that come from elsewhere and connections that leave: adopting, detaching, adopting again. */
#include "fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* What happened to an adopted connection. */
struct seen {
    struct api *api;
    unsigned opens, closes;
    uint64_t got;
    uint32_t key;
    int err;
    struct gyre_conn *c;
};

static void on_open(struct gyre_conn *c)
{
    struct seen *s = gyre_conn_user(c);
    api_enter(s->api);
    cr_assert_eq(s->opens++, 0);
    cr_assert_null(gyre_conn_listener(c));
    api_leave(s->api);
}

static void on_data(struct gyre_conn *c)
{
    struct seen *s = gyre_conn_user(c);
    struct gyre_slice view;
    api_enter(s->api);
    cr_assert_eq(s->opens, 1);
    while (gyre_conn_inbound(c) > 0) {
        cr_assert_eq(gyre_conn_next(&view, c, 0), 0);
        cr_assert_eq(env_pattern_check(view.data, view.len, s->key, s->got), -1);
        s->got += view.len;
    }
    api_leave(s->api);
}

static void on_close(struct gyre_conn *c, int err)
{
    struct seen *s = gyre_conn_user(c);
    (void)c;
    api_enter(s->api);
    s->closes++;
    s->err = err;
    s->c = NULL;
    api_leave(s->api);
}

static const struct gyre_conn_handlers handlers = {.on_open = on_open, .on_data = on_data, .on_close = on_close};

static void start(struct api *api, const struct backend_param *p)
{
    api_init(api, p);
    api_open(api);
}

/* As many bytes as are there. */
static size_t receive(int fd, uint8_t *to, size_t size)
{
    ssize_t n = recv(fd, to, size, MSG_DONTWAIT);
    cr_assert(n > 0 || (n < 0 && errno == EAGAIN), "recv: %s", strerror(errno));
    return n > 0 ? (size_t)n : 0;
}

/* One end of a socketpair, blocking or not: what is written before on_open leaves, what comes arrives. */
REAL_TEST(api_adopt, socketpair)
{
    struct api api;
    start(&api, p);
    for (int nonblock = 0; nonblock < 2; nonblock++) {
        int fds[2];
        uint8_t data[1000], back[5] = "";
        struct seen s = {.api = &api, .key = 3};
        struct gyre_conn_options options = {.user = &s};
        cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | (nonblock ? SOCK_NONBLOCK : 0), 0, fds), 0);
        env_pattern_fill(data, sizeof data, 3, 0);
        cr_assert_eq(send(fds[1], data, sizeof data, 0), sizeof data);
        cr_assert_eq(gyre_conn_adopt_fd(&s.c, api.loop, fds[0], &handlers, &options), 0);
        cr_assert_eq(s.opens, 0, "a callback from inside a call");
        cr_assert_eq(gyre_conn_fd(s.c), fds[0]);
        cr_assert(fcntl(fds[0], F_GETFD) & FD_CLOEXEC);
        cr_assert_eq(gyre_conn_write(s.c, "early", 5), 0);
        api_until(&api, s.got == sizeof data);
        size_t n = 0;
        api_until(&api, (n += receive(fds[1], back + n, 5 - n)) == 5);
        cr_assert_eq(memcmp(back, "early", 5), 0);
        cr_assert_eq(gyre_conn_close(s.c), 0);
        (void)close(fds[1]);
        api_until(&api, s.closes == 1);
        cr_assert_eq(s.err, 0);
    }
    api_close(&api);
}

/* What is not a connected stream socket stays the caller's. */
REAL_TEST(api_adopt, refused)
{
    struct api api;
    struct seen s = {.api = &api};
    struct gyre_conn_options options = {.user = &s}, bad = {.write_high_bytes = 2, .write_max_bytes = 1};
    start(&api, p);
    int fds[4] = {open("/dev/null", O_RDWR | O_CLOEXEC), socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0),
                  socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    cr_assert_eq(listen(fds[3], 5), 0);
    for (int i = 0; i < 4; i++) {
        cr_assert_eq(gyre_conn_adopt_fd(&s.c, api.loop, fds[i], &handlers, &options), GYRE_ESOCKTYPE, "case %d", i);
        cr_assert_eq(gyre_loop_listen_fd(NULL, api.loop, fds[i], &handlers, NULL), i == 3 ? 0 : GYRE_ESOCKTYPE);
        if (i < 3)
            cr_assert_eq(close(fds[i]), 0, "it was closed");
    }
    cr_assert_eq(gyre_conn_adopt_fd(&s.c, api.loop, -1, &handlers, &options), -EBADF);
    cr_assert_eq(gyre_loop_listen_fd(NULL, api.loop, -1, &handlers, NULL), -EBADF);
    int pair[2];
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    cr_assert_eq(gyre_conn_adopt_fd(&s.c, api.loop, pair[0], NULL, &options), GYRE_EHANDLERS);
    cr_assert_eq(gyre_conn_adopt_fd(&s.c, api.loop, pair[0], &handlers, &bad), GYRE_EOPTION);
    cr_assert_eq(gyre_conn_adopt_fd(&s.c, NULL, pair[0], &handlers, &options), -EINVAL);
    cr_assert_null(s.c);
    cr_assert_eq(close(pair[0]), 0);
    (void)close(pair[1]);
    api_close(&api);
}

/* When the loop is full the descriptor stays the caller's too. */
REAL_TEST(api_adopt, full_loop)
{
    struct api api;
    struct seen s = {.api = &api};
    struct gyre_conn_options options = {.user = &s};
    int a[2], b[2];
    api_init(&api, p);
    api.options.conns_max = 1;
    api_open(&api);
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, a), 0);
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, b), 0);
    cr_assert_eq(gyre_conn_adopt_fd(&s.c, api.loop, a[0], &handlers, &options), 0);
    cr_assert_eq(gyre_conn_adopt_fd(NULL, api.loop, b[0], &handlers, &options), GYRE_ECONNS);
    cr_assert_eq(close(b[0]), 0);
    (void)close(b[1]);
    (void)close(a[1]);
    api_until(&api, s.closes == 1);
    api_close(&api);
}

/* Detaching: half of what came is taken before, the rest is handed over with the descriptor, and what comes after that
 * is read from it, here by adopting it again. Not a byte is lost either way. */
struct journey {
    struct api *api;
    struct end *end;
    unsigned done;
    struct seen seen;
};

static const size_t before_bytes = 10 * 1024;

static void on_detached(struct gyre_conn *c, int fd, void *user)
{
    struct journey *j = user;
    struct gyre_conn_options options = {.user = &j->seen};
    struct end *e = j->end;
    api_enter(j->api);
    j->done++;
    cr_assert_eq(gyre_conn_write(c, "x", 1), GYRE_ECLOSED);
    cr_assert_eq(gyre_conn_inbound(c) > 0, e->got < before_bytes);
    (void)end_take(e);
    if (!j->api->is_sim)
        cr_assert_eq(fcntl(fd, F_GETFL) & O_NONBLOCK, 0);
    j->seen = (struct seen){.api = j->api, .key = e->key_in, .got = e->got};
    cr_assert_eq(gyre_conn_adopt_fd(&j->seen.c, j->api->loop, fd, &handlers, &options), 0);
    e->closes = 1; /* it has no on_close */
    e->c = NULL;
    api_leave(j->api);
}

static struct journey *journey;

static void leave_half_way(struct end *e)
{
    uint8_t data[64];
    while (e->got < before_bytes / 2 && gyre_conn_inbound(e->c) > 0) {
        size_t n = gyre_conn_read(data, sizeof data, e->c);
        cr_assert_eq(env_pattern_check(data, n, e->key_in, e->got), -1);
        e->got += n;
    }
    if (e->got < before_bytes / 2)
        return;
    journey->end = e;
    end_put(e, KIB(200));
    cr_assert_eq(gyre_conn_detach(e->c, on_detached, journey), 0);
    cr_assert_eq(gyre_conn_detach(e->c, on_detached, journey), GYRE_ECLOSED);
    cr_assert_eq(gyre_conn_write(e->c, "x", 1), GYRE_ECLOSED);
    cr_assert_eq(gyre_conn_dup_fd(e->c), GYRE_ECLOSED);
    cr_assert_eq(gyre_conn_pause(e->c), GYRE_ECLOSED);
    cr_assert_eq(gyre_conn_close(e->c), 0);
    cr_assert_eq(journey->done, 0, "a callback from inside a call");
}

TRANSPORT_TEST(api_adopt, detached_and_adopted_again)
{
    struct api api;
    struct peer peer;
    struct journey j = {.api = &api};
    const struct script script = {.data = leave_half_way};
    journey = &j;
    api_start(&api, p, &script);
    struct end *e = peer_open(&api, &peer);
    peer_send(&peer, before_bytes);
    peer_expect(&peer, KIB(200)); /* what was queued leaves first */
    api_until(&api, j.done == 1);
    peer_send(&peer, 50000);
    api_until(&api, j.seen.got == before_bytes + 50000);
    cr_assert_eq(j.seen.opens, 1);
    cr_assert_eq(e->datas > 0, true);
    peer_close(&peer);
    api_until(&api, j.seen.closes == 1);
    cr_assert_eq(j.done, 1);
    api_close(&api);
}

/* The peer's end may have come before. */
static void leave_at_eof(struct end *e)
{
    journey->end = e;
    cr_assert_eq(gyre_conn_detach(e->c, on_detached, journey), 0);
}

TRANSPORT_TEST(api_adopt, detached_at_the_end)
{
    struct api api;
    struct peer peer;
    struct journey j = {.api = &api};
    const struct script script = {.eof = leave_at_eof};
    journey = &j;
    api_start(&api, p, &script);
    (void)peer_open(&api, &peer);
    peer_send(&peer, before_bytes);
    peer_shutdown(&peer);
    api_until(&api, j.done == 1);
    api_until(&api, j.seen.closes == 1); /* who adopts it sees the end again */
    cr_assert_eq(j.seen.got, before_bytes);
    cr_assert_eq(j.seen.err, 0);
    peer_close(&peer);
    api_close(&api);
}

static void never(struct gyre_conn *c, int fd, void *user)
{
    (void)c;
    (void)fd;
    (void)user;
    cr_assert_fail("a connection that failed was detached");
}

/* A connection that ends before it could leave has its on_close and nothing else: aborted, reset, stuck, loop ended. */
TRANSPORT_TEST(api_adopt, ends_before_it_is_detached)
{
    for (int how = 0; how < 4; how++) {
        struct api api;
        struct peer peer;
        struct gyre_listener_options options = {.conn = {.linger_timeout_ns = MS(how == 2 ? 40 : 30000)}};
        start(&api, p);
        api_listen(&api, NULL, &options);
        struct end *e = peer_open(&api, &peer);
        end_put(e, MIB(8)); /* which the peer does not read */
        cr_assert_eq(gyre_conn_detach(e->c, never, NULL), 0);
        for (int i = 0; i < 5; i++)
            api_turn(&api);
        if (how == 0)
            cr_assert_eq(gyre_conn_abort(e->c), 0);
        else if (how == 1)
            peer_reset(&peer);
        if (how < 3)
            api_until(&api, e->closes == 1);
        else
            api_destroy_loop(&api);
        cr_assert_eq(e->closes, 1);
        cr_assert_gt(e->unsent, 0);
        if (how == 2)
            cr_assert_eq(e->err, GYRE_ETIMEOUT);
        peer_close(&peer);
        api_close(&api);
    }
}

/* A borrowed piece is given back while the connection is leaving, and its owner reads: it is looked at once more, and
 * leaves once. */
static void read_when_given_back(int err, void *user)
{
    struct end *e = user;
    uint8_t byte;
    cr_assert_eq(err, 0);
    e->n++;
    cr_assert_eq(gyre_conn_read(&byte, 1, e->c), 1);
    cr_assert_eq(env_pattern_check(&byte, 1, e->key_in, e->got++), -1);
}

static void leave_with_a_borrowed_piece(struct end *e)
{
    journey->end = e;
    if (gyre_conn_inbound(e->c) < before_bytes)
        return;
    for (int i = 0; i < 3; i++)
        cr_assert_eq(gyre_conn_write_ref(e->c, NULL, 0, read_when_given_back, e), 0);
    cr_assert_eq(gyre_conn_detach(e->c, on_detached, journey), 0);
}

TRANSPORT_TEST(api_adopt, read_while_leaving)
{
    struct api api;
    struct peer peer;
    struct journey j = {.api = &api};
    const struct script script = {.data = leave_with_a_borrowed_piece};
    journey = &j;
    api_start(&api, p, &script);
    struct end *e = peer_open(&api, &peer);
    peer_send(&peer, before_bytes);
    api_until(&api, j.done == 1);
    cr_assert_eq(e->n, 3);
    peer_send(&peer, 1000);
    api_until(&api, j.seen.got == before_bytes + 1000);
    cr_assert_eq(gyre_loop_conn_count(api.loop), 1);
    peer_close(&peer);
    api_until(&api, j.seen.closes == 1);
    cr_assert_eq(api_stats(&api).adopted, 1);
    cr_assert_eq(api_stats(&api).detached, 1);
    cr_assert_eq(api_stats(&api).closed, 2);
    api_close(&api);
}

/* What cannot be detached. */
TRANSPORT_TEST(api_adopt, detach_errors)
{
    struct api api;
    struct stage stage;
    start(&api, p);
    stage_open(&api, &stage);
    struct end *e = api_connect(&api, stage.address, NULL, NULL);
    cr_assert_eq(gyre_conn_detach(e->c, never, NULL), GYRE_ESTATE);
    struct peer peer;
    stage_accept(&stage, &peer, e);
    api_until(&api, e->opens == 1);
    cr_assert_eq(gyre_conn_detach(e->c, NULL, NULL), -EINVAL);
    cr_assert_eq(gyre_conn_close(e->c), 0);
    cr_assert_eq(gyre_conn_detach(e->c, never, NULL), GYRE_ECLOSED);
    peer_close(&peer);
    api_until(&api, e->closes == 1);
    stage_close(&stage);
    api_close(&api);
}

/* The simulator's descriptors have one owner. */
BACKEND_TEST(api_adopt, foreign_descriptors_of_the_simulator)
{
    struct api api;
    struct peer peer;
    api_start(&api, p, NULL);
    struct end *e = peer_open(&api, &peer);
    if (api.is_sim) {
        cr_assert_eq(gyre_conn_dup_fd(e->c), -EOPNOTSUPP);
        cr_assert_eq(gyre_listener_dup_fd(api.listener, 0), -EOPNOTSUPP);
        cr_assert_eq(gyre_conn_adopt_fd(NULL, api.loop, 0, &handlers, NULL), GYRE_ESOCKTYPE);
        cr_assert_eq(gyre_loop_listen_fd(NULL, api.loop, 0, &handlers, NULL), GYRE_ESOCKTYPE);
    }
    peer_close(&peer);
    api_until(&api, e->closes == 1);
    api_close(&api);
}
