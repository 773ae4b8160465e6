/* SPDX-License-Identifier: MIT
 * Chance, delays and the trace of a simulated network: all randomness comes from one generator here. */
#include "world.h"

#include <stddef.h>
#include <string.h>

#define RESENT_NS        UINT64_C(200000000)

/* A linear congruential generator, its state mixed so that all bits of the result are good. */
uint64_t gyre__sim_random(struct gyre_sim *sim)
{
    sim->chance = sim->chance * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    uint64_t x = sim->chance;
    x ^= x >> 32;
    x *= UINT64_C(0x9fb21c651e98df25);
    x ^= x >> 29;
    return x;
}

uint64_t gyre__sim_below(struct gyre_sim *sim, uint64_t bound)
{
    GYRE_ASSERT(bound > 0);
    return gyre__sim_random(sim) % bound;
}

bool gyre__sim_chance(struct gyre_sim *sim, uint16_t permille)
{
    return permille > 0 && gyre__sim_below(sim, 1000) < permille;
}

uint64_t gyre__sim_delay_ns(struct gyre_sim *sim)
{
    uint64_t span_ns = sim->opt.delay_max_ns - sim->opt.delay_min_ns;
    uint64_t delay_ns = sim->opt.delay_min_ns + (span_ns > 0 ? gyre__sim_below(sim, span_ns + 1) : 0);
    if (!gyre__sim_chance(sim, sim->opt.loss_permille))
        return delay_ns;
    sim->counts.losses++;
    return delay_ns + (RESENT_NS << gyre__sim_below(sim, 3));
}

uint64_t gyre__sim_mix(uint64_t hash, uint64_t value)
{
    hash = (hash ^ value) * UINT64_C(0xd6e8feb86659fd93);
    return hash ^ (hash >> 32);
}

void gyre__sim_trace(struct gyre_sim *sim, uint64_t value)
{
    sim->trace = gyre__sim_mix(sim->trace, value);
}

uint64_t gyre__sim_hash(uint64_t hash, const void *data, size_t len)
{
    const uint8_t *bytes = data;
    uint64_t word;
    hash = gyre__sim_mix(hash, len);
    for (; len >= sizeof word; bytes += sizeof word, len -= sizeof word) {
        memcpy(&word, bytes, sizeof word);
        hash = gyre__sim_mix(hash, word);
    }
    word = 0;
    if (len > 0)
        memcpy(&word, bytes, len);
    return gyre__sim_mix(hash, word);
}
