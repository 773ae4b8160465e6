/* SPDX-License-Identifier: MIT
 * What every other header needs: the version, errors, memory and log hooks, and the rules that hold everywhere.
 *
 * Callbacks. The loop invokes callbacks. A function that you call invokes no callback during the call, unless its
 * comment says so. Each loop runs one callback at a time. A callback may call every function, unless the comment of the
 * function forbids it. Closing and stopping are allowed. The `on_close` of a connection runs exactly once and is the
 * connection's last callback.
 *
 * Errors. A function that can fail returns 0 (or a count) on success and a negative int on failure. A value -errno is
 * an error of the system, unchanged. A value GYRE_E… is an error of gyre and lies outside the range of errno. After
 * GYRE_EOPTION, gyre_last_option_error() says which option was refused and why. Out parameters are set only on success.
 *
 * Order of parameters. What the call fills in comes first, with its size. The object follows, then the arguments. A
 * callback and its `user` are last; only options come after them. A callback gets its `user` as the last argument.
 *
 * Ownership. The comments use these words:
 *   "borrows until …"    the library reads the memory until then; the caller keeps the memory valid
 *   "takes"              the library frees the memory or closes the descriptor
 *   "returns owned"      the caller frees the object
 *   "returns borrowed"   the caller must not free the object
 *
 * Threads. The comment of each function says which thread may call it.
 *   "any"                any thread
 *   "the loop's"         the thread that runs the loop with gyre_loop_run() or gyre_loop_run_nowait(). Before the loop
 *                        first runs, this is the thread that sets the loop up.
 * A call from the wrong thread that could do harm is refused with GYRE_ETHREAD.
 *
 * fork(2). Loops, and all objects on them, stay with the parent, which is not affected. In the child, gyre_loop_run(),
 * gyre_loop_post() and similar functions return GYRE_EFORK, other functions return GYRE_ETHREAD, and destroying does
 * nothing. The child may create loops of its own. exec(2) and _exit(2) release what the child inherited: every
 * descriptor is close-on-exec. A child that is forked in a callback must call one of the two before the callback
 * returns.
 *
 * Options. A call with options is a macro. Its last argument is a pointer to the options, which may be a compound
 * literal, or NULL for all defaults. A field that is 0 has its default. Options of another call, a missing last
 * argument and an argument too many do not compile.
 *
 * Options can grow. New fields are only appended, before the options that are nested in the struct (`conn`, `loop`),
 * which are its last field. The macro calls a function whose name ends in _sized, with the size of the struct that the
 * caller was compiled with, and the size of the nested options, if there are any. Therefore a program works that was
 * compiled with an older or a newer header. If the caller's struct is larger than the library knows, and a field that
 * the library does not know is not 0, the call returns -E2BIG. Programs in other languages call the _sized function. */
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

/* The last arguments of a _sized function: options and the size of their struct. In C the type is checked here, because
 * compilers may only warn of a pointer to another type. The name is long because compilers print it with the error. */
#ifdef __cplusplus
#define GYRE_LAST_ARGUMENT_IS_OPTIONS_OR_NULL(type, ...) __VA_ARGS__, sizeof(type)
#else
#define GYRE_LAST_ARGUMENT_IS_OPTIONS_OR_NULL(type, ...)                                                               \
    __VA_ARGS__, _Generic((__VA_ARGS__), type *: sizeof(type), const type *: sizeof(type), void *: sizeof(type))
#endif

/* Returns the version of the linked library as "major.minor.patch". GYRE_VERSION is the version of the header.
 * Thread: any. */
GYRE_API const char *gyre_version(void);

