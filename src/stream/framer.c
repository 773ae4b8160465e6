/* SPDX-License-Identifier: MIT
 * The framers that are built in: line, delimiter, fixed length, length field.
 *
 * A delimiter is searched with the Knuth-Morris-Pratt automaton: after each byte it is known how much of the delimiter
 * the bytes so far end with. That number and the place are all that is kept between calls, so no byte is looked at
 * twice, however the stream was cut and whatever it repeats. memchr() skips what cannot begin a delimiter. */
#include "conn.h"
#include "frame.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

enum { MATCH_BITS = 8 };

/* ---- delimiters ---- */

/* border[i]: of how many bytes the longest beginning is that the first i+1 bytes also end with, themselves left out. */
static void find_borders(struct gyre_framer *f)
{
    const uint8_t *bytes = f->of.delimiter.bytes;
    uint8_t k = 0;
    f->of.delimiter.border[0] = 0;
    for (uint8_t i = 1; i < f->of.delimiter.len; i++) {
        while (k > 0 && bytes[i] != bytes[k])
            k = f->of.delimiter.border[k - 1];
        if (bytes[i] == bytes[k])
            k++;
        f->of.delimiter.border[i] = k;
    }
}

/* Go on with `len` bytes. `*matched` is how many bytes of the delimiter the bytes before end with. Returns how many
 * bytes were looked at: up to the end of the delimiter, where `*matched` is its length, or all. */
static size_t search(const struct gyre_framer *f, const uint8_t *data, size_t len, unsigned *matched)
{
    const uint8_t *bytes = f->of.delimiter.bytes;
    unsigned m = *matched, goal = f->of.delimiter.len;
    size_t i = 0;
    while (i < len && m < goal) {
        if (m == 0) {
            const uint8_t *first = memchr(data + i, bytes[0], len - i);
            if (first == NULL) {
                i = len;
                break;
            }
            i = (size_t)(first - data);
        }
        while (m > 0 && data[i] != bytes[m])
            m = f->of.delimiter.border[m - 1];
        if (data[i] == bytes[m])
            m++;
        i++;
    }
    *matched = m;
    return i;
}

/* What was received, from `from` on. Returns the place behind the delimiter, or 0 if it is not there. */
static size_t search_inbound(const struct gyre_framer *f, const struct gyre_conn *c, size_t from, unsigned *matched)
{
    const struct gyre__seg *seg = gyre__segq_head(&c->in);
    for (size_t before = 0; seg != NULL; before += seg->len, seg = seg == c->in.tail ? NULL : seg->next) {
        size_t at = from > before ? from - before : 0;
        if (at >= seg->len)
            continue;
        at += search(f, seg->data + at, seg->len - at, matched);
        if (*matched == f->of.delimiter.len)
            return before + at;
    }
    return 0;
}

static int decode_delimiter(struct gyre_frame *frame, const struct gyre_framer *f, struct gyre_conn *c)
{
    unsigned matched = (unsigned)(frame->state & ((1u << MATCH_BITS) - 1));
    int err = gyre__conn_look(c); /* done already, but where a decoder of the user's calls this one */
    if (err != 0)
        return err;
    size_t end = search_inbound(f, c, (size_t)(frame->state >> MATCH_BITS), &matched);
    if (end == 0) {
        frame->state = (uint64_t)c->in.bytes << MATCH_BITS | matched;
        frame->need = 0;
        return -EAGAIN;
    }
    frame->len = end;
    if (f->of.delimiter.keep)
        return 0;
    frame->drop = f->of.delimiter.len;
    frame->len -= frame->drop;
    uint8_t last = 0;
    if (f->of.delimiter.line && frame->len > 0 && gyre_conn_copy(&last, 1, c, frame->len - 1) == 1 && last == '\r') {
        frame->len--;
        frame->drop++;
    }
    return 0;
}

/* Whether the first delimiter in these bytes ends at their end: else the peer would cut them elsewhere. */
static bool ends_once(const struct gyre_framer *f, const struct iovec *iov, int iov_count, size_t total)
{
    unsigned matched = 0;
    size_t seen = 0;
    for (int i = 0; i < iov_count && matched < f->of.delimiter.len; i++)
        seen += search(f, iov[i].iov_base, iov[i].iov_len, &matched);
    return matched == f->of.delimiter.len && seen == total;
}

/* -1 if there is none. */
static int last_byte(const struct iovec *iov, int iov_count)
{
    while (iov_count > 0 && iov[iov_count - 1].iov_len == 0)
        iov_count--;
    if (iov_count == 0)
        return -1;
    const struct iovec *last = &iov[iov_count - 1];
    return ((const uint8_t *)last->iov_base)[last->iov_len - 1];
}

