/* SPDX-License-Identifier: MIT
 * Random conversations on the simulated network, 2000 seeds: clients and servers of the library, with or without a
 * relay between them, that send, pause, half-close, close and abort as the seed says, on a network where everything
 * goes wrong now and then. After each: whatever came is what was sent; where both ends ended well all of it came;
 * every callback kept the rules (the fixture sees to that); nothing is left.
 *
 * A failing seed is printed; GYRE_SIM_SEED=n in the environment runs that one alone. */
#include "fixture.h"

#include <criterion/parameterized.h>
#include <errno.h>
#include <gyre/stats.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { SEEDS_PER_PART = 250, PARTS = 8, BYTES_MAX = 40000, MINUTE_MS = 60000 };

/* How an end means to end. */
enum manner {
    FINISH, /* send everything, shut down, read to the end, then close */
    CLOSE,  /* send everything, close */
    ABORT,  /* abort somewhere on the way */
    MANNERS
};

struct talker {
    struct end *e;
    enum manner manner;
    uint32_t to_send, abort_after;
    bool sent_all, reads_slowly;
    struct gyre_timer *timer; /* resumes */
};

struct conversation {
    struct api api;
    struct env_rng rng;
    bool harmless; /* no connection is broken by the network */
    struct talker talkers[4];
    unsigned talker_count;
    char server[160];
    bool relayed;
};

static volatile sig_atomic_t failing;
static uint64_t running_seed;

static void tell_seed(void)
{
    char text[80];
    int n = snprintf(text, sizeof text, "\nGYRE_SIM_SEED=%llu runs it again\n", (unsigned long long)running_seed);
    (void)!write(STDERR_FILENO, text, (size_t)n);
}

static void on_abort(int number)
{
    tell_seed();
    (void)signal(number, SIG_DFL);
    (void)raise(number);
}

static void after_seeds(void)
{
    if (failing)
        tell_seed();
}

static void on_resume(struct gyre_timer *timer, void *user)
{
    struct talker *t = user;
    (void)timer;
    api_enter(t->e->api);
    if (t->e->c != NULL)
        (void)gyre_conn_resume(t->e->c);
    api_leave(t->e->api);
}

static void talk_on(struct talker *t)
{
    struct conversation *v = t->e->api->user;
    struct end *e = t->e;
    while (!t->sent_all && !gyre_conn_congested(e->c)) {
        size_t left = t->to_send - (size_t)e->put, len = 1 + env_rng_below(&v->rng, 6000);
        if (t->manner == ABORT && e->put >= t->abort_after) {
            cr_assert_eq(gyre_conn_abort(e->c), 0);
            t->sent_all = true;
            return;
        }
        if (left > 0 && end_try_put(e, len < left ? len : left) != 0)
            return;
        t->sent_all = e->put == t->to_send;
        if (!t->sent_all && env_rng_below(&v->rng, 3) == 0) {
            cr_assert_eq(gyre_conn_wake(e->c), 0); /* the rest another time */
            return;
        }
    }
    if (!t->sent_all)
        return;
    if (t->manner == CLOSE || (t->manner == FINISH && e->eofs > 0))
        cr_assert_eq(gyre_conn_close(e->c), 0);
    else if (t->manner == FINISH)
        cr_assert_eq(gyre_conn_shutdown(e->c), 0);
}

static struct talker *talker_of(struct end *e, struct conversation *v)
{
    if (e->user == NULL) {
        struct talker *t = &v->talkers[v->talker_count++];
        *t = (struct talker){.e = e, .manner = (enum manner)env_rng_below(&v->rng, MANNERS)};
        t->to_send = env_rng_below(&v->rng, BYTES_MAX);
        if (v->relayed && t->manner == ABORT)
            t->manner = CLOSE;
        t->abort_after = env_rng_below(&v->rng, t->to_send + 1);
        t->reads_slowly = env_rng_below(&v->rng, 3) == 0;
        cr_assert_eq(gyre_timer_create(&t->timer, e->api->loop, on_resume, t), 0);
        e->user = t;
    }
    return e->user;
}

