/* SPDX-License-Identifier: MIT
 * The open loop: requests leave by the clock and not by the answers, as they do when many people press a button.
 *
 * Request k is due k / rate seconds after the start, on connection k modulo the number of connections. So when any
 * answer was due can be computed and need not be kept, and a server that hesitates is charged for every request that
 * should have been sent meanwhile, not only for those that were. What is still unanswered a while after the end is
 * given up and counted as if answered then: the longest waits are not left out. */
#include "open_loop.h"

static uint64_t due_ns(const struct bench_target *t, uint64_t k)
{
    /* In two parts, or the product would overflow after some hours. */
    return t->start_ns + k / t->rate * 1000000000u + k % t->rate * 1000000000u / t->rate;
}

static uint64_t number_of(const struct bench_target *t, const struct bench_conn *c, uint64_t answer)
{
    return answer * t->nopen + (uint64_t)(c - t->conns);
}

/* Begins what is due and fits into the pipeline. */
static int send_due(struct bench_target *t, struct bench_conn *c, uint64_t now)
{
    uint64_t in_flight = (c->unanswered + t->shape.size - 1) / t->shape.size;
    uint64_t room = t->shape.pipeline - in_flight;
    uint64_t count = c->due < room ? c->due : room;
    if (count == 0)
        return 0;
    c->due -= count;
    return bench_conn_begin(t, c, (uint32_t)count, now);
}

static void record(struct bench_target *t, uint64_t k, uint64_t now)
{
    uint64_t due = due_ns(t, k);
    if (due < t->from_ns || due >= t->until_ns)
        return;
    bench_histogram_add(&t->result->latency, now > due ? now - due : 0, 1);
}

static int answered(struct bench_target *t, struct bench_conn *c, uint32_t count, uint64_t now_ns)
{
    for (uint32_t i = 0; i < count; i++)
        record(t, number_of(t, c, c->answers++), now_ns);
    return send_due(t, c, now_ns);
}

static const struct bench_kind open_loop = {.answered = answered};

/* Lets the requests numbered `*next` and on fall due that are by now, and sends each connection's as one write. */
static int fall_due(struct bench_target *t, uint64_t *next, uint64_t now)
{
    uint64_t first = *next;
    uint64_t limit = now < t->until_ns ? now + 1 : t->until_ns;
    while (due_ns(t, *next) < limit) {
        t->conns[*next % t->nopen].due++;
        ++*next;
    }
    uint64_t touched = *next - first;
    if (touched > t->nopen)
        touched = t->nopen;
    for (uint64_t i = 0; i < touched; i++) {
        if (send_due(t, &t->conns[(first + i) % t->nopen], now) != 0)
            return -1;
    }
    return 0;
}

/* Counts the requests below `end` that were due within the window and have no answer. */
static void give_up(struct bench_target *t, uint64_t end, uint64_t now)
{
    uint64_t before = t->result->latency.count;
    for (uint32_t i = 0; i < t->nopen; i++) {
        struct bench_conn *c = &t->conns[i];
        for (uint64_t k = number_of(t, c, c->answers); k < end; k += t->nopen)
            record(t, k, now);
    }
    t->result->unanswered = t->result->latency.count - before;
}

int bench_run_open(struct bench_target *t, uint64_t rate, uint64_t warmup_ns, uint64_t duration_ns,
                   struct bench_result *result)
{
    *result = (struct bench_result){.window_ns = duration_ns};
    bench_histogram_reset(&result->latency);
    if (t->error[0] != '\0')
        return -1;
    t->kind = &open_loop;
    t->result = result;
    t->rate = rate;
    t->start_ns = bench_now_ns();
    t->from_ns = t->start_ns + warmup_ns;
    t->until_ns = t->from_ns + duration_ns;
    uint64_t give_up_ns = t->until_ns + t->shape.stall_ms * 1000000ull;
    uint64_t next = 0;
    uint64_t now = t->start_ns;
    while (now < t->until_ns || (t->busy > 0 && now < give_up_ns)) {
        if (fall_due(t, &next, now) != 0)
            return -1;
        now = bench_now_ns();
        uint64_t due = due_ns(t, next);
        if (due >= t->until_ns)
            due = now < t->until_ns ? t->until_ns : UINT64_MAX;
        if (bench_target_poll(t, due > now ? due - now : 0) != 0)
            return -1;
        now = bench_now_ns();
    }
    if (fall_due(t, &next, now) != 0) /* what fell due during the last wait, so that it counts */
        return -1;
    give_up(t, next, now);
    return 0;
}
