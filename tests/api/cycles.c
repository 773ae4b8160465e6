/* SPDX-License-Identifier: MIT
 * Thousands of connections that come and go with receives and sends in flight, ending in every way: 4000 per backend
 * over TCP, 500 over the others, or the number that GYRE_TEST_CYCLES in the environment says. */
#include "fixture.h"

#include <gyre/stats.h>
#include <stdlib.h>

enum { CYCLES = 4000, AT_ONCE = 32 };

static void talk(struct end *e)
{
    (void)end_take(e);
    (void)end_try_put(e, 2000);
}

static void end_somehow(struct end *e, struct peer *p, uint32_t how)
{
    switch (how) {
    case 0:
        (void)gyre_conn_close(e->c);
        break;
    case 1:
        (void)gyre_conn_abort(e->c);
        break;
    case 2:
        peer_reset(p);
        break;
    case 3:
        (void)gyre_conn_shutdown(e->c);
        break;
    case 4:
        (void)gyre_conn_pause(e->c);
        (void)gyre_conn_abort(e->c);
        break;
    default:
        break;
    }
    peer_close(p);
}

/* Forget the ends that are closed, so that a hundred thousand do not pile up. */
static void sweep(struct api *api)
{
    struct end **at = &api->ends;
    while (*at != NULL) {
        struct end *e = *at;
        if (e->closes == 0) {
            at = &e->next;
            continue;
        }
        *at = e->next;
        free(e);
    }
}

static void cycle(struct backend_param *param, unsigned cycles)
{
    struct api api;
    struct peer peers[AT_ONCE];
    struct end *ends[AT_ONCE];
    struct env_rng rng;
    struct gyre_listener_options options = {.conn = {.linger_timeout_ns = MS(500)}};
    const struct script script = {.open = talk, .data = talk};
    const char *wanted = getenv("GYRE_TEST_CYCLES");
    if (wanted != NULL)
        cycles = (unsigned)atoi(wanted);
    env_rng_init(&rng, 9);
    api_init(&api, param);
    api_open(&api);
    api_listen(&api, &script, &options);
    for (unsigned done = 0; done < cycles; done += AT_ONCE) {
        for (unsigned i = 0; i < AT_ONCE; i++) {
            ends[i] = peer_open(&api, &peers[i]);
            ends[i]->side->key_in = 10 + (done + i) % 400 * 2;
            ends[i]->side->key_out = ends[i]->side->key_in + 1;
            (void)peer_send_some(&peers[i], env_rng_below(&rng, 5000));
            if (env_rng_below(&rng, 4) == 0)
                end_put(ends[i], 300000);
        }
        for (unsigned i = env_rng_below(&rng, 4); i > 0; i--)
            api_turn_now(&api);
        for (unsigned i = 0; i < AT_ONCE; i++)
            if (ends[i]->c != NULL)
                end_somehow(ends[i], &peers[i], env_rng_below(&rng, 6));
            else
                peer_close(&peers[i]);
        api_until(&api, gyre_loop_conn_count(api.loop) == 0);
        sweep(&api);
    }
    struct gyre_stats stats = api_stats(&api);
    cr_assert_eq(stats.closed, stats.accepted);
    cr_assert_eq(stats.closed, api.closed);
    cr_assert_geq(stats.closed, cycles);
    api_close(&api);
}

/* Over TCP, and over unix sockets by way of the transports. */
TRANSPORT_TEST(api_cycles, open_and_close)
{
    cycle(p, p->transport == TRANSPORT_TCP4 && backends_is_real(p->backend) ? CYCLES : CYCLES / 8);
}
