/* SPDX-License-Identifier: MIT
 * Listening sockets from a service manager, by the protocol of sd_listen_fds(3): descriptors from 3 on, and environment
 * variables that say how many and for whom. */
#include "handover.h"

#include <errno.h>
#include <fcntl.h>
#include <gyre/handover.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { FIRST_INHERITED = 3 };

/* The number that a variable holds, or -1. */
static long number_in(const char *variable, long max)
{
    const char *text = getenv(variable);
    char *end;
    if (text == NULL || text[0] < '0' || text[0] > '9')
        return -1;
    errno = 0;
    long number = strtol(text, &end, 10);
    return errno == 0 && *end == '\0' && number <= max ? number : -1;
}

/* Name number `index` of LISTEN_FDNAMES, which are separated by colons. One that is too long is none. */
static void name_of(char *out, size_t size, uint32_t index)
{
    const char *at = getenv("LISTEN_FDNAMES");
    for (uint32_t i = 0; at != NULL && i < index; i++) {
        at = strchr(at, ':');
        at = at != NULL ? at + 1 : NULL;
    }
    size_t len = at != NULL ? strcspn(at, ":") : 0;
    if (len >= size)
        len = 0;
    if (len > 0)
        memcpy(out, at, len);
    out[len] = '\0';
}

static int inherit(struct gyre_handover *h, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        int fd = FIRST_INHERITED + (int)i, flags = fcntl(fd, F_GETFD);
        if (flags < 0)
            return -EBADF;
        if (gyre__handover_look(fd) != 0 || fcntl(fd, F_SETFD, flags | FD_CLOEXEC) != 0)
            continue;
        struct gyre__handed *handed = &h->handed[h->count++];
        handed->fd = fd;
        name_of(handed->name, sizeof handed->name, i);
    }
    return 0;
}

int gyre_handover_inherit(struct gyre_handover **out)
{
    bool ours = number_in("LISTEN_PID", LONG_MAX) == (long)getpid();
    long count = ours ? number_in("LISTEN_FDS", GYRE_HANDOVER_MAX) : 0;
    if (out == NULL)
        return -EINVAL;
    if (count < 0)
        return -EPROTO;
    struct gyre_handover *h = gyre__handover_new(-1, (uint32_t)count);
    if (h == NULL)
        return -ENOMEM;
    int err = inherit(h, (uint32_t)count);
    if (err == 0) {
        *out = h;
        return 0;
    }
    h->count = 0; /* they are not ours */
    gyre_handover_destroy(h);
    return err;
}
