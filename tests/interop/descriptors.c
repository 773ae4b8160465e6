/* SPDX-License-Identifier: MIT
 * A program whose descriptors 0 to 2 are its own files, and an engine in it. After the engine is gone these must be
 * open and the same files. scripts/liburing_matrix.sh runs it, alone and under strace(1).
 *
 *     descriptors REPORT
 *
 * Writes one line to the file REPORT: the backend, the liburing that this process has loaded, and "kept" or what became
 * of a descriptor. Exits with 0 only if all three were kept. */
#include <gyre.h>

#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { OURS = 3, LINE = 512 };

struct file {
    dev_t device;
    ino_t inode;
    int flags;
};

static bool look(int fd, struct file *out)
{
    struct stat st;
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fstat(fd, &st) != 0)
        return false;
    *out = (struct file){.device = st.st_dev, .inode = st.st_ino, .flags = flags};
    return true;
}

static void stop(struct gyre_engine *engine)
{
    gyre_engine_stop(engine);
}

static void echo(struct gyre_conn *c)
{
    gyre_conn_forward(c, c, SIZE_MAX);
}

/* Make an engine, let it serve, and free it. */
static int serve(struct gyre_backend_report *report)
{
    static const struct gyre_conn_handlers echoes = {.on_data = echo};
    static const struct gyre_engine_handlers handlers = {.on_boot = stop};
    struct gyre_engine_options options = {.loops = 2, .handlers = &handlers};
    struct gyre_engine *engine;
    int err = gyre_engine_create(&engine, &options);
    if (err != 0)
        return err;
    gyre_loop_backend(report, gyre_engine_loop(engine, 0));
    err = gyre_engine_listen(NULL, engine, "tcp://127.0.0.1:0", &echoes, NULL);
    if (err == 0)
        err = gyre_engine_run(engine);
    gyre_engine_destroy(engine);
    return err;
}

/* The last part of the path of the liburing that is mapped, into `name`. */
static void loaded_liburing(char *name, size_t size)
{
    char line[LINE];
    FILE *maps = fopen("/proc/self/maps", "r");
    (void)snprintf(name, size, "none");
    while (maps != NULL && fgets(line, sizeof line, maps) != NULL) {
        const char *found = strstr(line, "/liburing.so");
        if (found != NULL)
            (void)snprintf(name, size, "%.*s", (int)strcspn(found + 1, "\n"), found + 1);
    }
    if (maps != NULL)
        (void)fclose(maps);
}

int main(int argc, char **argv)
{
    struct file before[OURS], after;
    struct gyre_backend_report report = {.backend = "none"};
    char liburing[64], fate[64] = "kept";
    if (argc != 2)
        return 2;
    for (int fd = 0; fd < OURS; fd++) {
        if (!look(fd, &before[fd]))
            return 2;
    }
    int err = serve(&report);
    if (err != 0)
        (void)snprintf(fate, sizeof fate, "failed: %s", gyre_err_name(err));
    for (int fd = 0; fd < OURS; fd++) {
        const struct file *was = &before[fd];
        if (!look(fd, &after))
            (void)snprintf(fate, sizeof fate, "%d closed", fd);
        else if (after.device != was->device || after.inode != was->inode || after.flags != was->flags)
            (void)snprintf(fate, sizeof fate, "%d replaced", fd);
    }
    loaded_liburing(liburing, sizeof liburing);
    FILE *out = fopen(argv[1], "w");
    if (out == NULL)
        return 2;
    (void)fprintf(out, "%s %s %s\n", report.backend, liburing, fate);
    if (fclose(out) != 0)
        return 2;
    return strcmp(fate, "kept") == 0 ? 0 : 1;
}
