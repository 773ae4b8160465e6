/* SPDX-License-Identifier: MIT
 * The loop under test and its connections. */
#include "datagram/udp.h"
#include "reactor/reactor.h"
#include "fixture.h"

#include "loop/loop.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { KIND_SIDE = 0x51de, KIND_END = 0xe4d, FIRST_KEY = 10 };

/* ---- callbacks ---- */

void api_enter(struct api *api)
{
    cr_assert(api->in_turn, "a callback outside of a turn of the loop");
    cr_assert_eq(api->depth, 0, "a callback from inside a callback");
    api->depth++;
}

void api_leave(struct api *api)
{
    api->depth--;
}

void end_ignore(struct end *e)
{
    (void)e;
}

static struct end *end_new(struct side *side)
{
    struct end *e = calloc(1, sizeof *e);
    cr_assert_not_null(e);
    *e = (struct end){.kind = KIND_END, .api = side->api, .side = side, .next = side->api->ends};
    e->key_in = side->key_in;
    e->key_out = side->key_out;
    side->key_in += 2;
    side->key_out += 2;
    side->api->ends = e;
    return e;
}

static struct end *end_of(struct gyre_conn *c)
{
    struct end *e = gyre_conn_user(c);
    cr_assert_not_null(e);
    cr_assert_eq(e->kind, KIND_END, "a callback before on_open");
    cr_assert_eq(e->closes, 0, "a callback after on_close");
    cr_assert_eq(e->c, c);
    api_enter(e->api);
    return e;
}

static struct end *open_end_of(struct gyre_conn *c)
{
    struct end *e = end_of(c);
    cr_assert_eq(e->opens, 1, "a callback before on_open");
    cr_assert_eq(gyre_conn_close_reason(c), GYRE_CLOSE_NONE, "a callback of a connection that is closing");
    return e;
}

static void on_open(struct gyre_conn *c)
{
    struct side *side = gyre_conn_user(c);
    struct end *e = gyre_conn_user(c);
    if (side->kind == KIND_SIDE) {
        e = end_new(side);
        e->c = c;
        side->api->accepted++;
        gyre_conn_set_user(c, e);
        cr_assert_not_null(gyre_conn_listener(c));
    }
    (void)end_of(c);
    cr_assert_eq(e->opens + e->datas + e->eofs + e->drains, 0, "on_open is not first");
    cr_assert_eq(gyre_conn_loop(c), e->api->loop);
    e->opens++;
    e->id = gyre_conn_id_of(c);
    if (e->side->script->open != NULL)
        e->side->script->open(e);
    api_leave(e->api);
}

static void on_data(struct gyre_conn *c)
{
    struct end *e = open_end_of(c);
    cr_assert(e->eofs == 0 || gyre_conn_inbound(c) <= e->left_at_eof, "new bytes after on_eof");
    e->datas++;
    if (e->side->script->data != NULL)
        e->side->script->data(e);
    else
        (void)end_take(e);
    api_leave(e->api);
}

static void on_frame(struct gyre_conn *c, struct gyre_slice frame)
{
    struct end *e = open_end_of(c);
    cr_assert_eq(e->eofs, 0, "a frame after on_eof");
    e->frames++;
    e->side->script->frame(e, frame);
    api_leave(e->api);
}

static void on_bad_frame(struct gyre_conn *c, int err)
{
    struct end *e = open_end_of(c);
    e->bad_frames++;
    e->side->script->bad_frame(e, err);
    api_leave(e->api);
}

static void on_drain(struct gyre_conn *c)
{
    struct end *e = open_end_of(c);
    e->drains++;
    if (e->side->script->drain != NULL)
        e->side->script->drain(e);
    api_leave(e->api);
}

static void on_eof(struct gyre_conn *c)
{
    struct end *e = open_end_of(c);
    e->eofs++;
    cr_assert_eq(e->eofs, 1, "on_eof twice");
    e->left_at_eof = gyre_conn_inbound(c);
    e->side->script->eof(e);
    api_leave(e->api);
}

static void on_timeout(struct gyre_conn *c)
{
    struct end *e = open_end_of(c);
    e->timeouts++;
    e->side->script->timeout(e);
    api_leave(e->api);
}

