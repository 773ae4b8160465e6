/* SPDX-License-Identifier: MIT
 * A network of the test's own: a network namespace with nothing in it but the loopback device, and what is put there.
 *
 * It takes root. Where it cannot be had the test is skipped and says so, unless GYRE_TEST_REQUIRE has "network": then
 * it fails. */
#ifndef GYRE_TEST_NET_H
#define GYRE_TEST_NET_H

#include <stdbool.h>
#include <stdint.h>

/* Move this process into one, with its loopback device up. */
void net_own(void);

/* Take its loopback device down, or up again. In a network of one's own only. */
void net_set_loopback(bool up);

/* IPv6 multicast goes by the loopback device. In a network of one's own only. */
void net_route_multicast6(void);

/* TCP that this machine sends to `from_port`, of whatever address, goes to its own `to_port` instead: a rule of
 * nftables, for both families. In a network of one's own only. */
void net_redirect(uint16_t from_port, uint16_t to_port);

#endif
