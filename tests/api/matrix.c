/* SPDX-License-Identifier: MIT
 * Every call is legal in every callback: each callback with each call that ends or steers something, with receives and
 * sends in flight, for this connection and another one. */
#include "fixture.h"

#include <errno.h>

enum when { OPEN, DATA, DRAIN, END, TIMEOUT, SENT, TIMER, TASK, WATCH, WHENS };

enum what {
    CLOSE_SELF,
    ABORT_SELF,
    CLOSE_OTHER,
    ABORT_OTHER,
    ABORT_BOTH,
    PAUSE,
    RESUME,
    WRITE,
    SHUTDOWN,
    FORWARD,
    WAKE,
    LISTENER_CLOSE,
    LOOP_STOP,
    CONNECT,
    WATCH_SET,
    WATCH_CLOSE,
    WHATS
};

struct trial {
    struct api *api;
    enum when when;
    enum what what;
    struct end *self, *other;
    struct gyre_timer *timer;
    struct gyre_watch *watch; /* of self's descriptor; NULL: none */
    unsigned acted;
};

static void start_connecting(struct api *api)
{
    struct end *e = api_connect(api, api->address, NULL, NULL);
    cr_assert_eq(gyre_conn_write(e->c, "hello", 5), 0);
    cr_assert_eq(gyre_conn_abort(e->c), 0);
}

static void on_one(struct trial *t, struct gyre_conn *c)
{
    static const char text[70000];
    switch (t->what) {
    case CLOSE_SELF:
    case CLOSE_OTHER:
        cr_assert_eq(gyre_conn_close(c), 0);
        break;
    case ABORT_SELF:
    case ABORT_OTHER:
    case ABORT_BOTH:
        cr_assert_eq(gyre_conn_abort(c), 0);
        break;
    case PAUSE:
        cr_assert_eq(gyre_conn_pause(c), 0);
        break;
    case RESUME:
        cr_assert_eq(gyre_conn_pause(c), 0);
        cr_assert_eq(gyre_conn_resume(c), 0);
        break;
    case WRITE:
        cr_assert_eq(gyre_conn_write(c, text, sizeof text), 0);
        break;
    case SHUTDOWN:
        cr_assert_eq(gyre_conn_shutdown(c), 0);
        break;
    case FORWARD:
        cr_assert_geq(gyre_conn_forward(c, c, SIZE_MAX), 0);
        break;
    case WAKE:
        cr_assert_eq(gyre_conn_wake(c), 0);
        break;
    case LISTENER_CLOSE:
    case LOOP_STOP:
    case CONNECT:
    case WATCH_SET:
    case WATCH_CLOSE:
    case WHATS:
        break;
    }
}

static void on_watch(struct trial *t)
{
    if (t->watch != NULL && t->what == WATCH_SET)
        cr_assert_eq(gyre_watch_set(t->watch, GYRE_WATCH_READABLE | GYRE_WATCH_WRITABLE), 0);
    if (t->watch != NULL && t->what == WATCH_CLOSE)
        cr_assert_eq(gyre_watch_close(t->watch), 0);
    if (t->what == WATCH_CLOSE)
        t->watch = NULL;
}

static void act(struct trial *t)
{
    if (t == NULL || t->self == NULL || t->self->c == NULL || t->acted++ > 0)
        return;
    if (t->what == LISTENER_CLOSE)
        gyre_listener_close(t->api->listener);
    else if (t->what == LOOP_STOP)
        gyre_loop_stop(t->api->loop);
    else if (t->what == CONNECT)
        start_connecting(t->api);
    else if (t->what == WATCH_SET || t->what == WATCH_CLOSE)
        on_watch(t);
    else if (t->what != CLOSE_OTHER && t->what != ABORT_OTHER)
        on_one(t, t->self->c);
    if (t->what == CLOSE_OTHER || t->what == ABORT_OTHER || t->what == ABORT_BOTH)
        on_one(t, t->other->c);
}

