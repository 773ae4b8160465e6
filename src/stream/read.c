/* SPDX-License-Identifier: MIT
 * Reading: what a handler does with received bytes: look, take, copy, discard, search, hold. Bytes that came by pipe
 * are read out of it first. */
#include "conn.h"
#include "buffer/buf.h"

#include <errno.h>
#include <string.h>

/* What the user took may let receiving go on; settling sees to it. */
static void took(struct gyre_conn *c)
{
    gyre__conn_forget_frame(c);
    if (GYRE_UNLIKELY(c->recv.state == GYRE_OPS_IDLE))
        gyre__conn_settle_later(c);
}

size_t gyre_conn_inbound(const struct gyre_conn *c)
{
    return c->in.bytes;
}

/* Join everything into one chunk with room to grow. */
static int join(struct gyre_conn *c, size_t len)
{
    struct gyre__segs *segs = &c->loop->segs;
    size_t size = GYRE_CHUNK_SIZE;
    while (size < c->in.bytes || size < len)
        size *= 2;
    struct gyre__seg *chunk = gyre__seg_chunk(segs, (uint32_t)size);
    if (chunk == NULL)
        return -ENOMEM;
    while (c->in.tail != NULL) {
        struct gyre__seg *seg = gyre__segq_pop(&c->in);
        memcpy(chunk->data + chunk->len, seg->data, seg->len);
        chunk->len += seg->len;
        chunk->u.chunk.room -= seg->len;
        gyre__count(&c->loop->be->stats.bytes_copied_in, seg->len);
        gyre__seg_retire(segs, seg);
    }
    gyre__segq_push(&c->in, chunk);
    return 0;
}

int gyre_conn_peek(struct gyre_slice *out, struct gyre_conn *c, size_t len)
{
    int err = gyre__conn_readable(c);
    if (err == 0)
        err = gyre__conn_look(c);
    if (err != 0)
        return err;
    const struct gyre__seg *head = gyre__segq_head(&c->in);
    if (len > c->in.bytes)
        return len > c->profile->options.read_max_bytes ? -EMSGSIZE : -EAGAIN;
    if (head == NULL) {
        *out = (struct gyre_slice){.len = 0};
        return 0;
    }
    if (len > head->len) {
        err = join(c, len);
        if (err != 0)
            return err;
        head = gyre__segq_head(&c->in);
    }
    *out = (struct gyre_slice){.data = head->data, .len = len != 0 ? len : head->len};
    return 0;
}

int gyre_conn_peekv(struct iovec *iov, int iov_count, struct gyre_conn *c)
{
    struct gyre__seg *seg = NULL;
    if (gyre__conn_readable(c) == 0 && gyre__conn_look(c) == 0)
        seg = gyre__segq_head(&c->in);
    int n = 0;
    for (; seg != NULL && n < iov_count; n++) {
        iov[n] = (struct iovec){.iov_base = seg->data, .iov_len = seg->len};
        seg = seg == c->in.tail ? NULL : seg->next;
    }
    return n;
}

/* Copy `len` bytes, those behind the first `from`: all of them must be here. */
static void copy_out(const struct gyre_conn *c, size_t from, uint8_t *dst, size_t len)
{
    const struct gyre__seg *seg = gyre__segq_head(&c->in);
    for (; len > 0; seg = seg->next) {
        if (from >= seg->len) {
            from -= seg->len;
            continue;
        }
        size_t part = seg->len - from < len ? seg->len - from : len;
        memcpy(dst, seg->data + from, part);
        dst += part;
        len -= part;
        from = 0;
    }
}

int gyre__conn_take(struct gyre_conn *c, size_t skip, size_t len, size_t drop, struct gyre_slice *out)
{
    struct gyre__segs *segs = &c->loop->segs;
    struct gyre__seg *head = gyre__segq_head(&c->in);
    const uint8_t *data = head->data;
    if (len > 0 && skip + len <= head->len) {
        data += skip;
    } else if (len > 0) {
        struct gyre__seg *chunk = gyre__seg_chunk(segs, (uint32_t)len);
        if (chunk == NULL)
            return -ENOMEM;
        copy_out(c, skip, chunk->data, len);
        gyre__count(&c->loop->be->stats.bytes_copied_in, len);
        data = chunk->data;
        gyre__seg_retire(segs, chunk);
    }
    gyre__segq_consume(&c->in, segs, skip + len + drop, true);
    took(c);
    *out = (struct gyre_slice){.data = data, .len = len};
    return 0;
}

int gyre_conn_next(struct gyre_slice *out, struct gyre_conn *c, size_t len)
{
    int err = gyre__conn_readable(c);
    if (err == 0)
        err = gyre__conn_look(c);
    if (err != 0)
        return err;
    if (len == 0 || len > c->in.bytes) { /* what peek says of these two is all there is to say */
        err = gyre_conn_peek(out, c, len);
        if (err != 0 || out->len == 0)
            return err;
        len = out->len;
    }
    return gyre__conn_take(c, 0, len, 0, out);
}

