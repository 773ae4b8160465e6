/* SPDX-License-Identifier: MIT
 * A scene on one loop that is played again and again, each time with another call for memory refused: the first, the
 * second, … until it passes untouched, once only and from then on.
 *
 * A scene sets itself up with memory, calls refused_begin(), acts, calls refused_over(), and finishes what it began:
 * now there is memory again. Whatever it was told in between must be -ENOMEM or nothing; refused_note() sees to that.
 * The balance of memory and descriptors is drawn after each time. */
#ifndef GYRE_FAULT_REFUSED_H
#define GYRE_FAULT_REFUSED_H

#include "backends.h"
#include "fault_mem.h"

#include <gyre.h>
#include <gyre/sim.h>

struct refused {
    struct fault_mem mem; /* for what else the scene makes */
    struct gyre_sim *sim; /* NULL: a kernel's backend */
    struct gyre_loop *loop;
    char where[96]; /* for messages */
    bool struck;    /* a call was refused */
    bool over;
    long n;
    enum fault_mode mode;
};

typedef void refused_scene(struct refused *r);

/* Skip or fail the test if the backend does not open here. */
void refused_need(const struct backend_param *p);

/* Play it for every call, in both ways. It must ask for memory at least `calls_min` times, else it tests nothing. */
void refused_each(const struct backend_param *p, refused_scene *scene, long calls_min);

void refused_begin(struct refused *r);
void refused_over(struct refused *r);

/* One turn; a millisecond passes on the simulator, and at most that on a kernel with nothing to do. */
void refused_turn(struct refused *r);

/* Returns `err`, which must be 0, or -ENOMEM after a call was refused. */
int refused_note(struct refused *r, int err);

/* Turn until the condition holds. */
#define refused_until(r, cond)                                                                                         \
    do {                                                                                                               \
        uint64_t until_end_ns = env_now_ns() + UINT64_C(20000000000);                                                  \
        while (!(cond)) {                                                                                              \
            cr_assert(env_now_ns() < until_end_ns, "%s: in vain, though there is memory: %s", (r)->where, #cond);      \
            refused_turn(r);                                                                                           \
        }                                                                                                              \
    } while (0)

#endif
