/* SPDX-License-Identifier: MIT
 * Public functions given NULL, nothing, or nonsense: each answers as its header says, and nothing is left behind.
 *
 * A loop with a unix socket listens to itself; the calls are made from its callbacks, where users make them. */
#include "env.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <gyre.h>
#include <limits.h>
#include <stdio.h>
#include <unistd.h>

static struct env_mem mem;
static struct gyre_loop *loop;
static struct gyre_conn *near, *far; /* connected here, accepted here */
static unsigned closes, done_count;
static int done_err, close_err;
static uint64_t got;
static int fds_before;
static char here[64]; /* an abstract name, this process's own: tests run side by side */

static void on_open(struct gyre_conn *c)
{
    if (gyre_conn_listener(c) != NULL)
        far = c;
}

static void on_data(struct gyre_conn *c)
{
    got += gyre_conn_discard(c, SIZE_MAX);
}

static void on_close(struct gyre_conn *c, int err)
{
    closes++;
    close_err = err;
    if (c == near)
        near = NULL;
    if (c == far)
        far = NULL;
}

static const struct gyre_conn_handlers handlers = {.on_open = on_open, .on_data = on_data, .on_close = on_close};

static void on_done(int err, void *user)
{
    (void)user;
    done_count++;
    done_err = err;
}

