/* SPDX-License-Identifier: MIT
 * What is being sent by a datagram socket: one send, its memory, its control data. */
#include "item.h"

#include <errno.h>
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

/* An IPv4 address as the IPv6 sockets that carry it know it. */
static void map_to_v6(union gyre__udp_name *out, const struct sockaddr_in *in4)
{
    uint8_t *bytes = out->in6.sin6_addr.s6_addr;
    out->in6 = (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_port = in4->sin_port};
    bytes[10] = bytes[11] = 0xff;
    memcpy(bytes + 12, &in4->sin_addr, 4);
}

static int place_inet(const struct gyre_udp *u, struct gyre__udp_item *s, const struct sockaddr *to, socklen_t len)
{
    union gyre__udp_name name = {.sa = {.sa_family = AF_UNSPEC}};
    size_t need = to->sa_family == AF_INET6 ? sizeof name.in6 : sizeof name.in4;
    if (to->sa_family != AF_INET && to->sa_family != AF_INET6)
        return -EAFNOSUPPORT;
    if (len < need)
        return GYRE_EADDRESS;
    memcpy(&name, to, need);
    if (to->sa_family == AF_INET && (u->flags & GYRE_UDPF_DUAL))
        map_to_v6(&s->to, &name.in4);
    else if (to->sa_family == u->family)
        memcpy(&s->to, &name, need);
    else
        return -EAFNOSUPPORT;
    in_port_t port = u->family == AF_INET6 ? s->to.in6.sin6_port : s->to.in4.sin_port;
    s->hdr.msg_namelen = u->family == AF_INET6 ? sizeof s->to.in6 : sizeof s->to.in4;
    return port != 0 ? 0 : GYRE_EADDRESS;
}

int gyre__udp_place(const struct gyre_udp *u, struct gyre__udp_item *s, const struct sockaddr *to, socklen_t len)
{
    s->hdr.msg_name = NULL;
    s->hdr.msg_namelen = 0;
    if (to == NULL)
        return u->flags & GYRE_UDPF_CONNECTED ? 0 : -EDESTADDRREQ;
    if (len < offsetof(struct sockaddr, sa_data))
        return GYRE_EADDRESS;
    s->hdr.msg_name = &s->to;
    if (u->family != AF_UNIX)
        return place_inet(u, s, to, len);
    if (to->sa_family != AF_UNIX)
        return -EAFNOSUPPORT;
    if (len <= offsetof(struct sockaddr_un, sun_path) || len > sizeof s->to.un)
        return GYRE_EADDRESS;
    memcpy(&s->to, to, len);
    s->hdr.msg_namelen = len;
    return 0;
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

void gyre__udp_doubt_cutting(struct gyre_udp *u)
{
    u->flags &= ~(unsigned)GYRE_UDPF_GSO;
    u->flags |= GYRE_UDPF_GSO_KNOWN | GYRE_UDPF_NO_RUNS;
}

/* `len` bytes of `s` from byte `at` on, as a datagram to the same receiver. */
static struct gyre__udp_item *cut_one(struct gyre_loop *l, const struct gyre__udp_item *s, size_t at, size_t len)
{
    struct gyre__udp_item *piece = gyre__udp_new_send(l);
    if (piece == NULL)
        return NULL;
    piece->seg = gyre__seg_chunk(&l->segs, (uint32_t)len);
    if (piece->seg == NULL) {
        gyre__udp_free_send(l, piece);
        return NULL;
    }
    piece->seg->len = (uint32_t)len;
    memcpy(piece->seg->data, s->seg->data + at, len);
    piece->iov = (struct iovec){.iov_base = piece->seg->data, .iov_len = len};
    piece->to = s->to;
    piece->hdr = (struct msghdr){.msg_iov = &piece->iov, .msg_iovlen = 1};
    piece->hdr.msg_name = s->hdr.msg_name != NULL ? &piece->to : NULL;
    piece->hdr.msg_namelen = s->hdr.msg_namelen;
    piece->run = NULL;
    piece->seq = s->seq;
    piece->pieces = 1;
    piece->segment_bytes = 0;
    piece->met = 0;
    piece->alone = true;
    return piece;
}

struct gyre__udp_item *gyre__udp_cut(struct gyre_loop *l, const struct gyre__udp_item *s)
{
    struct gyre__udp_item *last = NULL;
    size_t each = s->segment_bytes;
    for (size_t at = 0; at < s->iov.iov_len; at += each) {
        struct gyre__udp_item *piece = cut_one(l, s, at, s->iov.iov_len - at < each ? s->iov.iov_len - at : each);
        if (piece != NULL) {
            piece->next = last;
            last = piece;
            continue;
        }
        while (last != NULL) {
            struct gyre__udp_item *next = last->next;
            gyre__udp_free_send(l, last);
            last = next;
        }
        return NULL;
    }
    return last;
}

void gyre__udp_sends_fini(struct gyre_loop *l)
{
    while (l->udps->slabs != NULL) {
        struct gyre__udp_slab *slab = l->udps->slabs;
        l->udps->slabs = slab->next;
        gyre__free(l->mem, slab);
    }
}
