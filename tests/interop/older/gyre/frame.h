/* SPDX-License-Identifier: MIT
 * <gyre/frame.h> as programs were compiled with it when the interface got its shape, without the comments. */
#ifndef GYRE_FRAME_H
#define GYRE_FRAME_H
#include <gyre/buf.h>
#include <gyre/conn.h>
#ifdef __cplusplus
extern "C" {
#endif
struct gyre_frame {
    size_t skip;
    size_t len;
    size_t drop;
    size_t need;
    uint64_t state;
};
struct gyre_length_field {
    uint32_t offset;
    uint32_t width;
    int64_t adjustment;
    uint32_t strip;
    bool little_endian;
};
enum {
    GYRE_FRAME_KEEP = 1u << 0,
    GYRE_FRAME_CRLF = 1u << 1,
};
enum { GYRE_DELIMITER_MAX = 64, GYRE_FRAME_HEAD_MAX = 256 };
struct gyre_framer {
    int (*decode)(struct gyre_frame *frame, const struct gyre_framer *framer, struct gyre_conn *c);
    int (*encode)(const struct gyre_framer *framer, struct gyre_conn *c, const struct iovec *iov, int iov_count);
    size_t frame_max_bytes;
    void *user;
    union {
        struct {
            uint8_t bytes[GYRE_DELIMITER_MAX];
            uint8_t border[GYRE_DELIMITER_MAX];
            uint8_t len;
            bool keep;
            bool line;
            bool crlf;
        } delimiter;
        size_t fixed;
        struct gyre_length_field length;
    } of;
};
GYRE_API int gyre_framer_init_line(struct gyre_framer *out, unsigned flags, size_t frame_max_bytes);
GYRE_API int gyre_framer_init_delimiter(struct gyre_framer *out, const void *delimiter, size_t len, unsigned flags,
                                        size_t frame_max_bytes);
GYRE_API int gyre_framer_init_fixed(struct gyre_framer *out, size_t len);
GYRE_API int gyre_framer_init_length(struct gyre_framer *out, const struct gyre_length_field *field,
                                     size_t frame_max_bytes);
GYRE_API int gyre_frame_next(struct gyre_slice *out, struct gyre_conn *c, const struct gyre_framer *framer);
GYRE_API int gyre_conn_set_framer(struct gyre_conn *c, const struct gyre_framer *framer);
GYRE_API int gyre_frame_write(struct gyre_conn *c, const struct gyre_framer *framer, const void *data, size_t len);
GYRE_API int gyre_frame_writev(struct gyre_conn *c, const struct gyre_framer *framer, const struct iovec *iov,
                               int iov_count);
#ifdef __cplusplus
}
#endif
#endif
