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

/* The functions of struct gyre_sock_ops for stream sockets of the kernel; seam/backend.h says what each does. */
int gyre__sock_open(struct gyre_backend *be, int family);
int gyre__sock_listen(struct gyre_backend *be, int fd, const struct gyre_addr *addr,
                       const struct gyre_listen_config *cfg);
int gyre__sock_bind(struct gyre_backend *be, int fd, const struct gyre_addr *addr, in_port_t port_last);
int gyre__sock_inspect(struct gyre_backend *be, int fd, struct gyre_sock_info *out);
int gyre__sock_dup(struct gyre_backend *be, int fd);
int gyre__sock_device(struct gyre_backend *be, int fd, const char *name);
int gyre__sock_shutdown(struct gyre_backend *be, int fd);
int gyre__sock_set_nodelay(struct gyre_backend *be, int fd);
int gyre__sock_set_reset(struct gyre_backend *be, int fd);
int gyre__sock_name(struct gyre_backend *be, int fd, bool peer, struct gyre_addr *out);
int64_t gyre__sock_try_send(struct gyre_backend *be, int fd, const void *data, size_t len);
int64_t gyre__sock_unacked(struct gyre_backend *be, int fd);
void gyre__sock_close(struct gyre_backend *be, int fd);

#endif
