/* SPDX-License-Identifier: MIT
 * Out of descriptors at every step: making loops, listening, connecting, accepting. Each gives -EMFILE, or a connection
 * that waits or is refused; nothing stays open, and when there are descriptors again the same engine serves.
 *
 * Limits are set in forked children; they count what is open there already. */
#include "backends.h"
#include "sandbox.h"
#include "server.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { N_MAX = 64, TURNS = 200, CHILD_SECONDS = 60 };

static void on_data(struct gyre_conn *c)
{
    (void)gyre_conn_forward(c, c, SIZE_MAX);
}

static const struct gyre_conn_handlers handlers = {.on_data = on_data};

static void no_line(enum gyre_log_level level, const char *text, void *user)
{
    (void)user;
    (void)level;
    (void)text;
}

static const struct gyre_log silent = {.line = no_line};

/* What a child has to tell. */
struct told {
    char wrong[200];
    bool all; /* every step succeeded */
};

#define EXPECT(told, cond, ...)                                                                                        \
    do {                                                                                                               \
        if (!(cond) && (told)->wrong[0] == '\0')                                                                       \
            (void)snprintf((told)->wrong, sizeof(told)->wrong, __VA_ARGS__);                                           \
    } while (0)

typedef void child_fn(struct told *told, const char *backend);

static void in_child(struct told *out, child_fn *fn, const char *backend, unsigned long nofile)
{
    struct told *shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int status = -1;
    cr_assert_neq(shared, MAP_FAILED);
    pid_t child = fork();
    cr_assert_geq(child, 0);
    if (child == 0) {
        (void)alarm(CHILD_SECONDS);
        if (confine(&(struct confinement){.nofile = nofile}))
            fn(shared, backend);
        else
            EXPECT(shared, false, "not confined");
        _exit(0);
    }
    cr_assert_eq(waitpid(child, &status, 0), child);
    *out = *shared;
    EXPECT(out, WIFEXITED(status) && WEXITSTATUS(status) == 0, "the child ended with status %#x", (unsigned)status);
    (void)munmap(shared, sizeof *shared);
}

static bool is_clean(int err)
{
    return err == 0 || err == -EMFILE;
}

/* ---- every step on one loop ---- */

static int try_step(struct told *told, struct gyre_loop *loop, unsigned step)
{
    static const char *const names[] = {"listening on TCP", "listening on unix", "connecting", "connecting again"};
    char name[64]; /* the process's own: tests run side by side */
    (void)snprintf(name, sizeof name, "unix://@gyre-descriptors-%d", (int)getpid());
    int before = open_descriptors();
    int err = step == 0   ? gyre_loop_listen(NULL, loop, "tcp://127.0.0.1:0", &handlers, NULL)
              : step == 1 ? gyre_loop_listen(NULL, loop, name, &handlers, NULL)
                          : gyre_connect(NULL, loop, name, &handlers, NULL);
    EXPECT(told, is_clean(err), "%s: %s", names[step], gyre_err_name(err));
    EXPECT(told, err == 0 || open_descriptors() == before, "%s failed and left a descriptor", names[step]);
    return err;
}

static void all_steps(struct told *told, const char *backend)
{
    struct env_mem mem;
    struct gyre_loop *loop;
    bool all = true;
    env_mem_init(&mem);
    const struct gyre_loop_options options = {.backend = backend, .mem = &mem.mem, .log = &silent};
    int fds = open_descriptors();
    int err = gyre_loop_create(&loop, &options);
    EXPECT(told, is_clean(err), "creating: %s", gyre_err_name(err));
    if (err == 0) {
        for (unsigned step = 0; step < 4; step++)
            all = try_step(told, loop, step) == 0 && all;
        for (int i = 0; i < TURNS; i++)
            EXPECT(told, gyre_loop_run_nowait(loop) >= 0, "the loop ended");
        gyre_loop_destroy(loop);
    }
    EXPECT(told, open_descriptors() == fds, "%d descriptors left", open_descriptors() - fds);
    EXPECT(told, atomic_load(&mem.blocks) == 0, "%ld blocks left", atomic_load(&mem.blocks));
    told->all = err == 0 && all;
}

