/* SPDX-License-Identifier: MIT
 * The counters of an engine, summed over its loops. */
#include "loop/loop.h"

#include <string.h>
#include <gyre/engine.h>

void gyre_engine_stats_sized(struct gyre_stats *out, size_t size_bytes, const struct gyre_engine *engine)
{
    struct gyre_stats sum, one;
    memset(&sum, 0, sizeof sum);
    for (uint32_t i = 0; i < gyre_engine_loop_count(engine); i++) {
        gyre__stats_read(gyre_engine_loop(engine, i), &one);
        for (unsigned n = 0; n < sizeof sum / sizeof(uint64_t); n++)
            ((uint64_t *)&sum)[n] += ((const uint64_t *)&one)[n];
    }
    gyre__stats_hand_out(out, size_bytes, &sum);
}
