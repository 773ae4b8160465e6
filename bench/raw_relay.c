/* SPDX-License-Identifier: MIT
 * The command line of the relay yardsticks, and the connection behind. */
#include "raw_relay.h"
#include "address.h"
#include "raw_listen.h"

#include <stdio.h>
#include <stdlib.h>

enum { CONNECT_TIMEOUT_MS = 5000 };

static struct bench_address upstream;

int bench_raw_relay_listen(int argc, char **argv)
{
    char why[200] = "it is missing";
    if (argc < 2 || bench_address_parse(&upstream, argv[argc - 1], why, sizeof why) != 0) {
        (void)fprintf(stderr, "the address to relay to: %s\nusage: %s [--port 0..65535] tcp://HOST:PORT\n", why,
                      argv[0]);
        exit(2);
    }
    return bench_raw_listen(argc - 1, argv);
}

int bench_raw_relay_connect(void)
{
    int fd = bench_address_connect(&upstream, CONNECT_TIMEOUT_MS);
    return fd < 0 ? -1 : fd;
}
