/* SPDX-License-Identifier: MIT
 * What the yardsticks share, so that each is nothing but its loop. */
#ifndef BENCH_RAW_LISTEN_H
#define BENCH_RAW_LISTEN_H

/* Listen on 127.0.0.1, on the port of `--port N` (0 or left out: any free one), and print the address as the first
 * line. Ends the program with a message if it cannot. */
int bench_raw_listen(int argc, char **argv);

/* The same, and serve with `loop`; with `--loops N` (1 to 16) on N threads, each with a listening socket of its own on
 * the same port, among which the kernel spreads the connections. `loop` never returns. */
__attribute__((noreturn)) void bench_raw_serve(int argc, char **argv, void (*loop)(int listener));

/* A UDP socket in the place of the listening one, with the same command line. */
int bench_raw_bind_udp(int argc, char **argv);

/* Set TCP_NODELAY. Returns `fd`. */
int bench_raw_nodelay(int fd);

/* End the program with a message: `call` failed with -`err`. */
__attribute__((noreturn)) void bench_raw_die(const char *call, int err);

#endif
