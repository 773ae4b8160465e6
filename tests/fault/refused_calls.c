/* SPDX-License-Identifier: MIT
 * Calls without memory: files, writes and more by name, shared pointers, tasks, timers, watches, limits, held buffers,
 * closing by name, the pool of threads.
 *
 * A scene is a list of steps that are made one after the other, each again and again until it is done. What is refused
 * with -ENOMEM must have done nothing: no bytes of it come, nothing is borrowed, no function of it is called. What is
 * accepted is told of exactly once, if only with -ENOMEM. At the end the peer has every byte in order. */
#include "refused.h"

#include <errno.h>
#include <fcntl.h>
#include <gyre/timer.h>
#include <gyre/watch.h>
#include <gyre/work.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { FILE_BYTES = 150000, PIECE = 3000, TURNS = 60, KEY = 3 };

/* Returns whether it is done; if not it is called again. */
typedef bool step_fn(void);

struct calls {
    struct refused *r;
    struct gyre_listener *listener;
    struct gyre_conn *c, *peer; /* writes; reads */
    struct gyre_conn_id id;
    uint64_t put, got;
    unsigned accepted, told; /* of what has a function to call */
    int told_err, odd_err;   /* the last; one that is not -ENOMEM */
    bool waits;              /* for a step's function to be called */
    bool wants_hold;
    int file;
    struct gyre_timer *timer;
    struct gyre_buf *held;
    struct gyre_pool *pool;
    int closed, close_err;
    uint8_t bytes[FILE_BYTES]; /* of the pattern, from `put` on */
};

static struct calls k;

static const uint8_t *next_bytes(size_t len)
{
    cr_assert_leq(len, sizeof k.bytes);
    env_pattern_fill(k.bytes, len, KEY, k.put);
    return k.bytes;
}

/* ---- steps that are told of later ---- */

static void on_told(int err, void *user)
{
    (void)user;
    k.told++;
    k.told_err = err;
    k.odd_err = err != 0 && err != -ENOMEM ? err : k.odd_err;
}

/* Call it if it was not accepted yet, then wait to be told; if that says -ENOMEM nothing was done, and again. */
static bool told_later(int err)
{
    if (!k.waits) {
        k.waits = refused_note(k.r, err) == 0;
        k.accepted += k.waits;
        return false;
    }
    cr_assert_leq(k.told, k.accepted, "%s: told twice", k.r->where);
    if (k.told < k.accepted)
        return false;
    k.waits = false;
    return k.told_err == 0;
}

static bool bytes_told_later(int err, size_t len)
{
    bool done = told_later(err);
    k.put += done ? len : 0;
    return done;
}

static bool write_by_id(void)
{
    return bytes_told_later(k.waits ? 0 : gyre_conn_id_write(k.id, next_bytes(PIECE), PIECE, on_told, NULL), PIECE);
}

static bool writev_by_id(void)
{
    const uint8_t *bytes = next_bytes(PIECE);
    const struct iovec iov[2] = {{(void *)(uintptr_t)bytes, 1000}, {(void *)(uintptr_t)(bytes + 1000), PIECE - 1000}};
    return bytes_told_later(k.waits ? 0 : gyre_conn_id_writev(k.id, iov, 2, on_told, NULL), PIECE);
}

static bool write_ref_by_id(void)
{
    return bytes_told_later(k.waits ? 0 : gyre_conn_id_write_ref(k.id, next_bytes(PIECE), PIECE, on_told, NULL), PIECE);
}

static bool write_ref(void)
{
    return bytes_told_later(k.waits ? 0 : gyre_conn_write_ref(k.c, next_bytes(PIECE), PIECE, on_told, NULL), PIECE);
}

static bool send_file(void)
{
    if (!k.waits) {
        const uint8_t *bytes = next_bytes(FILE_BYTES);
        cr_assert_eq(pwrite(k.file, bytes, FILE_BYTES, 0), FILE_BYTES);
    }
    return bytes_told_later(k.waits ? 0 : gyre_conn_sendfile(k.c, k.file, 0, FILE_BYTES, on_told, NULL), FILE_BYTES);
}

static void on_watch(struct gyre_watch *w, unsigned events, int err, void *user)
{
    on_told(err, user);
    cr_assert_eq(events, err == 0 ? GYRE_WATCH_WRITABLE : 0);
    cr_assert_eq(gyre_watch_close(w), 0);
}

static bool watch(void)
{
    struct gyre_watch *w;
    int fd = gyre_conn_fd(k.c);
    return told_later(k.waits ? 0 : gyre_watch_open(&w, k.r->loop, fd, GYRE_WATCH_WRITABLE, on_watch, NULL));
}

static void run_task(struct gyre_loop *loop, void *user)
{
    cr_assert_eq(loop, k.r->loop);
    on_told(0, user);
}

