/* SPDX-License-Identifier: MIT
 * The backends that a test is run with. */
#include "backends.h"
#include "env.h"

#include <errno.h>
#include <gyre/loop.h>
#include <gyre/sim.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const names[] = {"io_uring", "epoll", "kqueue", "sim"};
static const char *const transports[] = {"tcp4", "tcp6", "unix", "abstract"};

enum { NAMES = sizeof names / sizeof names[0], TRANSPORTS = sizeof transports / sizeof transports[0] };

bool backends_is_real(const char *name)
{
    return strcmp(name, "sim") != 0;
}

bool backends_names(const char *features, const char *word)
{
    size_t len = strlen(word);
    for (const char *at = features; at != NULL && *at != '\0';) {
        size_t run = strcspn(at, ",");
        if (run == len && strncmp(at, word, len) == 0)
            return true;
        at += run;
        at += *at == ',';
    }
    return false;
}

bool backends_take_back(const struct gyre_loop *loop)
{
    struct gyre_backend_report report;
    gyre_loop_backend(&report, loop);
    return strcmp(report.backend, "io_uring") != 0 || backends_names(report.features, "defer_taskrun");
}

bool backends_splices(const struct gyre_loop *loop)
{
    struct gyre_backend_report report;
    gyre_loop_backend(&report, loop);
    const struct gyre__backend_ops *ops = gyre__backend_find(report.backend);
    bool may = strcmp(report.backend, "io_uring") != 0 ||
               (backends_names(report.features, "direct") && backends_names(report.features, "multishot_recv"));
    return may && ops != NULL && ops->sock->pipe != NULL;
}

/* Whether the comma-separated list in the environment variable has the name. */
static bool listed(const char *variable, const char *name)
{
    return backends_names(getenv(variable), name);
}

bool backends_required(const char *what)
{
    return listed("GYRE_TEST_REQUIRE", what);
}

static bool wanted(const char *name)
{
    const char *only = getenv("GYRE_TEST_ONLY");
    return gyre__backend_find(name) != NULL && (only == NULL || only[0] == '\0' || listed("GYRE_TEST_ONLY", name));
}

enum { REAL_ONLY = 1, POLLED_TOO = 2 };

static size_t add_params(struct backend_param *params, const char *name, const char *off, unsigned transport_count)
{
    for (unsigned t = 0; t < transport_count; t++) {
        struct backend_param *p = &params[t];
        *p = (struct backend_param){.transport = (enum transport)t};
        (void)snprintf(p->backend, sizeof p->backend, "%s", name);
        (void)snprintf(p->transport_name, sizeof p->transport_name, "%s", transports[t]);
        (void)snprintf(p->off, sizeof p->off, "%s", off);
    }
    return transport_count;
}

static struct criterion_test_params make_params(unsigned flags, unsigned transport_count)
{
    static struct backend_param params[(NAMES + 1) * TRANSPORTS];
    size_t count = 0;
    for (unsigned i = 0; i < NAMES; i++) {
        if (!wanted(names[i]) || ((flags & REAL_ONLY) && !backends_is_real(names[i])))
            continue;
        count += add_params(&params[count], names[i], "", transport_count);
        if ((flags & POLLED_TOO) && strcmp(names[i], "io_uring") == 0)
            count += add_params(&params[count], names[i], "multishot_recv", transport_count);
    }
    return cr_make_param_array(struct backend_param, params, count, NULL);
}

struct criterion_test_params backends_each(void)
{
    return make_params(0, 1);
}

struct criterion_test_params backends_each_real(void)
{
    return make_params(REAL_ONLY, 1);
}

struct criterion_test_params backends_each_transport(void)
{
    return make_params(0, TRANSPORTS);
}

struct criterion_test_params backends_each_dgram(void)
{
    return make_params(POLLED_TOO, 1);
}

struct criterion_test_params backends_each_real_dgram(void)
{
    return make_params(REAL_ONLY | POLLED_TOO, 1);
}

struct criterion_test_params backends_each_transport_dgram(void)
{
    return make_params(POLLED_TOO, TRANSPORTS);
}

/* By the environment, which whatever the test opens looks at; each test has a process of its own. */
void backends_leave_out(const struct backend_param *p)
{
    const char *variable = "GYRE_URING_OFF", *others = getenv(variable);
    char words[256];
    if (p->off[0] == '\0' || listed(variable, p->off))
        return;
    int n = snprintf(words, sizeof words, "%s,%s", p->off, others != NULL ? others : "");
    cr_assert(n > 0 && (size_t)n < sizeof words, "%s is too long", variable);
    cr_assert_eq(setenv(variable, words, 1), 0);
}

/* The simulator at its worst, but for what breaks connections, because the suites compare what was sent with what has
 * come, and with buffers and a network like loopback's: they look at what has arrived without letting time pass. */
static struct gyre_sim *make_sim(const struct gyre_mem *mem)
{
    struct env_rng rng;
    struct gyre_sim *sim = NULL;
    env_rng_init(&rng, 1);
    struct gyre_sim_options options = {
        .seed = env_rng_next(&rng),
        .mem = mem,
        .accept_emfile_permille = GYRE_SIM_NEVER,
        .accept_aborted_permille = GYRE_SIM_NEVER,
        .connect_timeout_permille = GYRE_SIM_NEVER,
        .connect_unreachable_permille = GYRE_SIM_NEVER,
        .reset_permille = GYRE_SIM_NEVER,
        .loss_permille = GYRE_SIM_NEVER,
        .delay_max_ns = GYRE_SIM_NO_DELAY,
        .send_buffer_bytes = 262144,
        .recv_buffer_bytes = 131072,
        .duplicate_permille = GYRE_SIM_NEVER,
    };
    int err = gyre_sim_create(&sim, &options);
    cr_assert_eq(err, 0, "gyre_sim_create: %d", err);
    return sim;
}

void backends_sim_free(struct gyre_sim *sim)
{
    gyre_sim_destroy(sim);
}

struct gyre__backend *backends_open(const char *name, struct gyre__backend_config cfg, struct gyre_sim **sim)
{
    char why[384] = "";
    struct gyre__backend *be = NULL;
    const struct gyre__backend_ops *ops = gyre__backend_find(name);
    *sim = NULL;
    cr_assert_not_null(ops, "%s was compiled in when the list was made", name);
    if (cfg.off == NULL)
        cfg.off = getenv("GYRE_TEST_OFF");
    if (!backends_is_real(name))
        cfg.sim = *sim = make_sim(cfg.mem);
    int err = ops->create(&be, &cfg, why, sizeof why);
    if (err == 0)
        return be;
    cr_assert_lt(err, 0, "create() of %s returned %d", name, err);
    cr_assert_neq(why[0], '\0', "create() of %s failed with %d and gave no reason", name, err);
    if (backends_required(name))
        cr_assert_fail("%s is required and does not open: %s", name, why);
    cr_skip_test("%s: %s", name, why);
    return NULL;
}
