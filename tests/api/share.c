/* SPDX-License-Identifier: MIT
 * What other threads may do with a connection by its id beyond waking and closing it: write without a copy, see how
 * much is queued, get and set a pointer. And the share of a turn that one connection may receive. */
#include "fixture.h"

#include "loop/loop.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* ---- writing by id ---- */

/* Pieces, borrowed bytes and copies leave in the order of the calls; each is told once. */
TRANSPORT_TEST(api_id, writes_in_order)
{
    enum { ROUNDS = 60 };
    static uint8_t data[ROUNDS][2000];
    struct api api;
    struct peer peer;
    api_start(&api, p, NULL);
    struct end *e = peer_open(&api, &peer);
    for (unsigned i = 0; i < ROUNDS; i++) {
        const struct iovec iov[3] = {{data[i], 700}, {NULL, 0}, {data[i] + 700, 1300}};
        env_pattern_fill(data[i], 2000, e->key_out, e->put);
        e->put += 2000;
        int err = i % 3 == 0   ? gyre_conn_id_write_ref(e->id, data[i], 2000, end_on_sent, e)
                  : i % 3 == 1 ? gyre_conn_id_writev(e->id, iov, 3, end_on_sent, e)
                               : gyre_conn_id_write(e->id, data[i], 2000, end_on_sent, e);
        cr_assert_eq(err, 0);
        if (i % 3 != 0)
            memset(data[i], 0, 2000); /* only what is borrowed must stay */
        if (i % 5 == 0)
            api_turn(&api);
    }
    peer_expect(&peer, e->put);
    api_until(&api, e->sents == ROUNDS);
    cr_assert_eq(e->sent_errs, 0);
    cr_assert_eq(gyre_conn_id_write_ref(e->id, NULL, 0, end_on_sent, e), 0);
    cr_assert_eq(gyre_conn_id_writev(e->id, NULL, 0, end_on_sent, e), 0);
    api_until(&api, e->sents == ROUNDS + 2);
    cr_assert_eq(e->sent_errs, 0);
    peer_close(&peer);
    api_close(&api);
}

static void count_err(int err, void *user)
{
    int *last = user;
    *last = err;
}

BACKEND_TEST(api_id, write_errors)
{
    struct api api;
    struct peer peer;
    int told = 1;
    const struct iovec bad = {NULL, 1}, huge = {&told, (size_t)INT_MAX + 1};
    api_start(&api, p, NULL);
    struct end *e = peer_open(&api, &peer);
    struct gyre_conn_id id = e->id, none = {.loop = NULL};
    cr_assert_eq(gyre_conn_id_writev(id, &bad, 1, count_err, &told), -EINVAL);
    cr_assert_eq(gyre_conn_id_writev(id, &huge, 1, count_err, &told), -EINVAL);
    cr_assert_eq(gyre_conn_id_writev(id, &bad, -1, count_err, &told), -EINVAL);
    cr_assert_eq(gyre_conn_id_writev(id, &bad, 1025, count_err, &told), -EINVAL);
    cr_assert_eq(gyre_conn_id_writev(id, NULL, 1, count_err, &told), -EINVAL);
    cr_assert_eq(gyre_conn_id_write_ref(id, NULL, 1, count_err, &told), -EINVAL);
    cr_assert_eq(gyre_conn_id_write_ref(none, "x", 1, count_err, &told), -EINVAL);
    cr_assert_eq(gyre_conn_id_writev(none, NULL, 0, count_err, &told), -EINVAL);
    peer_close(&peer);
    api_until(&api, e->closes == 1);
    cr_assert_eq(told, 1);
    cr_assert_eq(gyre_conn_id_write_ref(id, "x", 1, count_err, &told), 0);
    api_until(&api, told == GYRE_ESTALE);
    cr_assert_eq(gyre_conn_id_writev(id, &(struct iovec){&told, 1}, 1, NULL, NULL), 0);
    api_close(&api); /* runs it, and it leaves nothing behind */
}

static void run_nothing(struct gyre_loop *loop, void *user)
{
    (void)loop;
    (void)user;
}