static bool post(void)
{
    return told_later(k.waits ? 0 : gyre_loop_post(k.r->loop, run_task, NULL));
}

static bool post_after(void)
{
    return told_later(k.waits ? 0 : gyre_loop_post_after(k.r->loop, 1000000, run_task, NULL));
}

static void on_fired(struct gyre_timer *timer, void *user)
{
    cr_assert_eq(timer, k.timer);
    on_told(0, user);
}

static void drop_timer(void)
{
    gyre_timer_destroy(k.timer);
    k.timer = NULL;
}

static bool timer(void)
{
    if (k.timer == NULL && refused_note(k.r, gyre_timer_create(&k.timer, k.r->loop, on_fired, NULL)) != 0) {
        cr_assert_null(k.timer, "%s: an out parameter was set without success", k.r->where);
        return false;
    }
    bool done = told_later(k.waits ? 0 : gyre_timer_start(k.timer, 1000000, 0));
    if (done)
        drop_timer();
    return done;
}

static int work(struct gyre_work *w, void *user)
{
    (void)w;
    (void)user;
    return 0;
}

static void on_worked(struct gyre_loop *loop, int result, void *user)
{
    cr_assert_eq(result, 0);
    run_task(loop, user);
}

/* Only making the pool asks for memory. */
static bool pool(void)
{
    const struct gyre_pool_options options = {.threads = 2, .queue_max = 8, .mem = &k.r->mem.mem};
    if (k.pool == NULL && refused_note(k.r, gyre_pool_create(&k.pool, &options)) != 0) {
        cr_assert_null(k.pool, "%s: an out parameter was set without success", k.r->where);
        return false;
    }
    long calls = atomic_load(&k.r->mem.calls);
    int err = k.waits ? 0 : gyre_pool_submit(NULL, k.pool, k.r->loop, work, on_worked, NULL);
    cr_assert_eq(err, 0, "%s: %s", k.r->where, gyre_err_name(err));
    cr_assert_eq(atomic_load(&k.r->mem.calls), calls, "submitting asks for memory");
    (void)poll(NULL, 0, k.waits); /* let its threads run */
    bool done = told_later(err);
    if (done) {
        gyre_pool_destroy(k.pool);
        k.pool = NULL;
    }
    return done;
}

/* -ENOMEM from `done`: it was left as it is. */
static bool close_then(void)
{
    bool done = told_later(k.waits ? 0 : gyre_conn_id_close_then(k.id, on_told, NULL));
    if (!done && !k.waits && k.told_err == -ENOMEM)
        cr_assert(k.closed == 0 || k.close_err == -ENOMEM, "%s: closed all the same", k.r->where);
    return done;
}

/* ---- steps that are over at once ---- */

static bool at_once(int err)
{
    return refused_note(k.r, err) == 0;
}

static bool plain_write(void)
{
    if (refused_note(k.r, gyre_conn_write(k.c, next_bytes(PIECE), PIECE)) != 0)
        return false;
    k.put += PIECE;
    return true;
}

static bool share(void)
{
    void *there = NULL;
    int err = refused_note(k.r, gyre_conn_share(k.c, &k));
    cr_assert_eq(gyre_conn_id_shared(&there, k.id), err == 0 ? 0 : GYRE_ESTALE);
    cr_assert_eq(there, err == 0 ? &k : NULL);
    cr_assert_eq(gyre_conn_shared(k.c), there);
    return err == 0;
}

static bool read_limit(void)
{
    return at_once(gyre_conn_set_read_timeout(k.c, INT64_C(3600) * 1000000000));
}

static bool idle_limit(void)
{
    return at_once(gyre_conn_set_idle_timeout(k.peer, INT64_C(3600) * 1000000000));
}

static bool wake(void)
{
    return at_once(gyre_conn_id_wake(k.id));
}

static void drop_held(void)
{
    if (k.held != NULL)
        gyre_buf_release(k.held);
    k.held = NULL;
}

/* Bytes come to the peer, which keeps them beyond its handler; on_peer_data() does it. */
static bool hold(void)
{
    k.wants_hold = k.held == NULL;
    if (k.held == NULL) {
        if (k.got == k.put)
            (void)plain_write();
        return false;
    }
    drop_held();
    return true;
}

/* ---- the connections ---- */

static void see(const struct gyre_slice *view)
{
    cr_assert_eq(env_pattern_check(view->data, view->len, KEY, k.got), -1, "%s: wrong bytes came", k.r->where);
    k.got += view->len;
}

static void on_peer_data(struct gyre_conn *c)
{
    struct gyre_slice view;
    if (k.wants_hold && k.held == NULL && gyre_conn_inbound(c) >= 100) {
        size_t before = gyre_conn_inbound(c);
        if (refused_note(k.r, gyre_buf_hold(&k.held, &view, c, 100)) == 0)
            see(&view);
        else
            cr_assert_eq(gyre_conn_inbound(c), before, "%s: bytes were taken all the same", k.r->where);
    }
    while (gyre_conn_next(&view, c, 0) == 0 && view.len > 0)
        see(&view);
}

