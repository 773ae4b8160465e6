/* SPDX-License-Identifier: MIT
 * Watching descriptors of others on the loops of an engine. */
#include "rig.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

static void pair_make(int fds[2])
{
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds), 0);
}

static void pair_close(const int fds[2])
{
    cr_assert_eq(close(fds[0]), 0);
    cr_assert_eq(close(fds[1]), 0);
}

static void put(int fd, size_t len)
{
    static const char bytes[1000];
    cr_assert_eq(write(fd, bytes, len), (ssize_t)len);
}

static uint64_t take(int fd)
{
    char bytes[1000];
    ssize_t n = read(fd, bytes, sizeof bytes);
    cr_assert(n > 0 || errno == EAGAIN);
    return n > 0 ? (uint64_t)n : 0;
}

struct outpost {
    struct gyre_loop *loop;
    struct gyre_watch *w;
    int fds[2];
    atomic_uint bytes, ends;
    atomic_int err;
};

static void on_outpost(struct gyre_watch *w, unsigned events, int err, void *user)
{
    struct outpost *o = user;
    cr_expect(w == o->w && gyre_loop_is_current(o->loop) && (events == GYRE_WATCH_READABLE || err != 0));
    atomic_store(&o->err, err);
    if (err != 0)
        atomic_fetch_add(&o->ends, 1);
    else
        atomic_fetch_add(&o->bytes, (unsigned)take(o->fds[0]));
}

static void open_outpost(struct gyre_loop *loop, void *user)
{
    struct outpost *o = user;
    int err = gyre_watch_open(&o->w, loop, o->fds[0], GYRE_WATCH_READABLE, on_outpost, o);
    atomic_store(&o->err, err);
}

/* Opened by a task on each loop of an engine; told of its end on that loop's thread. Draining does not wait for it. */
REAL_TEST(api_watch, on_an_engine)
{
    enum { LOOPS = 2 };
    for (int drain = 0; drain < 2; drain++) {
        struct rig r;
        static struct outpost posts[LOOPS];
        rig_open(&r, p, LOOPS);
        rig_listen(&r, "tcp://127.0.0.1:0", NULL);
        rig_run(&r);
        for (uint32_t i = 0; i < LOOPS; i++) {
            posts[i] = (struct outpost){.loop = gyre_engine_loop(r.engine, i)};
            pair_make(posts[i].fds);
            cr_assert_eq(gyre_loop_post(posts[i].loop, open_outpost, &posts[i]), 0);
        }
        for (unsigned round = 1; round <= 20; round++)
            for (int i = 0; i < LOOPS; i++) {
                put(posts[i].fds[1], 7);
                while (atomic_load(&posts[i].bytes) < 7 * round)
                    (void)poll(NULL, 0, 1);
                cr_assert_eq(atomic_load(&posts[i].err), 0);
            }
        if (drain)
            (void)gyre_engine_drain(r.engine, &(struct gyre_drain_options){.deadline_ns = MS(60000)});
        else
            gyre_engine_stop(r.engine);
        rig_join(&r);
        for (int i = 0; i < LOOPS; i++) {
            cr_assert_eq(atomic_load(&posts[i].ends), 1);
            cr_assert_eq(atomic_load(&posts[i].err), GYRE_ESHUTDOWN);
            pair_close(posts[i].fds);
        }
        rig_close(&r);
    }
}
