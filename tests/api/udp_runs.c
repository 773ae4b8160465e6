/* SPDX-License-Identifier: MIT
 * Datagrams of one turn to one receiver, which may leave as one send that the kernel cuts: nobody can tell but by the
 * number of sends. */
#include "udp.h"

#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>

/* Sends submitted so far, and whatever else was, but for receives that were armed again: there is one for each datagram
 * where the kernel has no multishot receive. */
static uint64_t ops_of(const struct api *api)
{
    struct gyre_stats stats;
    gyre_loop_stats(&stats, api->loop);
    return stats.ops - stats.rearms;
}

/* Of the networks here only Linux's does it. */
static bool makes_runs(const struct api *api)
{
    return strcmp(api->backend, "sim") != 0;
}

static void send_named(struct dsock *from, struct dsock *to, uint32_t number, size_t len)
{
    uint8_t data[2000];
    struct sockaddr_storage addr;
    socklen_t addr_len;
    cr_assert_eq(gyre_udp_parse(&addr, &addr_len, gyre_udp_address(to->u)), 0);
    udp_fill(data, len, number);
    cr_assert_eq(gyre_udp_send_to(from->u, (struct sockaddr *)&addr, addr_len, data, len), 0);
}

/* Ten and five to one, three and seventy to the other, of several lengths. Returns how many operations that took. */
static uint64_t send_to_two(struct api *api, struct dsock *from, struct dsock *a, struct dsock *b)
{
    static const size_t lengths[] = {100, 100, 60, 100, 100};
    uint64_t before = ops_of(api);
    for (uint32_t i = 0; i < 10; i++)
        send_named(from, a, i, 100);
    for (uint32_t i = 0; i < 3; i++)
        send_named(from, b, i, 100);
    for (uint32_t i = 0; i < 5; i++)
        send_named(from, a, 10 + i, lengths[i]);
    for (uint32_t i = 0; i < 70; i++)
        send_named(from, b, 3 + i, 50);
    api_until(api, a->datagrams == 15 && b->datagrams == 73 && gyre_udp_outbound(from->u) == 0);
    return ops_of(api) - before;
}

/* Each comes once, whole and in order, whoever is between, as few sends or as many. */
DGRAM_TRANSPORT_TEST(api_udp_runs, to_several)
{
    for (int without = 0; without < 2; without++) {
        struct api api;
        struct dsock from, a, b;
        if (p->transport == TRANSPORT_UNIX || p->transport == TRANSPORT_ABSTRACT)
            return; /* the receiver's queue is shorter than that */
        udp_start_roomy(&api, p);
        udp_bind(&api, &from, NULL, &(struct gyre_udp_options){.no_runs = without != 0});
        udp_bind(&api, &a, NULL, NULL);
        udp_bind(&api, &b, NULL, NULL);
        uint64_t ops = send_to_two(&api, &from, &a, &b);
        cr_assert_eq(a.distinct, 15);
        cr_assert_eq(b.distinct, 73);
        cr_assert(!a.disorder && !b.disorder);
        if (makes_runs(&api) && !without)
            cr_assert_lt(ops, 40, "%llu operations: they left one by one", (unsigned long long)ops);
        else
            cr_assert_geq(ops, 88, "%llu operations", (unsigned long long)ops);
        udp_close(&from);
        udp_close(&a);
        udp_close(&b);
        cr_assert_eq(from.stats.sent, 88);
        cr_assert_eq(from.stats.sent_bytes, a.bytes + b.bytes);
        cr_assert_eq(from.stats.send_errors, 0);
        api_close(&api);
    }
}

/* The longest there are, longer ones that go by themselves, and an empty one between. */
DGRAM_TRANSPORT_TEST(api_udp_runs, lengths)
{
    static const size_t lengths[] = {1452, 1452, 1453, 1453, 9000, 4, 4, 5, 5, 4};
    struct api api;
    struct dsock s, c;
    udp_start_roomy(&api, p);
    udp_bind(&api, &s, NULL, NULL);
    udp_connect(&api, &c, gyre_udp_address(s.u), NULL, NULL);
    for (uint32_t i = 0; i < 10; i++)
        cr_assert_eq(udp_send(&c, i, lengths[i]), 0);
    api_until(&api, s.datagrams == 10);
    cr_assert_eq(s.distinct, 10);
    cr_assert(!s.disorder);
    udp_close(&c);
    udp_close(&s);
    cr_assert_eq(s.stats.received_bytes, c.stats.sent_bytes);
    api_close(&api);
}