static int encode_delimiter(const struct gyre_framer *f, struct gyre_conn *c, const struct iovec *iov, int iov_count)
{
    struct iovec all[GYRE_FRAME_PIECES_MAX + 1];
    uint8_t end[GYRE_DELIMITER_MAX];
    size_t total = gyre__iov_bytes(iov, iov_count), end_len = f->of.delimiter.len;
    if (f->of.delimiter.keep)
        return ends_once(f, iov, iov_count, total) ? gyre_conn_writev(c, iov, iov_count) : -EINVAL;
    memcpy(end, f->of.delimiter.bytes, end_len);
    if (f->of.delimiter.crlf)
        memcpy(end, "\r\n", end_len = 2);
    else if (f->of.delimiter.line && last_byte(iov, iov_count) == '\r')
        return -EINVAL; /* it would go with the end */
    if (iov_count > 0)
        memcpy(all, iov, (size_t)iov_count * sizeof *iov);
    all[iov_count] = (struct iovec){.iov_base = end, .iov_len = end_len};
    if (!ends_once(f, all, iov_count + 1, total + end_len))
        return -EINVAL;
    return total + end_len > gyre__frame_max(f) ? -EMSGSIZE : gyre_conn_writev(c, all, iov_count + 1);
}

int gyre_framer_init_delimiter(struct gyre_framer *out, const void *delimiter, size_t len, unsigned flags,
                               size_t frame_max_bytes)
{
    if (out == NULL || delimiter == NULL)
        return gyre__refuse("%s is NULL", out == NULL ? "out" : "delimiter");
    if ((flags & ~(unsigned)GYRE_FRAME_KEEP) != 0)
        return gyre__refuse("flags is 0x%x; the flag is GYRE_FRAME_KEEP", flags);
    const struct gyre__range ranges[] = {
        {"len", gyre__size_value(len), 1, GYRE_DELIMITER_MAX},
        {"frame_max_bytes", gyre__size_value(frame_max_bytes), frame_max_bytes != 0 ? gyre__size_value(len) : 0,
         GYRE_FRAME_LIMIT},
    };
    int err = gyre__check_ranges(ranges, sizeof ranges / sizeof ranges[0]);
    if (err != 0)
        return err;
    struct gyre_framer f = {
        .decode = decode_delimiter, .encode = encode_delimiter, .frame_max_bytes = frame_max_bytes};
    memcpy(f.of.delimiter.bytes, delimiter, len);
    f.of.delimiter.len = (uint8_t)len;
    f.of.delimiter.keep = (flags & GYRE_FRAME_KEEP) != 0;
    find_borders(&f);
    *out = f;
    return 0;
}

int gyre_framer_init_line(struct gyre_framer *out, unsigned flags, size_t frame_max_bytes)
{
    struct gyre_framer f;
    if (out == NULL)
        return gyre__refuse("out is NULL");
    if ((flags & ~(unsigned)(GYRE_FRAME_CRLF | GYRE_FRAME_KEEP)) != 0)
        return gyre__refuse("flags is 0x%x; the flags are GYRE_FRAME_KEEP and GYRE_FRAME_CRLF", flags);
    int err = gyre_framer_init_delimiter(&f, "\n", 1, flags & GYRE_FRAME_KEEP, frame_max_bytes);
    if (err != 0)
        return err;
    f.of.delimiter.line = true;
    f.of.delimiter.crlf = (flags & GYRE_FRAME_CRLF) != 0;
    *out = f;
    return 0;
}

/* ---- fixed length ---- */

static int decode_fixed(struct gyre_frame *frame, const struct gyre_framer *f, struct gyre_conn *c)
{
    frame->len = f->of.fixed;
    frame->need = f->of.fixed;
    return c->in.bytes < f->of.fixed ? -EAGAIN : 0;
}

static int encode_fixed(const struct gyre_framer *f, struct gyre_conn *c, const struct iovec *iov, int iov_count)
{
    return gyre__iov_bytes(iov, iov_count) == f->of.fixed ? gyre_conn_writev(c, iov, iov_count) : -EINVAL;
}

int gyre_framer_init_fixed(struct gyre_framer *out, size_t len)
{
    int err = out == NULL ? gyre__refuse("out is NULL")
                          : gyre__check_range("len", gyre__size_value(len), 1, GYRE_FRAME_LIMIT);
    if (err != 0)
        return err;
    *out = (struct gyre_framer){
        .decode = decode_fixed, .encode = encode_fixed, .frame_max_bytes = len, .of = {.fixed = len}};
    return 0;
}

/* ---- length field ---- */

static uint64_t get_number(const uint8_t *bytes, uint32_t width, bool little_endian)
{
    uint64_t value = 0;
    for (uint32_t i = 0; i < width; i++)
        value = value << 8 | bytes[little_endian ? width - 1 - i : i];
    return value;
}

