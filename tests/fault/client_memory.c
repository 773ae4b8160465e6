/* SPDX-License-Identifier: MIT
 * Clients out of memory at the N-th call, for N = 1, 2, … until a whole scenario passes untouched.
 *
 * The scenario, on one loop with an echo of its own: a connection is made, gets its echo, is detached in the middle of
 * a second one, adopted again, and goes on; a reconnector connects, is cut off twice and connects again. A second
 * scenario has an engine that connects for another thread. A refused call must give a documented error or a closed
 * connection, and nothing else: no crash, no leak, no descriptor lost, nobody who waits for ever. Then there is memory
 * again, and the same loop serves all of it. */
#include "backends.h"
#include "fault_mem.h"
#include "server.h"

#include "base/log.h"
#include "base/mem.h"

#include <errno.h>
#include <gyre.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { N_MAX = 400, TURNS_MAX = 20000, ECHO_BYTES = 3000, RECONNECTS = 3 };

static void no_line(enum gyre_log_level level, const char *text, void *user)
{
    (void)user;
    (void)level;
    (void)text;
}

static const struct gyre_log silent = {.line = no_line};

struct state {
    struct gyre_loop *loop;
    struct gyre_sim *sim;
    const char *address;
    unsigned opens, closes, left, legs, reconnects;
    size_t got;
    int orphan;    /* a descriptor that was detached and could not be adopted; -1: none */
    bool over;     /* the traveller has closed, or could not be made */
    bool finished; /* all its bytes came back */
    bool kept;     /* the reconnector has connected often enough */
    int undocumented;
    bool by_name; /* it connects to localhost, which is looked up and has two addresses */
    char name[64];
};

static void note(struct state *st, int err)
{
    if (err != 0 && err != -ENOMEM)
        st->undocumented = err;
}

/* ---- the echo ---- */

static void on_server_data(struct gyre_conn *c)
{
    if (gyre_conn_forward(c, c, SIZE_MAX) < 0)
        (void)gyre_conn_abort(c);
}

static const struct gyre_conn_handlers echoing = {.on_data = on_server_data};

/* ---- a traveller: made, detached, adopted, closed ---- */

static const uint8_t zeroes[ECHO_BYTES];

static void say(struct gyre_conn *c)
{
    struct state *st = gyre_conn_user(c);
    int err = gyre_conn_write(c, zeroes, sizeof zeroes);
    note(st, err);
    if (err != 0)
        (void)gyre_conn_close(c);
}

static void on_open(struct gyre_conn *c)
{
    struct state *st = gyre_conn_user(c);
    st->opens++;
    if (st->legs == 0)
        say(c);
}

static void on_close(struct gyre_conn *c, int err)
{
    struct state *st = gyre_conn_user(c);
    (void)err;
    st->closes++;
    st->over = true;
}

static void on_data(struct gyre_conn *c);

static const struct gyre_conn_handlers travelling = {.on_open = on_open, .on_data = on_data, .on_close = on_close};

static void on_detached(struct gyre_conn *c, int fd, void *user)
{
    struct state *st = user;
    const struct gyre_conn_options options = {.user = st};
    struct gyre_conn *next;
    st->got += gyre_conn_discard(c, SIZE_MAX);
    st->legs++;
    st->left++;
    int err = gyre_conn_adopt_fd(&next, st->loop, fd, &travelling, &options);
    note(st, err);
    if (err == 0)
        return;
    st->orphan = fd; /* still ours */
    st->over = true;
}

static void on_data(struct gyre_conn *c)
{
    struct state *st = gyre_conn_user(c);
    st->got += gyre_conn_discard(c, SIZE_MAX);
    if (st->legs == 0 && st->got == ECHO_BYTES) {
        say(c);
        int err = gyre_conn_detach(c, on_detached, st);
        note(st, err == GYRE_ECLOSED ? 0 : err); /* there was no memory to say it, and it was closed */
        if (err != 0)
            (void)gyre_conn_close(c);
    } else if (st->got == 2 * (size_t)ECHO_BYTES) {
        st->finished = true;
        (void)gyre_conn_close(c);
    }
}

