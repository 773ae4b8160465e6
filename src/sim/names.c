/* SPDX-License-Identifier: MIT
 * What names stand for in a simulation: a table that the test fills. */
#include "world.h"
#include "base/refuse.h"
#include "socket/addr.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <strings.h>

enum { ADDRESSES_MAX = 1024 };

struct sim_name {
    struct sim_name *next;
    uint64_t delay_ns;
    int err; /* if `count` is 0 */
    uint32_t count;
    char text[GYRE_HOST_MAX + 2];
    struct sockaddr_storage addresses[];
};

static const char *const loopbacks[] = {"127.0.0.1", "::1"};

static bool parse(struct sockaddr_storage *out, const char *text)
{
    struct sockaddr_in *in4 = (struct sockaddr_in *)out;
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)out;
    if (inet_pton(AF_INET, text, &in4->sin_addr) == 1)
        out->ss_family = AF_INET;
    else if (inet_pton(AF_INET6, text, &in6->sin6_addr) == 1)
        out->ss_family = AF_INET6;
    return out->ss_family != AF_UNSPEC;
}

static struct sim_name **find_name(struct gyre_sim *sim, const char *text)
{
    struct sim_name **at = &sim->names;
    while (*at != NULL && strcasecmp((*at)->text, text) != 0)
        at = &(*at)->next;
    return at;
}

static void forget_name(struct gyre_sim *sim, struct sim_name **at)
{
    struct sim_name *name = *at;
    *at = name->next;
    gyre__free(sim->mem, name);
}

void gyre__sim_names_free(struct gyre_sim *sim)
{
    while (sim->names != NULL)
        forget_name(sim, &sim->names);
}

int gyre_sim_set_name(struct gyre_sim *sim, const char *name, const char *const *addresses, size_t count, int err,
                      uint64_t delay_ns)
{
    if (sim == NULL || name == NULL || (addresses == NULL && count > 0))
        return -EINVAL;
    if (err > 0 || count > ADDRESSES_MAX)
        return gyre__refuse("err is %d, count is %zu; err must not be positive, count at most %d", err, count,
                            (int)ADDRESSES_MAX);
    size_t len = strnlen(name, GYRE_HOST_MAX + 2);
    if (!gyre__addr_is_name(name, len))
        return GYRE_EADDRESS;
    len -= name[len - 1] == '.';
    struct sim_name *made = gyre__alloc(sim->mem, sizeof *made + count * sizeof made->addresses[0]);
    if (made == NULL)
        return -ENOMEM;
    made->delay_ns = delay_ns;
    made->err = err != 0 ? err : GYRE_ENONAME;
    memcpy(made->text, name, len);
    for (; made->count < count; made->count++)
        if (!parse(&made->addresses[made->count], addresses[made->count])) {
            gyre__free(sim->mem, made);
            return GYRE_EADDRESS;
        }
    struct sim_name **at = find_name(sim, made->text);
    if (*at != NULL)
        forget_name(sim, at);
    made->next = sim->names;
    sim->names = made;
    return 0;
}

static uint32_t add_address(struct sockaddr_storage *out, uint32_t count, uint32_t max,
                            const struct sockaddr_storage *address, int family)
{
    if (count == max || (family != AF_UNSPEC && address->ss_family != family))
        return count;
    out[count] = *address;
    return count + 1;
}

int gyre__sim_lookup(struct gyre__backend *base, struct sockaddr_storage *out, uint32_t max, const char *name,
                     int family, uint64_t *delay_ns)
{
    struct gyre_sim *sim = ((struct sim_backend *)base)->sim;
    const struct sim_name *found = *find_name(sim, name);
    uint32_t count = 0;
    *delay_ns = found != NULL ? found->delay_ns : 0;
    gyre__sim_trace(sim, gyre__sim_hash(0, name, strlen(name)));
    if (found == NULL && strcasecmp(name, "localhost") == 0)
        for (size_t i = 0; i < sizeof loopbacks / sizeof loopbacks[0]; i++) {
            struct sockaddr_storage address = {.ss_family = AF_UNSPEC};
            (void)parse(&address, loopbacks[i]);
            count = add_address(out, count, max, &address, family);
        }
    for (uint32_t i = 0; found != NULL && i < found->count; i++)
        count = add_address(out, count, max, &found->addresses[i], family);
    if (count > 0)
        return (int)count;
    return found != NULL && found->count == 0 ? found->err : GYRE_ENONAME;
}