/* A kernel that refuses to cut for this socket, as it does where no checksums are made: all go one by one. */
DGRAM_REAL_TEST(api_udp_runs, refused)
{
    struct api api;
    struct dsock s, c;
    int on = 1;
    udp_start(&api, p);
    udp_bind(&api, &s, NULL, NULL);
    udp_connect(&api, &c, gyre_udp_address(s.u), NULL, NULL);
    cr_assert_eq(setsockopt(gyre_udp_fd(c.u), SOL_SOCKET, SO_NO_CHECK, &on, sizeof on), 0);
    uint64_t ops = ops_of(&api);
    for (uint32_t round = 0; round < 2; round++) {
        for (uint32_t i = 0; i < 30; i++)
            cr_assert_eq(udp_send(&c, 30 * round + i, 200), 0);
        api_until(&api, s.datagrams == 30 * (round + 1));
    }
    cr_assert_eq(s.distinct, 60);
    cr_assert(!s.disorder);
    cr_assert_geq(ops_of(&api) - ops, 60, "the kernel did not refuse");
    cr_assert_eq(c.errors, 0, "told of %s", gyre_err_name(c.last_err));
    udp_close(&c);
    udp_close(&s);
    cr_assert_eq(c.stats.sent, 60);
    cr_assert_eq(c.stats.send_errors + c.stats.errors, 0);
    api_close(&api);
}

/* Many at once for a port that nobody is bound to: told, counted, none twice; and the next ones arrive. */
DGRAM_BACKEND_TEST(api_udp_runs, unreachable)
{
    struct api api;
    struct dsock s, c;
    char address[160];
    udp_start(&api, p);
    udp_bind(&api, &s, NULL, NULL);
    (void)snprintf(address, sizeof address, "%s", gyre_udp_address(s.u));
    udp_connect(&api, &c, address, NULL, NULL);
    udp_close(&s);
    for (uint32_t round = 0; round < 3; round++) {
        for (uint32_t i = 0; i < 20; i++)
            cr_assert_eq(udp_send(&c, i, 50), 0);
        api_until(&api, gyre_udp_outbound(c.u) == 0 && c.errors > round);
        cr_assert_eq(c.last_err, -ECONNREFUSED);
    }
    cr_assert_eq(udp_try_bind(&api, &s, address, NULL, NULL), 0);
    for (uint32_t i = 0; i < 20; i++)
        cr_assert_eq(udp_send(&c, 100 + i, 50), 0);
    api_until(&api, gyre_udp_outbound(c.u) == 0 && s.datagrams > 0 && s.seen[119] > 0);
    for (uint32_t i = 100; i < 120; i++)
        cr_assert_leq(s.seen[i], 1);
    cr_assert_eq(c.closes, 0);
    udp_close(&c);
    udp_close(&s);
    cr_assert_eq(c.stats.sent + c.stats.send_errors, 80);
    api_close(&api);
}

static void note_whole(struct dsock *s, const struct gyre_datagram *d)
{
    udp_check(s, d);
    cr_assert_eq(gyre_udp_reply(s->u, d, d->data.data, d->data.len), 0);
    cr_assert_eq(gyre_udp_reply(s->u, d, d->data.data, d->data.len), 0);
}

/* Answers from the receive buffers, two of each, with the address that was asked. */
DGRAM_REAL_TEST(api_udp_runs, answers)
{
    static const struct dscript twice = {.datagram = note_whole};
    struct api api;
    struct dsock s, c;
    udp_start(&api, p);
    udp_bind(&api, &s, &twice, &(struct gyre_udp_options){.pktinfo = true});
    udp_connect(&api, &c, gyre_udp_address(s.u), NULL, NULL);
    for (uint32_t i = 0; i < 32; i++)
        cr_assert_eq(udp_send(&c, i, 300), 0);
    api_until(&api, c.datagrams == 64);
    for (uint32_t i = 0; i < 32; i++)
        cr_assert_eq(c.seen[i], 2);
    udp_close(&c);
    udp_close(&s);
    cr_assert_eq(s.stats.sent, 64);
    api_close(&api);
}

