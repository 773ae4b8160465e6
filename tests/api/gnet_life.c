/* SPDX-License-Identifier: MIT
 * What gnet, gev and evio test of a connection's life: closing from each callback with the answer delivered first, a
 * client whose server says something and closes at once, connections that only idle, handlers that are not there. */
#include "fixture.h"

#include <errno.h>

enum { ANSWER = 100000, FILL = 1 << 20, IDLERS = 100 };

/* From where the connection is closed. */
enum where { OPEN, DATA, DRAIN, EOF_, TIMEOUT, SENT, TASK, TIMER, WAKE, NAME, WHERES };

static const char *const where_names[WHERES] = {"on_open", "on_data", "on_drain",      "on_eof", "on_timeout",
                                                "done",    "a task",  "a timer",       "a wake", "another's by name"};

static struct {
    struct api *api;
    struct end *e;
    enum where where;
    unsigned answers;
} stage_of;

/* Answer and close, once, if this is the place. */
static void answer_from(struct end *e, enum where where)
{
    if (stage_of.where != where || stage_of.answers > 0)
        return;
    stage_of.answers++;
    end_put(e, ANSWER);
    cr_assert_eq(gyre_conn_close(e->c), 0);
    cr_assert_eq(gyre_conn_write(e->c, "x", 1), GYRE_ECLOSED);
    cr_assert_eq(e->closes, 0, "on_close from inside the call");
}

static void sent(int err, void *user)
{
    struct end *e = user;
    api_enter(e->api);
    cr_assert_eq(err, 0);
    answer_from(e, SENT);
    api_leave(e->api);
}

static void task(struct gyre_loop *loop, void *user)
{
    struct end *e = user;
    (void)loop;
    api_enter(e->api);
    answer_from(e, TASK);
    api_leave(e->api);
}

static void timer(struct gyre_timer *t, void *user)
{
    struct end *e = user;
    api_enter(e->api);
    answer_from(e, TIMER);
    gyre_timer_destroy(t);
    api_leave(e->api);
}

static void open_(struct end *e)
{
    static const uint8_t nothing;
    stage_of.e = e;
    answer_from(e, OPEN);
    if (stage_of.where == DRAIN)
        end_put(e, FILL);
    if (stage_of.where == SENT)
        cr_assert_eq(gyre_conn_write_ref(e->c, &nothing, 0, sent, e), 0);
    if (stage_of.where == TASK)
        cr_assert_eq(gyre_loop_post(e->api->loop, task, e), 0);
    if (stage_of.where == TIMEOUT)
        cr_assert_eq(gyre_conn_set_idle_timeout(e->c, MS(5)), 0);
    if (stage_of.where == WAKE)
        cr_assert_eq(gyre_conn_wake(e->c), 0);
    if (stage_of.where == TIMER) {
        struct gyre_timer *t;
        cr_assert_eq(gyre_timer_create(&t, e->api->loop, timer, e), 0);
        cr_assert_eq(gyre_timer_start(t, 0, 0), 0);
    }
}

static void data(struct end *e)
{
    if (gyre_conn_inbound(e->c) == 0)
        answer_from(e, WAKE);
    else if (end_take(e) > 0)
        answer_from(e, DATA);
}

static void drain(struct end *e)
{
    answer_from(e, DRAIN);
}

static void eof(struct end *e)
{
    answer_from(e, EOF_);
}

static void timeout(struct end *e)
{
    answer_from(e, TIMEOUT);
}

/* Say what makes the server come to the place. */
static void provoke(struct peer *peer)
{
    if (stage_of.where == DATA)
        peer_send(peer, 10);
    if (stage_of.where == EOF_)
        peer_shutdown(peer);
    if (stage_of.where == NAME) {
        end_put(stage_of.e, ANSWER);
        cr_assert_eq(gyre_conn_id_close(stage_of.e->id), 0);
        stage_of.answers++;
    }
}

/* From each of them the whole answer comes, then the end, and on_close with nothing lost. */
TRANSPORT_TEST(gnet_life, close_from_everywhere)
{
    static const struct script script = {.open = open_, .data = data, .drain = drain, .eof = eof, .timeout = timeout};
    struct api api;
    struct peer peer;
    api_start(&api, p, &script);
    for (int where = 0; where < WHERES; where++) {
        stage_of.where = (enum where)where;
        stage_of.answers = 0;
        unsigned before = api.accepted;
        peer_connect(&api, &peer, api.address);
        api_until(&api, api.accepted > before);
        struct end *e = stage_of.e;
        peer.key_in = e->key_out;
        peer.key_out = e->key_in;
        if (api.is_sim)
            api_until(&api, gyre_sim_peer_state(peer.sp) != GYRE_SIM_PEER_CONNECTING);
        provoke(&peer);
        api_until(&api, (peer_recv_some(&peer, SIZE_MAX), peer.eof || peer.err != 0));
        cr_assert(peer.eof, "from %s: %s", where_names[where], gyre_err_name(peer.err));
        cr_assert_eq(stage_of.answers, 1, "from %s: no answer", where_names[where]);
        cr_assert_eq(peer.got, e->put, "from %s: %llu of %llu bytes", where_names[where],
                     (unsigned long long)peer.got, (unsigned long long)e->put);
        peer_close(&peer);
        api_until(&api, e->closes == 1);
        cr_assert(e->reason == GYRE_CLOSE_USER && e->err == 0 && e->unsent == 0, "from %s", where_names[where]);
    }
    api_close(&api);
}

