/* SPDX-License-Identifier: MIT
 * Which backends exist here, and choosing one.
 *
 * The normal course: with auto the compiled-in order is tried, best first; the first that opens is taken, and for each
 * one before it the report says why not. GYRE_BACKEND in the environment stands in for auto. A backend asked for by
 * name is the only one tried: with "epoll" no io_uring system call is made at all. */
#include "backends.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef GYRE_HAVE_URING
extern const struct gyre__backend_ops gyre__backend_uring;
#endif
#ifdef GYRE_HAVE_EPOLL
extern const struct gyre__backend_ops gyre__backend_epoll;
#endif
#ifdef GYRE_HAVE_KQUEUE
extern const struct gyre__backend_ops gyre__backend_kqueue;
#endif
extern const struct gyre__backend_ops gyre__backend_sim;

/* Best first. */
static const struct gyre__backend_ops *const compiled_in[] = {
#ifdef GYRE_HAVE_URING
    &gyre__backend_uring,
#endif
#ifdef GYRE_HAVE_EPOLL
    &gyre__backend_epoll,
#endif
#ifdef GYRE_HAVE_KQUEUE
    &gyre__backend_kqueue,
#endif
    NULL,
};

/* What auto says of io_uring in a build without it. */
#ifdef GYRE_HAVE_URING
static const char *const left_out = NULL;
#else
static const char *const left_out = "no io_uring: not compiled into this library";
#endif

#define VARIABLE "GYRE_BACKEND"

static const char *const known[] = {"io_uring", "epoll", "kqueue"};

const struct gyre__backend_ops *gyre__backend_find(const char *name)
{
    if (strcmp(name, gyre__backend_sim.name) == 0)
        return &gyre__backend_sim;
    for (size_t i = 0; compiled_in[i] != NULL; i++)
        if (strcmp(compiled_in[i]->name, name) == 0)
            return compiled_in[i];
    return NULL;
}

static bool is_known(const char *name)
{
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strcmp(known[i], name) == 0)
            return true;
    return false;
}

#ifdef __GLIBC__
static const char *environment(const char *name)
{
    return secure_getenv(name);
}
#else
static const char *environment(const char *name)
{
    return getenv(name);
}
#endif

static bool is_auto(const char *name)
{
    return name == NULL || strcmp(name, "auto") == 0;
}

bool gyre__backend_is_auto(const char *name)
{
    const char *env = environment(VARIABLE);
    return is_auto(name) && (is_auto(env) || env[0] == '\0');
}

/* Append one sentence to the reason. */
static void explain(struct gyre_backend_report *report, const char *text)
{
    size_t used = strlen(report->reason);
    (void)snprintf(report->reason + used, sizeof report->reason - used, "%s%s", used > 0 ? "; " : "", text);
}

static int open_one(struct gyre__backend **out, const struct gyre__backend_ops *ops,
                    const struct gyre__backend_config *cfg, struct gyre_backend_report *report)
{
    char why[sizeof report->reason] = "";
    int err = ops->create(out, cfg, why, sizeof why);
    if (err == 0) {
        report->backend = ops->name;
        return 0;
    }
    char text[sizeof report->reason + 32];
    (void)snprintf(text, sizeof text, "no %s: %s", ops->name, why[0] != '\0' ? why : gyre_err_text(err));
    explain(report, text);
    return err;
}

static int open_named(struct gyre__backend **out, const char *name, const char *asked_by,
                      const struct gyre__backend_config *cfg, struct gyre_backend_report *report)
{
    char text[96];
    const struct gyre__backend_ops *ops = gyre__backend_find(name);
    if (!is_known(name)) {
        (void)snprintf(text, sizeof text, "%s asks for \"%.32s\", which is no backend", asked_by, name);
        explain(report, text);
        return GYRE_EBACKEND;
    }
    if (ops == NULL) {
        (void)snprintf(text, sizeof text, "%s is not compiled into this library", name);
        explain(report, text);
        return GYRE_ENOBACKEND;
    }
    int err = open_one(out, ops, cfg, report);
    if (err == 0) {
        (void)snprintf(text, sizeof text, "asked for by %s", asked_by);
        explain(report, text);
    }
    return err;
}

static int open_best(struct gyre__backend **out, const struct gyre__backend_config *cfg,
                     struct gyre_backend_report *report)
{
    int err = GYRE_ENOBACKEND;
    if (left_out != NULL)
        explain(report, left_out);
    for (size_t i = 0; compiled_in[i] != NULL; i++) {
        err = open_one(out, compiled_in[i], cfg, report);
        if (err == 0) {
            explain(report, i == 0 ? "the best there is here" : "the next best that works here");
            return 0;
        }
        /* Out of descriptors or memory: the next backend needs them too, and settling for less would hide it. */
        if (err == -EMFILE || err == -ENFILE)
            return err;
    }
    return err;
}

int gyre__backend_open(struct gyre__backend **out, const char *name, const struct gyre__backend_config *cfg,
                       struct gyre_backend_report *report)
{
    *report = (struct gyre_backend_report){.backend = ""};
    if (cfg->sim != NULL) {
        int err = open_one(out, &gyre__backend_sim, cfg, report);
        if (err == 0)
            explain(report, "the options name a simulated network");
        return err;
    }
    if (gyre__backend_is_auto(name))
        return open_best(out, cfg, report);
    if (is_auto(name))
        return open_named(out, environment(VARIABLE), VARIABLE, cfg, report);
    return open_named(out, name, "the program", cfg, report);
}
