/* SPDX-License-Identifier: MIT
 * A child of fork(): refused its parent's loops, free to make its own, and of no harm to the parent, whose connections
 * go on. The child tells by its status which step was not as it should be. */
#include "fixture.h"

#include <errno.h>
#include <gyre/work.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

struct child {
    struct api *api;
    struct end *e;
    struct gyre_pool *pool;
    struct gyre_engine *engine;
};

static void nothing(struct gyre_loop *loop, void *user)
{
    (void)loop;
    (void)user;
}

static int no_work(struct gyre_work *work, void *user)
{
    (void)work;
    (void)user;
    return 0;
}

static void not_told(struct gyre_loop *loop, int result, void *user)
{
    (void)loop;
    (void)user;
    (void)result;
    _exit(99);
}

static void drop(struct gyre_conn *c)
{
    (void)gyre_conn_discard(c, SIZE_MAX);
}

static const struct gyre_conn_handlers handlers = {.on_data = drop};

static void drop_datagram(struct gyre_udp *u, const struct gyre_datagram *d)
{
    (void)u;
    (void)d;
}

#define STEP(number, cond)                                                                                             \
    do {                                                                                                               \
        if (!(cond))                                                                                                   \
            _exit(number);                                                                                             \
    } while (0)

static void refused(const struct child *ch)
{
    struct gyre_loop *l = ch->api->loop;
    STEP(1, gyre_loop_run(l) == GYRE_EFORK);
    STEP(2, gyre_loop_run_nowait(l) == GYRE_EFORK);
    STEP(3, gyre_loop_post(l, nothing, NULL) == GYRE_EFORK);
    STEP(4, gyre_loop_post_after(l, 0, nothing, NULL) == GYRE_EFORK);
    STEP(5, gyre_connect(NULL, l, ch->api->address, &handlers, NULL) == GYRE_EFORK);
    STEP(6, gyre_loop_listen(NULL, l, "tcp://127.0.0.1:0", &handlers, NULL) == GYRE_ETHREAD);
    STEP(7, gyre_conn_write(ch->e->c, "x", 1) == GYRE_ETHREAD);
    STEP(8, gyre_conn_abort(ch->e->c) == GYRE_ETHREAD);
    STEP(9, gyre_conn_close(ch->e->c) == GYRE_ETHREAD);
    STEP(10, gyre_conn_pause(ch->e->c) == GYRE_ETHREAD);
    STEP(11, gyre_conn_id_write(ch->e->id, "x", 1, NULL, NULL) == GYRE_EFORK);
    STEP(12, gyre_conn_id_abort(ch->e->id) == GYRE_EFORK);
    STEP(13, gyre_pool_submit(NULL, ch->pool, l, no_work, not_told, NULL) == GYRE_EFORK);
    STEP(14, gyre_engine_run(ch->engine) == GYRE_EFORK);
    STEP(15, gyre_engine_post_all(ch->engine, nothing, NULL, NULL) == GYRE_EFORK);
    STEP(16, gyre_engine_broadcast(ch->engine, "x", 1, NULL) == GYRE_EFORK);
    STEP(17, !gyre_loop_is_current(l));
    static const struct gyre_udp_handlers udp_handlers = {.on_datagram = drop_datagram};
    STEP(18, gyre_engine_listen_udp(NULL, ch->engine, "udp://127.0.0.1:0", &udp_handlers, NULL) == GYRE_EFORK);
    gyre_engine_stop(ch->engine);
    gyre_loop_stop(l);
    gyre_pool_destroy(ch->pool);
    gyre_engine_destroy(ch->engine);
    gyre_loop_destroy(l);
}

static void stop(struct gyre_loop *loop, void *user)
{
    (void)user;
    gyre_loop_stop(loop);
}

static void own(const char *backend)
{
    struct gyre_loop *l;
    STEP(20, gyre_loop_create(&l, &(struct gyre_loop_options){.backend = backend}) == 0);
    STEP(21, gyre_loop_post(l, stop, NULL) == 0);
    STEP(22, gyre_loop_run(l) == 0);
    gyre_loop_destroy(l);
}