static void on_close(struct gyre_conn *c, int err)
{
    struct end *e = end_of(c);
    e->closes++;
    e->err = err;
    e->reason = gyre_conn_close_reason(c);
    e->unsent = gyre_conn_unsent(c);
    cr_assert_neq(e->reason, GYRE_CLOSE_NONE);
    e->api->closed++;
    if (e->side->script->close != NULL)
        e->side->script->close(e);
    e->c = NULL;
    api_leave(e->api);
}

static struct side *side_new(struct api *api, const struct script *script)
{
    static const struct script count_only;
    struct side *side = calloc(1, sizeof *side);
    cr_assert_not_null(side);
    *side = (struct side){.kind = KIND_SIDE, .api = api, .script = script != NULL ? script : &count_only};
    side->key_in = FIRST_KEY;
    side->key_out = FIRST_KEY + 1;
    side->handlers = (struct gyre_conn_handlers){
        .on_open = on_open, .on_data = on_data, .on_drain = on_drain, .on_close = on_close};
    if (side->script->frame != NULL)
        side->handlers.on_frame = on_frame;
    if (side->script->bad_frame != NULL)
        side->handlers.on_bad_frame = on_bad_frame;
    if (side->script->eof != NULL)
        side->handlers.on_eof = on_eof;
    if (side->script->timeout != NULL)
        side->handlers.on_timeout = on_timeout;
    side->next = api->sides;
    api->sides = side;
    return side;
}

/* ---- the loop ---- */

void api_init(struct api *api, const struct backend_param *p)
{
    *api = (struct api){.backend = p->backend, .param = p, .transport = p->transport, .fds = env_fd_count()};
    api->is_sim = !backends_is_real(p->backend);
    backends_leave_out(p);
    env_mem_init(&api->mem);
    env_dir_make(api->dir, sizeof api->dir);
}

static void make_sim(struct api *api)
{
    struct env_rng rng;
    env_rng_init(&rng, 1);
    struct gyre_sim_options options = {
        .seed = env_rng_next(&rng),
        .profile = api->quiet_sim ? GYRE_SIM_QUIET : GYRE_SIM_CHAOS,
        .mem = &api->mem.mem,
        .accept_emfile_permille = GYRE_SIM_NEVER,
        .accept_aborted_permille = GYRE_SIM_NEVER,
        .connect_timeout_permille = GYRE_SIM_NEVER,
        .connect_unreachable_permille = GYRE_SIM_NEVER,
        .reset_permille = GYRE_SIM_NEVER,
    };
    if (api->sim_options != NULL)
        options = *api->sim_options;
    options.mem = &api->mem.mem;
    cr_assert_eq(gyre_sim_create(&api->sim, &options), 0);
}

/* Why the backend does not open here, as a skipped or failed test. */
static void give_up(const struct api *api, int err)
{
    struct gyre_sim *sim;
    struct gyre__backend *be = backends_open(api->backend, (struct gyre__backend_config){.mem = &api->mem.mem}, &sim);
    cr_assert_null(be, "%s opens, but a loop on it does not: %s", api->backend, gyre_err_name(err));
}

void api_open(struct api *api)
{
    struct gyre__backend_config tune = {.cq_entries = api->cq_entries};
    api->options.mem = &api->mem.mem;
    if (api->is_sim) {
        make_sim(api);
        api->options.sim = api->sim;
    } else {
        api->options.backend = api->backend;
    }
    int err = api->cq_entries != 0 ? gyre__loop_make(&api->loop, &api->options, &tune)
                                   : gyre_loop_create(&api->loop, &api->options);
    if (err != 0) {
        env_dir_remove(api->dir);
        give_up(api, err);
    }
    struct gyre_backend_report report;
    gyre_loop_backend(&report, api->loop);
    const char *off = api->param->off;
    cr_assert(off[0] == '\0' || !backends_names(report.features, off), "%s is in use: %s", off, report.features);
}

void api_fresh_address(struct api *api, char *out, size_t size)
{
    int n = 0;
    unsigned number = api->paths++;
    switch (api->transport) {
    case TRANSPORT_TCP4:
        n = snprintf(out, size, "tcp://127.0.0.1:0");
        break;
    case TRANSPORT_TCP6:
        n = snprintf(out, size, "tcp://[::1]:0");
        break;
    case TRANSPORT_UNIX:
        n = snprintf(out, size, "unix://%s/s%u", api->dir, number);
        break;
    case TRANSPORT_ABSTRACT:
        n = snprintf(out, size, "unix://@%s/s%u", api->dir + 1, number);
        break;
    }
    cr_assert(n > 0 && (size_t)n < size);
}

