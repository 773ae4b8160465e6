/* SPDX-License-Identifier: MIT
 * What holds for every connection holds for an adopted one, from its first moment: pausing, limits, places, closing.
 * The descriptors come from connections that were accepted and detached, so the simulator has them too. */
#include "fixture.h"

#include <errno.h>

struct seen {
    struct api *api;
    struct gyre_conn *c;
    unsigned opens, closes;
    uint64_t got;
    uint32_t key;
    int err;
    enum gyre_timeout_kind kind;
};

static void on_open(struct gyre_conn *c)
{
    struct seen *s = gyre_conn_user(c);
    s->opens++;
}

static void on_data(struct gyre_conn *c)
{
    struct seen *s = gyre_conn_user(c);
    uint8_t data[512];
    api_enter(s->api);
    cr_assert_eq(s->opens, 1);
    for (size_t n; (n = gyre_conn_read(data, sizeof data, c)) > 0; s->got += n)
        cr_assert_eq(env_pattern_check(data, n, s->key, s->got), -1);
    api_leave(s->api);
}

static void on_close(struct gyre_conn *c, int err)
{
    struct seen *s = gyre_conn_user(c);
    s->closes++;
    s->err = err;
    s->kind = gyre_conn_timeout_kind(c);
    s->c = NULL;
}

static const struct gyre_conn_handlers handlers = {.on_open = on_open, .on_data = on_data, .on_close = on_close};

static void keep(struct gyre_conn *c, int fd, void *user)
{
    int *out = user;
    cr_assert_eq(gyre_conn_inbound(c), 0);
    *out = fd;
}

/* The descriptor of a connection whose other end is `peer`. */
static int descriptor(struct api *api, struct peer *peer, struct seen *s)
{
    int fd = -1;
    struct end *e = peer_open(api, peer);
    *s = (struct seen){.api = api, .key = e->key_in};
    cr_assert_eq(gyre_conn_detach(e->c, keep, &fd), 0);
    e->closes = 1; /* it has no on_close */
    e->c = NULL;
    api_until(api, fd >= 0);
    return fd;
}

static void adopt(struct seen *s, int fd, const struct gyre_conn_options *options)
{
    struct gyre_conn_options o = *options;
    o.user = s;
    cr_assert_eq(gyre_conn_adopt_fd(&s->c, s->api->loop, fd, &handlers, &o), 0);
    cr_assert_eq(s->opens, 0, "a callback from inside a call");
}

/* By its options, or before it opens: nothing is told before it is resumed, and nothing is lost. Paused and resumed at
 * once it is as if nothing had been. */
TRANSPORT_TEST(api_adopt_more, paused)
{
    for (int how = 0; how < 3; how++) {
        struct api api;
        struct peer peer;
        struct seen s;
        api_start(&api, p, NULL);
        int fd = descriptor(&api, &peer, &s);
        peer_send(&peer, 1000);
        adopt(&s, fd, &(struct gyre_conn_options){.start_paused = how == 0});
        if (how > 0)
            cr_assert_eq(gyre_conn_pause(s.c), 0);
        if (how == 2)
            cr_assert_eq(gyre_conn_resume(s.c), 0);
        peer_send(&peer, 1000);
        api_until(&api, s.opens == 1);
        if (how < 2) {
            api_watch(&api, MS(20));
            cr_assert_eq(s.got, 0, "though it is paused");
            cr_assert_eq(gyre_conn_resume(s.c), 0);
        }
        api_until(&api, s.got == 2000);
        peer_close(&peer);
        api_until(&api, s.closes == 1);
        cr_assert_eq(s.err, 0);
        api_close(&api);
    }
}

/* Each limit of time counts from its opening; that of connecting does not count. */
BACKEND_TEST(api_adopt_more, limits_of_time)
{
    static const struct {
        struct gyre_conn_options options;
        enum gyre_timeout_kind kind;
    } cases[] = {
        {{.read_timeout_ns = MS(30), .connect_timeout_ns = 1}, GYRE_TIMEOUT_READ},
        {{.idle_timeout_ns = MS(30), .connect_timeout_ns = 1}, GYRE_TIMEOUT_IDLE},
        {{.lifetime_ns = MS(30), .connect_timeout_ns = 1}, GYRE_TIMEOUT_LIFETIME},
        {{.lifetime_ns = MS(30), .start_paused = true, .read_timeout_ns = MS(5)}, GYRE_TIMEOUT_LIFETIME},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct api api;
        struct peer peer;
        struct seen s;
        api_start(&api, p, NULL);
        int fd = descriptor(&api, &peer, &s);
        uint64_t from_ns = api_now_ns(&api);
        adopt(&s, fd, &cases[i].options);
        api_until(&api, s.closes == 1);
        cr_assert_eq(s.opens, 1);
        cr_assert_eq(s.err, GYRE_ETIMEOUT);
        cr_assert_eq(s.kind, cases[i].kind, "case %zu: %d", i, (int)s.kind);
        cr_assert_geq(api_now_ns(&api) - from_ns, (uint64_t)MS(30), "early");
        peer_close(&peer);
        api_close(&api);
    }
}