#define TURN_UNTIL(cond)                                                                                               \
    do {                                                                                                               \
        uint64_t end_ns = env_now_ns() + UINT64_C(10000000000);                                                        \
        while (!(cond)) {                                                                                              \
            cr_assert_geq(gyre_loop_run_nowait(loop), 0);                                                              \
            cr_assert(env_now_ns() < end_ns, "did not come about: %s", #cond);                                         \
        }                                                                                                              \
    } while (0)

static void connect_pair(void)
{
    struct gyre_listener *listener;
    env_mem_init(&mem);
    fds_before = env_fd_count();
    (void)snprintf(here, sizeof here, "unix://@gyre-nonsense-%d", (int)getpid());
    const struct gyre_loop_options options = {.backend = "epoll", .mem = &mem.mem};
    cr_assert_eq(gyre_loop_create(&loop, &options), 0);
    cr_assert_eq(gyre_loop_listen(&listener, loop, here, &handlers, NULL), 0);
    cr_assert_eq(gyre_connect(&near, loop, here, &handlers, NULL), 0);
    TURN_UNTIL(far != NULL);
}

static void end(void)
{
    gyre_loop_destroy(loop);
    cr_assert_eq(atomic_load(&mem.blocks), 0, "memory was left behind");
    cr_assert_eq(env_fd_count(), fds_before, "descriptors were left open");
}

TestSuite(nonsense, .init = connect_pair, .fini = end);

/* The functions for which NULL is allowed, or that have an answer for it. */
Test(nonsense, null)
{
    gyre_loop_destroy(NULL);
    gyre_engine_destroy(NULL);
    gyre_loop_stop(NULL);
    gyre_engine_stop(NULL);
    (void)gyre_engine_drain(NULL, NULL);
    gyre_timer_destroy(NULL);
    gyre_sim_destroy(NULL);
    gyre_buf_release(NULL);
    gyre_listener_close(NULL);
    cr_assert_eq(gyre_loop_create(NULL, NULL), -EINVAL);
    cr_assert_eq(gyre_engine_create(NULL, NULL), -EINVAL);
    cr_assert_eq(gyre_loop_run(NULL), -EINVAL);
    cr_assert_eq(gyre_loop_run_nowait(NULL), -EINVAL);
    cr_assert_eq(gyre_engine_run(NULL), -EINVAL);
    cr_assert_eq(gyre_loop_post(loop, NULL, NULL), -EINVAL);
    cr_assert_eq(gyre_connect(NULL, NULL, "tcp://127.0.0.1:1", &handlers, NULL), -EINVAL);
    cr_assert_eq(gyre_connect(NULL, loop, here, NULL, NULL), GYRE_EHANDLERS);
    cr_assert_eq(gyre_loop_listen(NULL, loop, here, NULL, NULL), GYRE_EHANDLERS);
    cr_assert_eq(gyre_loop_listen(NULL, NULL, here, &handlers, NULL), -EINVAL);
    cr_assert_lt(gyre_connect(NULL, loop, NULL, &handlers, NULL), 0);
    cr_assert_lt(gyre_loop_listen(NULL, loop, NULL, &handlers, NULL), 0);
    cr_assert_null(gyre_conn_from_id((struct gyre_conn_id){.loop = NULL}));
    cr_assert_eq(gyre_conn_id_write((struct gyre_conn_id){.loop = NULL}, "x", 1, NULL, NULL), -EINVAL);
    cr_assert_eq(gyre_conn_id_write(gyre_conn_id_of(near), NULL, 1, NULL, NULL), -EINVAL);
}

/* Handlers without on_data are none. */
Test(nonsense, handlers_without_on_data)
{
    static const struct gyre_conn_handlers lacking = {.on_close = on_close};
    cr_assert_eq(gyre_connect(NULL, loop, here, &lacking, NULL), GYRE_EHANDLERS);
    cr_assert_eq(gyre_loop_listen(NULL, loop, here, &lacking, NULL), GYRE_EHANDLERS);
}

Test(nonsense, addresses)
{
    static const struct {
        const char *address;
        int err;
    } table[] = {{"", GYRE_EADDRESS}, {"tcp://local host:1", GYRE_EADDRESS}, {"unix://", GYRE_EPATHLEN},
                 {"unix://@", GYRE_EPATHLEN}, {"tcp://1.2.3.4:70000", GYRE_EADDRESS}};
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        struct gyre_conn *c = NULL;
        struct gyre_listener *listener = NULL;
        cr_assert_eq(gyre_connect(&c, loop, table[i].address, &handlers, NULL), table[i].err, "%s", table[i].address);
        cr_assert_eq(gyre_loop_listen(&listener, loop, table[i].address, &handlers, NULL), table[i].err);
        cr_assert(c == NULL && listener == NULL, "out parameters are set only on success");
    }
    cr_assert_eq(gyre_loop_listen(NULL, loop, "tcp://203.0.113.77:0", &handlers, NULL), -EADDRNOTAVAIL);
    cr_assert_eq(gyre_loop_listen(NULL, loop, here, &handlers, NULL), -EADDRINUSE);
    cr_assert_eq(gyre_loop_listen(NULL, loop, "unix:///proc/no/such/place", &handlers, NULL), -ENOENT);
    cr_assert_eq(gyre_loop_listen(NULL, loop, "unix:///proc/self/status", &handlers, NULL), -EEXIST);
    cr_assert_eq(gyre_loop_conn_count(loop), 2);
}

Test(nonsense, writing)
{
    struct iovec iov[2] = {{.iov_base = NULL, .iov_len = 0}, {.iov_base = NULL, .iov_len = 1}};
    cr_assert_eq(gyre_conn_write(near, NULL, 0), 0);
    cr_assert_eq(gyre_conn_write(near, NULL, 1), -EINVAL);
    cr_assert_eq(gyre_conn_write_ref(near, NULL, 1, on_done, NULL), -EINVAL);
    cr_assert_eq(gyre_conn_writev(near, NULL, 0), 0);
    cr_assert_eq(gyre_conn_writev(near, NULL, 1), -EINVAL);
    cr_assert_eq(gyre_conn_writev(near, iov, -1), -EINVAL);
    cr_assert_eq(gyre_conn_writev(near, iov, INT_MIN), -EINVAL);
    cr_assert_eq(gyre_conn_writev(near, iov, 1025), -EINVAL);
    cr_assert_eq(gyre_conn_writev(near, iov, INT_MAX), -EINVAL);
    cr_assert_eq(gyre_conn_writev(near, iov, 1), 0, "an empty piece is nothing");
    cr_assert_eq(gyre_conn_writev(near, iov, 2), -EINVAL);
    cr_assert_eq(gyre_conn_outbound(near), 0, "what was refused queued something");
    cr_assert_eq(gyre_conn_write(near, "x", SIZE_MAX), -EMSGSIZE, "more than may ever wait");
    cr_assert_eq(gyre_conn_write(near, "x", (16u << 20) + 1), -EMSGSIZE);
    cr_assert_eq(gyre_conn_write_ref(near, "x", SIZE_MAX, on_done, NULL), -EMSGSIZE);
    cr_assert_eq(gyre_conn_outbound(near), 0);
    for (int i = 0; i < 20; i++)
        cr_assert_geq(gyre_loop_run_nowait(loop), 0);
    cr_assert_eq(done_count, 0, "done came for a write that was refused");
}