REAL_TEST(api_fork, child_is_refused)
{
    struct api api;
    struct peer peer;
    struct child ch = {.api = &api};
    const struct script echo = {.data = end_forward_back};
    api_start(&api, p, &echo);
    ch.e = peer_open(&api, &peer);
    peer.key_in = peer.key_out;
    cr_assert_eq(gyre_pool_create(&ch.pool, &(struct gyre_pool_options){.mem = &api.mem.mem}), 0);
    struct gyre_loop_options options = {.backend = p->backend};
    cr_assert_eq(gyre_engine_create(&ch.engine, &(struct gyre_engine_options){.loop = options}), 0);
    peer_send(&peer, 1000);
    peer_expect(&peer, 1000);

    pid_t pid = fork();
    cr_assert_geq(pid, 0);
    if (pid == 0) {
        refused(&ch);
        own(p->backend);
        _exit(0);
    }
    int status = -1;
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_assert(WIFEXITED(status), "the child died of signal %d", WTERMSIG(status));
    cr_assert_eq(WEXITSTATUS(status), 0, "step %d", WEXITSTATUS(status));

    peer_send(&peer, 200000);
    peer_expect(&peer, 201000);
    cr_assert_eq(gyre_loop_run_nowait(api.loop) < 0, 0);
    gyre_engine_destroy(ch.engine);
    gyre_pool_destroy(ch.pool);
    peer_close(&peer);
    api_close(&api);
}

static void calls_of_child(const struct child *ch)
{
    struct gyre_listener *l = ch->api->listener;
    STEP(30, gyre_listener_pause(l) == GYRE_EFORK);
    STEP(31, gyre_listener_resume(l) == GYRE_EFORK);
    int fd = gyre_listener_dup_fd(l, 0);
    STEP(32, fd >= 0 && close(fd) == 0);
    gyre_listener_close(l);
    STEP(33, gyre_listener_pause(l) == GYRE_EFORK);
    gyre_loop_stop(ch->api->loop);
}

/* What the child does with listeners and loops of the parent wakes no loop there, though it has their descriptors. */
REAL_TEST(api_fork, parent_is_not_woken)
{
    struct api api;
    struct peer peer;
    struct child ch = {.api = &api};
    api_start(&api, p, NULL);
    api_watch(&api, MS(5));
    struct pollfd wakes = {.fd = gyre_loop_fd(api.loop), .events = POLLIN};
    while (gyre_loop_run_nowait(api.loop) != 0 || poll(&wakes, 1, 0) != 0)
        api_turn(&api);
    struct gyre_stats before = api_stats(&api);
    pid_t pid = fork();
    cr_assert_geq(pid, 0);
    if (pid == 0) {
        calls_of_child(&ch);
        _exit(0);
    }
    int status = -1;
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "step %d", WEXITSTATUS(status));
    cr_assert_eq(poll(&wakes, 1, 20), 0, "the parent's loop was woken");
    api_watch(&api, MS(5));
    cr_assert_eq(api_stats(&api).wakes, before.wakes);
    (void)peer_open(&api, &peer);
    peer_close(&peer);
    api_close(&api);
}

/* A child that lives on has a copy of each descriptor of the parent, which knows nothing of it. */
static pid_t idle_child(void)
{
    pid_t pid = fork();
    cr_assert_geq(pid, 0);
    if (pid == 0) {
        (void)poll(NULL, 0, API_PATIENCE_MS);
        _exit(0);
    }
    return pid;
}

/* An abort is the peer's to see at once: a reset on TCP, an end or a reset on unix sockets. */
TRANSPORT_TEST(api_fork, abort_is_told_with_a_child_alive)
{
    struct api api;
    struct peer peer;
    if (!backends_is_real(p->backend))
        return;
    for (unsigned unread = 0; unread < 2; unread++) {
        api_start(&api, p, &(struct script){.data = end_ignore});
        struct end *e = peer_open(&api, &peer);
        if (unread)
            peer_send(&peer, 100);
        api_watch(&api, MS(2));
        pid_t pid = idle_child();
        cr_assert_eq(gyre_conn_abort(e->c), 0);
        uint64_t begin_ns = env_now_ns();
        peer_until_end(&peer);
        cr_assert_lt(env_now_ns() - begin_ns, (uint64_t)MS(API_PATIENCE_MS / 2), "told when the child had ended");
        if (is_tcp(&api))
            cr_assert_eq(peer.err, -ECONNRESET, "%d", peer.err);
        cr_assert_eq(kill(pid, SIGKILL), 0);
        cr_assert_eq(waitpid(pid, NULL, 0), pid);
        peer_close(&peer);
        api_close(&api);
    }
}