/* The errors of gyre: name, number, and a sentence that says what is wrong. */
#define GYRE_ERRORS(X)                                                                                                 \
    X(GYRE_ECLOSED, -100001, "the connection, socket or watch is closed or closing; it takes no more data")            \
    X(GYRE_ETHREAD, -100002, "called from the wrong thread; call it on the loop's thread, with gyre_loop_post()")      \
    X(GYRE_EADDRESS, -100003, "the address is not valid here: streams use tcp://IP:PORT or unix:///PATH, datagrams "   \
      "udp://IP:PORT or unixgram:///PATH (gyre_engine_listen_udp); an IP address is needed here, not a name")          \
    X(GYRE_EPATHLEN, -100004, "the unix socket path is empty or longer than the system allows (107 bytes on Linux)")   \
    X(GYRE_EHANDLERS, -100005, "the handlers are NULL or lack a required one (on_data, on_frame, on_datagram)")        \
    X(GYRE_EBACKEND, -100006, "unknown backend name; use auto, io_uring, epoll or kqueue")                             \
    X(GYRE_ENOBACKEND, -100007, "this library was built without that backend")                                         \
    X(GYRE_EOPTION, -100008, "an option or argument is out of its range or does not fit the call; "                    \
      "gyre_last_option_error() says which")    \
    X(GYRE_ESTALE, -100009, "the connection, socket or job with this id no longer exists")                             \
    X(GYRE_ETIMEOUT, -100010, "a time limit was exceeded")                                                             \
    X(GYRE_ESHUTDOWN, -100011, "the loop, engine or pool is stopping")                                                 \
    X(GYRE_ECONNS, -100012, "the limit on connections is reached (conns_max)")                                         \
    X(GYRE_ESTATE, -100013, "wrong state for this call: already running, ended or closed, or not yet connected")       \
    X(GYRE_ESOCKTYPE, -100014, "the descriptor is not a socket of the type and state that this call needs")            \
    X(GYRE_EFRAME, -100015, "the peer sent an invalid frame: it is too long, or its length field is invalid")          \
    X(GYRE_EFILE, -100016, "the file ends before the last byte to send")                                               \
    X(GYRE_EFORK, -100017, "the object belongs to the parent process; after fork(2) the child must create its own")    \
    X(GYRE_EFDTYPE, -100018, "a descriptor of this kind cannot be watched, such as a regular file")

enum {
#define GYRE_ERROR_ENUM(name, number, text) name = number,
    GYRE_ERRORS(GYRE_ERROR_ENUM)
#undef GYRE_ERROR_ENUM
};

/* Return the symbol of an error, such as "ECONNRESET" or "GYRE_ECLOSED", and a sentence that describes it. Never NULL.
 * The strings are static, except for an error that gyre has no sentence for. Its text is name, number and
 * strerror(3), such as "EDEADLK (35): Resource deadlock avoided". If gyre has no name either, the name is the number,
 * such as "E35". These two are valid until the thread's next call of the same function.
 * Thread: any. */
GYRE_API const char *gyre_err_name(int err);
GYRE_API const char *gyre_err_text(int err);

/* Returns a sentence about the last GYRE_EOPTION that a call on this thread returned: which option or argument, its
 * value, and the range. Such as "write_low_bytes is 4096; it must be 0 to 1024". Empty if there was none. Valid until
 * the thread's next GYRE_EOPTION. Look at it right after the call: other calls do not change it.
 * Thread: any. */
GYRE_API const char *gyre_last_option_error(void);

/* The source of the library's memory. `resize(NULL, n, user)` allocates `n` bytes. `resize(p, 0, user)` frees `p` and
 * returns NULL. Any other call behaves like realloc(3). Return NULL when out of memory. The function must be safe to
 * call from every loop's thread. */
struct gyre_mem {
    void *(*resize)(void *ptr, size_t size_bytes, void *user);
    void *user;
};

enum gyre_log_level { GYRE_LOG_DEBUG = 0, GYRE_LOG_INFO, GYRE_LOG_WARN, GYRE_LOG_ERROR };

/* The receiver of the library's few log lines. `line` gets one line without a newline, on the thread of any loop; NULL:
 * no log. The default log writes warnings and errors to standard error. */
struct gyre_log {
    void (*line)(enum gyre_log_level level, const char *text, void *user);
    void *user;
    enum gyre_log_level level_min; /* lines below this level are not formatted */
};

/* Which backend a loop has, and why. Filled by gyre_loop_backend(). */
struct gyre_backend_report {
    const char *backend; /* "io_uring", "epoll", "kqueue" or "sim"; static */
    char reason[384];    /* why this backend; for each better one, why not and what a person can do about it */
    char features[384];  /* kernel features in use, comma-separated */
};

/* Reports the end of a send. `err` is 0 if the kernel accepted all bytes. Otherwise the kernel accepted none or only a
 * part of them, and `err` is the cause: GYRE_ECLOSED, GYRE_ESTALE or -errno. */
typedef void gyre_sent_fn(int err, void *user);

#ifdef __cplusplus
}
#endif

#endif
