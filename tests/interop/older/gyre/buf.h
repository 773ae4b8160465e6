/* SPDX-License-Identifier: MIT
 * <gyre/buf.h> as programs were compiled with it when the interface got its shape, without the comments. */
#ifndef GYRE_BUF_H
#define GYRE_BUF_H
#include <gyre/base.h>
#ifdef __cplusplus
extern "C" {
#endif
struct gyre_conn;
struct gyre_buf;
struct gyre_slice {
    const uint8_t *data;
    size_t len;
};
GYRE_API int gyre_buf_hold(struct gyre_buf **out, struct gyre_slice *view, struct gyre_conn *c, size_t len);
GYRE_API int gyre_buf_release(struct gyre_buf *buf);
#ifdef __cplusplus
}
#endif
#endif
