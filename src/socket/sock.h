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
int gyre__sock_bind_unix(int fd, int type, const struct gyre__addr *addr, uint32_t unix_mode);

/* sock_dgram.c: see struct gyre__sock_ops. */
int gyre__sock_dgram_open(struct gyre__backend *be, int family);
int gyre__sock_dgram_bind(struct gyre__backend *be, int fd, const struct gyre__addr *addr, uint32_t unix_mode);
int gyre__sock_dgram_connect(struct gyre__backend *be, int fd, const struct gyre__addr *addr);
int gyre__sock_dgram_set(struct gyre__backend *be, int fd, int family, enum gyre__sock_option option, int value);
int gyre__sock_dgram_member(struct gyre__backend *be, int fd, const struct gyre__addr *group, uint32_t interface,
                            bool join);
int64_t gyre__sock_dgram_drops(struct gyre__backend *be, int fd);

/* sock_pipe.c; NULL where there is no splice(2). */
#ifdef SPLICE_F_MOVE
extern const struct gyre__pipe_ops gyre__pipe_system;
#define GYRE_PIPE_SYSTEM (&gyre__pipe_system)
#else
#define GYRE_PIPE_SYSTEM NULL
#endif

/* The functions of struct gyre__sock_ops for stream sockets of the kernel; seam/backend.h says what each does. */
int gyre__sock_open(struct gyre__backend *be, int family);
int gyre__sock_listen(struct gyre__backend *be, int fd, const struct gyre__addr *addr,
                      const struct gyre__listen_config *cfg);
int gyre__sock_bind(struct gyre__backend *be, int fd, const struct gyre__addr *addr, in_port_t port_last);
int gyre__sock_inspect(struct gyre__backend *be, int fd, struct gyre__sock_info *out);
int gyre__sock_dup(struct gyre__backend *be, int fd);
int gyre__sock_device(struct gyre__backend *be, int fd, const char *name);
int gyre__sock_shutdown(struct gyre__backend *be, int fd);
int gyre__sock_set_nodelay(struct gyre__backend *be, int fd);
int gyre__sock_set_reset(struct gyre__backend *be, int fd);
int gyre__sock_name(struct gyre__backend *be, int fd, bool peer, struct gyre__addr *out);
int gyre__sock_error(struct gyre__backend *be, int fd);
int64_t gyre__sock_try_send(struct gyre__backend *be, int fd, const void *data, size_t len);
int64_t gyre__sock_unacked(struct gyre__backend *be, int fd);
void gyre__sock_close(struct gyre__backend *be, int fd);

#endif