/* Borrowing no bytes is a write like any other: done comes once, with 0, and the loop comes to rest. */
Test(nonsense, borrowing_nothing)
{
    cr_assert_eq(gyre_conn_write_ref(near, "", 0, on_done, NULL), 0);
    TURN_UNTIL(done_count > 0);
    cr_assert_eq(done_err, 0);
    cr_assert_eq(gyre_conn_write(near, "abc", 3), 0);
    cr_assert_eq(gyre_conn_write_ref(near, NULL, 0, on_done, NULL), 0);
    TURN_UNTIL(got == 3 && done_count == 2);
    struct gyre_stats before, after;
    gyre_loop_stats(&before, loop);
    for (int i = 0; i < 50; i++)
        cr_assert_eq(gyre_loop_run_nowait(loop), 0, "the loop finds something to do for ever");
    gyre_loop_stats(&after, loop);
    cr_assert_eq(before.ops, after.ops, "it goes on sending nothing");
    cr_assert_eq(done_count, 2);
}

/* The same by name, from where another thread would. */
Test(nonsense, writing_nothing_by_name)
{
    cr_assert_eq(gyre_conn_id_write(gyre_conn_id_of(near), NULL, 0, on_done, NULL), 0);
    TURN_UNTIL(done_count == 1);
    cr_assert_eq(done_err, 0);
}

/* A graceful close with a borrowed nothing in the queue ends as any other. */
Test(nonsense, closing_with_nothing_borrowed)
{
    cr_assert_eq(gyre_conn_write_ref(near, "", 0, on_done, NULL), 0);
    cr_assert_eq(gyre_conn_close(near), 0);
    TURN_UNTIL(closes == 2);
    cr_assert_eq(done_count, 1);
    cr_assert_eq(close_err, 0);
}

static void drain_nothing(struct gyre_conn *c)
{
    struct gyre_slice view = {.data = (const uint8_t *)"", .len = 9};
    struct gyre_buf *buf = NULL;
    char byte;
    cr_assert_eq(gyre_conn_peek(&view, c, 1), -EAGAIN);
    cr_assert_eq(gyre_conn_peek(&view, c, SIZE_MAX), -EMSGSIZE);
    cr_assert_eq(gyre_conn_peek(&view, c, (1 << 20) + 1), -EMSGSIZE);
    cr_assert_eq(gyre_conn_peek(&view, c, 1 << 20), -EAGAIN);
    cr_assert_eq(view.len, 9, "set though it failed");
    cr_assert_eq(gyre_conn_next(&view, c, 1), -EAGAIN);
    cr_assert_eq(gyre_conn_peek(&view, c, 0), 0);
    cr_assert(view.data == NULL && view.len == 0);
    cr_assert_eq(gyre_conn_next(&view, c, 0), 0);
    cr_assert_eq(gyre_conn_peekv(NULL, 0, c), 0);
    cr_assert_eq(gyre_conn_discard(c, SIZE_MAX), 0);
    cr_assert_eq(gyre_conn_read(&byte, 1, c), 0);
    cr_assert_eq(gyre_conn_read(NULL, 0, c), 0);
    cr_assert_eq(gyre_buf_hold(&buf, &view, c, 0), -EINVAL);
    cr_assert_eq(gyre_buf_hold(&buf, &view, c, 1), -EAGAIN);
    cr_assert_null(buf);
    cr_assert_eq(gyre_conn_find(c, "x", 1, 0), -EAGAIN);
    cr_assert_eq(gyre_conn_find(c, "x", 1, SIZE_MAX), -EAGAIN);
    cr_assert_eq(gyre_conn_find(c, "x", 0, 0), -EINVAL);
    cr_assert_eq(gyre_conn_find(c, "x", 65, 0), -EINVAL);
    cr_assert_eq(gyre_conn_find(c, NULL, 1, 0), -EINVAL);
    cr_assert_eq(gyre_conn_forward(c, c, SIZE_MAX), 0);
    cr_assert_eq(gyre_conn_forward(c, c, 0), 0);
}