static void at_open(struct end *e)
{
    struct conversation *v = e->api->user;
    talk_on(talker_of(e, v));
}

static void at_drain(struct end *e)
{
    talk_on(e->user);
}

static void at_data(struct end *e)
{
    struct conversation *v = e->api->user;
    struct talker *t = e->user;
    uint8_t data[3000];
    if (!t->reads_slowly) {
        (void)end_take(e);
    } else {
        size_t n = gyre_conn_read(data, 1 + env_rng_below(&v->rng, sizeof data), e->c);
        cr_assert_eq(env_pattern_check(data, n, e->key_in, e->got), -1);
        e->got += n;
        if (gyre_conn_inbound(e->c) > 0)
            cr_assert_eq(gyre_conn_wake(e->c), 0);
    }
    if (env_rng_below(&v->rng, 6) == 0) {
        cr_assert_eq(gyre_conn_pause(e->c), 0);
        cr_assert_eq(gyre_timer_start(t->timer, (int64_t)env_rng_below(&v->rng, 50000000), 0), 0);
    }
    if (gyre_conn_close_reason(e->c) == GYRE_CLOSE_NONE)
        talk_on(t);
}

static void at_eof(struct end *e)
{
    struct talker *t = e->user;
    (void)end_take(e);
    if (gyre_conn_close_reason(e->c) == GYRE_CLOSE_NONE)
        talk_on(t);
}

static void at_timeout(struct end *e)
{
    if (e->timeouts < 3)
        talk_on(e->user);
    else
        cr_assert_eq(gyre_conn_close(e->c), 0);
}

static const struct script talking = {
    .open = at_open, .data = at_data, .drain = at_drain, .eof = at_eof, .timeout = at_timeout};

/* ---- a relay between them ---- */

static void relay_data(struct end *e)
{
    struct end *other = e->user;
    if (other != NULL && other->c != NULL)
        (void)gyre_conn_forward(e->c, other->c, SIZE_MAX);
}

static void relay_eof(struct end *e)
{
    struct end *other = e->user;
    if (other != NULL && other->c != NULL)
        (void)gyre_conn_shutdown(other->c);
}

static void relay_close(struct end *e)
{
    struct end *other = e->user;
    if (other == NULL || other->c == NULL)
        return;
    other->user = NULL;
    if (e->err == 0)
        (void)gyre_conn_close(other->c);
    else
        (void)gyre_conn_abort(other->c);
}

static void relay_open(struct end *e)
{
    static const struct script upstream = {.data = relay_data, .eof = relay_eof, .close = relay_close};
    struct conversation *v = e->api->user;
    struct end *other = api_connect(e->api, v->server, &upstream, NULL);
    other->user = e;
    e->user = other;
}

static const struct script relaying = {
    .open = relay_open, .data = relay_data, .eof = relay_eof, .close = relay_close};

/* ---- one seed ---- */

static void check(const struct conversation *v, const struct talker *t)
{
    const struct end *e = t->e;
    const struct talker *from = NULL;
    for (unsigned i = 0; i < v->talker_count; i++)
        if (v->talkers[i].e->key_out == e->key_in)
            from = &v->talkers[i];
    if (from == NULL) { /* it never opened */
        cr_assert_eq(e->got, 0);
        return;
    }
    cr_assert_leq(e->got, from->e->put, "more came than was sent");
    if (e->err == 0 && e->reason == GYRE_CLOSE_USER)
        cr_assert_eq(e->unsent, 0);
    if (!v->harmless || e->timeouts > 0 || from->e->timeouts > 0 || t->manner != FINISH || from->manner == ABORT)
        return;
    if (from->e->err == 0 && !v->relayed)
        cr_assert_eq(e->got, from->e->put, "%llu of %llu bytes came, though both ended well",
                     (unsigned long long)e->got, (unsigned long long)from->e->put);
    if (from->manner == FINISH)
        cr_assert_eq(e->got, from->e->put, "%llu of %llu bytes came", (unsigned long long)e->got,
                     (unsigned long long)from->e->put);
}