/* A write that is refused leaves nothing in the count of what waits, of none of the calls. */
BACKEND_TEST(api_id, refused_leaves_no_bytes)
{
    enum { TASKS = 4 };
    struct api api;
    struct peer peer;
    int told = 1;
    api_init(&api, p);
    api.options.tasks_max = TASKS;
    api_open(&api);
    api_listen(&api, NULL, NULL);
    struct end *e = peer_open(&api, &peer);
    cr_assert_eq(gyre_conn_share(e->c, NULL), 0);
    for (unsigned i = 0; i < TASKS; i++)
        cr_assert_eq(gyre_loop_post(api.loop, run_nothing, NULL), 0);
    cr_assert_eq(gyre_conn_id_write(e->id, "four", 4, count_err, &told), -EAGAIN);
    cr_assert_eq(gyre_conn_id_write_ref(e->id, "four", 4, count_err, &told), -EAGAIN);
    cr_assert_eq(gyre_conn_id_writev(e->id, &(struct iovec){&told, sizeof told}, 1, count_err, &told), -EAGAIN);
    cr_assert_eq(gyre_conn_id_outbound(e->id), 0);
    api_turn(&api);
    cr_assert_eq(gyre_conn_id_outbound(e->id), 0);
    cr_assert_eq(told, 1);
    peer_close(&peer);
    api_close(&api);
}

/* ---- sharing ---- */

static void release_at_close(struct end *e)
{
    void *ptr;
    e->user = gyre_conn_shared(e->c);
    e->n = (uint64_t)(gyre_conn_id_shared(&ptr, e->id) == GYRE_ESTALE);
}

/* A pointer is there from gyre_conn_share() until just before on_close, in which it can still be had by the owner. */
BACKEND_TEST(api_id, shared_pointer)
{
    struct api api;
    struct peer peer;
    int a, b;
    void *got = &a;
    const struct script script = {.close = release_at_close};
    api_start(&api, p, &script);
    struct end *e = peer_open(&api, &peer);
    struct gyre_conn_id id = e->id;
    cr_assert_null(gyre_conn_shared(e->c));
    cr_assert_eq(gyre_conn_id_shared(&got, id), GYRE_ESTALE, "not shared yet");
    cr_assert_eq(gyre_conn_id_set_shared(NULL, id, &b), GYRE_ESTALE);
    cr_assert_eq(gyre_conn_id_outbound(id), GYRE_ESTALE);
    cr_assert_eq(gyre_conn_share(e->c, &a), 0);
    cr_assert_eq(gyre_conn_id_shared(&got, id), 0);
    cr_assert_eq(got, &a);
    cr_assert_eq(gyre_conn_id_set_shared(&got, id, &b), 0);
    cr_assert_eq(got, &a);
    cr_assert_eq(gyre_conn_shared(e->c), &b);
    cr_assert_eq(gyre_conn_share(e->c, NULL), 0);
    cr_assert_eq(gyre_conn_id_set_shared(NULL, id, &b), 0);
    cr_assert_eq(gyre_conn_id_shared(NULL, id), -EINVAL);
    cr_assert_eq(gyre_conn_id_shared(&got, (struct gyre_conn_id){.loop = NULL}), -EINVAL);
    cr_assert_eq(gyre_conn_id_set_shared(NULL, (struct gyre_conn_id){.loop = NULL}, NULL), -EINVAL);
    cr_assert_eq(gyre_conn_id_outbound((struct gyre_conn_id){.loop = NULL}), -EINVAL);
    peer_close(&peer);
    api_until(&api, e->closes == 1);
    cr_assert_eq(e->user, &b);
    cr_assert_eq(e->n, 1, "others could still get it in on_close");
    struct end *next = peer_open(&api, &peer); /* in the same slot */
    cr_assert_eq(next->id.slot, id.slot);
    cr_assert_eq(gyre_conn_share(next->c, &a), 0);
    cr_assert_eq(gyre_conn_id_shared(&got, id), GYRE_ESTALE, "an old id reaches the new connection");
    cr_assert_eq(gyre_conn_id_set_shared(NULL, id, &b), GYRE_ESTALE);
    cr_assert_eq(gyre_conn_shared(next->c), &a);
    peer_close(&peer);
    api_close(&api);
}

/* Many connections: the table grows, and each has its own. */
BACKEND_TEST(api_id, shared_by_many)
{
    enum { MANY = 200 };
    static struct peer peers[MANY];
    static struct end *ends[MANY];
    struct api api;
    void *got;
    api_start(&api, p, NULL);
    for (unsigned i = 0; i < MANY; i++) {
        ends[i] = peer_open(&api, &peers[i]);
        if (i % 3 != 0)
            cr_assert_eq(gyre_conn_share(ends[i]->c, &peers[i]), 0);
    }
    for (unsigned i = 0; i < MANY; i++) {
        cr_assert_eq(gyre_conn_id_shared(&got, ends[i]->id), i % 3 != 0 ? 0 : GYRE_ESTALE);
        cr_assert(i % 3 == 0 || got == &peers[i]);
        peer_close(&peers[i]);
    }
    api_close(&api);
}

