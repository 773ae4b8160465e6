/* SPDX-License-Identifier: MIT
 * The file of a unix socket: who made it, and removing it. */
#include "path.h"
#include "addr.h"
#include "sock.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#ifdef O_PATH
#define OPEN_FOLDER (O_PATH | O_DIRECTORY | O_CLOEXEC)
#else
#define OPEN_FOLDER (O_RDONLY | O_DIRECTORY | O_CLOEXEC)
#endif

/* Without a descriptor for it, what counts is where the process is later on. */
static int folder_of(const char *name)
{
    int folder = name[0] != '/' ? open(".", OPEN_FOLDER) : AT_FDCWD;
    return folder >= 0 ? folder : AT_FDCWD;
}

void gyre__path_forget(struct gyre__path *path)
{
    if (!path->ours)
        return;
    path->ours = false;
    if (path->folder >= 0)
        (void)close(path->folder);
    path->folder = AT_FDCWD;
}

void gyre__path_remember(struct gyre__path *path, const struct gyre__backend *be, const struct gyre__addr *addr)
{
    struct stat st;
    const char *name = gyre__addr_path(addr);
    if (name == NULL || be->ops->sock != &gyre__sock_system || lstat(name, &st) != 0)
        return;
    *path = (struct gyre__path){
        .device = (uint64_t)st.st_dev, .inode = st.st_ino, .folder = folder_of(name), .ours = true};
}

void gyre__path_remove(struct gyre__path *path, const struct gyre__addr *addr)
{
    struct stat st;
    const char *name = gyre__addr_path(addr);
    if (!path->ours)
        return;
    if (fstatat(path->folder, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && (uint64_t)st.st_dev == path->device &&
        st.st_ino == path->inode)
        (void)unlinkat(path->folder, name, 0);
    gyre__path_forget(path);
}

/* Asked with a socket of another type, so that nobody gets a connection: it is refused only if no socket has the file
 * (EPROTOTYPE: one has). */
static bool is_bound(const struct gyre__addr *addr)
{
    int probe = gyre__sock_new(AF_UNIX, SOCK_DGRAM, 0);
    if (probe < 0)
        return true;
    bool refused = connect(probe, (const struct sockaddr *)&addr->ss, addr->len) != 0 && errno == ECONNREFUSED;
    (void)close(probe);
    return !refused;
}

void gyre__path_remove_unused(struct gyre__path *path, const struct gyre__addr *addr)
{
    if (path->ours && is_bound(addr))
        gyre__path_forget(path); /* it is theirs now */
    gyre__path_remove(path, addr);
}