Test(nonsense, reading_where_nothing_is)
{
    drain_nothing(near);
    drain_nothing(far);
}

/* Once it is closing, each call says so; and closing or aborting again is nothing. */
Test(nonsense, after_close)
{
    struct gyre_slice view;
    struct gyre_buf *buf;
    struct gyre_conn *c = near;
    cr_assert_eq(gyre_conn_close(c), 0);
    cr_assert_eq(gyre_conn_close(c), 0);
    cr_assert_eq(gyre_conn_write(c, "x", 1), GYRE_ECLOSED);
    cr_assert_eq(gyre_conn_write_ref(c, "x", 1, on_done, NULL), GYRE_ECLOSED);
    cr_assert_eq(gyre_conn_writev(c, &(struct iovec){.iov_base = (void *)(uintptr_t)"x", .iov_len = 1}, 1),
                 GYRE_ECLOSED);
    cr_assert_eq(gyre_conn_peek(&view, c, 0), GYRE_ECLOSED);
    cr_assert_eq(gyre_conn_next(&view, c, 0), GYRE_ECLOSED);
    cr_assert_eq(gyre_buf_hold(&buf, &view, c, 1), GYRE_ECLOSED);
    cr_assert_eq(gyre_conn_forward(c, far, 1), GYRE_ECLOSED);
    cr_assert_eq(gyre_conn_forward(far, c, 1), GYRE_ECLOSED);
    cr_assert_eq(gyre_conn_pause(c), GYRE_ECLOSED);
    cr_assert_eq(gyre_conn_resume(c), GYRE_ECLOSED);
    cr_assert_eq(gyre_conn_wake(c), GYRE_ECLOSED);
    cr_assert_eq(gyre_conn_shutdown(c), GYRE_ECLOSED);
    cr_assert_eq(gyre_conn_set_idle_timeout(c, 1), GYRE_ECLOSED);
    cr_assert_eq(gyre_conn_abort(c), 0);
    cr_assert_eq(gyre_conn_abort(c), 0);
    TURN_UNTIL(closes == 2);
    cr_assert_eq(done_count, 0);
}

/* Addresses of nothing, into nothing: an error, and nothing is written to. */
Test(nonsense, addresses_of_nothing)
{
    struct sockaddr_storage out = {.ss_family = AF_UNSPEC};
    socklen_t len = 77;
    cr_assert_eq(gyre_conn_local_address(&out, &len, NULL), GYRE_ECLOSED);
    cr_assert_eq(gyre_conn_peer_address(&out, &len, NULL), GYRE_ECLOSED);
    cr_assert_eq(gyre_udp_local_address(&out, &len, NULL), GYRE_ECLOSED);
    cr_assert_eq(gyre_udp_peer_address(&out, &len, NULL), GYRE_ECLOSED);
    cr_assert_eq(gyre_conn_local_address(NULL, &len, near), -EINVAL);
    cr_assert_eq(gyre_conn_peer_address(&out, NULL, near), -EINVAL);
    cr_assert(len == 77 && out.ss_family == AF_UNSPEC);
    cr_assert_eq(gyre_conn_peer_address(&out, &len, near), 0);
    cr_assert_eq(out.ss_family, AF_UNIX);
}