/* What is queued and what is posted counts; what was sent does not. */
BACKEND_TEST(api_id, outbound)
{
    struct api api;
    struct peer peer;
    static uint8_t data[5000];
    api_start(&api, p, NULL);
    struct end *e = peer_open(&api, &peer);
    cr_assert_eq(gyre_conn_share(e->c, NULL), 0);
    cr_assert_eq(gyre_conn_id_outbound(e->id), 0);
    end_put(e, 1000);
    cr_assert_eq(gyre_conn_id_outbound(e->id), 1000);
    env_pattern_fill(data, sizeof data, e->key_out, e->put);
    e->put += sizeof data;
    cr_assert_eq(gyre_conn_id_write(e->id, data, sizeof data, end_on_sent, e), 0);
    cr_assert_eq(gyre_conn_outbound(e->c), 1000);
    cr_assert_eq(gyre_conn_id_outbound(e->id), 6000, "what is posted counts");
    peer_expect(&peer, 6000);
    api_until(&api, e->sents == 1);
    cr_assert_eq(gyre_conn_id_outbound(e->id), 0);
    gyre_conn_cork(e->c);
    cr_assert_eq(gyre_conn_id_write_ref(e->id, data, 10, NULL, NULL), 0);
    api_turn(&api);
    cr_assert_eq(gyre_conn_id_outbound(e->id), 10);
    peer_close(&peer);
    api_close(&api);
}

/* ---- the share of a turn ---- */

/* A flood is taken in by so much per turn, all of it in the end and in order, the end after it. */
TRANSPORT_TEST(api_turn_max, bounds_a_flood)
{
    struct api api;
    struct peer peer;
    const struct script script = {.eof = end_ignore};
    struct gyre_listener_options options = {.conn = {.turn_max_bytes = 4096}};
    api_init(&api, p);
    api.options.buf_size_bytes = 1024;
    api.options.buf_count = 16;
    api.options.buf_count_max = 32;
    api_open(&api);
    api_listen(&api, &script, &options);
    struct end *e = peer_open(&api, &peer);
    uint64_t last = 0, most = 0;
    while (e->got < MIB(1)) {
        (void)peer_send_some(&peer, peer.sent < MIB(1) ? MIB(1) - (size_t)peer.sent : 0);
        api_turn_now(&api);
        if (api.is_sim)
            api_turn(&api);
        most = e->got - last > most ? e->got - last : most;
        last = e->got;
    }
    /* Two turns' worth on the simulator; and what was on its way when receiving was to stop, at most all buffers. */
    cr_assert_leq(most, 2 * (4096 + KIB(32)), "%llu bytes in one turn", (unsigned long long)most);
    peer_shutdown(&peer);
    api_until(&api, e->eofs == 1);
    cr_assert_eq(e->got, MIB(1));
    cr_assert_eq(e->left_at_eof, 0);
    cr_assert_eq(gyre_conn_close(e->c), 0);
    peer_close(&peer);
    api_close(&api);
}

/* The end comes while bytes wait for the next turn: not before them. With pausing and closing in between. */
BACKEND_TEST(api_turn_max, end_waits_for_the_bytes)
{
    struct gyre_listener_options options = {.conn = {.turn_max_bytes = 1}};
    for (unsigned round = 0; round < 30; round++) {
        struct api api;
        struct peer peer;
        api_init(&api, p);
        api.options.buf_size_bytes = 256;
        api_open(&api);
        api_listen(&api, NULL, &options);
        struct end *e = peer_open(&api, &peer);
        peer_send(&peer, 200 * (round + 1));
        uint64_t sent = peer.sent;
        peer_close(&peer);
        if (round % 3 == 1) {
            api_turn_now(&api);
            if (e->c != NULL && gyre_conn_pause(e->c) == 0)
                cr_assert_eq(gyre_conn_resume(e->c), 0);
        }
        api_until(&api, e->closes == 1);
        cr_assert_eq(e->got, sent);
        cr_assert_eq(e->err, 0, "%s", gyre_err_name(e->err));
        api_close(&api);
    }
}
