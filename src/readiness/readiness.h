/* SPDX-License-Identifier: MIT
 * The record of the engine: what readiness.c works on, and life.c makes and ends. */
#ifndef GYRE_READINESS_READINESS_H
#define GYRE_READINESS_READINESS_H

#include "poller.h"
#include "seam/fdq.h"

#include <stdatomic.h>

struct gyre__rd {
    struct gyre__backend base;
    const struct gyre_mem *mem;
    const struct gyre__poller_ops *poller;
    struct gyre__poller p;
    struct gyre__fdq run[2];   /* descriptors with a waiting op in a direction believed ready */
    struct gyre__kept_errors errors; /* that the poller told of */
    uint32_t attached;
    struct gyre__op *cancelled; /* circular list of ops whose -ECANCELED is due; the last one */
    unsigned unpolled;         /* turns since the poller was asked */
    bool reads_due;            /* sends took up all of the turn before */
    bool pollable;             /* somebody polls our descriptor: it must show what is left in the run queues too */
    bool shown;                /* it does so, by a wake of our own whose answer has not been taken */
    atomic_bool woken;         /* wake() was called, and its answer has not been taken */
};

static inline struct gyre__rd *gyre__rd_of(struct gyre__backend *be)
{
    return GYRE_CONTAINER(be, struct gyre__rd, base);
}

#endif
