/* SPDX-License-Identifier: MIT
 * Reading received datagrams. Nothing here trusts a length: those of the header, those of the control messages, or that
 * of the address, which says how long it would have been. */
#include "parse.h"
#include "socket/control.h"

#include <sys/types.h> /* FreeBSD's <netinet/udp.h> needs it and does not include it */

#include <errno.h>
#include <netinet/udp.h>
#include <string.h>

int gyre__dgram_parse(struct gyre__dgram *out, const uint8_t *buf, size_t len, const struct msghdr *room)
{
    struct gyre__dgram_head head;
    size_t overhead = gyre__dgram_overhead(room);
    if (len < overhead)
        return -EBADMSG;
    memcpy(&head, buf, sizeof head);
    size_t here = len - overhead;
    const uint8_t *name = buf + sizeof head, *control = name + room->msg_namelen;
    socklen_t name_len = head.name_len < room->msg_namelen ? head.name_len : room->msg_namelen;
    bool named = name_len >= offsetof(struct sockaddr, sa_data);
    *out = (struct gyre__dgram){
        .name = named ? (const struct sockaddr *)(const void *)name : NULL,
        .name_len = named ? name_len : 0,
        .control = control,
        .control_len = head.control_len < room->msg_controllen ? head.control_len : room->msg_controllen,
        .data = control + room->msg_controllen,
        .len = head.payload_len < here ? head.payload_len : here,
        .truncated = (head.flags & MSG_TRUNC) != 0 || head.payload_len > here,
    };
    return 0;
}

/* ---- control data ---- */

static void read_v6(struct gyre__dgram_info *out, int type, const uint8_t *data, size_t len)
{
    if (type == IPV6_PKTINFO && len >= sizeof(struct in6_pktinfo)) {
        struct in6_pktinfo info;
        struct sockaddr_in6 *in6 = &out->local.in6;
        memcpy(&info, data, sizeof info);
        in6->sin6_family = AF_INET6;
        in6->sin6_addr = info.ipi6_addr;
        if (IN6_IS_ADDR_LINKLOCAL(&info.ipi6_addr))
            in6->sin6_scope_id = info.ipi6_ifindex;
        out->interface = info.ipi6_ifindex;
        out->source = out->local;
    } else if (type == IPV6_TCLASS && len >= sizeof(int)) {
        int value;
        memcpy(&value, data, sizeof value);
        out->traffic_class = (uint8_t)value;
    }
}

#ifdef IP_PKTINFO
static void read_pktinfo4(struct gyre__dgram_info *out, const uint8_t *data)
{
    struct in_pktinfo info;
    struct sockaddr_in *in4 = &out->local.in4;
    memcpy(&info, data, sizeof info);
    out->interface = (uint32_t)info.ipi_ifindex;
    if (out->local.sa.sa_family == AF_INET6)
        return; /* a dual socket was told in IPv6's words */
    in4->sin_family = AF_INET;
    in4->sin_addr = info.ipi_addr;
    out->source = out->local;
    out->source.in4.sin_addr = info.ipi_spec_dst;
}

static void read_v4(struct gyre__dgram_info *out, int type, const uint8_t *data, size_t len)
{
    if (type == IP_PKTINFO && len >= sizeof(struct in_pktinfo))
        read_pktinfo4(out, data);
    else if ((type == IP_TOS || type == IP_RECVTOS) && len >= 1)
        out->traffic_class = data[0];
}
#else
static void read_v4(struct gyre__dgram_info *out, int type, const uint8_t *data, size_t len)
{
    if (type == IP_RECVTOS && len >= 1)
        out->traffic_class = data[0];
}
#endif

#ifdef UDP_GRO
static void read_udp(struct gyre__dgram_info *out, int type, const uint8_t *data, size_t len)
{
    int value = 0;
    if (type != UDP_GRO || len < sizeof(uint16_t))
        return;
    if (len >= sizeof value) { /* an int, since the kernel writes one */
        memcpy(&value, data, sizeof value);
    } else {
        uint16_t small;
        memcpy(&small, data, sizeof small);
        value = small;
    }
    out->segment_bytes = value > 0 && value <= UINT16_MAX ? (uint16_t)value : 0;
}
#else
static void read_udp(struct gyre__dgram_info *out, int type, const uint8_t *data, size_t len)
{
    (void)out;
    (void)type;
    (void)data;
    (void)len;
}
#endif

void gyre__dgram_control(struct gyre__dgram_info *out, const uint8_t *control, size_t len)
{
    struct gyre__control c;
    *out = (struct gyre__dgram_info){.interface = 0};
    while (gyre__control_next(&c, &control, &len)) {
        if (c.level == IPPROTO_IPV6)
            read_v6(out, c.type, c.data, c.len);
        else if (c.level == IPPROTO_IP)
            read_v4(out, c.type, c.data, c.len);
        else if (c.level == IPPROTO_UDP)
            read_udp(out, c.type, c.data, c.len);
    }
}