static struct trial *current;

static void act_when(struct end *e, enum when when)
{
    if (current == NULL || current->when != when || (current->other != NULL && e == current->other))
        return;
    if (when == OPEN && current->other != NULL)
        current->self = e;
    if (e == current->self)
        act(current);
}

static void at_open(struct end *e)
{
    act_when(e, OPEN);
}

static void at_data(struct end *e)
{
    act_when(e, DATA);
    if (e->c != NULL && gyre_conn_inbound(e->c) > 100)
        (void)gyre_conn_discard(e->c, gyre_conn_inbound(e->c) / 2);
}

static void at_drain(struct end *e)
{
    act_when(e, DRAIN);
}

static void at_eof(struct end *e)
{
    act_when(e, END);
}

static void at_timeout(struct end *e)
{
    act_when(e, TIMEOUT);
}

static void at_sent(int err, void *user)
{
    struct trial *t = user;
    (void)err;
    api_enter(t->api);
    if (t->when == SENT && t->self->closes == 0 && gyre_conn_close_reason(t->self->c) == GYRE_CLOSE_NONE)
        act(t);
    api_leave(t->api);
}

static void at_timer(struct gyre_timer *timer, void *user)
{
    struct trial *t = user;
    (void)timer;
    api_enter(t->api);
    act(t);
    api_leave(t->api);
}

static void at_task(struct gyre_loop *loop, void *user)
{
    struct trial *t = user;
    (void)loop;
    api_enter(t->api);
    act(t);
    api_leave(t->api);
}

static void at_watch(struct gyre_watch *w, unsigned events, int err, void *user)
{
    struct trial *t = user;
    api_enter(t->api);
    cr_assert_eq(w, t->watch);
    cr_assert(err == 0 && events != 0);
    if (t->when == WATCH)
        act(t);
    api_leave(t->api);
}

static void discard_all(struct peer *p)
{
    static uint8_t data[65536];
    while (p->api != NULL && peer_recv_raw(p, data, sizeof data) > 0)
        ;
}

static void provoke(struct trial *t, struct peer *p)
{
    switch (t->when) {
    case OPEN:
    case DATA:
        break;
    case DRAIN:
        end_put(t->self, 200000);
        break;
    case END:
        peer_shutdown(p);
        break;
    case TIMEOUT:
        cr_assert_eq(gyre_conn_set_idle_timeout(t->self->c, MS(3)), 0);
        break;
    case SENT:
        cr_assert_eq(gyre_conn_write_ref(t->self->c, "borrowed", 8, at_sent, t), 0);
        cr_assert_eq(gyre_conn_write_ref(t->self->c, "borrowed", 8, at_sent, t), 0);
        break;
    case TIMER:
        cr_assert_eq(gyre_timer_start(t->timer, MS(1), 0), 0);
        break;
    case TASK:
        cr_assert_eq(gyre_loop_post(t->api->loop, at_task, t), 0);
        break;
    case WATCH:
        cr_assert_eq(gyre_watch_set(t->watch, GYRE_WATCH_WRITABLE), 0);
        break;
    case WHENS:
        break;
    }
}