void api_listen(struct api *api, const struct script *script, const struct gyre_listener_options *options)
{
    char address[160];
    struct side *side = side_new(api, script);
    struct gyre_listener_options o = {.conn = {.user = NULL}};
    if (options != NULL)
        o = *options;
    o.conn.user = side;
    api_fresh_address(api, address, sizeof address);
    int err = gyre_loop_listen(&api->listener, api->loop, address, &side->handlers, &o);
    cr_assert_eq(err, 0, "listen on %s: %s", address, gyre_err_name(err));
    (void)snprintf(api->address, sizeof api->address, "%s", gyre_listener_address(api->listener));
}

void api_start(struct api *api, const struct backend_param *p, const struct script *script)
{
    api_init(api, p);
    api_open(api);
    api_listen(api, script, NULL);
}

static uint64_t values_in(const struct gyre_histogram *h)
{
    uint64_t count = 0;
    for (unsigned i = 0; i < GYRE_HISTOGRAM_BUCKETS; i++)
        count += h->buckets[i];
    return count;
}

/* Counters add up at any time; with no connection left, gauges are back at nothing. */
static void check_stats(const struct api *api)
{
    struct gyre_stats s = api_stats(api);
    cr_assert_eq(values_in(&s.turn_events), s.turns);
    cr_assert_eq(s.turn_events.sum, s.events);
    cr_assert_eq(values_in(&s.enter_completions), s.enters);
    cr_assert_eq(s.recv_bytes.sum, s.bytes_in);
    cr_assert_leq(values_in(&s.turn_ns), s.turns + 1); /* the wait may be the one that lost the backend */
    cr_assert_leq(s.sends_gathered, s.sends);
    cr_assert_geq(s.send_pieces, s.sends + s.sends_gathered);
    cr_assert_leq(s.bufs_held_max, s.bufs_max);
    if (s.conns > 0 || api->loop->udps->open > 0)
        return;
    cr_assert_eq(s.bufs_held, 0, "%u receive buffers are still held", (unsigned)s.bufs_held);
    cr_assert_eq(s.bytes_queued, s.bytes_out + s.bytes_dropped, "%llu bytes queued, %llu sent, %llu dropped",
                 (unsigned long long)s.bytes_queued, (unsigned long long)s.bytes_out,
                 (unsigned long long)s.bytes_dropped);
    cr_assert_eq(s.bytes_outbound, 0);
    cr_assert_eq(s.starved, 0);
}

void api_destroy_loop(struct api *api)
{
    if (api->loop == NULL)
        return;
    check_stats(api);
    env_no_workers();
    api->in_turn = true;
    gyre_loop_destroy(api->loop);
    api->in_turn = false;
    api->loop = NULL;
}

void api_close(struct api *api)
{
    api_destroy_loop(api);
    gyre_sim_destroy(api->sim);
    while (api->ends != NULL) {
        struct end *e = api->ends;
        api->ends = e->next;
        cr_assert_eq(e->closes, 1, "a connection that opened %u times closed %u times", e->opens, e->closes);
        free(e);
    }
    while (api->sides != NULL) {
        struct side *side = api->sides;
        api->sides = side->next;
        free(side);
    }
    env_dir_remove(api->dir);
    cr_assert_eq(atomic_load(&api->mem.blocks), 0, "%ld blocks are not freed", atomic_load(&api->mem.blocks));
    int fds = env_fd_count();
    cr_assert_eq(fds, api->fds, "%d descriptors were open, now %d", api->fds, fds);
}

/* ---- turning ---- */

static bool is_second_time(void *user)
{
    unsigned *times = user;
    return ++*times == 2;
}

void api_turn_now(struct api *api)
{
    api->in_turn = true;
    int more = gyre_loop_run_nowait(api->loop);
    api->in_turn = false;
    cr_assert_geq(more, 0, "gyre_loop_run_nowait: %s", gyre_err_name(more));
}

