/* SPDX-License-Identifier: MIT
 * What is answered to calls at the wrong time, in the wrong place, or twice: one table of the calls of a connection,
 * made of one that is closing, in its on_close, without one, and from another thread; and what of engines, loops and
 * listeners may be done once only. What the functions that read give is read.c's; the ranges of options are tested
 * where the options are. */
#include "rig.h"

#include <errno.h>
#include <gyre/frame.h>
#include <gyre/timer.h>
#include <gyre/work.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- the calls of a connection ---- */

static struct gyre_framer line;
static int file = -1;

static void never_sent(int err, void *user)
{
    (void)user;
    cr_assert_fail("told of a call that was refused: %s", gyre_err_name(err));
}

static void never_detached(struct gyre_conn *c, int fd, void *user)
{
    (void)c;
    never_sent(fd, user);
}

static int64_t peek(struct gyre_conn *c)
{
    struct gyre_slice view;
    return gyre_conn_peek(&view, c, 0);
}

static int64_t next(struct gyre_conn *c)
{
    struct gyre_slice view;
    return gyre_conn_next(&view, c, 0);
}

static int64_t hold(struct gyre_conn *c)
{
    struct gyre_buf *buf;
    struct gyre_slice view;
    return gyre_buf_hold(&buf, &view, c, 1);
}

static int64_t write_1(struct gyre_conn *c)
{
    return gyre_conn_write(c, "x", 1);
}

static int64_t write_v(struct gyre_conn *c)
{
    char x = 'x';
    return gyre_conn_writev(c, &(struct iovec){&x, 1}, 1);
}

static int64_t write_ref(struct gyre_conn *c)
{
    return gyre_conn_write_ref(c, "x", 1, never_sent, NULL);
}

static int64_t write_now(struct gyre_conn *c)
{
    return gyre_conn_try_write(c, "x", 1);
}

static int64_t write_file(struct gyre_conn *c)
{
    return gyre_conn_sendfile(c, file, 0, 1, never_sent, NULL);
}

static int64_t forward(struct gyre_conn *c)
{
    return gyre_conn_forward(c, c, SIZE_MAX);
}

static int64_t frame_next(struct gyre_conn *c)
{
    struct gyre_slice frame;
    return gyre_frame_next(&frame, c, &line);
}

static int64_t frame_write(struct gyre_conn *c)
{
    return gyre_frame_write(c, &line, "x", 1);
}

static int64_t set_framer(struct gyre_conn *c)
{
    return gyre_conn_set_framer(c, NULL);
}

static int64_t pause_it(struct gyre_conn *c)
{
    return gyre_conn_pause(c);
}

static int64_t resume(struct gyre_conn *c)
{
    return gyre_conn_resume(c);
}

static int64_t wake(struct gyre_conn *c)
{
    return gyre_conn_wake(c);
}

static int64_t half_close(struct gyre_conn *c)
{
    return gyre_conn_shutdown(c);
}

static int64_t set_idle(struct gyre_conn *c)
{
    return gyre_conn_set_idle_timeout(c, MS(1000));
}

static int64_t set_read(struct gyre_conn *c)
{
    return gyre_conn_set_read_timeout(c, MS(1000));
}

static int64_t set_write(struct gyre_conn *c)
{
    return gyre_conn_set_write_timeout(c, MS(1000));
}

static int64_t set_life(struct gyre_conn *c)
{
    return gyre_conn_set_lifetime(c, MS(1000));
}

static int64_t share(struct gyre_conn *c)
{
    return gyre_conn_share(c, NULL);
}

static int64_t detach(struct gyre_conn *c)
{
    return gyre_conn_detach(c, never_detached, NULL);
}

static int64_t close_it(struct gyre_conn *c)
{
    return gyre_conn_close(c);
}

static int64_t abort_it(struct gyre_conn *c)
{
    return gyre_conn_abort(c);
}

struct row {
    const char *name;
    int64_t (*call)(struct gyre_conn *c);
    int closed; /* what it says of one that is closing, and of none */
};