static void try_one(const struct backend_param *param, enum when when, enum what what)
{
    static const struct script script = {.open = at_open,
                                         .data = at_data,
                                         .drain = at_drain,
                                         .eof = at_eof,
                                         .timeout = at_timeout};
    struct gyre_listener_options options = {.conn = {.write_high_bytes = 30000, .linger_timeout_ns = MS(200)}};
    struct api api;
    struct peer a, b;
    api_init(&api, param);
    struct trial t = {.api = &api, .when = when, .what = what};
    api_open(&api);
    api_listen(&api, &script, &options);
    current = NULL;
    t.other = peer_open(&api, &b);
    current = &t;
    struct end *self = peer_open(&api, &a);
    t.self = self;
    cr_assert_eq(gyre_timer_create(&t.timer, api.loop, at_timer, &t), 0);
    if (self->c != NULL && gyre_conn_close_reason(self->c) == GYRE_CLOSE_NONE) {
        cr_assert_eq(gyre_watch_open(&t.watch, api.loop, gyre_conn_fd(self->c), 0, at_watch, &t), 0);
        provoke(&t, &a);
    }
    if (t.acted == 0) {
        (void)peer_send_some(&b, 3000); /* both are busy */
        if (when != END)
            (void)peer_send_some(&a, 5000);
        if (t.other->c != NULL)
            (void)end_try_put(t.other, 3000);
    }
    api_until(&api, (discard_all(&a), t.acted > 0));
    for (unsigned i = 0; i < 6; i++)
        api_turn(&api);
    cr_assert_eq(gyre_watch_close(t.watch), 0);
    peer_close(&a);
    peer_close(&b);
    gyre_timer_destroy(t.timer);
    for (struct end *e = api.ends; e != NULL; e = e->next)
        if (e->c != NULL)
            (void)gyre_conn_abort(e->c);
    api_until(&api, gyre_loop_conn_count(api.loop) == 0);
    current = NULL;
    api_close(&api);
}

/* All of them: nine callbacks, sixteen calls. */
TRANSPORT_TEST(api_matrix, every_call_in_every_callback)
{
    for (int when = OPEN; when < WHENS; when++)
        for (int what = CLOSE_SELF; what < WHATS; what++)
            if (p->transport == TRANSPORT_TCP4 || p->transport == TRANSPORT_UNIX)
                try_one(p, (enum when)when, (enum what)what);
}

static void close_all_in_on_close(struct end *e)
{
    for (struct end *other = e->api->ends; other != NULL; other = other->next)
        if (other->c != NULL && other != e)
            cr_assert_eq(other->n % 2 == 0 ? gyre_conn_close(other->c) : gyre_conn_abort(other->c), 0);
    cr_assert_eq(gyre_conn_write(e->c, "x", 1), GYRE_ECLOSED);
    cr_assert_eq(gyre_conn_close(e->c), 0);
    cr_assert_eq(gyre_conn_abort(e->c), 0);
    cr_assert_eq(gyre_conn_inbound(e->c), 0);
}

/* on_close closes everybody else, who do the same. */
BACKEND_TEST(api_matrix, close_all_in_on_close)
{
    enum { COUNT = 30 };
    struct api api;
    struct peer peers[COUNT];
    const struct script script = {.close = close_all_in_on_close};
    api_start(&api, p, &script);
    for (unsigned i = 0; i < COUNT; i++) {
        struct end *e = peer_open(&api, &peers[i]);
        e->n = i;
        end_put(e, 100000);
        (void)peer_send_some(&peers[i], 1000);
    }
    cr_assert_eq(gyre_conn_abort(api.ends->c), 0);
    for (unsigned i = 0; i < 5; i++)
        api_turn(&api);
    for (unsigned i = 0; i < COUNT; i++)
        peer_close(&peers[i]);
    api_until(&api, api.closed == COUNT);
    api_close(&api);
}

static void connect_again(struct end *e)
{
    static const struct script again = {.close = connect_again};
    unsigned *left = e->api->user;
    if (*left == 0)
        return;
    --*left;
    (void)api_connect(e->api, "tcp://127.0.0.1:1", &again, NULL);
}

/* on_close of a failed connect tries again at once, a hundred times. */
BACKEND_TEST(api_matrix, connect_again_in_on_close)
{
    struct api api;
    unsigned left = 100;
    const struct script script = {.close = connect_again};
    api_init(&api, p);
    api_open(&api);
    api.user = &left;
    (void)api_connect(&api, "tcp://127.0.0.1:1", &script, NULL);
    api_until(&api, left == 0 && gyre_loop_conn_count(api.loop) == 0);
    cr_assert_eq(api.closed, 101);
    api_close(&api);
}