static void need(const char *backend)
{
    struct verdict v;
    sandbox_try(&v, &(struct confinement){.env = NULL}, backend, 1);
    if (!v.serves)
        cr_skip_test("%s: %s", backend, gyre_err_name(v.err));
}

REAL_TEST(descriptors, every_step)
{
    struct told told = {.all = false};
    need(p->backend);
    for (unsigned long n = 3; !told.all; n++) {
        cr_assert_lt(n, N_MAX);
        in_child(&told, all_steps, p->backend, n);
        cr_assert_str_empty(told.wrong, "with %lu descriptors: %s", n, told.wrong);
    }
}

/* ---- an engine's listener, which has a socket per loop ---- */

static void listen_on_four(struct told *told, const char *backend)
{
    const struct gyre_loop_options loop = {.backend = backend, .log = &silent};
    const struct gyre_engine_options options = {.loops = 4, .loop = loop};
    struct gyre_engine *engine;
    struct gyre_listener *listener = NULL;
    int start = open_descriptors();
    if (gyre_engine_create(&engine, &options) != 0)
        return;
    int before = open_descriptors();
    int err = gyre_engine_listen(&listener, engine, "tcp://127.0.0.1:0", &handlers, NULL);
    EXPECT(told, is_clean(err), "listening: %s", gyre_err_name(err));
    EXPECT(told, err == 0 || open_descriptors() == before, "on error nothing stays open, and %d sockets do",
           open_descriptors() - before);
    EXPECT(told, (listener != NULL) == (err == 0), "the listener is set only on success");
    told->all = err == 0;
    gyre_engine_destroy(engine);
    EXPECT(told, open_descriptors() == start, "%d descriptors left", open_descriptors() - start);
}

REAL_TEST(descriptors, some_of_the_sockets_of_a_listener)
{
    struct told told = {.all = false};
    need(p->backend);
    for (unsigned long n = 3; !told.all; n++) {
        cr_assert_lt(n, N_MAX);
        in_child(&told, listen_on_four, p->backend, n);
        cr_assert_str_empty(told.wrong, "with %lu descriptors: %s", n, told.wrong);
    }
}

/* ---- accepting ---- */

/* So many descriptors that the engine stands and not all clients can be accepted. The clients' own count too. */
static void too_many_clients(struct told *told, const char *backend)
{
    enum { CLIENTS = 30 };
    const struct gyre_loop_options options = {.backend = backend};
    struct server s;
    int fds[CLIENTS], count = 0;
    if (server_start(&s, &options, 1) != 0)
        return;
    int first = client_connect(gyre_listener_address(s.tcp));
    EXPECT(told, first >= 0 && client_echo(first, 1000, 1000, 0) == NULL, "the first is not served");
    for (; count < CLIENTS; count++) {
        fds[count] = client_connect(gyre_listener_address(s.tcp));
        if (fds[count] < 0)
            break;
    }
    EXPECT(told, count > 0 && count < CLIENTS, "%d clients and no end", count);
    EXPECT(told, client_echo(first, 100000, SIZE_MAX, 1) == NULL, "one that is open suffers from those that wait");
    for (int i = 0; i < count; i++)
        (void)close(fds[i]);
    const char *wrong = server_check(&s);
    EXPECT(told, wrong == NULL, "with descriptors again: %s", wrong);
    (void)close(first);
    wrong = server_stop(&s);
    EXPECT(told, wrong == NULL, "at the end: %s", wrong);
    told->all = true;
}

REAL_TEST(descriptors, too_few_to_accept_all)
{
    struct told told;
    need(p->backend);
    in_child(&told, too_many_clients, p->backend, (unsigned long)open_descriptors() + 21);
    cr_assert_str_empty(told.wrong, "%s", told.wrong);
    cr_assert(told.all, "the engine did not start with 21 descriptors");
}
