/* SPDX-License-Identifier: MIT
 * The file of a unix socket: who made it, and removing it. */
#include "path.h"
#include "addr.h"

#include <sys/stat.h>
#include <unistd.h>

void gyre__path_remember(struct gyre__path *path, const struct gyre__backend *be, const struct gyre__addr *addr)
{
    struct stat st;
    const char *name = gyre__addr_path(addr);
    if (name == NULL || be->ops->sock != &gyre__sock_system || lstat(name, &st) != 0)
        return;
    *path = (struct gyre__path){.device = (uint64_t)st.st_dev, .inode = st.st_ino, .ours = true};
}

void gyre__path_remove(struct gyre__path *path, const struct gyre__addr *addr)
{
    struct stat st;
    const char *name = gyre__addr_path(addr);
    if (!path->ours)
        return;
    path->ours = false;
    if (lstat(name, &st) == 0 && (uint64_t)st.st_dev == path->device && st.st_ino == path->inode)
        (void)unlink(name);
}
