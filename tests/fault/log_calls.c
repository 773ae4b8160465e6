/* SPDX-License-Identifier: MIT
 * A log function that calls the library, from within the very call whose failure it is told of.
 *
 * A loop of an engine that runs pauses a listener which it has not seen yet, and there is no memory for taking it on:
 * the line about that is written from within gyre_listener_pause(). Whatever is asked of listeners and the engine then
 * must not wait for that call to be over. */
#include "backends.h"
#include "server.h"

#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { LOOPS = 2, CLIENTS = 16, ROUNDS = 200, PATIENCE_S = 20 };

struct scene {
    struct env_mem counted;
    struct gyre_mem mem;
    struct gyre_engine *engine;
    struct gyre_listener *listener, *other;
    pthread_t thread;
    sem_t in_handler, listens;
    atomic_uint lines, done, boots;
    int run_err, err, line_err;
};

static struct scene s;
static _Thread_local bool refusing;

static void *resize(void *ptr, size_t size_bytes, void *user)
{
    (void)user;
    return refusing && size_bytes > 0 ? NULL : s.counted.mem.resize(ptr, size_bytes, s.counted.mem.user);
}

static void note(int err)
{
    s.line_err = s.line_err == 0 ? err : s.line_err;
}

static void on_data(struct gyre_conn *c)
{
    (void)gyre_conn_forward(c, c, SIZE_MAX);
}

static int listen_on(struct gyre_listener **out)
{
    static const struct gyre_conn_handlers echo = {.on_data = on_data};
    return gyre_engine_listen(out, s.engine, "tcp://127.0.0.1:0", &echo, NULL);
}

static void on_line(enum gyre_log_level level, const char *text, void *user)
{
    (void)user;
    if (level < GYRE_LOG_WARN || strstr(text, "cannot accept") == NULL)
        return;
    bool was_refusing = refusing;
    refusing = false;
    note(gyre_listener_pause(s.listener));
    note(gyre_listener_resume(s.listener));
    note(listen_on(&s.other));
    gyre_listener_close(s.other);
    int fd = gyre_listener_dup_fd(s.listener, 0);
    note(fd >= 0 ? close(fd) : fd);
    refusing = was_refusing;
    atomic_fetch_add(&s.lines, 1);
}

static void on_boot(struct gyre_engine *engine)
{
    (void)engine;
    atomic_fetch_add(&s.boots, 1);
}

/* On the second loop: in here it sees nothing of a listener that is opened meanwhile, but for this call. */
static void pause_unseen(struct gyre_loop *loop, void *user)
{
    (void)loop;
    (void)user;
    (void)sem_post(&s.in_handler);
    (void)sem_wait(&s.listens);
    refusing = true;
    s.err = gyre_listener_pause(s.listener);
    if (s.err == 0)
        s.err = gyre_listener_resume(s.listener);
    refusing = false;
    atomic_store(&s.done, 1);
}

static void *run(void *user)
{
    s.run_err = gyre_engine_run(s.engine);
    return user;
}

static void start(const struct backend_param *p)
{
    static const struct gyre_engine_handlers handlers = {.on_boot = on_boot};
    static const struct gyre_log log = {.line = on_line, .level_min = GYRE_LOG_WARN};
    struct gyre_sim *sim;
    env_mem_init(&s.counted);
    s.mem = (struct gyre_mem){.resize = resize};
    struct gyre_loop_options each = {.backend = p->backend, .mem = &s.mem, .log = &log};
    const struct gyre_engine_options options = {.loops = LOOPS, .handlers = &handlers, .loop = each};
    int err = gyre_engine_create(&s.engine, &options);
    if (err != 0)
        (void)backends_open(p->backend, (struct gyre__backend_config){.mem = &s.mem}, &sim); /* skips, or fails */
    cr_assert_eq(err, 0, "%s", gyre_err_name(err));
    cr_assert_eq(sem_init(&s.in_handler, 0, 0), 0);
    cr_assert_eq(sem_init(&s.listens, 0, 0), 0);
    cr_assert_eq(pthread_create(&s.thread, NULL, run, NULL), 0);
}

static void await_flag(const atomic_uint *flag, const char *what)
{
    for (uint64_t end_ns = env_now_ns() + UINT64_C(1000000000) * PATIENCE_S; atomic_load(flag) == 0;) {
        cr_assert(env_now_ns() < end_ns, "in vain: %s", what);
        (void)poll(NULL, 0, 1);
    }
}

REAL_TEST(log_calls, within_pause)
{
    start(p);
    await_flag(&s.boots, "the engine runs");
    for (unsigned i = 0; i < ROUNDS && atomic_load(&s.lines) == 0; i++) { /* now and then one more needs memory */
        atomic_store(&s.done, 0);
        cr_assert_eq(gyre_loop_post(gyre_engine_loop(s.engine, 1), pause_unseen, NULL), 0);
        (void)sem_wait(&s.in_handler);
        cr_assert_eq(listen_on(&s.listener), 0);
        (void)sem_post(&s.listens);
        await_flag(&s.done, "gyre_listener_pause() returns, though the log function calls the library");
    }
    cr_assert_eq(atomic_load(&s.lines), 1, "%u lines: nothing was put to the test", atomic_load(&s.lines));
    cr_assert_eq(s.line_err, 0, "%s", gyre_err_name(s.line_err));
    cr_assert_eq(s.err, 0, "%s", gyre_err_name(s.err));
    for (unsigned i = 0; i < CLIENTS; i++) { /* both loops serve, the second once it has tried again */
        int fd = client_connect(gyre_listener_address(s.listener));
        cr_assert_geq(fd, 0);
        const char *wrong = client_echo(fd, 10000, 1000, i);
        cr_assert_null(wrong, "%s", wrong);
        (void)close(fd);
    }
    gyre_engine_stop(s.engine);
    cr_assert_eq(pthread_join(s.thread, NULL), 0);
    cr_assert_eq(s.run_err, 0, "%s", gyre_err_name(s.run_err));
    gyre_engine_destroy(s.engine);
    cr_assert_eq(atomic_load(&s.counted.blocks), 0);
}