static const struct row rows[] = {
    {"peek", peek, GYRE_ECLOSED},
    {"next", next, GYRE_ECLOSED},
    {"hold", hold, GYRE_ECLOSED},
    {"write", write_1, GYRE_ECLOSED},
    {"writev", write_v, GYRE_ECLOSED},
    {"write_ref", write_ref, GYRE_ECLOSED},
    {"try_write", write_now, GYRE_ECLOSED},
    {"sendfile", write_file, GYRE_ECLOSED},
    {"forward", forward, GYRE_ECLOSED},
    {"frame_next", frame_next, GYRE_ECLOSED},
    {"frame_write", frame_write, GYRE_ECLOSED},
    {"set_framer", set_framer, GYRE_ECLOSED},
    {"pause", pause_it, GYRE_ECLOSED},
    {"resume", resume, GYRE_ECLOSED},
    {"wake", wake, GYRE_ECLOSED},
    {"shutdown", half_close, GYRE_ECLOSED},
    {"set_idle_timeout", set_idle, GYRE_ECLOSED},
    {"set_read_timeout", set_read, GYRE_ECLOSED},
    {"set_write_timeout", set_write, GYRE_ECLOSED},
    {"set_lifetime", set_life, GYRE_ECLOSED},
    {"share", share, GYRE_ECLOSED},
    {"detach", detach, GYRE_ECLOSED},
    {"close", close_it, 0}, /* what is wanted is so */
    {"abort", abort_it, 0},
};

enum { ROWS = sizeof rows / sizeof rows[0] };

static void check_rows(struct gyre_conn *c, const char *when)
{
    for (unsigned i = 0; i < ROWS; i++) {
        int64_t err = rows[i].call(c);
        cr_assert_eq(err, rows[i].closed, "%s of a connection %s: %lld (%s)", rows[i].name, when, (long long)err,
                     gyre_err_name((int)err));
    }
}

static void in_close(struct end *e)
{
    check_rows(e->c, "in its on_close");
    cr_assert_null(gyre_conn_from_id((struct gyre_conn_id){.loop = NULL}));
    cr_assert_neq(gyre_conn_close_reason(e->c), GYRE_CLOSE_NONE);
}

static void set_up(struct api *api, const struct backend_param *p, const struct script *script)
{
    char path[] = "/tmp/gyre-errors-XXXXXX";
    api_init(api, p);
    api_open(api);
    api_listen(api, script, NULL);
    cr_assert_eq(gyre_framer_init_line(&line, 0, 0), 0);
    file = mkstemp(path);
    cr_assert(file >= 0 && write(file, "x", 1) == 1);
    cr_assert_eq(unlink(path), 0);
}

/* A connection that is closing takes nothing any more, nor does one that is gone; none of it has any effect. */
TRANSPORT_TEST(api_errors, closing)
{
    const struct script script = {.close = in_close};
    struct api api;
    struct peer peer;
    set_up(&api, p, &script);
    struct end *e = peer_open(&api, &peer);
    end_put(e, 100);
    cr_assert_eq(gyre_conn_close(e->c), 0);
    for (unsigned i = 0; i < ROWS - 1; i++) /* all but abort() */
        cr_assert_eq(rows[i].call(e->c), rows[i].closed, "%s of a connection that is closing", rows[i].name);
    check_rows(NULL, "that is none");
    peer_until_end(&peer);
    cr_assert_eq(peer.got, 100, "what was queued before is sent, and nothing else");
    peer_close(&peer);
    api_until(&api, e->closes == 1);
    cr_assert_eq(e->reason, GYRE_CLOSE_USER);
    cr_assert_eq(e->err, 0);
    cr_assert_eq(close(file), 0);
    api_close(&api);
}

/* Aborted it takes nothing either, and no further callback comes but the last. */
BACKEND_TEST(api_errors, aborted)
{
    const struct script script = {.close = in_close};
    struct api api;
    struct peer peer;
    set_up(&api, p, &script);
    struct end *e = peer_open(&api, &peer);
    cr_assert_eq(gyre_conn_abort(e->c), 0);
    check_rows(e->c, "that was aborted");
    api_until(&api, e->closes == 1);
    cr_assert_eq(e->reason, GYRE_CLOSE_ABORT);
    peer_close(&peer);
    cr_assert_eq(close(file), 0);
    api_close(&api);
}

struct stranger {
    struct gyre_conn *c;
    struct gyre_loop *loop;
    int64_t said[ROWS];
    int64_t each;
};

static bool go_on(struct gyre_conn *c, void *user)
{
    (void)c;
    (void)user;
    return true;
}

static void *trespass(void *arg)
{
    struct stranger *s = arg;
    for (unsigned i = 0; i < ROWS; i++)
        s->said[i] = rows[i].call(s->c);
    s->each = gyre_loop_each_conn(s->loop, go_on, NULL);
    return NULL;
}

