/* SPDX-License-Identifier: MIT
 * What the two relay yardsticks share: their command line and the connection behind. */
#ifndef BENCH_RAW_RELAY_H
#define BENCH_RAW_RELAY_H

/* The command line is [--port N] tcp://127.0.0.1:PORT: where to listen, and where connections are relayed to. Listens,
 * prints the address as the first line and returns the descriptor. Ends the program with a message if it cannot. */
int bench_raw_relay_listen(int argc, char **argv);

/* A new connection to the address of the command line, TCP_NODELAY, non-blocking. It waits until it is made, because
 * connecting is not what a relay is measured by. Returns -1 if there is none to be had. */
int bench_raw_relay_connect(void);

#endif