/* ---- a connection that is kept ---- */

static void on_kept_open(struct gyre_conn *c)
{
    struct state *st = gyre_conn_user(c);
    st->kept = ++st->reconnects >= RECONNECTS;
    if (!st->kept)
        (void)gyre_conn_abort(c);
}

static const struct gyre_conn_handlers keeping = {.on_open = on_kept_open, .on_data = on_server_data};

/* ---- running it ---- */

static void turn(struct state *st)
{
    if (st->sim != NULL) {
        gyre_sim_advance(st->sim, 1000000);
        note(st, gyre_loop_run_nowait(st->loop) >= 0 ? 0 : -EIO);
        return;
    }
    int more = gyre_loop_run_nowait(st->loop);
    struct pollfd pfd = {.fd = gyre_loop_fd(st->loop), .events = POLLIN};
    if (more == 0)
        (void)poll(&pfd, 1, 1);
}

/* With memory again it can be adopted. */
static void rescue(struct state *st, const char *where)
{
    const struct gyre_conn_options options = {.user = st};
    struct gyre_conn *c;
    if (st->orphan < 0)
        return;
    cr_assert_eq(gyre_conn_adopt_fd(&c, st->loop, st->orphan, &travelling, &options), 0, "%s", where);
    cr_assert_eq(gyre_conn_abort(c), 0);
    st->orphan = -1;
    for (unsigned closes = st->closes, i = 0; st->closes == closes; i++) {
        cr_assert_lt(i, TURNS_MAX, "%s", where);
        turn(st);
    }
}

static void travel(struct state *st, const char *where)
{
    const struct gyre_conn_options options = {.user = st};
    st->over = st->finished = false;
    st->legs = 0;
    st->got = 0;
    int err = gyre_connect(NULL, st->loop, st->address, &travelling, &options);
    note(st, err);
    st->over = err != 0;
    for (unsigned i = 0; !st->over; i++) {
        cr_assert_lt(i, TURNS_MAX, "%s: the traveller waits for ever, leg %u, %zu bytes", where, st->legs, st->got);
        turn(st);
    }
}

/* Attempts that find no memory are failures like any other: it goes on until it has connected. Its memory is the
 * user's matter: without it there is none. */
static bool keep_connected(struct state *st, struct fault_mem *mem, const char *where)
{
    const struct gyre_reconnector_options options = {
        .delay_min_ns = 1000000, .delay_max_ns = 2000000, .conn = {.user = st}};
    struct gyre_reconnector *r;
    st->reconnects = 0;
    st->kept = false;
    int err = gyre_reconnector_create(&r, st->loop, st->address, &keeping, &options);
    note(st, err);
    if (err != 0)
        return false;
    note(st, gyre_reconnector_start(r));
    for (unsigned i = 0; !st->kept; i++) {
        if (i == 30 && fault_mem_struck(mem)) { /* for good: it must have gone on trying */
            mem->fail_at = 0;
            cr_assert(st->reconnects > 0 || gyre_reconnector_failures(r) > 0 || gyre_reconnector_conn(r) != NULL,
                      "%s: it has given up", where);
        }
        cr_assert_lt(i, TURNS_MAX, "%s: the reconnector has given up, %u connections", where, st->reconnects);
        turn(st);
    }
    struct gyre_conn *c = gyre_reconnector_conn(r);
    gyre_reconnector_destroy(r);
    (void)gyre_conn_abort(c);
    if (fault_mem_struck(mem))
        mem->fail_at = 0; /* without memory for good the echo may never see the end */
    rescue(st, where);
    for (unsigned i = 0; gyre_loop_conn_count(st->loop) > 0; i++) {
        cr_assert_lt(i, TURNS_MAX, "%s: %u connections stay", where, gyre_loop_conn_count(st->loop));
        turn(st);
    }
    return true;
}

