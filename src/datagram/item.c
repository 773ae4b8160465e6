/* SPDX-License-Identifier: MIT
 * What is being sent by a datagram socket: one send, its memory, its control data. */
#include "item.h"

#include <netinet/udp.h>
#include <string.h>

struct gyre__udp_slab {
    struct gyre__udp_slab *next;
    struct gyre__udp_item sends[GYRE_UDP_SENDS_PER_SLAB];
};

struct gyre__udp_item *gyre__udp_new_send(struct gyre_loop *l)
{
    struct gyre__udp_item *s = l->udps->free_sends;
    if (s != NULL) {
        l->udps->free_sends = s->next;
        return s;
    }
    struct gyre__udp_slab *slab = gyre__alloc(l->mem, sizeof *slab);
    if (slab == NULL)
        return NULL;
    slab->next = l->udps->slabs;
    l->udps->slabs = slab;
    for (size_t i = GYRE_UDP_SENDS_PER_SLAB; i-- > 1;) {
        slab->sends[i].next = l->udps->free_sends;
        l->udps->free_sends = &slab->sends[i];
    }
    return &slab->sends[0];
}

void gyre__udp_free_send(struct gyre_loop *l, struct gyre__udp_item *s)
{
    if (s->seg != NULL)
        gyre__seg_free(&l->segs, s->seg, 0);
    s->seg = NULL;
    s->next = l->udps->free_sends;
    l->udps->free_sends = s;
}

void gyre__udp_add_control(struct gyre__udp_item *s, int level, int type, const void *data, size_t len)
{
    size_t at = s->hdr.msg_controllen;
    struct cmsghdr head = {.cmsg_len = (socklen_t)CMSG_LEN(len), .cmsg_level = level, .cmsg_type = type};
    GYRE_CHECK(at + CMSG_SPACE(len) <= sizeof s->control);
    memset(s->control + at, 0, CMSG_SPACE(len));
    memcpy(s->control + at, &head, sizeof head);
    memcpy(s->control + at + CMSG_LEN(0), data, len);
    s->hdr.msg_control = s->control;
    s->hdr.msg_controllen = (socklen_t)(at + CMSG_SPACE(len));
}

#ifdef UDP_SEGMENT
void gyre__udp_add_segment_size(struct gyre__udp_item *s, size_t segment_bytes)
{
    uint16_t size = (uint16_t)segment_bytes;
    gyre__udp_add_control(s, IPPROTO_UDP, UDP_SEGMENT, &size, sizeof size);
}
#else
void gyre__udp_add_segment_size(struct gyre__udp_item *s, size_t segment_bytes)
{
    (void)s;
    (void)segment_bytes;
}
#endif

bool gyre__udp_kernel_cuts(struct gyre_udp *u)
{
    struct gyre__backend *be = u->loop->be;
    if (!(u->flags & GYRE_UDPF_GSO_KNOWN)) {
        bool can = be->ops->sock->dgram_set(be, u->f.fd, u->family, GYRE_SOCK_GSO, 0) == 0;
        u->flags |= GYRE_UDPF_GSO_KNOWN | (can ? GYRE_UDPF_GSO : 0u);
    }
    return (u->flags & GYRE_UDPF_GSO) != 0;
}

void gyre__udp_sends_fini(struct gyre_loop *l)
{
    while (l->udps->slabs != NULL) {
        struct gyre__udp_slab *slab = l->udps->slabs;
        l->udps->slabs = slab->next;
        gyre__free(l->mem, slab);
    }
}
