/* SPDX-License-Identifier: MIT
 * The processor quota of a control group, in a tree of files of the test's own. */
#include "base/quota.h"
#include "base/thread.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static char root[64];

static void make_root(void)
{
    (void)snprintf(root, sizeof root, "/tmp/gyre-quota-XXXXXX");
    cr_assert_not_null(mkdtemp(root));
}

static void remove_root(void)
{
    char command[128];
    (void)snprintf(command, sizeof command, "rm -rf '%s'", root);
    cr_assert_eq(system(command), 0);
}

TestSuite(quota, .init = make_root, .fini = remove_root);

/* A file below the root, with its folders. */
static void put(const char *path, const char *text)
{
    char name[256];
    (void)snprintf(name, sizeof name, "%s%s", root, path);
    for (char *slash = strchr(name + strlen(root) + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        (void)mkdir(name, 0700);
        *slash = '/';
    }
    FILE *file = fopen(name, "w");
    cr_assert_not_null(file, "%s", name);
    (void)fputs(text, file);
    (void)fclose(file);
}

Test(quota, none)
{
    cr_expect_eq(gyre__quota_processors(root), 0, "no files at all");
    put("/proc/self/cgroup", "0::/\n");
    cr_expect_eq(gyre__quota_processors(root), 0, "no cpu.max");
    put("/sys/fs/cgroup/cpu.max", "max 100000\n");
    cr_expect_eq(gyre__quota_processors(root), 0);
}

/* Rounded up; the smallest on the way to the top counts. */
Test(quota, second_version)
{
    put("/proc/self/cgroup", "0::/a/b\n");
    put("/sys/fs/cgroup/a/b/cpu.max", "250000 100000\n");
    cr_expect_eq(gyre__quota_processors(root), 3);
    put("/sys/fs/cgroup/a/cpu.max", "200000 100000\n");
    cr_expect_eq(gyre__quota_processors(root), 2);
    put("/sys/fs/cgroup/cpu.max", "5000 100000\n");
    cr_expect_eq(gyre__quota_processors(root), 1, "never less than one");
}

/* A container sees the host's path, and its own limits at the top. */
Test(quota, container)
{
    put("/proc/self/cgroup", "0::/docker/0123\n");
    put("/sys/fs/cgroup/cpu.max", "400000 100000\n");
    cr_expect_eq(gyre__quota_processors(root), 4);
}

Test(quota, first_version)
{
    put("/proc/self/cgroup", "12:memory:/x\n4:cpu,cpuacct:/x\n1:name=systemd:/\n");
    put("/sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_quota_us", "150000\n");
    put("/sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_period_us", "100000\n");
    cr_expect_eq(gyre__quota_processors(root), 2);
    put("/sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_quota_us", "-1\n");
    cr_expect_eq(gyre__quota_processors(root), 0, "-1: none");
}

/* What is no quota is none. */
Test(quota, nonsense)
{
    static const char *const texts[] = {"", "x", "1", "0 100000", "-5 100000", "5 0", "5 -1", "99999999999999999999 1"};
    put("/proc/self/cgroup", "nonsense\n:\n0:\n0::/a\n");
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        put("/sys/fs/cgroup/a/cpu.max", texts[i]);
        cr_expect_eq(gyre__quota_processors(root), 0, "\"%s\"", texts[i]);
    }
}

/* As many as nproc(1), which looks at the affinity alone, or fewer. */
Test(quota, this_machine)
{
    char text[16] = "";
    FILE *nproc = popen("nproc", "r");
    cr_assert_not_null(nproc);
    cr_assert_not_null(fgets(text, sizeof text, nproc));
    (void)pclose(nproc);
    cr_expect_leq((int)gyre__processors(), atoi(text));
    cr_expect_geq((int)gyre__processors(), 1);
}