/* With memory again, everything works. */
static void run_on_loop(struct state *st, struct fault_mem *mem, const char *where)
{
    struct gyre_listener *l;
    int err = gyre_loop_listen(&l, st->loop, "tcp://127.0.0.1:0", &echoing, NULL);
    note(st, err);
    if (err != 0)
        return;
    st->address = gyre_listener_address(l);
    (void)snprintf(st->name, sizeof st->name, "tcp://localhost:%s", strrchr(st->address, ':') + 1);
    if (st->by_name)
        st->address = st->name;
    travel(st, where);
    (void)keep_connected(st, mem, where);
    bool struck = fault_mem_struck(mem);
    fault_mem_arm(mem, 0);
    rescue(st, where);
    travel(st, where);
    cr_assert(st->finished && st->legs == 1, "%s: there is memory, and only %zu bytes came back", where, st->got);
    cr_assert(keep_connected(st, mem, where), "%s", where);
    if (struck)
        mem->refused = 1;
}

static bool run_with(const struct backend_param *p, long n, enum fault_mode mode, bool by_name)
{
    static struct fault_mem mem;
    struct state st = {.orphan = -1, .by_name = by_name};
    char where[96];
    const struct gyre_sim_options sim_options = {.seed = 7, .profile = GYRE_SIM_QUIET};
    int fds = open_descriptors();
    (void)snprintf(where, sizeof where, "%s: call %ld refused %s", p->backend, n,
                   mode == FAULT_ONCE ? "once" : "for good");
    fault_mem_init(&mem, n, mode);
    if (!backends_is_real(p->backend))
        cr_assert_eq(gyre_sim_create(&st.sim, &sim_options), 0);
    const struct gyre_loop_options options = {.backend = st.sim != NULL ? NULL : p->backend,
                                              .sim = st.sim,
                                              .mem = &mem.mem,
                                              .log = &silent,
                                              .buf_count_max = 32};
    int err = gyre_loop_create(&st.loop, &options);
    if (err == 0) {
        run_on_loop(&st, &mem, where);
        gyre_loop_destroy(st.loop);
        cr_assert_geq(st.closes + st.left, st.opens, "%s", where);
    } else {
        cr_assert(fault_mem_struck(&mem) && err == -ENOMEM, "%s: %s", where, gyre_err_name(err));
    }
    gyre_sim_destroy(st.sim);
    cr_assert_eq(st.undocumented, 0, "%s: %s", where, gyre_err_name(st.undocumented));
    cr_assert_eq(atomic_load(&mem.counted.blocks), 0, "%s: %ld blocks left", where, atomic_load(&mem.counted.blocks));
    cr_assert_eq(open_descriptors(), fds, "%s: descriptors left", where);
    return fault_mem_struck(&mem);
}

static bool run_scenario(const struct backend_param *p, long n, enum fault_mode mode)
{
    return run_with(p, n, mode, false);
}

static bool run_by_name(const struct backend_param *p, long n, enum fault_mode mode)
{
    return run_with(p, n, mode, true);
}

static void run_all(const struct backend_param *p, enum fault_mode mode,
                    bool (*scenario)(const struct backend_param *, long, enum fault_mode))
{
    struct gyre_sim *sim;
    const struct gyre__backend_config config = {.mem = &gyre__mem_system, .log = &gyre__log_system};
    struct gyre__backend *be = backends_open(p->backend, config, &sim);
    be->ops->destroy(be); /* it opens here, or the test was skipped */
    backends_sim_free(sim);
    cr_assert_not(scenario(p, 0, mode));
    long n = 1;
    while (scenario(p, n, mode)) {
        n++;
        cr_assert_lt(n, N_MAX);
    }
    cr_assert_gt(n, 10, "the scenario asks for memory no more than %ld times", n);
}

BACKEND_TEST(client_memory, refused_once)
{
    run_all(p, FAULT_ONCE, run_scenario);
}

BACKEND_TEST(client_memory, refused_for_good)
{
    run_all(p, FAULT_FOREVER, run_scenario);
}

/* The same with a name: what the lookup, the attempts and the cache need may be refused, too. */
BACKEND_TEST(client_memory, name_refused_once)
{
    run_all(p, FAULT_ONCE, run_by_name);
}

