/* SPDX-License-Identifier: MIT
 * The command line of gyre-load. Every number has a range, and what is outside is refused with the range. */
#include "options.h"
#include "udp.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

static const char usage[] =
    "usage: gyre-load --address ADDRESS [options]\n"
    "Sends requests to an echo server and checks every byte that comes back.\n"
    "\n"
    "  --address ADDRESS    tcp://HOST:PORT, unix:///path, unix://@name or udp://HOST:PORT; with --slices\n"
    "                       up to 32 times\n"
    "  --connections N      connections, to each address (64)\n"
    "  --size BYTES         bytes of a request (64)\n"
    "  --pipeline N         requests on a connection at once (1)\n"
    "                       With udp:// a connection is a socket and a request a datagram of 8 to 65507 bytes; one\n"
    "                       without an answer for 100 ms counts as lost and is replaced.\n"
    "  --churn              a new connection for each request; its latency is that from connecting to its end\n"
    "  --mode closed|open   closed: the next batch when the last is answered; open: by the clock (closed)\n"
    "  --rate N             open: requests per second over all connections; latency counts from when one was due\n"
    "  --duration-ms N      time that is measured (2000)\n"
    "  --warmup-ms N        time before it (200)\n"
    "  --stall-ms N         an answer that makes no progress for so long is an error (5000)\n"
    "  --json               one JSON object instead of text\n"
    "  --slices             hold connections to all addresses open and obey standard input: `run INDEX MILLISECONDS`,\n"
    "                       `once INDEX` (one batch on each connection), `quit`; one JSON line answers each\n"
    "\n"
    "Exit status: 0 all answers right; 1 a wrong byte, a lost connection, a stall; 2 a command line that is wrong.\n";

enum option_id {
    OPT_ADDRESS = 1,
    OPT_CONNECTIONS,
    OPT_SIZE,
    OPT_PIPELINE,
    OPT_CHURN,
    OPT_MODE,
    OPT_RATE,
    OPT_DURATION,
    OPT_WARMUP,
    OPT_STALL,
    OPT_JSON,
    OPT_SLICES,
    OPT_HELP
};

static const struct option long_options[] = {
    {"address", required_argument, NULL, OPT_ADDRESS},
    {"connections", required_argument, NULL, OPT_CONNECTIONS},
    {"size", required_argument, NULL, OPT_SIZE},
    {"pipeline", required_argument, NULL, OPT_PIPELINE},
    {"churn", no_argument, NULL, OPT_CHURN},
    {"mode", required_argument, NULL, OPT_MODE},
    {"rate", required_argument, NULL, OPT_RATE},
    {"duration-ms", required_argument, NULL, OPT_DURATION},
    {"warmup-ms", required_argument, NULL, OPT_WARMUP},
    {"stall-ms", required_argument, NULL, OPT_STALL},
    {"json", no_argument, NULL, OPT_JSON},
    {"slices", no_argument, NULL, OPT_SLICES},
    {"help", no_argument, NULL, OPT_HELP},
    {NULL, 0, NULL, 0},
};

static int parse_number(uint32_t *out, const char *name, const char *text, uint32_t min, uint32_t max)
{
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    bool is_number = text[0] >= '0' && text[0] <= '9' && *end == '\0';
    if (!is_number || errno != 0 || value < min || value > max) {
        (void)fprintf(stderr, "gyre-load: --%s must be a number from %u to %u, not \"%s\"\n", name, min, max, text);
        return -1;
    }
    *out = (uint32_t)value;
    return 0;
}

static int parse_address(struct bench_options *out, const char *text)
{
    char why[200];
    if (out->naddresses == BENCH_TARGETS_MAX) {
        (void)fprintf(stderr, "gyre-load: at most %d addresses\n", BENCH_TARGETS_MAX);
        return -1;
    }
    if (bench_address_parse(&out->addresses[out->naddresses], text, why, sizeof why) != 0) {
        (void)fprintf(stderr, "gyre-load: --address \"%s\": %s\n", text, why);
        return -1;
    }
    out->naddresses++;
    return 0;
}

static int parse_mode(struct bench_options *out, const char *text)
{
    if (strcmp(text, "closed") != 0 && strcmp(text, "open") != 0) {
        (void)fprintf(stderr, "gyre-load: --mode must be closed or open, not \"%s\"\n", text);
        return -1;
    }
    out->mode = strcmp(text, "open") == 0 ? BENCH_OPEN : BENCH_CLOSED;
    return 0;
}

