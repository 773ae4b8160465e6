/* SPDX-License-Identifier: MIT
 * Which loop gets an accepted connection, where one loop accepts for all.
 *
 * Each way names a loop; if that one is full the next with room takes its place. Counts are exact, because a place is
 * taken by the thread that chooses, before the connection is on its way. */
#include "listener.h"
#include "base/random.h"

#include <netinet/in.h>
#include <string.h>

static uint32_t next_random(struct gyre__balancer *balance, uint32_t count)
{
    return (uint32_t)((gyre__random_next(&balance->random) >> 32) * count >> 32);
}

static uint32_t next_in_turn(struct gyre__balancer *balance, uint32_t count)
{
    uint32_t index = balance->next;
    balance->next = (index + 1) % count;
    return index;
}

/* The one after the one chosen last goes first among equals, or all short connections would be the first loop's. */
static uint32_t least_loaded(const struct gyre_listener *listener)
{
    uint32_t count = listener->loop_count, best = listener->balance.next, least = UINT32_MAX;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t index = (listener->balance.next + i) % count;
        uint32_t load = gyre__loop_load(listener->acceptors[index]->loop);
        if (load < least) {
            least = load;
            best = index;
        }
    }
    return best;
}

/* The bytes of a host, IPv4 as itself also where it comes as IPv6. Returns how many, 0 if there is none. */
static size_t host_of(const struct gyre__addr *peer, uint8_t host[16])
{
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    if (peer->ss.ss_family == AF_INET) {
        memcpy(host, &((const struct sockaddr_in *)&peer->ss)->sin_addr, 4);
        return 4;
    }
    if (peer->ss.ss_family != AF_INET6)
        return 0;
    memcpy(host, &((const struct sockaddr_in6 *)&peer->ss)->sin6_addr, 16);
    if (memcmp(host, mapped, sizeof mapped) != 0)
        return 16;
    memmove(host, host + sizeof mapped, 4);
    return 4;
}

static uint32_t by_host(struct gyre__balancer *balance, uint32_t count, const struct gyre__addr *peer)
{
    uint8_t host[16];
    size_t len = host_of(peer, host);
    uint64_t hash = balance->random;
    if (len == 0)
        return next_in_turn(balance, count);
    for (size_t i = 0; i < len; i++)
        hash = gyre__random_mix(hash ^ host[i]) + GYRE_RANDOM_STEP;
    return (uint32_t)((gyre__random_mix(hash) >> 32) * count >> 32);
}

static uint32_t by_user(struct gyre_listener *listener, const struct gyre__addr *peer)
{
    uint32_t index =
        listener->balance.choose(listener, (const struct sockaddr *)&peer->ss, peer->len, listener->user);
    if (index < listener->loop_count)
        return index;
    gyre__count(&listener->acceptors[0]->loop->be->stats.balance_errors, 1);
    return next_in_turn(&listener->balance, listener->loop_count);
}

static uint32_t choose(struct gyre_listener *listener, const struct gyre__addr *peer)
{
    struct gyre__balancer *balance = &listener->balance;
    uint32_t count = listener->loop_count;
    switch (balance->kind) {
    case GYRE_BALANCE_LEAST_CONNS:
        return least_loaded(listener);
    case GYRE_BALANCE_SOURCE_HASH:
        return by_host(balance, count, peer);
    case GYRE_BALANCE_RANDOM:
        return next_random(balance, count);
    case GYRE_BALANCE_CUSTOM:
        return by_user(listener, peer);
    case GYRE_BALANCE_AUTO:
    case GYRE_BALANCE_KERNEL:
    case GYRE_BALANCE_ROUND_ROBIN:
        break;
    }
    return next_in_turn(balance, count);
}

struct gyre__acceptor *gyre__balance_choose(struct gyre_listener *listener, const struct gyre__addr *peer)
{
    uint32_t count = listener->loop_count, index = choose(listener, peer), skipped = 0;
    while (skipped < count && gyre__loop_room(listener->acceptors[index]->loop) == 0) {
        index = (index + 1) % count;
        skipped++;
    }
    if (listener->balance.kind != GYRE_BALANCE_SOURCE_HASH && listener->balance.kind != GYRE_BALANCE_RANDOM &&
        (skipped > 0 || listener->balance.kind == GYRE_BALANCE_LEAST_CONNS))
        listener->balance.next = (index + 1) % count;
    return listener->acceptors[index];
}