/* After a half-close writes are refused, all kinds of them; reading goes on. */
Test(nonsense, after_shutdown)
{
    cr_assert_eq(gyre_conn_shutdown(near), 0);
    cr_assert_eq(gyre_conn_shutdown(near), 0);
    cr_assert_eq(gyre_conn_write(near, "x", 1), -EPIPE);
    cr_assert_eq(gyre_conn_write_ref(near, "x", 1, on_done, NULL), -EPIPE);
    cr_assert_eq(gyre_conn_forward(far, near, 1), -EPIPE);
    TURN_UNTIL(closes == 2);
    cr_assert_eq(close_err, 0);
}

Test(nonsense, times)
{
    struct gyre_timer *timer = NULL;
    cr_assert_eq(gyre_conn_set_idle_timeout(near, -1), GYRE_EOPTION);
    cr_assert_eq(gyre_conn_set_idle_timeout(near, INT64_MIN), GYRE_EOPTION);
    cr_assert_eq(gyre_conn_set_idle_timeout(near, INT64_MAX), 0);
    cr_assert_eq(gyre_conn_set_idle_timeout(near, 0), 0);
    cr_assert_eq(gyre_timer_create(&timer, loop, NULL, NULL), -EINVAL);
    cr_assert_null(timer);
}

static void count_fire(struct gyre_timer *timer, void *user)
{
    (void)timer;
    ++*(unsigned *)user;
}

Test(nonsense, times_of_timers)
{
    struct gyre_timer *timer;
    unsigned fired = 0;
    cr_assert_eq(gyre_timer_create(&timer, loop, count_fire, &fired), 0);
    cr_assert_not(gyre_timer_is_active(timer));
    cr_assert_eq(gyre_timer_start(timer, -1, 0), GYRE_EOPTION);
    cr_assert_eq(gyre_timer_start(timer, 0, -1), GYRE_EOPTION);
    cr_assert_eq(gyre_timer_start(timer, INT64_MIN, INT64_MIN), GYRE_EOPTION);
    cr_assert_not(gyre_timer_is_active(timer));
    gyre_timer_stop(timer);
    cr_assert_eq(gyre_timer_start(timer, INT64_MAX, INT64_MAX), 0);
    cr_assert(gyre_timer_is_active(timer));
    for (int i = 0; i < 20; i++)
        cr_assert_geq(gyre_loop_run_nowait(loop), 0);
    cr_assert_eq(fired, 0);
    cr_assert_eq(gyre_timer_start(timer, 0, INT64_MAX), 0, "after nothing, then never again");
    TURN_UNTIL(fired == 1);
    for (int i = 0; i < 20; i++)
        cr_assert_geq(gyre_loop_run_nowait(loop), 0);
    cr_assert_eq(fired, 1);
    cr_assert(gyre_timer_is_active(timer));
    gyre_timer_destroy(timer);
}

/* Names that never were, or are gone, reach nobody. */
Test(nonsense, stale_names)
{
    struct gyre_conn_id id = gyre_conn_id_of(near), wrong = id;
    wrong.slot = UINT32_MAX;
    cr_assert_null(gyre_conn_from_id(wrong));
    wrong.slot = 63;
    wrong.generation = 0;
    cr_assert_null(gyre_conn_from_id(wrong), "a slot that was never used");
    wrong = id;
    wrong.generation++;
    cr_assert_null(gyre_conn_from_id(wrong));
    cr_assert_eq(gyre_conn_from_id(id), near);
    cr_assert_eq(gyre_conn_abort(near), 0);
    TURN_UNTIL(closes == 2);
    cr_assert_null(gyre_conn_from_id(id));
    cr_assert_eq(gyre_conn_id_write(id, "x", 1, on_done, NULL), 0);
    cr_assert_eq(gyre_conn_id_wake(id), 0);
    cr_assert_eq(gyre_conn_id_close(id), 0);
    TURN_UNTIL(done_count == 1);
    cr_assert_eq(done_err, GYRE_ESTALE);
}