/* Dropped with the socket, in the turn that queued them and in the next: what is not sent is counted. */
DGRAM_TRANSPORT_TEST(api_udp_runs, aborted)
{
    struct api api;
    struct dsock s, c;
    udp_start(&api, p);
    udp_bind(&api, &s, NULL, NULL);
    for (unsigned turns = 0; turns < 3; turns++) {
        udp_connect(&api, &c, gyre_udp_address(s.u), NULL, NULL);
        for (uint32_t i = 0; i < 40; i++)
            cr_assert_eq(udp_send(&c, i, 50), 0);
        for (unsigned i = 0; i < turns; i++)
            api_turn_now(&api);
        cr_assert_eq(gyre_udp_abort(c.u), 0);
        api_until(&api, c.closes == 1);
        cr_assert_eq(c.stats.sent + c.stats.send_dropped, 40);
    }
    udp_close(&s);
    api_close(&api);
}

/* Ten datagrams that the kernel is to cut and cannot, because the socket has checksums off: they are sent one by one,
 * and the kernel is not asked again. (Those sent after them may have left already.) */
DGRAM_REAL_TEST(api_udp_runs, segments_that_the_kernel_will_not_cut)
{
    enum { COUNT = 10, LEN = 1000 };
    static uint8_t data[COUNT * LEN];
    struct api api;
    struct dsock from, to;
    struct sockaddr_storage addr;
    socklen_t addr_len;
    const int on = 1;
    udp_start_roomy(&api, p);
    udp_bind(&api, &from, NULL, NULL);
    udp_bind(&api, &to, NULL, NULL);
    cr_assert_eq(setsockopt(gyre_udp_fd(from.u), SOL_SOCKET, SO_NO_CHECK, &on, sizeof on), 0);
    cr_assert_eq(gyre_udp_parse(&addr, &addr_len, gyre_udp_address(to.u)), 0);
    for (uint32_t round = 0; round < 3; round++) {
        uint32_t first = round * (COUNT + 2);
        size_t len = sizeof data - (round == 1 ? LEN / 2 : 0);
        send_named(&from, &to, first, 1500); /* too long for a run */
        for (uint32_t i = 0; i < COUNT; i++)
            udp_fill(data + (size_t)i * LEN, len - (size_t)i * LEN < LEN ? LEN / 2 : LEN, first + 1 + i);
        cr_assert_eq(gyre_udp_send_segments(from.u, (struct sockaddr *)&addr, addr_len, data, len, LEN), 0);
        send_named(&from, &to, first + COUNT + 1, 1500);
        api_until(&api, gyre_udp_outbound(from.u) == 0);
        for (unsigned i = 0; i < 1000 && to.distinct < first + COUNT + 2; i++)
            api_turn(&api);
        cr_assert_eq(to.distinct, first + COUNT + 2, "%u came, the sender got %u errors (%s)", to.distinct, from.errors,
                     gyre_err_name(from.last_err));
    }
    cr_assert_eq(from.errors, 0);
    udp_close(&from);
    udp_close(&to);
    cr_assert_eq(from.stats.send_errors, 0);
    cr_assert_eq(from.stats.sent, 3 * (COUNT + 2));
    api_close(&api);
}

/* A run to where nothing may be sent: each of its datagrams is then tried alone, and has its own error, once. */
DGRAM_REAL_TEST(api_udp_runs, forbidden)
{
    enum { COUNT = 10 };
    struct api api;
    struct dsock s, other;
    struct sockaddr_storage to;
    socklen_t to_len;
    if (p->transport != TRANSPORT_TCP4)
        return;
    udp_start(&api, p);
    udp_bind(&api, &s, NULL, NULL);
    udp_bind(&api, &other, NULL, NULL);
    cr_assert_eq(gyre_udp_parse(&to, &to_len, "udp://127.255.255.255:9"), 0); /* everybody, without leave */
    for (unsigned round = 1; round <= 2; round++) {
        for (uint32_t i = 0; i < COUNT; i++)
            cr_assert_eq(gyre_udp_send_to(s.u, (struct sockaddr *)&to, to_len, "not for all", 11), 0);
        api_until(&api, gyre_udp_outbound(s.u) == 0);
        cr_assert_eq(s.errors, round * COUNT, "told of %u errors", s.errors);
        cr_assert_eq(s.last_err, -EACCES, "%s", gyre_err_name(s.last_err));
    }
    uint64_t ops = ops_of(&api);
    for (uint32_t i = 0; i < COUNT; i++)
        send_named(&s, &other, i, 100);
    api_until(&api, other.datagrams == COUNT);
    cr_assert_lt(ops_of(&api) - ops, COUNT / 2, "what others met keeps the next ones from leaving together");
    udp_close(&s);
    udp_close(&other);
    cr_assert_eq(s.stats.sent, COUNT);
    cr_assert_eq(s.stats.send_errors, 2 * COUNT);
    cr_assert_eq(s.stats.errors, 0);
    api_close(&api);
}
