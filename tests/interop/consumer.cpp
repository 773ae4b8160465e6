/* SPDX-License-Identifier: MIT
 * The same from C++17, with an engine of two loops instead of a loop alone: the first loop connects to the listener
 * once all of them serve, and the echo drains the engine.
 *
 * Prints "echoed N bytes over BACKEND" and exits with 0. Whatever goes wrong is said on standard error, exit 1. */
#include <gyre.h>

#include <iostream>
#include <string>
#include <string_view>

namespace
{

constexpr std::string_view line = "a line from C++, outside the tree\n";
constexpr int64_t second_ns = 1000000000;

struct state {
    gyre_listener *listener = nullptr;
    bool echoed = false;
};

void complain(const char *what, int err)
{
    std::cerr << "consumer: " << what << ": " << gyre_err_text(err) << " (" << gyre_err_name(err) << ")\n";
}

void echo(gyre_conn *c)
{
    if (const auto moved = gyre_conn_forward(c, c, SIZE_MAX); moved < 0)
        complain("forward", static_cast<int>(moved));
}

void send_line(gyre_conn *c)
{
    if (const int err = gyre_conn_write(c, line.data(), line.size()); err != 0)
        complain("write", err);
}

void take_echo(gyre_conn *c)
{
    gyre_slice view{};
    if (gyre_conn_next(&view, c, line.size()) != 0)
        return; /* not all of it is here */
    const std::string_view got(reinterpret_cast<const char *>(view.data), view.len);
    static_cast<state *>(gyre_engine_user(static_cast<gyre_engine *>(gyre_conn_user(c))))->echoed = got == line;
    (void)gyre_conn_close(c);
}

void finish(gyre_conn *c, int err)
{
    if (err != 0)
        complain("the connection ended", err);
    gyre_drain_options drain = {};
    drain.deadline_ns = 5 * second_ns;
    (void)gyre_engine_drain(static_cast<gyre_engine *>(gyre_conn_user(c)), &drain);
}

gyre_conn_handlers server_handlers()
{
    gyre_conn_handlers handlers{};
    handlers.on_data = echo;
    return handlers;
}

gyre_conn_handlers client_handlers()
{
    gyre_conn_handlers handlers{};
    handlers.on_open = send_line;
    handlers.on_data = take_echo;
    handlers.on_close = finish;
    return handlers;
}

void call(gyre_engine *engine)
{
    static const gyre_conn_handlers handlers = client_handlers();
    gyre_conn_options options{};
    options.user = engine;
    options.idle_timeout_ns = 10 * second_ns;
    const auto *s = static_cast<const state *>(gyre_engine_user(engine));
    const char *address = gyre_listener_address(s->listener);
    if (const int err = gyre_connect(nullptr, gyre_engine_loop(engine, 0), address, &handlers, &options); err != 0) {
        complain("connect", err);
        gyre_engine_stop(engine);
    }
}

int serve(gyre_engine *engine, state &s)
{
    static const gyre_conn_handlers handlers = server_handlers();
    const int err = gyre_engine_listen(&s.listener, engine, "tcp://127.0.0.1:0", &handlers, nullptr);
    return err != 0 ? err : gyre_engine_run(engine);
}

} // namespace

int main()
{
    state s;
    gyre_engine *engine = nullptr;
    gyre_engine_handlers handlers{};
    handlers.on_boot = call;
    gyre_engine_options options{};
    options.loops = 2;
    options.handlers = &handlers;
    options.user = &s;
    int err = gyre_engine_create(&engine, &options);
    if (err != 0) {
        complain("no engine", err);
        return 1;
    }
    struct gyre_backend_report report{};
    gyre_loop_backend(&report, gyre_engine_loop(engine, 0));
    err = serve(engine, s);
    gyre_engine_destroy(engine);
    if (err != 0)
        complain("the engine", err);
    if (err != 0 || !s.echoed)
        return 1;
    std::cout << "echoed " << line.size() << " bytes over " << report.backend << '\n';
    return 0;
}
