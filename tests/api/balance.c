/* SPDX-License-Identifier: MIT
 * How an engine spreads connections over its loops: by the kernel, in turn, to the least loaded, by the client's
 * address, at random, as the user says. Counts are exact where the way promises it. */
#include "rig.h"

#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LOOPS = 4 };

/* The server tells each client which loop it is on. */
static void say_loop(struct gyre_conn *c)
{
    uint8_t index = UINT8_MAX;
    for (uint32_t i = 0; i < gyre_engine_loop_count(rig->engine); i++)
        if (gyre_engine_loop(rig->engine, i) == gyre_conn_loop(c))
            index = (uint8_t)i;
    rig_on_open(c);
    cr_assert_eq(gyre_conn_write(c, &index, 1), 0);
}

static const struct gyre_conn_handlers telling = {
    .on_open = say_loop, .on_data = rig_on_data, .on_close = rig_on_close};

static void start(struct rig *r, const struct backend_param *p, const struct gyre_listener_options *options)
{
    rig_open(r, p, LOOPS);
    cr_assert_eq(gyre_engine_listen(&r->listener, r->engine, rig_tcp, &telling, options), 0);
    rig_run(r);
}

static unsigned loop_of(int fd)
{
    uint8_t index = 0;
    cr_assert_eq(rig_receive(fd, &index, 1), 1);
    cr_assert_lt(index, LOOPS);
    return index;
}

static void close_all(const int *fds, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        (void)close(fds[i]);
}

static int by_size(const void *a, const void *b)
{
    return *(const int *)b - *(const int *)a;
}

static void spread(const struct backend_param *p, const char *address, bool exactly)
{
    struct rig r;
    int fds[200];
    struct gyre_listener_options options = {.balance = GYRE_BALANCE_ROUND_ROBIN};
    rig_open(&r, p, 4);
    rig_listen(&r, address, exactly ? &options : NULL);
    rig_run(&r);
    for (unsigned i = 0; i < 200; i++)
        fds[i] = rig_client(gyre_listener_address(r.listener));
    await(rig_opened(&r) == 200);
    for (unsigned i = 0; i < 200; i++)
        rig_ping(fds[i]);
    unsigned used = 0;
    for (unsigned i = 0; i < 4; i++) {
        used += atomic_load(&r.opens[i]) > 0;
        if (exactly)
            cr_assert_eq(atomic_load(&r.opens[i]), 50, "loop %u has %u connections", i, atomic_load(&r.opens[i]));
    }
    cr_assert_eq(used, 4, "only %u of 4 loops have connections", used);
    for (unsigned i = 0; i < 200; i++)
        (void)close(fds[i]);
    await(r.closes == 200);
    rig_stop(&r);
}

/* Round-robin is exact. */
REAL_TEST(api_balance, round_robin)
{
    spread(p, rig_tcp, true);
}

/* The kernel's choice reaches every loop. */
REAL_TEST(api_balance, kernel_balance)
{
    spread(p, rig_tcp, false);
}

/* Unix sockets are handed over in turn. */
REAL_TEST(api_balance, unix_over_loops)
{
    char dir[64], address[128];
    env_dir_make(dir, sizeof dir);
    (void)snprintf(address, sizeof address, "unix://%s/sock", dir);
    spread(p, address, true);
    env_dir_remove(dir);
}


/* Nine over four: three, two, two, two; in turn and to the least loaded. */
REAL_TEST(api_balance, nine_over_four)
{
    for (int kind = GYRE_BALANCE_ROUND_ROBIN; kind <= GYRE_BALANCE_LEAST_CONNS; kind++) {
        struct rig r;
        int fds[9], counts[LOOPS] = {0};
        start(&r, p, &(struct gyre_listener_options){.balance = (enum gyre_balance)kind});
        for (unsigned i = 0; i < 9; i++) {
            fds[i] = rig_client(gyre_listener_address(r.listener));
            counts[loop_of(fds[i])]++;
        }
        qsort(counts, LOOPS, sizeof counts[0], by_size);
        cr_assert_eq(counts[0], 3);
        cr_assert_eq(counts[3], 2);
        close_all(fds, 9);
        rig_stop(&r);
    }
}

