/* SPDX-License-Identifier: MIT
 * Framing: dividing received bytes into frames, and encoding frames for sending.
 *
 * A framer knows where a frame begins and ends. Four kinds are built in: lines, delimiter, fixed length, length field.
 * For another protocol, fill a struct gyre_framer with your own functions. Using a framer never changes the framer, so
 * one static framer serves all connections on all threads. The connection remembers how far the received bytes have
 * been searched. So a frame that arrives byte by byte is searched only once.
 *
 * There are two ways to receive frames.
 *   Push: set gyre_conn_options.framer and an `on_frame` handler instead of `on_data`. on_frame runs for each whole
 *     frame. The handler may call gyre_conn_set_framer() to use another framer, or on_data, for the bytes that follow.
 *   Pull: call gyre_frame_next() in on_data until it returns -EAGAIN. Each call may use another framer.
 *
 * A frame may be longer than `read_max_bytes` and longer than all receive buffers together. Receiving continues until
 * the frame is whole, up to `frame_max_bytes` of the framer.
 *
 * Errors. A frame that is too long or invalid is the error GYRE_EFRAME. gyre_frame_next() returns this error, also when
 * called again. With push, on_bad_frame gets the error. Without that handler the connection is closed gracefully, and
 * on_close gets the error. An incomplete frame before the peer's FIN is not an error: in on_eof, gyre_conn_inbound()
 * returns the length of the incomplete frame. With push, an incomplete frame does not keep the connection open after
 * both sides have sent FIN. */
#ifndef GYRE_FRAME_H
#define GYRE_FRAME_H

#include <gyre/buf.h>
#include <gyre/conn.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The next frame as a decoder describes it. Sizes are in bytes, from the front of the received bytes. */
struct gyre_frame {
    size_t skip; /* bytes before the payload, to drop */
    size_t len;  /* bytes of the payload, for on_frame */
    size_t drop; /* bytes after the payload, to drop */
    /* If the frame is not whole yet. */
    size_t need;    /* bytes that must be here before the decoder is called again; 0: one more than now */
    uint64_t state; /* for the decoder, such as the length searched so far; 0 at first, then as the decoder set it */
};

/* Where a length field is and what its value means. The whole frame is `offset + width + value + adjustment` bytes. */
struct gyre_length_field {
    uint32_t offset;     /* bytes before the field */
    uint32_t width;      /* bytes of the field: 1, 2, 3, 4 or 8 */
    int64_t adjustment;  /* negative if the value also counts the field or bytes before it; -1 GiB to 1 GiB */
    uint32_t strip;      /* bytes at the front that on_frame does not get: usually 0 or `offset + width` */
    bool little_endian;  /* false: the first byte of the field is the most significant */
};

/* Flags of gyre_framer_init_line() and gyre_framer_init_delimiter(). */
enum {
    GYRE_FRAME_KEEP = 1u << 0, /* the payload includes the delimiter */
    GYRE_FRAME_CRLF = 1u << 1, /* gyre_frame_write() ends lines with \r\n instead of \n */
};

enum { GYRE_DELIMITER_MAX = 64, GYRE_FRAME_HEAD_MAX = 256 };

