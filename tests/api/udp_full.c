/* SPDX-License-Identifier: MIT
 * Datagrams that the socket's send buffer has no room for. On the loopback device that never happens; here they go to a
 * neighbour whose address the kernel does not know yet, and wait for it in the kernel, on the socket's account. The
 * test then tells the address, and reads what leaves from the other end of the device.
 *
 * For that it needs a network of its own, and with it root (net.h). The last test counts on the simulator. */
#include "net.h"
#include "udp.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

static const char far_address[] = "udp://10.9.9.2:4000";

enum {
    FAR = 0x0a090902,
    COUNT = 400,
    HEADERS = 14 + 20 + 8,
};

/* What has left the machine. */
struct wire {
    int fd;
    uint8_t seen[COUNT];
    unsigned frames, distinct;
};

static void set_address(int fd, const char *name, unsigned long request, uint32_t address)
{
    struct sockaddr_in in4 = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(address)};
    struct ifreq ifr = {.ifr_flags = 0};
    (void)snprintf(ifr.ifr_name, sizeof ifr.ifr_name, "%s", name);
    memcpy(&ifr.ifr_addr, &in4, sizeof in4);
    cr_assert_eq(ioctl(fd, request, &ifr), 0, "%s", strerror(errno));
}

/* However long the test is held up, the kernel goes on asking who the neighbour is. */
static void ask_for_long(void)
{
    int fd = open("/proc/sys/net/ipv4/neigh/tap0/mcast_solicit", O_WRONLY | O_CLOEXEC);
    cr_assert(fd >= 0 && write(fd, "1000", 4) == 4, "%s", strerror(errno));
    cr_assert_eq(close(fd), 0);
}

static void wire_open(struct wire *w)
{
    struct ifreq ifr = {.ifr_flags = IFF_TAP | IFF_NO_PI};
    net_own();
    *w = (struct wire){.fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC)};
    (void)snprintf(ifr.ifr_name, sizeof ifr.ifr_name, "tap0");
    if (w->fd < 0 || ioctl(w->fd, TUNSETIFF, &ifr) != 0)
        cr_skip_test("no tap device: %s", strerror(errno));
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    set_address(fd, "tap0", SIOCSIFADDR, 0x0a090901);
    set_address(fd, "tap0", SIOCSIFNETMASK, 0xffffff00);
    ifr.ifr_flags = IFF_UP;
    cr_assert_eq(ioctl(fd, SIOCSIFFLAGS, &ifr), 0, "%s", strerror(errno));
    cr_assert_eq(close(fd), 0);
    ask_for_long();
}

/* From here on what waits leaves. */
static void tell_neighbour(void)
{
    struct sockaddr_in in4 = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(FAR)};
    struct arpreq arp = {.arp_flags = ATF_COM | ATF_PERM, .arp_ha = {.sa_family = ARPHRD_ETHER}};
    memcpy(&arp.arp_pa, &in4, sizeof in4);
    memcpy(arp.arp_ha.sa_data, "\x02\x00\x00\x00\x00\x02", 6);
    (void)snprintf(arp.arp_dev, sizeof arp.arp_dev, "tap0");
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(ioctl(fd, SIOCSARP, &arp), 0, "%s", strerror(errno));
    cr_assert_eq(close(fd), 0);
}

/* Check that a frame is a whole datagram of ours, and count it; others are the kernel's own. */
static void look_at(struct wire *w, const uint8_t *frame, size_t len)
{
    uint8_t expected[2000];
    uint32_t number;
    if (len < HEADERS || frame[12] != 8 || frame[13] != 0 || frame[14 + 9] != IPPROTO_UDP)
        return;
    cr_assert_leq(len - HEADERS, sizeof expected);
    memcpy(&number, frame + HEADERS, sizeof number);
    cr_assert_lt(number, COUNT);
    udp_fill(expected, len - HEADERS, number);
    cr_assert_eq(memcmp(frame + HEADERS, expected, len - HEADERS), 0, "datagram %u", number);
    w->frames++;
    w->distinct += w->seen[number]++ == 0;
}

static void wire_read(struct wire *w)
{
    uint8_t frame[4096];
    ssize_t n;
    while ((n = read(w->fd, frame, sizeof frame)) > 0)
        look_at(w, frame, (size_t)n);
    cr_assert_eq(errno, EAGAIN, "%s", strerror(errno));
}

/* More in one turn than the buffer takes, all alike or of several lengths; returns when it is full. */
static void fill_up(struct api *api, struct dsock *c, struct wire *w, bool alike,
                    const struct gyre_udp_options *options)
{
    static const size_t lengths[] = {700, 700, 700, 300, 1453, 700, 4};
    struct gyre_udp_options o = *options;
    o.send_buffer_bytes = 4096;
    udp_connect(api, c, far_address, NULL, &o);
    for (uint32_t i = 0; i < COUNT; i++)
        cr_assert_eq(udp_send(c, i, alike ? 700 : lengths[i % 7]), 0);
    /* On a busy machine 20 ms can be few turns, and it is still filling the buffer. */
    uint64_t ops = 0;
    for (unsigned i = 0; api_stats(api).ops != ops; i++) {
        cr_assert_lt(i, 50, "it does not wait");
        ops = api_stats(api).ops;
        api_watch(api, MS(20));
    }
    cr_assert_gt(gyre_udp_outbound(c->u), 0, "the buffer is not full");
    wire_read(w);
    cr_assert_eq(w->frames, 0);
}

