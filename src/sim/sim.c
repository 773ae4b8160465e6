/* SPDX-License-Identifier: MIT
 * A simulation as a whole: its options, its clock, its beginning and end. Random numbers and the trace are in
 * chance.c. */
#include "world.h"
#include "base/options.h"
#include "base/refuse.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

enum { BUF_BYTES_MAX = 16 << 20, PORT_FIRST = 32768 };

#define START_NS         UINT64_C(1000000000)
#define DELAY_NS_DEFAULT UINT64_C(2000000)
#define DELAY_NS_MAX     UINT64_C(3600000000000)
/* ---- The trace ---- */

uint64_t gyre_sim_trace_hash(const struct gyre_sim *sim)
{
    return sim->trace;
}

uint64_t gyre_sim_seed(const struct gyre_sim *sim)
{
    return sim->opt.seed;
}

void gyre_sim_stats(struct gyre_sim_counts *out, const struct gyre_sim *sim)
{
    *out = sim->counts;
}

/* ---- The clock ---- */

uint64_t gyre_sim_now_ns(const struct gyre_sim *sim)
{
    return sim->now_ns;
}

void gyre__sim_clock_to(struct gyre_sim *sim, uint64_t at_ns)
{
    gyre__sim_due_run(sim);
    for (;;) {
        uint64_t next_ns = gyre__sim_due_next_ns(sim);
        if (next_ns > at_ns)
            break;
        sim->now_ns = next_ns;
        gyre__sim_due_run(sim);
    }
    if (sim->now_ns < at_ns)
        sim->now_ns = at_ns;
}

void gyre_sim_advance(struct gyre_sim *sim, uint64_t ns)
{
    uint64_t at_ns = sim->now_ns + ns;
    gyre__sim_clock_to(sim, at_ns < SIM_NEVER_NS - 1 && at_ns >= ns ? at_ns : SIM_NEVER_NS - 1);
}

bool gyre_sim_step(struct gyre_sim *sim)
{
    uint64_t next_ns = gyre__sim_due_next_ns(sim);
    if (next_ns == SIM_NEVER_NS)
        return false;
    gyre__sim_clock_to(sim, next_ns);
    return true;
}

bool gyre_sim_idle(const struct gyre_sim *sim)
{
    return sim->dues.count == 0 && !gyre__sim_pending(sim);
}

/* ---- Options ---- */

/* The probabilities, where to find them, and what they are in chaos. */
static const struct {
    const char *name;
    size_t offset;
    uint16_t chaos;
} permilles[] = {
#define PERMILLE(name, chaos)                                 \
    {                                                         \
#name, offsetof(struct gyre_sim_options, name), chaos \
    }
    PERMILLE(recv_short_permille, 200),
    PERMILLE(send_short_permille, 200),
    PERMILLE(more_dropped_permille, 100),
    PERMILLE(cancel_late_permille, 300),
    PERMILLE(enobufs_permille, 20),
    PERMILLE(shuffle_permille, 1000),
    PERMILLE(few_events_permille, 200),
    PERMILLE(accept_emfile_permille, 5),
    PERMILLE(accept_aborted_permille, 3),
    PERMILLE(connect_timeout_permille, 3),
    PERMILLE(connect_unreachable_permille, 3),
    PERMILLE(reset_permille, 1),
    PERMILLE(loss_permille, 10),
    PERMILLE(duplicate_permille, 5),
#undef PERMILLE
};

static int resolve_permilles(struct gyre_sim_options *opt)
{
    for (size_t i = 0; i < sizeof permilles / sizeof permilles[0]; i++) {
        uint16_t *value = (uint16_t *)(void *)((char *)opt + permilles[i].offset);
        if (*value == 0)
            *value = opt->profile == GYRE_SIM_CHAOS ? permilles[i].chaos : 0;
        else if (*value == GYRE_SIM_NEVER)
            *value = 0;
        int err = gyre__check_range(permilles[i].name, *value, 0, 1000);
        if (err != 0)
            return err;
    }
    return 0;
}

