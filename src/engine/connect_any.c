/* SPDX-License-Identifier: MIT
 * Connecting from any thread, on the least loaded loop of an engine. */
#include "engine.h"
#include "connect/connect.h"

#include <errno.h>
#include <string.h>

struct remote_connect {
    struct gyre__task task;
    struct gyre__profile *profile;
    struct gyre__route route;
    gyre_connected_fn *done;
    void *user;
    char text[]; /* the route's */
};

static void run_connect(struct gyre_loop *l, void *user)
{
    struct remote_connect *r = user;
    struct gyre_conn *c = NULL;
    int err = l->phase == GYRE_PHASE_ENDING ? GYRE_ESHUTDOWN : 0;
    if (err == 0)
        err = gyre__connect_with(&c, l, &r->route, r->profile, GYRE_CONN_RESERVED);
    else
        gyre__loop_unreserve(l);
    if (err != 0)
        gyre__free(l->mem, r->profile);
    gyre_connected_fn *done = r->done;
    void *done_user = r->user;
    gyre__free(l->mem, r);
    if (done != NULL)
        done(l, c, err, done_user);
}

/* In turn among equals. */
static struct gyre_loop *least_loaded(struct gyre_engine *engine)
{
    uint32_t count = gyre_engine_loop_count(engine), start = gyre__set_turn(&engine->set) % count;
    struct gyre_loop *best = gyre_engine_loop(engine, start);
    for (uint32_t i = 1; i < count; i++) {
        struct gyre_loop *l = gyre_engine_loop(engine, (start + i) % count);
        if (gyre__loop_load(l) < gyre__loop_load(best))
            best = l;
    }
    return best;
}

/* Take a place. Returns NULL if all loops are full; the last place of one may go to another thread meanwhile. */
static struct gyre_loop *reserve(struct gyre_engine *engine)
{
    for (uint32_t i = 0, count = gyre_engine_loop_count(engine); i <= count; i++) {
        struct gyre_loop *l = least_loaded(engine);
        if (gyre__loop_reserve(l))
            return l;
        if (gyre__loop_room(l) == 0)
            break;
    }
    return NULL;
}

/* Takes `r`: it is the loop's, or freed on failure. */
static int post_connect(struct gyre_engine *engine, struct remote_connect *r)
{
    struct gyre_loop *l = reserve(engine);
    if (l == NULL) {
        gyre__free(gyre_engine_loop(engine, 0)->mem, r);
        return GYRE_ECONNS;
    }
    int err = gyre__loop_post_block(l, r, run_connect);
    if (err != 0)
        gyre__loop_unreserve(l);
    return err;
}

int gyre_engine_connect_sized(struct gyre_engine *engine, const char *address,
                              const struct gyre_conn_handlers *handlers, gyre_connected_fn *done, void *user,
                              const struct gyre_conn_options *options, size_t size_bytes)
{
    struct gyre__profile *profile;
    struct gyre__route route;
    if (engine == NULL || address == NULL)
        return -EINVAL;
    if (gyre__loop_is_forked(gyre_engine_loop(engine, 0)))
        return GYRE_EFORK;
    const struct gyre_mem *mem = gyre_engine_loop(engine, 0)->mem;
    int err = gyre__profile_new(&profile, mem, handlers, options, size_bytes);
    if (err != 0)
        return err;
    err = gyre__route_find(&route, address, &profile->options);
    size_t len = strlen(address) + 1;
    struct remote_connect *r = err == 0 ? gyre__alloc(mem, sizeof *r + len) : NULL;
    if (r == NULL) {
        gyre__free(mem, profile);
        return err != 0 ? err : -ENOMEM;
    }
    *r = (struct remote_connect){.profile = profile, .route = route, .done = done, .user = user};
    memcpy(r->text, address, len);
    r->route.text = r->text;
    err = post_connect(engine, r);
    if (err != 0)
        gyre__free(mem, profile);
    return err;
}
