/* SPDX-License-Identifier: MIT
 * Connecting to a unix socket whose listener's backlog is full.
 *
 * The system says so at once (-EAGAIN), and nothing tells when there is room. TCP tries again by itself there, so for
 * unix sockets the loop does: those that wait are in a list, oldest first, by op->next, and a timer tries all of them.
 * How long they wait is limited as connecting always is. */
#include "conn.h"

#define AGAIN_FIRST_NS (UINT64_C(5) * 1000000)
#define AGAIN_MAX_NS   (UINT64_C(100) * 1000000)

void gyre__conn_connect_later(struct gyre_conn *c)
{
    struct gyre__conns *conns = c->loop->conns;
    if (!(c->flags & GYRE_CF_REFUSED))
        conns->again_ns = AGAIN_FIRST_NS;
    c->flags |= GYRE_CF_REFUSED | GYRE_CF_AGAIN;
    c->send.next = NULL;
    *conns->again_tail = &c->send;
    conns->again_tail = &c->send.next;
    if (!gyre__timer_is_set(&conns->again_timer))
        gyre__wheel_start(&c->loop->wheel, &conns->again_timer, gyre__loop_now(c->loop) + conns->again_ns);
}

void gyre__conn_connect_forget(struct gyre_conn *c)
{
    struct gyre__conns *conns = c->loop->conns;
    if (!(c->flags & GYRE_CF_AGAIN))
        return;
    struct gyre__op **at = &conns->again_head;
    while (*at != &c->send)
        at = &(*at)->next;
    *at = c->send.next;
    if (*at == NULL)
        conns->again_tail = at;
    c->flags &= ~(unsigned)GYRE_CF_AGAIN;
    c->send.done = GYRE_DONE_SENT;
    gyre__free(c->loop->mem, (void *)(uintptr_t)c->send.u.connect.addr);
    if (conns->again_head == NULL)
        gyre__wheel_stop(&c->loop->wheel, &conns->again_timer);
}

void gyre__conns_on_again(struct gyre__loop_timer *t)
{
    struct gyre__conns *conns = GYRE_CONTAINER(t, struct gyre__conns, again_timer);
    struct gyre__op *op = conns->again_head, *next;
    conns->again_head = NULL;
    conns->again_tail = &conns->again_head;
    conns->again_ns = conns->again_ns < AGAIN_MAX_NS / 2 ? conns->again_ns * 2 : AGAIN_MAX_NS;
    for (; op != NULL; op = next) {
        struct gyre_conn *c = GYRE_CONTAINER(op, struct gyre_conn, send);
        next = op->next;
        c->flags &= ~(unsigned)GYRE_CF_AGAIN;
        gyre__op_submit(c->loop, op);
    }
}
