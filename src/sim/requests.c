/* SPDX-License-Identifier: MIT
 * The queues of requests of the simulator's backend. */
#include "world.h"

#include <string.h>

void gyre__sim_req_push(struct sim_queue_list *list, struct sim_req *req, enum sim_queue queue)
{
    req->queue = (uint8_t)queue;
    req->queue_next = NULL;
    if (list->last != NULL)
        list->last->queue_next = req;
    else
        list->first = req;
    list->last = req;
}

void gyre__sim_req_push_front(struct sim_queue_list *list, struct sim_req *req)
{
    req->queue = SIM_READY;
    req->queue_next = list->first;
    list->first = req;
    if (list->last == NULL)
        list->last = req;
}

struct sim_req *gyre__sim_req_pop(struct sim_queue_list *list)
{
    struct sim_req *req = list->first;
    list->first = req->queue_next;
    if (list->first == NULL)
        list->last = NULL;
    return req;
}

void gyre__sim_req_make_ready(struct sim_backend *be, struct sim_req *req)
{
    if (req->queue == SIM_BUSY)
        req->again = true;
    if (req->queue == SIM_PARKED)
        gyre__sim_req_push(&be->ready, req, SIM_READY);
}

void gyre__sim_ready(struct sim_sock *s, unsigned kinds)
{
    for (struct sim_req *req = s->reqs; req != NULL; req = req->next)
        if (SIM_KIND(req->op->kind) & (kinds | SIM_KIND(GYRE_OP_POLL)))
            gyre__sim_req_make_ready(req->be, req);
}

bool gyre__sim_pending(const struct gyre_sim *sim)
{
    for (const struct sim_backend *be = sim->backends; be != NULL; be = be->next)
        if (be->ready.first != NULL || be->later.first != NULL || be->held != NULL || be->broken != NULL ||
            atomic_load(&be->woken))
            return true;
    return false;
}