/* The server says something and closes at once: the client has all of it before it is told of the end. */
TRANSPORT_TEST(gnet_life, client_reads_before_the_end)
{
    static const size_t sizes[] = {1, 5, 1000, 20000, 70000};
    struct api api;
    struct stage stage;
    struct peer server;
    api_init(&api, p);
    api_open(&api);
    stage_open(&api, &stage);
    for (unsigned round = 0; round < 4; round++)
        for (unsigned i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
            static const struct script silent;
            struct end *e = api_connect(&api, stage.address, &silent, NULL);
            stage_accept(&stage, &server, e);
            peer_send(&server, sizes[i]);
            peer_close(&server);
            api_until(&api, e->closes == 1);
            cr_assert_eq(e->got, sizes[i], "%zu of %zu bytes", (size_t)e->got, sizes[i]);
            cr_assert_eq(e->reason, GYRE_CLOSE_EOF);
            cr_assert_eq(e->err, 0);
        }
    stage_close(&stage);
    api_close(&api);
}

static uint64_t opened_ns[IDLERS];

static void note_open(struct end *e)
{
    e->n = e->api->accepted - 1;
    opened_ns[e->n] = gyre_loop_now_ns(e->api->loop);
}

static void note_close(struct end *e)
{
    cr_assert_geq(gyre_loop_now_ns(e->api->loop) - opened_ns[e->n], (uint64_t)MS(60), "closed before its time");
}

/* A hundred connections that say nothing are all closed when their idle time has passed, and not before. */
TRANSPORT_TEST(gnet_life, hundred_idlers)
{
    static struct peer peers[IDLERS];
    static const struct script script = {.open = note_open, .close = note_close};
    static const struct gyre_listener_options options = {.conn = {.idle_timeout_ns = MS(60)}};
    struct api api;
    api_init(&api, p);
    api.quiet_sim = true;
    api_open(&api);
    api_listen(&api, &script, &options);
    for (unsigned i = 0; i < IDLERS; i++)
        (void)peer_open(&api, &peers[i]);
    api_until(&api, api.closed == IDLERS);
    for (const struct end *e = api.ends; e != NULL; e = e->next)
        cr_assert(e->reason == GYRE_CLOSE_TIMEOUT && e->err == GYRE_ETIMEOUT);
    cr_assert_eq(gyre_loop_conn_count(api.loop), 0);
    cr_assert_eq(api_stats(&api).timeouts, IDLERS);
    for (unsigned i = 0; i < IDLERS; i++)
        peer_close(&peers[i]);
    api_close(&api);
}

static struct gyre_conn *taken; /* from it, the last time */

static void take_all(struct gyre_conn *c)
{
    taken = c;
    (void)gyre_conn_discard(c, SIZE_MAX);
    if (!gyre_conn_congested(c))
        cr_assert_eq(gyre_conn_write(c, (uint8_t[1000]){0}, 1000), 0);
}

/* Of the handlers only on_data is there: opening, draining, the peer's end, a time limit and closing call nobody. */
TRANSPORT_TEST(gnet_life, one_handler_is_enough)
{
    static const struct gyre_conn_handlers only_data = {.on_data = take_all};
    static const struct gyre_listener_options options = {.conn = {.write_high_bytes = 500, .write_low_bytes = 100}};
    static uint8_t got[4000];
    struct api api;
    struct peer peer;
    char address[160];
    struct gyre_listener *l;
    api_init(&api, p);
    api.quiet_sim = true;
    api_open(&api);
    api_fresh_address(&api, address, sizeof address);
    cr_assert_eq(gyre_loop_listen(&l, api.loop, address, &only_data, &options), 0);
    for (unsigned i = 0; i < 2; i++) {
        size_t came = 0;
        peer_connect(&api, &peer, gyre_listener_address(l));
        api_until(&api, gyre_loop_conn_count(api.loop) == 1);
        if (api.is_sim)
            api_until(&api, gyre_sim_peer_state(peer.sp) != GYRE_SIM_PEER_CONNECTING);
        peer_send_raw(&peer, "hello", 5);
        while (came < 1000) {
            int64_t n = peer_recv_raw(&peer, got, sizeof got);
            cr_assert(n > 0 || n == -EAGAIN, "%s", gyre_err_name((int)n));
            came += n > 0 ? (size_t)n : 0;
            api_turn(&api);
        }
        if (i == 0) {
            peer_close(&peer);
            api_until(&api, gyre_loop_conn_count(api.loop) == 0);
        }
    }
    cr_assert_eq(gyre_conn_set_idle_timeout(taken, MS(20)), 0); /* the second is silent for too long */
    api_until(&api, gyre_loop_conn_count(api.loop) == 0);
    cr_assert_eq(api_stats(&api).timeouts, 1);
    peer_close(&peer);
    api_close(&api);
}
