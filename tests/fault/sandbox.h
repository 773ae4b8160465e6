/* SPDX-License-Identifier: MIT
 * What hosts do to programs: forbid system calls, take away rights and memory.
 *
 * A trial is run in a forked child, because none of it can be undone, and because a process remembers for ever whether
 * io_uring worked in it. */
#ifndef GYRE_FAULT_SANDBOX_H
#define GYRE_FAULT_SANDBOX_H

#include <gyre.h>

enum { DENY_SETUP = 1, DENY_ENTER = 2, DENY_REGISTER = 4, DENY_ALL = 7, DENY_WAIT = 8, DENY_KILL = -1 };

/* How a child is confined. All zero: not at all. */
struct confinement {
    unsigned deny;         /* DENY_…: io_uring's system calls; waiting by epoll */
    int deny_errno;        /* what they say then; DENY_KILL: the process dies */
    bool nobody;           /* no root, no capabilities */
    bool limit_memlock;
    unsigned long memlock; /* bytes that may be locked */
    unsigned long nofile;  /* descriptors, those open already included; 0: as many as before */
    const char *env;       /* GYRE_BACKEND; NULL: not set */
};

/* Confine this very process. Returns whether that was possible. */
bool confine(const struct confinement *c);

/* What a child has to tell. */
struct verdict {
    int status;      /* as of waitpid(2) */
    bool confined;
    int err;         /* of making the engine and listening */
    bool serves;     /* it echoed, on both listeners */
    char wrong[200]; /* empty: nothing */
    struct gyre_backend_report report;
};

/* In a child: be confined, make an engine with so many loops on `backend` (NULL: auto), let it echo, end it. */
void sandbox_try(struct verdict *out, const struct confinement *c, const char *backend, uint32_t loops);

/* Whether io_uring works here as long as nobody forbids it. */
bool sandbox_has_uring(void);

#endif
