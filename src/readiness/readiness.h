/* SPDX-License-Identifier: MIT
 * The record of the engine: what readiness.c works on, and life.c makes and ends. */
#ifndef GYRE_READINESS_READINESS_H
#define GYRE_READINESS_READINESS_H

#include "poller.h"
#include "seam/fdq.h"

#include <stdatomic.h>

struct gyre_rd {
    struct gyre_backend base;
    const struct gyre_mem *mem;
    const struct gyre_poller_ops *poller;
    struct gyre_poller p;
    struct gyre__fdq run[2];   /* descriptors with a waiting op in a direction believed ready */
    struct gyre__kept_errors errors; /* that the poller told of */
    uint32_t attached;
    struct gyre_op *cancelled; /* circular list of ops whose -ECANCELED is due; the last one */
    unsigned unpolled;         /* turns since the poller was asked */
    bool reads_due;            /* sends took up all of the turn before */
    bool pollable;             /* somebody polls our descriptor: it must show what is left in the run queues too */
    bool shown;                /* it does so, by a wake of our own whose answer has not been taken */
    atomic_bool woken;         /* wake() was called, and its answer has not been taken */
};

static inline struct gyre_rd *gyre__rd_of(struct gyre_backend *be)
{
    return GYRE_CONTAINER(be, struct gyre_rd, base);
}

#endif
