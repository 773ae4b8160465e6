/* SPDX-License-Identifier: MIT
 * What other threads may see of connections: a table beside them, by slot, behind a lock of its own.
 *
 * Connections themselves are the loop's alone. Only the loop's thread makes the table grow, opens cells and closes
 * them; others look, by slot and generation, or change the pointer. A loop where nothing is shared has no table. */
#ifndef GYRE_STREAM_SHARED_H
#define GYRE_STREAM_SHARED_H

#include <gyre/conn_id.h>

#include <pthread.h>
#include <stdatomic.h>

struct gyre__cell {
    void *ptr;
    int64_t posted;           /* bytes of writes that wait as tasks */
    _Atomic(size_t) outbound; /* what the connection has queued; written by the loop without the lock */
    uint32_t generation;
    bool open;
};

struct gyre__shared {
    pthread_mutex_t lock;
    struct gyre__cell *cells; /* by slot */
    _Atomic(uint32_t) count;  /* of them */
};

/* Returns 0 or -ENOMEM. */
int gyre__shared_init(struct gyre_loop *l);
void gyre__shared_fini(struct gyre_loop *l);

/* Room for a cell at `slot`. Returns 0 or -ENOMEM. With the lock held. */
int gyre__shared_grow(struct gyre_loop *l, uint32_t slot);

/* The cell of `id`, locked; NULL, not locked, if there is none. Thread: any. */
struct gyre__cell *gyre__cell_lock(struct gyre_conn_id id);
void gyre__cell_unlock(struct gyre_loop *l);

/* Add `bytes` to what is posted for `id`. Returns whether it is shared. Thread: any. */
bool gyre__shared_posted(struct gyre_loop *l, struct gyre_conn_id id, int64_t bytes);

/* The connection's queue has changed. Thread: the loop's; only if it is shared. */
void gyre__shared_publish(struct gyre_conn *c);

/* Others see it no more; gyre_conn_shared() does until its slot is used again. */
void gyre__shared_close(struct gyre_conn *c);

#endif
