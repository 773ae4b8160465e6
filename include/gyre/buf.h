/* SPDX-License-Identifier: MIT
 * Views of received bytes, and keeping a view after the handler has returned. */
#ifndef GYRE_BUF_H
#define GYRE_BUF_H

#include <gyre/base.h>

#ifdef __cplusplus
extern "C" {
#endif

struct gyre_conn;
struct gyre_buf;

/* A view: `len` bytes at `data`, which the view does not own. The table in conn.h says how long each view is valid. */
struct gyre_slice {
    const uint8_t *data;
    size_t len;
};

/* Consume the first `len` bytes that `c` received (1 to gyre_conn_inbound()) and keep them. `*out` receives a buffer
 * that you own; free the buffer with gyre_buf_release(). `*view` receives the bytes and is valid until
 * gyre_buf_release(). The bytes are copied, unless they lie in one receive buffer and at most three quarters of
 * `buf_count_max` buffers are in use. A held receive buffer counts against `buf_count_max`.
 * Returns 0. Errors:
 *   -EAGAIN: fewer than `len` bytes have been received
 *   -EINVAL: `len` is 0
 *   -ENOMEM: out of memory
 *   GYRE_ECLOSED: `c` is NULL, closing or closed
 *   GYRE_ETHREAD: the calling thread is not the loop's
 * Thread: the connection's loop. */
GYRE_API int gyre_buf_hold(struct gyre_buf **out, struct gyre_slice *view, struct gyre_conn *c, size_t len);

/* Release a held buffer, before its loop is destroyed. NULL is allowed.
 * Returns 0. Errors:
 *   GYRE_ETHREAD: the calling thread is not the loop's; the buffer stays held
 * Thread: the loop's, on which the bytes were received. */
GYRE_API int gyre_buf_release(struct gyre_buf *buf);

#ifdef __cplusplus
}
#endif

#endif
