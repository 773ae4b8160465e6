/* SPDX-License-Identifier: MIT
 * The echo server on Asio, built twice: on epoll, and on io_uring (ASIO_HAS_IO_URING and ASIO_DISABLE_EPOLL). A buffer
 * of 64 KiB for each connection, its usual way; of it only the pages that were read into are resident. One thread, and
 * Asio is told so: it takes no locks. */
extern "C" {
#include "raw_listen.h"
}

#include <asio.hpp>
#include <cstdio>
#include <memory>

namespace
{

using asio::ip::tcp;

class connection : public std::enable_shared_from_this<connection>
{
  public:
    explicit connection(tcp::socket socket) : socket_(std::move(socket)), buffer_(new char[size])
    {
    }

    void read()
    {
        socket_.async_read_some(asio::buffer(buffer_.get(), size),
                                [self = shared_from_this()](std::error_code err, std::size_t n) {
                                    if (!err)
                                        self->write(n);
                                });
    }

  private:
    static constexpr std::size_t size = 65536;
    tcp::socket socket_;
    std::unique_ptr<char[]> buffer_;

    void write(std::size_t n)
    {
        asio::async_write(socket_, asio::buffer(buffer_.get(), n),
                          [self = shared_from_this()](std::error_code err, std::size_t) {
                              if (!err)
                                  self->read();
                          });
    }
};

void accept(tcp::acceptor &acceptor)
{
    acceptor.async_accept([&acceptor](std::error_code err, tcp::socket socket) {
        if (!err) {
            socket.set_option(tcp::no_delay(true));
            std::make_shared<connection>(std::move(socket))->read();
        }
        accept(acceptor);
    });
}

} // namespace

int main(int argc, char **argv)
{
    try {
        /* Before the address is told: where the kernel refuses io_uring, this throws. */
        asio::io_context context(ASIO_CONCURRENCY_HINT_UNSAFE);
        tcp::acceptor acceptor(context);
        int fd = bench_raw_listen(argc, argv);
        acceptor.assign(tcp::v4(), fd);
        accept(acceptor);
        context.run();
    } catch (const std::exception &err) {
        (void)std::fprintf(stderr, "asio_echo: %s\n", err.what());
        return 1;
    }
    return 0;
}
