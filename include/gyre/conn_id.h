/* SPDX-License-Identifier: MIT
 * Stream connections from other threads: an id names a connection and may outlive it. Calls by id may be made on any
 * thread. */
#ifndef GYRE_CONN_ID_H
#define GYRE_CONN_ID_H

#include <gyre/conn.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Post errors. A call that posts to the connection's loop returns 0 or one of these. After an error the `done` of the
 * call does not run.
 *   -EAGAIN: `tasks_max` tasks are queued
 *   -EINVAL: `id.loop` or a required pointer is NULL, or a size is out of range
 *   -ENOMEM: out of memory
 *   GYRE_ESHUTDOWN: the loop is being destroyed
 *   GYRE_EFORK: the loop belongs to the parent process */

/* Identifies a connection and may outlive it. After the connection closed, the id is stale: it never refers to another
 * connection (until 2^32 connections have used the same slot). An id may be copied. The loop must outlive its use. */
struct gyre_conn_id {
    struct gyre_loop *loop;
    uint32_t slot;
    uint32_t generation;
};

/* Return the connection's id. Thread: the connection's loop. */
GYRE_API struct gyre_conn_id gyre_conn_id_of(const struct gyre_conn *c);

/* Return the connection, borrowed, or NULL if the id is stale. Thread: the loop's. */
GYRE_API struct gyre_conn *gyre_conn_from_id(struct gyre_conn_id id);

/* Queue a copy of `len` bytes on the connection's loop. The call posts, also on the loop's own thread: bytes that
 * gyre_conn_write() queues before the posted task runs go first. `done(err, user)` (may be NULL) runs once on that
 * loop. `err` is 0 when the kernel has accepted the bytes, GYRE_ESTALE if the connection was gone, the error of
 * gyre_conn_write(), or the error that ended the connection. Returns 0 or a post error. Thread: any. */
GYRE_API int gyre_conn_id_write(struct gyre_conn_id id, const void *data, size_t len, gyre_sent_fn *done, void *user);

/* gyre_conn_id_write() of `iov_count` (0 to 1024) pieces, which are copied as one write. Thread: any. */
GYRE_API int gyre_conn_id_writev(struct gyre_conn_id id, const struct iovec *iov, int iov_count, gyre_sent_fn *done,
                                 void *user);

/* gyre_conn_id_write() without a copy. Borrows `data` until `done`, which runs once on the loop if 0 was returned,
 * even if the connection has closed. Thread: any. */
GYRE_API int gyre_conn_id_write_ref(struct gyre_conn_id id, const void *data, size_t len, gyre_sent_fn *done,
                                    void *user);

/* Call gyre_conn_wake(), gyre_conn_close() or gyre_conn_abort() on the connection's loop. A stale id has no effect.
 * Return 0 or a post error. Thread: any. */
GYRE_API int gyre_conn_id_wake(struct gyre_conn_id id);
GYRE_API int gyre_conn_id_close(struct gyre_conn_id id);
GYRE_API int gyre_conn_id_abort(struct gyre_conn_id id);

typedef void gyre_closed_fn(int err, void *user);

/* Close as gyre_conn_id_close(). `done(err, user)` runs once on the connection's loop, after on_close, with the error
 * of on_close, also if the connection was closing already. `err` may also be GYRE_ESTALE: the connection was gone, or
 * was detached; or -ENOMEM: it was not closed. Returns 0 or a post error. Thread: any. */
GYRE_API int gyre_conn_id_close_then(struct gyre_conn_id id, gyre_closed_fn *done, void *user);

/* ---- What other threads may see ---- */

/* Let other threads read, by id, a pointer of yours and the number of queued bytes. Before this call, and from just
 * before on_close, those threads get GYRE_ESTALE. Another call changes the pointer. You own the object that `shared`
 * points to. Count references if a thread may use the object while on_close runs. Returns 0. Errors: common.
 * Thread: the connection's loop. */
GYRE_API int gyre_conn_share(struct gyre_conn *c, void *shared);

/* Return the shared pointer, or NULL if none was set. Release the object in on_close. Thread: the connection's loop. */
GYRE_API void *gyre_conn_shared(const struct gyre_conn *c);

/* Get the shared pointer, or replace it. `*old` (may be NULL) receives the previous one. A thread that gets the pointer
 * sees what another thread wrote before setting it. Return 0. Errors: GYRE_ESTALE; -EINVAL: `id.loop` or `out` is NULL.
 * Thread: any. */
GYRE_API int gyre_conn_id_shared(void **out, struct gyre_conn_id id);
GYRE_API int gyre_conn_id_set_shared(void **old, struct gyre_conn_id id, void *shared);

/* Return the queued bytes of a shared connection at this moment: gyre_conn_outbound() plus the bytes that
 * gyre_conn_id_write() and its variants have posted since gyre_conn_share() and that the loop has not queued yet.
 * Errors: GYRE_ESTALE; -EINVAL: `id.loop` is NULL. Thread: any. */
GYRE_API int64_t gyre_conn_id_outbound(struct gyre_conn_id id);

#ifdef __cplusplus
}
#endif

#endif