static int resolve_options(struct gyre_sim_options *opt)
{
    if (opt->profile != GYRE_SIM_CHAOS && opt->profile != GYRE_SIM_QUIET)
        return gyre__refuse("profile is %d; it is GYRE_SIM_CHAOS or GYRE_SIM_QUIET", (int)opt->profile);
    if (opt->delay_max_ns == 0)
        opt->delay_max_ns = opt->profile == GYRE_SIM_CHAOS ? DELAY_NS_DEFAULT : 0;
    if (opt->delay_max_ns == GYRE_SIM_NO_DELAY)
        opt->delay_max_ns = opt->delay_min_ns = 0;
    if (opt->delay_max_ns < opt->delay_min_ns)
        opt->delay_max_ns = opt->delay_min_ns;
    if (opt->fds_max == 0)
        opt->fds_max = 1u << 20;
    if (opt->mem == NULL)
        opt->mem = &gyre__mem_system;
    int64_t delay_max_ns = opt->delay_max_ns <= DELAY_NS_MAX ? (int64_t)opt->delay_max_ns : INT64_MAX;
    const struct gyre__range ranges[] = {
        {"delay_max_ns or delay_min_ns", delay_max_ns, 0, DELAY_NS_MAX},
        {"send_buffer_bytes", opt->send_buffer_bytes, 0, BUF_BYTES_MAX},
        {"recv_buffer_bytes", opt->recv_buffer_bytes, 0, BUF_BYTES_MAX},
        {"fds_max", opt->fds_max, 1, 1 << 20},
    };
    int err = gyre__check_ranges(ranges, sizeof ranges / sizeof ranges[0]);
    return err != 0 ? err : resolve_permilles(opt);
}

/* ---- Life ---- */

static void pipe_due(struct sim_due *due)
{
    gyre__sim_stream_due(GYRE_CONTAINER(due, struct sim_pipe, due));
}

static void connect_due(struct sim_due *due)
{
    gyre__sim_connect_due(GYRE_CONTAINER(due, struct sim_sock, due));
}

static sim_due_fn *const due_fns[SIM_DUE_KINDS] = {
    [SIM_DUE_PIPE] = pipe_due,
    [SIM_DUE_CONNECT] = connect_due,
    [SIM_DUE_PACKET] = gyre__sim_packet_due,
};

int gyre_sim_create_sized(struct gyre_sim **out, const struct gyre_sim_options *options, size_t size_bytes)
{
    struct gyre_sim_options opt;
    int err = gyre__options_copy(&opt, sizeof opt, options, size_bytes);
    if (err == 0)
        err = resolve_options(&opt);
    if (err != 0)
        return err;
    struct gyre_sim *sim = gyre__alloc(opt.mem, sizeof *sim);
    if (sim == NULL)
        return -ENOMEM;
    sim->mem = opt.mem;
    sim->opt = opt;
    sim->due_fns = due_fns;
    sim->chance = gyre__sim_mix(opt.seed, 1); /* neighbouring seeds shall not begin alike */
    sim->now_ns = START_NS;
    sim->port_next = PORT_FIRST;
    *out = sim;
    return 0;
}

static void close_left_open(struct sim_sock *s)
{
    gyre__free(s->sim->mem, s->handle);
    gyre__sim_sock_destroy(s);
}

void gyre_sim_destroy(struct gyre_sim *sim)
{
    if (sim == NULL)
        return;
    GYRE_CHECK(sim->backends == NULL); /* its loops hold on to it */
    /* Listeners first: connections that nobody has accepted are theirs. */
    while (sim->listeners != NULL)
        close_left_open(sim->listeners);
    while (sim->socks != NULL)
        close_left_open(sim->socks);
    gyre__sim_packets_free(sim);
    gyre__sim_names_free(sim);
    GYRE_CHECK(sim->streams == NULL && sim->dues.reserved == 0);
    gyre__free(sim->mem, sim->dues.heap);
    gyre__free(sim->mem, sim->fds);
    gyre__free(sim->mem, sim);
}
