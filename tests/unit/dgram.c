/* SPDX-License-Identifier: MIT
 * The parser of received datagrams: what it reads, and that no length makes it look outside. */
#include "datagram/parse.h"
#include "env.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <netinet/udp.h>
#include <stdlib.h>
#include <string.h>

static const struct msghdr room = {.msg_namelen = 32, .msg_controllen = 64};

enum { OVERHEAD = 16 + 32 + 64 };

static void put_head(uint8_t *buf, uint32_t name, uint32_t control, uint32_t payload, uint32_t flags)
{
    struct gyre__dgram_head head = {name, control, payload, flags};
    memcpy(buf, &head, sizeof head);
}

/* A well-formed one. */
Test(dgram, whole)
{
    uint8_t *buf = calloc(1, OVERHEAD + 100);
    struct gyre__dgram d;
    put_head(buf, 16, 24, 100, 0);
    cr_assert_eq(gyre__dgram_parse(&d, buf, OVERHEAD + 100, &room), 0);
    cr_assert_eq((const uint8_t *)d.name, buf + 16);
    cr_assert_eq(d.name_len, 16);
    cr_assert_eq(d.control, buf + 48);
    cr_assert_eq(d.control_len, 24);
    cr_assert_eq(d.data, buf + OVERHEAD);
    cr_assert_eq(d.len, 100);
    cr_assert(!d.truncated);
    cr_assert_eq(gyre__dgram_parse(&d, buf, OVERHEAD, &room), 0);
    cr_assert_eq(d.len, 0);
    cr_assert(d.truncated, "a header that promises more than there is");
    free(buf);
}

/* Every length short of the room for header, address and control data is refused. */
Test(dgram, runts)
{
    struct gyre__dgram d;
    for (size_t len = 0; len < OVERHEAD; len++) {
        uint8_t *buf = calloc(1, len + 1); /* exact, so that the sanitizer sees a byte too many */
        if (len >= 16)
            put_head(buf, 16, 0, 0, 0);
        cr_assert_eq(gyre__dgram_parse(&d, buf, len, &room), -EBADMSG);
        free(buf);
    }
}

/* A sender without a name, one whose name was cut, and datagrams marked as cut. */
Test(dgram, odd_heads)
{
    uint8_t buf[OVERHEAD + 8] = {0};
    struct gyre__dgram d;
    put_head(buf, 0, 0, 8, 0);
    cr_assert_eq(gyre__dgram_parse(&d, buf, sizeof buf, &room), 0);
    cr_assert_null(d.name);
    put_head(buf, 1, 0, 8, 0);
    cr_assert_eq(gyre__dgram_parse(&d, buf, sizeof buf, &room), 0);
    cr_assert_null(d.name);
    put_head(buf, UINT32_MAX, UINT32_MAX, UINT32_MAX, MSG_TRUNC);
    cr_assert_eq(gyre__dgram_parse(&d, buf, sizeof buf, &room), 0);
    cr_assert_eq(d.name_len, 32);
    cr_assert_eq(d.control_len, 64);
    cr_assert_eq(d.len, 8);
    cr_assert(d.truncated);
}

/* Noise, in memory of exactly the size. Whatever comes out lies inside. */
Test(dgram, noise)
{
    struct env_rng rng;
    env_rng_init(&rng, 5);
    for (unsigned i = 0; i < 20000; i++) {
        size_t len = env_rng_below(&rng, 300);
        struct msghdr r = {.msg_namelen = 8 * env_rng_below(&rng, 16), .msg_controllen = 8 * env_rng_below(&rng, 16)};
        uint8_t *buf = malloc(len + 1);
        struct gyre__dgram d;
        struct gyre__dgram_info info;
        for (size_t k = 0; k < len; k++)
            buf[k] = (uint8_t)(env_rng_below(&rng, 3) == 0 ? env_rng_below(&rng, 256) : env_rng_below(&rng, 30));
        if (gyre__dgram_parse(&d, buf, len, &r) == 0) {
            cr_assert(d.data >= buf && d.data + d.len <= buf + len);
            cr_assert(d.control >= buf && d.control + d.control_len <= buf + len);
            cr_assert(d.name == NULL || (const uint8_t *)d.name + d.name_len <= buf + len);
            gyre__dgram_control(&info, d.control, d.control_len);
        }
        free(buf);
    }
}

static size_t put_control(uint8_t *at, int level, int type, const void *data, size_t len)
{
    struct cmsghdr head = {.cmsg_len = CMSG_LEN(len), .cmsg_level = level, .cmsg_type = type};
    memset(at, 0, CMSG_SPACE(len));
    memcpy(at, &head, sizeof head);
    memcpy(at + CMSG_LEN(0), data, len);
    return CMSG_SPACE(len);
}

/* Each kind of control data that is asked for, one after the other, and a stranger between them. */
Test(dgram, control)
{
    uint8_t control[256];
    size_t len = 0;
    struct gyre__dgram_info info;
    struct in_pktinfo info4 = {.ipi_ifindex = 3, .ipi_spec_dst = {htonl(0x7f000002)}, .ipi_addr = {htonl(0x7f000001)}};
    int class = 0x2b, segment = 1200;
    len += put_control(control + len, IPPROTO_IP, IP_PKTINFO, &info4, sizeof info4);
    len += put_control(control + len, SOL_SOCKET, 99, "stranger", 8);
    len += put_control(control + len, IPPROTO_IPV6, IPV6_TCLASS, &class, sizeof class);
    len += put_control(control + len, IPPROTO_UDP, UDP_GRO, &segment, sizeof segment);
    gyre__dgram_control(&info, control, len);
    cr_assert_eq(info.interface, 3);
    cr_assert_eq(info.local.in4.sin_addr.s_addr, htonl(0x7f000001));
    cr_assert_eq(info.source.in4.sin_addr.s_addr, htonl(0x7f000002));
    cr_assert_eq(info.traffic_class, 0x2b);
    cr_assert_eq(info.segment_bytes, 1200);
}

/* Control messages that say they are longer than what is there, or shorter than their own header, end the walk. */
Test(dgram, bad_control)
{
    struct gyre__dgram_info info;
    for (size_t claimed = 0; claimed < 64; claimed++) {
        uint8_t *control = calloc(1, 24);
        struct cmsghdr head = {.cmsg_len = claimed, .cmsg_level = IPPROTO_IPV6, .cmsg_type = IPV6_TCLASS};
        memcpy(control, &head, sizeof head);
        control[CMSG_LEN(0)] = 7;
        gyre__dgram_control(&info, control, 24);
        cr_assert_eq(info.traffic_class, claimed >= CMSG_LEN(sizeof(int)) && claimed <= 24 ? 7 : 0);
        free(control);
    }
}
