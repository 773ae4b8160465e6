/* SPDX-License-Identifier: MIT
 * The engine's own pool of threads for work that blocks. */
#include "engine.h"
#include "loop/loop.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* Its threads begin with what the one in run may use, and not with the one processor of a pinned loop that asks. */
static int make_pool(struct gyre_engine *engine)
{
    char name[GYRE_THREAD_NAME_SIZE + 8];
    struct gyre__affinity mine = {.known = false};
    struct gyre_pool_options options = engine->pool_options;
    (void)snprintf(name, sizeof name, "%.8s-work", engine->name);
    options.name = name;
    if (engine->affinity.known)
        gyre__affinity_keep(&mine);
    gyre__affinity_restore(&engine->affinity);
    int err = gyre__pool_make(&engine->pool, &options);
    gyre__affinity_restore(&mine);
    return err;
}

int gyre_engine_pool(struct gyre_pool **out, struct gyre_engine *engine)
{
    if (out == NULL || engine == NULL)
        return -EINVAL;
    if (gyre__loop_is_forked(engine->set.loops[0]))
        return GYRE_EFORK;
    (void)pthread_mutex_lock(&engine->set.gate);
    int err = engine->pool_over ? GYRE_ESHUTDOWN : 0;
    if (err == 0 && engine->pool == NULL)
        err = make_pool(engine);
    if (err == 0)
        *out = engine->pool;
    (void)pthread_mutex_unlock(&engine->set.gate);
    return err;
}

int gyre_engine_offload(struct gyre_engine *engine, gyre_work_fn *work, gyre_work_done_fn *done, void *user)
{
    struct gyre_pool *pool;
    struct gyre_loop *here = NULL;
    if (engine == NULL)
        return -EINVAL;
    for (uint32_t i = 0; i < engine->set.count && here == NULL; i++)
        if (gyre_loop_is_current(engine->set.loops[i]))
            here = engine->set.loops[i];
    if (here == NULL)
        return GYRE_ETHREAD;
    int err = gyre_engine_pool(&pool, engine);
    return err != 0 ? err : gyre_pool_submit(NULL, pool, here, work, done, user);
}
