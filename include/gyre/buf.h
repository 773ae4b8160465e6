/* SPDX-License-Identifier: MIT
 * Views of bytes, and keeping one longer than the handler that saw it. */
#ifndef GYRE_BUF_H
#define GYRE_BUF_H

#include <gyre/base.h>

#ifdef __cplusplus
extern "C" {
#endif

struct gyre_conn;
struct gyre_buf;

/* `len` bytes at `data`. Who owns them, and until when, is said where one is handed out. */
struct gyre_slice {
    const uint8_t *data;
    size_t len;
};

/* Take the first `len` bytes of what `c` received (1 to gyre_conn_inbound()) and keep them beyond the handler: `*view`
 * stays valid until gyre_buf_release(*out). Without a copy where the bytes lie in one receive buffer and enough of
 * those are free, else with one. Held receive buffers count against `buf_count_max`.
 * Returns 0, or: -EAGAIN if fewer bytes are here; -EINVAL for len 0; -ENOMEM; GYRE_ECLOSED; GYRE_ETHREAD.
 * Thread: the connection's loop. */
GYRE_API int gyre_buf_hold(struct gyre_buf **out, struct gyre_slice *view, struct gyre_conn *c, size_t len);

/* Give a held buffer back. Thread: the loop it came from, before that is destroyed. */
GYRE_API void gyre_buf_release(struct gyre_buf *buf);

#ifdef __cplusplus
}
#endif

#endif