/* A graceful close after the peer's FIN, and the end that a connection without on_eof comes to by itself. */
TRANSPORT_TEST(api_fork, end_is_told_with_a_child_alive)
{
    static const struct script scripts[] = {{.eof = end_ignore}, {.eof = NULL}};
    struct api api;
    struct peer peer;
    if (!backends_is_real(p->backend))
        return;
    for (unsigned by_itself = 0; by_itself < 2; by_itself++) {
        api_start(&api, p, &scripts[by_itself]);
        struct end *e = peer_open(&api, &peer);
        api_watch(&api, MS(2));
        pid_t pid = idle_child();
        uint64_t begin_ns = env_now_ns();
        peer_shutdown(&peer);
        if (!by_itself) {
            api_until(&api, e->eofs == 1);
            cr_assert_eq(gyre_conn_close(e->c), 0);
        }
        api_until(&api, e->closes == 1);
        peer_until_end(&peer);
        cr_assert_lt(env_now_ns() - begin_ns, (uint64_t)MS(API_PATIENCE_MS / 2), "told when the child had ended");
        cr_assert(peer.eof && peer.err == 0, "%d", peer.err);
        cr_assert_eq(kill(pid, SIGKILL), 0);
        cr_assert_eq(waitpid(pid, NULL, 0), pid);
        peer_close(&peer);
        api_close(&api);
    }
}

/* ---- A fork while another thread makes a loop, at each of its calls for memory: some come from the trial exchange
 * that the first loop of a process makes on io_uring, with a lock held. ---- */

struct maker {
    const char *backend;
    sem_t asked, answered;
    _Atomic(bool) done;
    int err;
};

static void *ask_first(void *ptr, size_t size_bytes, void *user)
{
    struct maker *m = user;
    if (ptr == NULL && size_bytes > 0) {
        (void)sem_post(&m->asked);
        while (sem_wait(&m->answered) != 0)
            ;
    }
    if (size_bytes > 0)
        return realloc(ptr, size_bytes);
    free(ptr);
    return NULL;
}

static void *make(void *arg)
{
    struct maker *m = arg;
    struct gyre_loop *l;
    const struct gyre_mem mem = {.resize = ask_first, .user = m};
    m->err = gyre_loop_create(&l, &(struct gyre_loop_options){.backend = m->backend, .mem = &mem});
    if (m->err == 0)
        gyre_loop_destroy(l);
    atomic_store(&m->done, true);
    (void)sem_post(&m->asked);
    return NULL;
}

static void fork_now(const char *backend, unsigned call)
{
    pid_t pid = fork();
    cr_assert_geq(pid, 0);
    if (pid == 0) {
        (void)alarm(API_PATIENCE_MS / 1000);
        own(backend);
        _exit(0);
    }
    int status = -1;
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_assert(WIFEXITED(status), "at call %u the child died of signal %d", call, WTERMSIG(status));
    cr_assert_eq(WEXITSTATUS(status), 0, "at call %u: step %d", call, WEXITSTATUS(status));
}

REAL_TEST(api_fork, while_a_loop_is_being_made)
{
    struct maker m = {.backend = p->backend};
    unsigned calls = 0;
    pthread_t thread;
    backends_leave_out(p);
    cr_assert_eq(sem_init(&m.asked, 0, 0) | sem_init(&m.answered, 0, 0), 0);
    cr_assert_eq(pthread_create(&thread, NULL, make, &m), 0);
    for (;;) {
        while (sem_wait(&m.asked) != 0)
            ;
        if (atomic_load(&m.done))
            break;
        if (calls++ < 16)
            fork_now(p->backend, calls);
        (void)sem_post(&m.answered);
    }
    cr_assert_eq(pthread_join(thread, NULL), 0);
    cr_assert_eq(m.err, 0);
    cr_assert_gt(calls, 3);
}