void api_turn(struct api *api)
{
    unsigned times = 0;
    api->in_turn = true;
    int more = api->is_sim ? gyre_sim_run(api->sim, &api->loop, 1, 2, is_second_time, &times)
                           : gyre_loop_run_nowait(api->loop);
    api->in_turn = false;
    if (api->is_sim) {
        cr_assert(more == 0 || more == -EDEADLK, "gyre_sim_run: %s", gyre_err_name(more));
        return;
    }
    cr_assert_geq(more, 0, "gyre_loop_run_nowait: %s", gyre_err_name(more));
    struct pollfd pfd = {.fd = gyre_loop_fd(api->loop), .events = POLLIN};
    if (more == 0)
        (void)poll(&pfd, 1, 1);
}

uint64_t api_now_ns(const struct api *api)
{
    return api->is_sim ? gyre_sim_now_ns(api->sim) : env_now_ns();
}

void api_watch(struct api *api, int64_t ns)
{
    uint64_t end_ns = api_now_ns(api) + (uint64_t)ns;
    if (!api->is_sim) {
        while (env_now_ns() < end_ns)
            api_turn(api);
        return;
    }
    for (unsigned i = 0; i < 100; i++) {
        gyre_sim_advance(api->sim, (uint64_t)ns / 100);
        for (unsigned k = 0; k < 20; k++)
            api_turn_now(api);
    }
}

struct gyre_stats api_stats(const struct api *api)
{
    struct gyre_stats stats;
    gyre_loop_stats(&stats, api->loop);
    return stats;
}

/* ---- connections ---- */

struct end *api_connect(struct api *api, const char *address, const struct script *script,
                        const struct gyre_conn_options *options)
{
    struct side *side = side_new(api, script);
    side->key_in = FIRST_KEY + 1;
    side->key_out = FIRST_KEY;
    struct end *e = end_new(side);
    struct gyre_conn_options o = {.user = NULL};
    if (options != NULL)
        o = *options;
    o.user = e;
    int err = gyre_connect(&e->c, api->loop, address, &side->handlers, &o);
    cr_assert_eq(err, 0, "gyre_connect to %s: %s", address, gyre_err_name(err));
    cr_assert_null(gyre_conn_listener(e->c));
    e->id = gyre_conn_id_of(e->c);
    return e;
}

struct end *api_newest(struct api *api)
{
    struct end *e = api->ends;
    while (e != NULL && (e->key_in & 1) != (FIRST_KEY & 1))
        e = e->next;
    return e;
}

size_t end_take(struct end *e)
{
    size_t taken = 0;
    struct gyre_slice view;
    while (gyre_conn_inbound(e->c) > 0) {
        cr_assert_eq(gyre_conn_next(&view, e->c, 0), 0);
        cr_assert_gt(view.len, 0);
        int64_t bad = env_pattern_check(view.data, view.len, e->key_in, e->got);
        cr_assert_eq(bad, -1, "wrong byte at %llu", (unsigned long long)e->got + (unsigned long long)bad);
        e->got += view.len;
        taken += view.len;
    }
    return taken;
}

int end_try_put(struct end *e, size_t bytes)
{
    uint8_t *data = malloc(bytes + 1);
    cr_assert_not_null(data);
    env_pattern_fill(data, bytes, e->key_out, e->put);
    int err = gyre_conn_write(e->c, data, bytes);
    memset(data, 0x5a, bytes);
    free(data);
    if (err == 0)
        e->put += bytes;
    return err;
}

void end_put(struct end *e, size_t bytes)
{
    int err = end_try_put(e, bytes);
    cr_assert_eq(err, 0, "gyre_conn_write of %zu: %s", bytes, gyre_err_name(err));
}

void end_forward_back(struct end *e)
{
    int64_t n = gyre_conn_forward(e->c, e->c, SIZE_MAX);
    cr_assert_geq(n, 0, "gyre_conn_forward: %s", gyre_err_name((int)n));
    e->got += (uint64_t)n;
}

void end_on_sent(int err, void *user)
{
    struct end *e = user;
    api_enter(e->api);
    cr_assert_eq(e->closes, 0, "done after on_close");
    e->sents++;
    e->sent_errs += err != 0;
    e->n = err != 0 ? (uint64_t)(int64_t)err : e->n;
    api_leave(e->api);
}
