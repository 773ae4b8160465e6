/* SPDX-License-Identifier: MIT
 * The closed loop over connections that stay, and the choice between it, churn and datagrams. */
#include "drive.h"
#include "churn.h"
#include "udp.h"

int bench_open(struct bench_target *t, const struct bench_address *address, const struct bench_shape *shape)
{
    if (bench_target_init(t, address, shape) != 0)
        return -1;
    return address->is_datagram ? bench_udp_open(t) : bench_target_connect(t);
}

void bench_close(struct bench_target *t)
{
    bench_udp_close(t);
    bench_target_close(t);
}

static int answered(struct bench_target *t, struct bench_conn *c, uint32_t count, uint64_t now_ns)
{
    if (now_ns >= t->from_ns && now_ns <= t->until_ns)
        bench_histogram_add(&t->result->latency, now_ns - c->began_ns, count);
    if (c->unanswered > 0 || now_ns >= t->last_ns)
        return 0;
    c->began_ns = now_ns;
    return bench_conn_begin(t, c, t->shape.pipeline, now_ns);
}

static const struct bench_kind closed_loop = {.answered = answered};

static int run_streams(struct bench_target *t)
{
    for (uint32_t i = 0; i < t->nopen; i++) {
        struct bench_conn *c = &t->conns[i];
        c->began_ns = bench_now_ns();
        int err = t->shape.churn ? bench_churn_begin(t, c, c->began_ns)
                                 : bench_conn_begin(t, c, t->shape.pipeline, c->began_ns);
        if (err != 0)
            return -1;
    }
    while (t->busy > 0) {
        if (bench_target_poll(t, UINT64_MAX) != 0)
            return -1;
    }
    return bench_target_poll(t, 0); /* whatever comes now is too much */
}

int bench_run_closed(struct bench_target *t, uint64_t warmup_ns, uint64_t duration_ns, struct bench_result *result)
{
    *result = (struct bench_result){.window_ns = duration_ns};
    bench_histogram_reset(&result->latency);
    if (t->error[0] != '\0')
        return -1;
    bool once = warmup_ns == 0 && duration_ns == 0;
    uint64_t start = bench_now_ns();
    t->result = result;
    t->kind = t->shape.churn ? &bench_churn : &closed_loop;
    t->from_ns = start + warmup_ns;
    t->last_ns = t->from_ns + duration_ns;
    t->until_ns = once ? UINT64_MAX : t->last_ns;
    if ((t->udp != NULL ? bench_udp_run(t) : run_streams(t)) != 0)
        return -1;
    if (once)
        result->window_ns = bench_now_ns() - start;
    return 0;
}