static bool is_over(void *user)
{
    const struct conversation *v = user;
    return v->api.accepted > 0 && gyre_loop_conn_count(v->api.loop) == 0;
}

static void set_up(struct conversation *v, uint64_t seed, struct gyre_sim_options *sim)
{
    static struct backend_param param = {.backend = "sim"};
    static const enum transport transports[] = {TRANSPORT_TCP4, TRANSPORT_TCP6, TRANSPORT_UNIX, TRANSPORT_ABSTRACT};
    *v = (struct conversation){.rng = {.state = seed * 0x9e3779b97f4a7c15u + 1}};
    param.transport = transports[env_rng_below(&v->rng, 4)];
    v->harmless = env_rng_below(&v->rng, 2) == 0;
    v->relayed = env_rng_below(&v->rng, 4) == 0;
    *sim = (struct gyre_sim_options){.seed = seed};
    if (v->harmless) {
        sim->accept_emfile_permille = sim->accept_aborted_permille = GYRE_SIM_NEVER;
        sim->connect_timeout_permille = sim->connect_unreachable_permille = sim->reset_permille = GYRE_SIM_NEVER;
    }
    api_init(&v->api, &param);
    v->api.user = v;
    v->api.sim_options = sim;
    v->api.options.buf_size_bytes = 256u << env_rng_below(&v->rng, 6);
    v->api.options.buf_count = 1 + env_rng_below(&v->rng, 16);
    v->api.options.buf_count_max = v->api.options.buf_count + env_rng_below(&v->rng, 32);
    api_open(&v->api);
}

static void run_seed(uint64_t seed)
{
    static struct conversation v;
    struct gyre_sim_options sim;
    set_up(&v, seed, &sim);
    struct gyre_listener_options options = {.conn = {.linger_timeout_ns = MS(MINUTE_MS) * 10,
                                                     .idle_timeout_ns = MS(MINUTE_MS) * 10,
                                                     .read_max_bytes = 1 + env_rng_below(&v.rng, 20000),
                                                     .write_high_bytes = 1 + env_rng_below(&v.rng, 20000)}};
    api_listen(&v.api, &talking, &options);
    (void)snprintf(v.server, sizeof v.server, "%s", v.api.address);
    if (v.relayed)
        api_listen(&v.api, &relaying, &options);
    (void)api_connect(&v.api, v.api.address, &talking, &options.conn);
    v.api.in_turn = true;
    int err = gyre_sim_run(v.api.sim, &v.api.loop, 1, 400000, is_over, &v);
    v.api.in_turn = false;
    if (err == -EDEADLK) /* the client was never accepted */
        cr_assert(!v.harmless && gyre_loop_conn_count(v.api.loop) == 0, "stuck with %u connections open",
                  gyre_loop_conn_count(v.api.loop));
    else
        cr_assert_eq(err, 0, "gyre_sim_run: %s with %u connections open", gyre_err_name(err),
                     gyre_loop_conn_count(v.api.loop));
    for (unsigned i = 0; i < v.talker_count; i++) {
        check(&v, &v.talkers[i]);
        gyre_timer_destroy(v.talkers[i].timer);
    }
    api_close(&v.api);
}

ParameterizedTestParameters(api_sim, seeds)
{
    static unsigned parts[PARTS];
    for (unsigned i = 0; i < PARTS; i++)
        parts[i] = i;
    return cr_make_param_array(unsigned, parts, PARTS, NULL);
}

/* All seeds of one part; `part` is its number. */
ParameterizedTest(unsigned *part, api_sim, seeds, .timeout = 100, .fini = after_seeds)
{
    const char *only = getenv("GYRE_SIM_SEED");
    uint64_t first = (uint64_t)*part * SEEDS_PER_PART, count = SEEDS_PER_PART;
    if (only != NULL) {
        first = strtoull(only, NULL, 0);
        count = 1;
    }
    failing = 1;
    (void)signal(SIGABRT, on_abort);
    for (running_seed = first; running_seed < first + count; running_seed++)
        run_seed(running_seed);
    failing = 0;
}
