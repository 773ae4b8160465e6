/* SPDX-License-Identifier: MIT
 * The processor time of a control group: cpu.max of version 2, cpu.cfs_quota_us of version 1. Systems without these
 * files have no quota. */
#include "quota.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { PATH_SIZE = 1024, TEXT_SIZE = 4096 };

/* The first TEXT_SIZE - 1 bytes of a file. Returns whether it could be read. */
static bool read_file(char *text, const char *path)
{
    ssize_t n;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    n = read(fd, text, TEXT_SIZE - 1);
    (void)close(fd);
    if (n < 0)
        return false;
    text[n] = '\0';
    return true;
}

static bool read_number(long long *out, const char *folder, const char *name)
{
    char path[PATH_SIZE], text[TEXT_SIZE];
    int len = snprintf(path, sizeof path, "%s/%s", folder, name);
    return len < (int)sizeof path && read_file(text, path) && sscanf(text, "%lld", out) == 1;
}

/* The quota of one folder, or 0. */
static uint32_t quota_of(const char *folder, bool second)
{
    char path[PATH_SIZE], text[TEXT_SIZE];
    long long quota = 0, period = 0;
    if (second) {
        int len = snprintf(path, sizeof path, "%s/cpu.max", folder);
        if (len >= (int)sizeof path || !read_file(text, path) || sscanf(text, "%lld %lld", &quota, &period) != 2)
            return 0; /* "max": none */
    } else if (!read_number(&quota, folder, "cpu.cfs_quota_us") || !read_number(&period, folder, "cpu.cfs_period_us")) {
        return 0;
    }
    if (quota <= 0 || period <= 0 || quota / period >= INT32_MAX)
        return 0;
    return (uint32_t)(quota / period + (quota % period != 0));
}

static uint32_t smaller(uint32_t a, uint32_t b)
{
    return a == 0 || (b != 0 && b < a) ? b : a;
}

/* The smallest from `group` up to the top. In a container the group's path may be one of the host's, which is not
 * there; its own lies at the top. */
static uint32_t quota_from(const char *root, const char *top, const char *group, bool second)
{
    char folder[PATH_SIZE];
    uint32_t found = 0;
    int start = snprintf(folder, sizeof folder, "%s/sys/fs/cgroup%s", root, top);
    int len = start < (int)sizeof folder ? snprintf(folder + start, sizeof folder - (size_t)start, "%s", group) : 0;
    if (start >= (int)sizeof folder || len >= (int)sizeof folder - start)
        return 0;
    for (;;) {
        found = smaller(found, quota_of(folder, second));
        char *slash = strrchr(folder + start, '/');
        if (slash == NULL)
            return found;
        *slash = '\0';
    }
}

/* A line is NUMBER:CONTROLLERS:PATH; without controllers it is version 2. */
static uint32_t quota_of_line(const char *root, char *line)
{
    char *controllers = strchr(line, ':');
    char *group = controllers != NULL ? strchr(controllers + 1, ':') : NULL;
    if (group == NULL)
        return 0;
    *group++ = '\0';
    controllers++;
    if (*controllers == '\0')
        return quota_from(root, "", group, true);
    if (strcmp(controllers, "cpu") == 0 || strncmp(controllers, "cpu,", 4) == 0 || strstr(controllers, ",cpu,") != NULL)
        return smaller(quota_from(root, "/cpu", group, false), quota_from(root, "/cpu,cpuacct", group, false));
    return 0;
}

uint32_t gyre__quota_processors(const char *root)
{
    char path[PATH_SIZE], text[TEXT_SIZE];
    uint32_t found = 0;
    int len = snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
    if (len >= (int)sizeof path || !read_file(text, path))
        return 0;
    for (char *line = text; line != NULL && *line != '\0';) {
        char *end = strchr(line, '\n');
        if (end != NULL)
            *end = '\0';
        found = smaller(found, quota_of_line(root, line));
        line = end != NULL ? end + 1 : NULL;
    }
    return found;
}
