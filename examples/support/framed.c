/* SPDX-License-Identifier: MIT
 * The framer: what a frame looks like, coming and going. */
#include "framed.h"

#include <string.h>

enum { HEAD_BYTES = 6, IOV_MAX_COUNT = 64 };

static const uint8_t magic[2] = {0x05, 0x22};

/* Called when bytes have come, with at least one here; again when those that it needs are here too. */
static int decode(struct gyre_frame *frame, const struct gyre_framer *framer, struct gyre_conn *c)
{
    uint8_t head[HEAD_BYTES];
    size_t len = gyre_conn_copy(head, sizeof head, c, 0);
    if (memcmp(head, magic, len < sizeof magic ? len : sizeof magic) != 0)
        return FRAMED_EMAGIC;
    frame->need = HEAD_BYTES;
    if (len < HEAD_BYTES)
        return -EAGAIN;
    size_t body = (size_t)head[2] << 24 | (size_t)head[3] << 16 | (size_t)head[4] << 8 | head[5];
    if (body > framer->frame_max_bytes - HEAD_BYTES)
        return GYRE_EFRAME;
    frame->need = HEAD_BYTES + body;
    if (gyre_conn_inbound(c) < frame->need)
        return -EAGAIN;
    frame->skip = HEAD_BYTES;
    frame->len = body;
    return 0;
}

/* One call of gyre_conn_writev(), so that a frame is queued whole or not at all. */
static int encode(const struct gyre_framer *framer, struct gyre_conn *c, const struct iovec *iov, int iov_count)
{
    struct iovec all[1 + IOV_MAX_COUNT];
    size_t len = 0;
    if (iov_count > IOV_MAX_COUNT)
        return -EINVAL;
    for (int i = 0; i < iov_count; i++) {
        all[1 + i] = iov[i];
        len += iov[i].iov_len;
    }
    if (len > framer->frame_max_bytes - HEAD_BYTES)
        return -EMSGSIZE;
    uint8_t head[HEAD_BYTES] = {magic[0],           magic[1],          (uint8_t)(len >> 24),
                                (uint8_t)(len >> 16), (uint8_t)(len >> 8), (uint8_t)len};
    all[0] = (struct iovec){.iov_base = head, .iov_len = sizeof head};
    return gyre_conn_writev(c, all, 1 + iov_count);
}

const struct gyre_framer framed_protocol = {
    .decode = decode, .encode = encode, .frame_max_bytes = HEAD_BYTES + FRAMED_BODY_MAX_BYTES};