/* What it may queue is limited before it opens, too; and what a full loop refuses stays good. */
TRANSPORT_TEST(api_adopt_more, limits_of_size)
{
    struct api api;
    struct peer first, second;
    struct seen a, b;
    uint8_t data[600] = {0};
    api_init(&api, p);
    api.options.conns_max = 2;
    api_open(&api);
    api_listen(&api, NULL, NULL);
    int one = descriptor(&api, &first, &a), two = descriptor(&api, &second, &b);
    struct peer third;
    struct end *e = peer_open(&api, &third);
    adopt(&a, one, &(struct gyre_conn_options){.write_high_bytes = 500, .write_max_bytes = 1000});
    env_pattern_fill(data, sizeof data, first.key_in, 0);
    cr_assert_eq(gyre_conn_write(a.c, data, sizeof data), 0);
    cr_assert(gyre_conn_congested(a.c));
    cr_assert_eq(gyre_conn_write(a.c, data, sizeof data), -EAGAIN);
    struct gyre_conn_options o = {.user = &b};
    cr_assert_eq(gyre_conn_adopt_fd(&b.c, api.loop, two, &handlers, &o), GYRE_ECONNS);
    peer_expect(&first, sizeof data);
    api_until(&api, !gyre_conn_congested(a.c));
    peer_close(&third);
    api_until(&api, e->closes == 1);
    adopt(&b, two, &o);
    peer_send(&second, 3000);
    api_until(&api, b.got == 3000);
    peer_close(&first);
    peer_close(&second);
    api_until(&api, a.closes == 1 && b.closes == 1);
    api_close(&api);
}

/* Ended before it opens: on_close alone, once, and the peer has what was written if the end was gentle. */
TRANSPORT_TEST(api_adopt_more, ended_before_it_opens)
{
    for (int how = 0; how < 4; how++) {
        struct api api;
        struct peer peer;
        struct seen s;
        uint8_t data[600];
        api_start(&api, p, NULL);
        int fd = descriptor(&api, &peer, &s);
        adopt(&s, fd, &(struct gyre_conn_options){.nagle = false});
        cr_assert_eq(gyre_conn_detach(s.c, keep, &fd), GYRE_ESTATE);
        env_pattern_fill(data, sizeof data, peer.key_in, 0);
        if (how == 1)
            cr_assert_eq(gyre_conn_write(s.c, data, sizeof data), 0);
        if (how < 2)
            cr_assert_eq(gyre_conn_close(s.c), 0);
        else if (how == 2)
            cr_assert_eq(gyre_conn_abort(s.c), 0);
        else
            api_destroy_loop(&api);
        if (how == 1)
            peer_expect(&peer, sizeof data);
        if (how < 3)
            peer_until_end(&peer);
        peer_close(&peer);
        if (how < 3)
            api_until(&api, s.closes == 1);
        cr_assert_eq(s.closes, 1);
        cr_assert_eq(s.opens, 0);
        cr_assert_eq(s.err, how == 3 ? GYRE_ESHUTDOWN : 0);
        api_close(&api);
    }
}

struct place {
    int fd, err;
};

static void adopt_at_once(struct gyre_conn *c, int fd, void *user)
{
    struct place *place = user;
    place->err = gyre_conn_adopt_fd(NULL, gyre_conn_loop(c), fd, &handlers, &(struct gyre_conn_options){.user = NULL});
    place->fd = fd;
}

/* The place on a full loop is free only when `done` has returned. */
TRANSPORT_TEST(api_adopt_more, place_of_the_detached)
{
    struct api api;
    struct peer peer;
    struct seen s;
    struct place place = {.fd = -1};
    api_init(&api, p);
    api.options.conns_max = 1;
    api_open(&api);
    api_listen(&api, NULL, NULL);
    struct end *e = peer_open(&api, &peer);
    s = (struct seen){.api = &api, .key = e->key_in};
    cr_assert_eq(gyre_conn_detach(e->c, adopt_at_once, &place), 0);
    e->closes = 1; /* it has no on_close */
    e->c = NULL;
    api_until(&api, place.fd >= 0);
    cr_assert_eq(place.err, GYRE_ECONNS, "%s", gyre_err_name(place.err));
    adopt(&s, place.fd, &(struct gyre_conn_options){.user = NULL});
    peer_send(&peer, 1000);
    api_until(&api, s.got == 1000);
    peer_close(&peer);
    api_until(&api, s.closes == 1);
    api_close(&api);
}

static void count_readable(struct gyre_watch *watch, unsigned events, int err, void *user)
{
    unsigned *times = user;
    cr_assert_eq(err, 0, "%s", gyre_err_name(err));
    cr_assert(events & GYRE_WATCH_READABLE);
    ++*times;
    cr_assert_eq(gyre_watch_set(watch, 0), 0);
}

/* A descriptor that is being watched may be detached, adopted again and closed. The watch sees it all along. */
TRANSPORT_TEST(api_adopt_more, watched)
{
    struct api api;
    struct peer peer;
    struct seen s;
    struct gyre_watch *watch;
    unsigned times = 0;
    int fd = -1;
    api_start(&api, p, NULL);
    struct end *e = peer_open(&api, &peer);
    s = (struct seen){.api = &api, .key = e->key_in};
    cr_assert_eq(gyre_watch_open(&watch, api.loop, gyre_conn_fd(e->c), GYRE_WATCH_READABLE, count_readable, &times), 0);
    api_watch(&api, MS(1));
    cr_assert_eq(gyre_conn_detach(e->c, keep, &fd), 0);
    e->closes = 1; /* it has no on_close */
    e->c = NULL;
    api_until(&api, fd >= 0);
    peer_send(&peer, 100);
    api_until(&api, times == 1);
    adopt(&s, fd, &(struct gyre_conn_options){.user = NULL});
    api_until(&api, s.got == 100);
    cr_assert_eq(gyre_watch_set(watch, GYRE_WATCH_READABLE), 0);
    api_watch(&api, MS(1));
    peer_close(&peer);
    api_until(&api, s.closes == 1 && times == 2);
    cr_assert_eq(gyre_watch_close(watch), 0);
    api_close(&api);
}
