/* SPDX-License-Identifier: MIT
 * What the files of the kernel's sockets share: sock.c for streams, sock_dgram.c for datagrams, sock_pipe.c for
 * pipes. */
#ifndef GYRE_SOCKET_SOCK_H
#define GYRE_SOCKET_SOCK_H

#include "seam/backend.h"

#include <fcntl.h>

/* A socket, close-on-exec. `mode` may be SOCK_NONBLOCK where the system has it. Returns the descriptor or -errno. */
int gyre__sock_new(int family, int type, int mode);

/* Bind to a unix address, replacing a path that is left over. Returns 0 or -errno. */
int gyre__sock_bind_unix(int fd, int type, const struct gyre_addr *addr, uint32_t unix_mode);

/* sock_dgram.c: see struct gyre_sock_ops. */
int gyre__sock_dgram_open(struct gyre_backend *be, int family);
int gyre__sock_dgram_bind(struct gyre_backend *be, int fd, const struct gyre_addr *addr, uint32_t unix_mode);
int gyre__sock_dgram_connect(struct gyre_backend *be, int fd, const struct gyre_addr *addr);
int gyre__sock_dgram_set(struct gyre_backend *be, int fd, int family, enum gyre_sock_option option, int value);
int gyre__sock_dgram_member(struct gyre_backend *be, int fd, const struct gyre_addr *group, uint32_t interface,
                            bool join);
int64_t gyre__sock_dgram_drops(struct gyre_backend *be, int fd);

/* sock_pipe.c; NULL where there is no splice(2). */
#ifdef SPLICE_F_MOVE
extern const struct gyre_pipe_ops gyre__pipe_system;
#define GYRE_PIPE_SYSTEM (&gyre__pipe_system)
#else
#define GYRE_PIPE_SYSTEM NULL
#endif

#endif
