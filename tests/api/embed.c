/* SPDX-License-Identifier: MIT
 * A loop inside of a foreign one, which has nothing of it but a descriptor and a time limit: epoll(7), and libuv where
 * it was there to build with. (For poll(2) see timer.c.) The foreign loop must neither sleep through what happens nor
 * turn when nothing does. */
#include "fixture.h"

#include <gyre/timer.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

enum { EXCHANGES = 20, BYTES = 1000 };

/* What the foreign loop runs: the peer sends, the loop echoes, the peer receives; then a timer ends it. */
struct play {
    struct api *api;
    struct peer peer;
    struct gyre_timer *timer;
    unsigned exchange, turns, fired;
    uint64_t end_ns;
};

static void on_fired(struct gyre_timer *timer, void *user)
{
    struct play *play = user;
    (void)timer;
    play->fired++;
}

static void begin(struct play *play, struct api *api, const struct backend_param *p, const struct script *echo)
{
    *play = (struct play){.api = api};
    api_start(api, p, echo);
    (void)peer_open(api, &play->peer);
    play->peer.key_in = play->peer.key_out;
    cr_assert_eq(gyre_timer_create(&play->timer, api->loop, on_fired, play), 0);
    for (unsigned i = 0; i < 10; i++)
        api_turn_now(api);
    play->end_ns = env_now_ns() + (uint64_t)MS(API_PATIENCE_MS);
    cr_assert_eq(peer_send_some(&play->peer, BYTES), BYTES);
    play->exchange = 1;
}

/* Whenever the foreign loop wakes. Returns whether it goes on. */
static bool act(struct play *play)
{
    cr_assert_lt(env_now_ns(), play->end_ns, "stuck in exchange %u", play->exchange);
    play->turns++;
    api_turn_now(play->api);
    (void)peer_recv_some(&play->peer, SIZE_MAX);
    if (play->exchange > EXCHANGES)
        return play->fired == 0;
    if (play->peer.got < (uint64_t)BYTES * play->exchange)
        return true;
    if (play->exchange++ < EXCHANGES)
        cr_assert_eq(peer_send_some(&play->peer, BYTES), BYTES);
    else
        cr_assert_eq(gyre_timer_start(play->timer, MS(50), 0), 0);
    return true;
}

static void end(struct play *play)
{
    cr_assert_eq(play->peer.got, (uint64_t)BYTES * EXCHANGES);
    cr_assert_eq(play->fired, 1);
    cr_assert_leq(play->turns, EXCHANGES * 8 + 40, "%u turns for %d exchanges", play->turns, EXCHANGES);
    gyre_timer_destroy(play->timer);
    peer_close(&play->peer);
    api_close(play->api);
}

static int64_t timeout_ms(const struct gyre_loop *loop)
{
    int64_t ns = gyre_loop_timeout_ns(loop);
    return ns < 0 ? -1 : (ns + 999999) / 1000000;
}

static const struct script echo = {.data = end_forward_back};

REAL_TEST(api_embed, in_epoll)
{
    struct api api;
    struct play play;
    begin(&play, &api, p, &echo);
    int epfd = epoll_create1(EPOLL_CLOEXEC);
    int fds[2] = {gyre_loop_fd(api.loop), play.peer.fd};
    for (int i = 0; i < 2; i++) {
        struct epoll_event ev = {.events = EPOLLIN};
        cr_assert_eq(epoll_ctl(epfd, EPOLL_CTL_ADD, fds[i], &ev), 0);
    }
    do {
        struct epoll_event evs[2];
        int n = epoll_wait(epfd, evs, 2, (int)timeout_ms(api.loop));
        cr_assert(n != 0 || gyre_loop_timeout_ns(api.loop) >= 0, "slept through an event of the loop");
    } while (act(&play));
    (void)close(epfd);
    end(&play);
}

#ifdef GYRE_TEST_HAVE_LIBUV
#include <uv.h>

struct uv_play {
    struct play play;
    uv_loop_t uv;
    uv_poll_t loop_poll, peer_poll;
    uv_timer_t timer;
};

static void on_uv_timer(uv_timer_t *timer);

static void closed_one(uv_handle_t *handle)
{
    (void)handle;
}

/* After each turn: how long libuv may sleep has changed. */
static void uv_act(struct uv_play *u)
{
    if (!act(&u->play)) {
        uv_close((uv_handle_t *)&u->loop_poll, closed_one);
        uv_close((uv_handle_t *)&u->peer_poll, closed_one);
        uv_close((uv_handle_t *)&u->timer, closed_one);
        return;
    }
    int64_t ms = timeout_ms(u->play.api->loop);
    if (ms < 0) {
        (void)uv_timer_stop(&u->timer);
        return;
    }
    uv_update_time(&u->uv);
    cr_assert_eq(uv_timer_start(&u->timer, on_uv_timer, (uint64_t)ms, 0), 0);
}

static void on_uv_timer(uv_timer_t *timer)
{
    uv_act(timer->data);
}

static void on_uv_poll(uv_poll_t *poll, int status, int events)
{
    (void)events;
    cr_assert_eq(status, 0);
    uv_act(poll->data);
}

REAL_TEST(api_embed, in_libuv)
{
    struct api api;
    struct uv_play u;
    begin(&u.play, &api, p, &echo);
    cr_assert_eq(uv_loop_init(&u.uv), 0);
    cr_assert_eq(uv_poll_init(&u.uv, &u.loop_poll, gyre_loop_fd(api.loop)), 0);
    cr_assert_eq(uv_poll_init(&u.uv, &u.peer_poll, u.play.peer.fd), 0);
    cr_assert_eq(uv_timer_init(&u.uv, &u.timer), 0);
    u.loop_poll.data = u.peer_poll.data = u.timer.data = &u;
    cr_assert_eq(uv_poll_start(&u.loop_poll, UV_READABLE, on_uv_poll), 0);
    cr_assert_eq(uv_poll_start(&u.peer_poll, UV_READABLE, on_uv_poll), 0);
    cr_assert_eq(uv_timer_start(&u.timer, on_uv_timer, 0, 0), 0);
    cr_assert_eq(uv_run(&u.uv, UV_RUN_DEFAULT), 0);
    cr_assert_eq(uv_loop_close(&u.uv), 0);
    uv_library_shutdown(); /* it keeps a pipe for signals */
    end(&u.play);
}
#else
/* Built without libuv: passed over with a word, or failed where GYRE_TEST_REQUIRE has it. */
Test(api_embed, in_libuv)
{
    const char *require = getenv("GYRE_TEST_REQUIRE");
    cr_assert(require == NULL || strstr(require, "libuv") == NULL, "libuv was not there to build with");
    cr_skip_test("libuv was not there to build with; install libuv1-dev");
}
#endif