static void put_number(uint8_t *bytes, uint32_t width, bool little_endian, uint64_t value)
{
    for (uint32_t i = 0; i < width; i++, value >>= 8)
        bytes[little_endian ? i : width - 1 - i] = (uint8_t)value;
}

static int decode_length(struct gyre_frame *frame, const struct gyre_framer *f, struct gyre_conn *c)
{
    const struct gyre_length_field *field = &f->of.length;
    uint32_t head = field->offset + field->width;
    uint8_t bytes[8];
    frame->need = head;
    if (c->in.bytes < head)
        return -EAGAIN;
    if (gyre_conn_copy(bytes, field->width, c, field->offset) < field->width)
        return -ENOMEM; /* where a decoder of the user's calls this one, and they came through a pipe */
    uint64_t value = get_number(bytes, field->width, field->little_endian);
    /* Neither sum can overflow: the adjustment is bounded, and a value above the limit is refused before. */
    if (value > 2 * (uint64_t)GYRE_FRAME_LIMIT)
        return GYRE_EFRAME;
    int64_t total = (int64_t)head + (int64_t)value + field->adjustment;
    if (total < (int64_t)head || total < (int64_t)field->strip || total > (int64_t)gyre__frame_max(f))
        return GYRE_EFRAME;
    frame->need = (size_t)total;
    if (c->in.bytes < (size_t)total)
        return -EAGAIN;
    frame->skip = field->strip;
    frame->len = (size_t)total - field->strip;
    return 0;
}

/* The beginning of the frame, as far as decoding looks at it, is put together in `head`; the rest is the user's. */
static int encode_length(const struct gyre_framer *f, struct gyre_conn *c, const struct iovec *iov, int iov_count)
{
    const struct gyre_length_field *field = &f->of.length;
    uint8_t head[GYRE_FRAME_HEAD_MAX] = {0};
    struct iovec all[GYRE_FRAME_PIECES_MAX + 1];
    size_t total = field->strip + gyre__iov_bytes(iov, iov_count), field_end = field->offset + field->width;
    size_t head_len = field->strip > field_end ? field->strip : field_end, filled = field->strip;
    if (total < field_end)
        return -EINVAL;
    int64_t value = (int64_t)(total - field_end) - field->adjustment;
    if (value < 0 || (field->width < 8 && (uint64_t)value >> (8 * field->width) != 0) || total > gyre__frame_max(f))
        return -EMSGSIZE;
    for (int i = 0; i < iov_count; i++) {
        size_t part = iov[i].iov_len < head_len - filled ? iov[i].iov_len : head_len - filled;
        if (part > 0)
            memcpy(head + filled, iov[i].iov_base, part);
        filled += part;
        all[i + 1] = (struct iovec){.iov_base = part > 0 ? (uint8_t *)iov[i].iov_base + part : iov[i].iov_base,
                                    .iov_len = iov[i].iov_len - part};
    }
    put_number(head + field->offset, field->width, field->little_endian, (uint64_t)value);
    all[0] = (struct iovec){.iov_base = head, .iov_len = head_len};
    return gyre_conn_writev(c, all, iov_count + 1);
}

int gyre_framer_init_length(struct gyre_framer *out, const struct gyre_length_field *field, size_t frame_max_bytes)
{
    if (out == NULL || field == NULL)
        return gyre__refuse("%s is NULL", out == NULL ? "out" : "field");
    if ((field->width < 1 || field->width > 4) && field->width != 8)
        return gyre__refuse("width is %u; it must be 1, 2, 3, 4 or 8", field->width);
    const struct gyre__range ranges[] = {
        {"frame_max_bytes", gyre__size_value(frame_max_bytes), 0, GYRE_FRAME_LIMIT},
        {"offset", field->offset, 0, GYRE_FRAME_HEAD_MAX - field->width},
        {"strip", field->strip, 0, GYRE_FRAME_HEAD_MAX},
        {"adjustment", field->adjustment, -(int64_t)GYRE_FRAME_LIMIT, (int64_t)GYRE_FRAME_LIMIT},
    };
    int err = gyre__check_ranges(ranges, sizeof ranges / sizeof ranges[0]);
    if (err != 0)
        return err;
    struct gyre_framer f = {.decode = decode_length,
                            .encode = encode_length,
                            .frame_max_bytes = frame_max_bytes,
                            .of = {.length = *field}};
    if (gyre__frame_max(&f) < field->offset + field->width || gyre__frame_max(&f) < field->strip)
        return gyre__refuse("frame_max_bytes is %zu; it must contain the length field, and `strip` bytes",
                            frame_max_bytes);
    *out = f;
    return 0;
}
