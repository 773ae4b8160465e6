/* SPDX-License-Identifier: MIT
 * Making and ending the engine.
 *
 * A poller that opens is believed only after a wake-up sent through it has arrived. If it does not open or the wake-up
 * does not arrive, the caller is told why in words, and nothing is left. */
#include "readiness.h"

#include "base/check.h"
#include "base/log.h"
#include "base/mem.h"

#include <errno.h>
#include <stdio.h>

/* A wake must arrive, or posting would be lost on this system. */
static int prove(struct gyre__rd *rd)
{
    struct gyre__ready ready[1];
    rd->poller->wake(&rd->p);
    int got = rd->poller->wait(&rd->p, ready, 1, 0);
    if (got < 0)
        return got;
    return got == 1 && ready[0].f == NULL ? 0 : -EIO;
}

static const char *reason(int err)
{
    switch (err) {
    case -EMFILE:
        return "this process may open no more descriptors; raise its limit (ulimit -n)";
    case -ENFILE:
        return "the system may open no more files; raise its limit";
    case -ENOMEM:
        return "out of memory";
    case -ENOSYS:
        return "this kernel does not have it";
    case -EPERM:
    case -EACCES:
        return "the system forbids it to this process (a seccomp filter, a jail); allow it there";
    case -EIO:
        return "it opened, but a wake-up sent through it did not arrive; it is not complete on this system";
    default:
        return "it does not open";
    }
}

static int fail(struct gyre__rd *rd, const char *name, int err, char *why, size_t why_size)
{
    (void)snprintf(why, why_size, "%s: %s (errno %d)", name, reason(err), -err);
    if (rd != NULL) {
        rd->poller->close(&rd->p);
        gyre__free(rd->mem, rd);
    }
    return err;
}

static bool busy_poll(struct gyre__rd *rd, const struct gyre__backend_config *cfg)
{
    if (cfg->busy_poll_us == 0 || rd->poller->busy_poll == NULL)
        return false;
    int err = rd->poller->busy_poll(&rd->p, cfg->busy_poll_us, cfg->busy_poll_prefer);
    if (err != 0)
        gyre__log_line(cfg->log, GYRE_LOG_DEBUG, "%s: asking for busy polling: %s", rd->base.ops->name,
                       gyre_err_text(err));
    return err == 0;
}

int gyre__rd_create(struct gyre__backend **out, const struct gyre__backend_config *cfg,
                    const struct gyre__backend_ops *ops, const struct gyre__poller_ops *poller, char *why,
                    size_t why_size)
{
    struct gyre__rd *rd = gyre__alloc(cfg->mem, sizeof *rd);
    if (rd == NULL)
        return fail(NULL, ops->name, -ENOMEM, why, why_size);
    rd->base.ops = ops;
    rd->mem = cfg->mem;
    rd->poller = poller;
    rd->p = (struct gyre__poller){.fd = -1, .wake_fd = -1};
    atomic_init(&rd->woken, false);
    int err = poller->open(&rd->p);
    if (err == 0)
        err = prove(rd);
    if (err != 0)
        return fail(rd, ops->name, err, why, why_size);
    rd->base.busy_polls = busy_poll(rd, cfg);
    rd->base.sends_late = true;
    *out = &rd->base;
    return 0;
}

void gyre__rd_destroy(struct gyre__backend *be)
{
    struct gyre__rd *rd = gyre__rd_of(be);
    GYRE_ASSERT(rd->cancelled == NULL);
    rd->poller->close(&rd->p);
    gyre__fdq_fini(&rd->run[GYRE_DIR_READ], rd->mem);
    gyre__fdq_fini(&rd->run[GYRE_DIR_WRITE], rd->mem);
    gyre__free(rd->mem, rd->errors.by_fd);
    gyre__free(rd->mem, rd);
}
