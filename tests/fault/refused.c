/* SPDX-License-Identifier: MIT
 * Playing a scene for every call that can be refused. */
#include "refused.h"
#include "server.h"

#include "base/log.h"
#include "base/mem.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>

enum { N_MAX = 600, UNTOUCHED = 3 };

static void no_line(enum gyre_log_level level, const char *text, void *user)
{
    (void)user;
    (void)level;
    (void)text;
}

static const struct gyre_log silent = {.line = no_line};

void refused_begin(struct refused *r)
{
    fault_mem_arm(&r->mem, r->n);
}

void refused_over(struct refused *r)
{
    r->struck = fault_mem_struck(&r->mem);
    r->over = true;
    fault_mem_arm(&r->mem, 0);
}

int refused_note(struct refused *r, int err)
{
    bool struck = r->struck || fault_mem_struck(&r->mem);
    cr_assert(err == 0 || (err == -ENOMEM && struck), "%s: %s", r->where, gyre_err_name(err));
    cr_assert(err == 0 || !r->over, "%s: %s, though there is memory", r->where, gyre_err_name(err));
    return err;
}

void refused_turn(struct refused *r)
{
    if (r->sim != NULL)
        gyre_sim_advance(r->sim, 1000000);
    int more = gyre_loop_run_nowait(r->loop);
    cr_assert_geq(more, 0, "%s: gyre_loop_run_nowait: %s", r->where, gyre_err_name(more));
    struct pollfd pfd = {.fd = r->sim == NULL ? gyre_loop_fd(r->loop) : -1, .events = POLLIN};
    if (more == 0 && r->sim == NULL)
        (void)poll(&pfd, 1, 1);
}

/* Buffers are small and few, so that frames lie in several and handlers run out of them. */
static void open_loop(struct refused *r, const char *backend)
{
    const struct gyre_sim_options sim = {.seed = 11,
                                         .loss_permille = GYRE_SIM_NEVER,
                                         .reset_permille = GYRE_SIM_NEVER,
                                         .accept_emfile_permille = GYRE_SIM_NEVER,
                                         .accept_aborted_permille = GYRE_SIM_NEVER,
                                         .connect_timeout_permille = GYRE_SIM_NEVER,
                                         .connect_unreachable_permille = GYRE_SIM_NEVER};
    struct gyre_loop_options options = {
        .mem = &r->mem.mem, .log = &silent, .buf_size_bytes = 1024, .buf_count = 4, .buf_count_max = 16};
    if (backends_is_real(backend))
        options.backend = backend;
    else
        cr_assert_eq(gyre_sim_create(&r->sim, &sim), 0);
    options.sim = r->sim;
    int err = gyre_loop_create(&r->loop, &options);
    cr_assert_eq(err, 0, "gyre_loop_create: %s", gyre_err_name(err));
}

/* Returns whether a call was refused. */
static bool play(const char *backend, refused_scene *scene, long n, enum fault_mode mode)
{
    static struct refused r;
    int fds = open_descriptors();
    r = (struct refused){.n = n, .mode = mode};
    fault_mem_init(&r.mem, 0, mode);
    (void)snprintf(r.where, sizeof r.where, "%s: call %ld refused %s", backend, n,
                   mode == FAULT_ONCE ? "once" : "for good");
    open_loop(&r, backend);
    scene(&r);
    cr_assert(r.over, "the scene has no end");
    gyre_loop_destroy(r.loop);
    gyre_sim_destroy(r.sim);
    long blocks = atomic_load(&r.mem.counted.blocks);
    cr_assert_eq(blocks, 0, "%s: %ld blocks left", r.where, blocks);
    cr_assert_eq(open_descriptors(), fds, "%s: descriptors left", r.where);
    return r.struck;
}

void refused_need(const struct backend_param *p)
{
    struct gyre_sim *sim;
    const struct gyre__backend_config config = {.mem = &gyre__mem_system, .log = &gyre__log_system};
    struct gyre__backend *be = backends_open(p->backend, config, &sim);
    be->ops->destroy(be); /* it opens here, or the test was skipped */
    backends_sim_free(sim);
}

/* What a kernel does when makes the number of calls vary: it has passed when it did so a few times. */
void refused_each(const struct backend_param *p, refused_scene *scene, long calls_min)
{
    refused_need(p);
    for (int mode = FAULT_ONCE; mode <= FAULT_FOREVER; mode++) {
        unsigned untouched = 0;
        long n = 1;
        cr_assert_not(play(p->backend, scene, 0, (enum fault_mode)mode));
        for (; untouched < UNTOUCHED; n++) {
            cr_assert_lt(n, N_MAX);
            untouched = play(p->backend, scene, n, (enum fault_mode)mode) ? 0 : untouched + 1;
        }
        cr_assert_geq(n - UNTOUCHED - 1, calls_min, "the scene asks for memory no more than %ld times",
                      n - UNTOUCHED - 1);
    }
}
