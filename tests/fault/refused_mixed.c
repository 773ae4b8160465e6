/* SPDX-License-Identifier: MIT
 * Bulk that goes through pipes, without memory, when files, writes and parts go in between. What was refused is done
 * again. */
#include "refused_relay.h"

#include <errno.h>

static void run_relay(unsigned turns, uint64_t goal)
{
    for (unsigned i = 0; i < turns && x.closed == 0 && x.got < goal; i++) {
        if (x.sent < goal)
            feed(BATCH);
        if (is_open(x.from)) /* what was refused is done again */
            (void)gyre_conn_wake(x.from);
        turn();
    }
}

/* Bulk through pipes from the first turn on, files and writes between it. */
static void play_mixed(struct refused *r)
{
    open_relay(r);
    x.mixes = true;
    uint64_t goal = x.sent + 4 * (uint64_t)BATCH;
    refused_begin(r);
    run_relay(TURNS, goal);
    refused_over(r);
    run_relay(20000, goal);
    if (x.closed == 0 && is_open(x.from) && is_open(x.to)) {
        refused_until(r, (drain(), x.got == x.sent && x.first == x.count));
        cr_assert_eq(x.file_err, 0, "%s: a file: %s", r->where, gyre_err_name(x.file_err));
    } else {
        refused_until(r, x.closed > 0);
        cr_assert(r->struck && x.close_err == -ENOMEM, "%s: closed: %s", r->where, gyre_err_name(x.close_err));
    }
    close_relay(r);
}

REAL_TEST(refused_pipes, mixed)
{
    refused_each(p, play_mixed, 3);
}