/* The least loaded: 200 at once are spread evenly, and when one loop's have closed, that one gets the next. */
REAL_TEST(api_balance, least_connections)
{
    enum { COUNT = 200 };
    struct rig r;
    int fds[COUNT];
    unsigned where[COUNT], counts[LOOPS] = {0}, closed = 0;
    start(&r, p, &(struct gyre_listener_options){.balance = GYRE_BALANCE_LEAST_CONNS});
    for (unsigned i = 0; i < COUNT; i++)
        fds[i] = rig_client(gyre_listener_address(r.listener));
    for (unsigned i = 0; i < COUNT; i++) {
        where[i] = loop_of(fds[i]);
        counts[where[i]]++;
    }
    for (unsigned i = 0; i < COUNT; i++) {
        if (where[i] != 2)
            continue;
        (void)close(fds[i]);
        fds[i] = -1;
        closed++;
    }
    for (unsigned i = 0; i < LOOPS; i++)
        cr_assert_eq(counts[i], COUNT / LOOPS, "loop %u has %u connections", i, counts[i]);
    await(gyre_engine_conn_count(r.engine) == COUNT - closed);
    cr_assert_eq(gyre_listener_conn_count(r.listener), COUNT - closed);
    for (unsigned i = 0; i < COUNT; i++) {
        if (fds[i] >= 0)
            continue;
        fds[i] = rig_client(gyre_listener_address(r.listener));
        cr_assert_eq(loop_of(fds[i]), 2);
    }
    close_all(fds, COUNT);
    rig_stop(&r);
}

/* Short connections, one after the other, are spread too, though no loop ever has more than one. */
REAL_TEST(api_balance, least_connections_when_all_are_equal)
{
    struct rig r;
    unsigned counts[LOOPS] = {0};
    start(&r, p, &(struct gyre_listener_options){.balance = GYRE_BALANCE_LEAST_CONNS});
    for (unsigned i = 0; i < 40; i++) {
        int fd = rig_client(gyre_listener_address(r.listener));
        counts[loop_of(fd)]++;
        (void)close(fd);
        await(gyre_engine_conn_count(r.engine) == 0);
    }
    for (unsigned i = 0; i < LOOPS; i++)
        cr_assert_eq(counts[i], 10, "loop %u had %u connections", i, counts[i]);
    rig_stop(&r);
}

/* By the client's address: the same loop from whatever port, also for an IPv4 address that comes as IPv6; and not the
 * same loop for all addresses. */
REAL_TEST(api_balance, source_hash)
{
    enum { HOSTS = 24, PORTS = 6 };
    struct rig r;
    int fds[HOSTS * PORTS + HOSTS];
    unsigned used = 0, n = 0, where[HOSTS];
    struct gyre_listener *v6;
    struct gyre_listener_options options = {.balance = GYRE_BALANCE_SOURCE_HASH, .seed = 7};
    rig_open(&r, p, LOOPS);
    cr_assert_eq(gyre_engine_listen(&r.listener, r.engine, rig_tcp, &telling, &options), 0);
    cr_assert_eq(gyre_engine_listen(&v6, r.engine, "tcp://[::]:0", &telling, &options), 0);
    rig_run(&r);
    char over_v6[64];
    const char *port = strrchr(gyre_listener_address(v6), ':');
    (void)snprintf(over_v6, sizeof over_v6, "tcp://127.0.0.1%s", port);
    for (unsigned host = 0; host < HOSTS; host++) {
        char source[64];
        (void)snprintf(source, sizeof source, "tcp://127.0.0.%u:0", host + 2);
        for (unsigned i = 0; i < PORTS; i++) {
            fds[n] = rig_client_from(gyre_listener_address(r.listener), source);
            unsigned loop = loop_of(fds[n++]);
            if (i == 0)
                where[host] = loop;
            cr_assert_eq(loop, where[host], "%s went to loop %u and to loop %u", source, where[host], loop);
        }
        used |= 1u << where[host];
        fds[n] = rig_client_from(over_v6, source);
        cr_assert_eq(loop_of(fds[n++]), where[host], "over an IPv6 socket it is another client");
    }
    cr_assert_gt(__builtin_popcount(used), 1, "every address went to one loop");
    close_all(fds, n);
    rig_stop(&r);
}

/* Unix peers have no address: they go in turn. */
REAL_TEST(api_balance, source_hash_of_unix_peers)
{
    char dir[64], address[128];
    unsigned counts[LOOPS] = {0};
    int fds[8];
    struct rig r;
    struct gyre_listener_options options = {.balance = GYRE_BALANCE_SOURCE_HASH};
    rig_open(&r, p, LOOPS);
    env_dir_make(dir, sizeof dir);
    (void)snprintf(address, sizeof address, "unix://%s/sock", dir);
    cr_assert_eq(gyre_engine_listen(&r.listener, r.engine, address, &telling, &options), 0);
    rig_run(&r);
    for (unsigned i = 0; i < 8; i++) {
        fds[i] = rig_client(address);
        counts[loop_of(fds[i])]++;
    }
    for (unsigned i = 0; i < LOOPS; i++)
        cr_assert_eq(counts[i], 2);
    close_all(fds, 8);
    rig_stop(&r);
    env_dir_remove(dir);
}