size_t gyre_conn_copy(void *dst, size_t len, struct gyre_conn *c, size_t from)
{
    if (gyre__conn_readable(c) != 0 || from >= c->in.bytes || gyre__conn_look(c) != 0)
        return 0;
    size_t n = len < c->in.bytes - from ? len : c->in.bytes - from;
    copy_out(c, from, dst, n);
    return n;
}

size_t gyre_conn_discard(struct gyre_conn *c, size_t len)
{
    if (gyre__conn_readable(c) != 0 || gyre__conn_look(c) != 0)
        return 0;
    size_t n = len < c->in.bytes ? len : c->in.bytes;
    gyre__segq_consume(&c->in, &c->loop->segs, n, true);
    took(c);
    return n;
}

size_t gyre_conn_read(void *dst, size_t len, struct gyre_conn *c)
{
    if (gyre__conn_readable(c) != 0 || gyre__conn_look(c) != 0)
        return 0;
    size_t n = len < c->in.bytes ? len : c->in.bytes;
    copy_out(c, 0, dst, n);
    gyre__segq_consume(&c->in, &c->loop->segs, n, true);
    took(c);
    return n;
}

/* Whether `needle` starts `at` bytes into `seg` (which has more than that), running on into the next ones. */
static bool matches(const struct gyre_conn *c, const struct gyre__seg *seg, size_t at, const uint8_t *needle,
                    size_t needle_len)
{
    size_t part = seg->len - at < needle_len ? seg->len - at : needle_len;
    if (memcmp(seg->data + at, needle, part) != 0)
        return false;
    if (part == needle_len)
        return true;
    return seg != c->in.tail && matches(c, seg->next, 0, needle + part, needle_len - part);
}

int64_t gyre_conn_find(struct gyre_conn *c, const void *needle, size_t needle_len, size_t from)
{
    const uint8_t *first = needle;
    size_t before = 0;
    if (needle == NULL || needle_len == 0 || needle_len > 64)
        return -EINVAL;
    int err = gyre__conn_readable(c);
    if (err == 0)
        err = gyre__conn_look(c);
    if (err != 0)
        return err;
    const struct gyre__seg *seg = gyre__segq_head(&c->in);
    for (; seg != NULL; seg = seg == c->in.tail ? NULL : seg->next) {
        size_t at = from > before ? from - before : 0;
        while (at < seg->len) {
            const uint8_t *hit = memchr(seg->data + at, first[0], seg->len - at);
            if (hit == NULL)
                break;
            at = (size_t)(hit - seg->data);
            if (matches(c, seg, at, first, needle_len))
                return (int64_t)(before + at);
            at++;
        }
        before += seg->len;
    }
    return -EAGAIN;
}

/* The first `len` bytes as a segment of its own: in place if they lie in one receive buffer and those are plenty. */
static struct gyre__seg *detach(struct gyre_conn *c, uint32_t len)
{
    struct gyre__segs *segs = &c->loop->segs;
    struct gyre__seg *head = gyre__segq_head(&c->in), *seg;
    if (head->kind == GYRE_SEG_BUF && head->len >= len && !gyre__bufpool_scarce(segs->pool)) {
        seg = gyre__seg_new(segs, GYRE_SEG_BUF, head->data, len);
        if (seg != NULL) {
            seg->buf = head->buf;
            gyre__bufpool_hold(segs->pool, head->buf);
        }
        return seg;
    }
    seg = gyre__seg_chunk(segs, len);
    if (seg == NULL)
        return NULL;
    for (; seg->len < len; head = head->next) {
        uint32_t part = head->len < len - seg->len ? head->len : len - seg->len;
        memcpy(seg->data + seg->len, head->data, part);
        seg->len += part;
    }
    gyre__count(&c->loop->be->stats.bytes_copied_in, len);
    return seg;
}

int gyre_buf_hold(struct gyre_buf **out, struct gyre_slice *view, struct gyre_conn *c, size_t len)
{
    int err = gyre__conn_readable(c);
    if (err == 0)
        err = gyre__conn_look(c);
    if (err != 0)
        return err;
    if (len == 0)
        return -EINVAL;
    if (len > c->in.bytes)
        return -EAGAIN;
    struct gyre_buf *buf = gyre__alloc(c->loop->mem, sizeof *buf);
    if (buf == NULL)
        return -ENOMEM;
    buf->segs = &c->loop->segs;
    buf->seg = detach(c, (uint32_t)len);
    if (buf->seg == NULL) {
        gyre__free(c->loop->mem, buf);
        return -ENOMEM;
    }
    *view = (struct gyre_slice){.data = buf->seg->data, .len = buf->seg->len};
    *out = buf;
    (void)gyre_conn_discard(c, len);
    return 0;
}