BACKEND_TEST(client_memory, name_refused_for_good)
{
    run_all(p, FAULT_FOREVER, run_by_name);
}

/* ---- an engine that connects for others ---- */

struct call {
    struct gyre_engine *engine;
    struct fault_mem *mem;
    char address[128];
    unsigned asked, done, failed, opens, closes;
    int undocumented;
    bool struck, again;
};

static void ask(struct call *k);

static void end_of_call(struct call *k)
{
    if (!k->again) { /* and once more, with memory */
        k->struck = fault_mem_struck(k->mem);
        fault_mem_arm(k->mem, 0);
        k->again = true;
        ask(k);
        return;
    }
    gyre_engine_stop(k->engine);
}

static void on_call_open(struct gyre_conn *c)
{
    struct call *k = gyre_conn_user(c);
    k->opens++;
    (void)gyre_conn_close(c);
}

static void on_call_close(struct gyre_conn *c, int err)
{
    struct call *k = gyre_conn_user(c);
    (void)err;
    k->closes++;
    end_of_call(k);
}

static const struct gyre_conn_handlers calling = {
    .on_open = on_call_open, .on_data = on_server_data, .on_close = on_call_close};

static void on_called(struct gyre_loop *loop, struct gyre_conn *c, int err, void *user)
{
    struct call *k = user;
    (void)loop;
    k->done++;
    if (c != NULL)
        return;
    k->failed++;
    if (err != -ENOMEM)
        k->undocumented = err;
    end_of_call(k);
}

static void ask(struct call *k)
{
    const struct gyre_conn_options options = {.user = k};
    int err = gyre_engine_connect(k->engine, k->address, &calling, on_called, k, &options);
    k->asked += err == 0;
    if (err != 0 && err != -ENOMEM)
        k->undocumented = err;
    if (err != 0)
        end_of_call(k);
}

static void on_call_boot(struct gyre_engine *engine)
{
    ask(gyre_engine_user(engine));
}

static bool run_call(const struct backend_param *p, long n, enum fault_mode mode)
{
    static const struct gyre_engine_handlers told = {.on_boot = on_call_boot};
    static struct fault_mem mem;
    struct call k = {.mem = &mem};
    struct gyre_listener *l;
    const struct gyre_listener_options listening = {.backlog = 16};
    int fds = open_descriptors();
    fault_mem_init(&mem, n, mode);
    const struct gyre_loop_options loop = {.backend = p->backend, .mem = &mem.mem, .log = &silent};
    const struct gyre_engine_options options = {.handlers = &told, .loop = loop, .user = &k};
    int err = gyre_engine_create(&k.engine, &options);
    if (err == 0) {
        err = gyre_engine_listen(&l, k.engine, "tcp://127.0.0.1:0", &echoing, &listening);
        if (err == 0) {
            (void)snprintf(k.address, sizeof k.address, "%s", gyre_listener_address(l));
            err = gyre_engine_run(k.engine);
            cr_assert_eq(k.done, k.asked, "call %ld: asked %u times, told %u times", n, k.asked, k.done);
            cr_assert_eq(k.opens, k.closes);
            cr_assert(err != 0 || k.opens >= 1, "call %ld: there is memory, and no connection", n);
        }
        gyre_engine_destroy(k.engine);
    }
    cr_assert(err == 0 || (err == -ENOMEM && (k.struck || fault_mem_struck(&mem))), "%s", gyre_err_name(err));
    cr_assert_eq(k.undocumented, 0, "call %ld: %s", n, gyre_err_name(k.undocumented));
    cr_assert_eq(atomic_load(&mem.counted.blocks), 0, "call %ld: %ld blocks left", n,
                 atomic_load(&mem.counted.blocks));
    cr_assert_eq(open_descriptors(), fds, "call %ld: descriptors left", n);
    return k.struck || fault_mem_struck(&mem);
}

REAL_TEST(client_memory, connecting_for_others)
{
    run_all(p, FAULT_ONCE, run_call);
    run_all(p, FAULT_FOREVER, run_call);
}