struct gyre_framer {
    /* Describe the frame at the front of the bytes that `c` received. At least one byte is here, and at least
     * frame->need. The function may look at bytes (gyre_conn_copy, gyre_conn_peekv, gyre_conn_find, gyre_conn_inbound).
     * The function must not consume, write or close.
     * Returns 0 with skip, len and drop set; their sum is at least 1 and at most the bytes received. Errors:
     *   -EAGAIN: the frame is not whole; need and state are set
     *   GYRE_EFRAME, usually, or another error: the frame is invalid */
    int (*decode)(struct gyre_frame *frame, const struct gyre_framer *framer, struct gyre_conn *c);
    /* Queue these pieces as one frame. Call gyre_conn_writev() once, so that all or nothing is queued. NULL: the framer
     * cannot write frames. Returns as gyre_frame_write(). */
    int (*encode)(const struct gyre_framer *framer, struct gyre_conn *c, const struct iovec *iov, int iov_count);
    size_t frame_max_bytes; /* limit on a received frame, with header and delimiter; 0: 1 MiB; at most 1 GiB */
    void *user;             /* for your functions */
    union {                 /* for the built-in functions */
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

/* The functions gyre_framer_init_*() fill in `*out`. They return 0, or GYRE_EOPTION: an argument is out of range, and
 * `*out` is unchanged. `frame_max_bytes` is described in struct gyre_framer. Thread: any.
 *
 * Make a framer for lines that end with \n. A \r before the \n belongs to the delimiter. An empty line is an empty
 * frame. `flags`: GYRE_FRAME_KEEP, GYRE_FRAME_CRLF. */
GYRE_API int gyre_framer_init_line(struct gyre_framer *out, unsigned flags, size_t frame_max_bytes);

/* Make a framer for frames that end with `delimiter`, `len` bytes (1 to GYRE_DELIMITER_MAX), which are copied.
 * `flags`: GYRE_FRAME_KEEP. */
GYRE_API int gyre_framer_init_delimiter(struct gyre_framer *out, const void *delimiter, size_t len, unsigned flags,
                                        size_t frame_max_bytes);

/* Make a framer for frames of `len` bytes each, 1 to 1 GiB. */
GYRE_API int gyre_framer_init_fixed(struct gyre_framer *out, size_t len);

/* Make a framer for frames with a length field. `*field` is copied. `offset + width` and `strip` are at most
 * GYRE_FRAME_HEAD_MAX. */
GYRE_API int gyre_framer_init_length(struct gyre_framer *out, const struct gyre_length_field *field,
                                     size_t frame_max_bytes);

/* Consume the next whole frame. `*out` is its payload in one piece. The payload is copied only if it lies in several
 * pieces. The view is valid until the current handler or other callback returns. An empty payload has len 0.
 * Returns 0. On an error nothing is consumed:
 *   -EAGAIN: no whole frame is here
 *   GYRE_EFRAME or another error of the framer's decode: the frame is invalid
 *   -EINVAL: `framer` is NULL or has no decode, or decode returned 0 without describing a frame
 *   GYRE_EOPTION: `frame_max_bytes` is more than 1 GiB
 *   GYRE_ECLOSED, GYRE_ETHREAD, -ENOMEM: the common errors of conn.h
 * Thread: the connection's loop. */
GYRE_API int gyre_frame_next(struct gyre_slice *out, struct gyre_conn *c, const struct gyre_framer *framer);

/* Change the framer, or with NULL pass the bytes to on_data. The change applies to all bytes that are not consumed; in
 * on_frame, to the bytes after the current frame. The framer is borrowed until the connection is closed or gets another
 * framer.
 * Returns 0. Errors: the common errors of conn.h, and
 *   GYRE_EHANDLERS: on_frame, or for NULL on_data, is missing
 *   GYRE_EOPTION: the framer has no decode, or `frame_max_bytes` is more than 1 GiB
 * Thread: the connection's loop. */
GYRE_API int gyre_conn_set_framer(struct gyre_conn *c, const struct gyre_framer *framer);

/* Encode `len` bytes as one frame and queue the frame. A peer that uses the same framer receives the same payload.
 *   lines, delimiter: the delimiter is appended. With GYRE_FRAME_KEEP the data must already end with the delimiter.
 *   length field: the frame is `strip` zero bytes and then the data. The length is then written at `offset`.
 * Returns 0. Errors as gyre_conn_write(), and
 *   -EINVAL: `framer` is NULL; the data contains the delimiter; with GYRE_FRAME_KEEP, the data does not end with a
 *     delimiter or contains another one; a line ends with \r; the data is not of the fixed length; the data is too
 *     short to contain the length field
 *   -EMSGSIZE: the frame is longer than `frame_max_bytes`, or its length does not fit the field
 *   -EOPNOTSUPP: the framer has no encode
 * Thread: the connection's loop. */
GYRE_API int gyre_frame_write(struct gyre_conn *c, const struct gyre_framer *framer, const void *data, size_t len);

/* Encode several pieces as one frame and queue the frame. Returns as gyre_frame_write(), and -EINVAL if `iov_count` is
 * not 0 to 1022. */
GYRE_API int gyre_frame_writev(struct gyre_conn *c, const struct gyre_framer *framer, const struct iovec *iov,
                               int iov_count);

#ifdef __cplusplus
}
#endif

#endif