/* Each leaves once, whole, when there is room, whether they went in runs or not. */
DGRAM_REAL_TEST(api_udp_full, each_leaves_once)
{
    for (int how = 0; how < 4; how++) {
        struct api api;
        struct dsock c;
        struct wire w;
        wire_open(&w);
        udp_start(&api, p);
        fill_up(&api, &c, &w, how / 2 != 0, &(struct gyre_udp_options){.no_runs = how % 2 != 0});
        tell_neighbour();
        api_until(&api, (wire_read(&w), w.frames >= COUNT && gyre_udp_outbound(c.u) == 0));
        cr_assert_eq(udp_send(&c, 0, 700), 0); /* and it goes on */
        api_until(&api, (wire_read(&w), w.frames == COUNT + 1));
        cr_assert_eq(w.distinct, COUNT);
        udp_close(&c);
        cr_assert_eq(c.errors, 0, "told of %s", gyre_err_name(c.last_err));
        cr_assert_eq(c.stats.sent, COUNT + 1);
        cr_assert_eq(c.stats.send_errors + c.stats.send_dropped + c.stats.errors, 0);
        api_close(&api);
        cr_assert_eq(close(w.fd), 0);
    }
}

/* Closing waits for what is queued; it is all sent, or dropped and counted when the time has passed. */
DGRAM_REAL_TEST(api_udp_full, closed)
{
    for (int late = 0; late < 2; late++) {
        struct api api;
        struct dsock c;
        struct wire w;
        wire_open(&w);
        udp_start(&api, p);
        fill_up(&api, &c, &w, true, &(struct gyre_udp_options){.linger_timeout_ns = late ? MS(30) : MS(60000)});
        if (!late)
            tell_neighbour();
        udp_close(&c);
        if (late)
            tell_neighbour();
        api_until(&api, (wire_read(&w), w.frames == c.stats.sent));
        cr_assert_eq(c.err, late ? GYRE_ETIMEOUT : 0);
        cr_assert_eq(c.stats.sent + c.stats.send_dropped, COUNT);
        cr_assert_eq(c.stats.send_dropped != 0, late != 0);
        cr_assert_eq(c.stats.send_errors, 0);
        cr_assert_eq(w.distinct, w.frames);
        api_close(&api);
        cr_assert_eq(close(w.fd), 0);
    }
}

/* Aborted while one waits and runs are queued: what did not leave is counted, and nothing leaves later. */
DGRAM_REAL_TEST(api_udp_full, aborted)
{
    for (int turns = 0; turns < 4; turns++) {
        struct api api;
        struct dsock c;
        struct wire w;
        wire_open(&w);
        udp_start(&api, p);
        fill_up(&api, &c, &w, true, &(struct gyre_udp_options){.user = NULL});
        if (turns > 0)
            tell_neighbour();
        for (int i = 1; i < turns; i++)
            api_turn_now(&api);
        cr_assert_eq(gyre_udp_abort(c.u), 0);
        api_until(&api, c.closes == 1);
        if (turns == 0)
            tell_neighbour();
        api_until(&api, (wire_read(&w), w.frames == c.stats.sent));
        cr_assert_eq(c.stats.sent + c.stats.send_dropped, COUNT);
        cr_assert_eq(c.stats.send_errors, 0);
        cr_assert_eq(w.distinct, w.frames);
        api_close(&api);
        cr_assert_eq(close(w.fd), 0);
    }
}

/* Where there is hardly ever room, not many are tried in vain for one that goes: counted on a network that says no to
 * nineteen of twenty. */
Test(api_udp_full, few_in_vain)
{
    static const struct backend_param p = {.backend = "sim"};
    static const struct gyre_sim_options narrow = {.seed = 3,
                                                   .send_short_permille = 950,
                                                   .loss_permille = GYRE_SIM_NEVER,
                                                   .duplicate_permille = GYRE_SIM_NEVER};
    struct api api;
    struct dsock s, c;
    udp_init(&api, &p);
    api.sim_options = &narrow;
    api_open(&api);
    udp_bind(&api, &s, NULL, &(struct gyre_udp_options){.user = NULL});
    udp_connect(&api, &c, gyre_udp_address(s.u), NULL, &(struct gyre_udp_options){.no_runs = true});
    uint64_t ops = api_stats(&api).ops;
    for (uint32_t i = 0; i < COUNT; i++)
        cr_assert_eq(udp_send(&c, i, 50), 0);
    api_until(&api, gyre_udp_outbound(c.u) == 0);
    udp_close(&c);
    cr_assert_eq(c.stats.sent, COUNT);
    uint64_t tried = api_stats(&api).ops - ops;
    cr_assert_leq(tried, 3 * COUNT, "%llu sends were tried for %d", (unsigned long long)tried, COUNT);
    udp_close(&s);
    api_close(&api);
}