static int parse_option(struct bench_options *out, int id, const char *text)
{
    switch (id) {
    case OPT_ADDRESS:
        return parse_address(out, text);
    case OPT_CONNECTIONS:
        return parse_number(&out->shape.connections, "connections", text, 1, 65536);
    case OPT_SIZE:
        return parse_number(&out->shape.size, "size", text, 1, 16777216);
    case OPT_PIPELINE:
        return parse_number(&out->shape.pipeline, "pipeline", text, 1, 65536);
    case OPT_CHURN:
        out->shape.churn = true;
        return 0;
    case OPT_MODE:
        return parse_mode(out, text);
    case OPT_RATE:
        return parse_number(&out->rate, "rate", text, 1, 100000000);
    case OPT_DURATION:
        return parse_number(&out->duration_ms, "duration-ms", text, 1, 3600000);
    case OPT_WARMUP:
        return parse_number(&out->warmup_ms, "warmup-ms", text, 0, 600000);
    case OPT_STALL:
        return parse_number(&out->shape.stall_ms, "stall-ms", text, 10, 600000);
    case OPT_JSON:
        out->json = true;
        return 0;
    case OPT_SLICES:
        out->slices = true;
        return 0;
    default: /* getopt_long() has said what is wrong */
        (void)fputs("gyre-load: try --help\n", stderr);
        return -1;
    }
}

/* Takes all the descriptors it may have, and checks that they are enough. */
static int check_descriptors(const struct bench_options *options)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) {
        (void)fprintf(stderr, "gyre-load: getrlimit: %s\n", strerror(errno));
        return -1;
    }
    uint64_t needed = (uint64_t)options->naddresses * (options->shape.connections + 1ull) + 8;
    if (needed > limit.rlim_max) {
        (void)fprintf(stderr, "gyre-load: %llu connections need %llu descriptors, and this process may have %llu\n",
                      (unsigned long long)options->naddresses * options->shape.connections, (unsigned long long)needed,
                      (unsigned long long)limit.rlim_max);
        return -1;
    }
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0) {
        (void)fprintf(stderr, "gyre-load: setrlimit: %s\n", strerror(errno));
        return -1;
    }
    return 0;
}

static bool has_datagrams(const struct bench_options *options)
{
    for (uint32_t i = 0; i < options->naddresses; i++) {
        if (options->addresses[i].is_datagram)
            return true;
    }
    return false;
}

static const char *wrong_with_datagrams(const struct bench_options *options)
{
    const struct bench_shape *shape = &options->shape;
    if (options->mode == BENCH_OPEN || shape->churn)
        return "udp:// is a closed loop over sockets that stay open";
    if (shape->size < BENCH_UDP_SIZE_MIN || shape->size > BENCH_UDP_SIZE_MAX)
        return "with udp:// --size must be from 8 to 65507";
    if ((uint64_t)shape->connections * shape->pipeline > 1u << 20)
        return "with udp:// at most 1048576 datagrams may be under way to an address";
    return NULL;
}

static int check_together(const struct bench_options *options, bool has_timing)
{
    const char *wrong = NULL;
    if (options->naddresses == 0)
        wrong = "--address is needed";
    else if (options->naddresses > 1 && !options->slices)
        wrong = "several addresses need --slices";
    else if (options->mode == BENCH_OPEN && options->rate == 0)
        wrong = "--mode open needs --rate";
    else if (options->mode == BENCH_CLOSED && options->rate != 0)
        wrong = "--rate needs --mode open";
    else if (options->slices && (options->mode == BENCH_OPEN || has_timing))
        wrong = "--slices is a closed loop, and its times come with the commands";
    else if (options->shape.churn && (options->mode == BENCH_OPEN || options->shape.pipeline > 1))
        wrong = "--churn is a closed loop of one request at a time";
    else if (has_datagrams(options))
        wrong = wrong_with_datagrams(options);
    if (wrong == NULL)
        return check_descriptors(options);
    (void)fprintf(stderr, "gyre-load: %s; try --help\n", wrong);
    return -1;
}

int bench_options_parse(struct bench_options *out, int argc, char **argv)
{
    *out = (struct bench_options){
        .shape = {.connections = 64, .size = 64, .pipeline = 1, .stall_ms = 5000},
        .duration_ms = 2000,
        .warmup_ms = 200,
    };
    bool has_timing = false;
    int id;
    while ((id = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
        if (id == OPT_HELP) {
            (void)fputs(usage, stdout);
            return 1;
        }
        has_timing = has_timing || id == OPT_DURATION || id == OPT_WARMUP;
        if (parse_option(out, id, optarg) != 0)
            return -1;
    }
    if (optind < argc) {
        (void)fprintf(stderr, "gyre-load: \"%s\" is not an option; try --help\n", argv[optind]);
        return -1;
    }
    return check_together(out, has_timing);
}
