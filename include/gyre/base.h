/* SPDX-License-Identifier: MIT
 * What every other header needs: version, errors, memory and log hooks, and the rules that hold everywhere.
 *
 * Callbacks. A callback is never called from inside a call that the user made; it comes later, from the loop. One runs
 * at a time per loop. Every call is legal in every callback, closing and stopping included. A connection's `on_close`
 * comes exactly once and last.
 *
 * Errors. A function that can fail returns 0 (or a count) on success and a negative int on failure. -errno values are
 * the system's, unchanged; GYRE_E… values are ours and lie outside that range. There is no "last error". Out
 * parameters come first and are set only on success.
 *
 * Ownership words. "Borrows until …": the library reads it until then, the caller keeps it alive. "Takes": the
 * library frees it. "Returns owned": the caller frees it. "Returns borrowed": the caller must not free it.
 *
 * Threads. Each function says which thread may call it: "any", or "the loop's" (the thread inside gyre_loop_run or
 * gyre_loop_run_nowait, or, before the loop first ran, the thread that is setting it up). A call from a wrong thread
 * that could do harm is refused with GYRE_ETHREAD.
 *
 * fork(2). Loops, and all that belongs to them, stay with the parent, which does not notice. In the child
 * gyre_loop_run(), gyre_loop_post() and their like are refused with GYRE_EFORK, other calls with GYRE_ETHREAD, and
 * destroying does nothing.
 * The child may make loops of its own. What it inherited goes with exec(2), for every descriptor is close-on-exec, or
 * with _exit(2). A child that is made in a callback does one of the two before it returns.
 *
 * Options. Zero means the default, NULL means all defaults. Fields are only ever appended; the macros pass the size the
 * caller was compiled with (their last argument is the options; it may be a compound literal). A larger struct than the
 * library knows, with something set in the part it does not know, is refused with -E2BIG. */
#ifndef GYRE_BASE_H
#define GYRE_BASE_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define GYRE_VERSION_MAJOR 0
#define GYRE_VERSION_MINOR 1
#define GYRE_VERSION_PATCH 0
#define GYRE_VERSION "0.1.0"

#if defined(__GNUC__)
#define GYRE_API __attribute__((visibility("default")))
#define GYRE_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#else
#define GYRE_API
#define GYRE_PRINTF(fmt, args)
#endif

/* The version of the library that is linked, "major.minor.patch"; GYRE_VERSION is that of the header.
 * Thread: any. */
GYRE_API const char *gyre_version(void);

/* Our own errors: name, number, and what to do about it. */
#define GYRE_ERRORS(X)                                                                                                 \
    X(GYRE_ECLOSED, -100001, "the connection is closed or closing; nothing was queued")                                \
    X(GYRE_ETHREAD, -100002, "called from a thread that is not the loop's; post it with gyre_loop_post")               \
    X(GYRE_EADDRESS, -100003, "the address does not parse; write tcp://HOST:PORT, udp://HOST:PORT, unix:///PATH")      \
    X(GYRE_EPATHLEN, -100004, "the unix socket path is empty or too long for the system (107 bytes on Linux)")         \
    X(GYRE_EHANDLERS, -100005, "no handlers were given, or they lack on_data")                                         \
    X(GYRE_EBACKEND, -100006, "no backend of that name; use auto, io_uring, epoll or kqueue")                          \
    X(GYRE_ENOBACKEND, -100007, "that backend was not compiled into this library")                                     \
    X(GYRE_EOPTION, -100008, "an option is out of range")                                                              \
    X(GYRE_ESTALE, -100009, "the connection that this id named is gone")                                               \
    X(GYRE_ETIMEOUT, -100010, "the time limit passed")                                                                 \
    X(GYRE_ESHUTDOWN, -100011, "the loop is stopping")                                                                 \
    X(GYRE_ECONNS, -100012, "the limit on connections is reached (conns_max)")                                         \
    X(GYRE_ESTATE, -100013, "not in this state: already running, already started, or not yet connected")               \
    X(GYRE_ESOCKTYPE, -100014, "the descriptor is not a socket of the type and state that this call needs")   \
    X(GYRE_EFRAME, -100015, "what the peer sent is no frame: too long, or its length makes no sense")               \
    X(GYRE_EFILE, -100016, "the file is shorter than what was to be sent of it")                                       \
    X(GYRE_EFORK, -100017, "the loop belongs to the process that forked this one; a child makes its own")              \
    X(GYRE_EFDTYPE, -100018, "the descriptor is of a kind that cannot be waited for, such as a regular file")

enum {
#define GYRE_ERROR_ENUM(name, number, text) name = number,
    GYRE_ERRORS(GYRE_ERROR_ENUM)
#undef GYRE_ERROR_ENUM
};

/* The symbol of an error, such as "ECONNRESET" or "GYRE_ECLOSED", and a sentence about it. Never NULL; static.
 * Thread: any. */
GYRE_API const char *gyre_err_name(int err);
GYRE_API const char *gyre_err_text(int err);

/* Where the library's memory comes from. `resize(user, NULL, n)` allocates, `resize(user, p, 0)` frees and returns
 * NULL, otherwise as realloc(3). Returns NULL when out of memory. Must be safe to call from every loop's thread. */
struct gyre_mem {
    void *(*resize)(void *user, void *ptr, size_t size_bytes);
    void *user;
};

enum gyre_log_level { GYRE_LOG_DEBUG = 0, GYRE_LOG_INFO, GYRE_LOG_WARN, GYRE_LOG_ERROR };

/* Where the library's few log lines go; each is one line without a newline. Called from any loop's thread. The default
 * writes warnings and errors to standard error. */
struct gyre_log {
    void (*line)(void *user, enum gyre_log_level level, const char *text);
    void *user;
    enum gyre_log_level level_min; /* lines below it are not made */
};

/* Which backend a loop got and why. Filled by gyre_loop_backend(). */
struct gyre_backend_report {
    const char *backend; /* "io_uring", "epoll", "kqueue" or "sim"; static */
    char reason[384];    /* why this one, and for each better one why not, with what a person can do about it */
    char features[384];  /* what of the kernel is in use, comma-separated */
};

/* `err` 0: the kernel took all the bytes. Else none or only part of them left: GYRE_ECLOSED, GYRE_ESTALE or -errno. */
typedef void gyre_sent_fn(void *user, int err);

#ifdef __cplusplus
}
#endif

#endif