/* Another thread is refused every one of them, and nothing comes of it. */
BACKEND_TEST(api_errors, wrong_thread)
{
    struct api api;
    struct peer peer;
    pthread_t thread;
    set_up(&api, p, NULL);
    struct end *e = peer_open(&api, &peer);
    struct stranger s = {.c = e->c, .loop = api.loop};
    cr_assert_eq(pthread_create(&thread, NULL, trespass, &s), 0);
    cr_assert_eq(pthread_join(thread, NULL), 0);
    for (unsigned i = 0; i < ROWS; i++)
        cr_assert_eq(s.said[i], GYRE_ETHREAD, "%s: %s", rows[i].name, gyre_err_name((int)s.said[i]));
    cr_assert_eq(s.each, GYRE_ETHREAD);
    api_watch(&api, MS(5));
    cr_assert_eq(e->closes, 0);
    end_put(e, 10);
    peer_expect(&peer, 10);
    peer_close(&peer);
    cr_assert_eq(close(file), 0);
    api_close(&api);
}

/* ---- by name ---- */

static void count_stale(int err, void *user)
{
    cr_assert_eq(err, GYRE_ESTALE, "%s", gyre_err_name(err));
    ++*(unsigned *)user;
}

/* A name that is stale: accepted where the call is told of later, and told so; the connection that has the place now is
 * left alone. */
BACKEND_TEST(api_errors, stale_name)
{
    struct api api;
    struct peer first, second;
    unsigned told = 0;
    char byte = 'x';
    void *shared;
    api_start(&api, p, NULL);
    struct end *old = peer_open(&api, &first);
    struct gyre_conn_id id = old->id;
    cr_assert_eq(gyre_conn_abort(old->c), 0);
    api_until(&api, old->closes == 1);
    peer_close(&first);
    struct end *e = peer_open(&api, &second);
    cr_assert_eq(e->id.slot, id.slot, "the place was not used again: nothing is tested");
    cr_assert_null(gyre_conn_from_id(id));
    cr_assert_eq(gyre_conn_id_write(id, "x", 1, count_stale, &told), 0);
    cr_assert_eq(gyre_conn_id_writev(id, &(struct iovec){&byte, 1}, 1, count_stale, &told), 0);
    cr_assert_eq(gyre_conn_id_write_ref(id, "x", 1, count_stale, &told), 0);
    cr_assert_eq(gyre_conn_id_close_then(id, count_stale, &told), 0);
    cr_assert_eq(gyre_conn_id_wake(id), 0);
    cr_assert_eq(gyre_conn_id_close(id), 0);
    cr_assert_eq(gyre_conn_id_abort(id), 0);
    cr_assert_eq(gyre_conn_id_shared(&shared, id), GYRE_ESTALE);
    cr_assert_eq(gyre_conn_id_set_shared(NULL, id, NULL), GYRE_ESTALE);
    cr_assert_eq(gyre_conn_id_outbound(id), GYRE_ESTALE);
    api_until(&api, told == 4);
    api_watch(&api, MS(5));
    cr_assert_eq(e->datas + e->closes, 0, "it reached another connection");
    end_put(e, 10);
    peer_expect(&second, 10);
    peer_close(&second);
    api_close(&api);
}

/* ---- loops and engines ---- */

static _Atomic(int64_t) across;
static struct gyre_conn *_Atomic others[2];

static void forward_across(struct gyre_conn *c)
{
    unsigned here = gyre_conn_loop(c) == gyre_engine_loop(rig->engine, 1);
    struct gyre_conn *other = atomic_load(&others[!here]);
    if (other != NULL)
        atomic_store(&across, gyre_conn_forward(c, other, SIZE_MAX));
    (void)gyre_conn_discard(c, SIZE_MAX);
}

static void remember(struct gyre_conn *c)
{
    rig_on_open(c);
    atomic_store(&others[gyre_conn_loop(c) == gyre_engine_loop(rig->engine, 1)], c);
}

/* Forwarding to a connection of another loop is said to be just that. */
REAL_TEST(api_errors, forward_across_loops)
{
    static const struct gyre_conn_handlers handlers = {
        .on_open = remember, .on_data = forward_across, .on_close = rig_on_close};
    struct gyre_listener_options options = {.balance = GYRE_BALANCE_ROUND_ROBIN};
    struct rig r;
    rig_open(&r, p, 2);
    cr_assert_eq(gyre_engine_listen(&r.listener, r.engine, rig_tcp, &handlers, &options), 0);
    rig_run(&r);
    int a = rig_client(gyre_listener_address(r.listener)), b = rig_client(gyre_listener_address(r.listener));
    await(atomic_load(&others[0]) != NULL && atomic_load(&others[1]) != NULL);
    cr_assert_eq(send(a, "x", 1, MSG_NOSIGNAL), 1);
    await(atomic_load(&across) != 0);
    cr_assert_eq(atomic_load(&across), -EXDEV, "%s", gyre_err_name((int)atomic_load(&across)));
    (void)close(a);
    (void)close(b);
    rig_stop(&r);
}

