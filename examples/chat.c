/* SPDX-License-Identifier: MIT
 * A chat. The first line that a guest sends is the guest's name. Every other line goes to all guests that have a name.
 *
 * usage: chat [--backend auto|io_uring|epoll|kqueue] [--loops N] [--stats] ADDRESS [abort]
 *
 * A framer splits the input into lines. A guest that sends a line of more than 1000 bytes gets an error message and is
 * disconnected. Guests are spread over all loops, and a broadcast reaches all of them. The lines of one guest arrive in
 * order; the lines of two guests may interleave differently on different loops.
 *
 * A guest that does not read misses lines while more than 64 KiB are queued for it; with `abort` it is disconnected
 * instead. A guest that takes no bytes for 30 seconds is disconnected too. */
#include <gyre.h>

#include <ctype.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "example.h"

#define NAME_BYTES "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"

enum { NAME_MAX_BYTES = 24, LINE_MAX_BYTES = 1000 };

struct guest { /* a connection's user pointer, once it has a name */
    char name[NAME_MAX_BYTES + 1];
    struct guest *next;
};

static struct gyre_engine *engine;
static enum gyre_slow slow;
/* All guests, because names are unique. Each loop is a thread, so a lock protects the list. */
static pthread_mutex_t guests_lock = PTHREAD_MUTEX_INITIALIZER;
static struct guest *guests;

static struct guest **find(const char *name)
{
    for (struct guest **at = &guests;; at = &(*at)->next)
        if (*at == NULL || strcmp((*at)->name, name) == 0)
            return at;
}

static bool add(struct guest *guest)
{
    pthread_mutex_lock(&guests_lock);
    struct guest **at = find(guest->name);
    bool is_new = *at == NULL;
    if (is_new)
        *at = guest;
    pthread_mutex_unlock(&guests_lock);
    return is_new;
}

static void tell(struct gyre_conn *c, const char *text)
{
    (void)gyre_conn_write(c, text, strlen(text)); /* fails only if the connection is closing or out of memory */
}

static bool has_name(struct gyre_conn *c, void *user)
{
    (void)user;
    return gyre_conn_user(c) != NULL;
}

/* Send a line to everybody, the speaker included. Returns 0 if the broadcast was queued. */
static int say(const char *before, const char *name, const char *behind, struct gyre_slice text)
{
    char line[NAME_MAX_BYTES + LINE_MAX_BYTES + 32];
    int len = snprintf(line, sizeof line, "%s%s%s", before, name, behind);
    for (size_t i = 0; i < text.len; i++) /* no bells or escape sequences for other terminals */
        line[len++] = (char)(iscntrl(text.data[i]) ? '?' : text.data[i]);
    line[len++] = '\n';
    struct gyre_broadcast_options options = {.slow = slow, .filter = has_name};
    return gyre_engine_broadcast(engine, line, (size_t)len, &options);
}

static void on_open(struct gyre_conn *c)
{
    tell(c, "* your name?\n");
}

static void on_name(struct gyre_conn *c, struct gyre_slice name)
{
    struct guest *guest = calloc(1, sizeof *guest);
    if (guest == NULL) {
        gyre_conn_abort(c);
        return;
    }
    if (name.len > 0 && name.len <= NAME_MAX_BYTES)
        memcpy(guest->name, name.data, name.len);
    bool good = name.len > 0 && strspn(guest->name, NAME_BYTES) == name.len;
    if (!good || !add(guest)) {
        tell(c, good ? "! that name is taken\n" : "! a name is 1 to 24 letters, digits, - and _\n");
        free(guest);
        return;
    }
    gyre_conn_set_user(c, guest);
    (void)say("* ", guest->name, " joined", (struct gyre_slice){.len = 0});
}

static void on_line(struct gyre_conn *c, struct gyre_slice line)
{
    struct guest *guest = gyre_conn_user(c);
    if (guest == NULL)
        on_name(c, line);
    else if (line.len > 0 && say("", guest->name, ": ", line) != 0)
        tell(c, "! too much is being said, nobody heard that\n"); /* tasks_max broadcasts are queued */
}

static void on_bad_line(struct gyre_conn *c, int err)
{
    (void)err;
    tell(c, "! a line has at most 1000 bytes\n");
    gyre_conn_close(c);
}

static void on_close(struct gyre_conn *c, int err)
{
    (void)err;
    struct guest *guest = gyre_conn_user(c);
    if (guest == NULL)
        return;
    (void)say("* ", guest->name, " left", (struct gyre_slice){.len = 0});
    pthread_mutex_lock(&guests_lock);
    *find(guest->name) = guest->next;
    pthread_mutex_unlock(&guests_lock);
    free(guest);
}

static void on_drain_begin(struct gyre_conn *c)
{
    tell(c, "* the chat closes\n");
    gyre_conn_close(c);
}

static const struct gyre_conn_handlers handlers = {
    .on_open = on_open, .on_frame = on_line, .on_bad_frame = on_bad_line, .on_close = on_close};

int main(int argc, char **argv)
{
    struct gyre_framer lines;
    struct gyre_engine_options options = {
        .conns_max = 10000, .loop = {.tasks_max = 4096}, /* limit on queued broadcasts */
    };
    bool stats = false;
    const char *name = "chat [flags] ADDRESS [abort]";
    int first = example_flags(argc, argv, name, &options, &stats);
    if (first < 0)
        return 2;
    slow = argc - first == 2 && strcmp(argv[first + 1], "abort") == 0 ? GYRE_SLOW_ABORT : GYRE_SLOW_SKIP;
    if (argc - first != 1 && slow != GYRE_SLOW_ABORT)
        return example_usage(name, "it takes an address, and the word abort or nothing");

    (void)gyre_framer_init_line(&lines, 0, LINE_MAX_BYTES); /* fails only for a limit out of range */
    struct gyre_conn_options conn = {
        .framer = &lines, .write_high_bytes = 64 << 10, .write_timeout_ns = INT64_C(30000000000),
        .on_drain_begin = on_drain_begin};
    return example_serve(&engine, &options, argv[first], &handlers, &conn, stats);
}
