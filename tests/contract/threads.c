/* SPDX-License-Identifier: MIT
 * Promise 10, the change of hands: the thread that creates a backend may use it until the first wait(), and the thread
 * that waits need not be the same. Criterion's checks belong on the test's own thread; one that fails on the helper
 * crashes the test, which fails it as well. */
#include "stream.h"

#include <errno.h>
#include <pthread.h>

struct start {
    const struct backend_param *p;
    struct seam *s;
};

static void *create_only(void *arg)
{
    const struct start *start = arg;
    seam_open(start->s, start->p);
    return NULL;
}

/* Where the backend does not open, this thread skips or fails the test. */
static void probe(const struct backend_param *p)
{
    struct seam s;
    seam_open(&s, p);
    seam_close(&s);
}

static void on_helper(void *(*work)(void *), void *arg)
{
    pthread_t thread;
    cr_assert_eq(pthread_create(&thread, NULL, work, arg), 0);
    cr_assert_eq(pthread_join(thread, NULL), 0);
}

/* Created on one thread, used on another from the first call on. */
BACKEND_TEST(threads, created_on_one_used_on_another)
{
    struct seam s;
    struct stream a, b;
    probe(p);
    on_helper(create_only, &(struct start){.p = p, .s = &s});
    seam_pool(&s, 1024, 4, 4);
    stream_pair(&s, &a, &b, 1);
    stream_receive(&b, GYRE_OPF_POOL | GYRE_OPF_MULTI);
    stream_send(&a, 3000);
    seam_until(&s, b.got > 0);
    stream_close(&a);
    stream_close(&b);
    seam_close(&s);
}

struct prepared {
    struct seam *s;
    const struct backend_param *p;
    struct listener l;
    struct gyre__fd idle, caller;
    struct seam_op *recv, *connect;
    char buf[64];
};

/* Everything that may be done before the first wait(). */
static void *prepare(void *arg)
{
    struct prepared *w = arg;
    struct seam *s = w->s;
    seam_open(s, w->p);
    seam_pool(s, 1024, 4, 4);
    listener_open(s, &w->l, 8);
    seam_accept(w->l.accept, &w->l.f, GYRE_OPF_MULTI);
    seam_submit(s, w->l.accept);
    w->connect = seam_op_new(s);
    seam_attach(s, &w->caller, seam_socket(s), seam_fd_flags(s, false));
    seam_connect(w->connect, &w->caller, &w->l.addr);
    seam_submit(s, w->connect);
    w->recv = seam_op_new(s);
    seam_attach(s, &w->idle, seam_socket(s), seam_fd_flags(s, false));
    seam_recv(w->recv, &w->idle, w->buf, sizeof w->buf);
    seam_submit(s, w->recv);
    seam_cancel(s, w->recv);
    s->ops->wake(s->be);
    return NULL;
}

/* A pool, descriptors, ops, a cancel and a wake from the thread that creates; the events come on the one that waits. */
TRANSPORT_TEST(threads, prepared_on_one_run_on_another)
{
    struct seam s;
    static struct prepared w;
    struct stream a, b;
    probe(p);
    w = (struct prepared){.s = &s, .p = p};
    on_helper(prepare, &w);
    seam_until(&s, seam_idle(w.connect) && seam_idle(w.recv) && w.l.accept->events == 1);
    cr_assert_eq(w.connect->res, 0);
    cr_assert_lt(w.recv->res, 0);
    stream_adopt(&s, &b, w.l.accept->res, true, 2, 1);
    seam_fd_close(&s, &w.idle);
    seam_fd_close(&s, &w.caller);
    stream_receive(&b, GYRE_OPF_POOL | GYRE_OPF_MULTI);
    seam_until(&s, b.eof);
    stream_close(&b);
    listener_close(&s, &w.l);
    stream_pair(&s, &a, &b, 1);
    stream_close(&a);
    stream_close(&b);
    seam_close(&s);
}

/* Created and never waited for, destroyed, with sockets attached and closed between. */
BACKEND_TEST(threads, never_waited_for)
{
    for (int round = 0; round < 20; round++) {
        struct seam s;
        struct gyre__fd f;
        seam_open(&s, p);
        seam_attach(&s, &f, seam_socket(&s), seam_fd_flags(&s, false));
        s.ops->wake(s.be);
        seam_fd_close(&s, &f);
        s.ops->destroy(s.be);
        backends_sim_free(s.sim);
        env_dir_remove(s.dir);
        cr_assert_eq(atomic_load(&s.mem.blocks), 0);
        cr_assert_eq(env_fd_count(), s.fds_before);
    }
}

/* Two backends in one process do not know of each other. */
BACKEND_TEST(threads, two_backends_at_once)
{
    struct seam s[2];
    struct stream a[2], b[2];
    for (int i = 0; i < 2; i++) {
        seam_open(&s[i], p);
        seam_pool(&s[i], 700, 4, 4);
        stream_pair(&s[i], &a[i], &b[i], (unsigned)(10 * i));
        stream_receive(&b[i], GYRE_OPF_POOL | GYRE_OPF_MULTI);
        stream_send(&a[i], 200000);
    }
    uint64_t end_ns = env_now_ns() + 20 * (uint64_t)SEAM_MS(1000);
    while (b[0].got < 200000 || b[1].got < 200000)
        for (int i = 0; i < 2; i++) {
            cr_assert_lt(env_now_ns(), end_ns);
            seam_look(&s[i]);
        }
    for (int i = 1; i >= 0; i--) {
        stream_close(&a[i]);
        stream_close(&b[i]);
        seam_close(&s[i]);
    }
}
