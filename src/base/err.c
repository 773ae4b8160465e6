/* SPDX-License-Identifier: MIT
 * Names and sentences for errors, and the version. */
#include <gyre/base.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

const char *gyre_version(void)
{
    return GYRE_VERSION;
}

struct row {
    int err;
    const char *name;
    const char *text; /* NULL: none of ours */
};

static const struct row rows[] = {
#define GYRE_ERROR_ROW(name, number, text) {name, #name, text},
    GYRE_ERRORS(GYRE_ERROR_ROW)
#undef GYRE_ERROR_ROW
    /* The system's errors that a user of sockets meets, with what they mean here. */
    {0, "OK", "no error"},
    {-EPERM, "EPERM", "not permitted: a sandbox, a seccomp profile or a missing capability forbids it"},
    {-ENOENT, "ENOENT", "no such file or directory; for a unix socket, create its directory or start its server"},
    {-EINTR, "EINTR", "interrupted by a signal"},
    {-EIO, "EIO", "input/output error"},
    {-EBADF, "EBADF", "the descriptor is not open"},
    {-EAGAIN, "EAGAIN", "try again later: a limit is reached, or too few bytes have arrived"},
    {-ENOMEM, "ENOMEM", "out of memory"},
    {-EACCES, "EACCES", "permission denied; ports below 1024 and the paths of unix sockets need rights"},
    {-EFAULT, "EFAULT", "bad address in memory"},
    {-EBUSY, "EBUSY", "busy"},
    {-EEXIST, "EEXIST", "already exists; for a unix socket, the path exists and is not a socket"},
    {-ENOTDIR, "ENOTDIR", "a part of the path is not a directory"},
    {-EISDIR, "EISDIR", "the path is a directory"},
    {-ENODEV, "ENODEV", "no network device has that name"},
    {-ERANGE, "ERANGE", "the buffer is too small for the result"},
    {-ENOSPC, "ENOSPC", "no space left on the device that holds the path"},
    {-EROFS, "EROFS", "the path is on a read-only file system"},
    {-ENAMETOOLONG, "ENAMETOOLONG", "the path is too long"},
    {-ELOOP, "ELOOP", "too many symbolic links in the path"},
    {-EXDEV, "EXDEV", "the two connections belong to different loops"},
    {-EINVAL, "EINVAL", "invalid argument"},
    {-ENFILE, "ENFILE", "the system is out of file descriptors"},
    {-EMFILE, "EMFILE", "the process is out of file descriptors; raise ulimit -n"},
    {-EPIPE, "EPIPE", "the sending side was shut down"},
    {-EMSGSIZE, "EMSGSIZE", "larger than the limit"},
    {-ENOSYS, "ENOSYS", "the kernel does not have this system call"},
    {-EOPNOTSUPP, "EOPNOTSUPP", "not supported here"},
    {-E2BIG, "E2BIG", "an option is set that this version of the library does not know"},
    {-EAFNOSUPPORT, "EAFNOSUPPORT", "the address family is not supported here"},
    {-EADDRINUSE, "EADDRINUSE", "the address is in use: another socket is bound to it"},
    {-EADDRNOTAVAIL, "EADDRNOTAVAIL", "no interface has that address, or no local port is free"},
    {-ENOTSOCK, "ENOTSOCK", "the descriptor is not a socket"},
    {-EDESTADDRREQ, "EDESTADDRREQ", "the socket has no destination"},
    {-EPROTOTYPE, "EPROTOTYPE", "the socket is of the wrong type for that address"},
    {-ENOPROTOOPT, "ENOPROTOOPT", "the socket does not know that option"},
    {-EPROTONOSUPPORT, "EPROTONOSUPPORT", "the protocol is not supported here"},
    {-EPROTO, "EPROTO", "protocol error"},
    {-ENETRESET, "ENETRESET", "the network dropped the connection"},
    {-EISCONN, "EISCONN", "already connected"},
    {-EALREADY, "EALREADY", "already in progress"},
    {-EINPROGRESS, "EINPROGRESS", "in progress"},
    {-EHOSTDOWN, "EHOSTDOWN", "the host is down"},
    {-ENETDOWN, "ENETDOWN", "the network is down"},
    {-ENETUNREACH, "ENETUNREACH", "no route to that network"},
    {-ECONNABORTED, "ECONNABORTED", "the connection was aborted"},
    {-ECONNRESET, "ECONNRESET", "the peer reset the connection"},
    {-ENOBUFS, "ENOBUFS", "no buffer space"},
    {-ENOTCONN, "ENOTCONN", "not connected"},
    {-ETIMEDOUT, "ETIMEDOUT", "the peer did not answer in time"},
    {-ECONNREFUSED, "ECONNREFUSED", "connection refused: nothing listens on that address"},
    {-EHOSTUNREACH, "EHOSTUNREACH", "no route to that host"},
    {-ECANCELED, "ECANCELED", "cancelled"},
/* Others that POSIX names: no call that gyre makes is known to give them. */
#define ROW(name) {-name, #name, NULL},
    ROW(EBADMSG) ROW(ECHILD) ROW(EDEADLK) ROW(EDOM) ROW(EDQUOT) ROW(EFBIG) ROW(EIDRM) ROW(EILSEQ) ROW(EMLINK)
    ROW(ENOEXEC) ROW(ENOLCK) ROW(ENOMSG) ROW(ENOTEMPTY) ROW(ENOTRECOVERABLE) ROW(ENOTTY) ROW(ENXIO) ROW(EOVERFLOW)
    ROW(EOWNERDEAD) ROW(ESPIPE) ROW(ESRCH) ROW(ESTALE) ROW(ETXTBSY)
#undef ROW
};

static const struct row *find(int err)
{
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (rows[i].err == err)
            return &rows[i];
    return NULL;
}

const char *gyre_err_name(int err)
{
    static _Thread_local char number[16];
    const struct row *row = find(err);
    if (row != NULL)
        return row->name;
    (void)snprintf(number, sizeof number, "E%lld", -(long long)err);
    return number;
}

const char *gyre_err_text(int err)
{
    static _Thread_local char text[160];
    const struct row *row = find(err);
    if (row != NULL && row->text != NULL)
        return row->text;
    if (err > 0 || err < -4095)
        (void)snprintf(text, sizeof text, "%d is no error; errors are -errno or one of gyre's", err);
    else
        (void)snprintf(text, sizeof text, "%s (%d): %s", gyre_err_name(err), -err, strerror(-err));
    return text;
}
