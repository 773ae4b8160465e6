/* SPDX-License-Identifier: MIT
 * Which leaks count: those of the tests, not those of Criterion's runner.
 *
 * The runner starts a process for each test and itself runs nothing of ours; what Criterion leaks in it would fail
 * every suite. LeakSanitizer asks this question when a process ends. Linked into each suite as a source, since nothing
 * refers to it that would fetch it from a library. */
#include <criterion/criterion.h>
#include <criterion/hooks.h>
#include <unistd.h>

/* The sanitizer's library must see it. */
__attribute__((visibility("default"))) int __lsan_is_turned_off(void);

static pid_t runner;

/* Called in the runner alone. */
ReportHook(PRE_ALL)(struct criterion_test_set *tests)
{
    (void)tests;
    runner = getpid();
}

int __lsan_is_turned_off(void)
{
    return getpid() == runner;
}
