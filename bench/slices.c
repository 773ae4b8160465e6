/* SPDX-License-Identifier: MIT
 * The slices mode. All connections stay open for the whole run, so that a slice measures neither connecting nor a
 * server's first steps, and servers can take turns in short slices: what disturbs the machine disturbs all alike. */
#include "slices.h"
#include "drive.h"
#include "report.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SLICE_MS_MAX = 600000 };

struct slices {
    struct bench_target targets[BENCH_TARGETS_MAX];
    uint32_t ntargets;
    struct bench_result result;
    bool failed;
    bool done;
};

static void report_error(struct slices *s, int64_t index, const char *text)
{
    s->failed = true;
    bench_report_error(index, text);
}

static void run_slice(struct slices *s, uint32_t index, uint64_t duration_ns)
{
    struct bench_target *t = &s->targets[index];
    if (bench_run_closed(t, 0, duration_ns, &s->result) != 0)
        report_error(s, index, t->error);
    else
        bench_report_slice(index, &s->result);
}

static void obey(struct slices *s, const char *line)
{
    unsigned index;
    unsigned ms;
    char tail;
    if (strcmp(line, "quit\n") == 0) {
        s->done = true;
        return;
    }
    if (sscanf(line, "run %u %u %c", &index, &ms, &tail) == 2 && index < s->ntargets && ms > 0 && ms <= SLICE_MS_MAX) {
        run_slice(s, index, ms * 1000000ull);
        return;
    }
    if (sscanf(line, "once %u %c", &index, &tail) == 1 && index < s->ntargets) {
        run_slice(s, index, 0);
        return;
    }
    report_error(s, -1, "a command is `run INDEX MILLISECONDS`, `once INDEX` or `quit`");
}

int bench_slices_run(const struct bench_options *options)
{
    static struct slices s; /* large */
    s.ntargets = options->naddresses;
    for (uint32_t i = 0; i < s.ntargets; i++) {
        if (bench_open(&s.targets[i], &options->addresses[i], &options->shape) != 0)
            report_error(&s, i, s.targets[i].error);
        else
            (void)printf("{\"index\": %u, \"ready\": true}\n", i);
    }
    (void)fflush(stdout);
    char line[128];
    while (!s.done && fgets(line, sizeof line, stdin) != NULL) {
        obey(&s, line);
        (void)fflush(stdout);
    }
    for (uint32_t i = 0; i < s.ntargets; i++)
        bench_close(&s.targets[i]);
    return s.failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