/* At random: the seed decides, and every loop gets some. */
REAL_TEST(api_balance, random_is_seeded)
{
    enum { COUNT = 64 };
    unsigned first[COUNT], used = 0, same = 0;
    for (unsigned round = 0; round < 3; round++) {
        struct rig r;
        int fds[COUNT];
        start(&r, p,
              &(struct gyre_listener_options){.balance = GYRE_BALANCE_RANDOM, .seed = round == 2 ? 12345 : 42});
        for (unsigned i = 0; i < COUNT; i++) {
            fds[i] = rig_client(gyre_listener_address(r.listener));
            unsigned loop = loop_of(fds[i]);
            used |= 1u << loop;
            if (round == 0)
                first[i] = loop;
            else if (round == 1)
                cr_assert_eq(loop, first[i], "the same seed chose differently");
            else
                same += loop == first[i];
        }
        close_all(fds, COUNT);
        rig_stop(&r);
    }
    cr_assert_eq(used, (1u << LOOPS) - 1);
    cr_assert_lt(same, COUNT, "another seed chose the same");
}

struct choice {
    _Atomic(unsigned) calls;
    uint32_t wanted[12];
};

static uint32_t choose(struct gyre_listener *listener, const struct sockaddr *peer, socklen_t len, void *user)
{
    struct choice *choice = user;
    cr_assert_eq(listener, rig->listener);
    cr_assert_eq(gyre_listener_engine(listener), rig->engine);
    cr_assert(gyre_loop_is_current(gyre_engine_loop(rig->engine, 0)));
    cr_assert_eq(peer->sa_family, AF_INET);
    cr_assert_eq(len, sizeof(struct sockaddr_in));
    cr_assert_neq(((const struct sockaddr_in *)peer)->sin_port, 0);
    return choice->wanted[atomic_fetch_add(&choice->calls, 1)];
}

/* The user's function is obeyed; what it says that makes no sense is counted, and the next in turn taken. */
REAL_TEST(api_balance, users_function)
{
    enum { COUNT = 12 };
    static const unsigned expected[COUNT] = {3, 3, 3, 1, 0, 2, 2, 3, 0, 1, 2, 3};
    struct choice choice = {.wanted = {3, 3, 3, 1, 0, 2, 2, 3, LOOPS, UINT32_MAX, 1000, 4}};
    struct rig r;
    int fds[COUNT];
    struct gyre_stats stats;
    start(&r, p,
          &(struct gyre_listener_options){.balance = GYRE_BALANCE_CUSTOM, .choose = choose, .user = &choice});
    cr_assert_eq(gyre_listener_user(r.listener), &choice);
    for (unsigned i = 0; i < COUNT; i++) {
        fds[i] = rig_client(gyre_listener_address(r.listener));
        unsigned loop = loop_of(fds[i]);
        cr_assert_eq(loop, expected[i], "connection %u went to loop %u", i, loop);
    }
    cr_assert_eq(choice.calls, COUNT);
    close_all(fds, COUNT);
    gyre_engine_stop(r.engine);
    rig_join(&r);
    gyre_loop_stats(&stats, gyre_engine_loop(r.engine, 0));
    cr_assert_eq(stats.balance_errors, 4);
    rig_close(&r);
}

/* A loop that is full is passed over, whatever the way; when all are full the others wait until one closes. */
REAL_TEST(api_balance, full_loops)
{
    enum { PER_LOOP = 2, COUNT = LOOPS * PER_LOOP };
    for (int kind = GYRE_BALANCE_ROUND_ROBIN; kind <= GYRE_BALANCE_RANDOM; kind++) {
        struct rig r;
        int fds[COUNT + 3];
        unsigned counts[LOOPS] = {0};
        struct gyre_listener_options options = {.balance = (enum gyre_balance)kind};
        rig_open_limited(&r, p, LOOPS, PER_LOOP, 0);
        cr_assert_eq(gyre_engine_listen(&r.listener, r.engine, rig_tcp, &telling, &options), 0);
        rig_run(&r);
        for (unsigned i = 0; i < COUNT + 3; i++)
            fds[i] = rig_client(gyre_listener_address(r.listener));
        for (unsigned i = 0; i < COUNT; i++)
            counts[loop_of(fds[i])]++;
        for (unsigned i = 0; i < LOOPS; i++)
            cr_assert_eq(counts[i], PER_LOOP);
        (void)poll(NULL, 0, 5);
        cr_assert_eq(rig_opened(&r), COUNT);
        for (unsigned i = 0; i < 3; i++) {
            (void)close(fds[i]);
            (void)loop_of(fds[COUNT + i]);
        }
        close_all(fds + 3, COUNT);
        rig_stop(&r);
    }
}