/* An engine runs once, and is stopped as often as one likes: before, during, after, gently and not. Without a listener
 * it runs too. */
REAL_TEST(api_errors, engine_twice)
{
    struct rig r;
    rig_open(&r, p, 2);
    rig_run(&r);
    cr_assert_eq(gyre_engine_run(r.engine), GYRE_ESTATE, "it runs already");
    (void)gyre_engine_drain(r.engine, &(struct gyre_drain_options){.deadline_ns = MS(1000)});
    (void)gyre_engine_drain(r.engine, &(struct gyre_drain_options){.deadline_ns = 1});
    gyre_engine_stop(r.engine);
    gyre_engine_stop(r.engine);
    rig_join(&r);
    gyre_engine_stop(r.engine);
    (void)gyre_engine_drain(r.engine, &(struct gyre_drain_options){.deadline_ns = 1});
    cr_assert_eq(gyre_engine_run(r.engine), GYRE_ESTATE, "it has run");
    cr_assert_eq(gyre_engine_listen(NULL, r.engine, rig_tcp, &rig_handlers, NULL), GYRE_ESTATE);
    rig_close(&r);

    rig_open(&r, p, 2);
    gyre_engine_stop(r.engine);
    gyre_engine_stop(r.engine);
    cr_assert_eq(gyre_engine_run(r.engine), 0, "stopped before it ran");
    rig_close(&r);
}

/* A loop that was asked to stop, twice, returns once; it can run again. */
BACKEND_TEST(api_errors, loop_stopped_twice)
{
    struct api api;
    api_init(&api, p);
    api_open(&api);
    for (unsigned i = 0; i < 3; i++) {
        gyre_loop_stop(api.loop);
        gyre_loop_stop(api.loop);
        cr_assert_eq(gyre_loop_run(api.loop), 0);
    }
    api_turn(&api);
    api_close(&api);
}

/* What is NULL, bad or out of range, of engines; nothing is made of it. */
REAL_TEST(api_errors, engine_nonsense)
{
    struct rig r;
    struct gyre_engine *engine = NULL;
    struct gyre_listener *l = NULL;
    const uint32_t cpu = 0;
    rig_open(&r, p, 1);
    const struct gyre_engine_options bad[] = {{.loops = 1025, .loop = r.loop_options},
                                              {.cpus = NULL, .cpu_count = 1, .loop = r.loop_options},
                                              {.cpus = &cpu, .cpu_count = 1025, .loop = r.loop_options},
                                              {.work_threads = 257, .loop = r.loop_options},
                                              {.work_queue_max = (1 << 20) + 1, .loop = r.loop_options}};
    for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++)
        cr_assert_eq(gyre_engine_create(&engine, &bad[i]), GYRE_EOPTION, "row %u", i);
    cr_assert_null(engine);
    const struct gyre_listener_options refused[] = {
        {.balance = GYRE_BALANCE_CUSTOM}, {.balance = (enum gyre_balance)-1}, {.backlog = UINT32_MAX},
        {.defer_accept_s = 3601}, {.fastopen_queue = (1 << 20) + 1}, {.unix_mode = 01777}};
    for (unsigned i = 0; i < sizeof refused / sizeof refused[0]; i++)
        cr_assert_eq(gyre_engine_listen(&l, r.engine, rig_tcp, &rig_handlers, &refused[i]), GYRE_EOPTION, "row %u", i);
    cr_assert_eq(gyre_engine_listen(NULL, NULL, rig_tcp, &rig_handlers, NULL), -EINVAL);
    cr_assert_eq(gyre_engine_listen_fd(&l, NULL, 0, &rig_handlers, NULL), -EINVAL);
    cr_assert_eq(gyre_engine_listen_fd(&l, r.engine, -1, &rig_handlers, NULL), -EBADF);
    cr_assert_eq(gyre_listener_pause(NULL), -EINVAL);
    cr_assert_eq(gyre_listener_resume(NULL), -EINVAL);
    cr_assert_eq(gyre_listener_dup_fd(NULL, 0), -EINVAL);
    cr_assert_null(l);
    rig_close(&r);
}
