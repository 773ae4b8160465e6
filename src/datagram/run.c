/* SPDX-License-Identifier: MIT
 * Runs: datagrams of one turn to one receiver, which leave as one send that the kernel cuts (UDP_SEGMENT, Linux).
 *
 * The way through the kernel is nearly all that a small datagram costs, and a run goes that way once. So what a turn
 * sends to one receiver, one after the other, goes together: all of the first one's length, but the last, which may be
 * shorter; each of them no longer than what fits an Ethernet frame, for longer ones would have to be cut into
 * fragments, which a run may not be.
 *
 * What can go wrong: the path takes only shorter ones, or a device cannot do it. Then the send fails, all of them are
 * sent one by one, and the socket makes no runs any more. */
#include "item.h"

#include <string.h>

enum {
    LENGTH_MAX = 1452, /* 1500 less the headers of IPv6 and UDP */
    BYTES_MAX = 60000,
};

static struct gyre__udp_run *new_run(struct gyre_loop *l)
{
    struct gyre__udp_run *run = l->udps->free_runs;
    if (run == NULL)
        return gyre__resize(l->mem, NULL, sizeof *run);
    l->udps->free_runs = run->next;
    return run;
}

void gyre__udp_runs_fini(struct gyre_loop *l)
{
    while (l->udps->free_runs != NULL) {
        struct gyre__udp_run *run = l->udps->free_runs;
        l->udps->free_runs = run->next;
        gyre__free(l->mem, run);
    }
}

/* Whether it may be in a run at all. */
static bool is_plain(const struct gyre__udp_item *s)
{
    return !s->alone && s->pieces == 1 && s->iov.iov_len > 0 && s->iov.iov_len <= LENGTH_MAX;
}

static bool same_way(const struct gyre__udp_item *a, const struct gyre__udp_item *b)
{
    const struct msghdr *x = &a->hdr, *y = &b->hdr;
    return x->msg_namelen == y->msg_namelen && x->msg_controllen == y->msg_controllen &&
           memcmp(&a->to, &b->to, x->msg_namelen) == 0 && memcmp(a->control, b->control, x->msg_controllen) == 0;
}

static bool goes_with(const struct gyre__udp_item *first, const struct gyre__udp_item *s)
{
    return s != NULL && is_plain(s) && s->iov.iov_len <= first->iov.iov_len && same_way(first, s);
}

/* Take from the queue what can go with `s`. */
static unsigned fill(struct gyre_udp *u, struct gyre__udp_item *s, struct gyre__udp_run *run)
{
    struct gyre__udp_item **last = &run->rest;
    size_t length = s->iov.iov_len, len = length;
    unsigned count = 1;
    run->iov[0] = s->iov;
    run->bytes = len;
    while (len == length && count < GYRE_UDP_SEGMENTS_MAX && run->bytes + length <= BYTES_MAX &&
           goes_with(s, u->head)) {
        struct gyre__udp_item *more = u->head;
        u->head = more->next;
        len = more->iov.iov_len;
        run->iov[count++] = more->iov;
        run->bytes += len;
        *last = more;
        last = &more->next;
    }
    *last = NULL;
    if (u->head == NULL)
        u->tail = &u->head;
    return count;
}

void gyre__udp_gather(struct gyre_udp *u, struct gyre__udp_item *s)
{
    if ((u->flags & (GYRE_UDPF_NO_RUNS | GYRE_UDPF_BLOCKED)) || !is_plain(s) || !goes_with(s, u->head))
        return;
    if (!gyre__udp_kernel_cuts(u)) {
        u->flags |= GYRE_UDPF_NO_RUNS;
        return;
    }
    struct gyre__udp_run *run = new_run(u->loop);
    if (run == NULL)
        return;
    run->control_len = s->hdr.msg_controllen;
    s->pieces = (uint16_t)fill(u, s, run);
    s->run = run;
    s->hdr.msg_iov = run->iov;
    s->hdr.msg_iovlen = s->pieces;
    gyre__udp_add_segment_size(s, s->iov.iov_len);
}

struct gyre__udp_item *gyre__udp_scatter(struct gyre_udp *u, struct gyre__udp_item *s)
{
    struct gyre__udp_run *run = s->run;
    if (run == NULL)
        return NULL;
    s->run = NULL;
    s->pieces = 1;
    s->hdr.msg_iov = &s->iov;
    s->hdr.msg_iovlen = 1;
    s->hdr.msg_controllen = (socklen_t)run->control_len;
    s->hdr.msg_control = run->control_len > 0 ? s->control : NULL;
    run->next = u->loop->udps->free_runs;
    u->loop->udps->free_runs = run;
    return run->rest;
}
