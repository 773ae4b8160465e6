/* SPDX-License-Identifier: MIT
 * Errors have names and sentences: ours all of them, the system's all that a call on a socket can give. */
#include <gyre/base.h>

#include <criterion/criterion.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

static const struct {
    int err;
    const char *name;
} ours[] = {
#define ROW(name, number, text) {number, #name},
    GYRE_ERRORS(ROW)
#undef ROW
};

/* What socket(2), bind(2), listen(2), connect(2), accept(2), setsockopt(2), getsockname(2), unix(7), tcp(7), ip(7),
 * send(2), recv(2), shutdown(2), epoll_ctl(2) and io_uring_setup(2) list, by number of the name. */
static const struct {
    int err;
    const char *name;
} systems[] = {
#define ROW(name) {name, #name},
    ROW(EPERM) ROW(ENOENT) ROW(EINTR) ROW(EIO) ROW(EBADF) ROW(EAGAIN) ROW(ENOMEM) ROW(EACCES) ROW(EFAULT) ROW(EBUSY)
    ROW(EEXIST) ROW(EXDEV) ROW(ENOTDIR) ROW(EINVAL) ROW(ENFILE) ROW(EMFILE) ROW(ENOSPC) ROW(EROFS) ROW(EPIPE)
    ROW(ENAMETOOLONG) ROW(ENOSYS) ROW(ELOOP) ROW(EPROTO) ROW(ENOTSOCK) ROW(EDESTADDRREQ) ROW(EMSGSIZE)
    ROW(EPROTOTYPE) ROW(ENOPROTOOPT) ROW(EPROTONOSUPPORT) ROW(EOPNOTSUPP) ROW(EAFNOSUPPORT) ROW(EADDRINUSE)
    ROW(EADDRNOTAVAIL) ROW(ENETDOWN) ROW(ENETUNREACH) ROW(ENETRESET) ROW(ECONNABORTED) ROW(ECONNRESET) ROW(ENOBUFS)
    ROW(EISCONN) ROW(ENOTCONN) ROW(ETIMEDOUT) ROW(ECONNREFUSED) ROW(EHOSTUNREACH) ROW(EALREADY) ROW(EINPROGRESS)
    ROW(ECANCELED) ROW(E2BIG) ROW(EISDIR) ROW(ENODEV) ROW(ERANGE)
#ifdef EHOSTDOWN
    ROW(EHOSTDOWN)
#endif
#undef ROW
};

/* Every GYRE_E… has its symbol as name, and a sentence of its own that is more than the name. */
Test(err, ours)
{
    for (size_t i = 0; i < sizeof ours / sizeof ours[0]; i++) {
        cr_assert_str_eq(gyre_err_name(ours[i].err), ours[i].name);
        cr_assert(strlen(gyre_err_text(ours[i].err)) > 10, "%s has no sentence", ours[i].name);
        cr_assert(ours[i].err < -4096, "%s lies within the system's range", ours[i].name);
        for (size_t k = 0; k < i; k++) {
            cr_assert_neq(ours[i].err, ours[k].err, "%s and %s share a number", ours[i].name, ours[k].name);
            cr_assert_str_neq(gyre_err_text(ours[i].err), gyre_err_text(ours[k].err));
        }
    }
}

/* An error that a user of sockets can meet has its name, so that a log line says which it was. */
Test(err, systems)
{
    char missing[1024] = "";
    for (size_t i = 0; i < sizeof systems / sizeof systems[0]; i++) {
        cr_expect(strlen(gyre_err_text(-systems[i].err)) > 2, "%s has no sentence", systems[i].name);
        if (strcmp(gyre_err_name(-systems[i].err), systems[i].name) == 0)
            continue;
        size_t used = strlen(missing);
        (void)snprintf(missing + used, sizeof missing - used, " %s(\"%s\")", systems[i].name,
                       gyre_err_name(-systems[i].err));
    }
    cr_assert_str_empty(missing, "without their name:%s", missing);
}

/* One without a sentence of ours says its name and number, one without a name its number. */
Test(err, unknown)
{
    cr_expect_str_eq(gyre_err_name(-EDEADLK), "EDEADLK");
    cr_expect(strncmp(gyre_err_text(-EDEADLK), "EDEADLK (", 9) == 0, "%s", gyre_err_text(-EDEADLK));
    cr_expect_str_eq(gyre_err_name(-4000), "E4000");
    cr_expect(strncmp(gyre_err_text(-4000), "E4000 (4000): ", 14) == 0, "%s", gyre_err_text(-4000));
    cr_expect(strstr(gyre_err_text(5), "no error") != NULL, "%s", gyre_err_text(5));
}

static void check_any(int err)
{
    const char *name = gyre_err_name(err), *text = gyre_err_text(err);
    cr_assert(name != NULL && name[0] != '\0', "%d has no name", err);
    cr_assert(text != NULL && text[0] != '\0', "%d has no text", err);
    cr_assert_eq(text, gyre_err_text(err), "the text of %d is not static", err);
}

/* Never NULL, whatever the number: positive errno values, which are a mistake, included. */
Test(err, any_number)
{
    for (int err = -101000; err < 5000; err++)
        check_any(err);
    check_any(INT_MIN);
    check_any(INT_MAX);
    cr_assert_str_neq(gyre_err_name(ECONNRESET), "ECONNRESET", "errors are negative; this number is none");
}

/* The version of the library is that of the headers that it was built with. */
Test(err, version)
{
    char text[32];
    (void)snprintf(text, sizeof text, "%d.%d.%d", GYRE_VERSION_MAJOR, GYRE_VERSION_MINOR, GYRE_VERSION_PATCH);
    cr_assert_str_eq(gyre_version(), text);
    cr_assert_str_eq(GYRE_VERSION, text);
}
