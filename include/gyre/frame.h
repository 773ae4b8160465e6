/* SPDX-License-Identifier: MIT
 * Framing: cutting a stream into frames, and putting frames into one.
 *
 * A framer knows where a frame begins and ends. Four kinds are built in: lines, a delimiter, a fixed length, a length
 * field. A protocol of your own is a struct gyre_framer with your functions in it. A framer is never changed by its
 * use: one, static, serves all connections on all threads. How far a connection has been searched is kept with the
 * connection, so a frame that comes byte by byte is looked at once, not again with each byte.
 *
 * Push: give the framer to a listener or to gyre_connect() (gyre_conn_options.framer), with an `on_frame` handler in
 * place of `on_data`; it is called for each whole frame, and may change to another framer or to bytes for what follows
 * (gyre_conn_set_framer). Or pull: call gyre_frame_next() in on_data until it says -EAGAIN, with whichever framer is
 * due.
 *
 * A frame may be longer than `read_max_bytes`, and than all receive buffers together: receiving goes on until it is
 * whole, as far as the framer's `frame_max_bytes` allows.
 *
 * What can go wrong: a frame that is too long or makes no sense is GYRE_EFRAME. gyre_frame_next() returns it, again at
 * each call; on_bad_frame is told; without that handler the connection is closed gracefully and on_close gets it. A
 * part of a frame that the peer's end cuts off is not a frame: on_eof finds it with gyre_conn_inbound(). */
#ifndef GYRE_FRAME_H
#define GYRE_FRAME_H

#include <gyre/buf.h>
#include <gyre/conn.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The next frame as a decoder describes it, in bytes from the front of what was received. */
struct gyre_frame {
    size_t skip; /* before the payload: dropped */
    size_t len;  /* of the payload: what on_frame gets */
    size_t drop; /* behind the payload: dropped */
    /* If it is not whole yet. */
    size_t need;    /* bytes that must be here before the decoder is asked again; 0: one more */
    uint64_t state; /* the decoder's own, such as how far it has searched: 0 at first, then what it left */
};

/* How a length field is found and what it says. The whole frame is `offset + width + value + adjustment` bytes. */
struct gyre_length_field {
    uint32_t offset;     /* bytes before the field */
    uint32_t width;      /* of the field: 1, 2, 3, 4 or 8 bytes */
    int64_t adjustment;  /* negative where the value counts the field or what is before it, too */
    uint32_t strip;      /* bytes at the front that are not given to on_frame: usually 0 or `offset + width` */
    bool little_endian;  /* else the first byte of the field is the highest */
};

/* Of gyre_framer_init_line() and gyre_framer_init_delimiter(). */
enum {
    GYRE_FRAME_KEEP = 1u << 0, /* the payload includes what ended it */
    GYRE_FRAME_CRLF = 1u << 1, /* gyre_frame_write() ends lines with \r\n instead of \n */
};

enum { GYRE_DELIMITER_MAX = 64, GYRE_FRAME_HEAD_MAX = 256 };

struct gyre_framer {
    /* Describe the frame at the front of what `c` received. May look (gyre_conn_copy, gyre_conn_peekv, gyre_conn_find,
     * gyre_conn_inbound), must not take, write or close. At least one byte is here, and at least frame->need.
     * Returns 0 with skip, len and drop set, at least 1 together and no more than is here; -EAGAIN if the frame is not
     * whole, with need and state set; or what is wrong with it, usually GYRE_EFRAME. */
    int (*decode)(const struct gyre_framer *framer, struct gyre_conn *c, struct gyre_frame *frame);
    /* Queue these pieces as one frame, by one call of gyre_conn_writev() so that all or nothing is queued. NULL: frames
     * are not written with this framer. Returns as gyre_frame_write(). */
    int (*encode)(const struct gyre_framer *framer, struct gyre_conn *c, const struct iovec *iov, int iov_count);
    size_t frame_max_bytes; /* of a frame as received, header and delimiter included; 0: 1 MiB; at most 1 GiB */
    void *user;             /* for your functions */
    union {                 /* of those built in */
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

/* Make a framer. All return 0, or GYRE_EOPTION, and then `*out` is unchanged. `frame_max_bytes` as in the struct.
 * Thread: any.
 *
 * Lines end with \n; a \r before it belongs to the end. An empty line is an empty frame. `flags`: GYRE_FRAME_KEEP,
 * GYRE_FRAME_CRLF. */
GYRE_API int gyre_framer_init_line(struct gyre_framer *out, unsigned flags, size_t frame_max_bytes);

/* Frames end with these 1 to GYRE_DELIMITER_MAX bytes, which are copied. `flags`: GYRE_FRAME_KEEP. */
GYRE_API int gyre_framer_init_delimiter(struct gyre_framer *out, const void *delimiter, size_t len, unsigned flags,
                                        size_t frame_max_bytes);

/* Each frame is `len` bytes, 1 to 1 GiB. */
GYRE_API int gyre_framer_init_fixed(struct gyre_framer *out, size_t len);

/* A length field, which is copied. `offset + width` and `strip` at most GYRE_FRAME_HEAD_MAX. */
GYRE_API int gyre_framer_init_length(struct gyre_framer *out, const struct gyre_length_field *field,
                                     size_t frame_max_bytes);

/* Take the next whole frame. `*out` is its payload as one piece, in the receive buffer if it lies there in one piece;
 * valid until the handler (or other callback) that called returns. An empty payload has len 0.
 * Returns 0, or: -EAGAIN if no whole frame is here; GYRE_EFRAME, or what the framer's decode said, with nothing
 * taken; -EINVAL if that described no frame, or without a framer; -ENOMEM; GYRE_ECLOSED; GYRE_ETHREAD; GYRE_EOPTION if
 * frame_max_bytes is more than 1 GiB. Thread: the connection's loop. */
GYRE_API int gyre_frame_next(struct gyre_conn *c, const struct gyre_framer *framer, struct gyre_slice *out);

/* Cut with `framer` from now on (borrowed until the connection is closed or given another one), or with NULL hand
 * bytes to on_data; what is here already included. In on_frame it takes effect with what follows that frame.
 * Returns 0, or: GYRE_EHANDLERS if on_frame, or for NULL on_data, is missing; GYRE_EOPTION; -ENOMEM; GYRE_ECLOSED;
 * GYRE_ETHREAD. Thread: the connection's loop. */
GYRE_API int gyre_conn_set_framer(struct gyre_conn *c, const struct gyre_framer *framer);

/* Queue a copy of `len` bytes as one frame, in the way that a peer with the same framer gets the same payload: with the
 * delimiter behind it, or the length field in front. (With GYRE_FRAME_KEEP the data ends with the delimiter already. A
 * length field is written to where it belongs in the `strip` zero bytes and the data together.)
 * Returns as gyre_conn_write(), and: -EINVAL if the data contains the delimiter, is not of the fixed length or too
 * short to contain the length field; -EMSGSIZE if the frame is longer than frame_max_bytes or the field can say;
 * -EOPNOTSUPP without an encode. Thread: the connection's loop. */
GYRE_API int gyre_frame_write(struct gyre_conn *c, const struct gyre_framer *framer, const void *data, size_t len);

/* The same for several pieces that are one frame. `iov_count` 0 to 1022, else -EINVAL. */
GYRE_API int gyre_frame_writev(struct gyre_conn *c, const struct gyre_framer *framer, const struct iovec *iov,
                               int iov_count);

#ifdef __cplusplus
}
#endif

#endif
