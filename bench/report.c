/* SPDX-License-Identifier: MIT
 * Results as text and as JSON. Times in JSON are nanoseconds, whole numbers. */
#include "report.h"

#include <stdio.h>

struct quantile {
    const char *name;
    uint32_t per_100k;
};

static const struct quantile quantiles[] = {{"p50", 50000}, {"p90", 90000}, {"p99", 99000}, {"p99_9", 99900}};
enum { NQUANTILES = sizeof quantiles / sizeof quantiles[0] };

static double per_second(uint64_t count, uint64_t ns)
{
    return ns == 0 ? 0.0 : (double)count * 1e9 / (double)ns;
}

void bench_report_text(const struct bench_options *options, const struct bench_result *result)
{
    (void)printf("%s, %u connections, %u bytes, %u at once, %s loop", options->addresses[0].text,
                 options->shape.connections, options->shape.size, options->shape.pipeline,
                 options->mode == BENCH_OPEN ? "open" : "closed");
    if (options->mode == BENCH_OPEN)
        (void)printf(", %u requests/s due", options->rate);
    (void)printf("\n%12.0f requests/s\n%12.1f MB/s each way\n", per_second(result->requests, result->window_ns),
                 per_second(result->bytes, result->window_ns) / 1e6);
    for (unsigned i = 0; i < NQUANTILES; i++)
        (void)printf("%12.1f us %s\n", (double)bench_histogram_quantile(&result->latency, quantiles[i].per_100k) / 1e3,
                     quantiles[i].name);
    (void)printf("%12.1f us max\n", (double)result->latency.max_ns / 1e3);
    if (result->lost > 0)
        (void)printf("%12llu datagrams were lost, and %llu answers to such came late\n",
                     (unsigned long long)result->lost, (unsigned long long)result->late);
    if (result->unanswered > 0)
        (void)printf("%12llu requests were given up unanswered: the server cannot keep up with this rate\n",
                     (unsigned long long)result->unanswered);
}

static void print_fields(const struct bench_result *result)
{
    (void)printf("\"window_ns\": %llu, \"requests\": %llu, \"requests_total\": %llu, \"bytes\": %llu, "
                 "\"lost\": %llu, \"late\": %llu, \"requests_per_second\": %.1f, \"latency_ns\": {\"mean\": %llu",
                 (unsigned long long)result->window_ns, (unsigned long long)result->requests,
                 (unsigned long long)result->requests_total, (unsigned long long)result->bytes,
                 (unsigned long long)result->lost, (unsigned long long)result->late,
                 per_second(result->requests, result->window_ns),
                 (unsigned long long)bench_histogram_mean(&result->latency));
    for (unsigned i = 0; i < NQUANTILES; i++)
        (void)printf(", \"%s\": %llu", quantiles[i].name,
                     (unsigned long long)bench_histogram_quantile(&result->latency, quantiles[i].per_100k));
    (void)printf(", \"max\": %llu}", (unsigned long long)result->latency.max_ns);
}

/* A JSON string; what is not plain ASCII becomes a question mark. */
static void print_string(const char *text)
{
    (void)putchar('"');
    for (; *text != '\0'; text++) {
        if (*text == '"' || *text == '\\')
            (void)putchar('\\');
        (void)putchar(*text >= ' ' && *text <= '~' ? *text : '?');
    }
    (void)putchar('"');
}

void bench_report_json(const struct bench_options *options, const struct bench_result *result)
{
    (void)printf("{\"address\": ");
    print_string(options->addresses[0].text);
    (void)printf(", \"mode\": \"%s\", \"connections\": %u, \"size\": %u, \"pipeline\": %u, ",
                 options->mode == BENCH_OPEN ? "open" : "closed", options->shape.connections, options->shape.size,
                 options->shape.pipeline);
    if (options->mode == BENCH_OPEN)
        (void)printf("\"rate\": %u, \"unanswered\": %llu, ", options->rate, (unsigned long long)result->unanswered);
    print_fields(result);
    (void)printf("}\n");
}

void bench_report_slice(uint32_t index, const struct bench_result *result)
{
    (void)printf("{\"index\": %u, ", index);
    print_fields(result);
    (void)printf("}\n");
}

void bench_report_error(int64_t index, const char *text)
{
    (void)putchar('{');
    if (index >= 0)
        (void)printf("\"index\": %lld, ", (long long)index);
    (void)printf("\"error\": ");
    print_string(text);
    (void)printf("}\n");
}