static void on_data(struct gyre_conn *c)
{
    (void)gyre_conn_discard(c, SIZE_MAX);
}

static void on_peer_open(struct gyre_conn *c)
{
    k.peer = c;
}

static void on_open(struct gyre_conn *c)
{
    k.c = c;
    k.id = gyre_conn_id_of(c);
}

static void on_close(struct gyre_conn *c, int err)
{
    (void)c;
    k.closed++;
    k.close_err = err == -ENOMEM ? err : k.close_err;
}

static void connect_and_wait(struct refused *r)
{
    static const struct gyre_conn_handlers reads = {
        .on_open = on_peer_open, .on_data = on_peer_data, .on_close = on_close};
    struct gyre_listener *listener = k.listener;
    k = (struct calls){.r = r, .listener = listener, .file = -1};
    cr_assert_eq(gyre_connect(NULL, r->loop, gyre_listener_address(k.listener), &reads, NULL), 0);
    refused_until(r, k.c != NULL && k.peer != NULL);
    char path[] = "/tmp/gyre-refused-XXXXXX";
    k.file = mkstemp(path);
    cr_assert_geq(k.file, 0);
    (void)unlink(path);
}

static bool is_broken(void)
{
    return k.closed > 0 || gyre_conn_close_reason(k.c) == GYRE_CLOSE_ERROR ||
           gyre_conn_close_reason(k.peer) == GYRE_CLOSE_ERROR;
}

/* All steps, or until a connection is closed for want of memory to receive or to read the file with; but what was begun
 * is told of. */
static void make_steps(struct refused *r, step_fn *const *steps, size_t *at, size_t count, unsigned turns)
{
    for (unsigned i = 0; i < turns && *at < count && (k.waits || !is_broken()); i++) {
        while (*at < count && (k.waits || !is_broken()) && steps[*at]())
            ++*at;
        refused_turn(r);
    }
}

static void finish(struct refused *r, bool whole)
{
    if (k.closed == 0)
        cr_assert_eq(gyre_conn_close(k.c), 0);
    refused_until(r, k.closed == 2 && k.told == k.accepted);
    cr_assert_leq(k.got, k.put + FILE_BYTES);
    if (whole && k.close_err == 0) {
        cr_assert_eq(k.got, k.put, "%s: %zu of %zu bytes came", r->where, (size_t)k.got, (size_t)k.put);
        cr_assert_eq(k.odd_err, 0, "%s: a function was told %s", r->where, gyre_err_name(k.odd_err));
    }
    drop_held();
    cr_assert_eq(close(k.file), 0);
}

static void run_steps(struct refused *r, step_fn *const *steps, size_t count)
{
    static const struct gyre_conn_handlers writes = {.on_open = on_open, .on_data = on_data, .on_close = on_close};
    size_t at = 0;
    cr_assert_eq(gyre_loop_listen(&k.listener, r->loop, "tcp://127.0.0.1:0", &writes, NULL), 0);
    connect_and_wait(r);
    refused_begin(r);
    make_steps(r, steps, &at, count, TURNS);
    refused_over(r);
    make_steps(r, steps, &at, count, 20000);
    bool whole = at == count;
    whole = whole && (k.closed == 0 || steps[count - 1] == close_then);
    finish(r, whole);
    cr_assert(whole || (r->struck && k.close_err == -ENOMEM), "%s: step %zu is never done", r->where, at);
    connect_and_wait(r);
    at = 0;
    make_steps(r, steps, &at, count, 20000);
    cr_assert_eq(at, count, "%s: there is memory, and step %zu is never done", r->where, at);
    finish(r, true);
    gyre_listener_close(k.listener);
}

#define STEPS(name, calls_min, ...)                                                                                    \
    static void play_##name(struct refused *r)                                                                         \
    {                                                                                                                  \
        static step_fn *const steps[] = {__VA_ARGS__};                                                                 \
        run_steps(r, steps, sizeof steps / sizeof steps[0]);                                                           \
    }                                                                                                                  \
    BACKEND_TEST(refused_calls, name)                                                                                  \
    {                                                                                                                  \
        refused_each(p, play_##name, calls_min);                                                                       \
    }

STEPS(files, 4, plain_write, send_file, write_ref, send_file, plain_write)
STEPS(by_name, 4, share, write_by_id, writev_by_id, write_ref_by_id, wake, write_by_id)
STEPS(tasks_and_timers, 3, post, post_after, timer, read_limit, idle_limit)
STEPS(held, 1, hold, plain_write, hold)
STEPS(close_by_name, 2, share, plain_write, close_then)
STEPS(watches, 1, watch, plain_write, watch, watch)
STEPS(pool, 3, pool, pool, plain_write)
