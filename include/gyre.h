/* SPDX-License-Identifier: MIT
 * Includes every public header of gyre, in a good order for reading them. */
#ifndef GYRE_H
#define GYRE_H

#include <gyre/base.h>
#include <gyre/loop.h>
#include <gyre/sockopt.h>
#include <gyre/buf.h>
#include <gyre/conn.h>
#include <gyre/conn_id.h>
#include <gyre/frame.h>
#include <gyre/connect.h>
#include <gyre/listener.h>
#include <gyre/udp.h>
#include <gyre/timer.h>
#include <gyre/watch.h>
#include <gyre/reconnect.h>
#include <gyre/work.h>
#include <gyre/resolve.h>
#include <gyre/engine.h>
#include <gyre/handover.h>
#include <gyre/stats.h>
#include <gyre/sim.h>

#endif
