/* SPDX-License-Identifier: MIT
 * What happens when: a binary heap of what is due, the earliest first, and among equals the one set first. Room is
 * reserved when the owner of a sim_due is made, so that setting one never fails. */
#include "world.h"

#include <errno.h>
#include <stddef.h>

static bool before(const struct sim_due *a, const struct sim_due *b)
{
    return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->seq < b->seq;
}

static void place(struct sim_dues *d, struct sim_due *due, uint32_t index)
{
    d->heap[index] = due;
    due->index = index + 1;
}

static void move_up(struct sim_dues *d, struct sim_due *due, uint32_t index)
{
    while (index > 0) {
        uint32_t parent = (index - 1) / 2;
        if (!before(due, d->heap[parent]))
            break;
        place(d, d->heap[parent], index);
        index = parent;
    }
    place(d, due, index);
}

static void move_down(struct sim_dues *d, struct sim_due *due, uint32_t index)
{
    for (;;) {
        uint32_t child = 2 * index + 1;
        if (child >= d->count)
            break;
        if (child + 1 < d->count && before(d->heap[child + 1], d->heap[child]))
            child++;
        if (!before(d->heap[child], due))
            break;
        place(d, d->heap[child], index);
        index = child;
    }
    place(d, due, index);
}

int gyre__sim_due_reserve(struct gyre_sim *sim, uint32_t count)
{
    struct sim_dues *d = &sim->dues;
    if (d->reserved + count > d->cap) {
        uint32_t cap = d->cap > 0 ? 2 * d->cap : 64;
        struct sim_due **heap = gyre__resize_many(sim->mem, d->heap, 0, cap, sizeof(struct sim_due *));
        if (heap == NULL)
            return -ENOMEM;
        d->heap = heap;
        d->cap = cap;
    }
    d->reserved += count;
    return 0;
}

void gyre__sim_due_unreserve(struct gyre_sim *sim, uint32_t count)
{
    GYRE_CHECK(sim->dues.reserved >= count && sim->dues.reserved - count >= sim->dues.count);
    sim->dues.reserved -= count;
}

void gyre__sim_due_clear(struct gyre_sim *sim, struct sim_due *due)
{
    struct sim_dues *d = &sim->dues;
    if (due->index == 0)
        return;
    uint32_t index = due->index - 1;
    GYRE_CHECK(index < d->count && d->heap[index] == due);
    struct sim_due *last = d->heap[--d->count];
    due->index = 0;
    if (last == due)
        return;
    if (index > 0 && before(last, d->heap[(index - 1) / 2]))
        move_up(d, last, index);
    else
        move_down(d, last, index);
}

void gyre__sim_due_set(struct gyre_sim *sim, struct sim_due *due, uint64_t at_ns)
{
    struct sim_dues *d = &sim->dues;
    if (due->index != 0 && due->at_ns == at_ns)
        return;
    gyre__sim_due_clear(sim, due);
    GYRE_CHECK(d->count < d->reserved);
    due->at_ns = at_ns;
    due->seq = d->seq++;
    d->count++;
    move_up(d, due, d->count - 1);
}

uint64_t gyre__sim_due_next_ns(const struct gyre_sim *sim)
{
    return sim->dues.count > 0 ? sim->dues.heap[0]->at_ns : SIM_NEVER_NS;
}

void gyre__sim_due_run(struct gyre_sim *sim)
{
    while (gyre__sim_due_next_ns(sim) <= sim->now_ns) {
        struct sim_due *due = sim->dues.heap[0];
        gyre__sim_due_clear(sim, due);
        sim->activity++;
        sim->due_fns[due->kind](due);
    }
}
