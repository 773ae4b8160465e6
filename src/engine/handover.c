/* SPDX-License-Identifier: MIT
 * Listening with sockets that another process gave. */
#include "engine.h"
#include "listen/handover.h"
#include "listen/listener.h"
#include "loop/loop.h"

#include <errno.h>
#include <gyre/handover.h>
#include <string.h>

/* The sockets for `request->address`. Returns how many, or an error. */
static int find(int *fds, const struct gyre_engine *engine, const struct gyre_handover *handover,
                struct gyre__listen_request *request)
{
    static const char by_name[] = "fd:";
    struct gyre__address address;
    if (strncmp(request->address, by_name, sizeof by_name - 1) == 0) {
        int count = gyre__handover_named(fds, handover, request->address + sizeof by_name - 1);
        return count > 0 ? count : -ENOENT;
    }
    int err = gyre__listen_look_up(request, engine->set.loops, engine->set.count);
    if (err == 0 && !request->named)
        err = gyre__addr_parse(&address, request->address);
    return err != 0 ? err : gyre__handover_bound(fds, handover, request->named ? &request->found : &address);
}

int gyre_engine_listen_handover_sized(struct gyre_listener **out, struct gyre_engine *engine,
                                      struct gyre_handover *handover, const char *address,
                                      const struct gyre_conn_handlers *handlers,
                                      const struct gyre_listener_options *options, size_t size_bytes,
                                      size_t conn_size_bytes)
{
    int fds[GYRE_HANDOVER_MAX];
    struct gyre__listen_request request = {
        .address = address, .handlers = handlers, .options = options, .size = size_bytes, .conn_size = conn_size_bytes};
    if (engine == NULL || handover == NULL || address == NULL)
        return -EINVAL;
    if (gyre__loop_is_forked(engine->set.loops[0]))
        return GYRE_EFORK;
    int count = find(fds, engine, handover, &request);
    if (count < 0)
        return count;
    if (count > 0) {
        request.address = NULL;
        request.fds = fds;
        request.fd_count = (uint32_t)count;
        request.takes_path = handover->from >= 0;
    }
    int err = gyre__engine_listen(out, engine, &request);
    if (err == 0)
        gyre__handover_taken(handover, fds, request.fd_count);
    return err;
}
