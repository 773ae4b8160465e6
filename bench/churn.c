/* SPDX-License-Identifier: MIT
 * Churn: a new connection for each request. This side ends first, with a shutdown, so that it keeps the TIME_WAIT; the
 * kernel takes such a port again after a second on loopback, and a slice of load does not come back to it sooner than
 * that. Where ports run out all the same, connecting fails and says so. */
#include "churn.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int bench_churn_begin(struct bench_target *t, struct bench_conn *c, uint64_t now_ns)
{
    if (bench_conn_open(t, (uint32_t)(c - t->conns)) != 0)
        return -1;
    c->began_ns = now_ns;
    return bench_conn_begin(t, c, 1, now_ns);
}

static int answered(struct bench_target *t, struct bench_conn *c, uint32_t count, uint64_t now_ns)
{
    (void)count; /* one: no more are sent */
    (void)now_ns;
    if (shutdown(c->fd, SHUT_WR) != 0)
        return bench_target_fail(t, "connection %td to %s: shutdown: %s", c - t->conns, t->address->text,
                                 strerror(errno));
    c->ending = true;
    t->busy++; /* until the server ends it */
    return 0;
}

static int ended(struct bench_target *t, struct bench_conn *c)
{
    uint64_t now = bench_now_ns();
    (void)close(c->fd);
    c->fd = -1;
    c->ending = false;
    t->busy--;
    if (now >= t->from_ns && now <= t->until_ns)
        bench_histogram_add(&t->result->latency, now - c->began_ns, 1);
    return now >= t->last_ns ? 0 : bench_churn_begin(t, c, now);
}

const struct bench_kind bench_churn = {.answered = answered, .ended = ended};
