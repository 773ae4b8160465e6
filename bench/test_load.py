#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Does the judge judge? gyre-load against servers that are right and servers that are wrong in one way each.

Usage: test_load.py DIRECTORY, the one gyre-load and the raw loops were built in. The right servers are the raw loops at
the cells of the benchmark; the wrong ones live in this process, answer rightly for a while and then do one thing wrong.
"""
import contextlib
import json
import os
import selectors
import socket
import subprocess
import sys
import threading
import time
import unittest

BUILD = "."
WRONG_AT = 5000  # byte of a connection's stream at which a wrong server goes wrong


class Server(threading.Thread):
    """Echoes on 127.0.0.1 and spoils what `spoil(connection number, bytes, offset in the stream)` says."""

    def __init__(self, spoil, family=socket.AF_INET):
        super().__init__(daemon=True)
        self.spoil = spoil
        self.listener = socket.socket(family)
        if family == socket.AF_UNIX:
            self.listener.bind(f"\0gyre-load-test-{os.getpid()}")
            self.address = f"unix://@gyre-load-test-{os.getpid()}"
        else:
            self.listener.bind(("127.0.0.1", 0))
            self.address = f"tcp://127.0.0.1:{self.listener.getsockname()[1]}"
        self.listener.listen(64)
        self.stop_read, self.stop_write = os.pipe()

    def run(self):
        selector = selectors.DefaultSelector()
        selector.register(self.listener, selectors.EVENT_READ)
        selector.register(self.stop_read, selectors.EVENT_READ)
        offsets = {}
        while True:
            for key, _ in selector.select():
                if key.fileobj is self.stop_read or key.fileobj == self.stop_read:
                    for conn in offsets:
                        conn.close()
                    return
                if key.fileobj is self.listener:
                    conn = self.listener.accept()[0]
                    offsets[conn] = 0
                    selector.register(conn, selectors.EVENT_READ, data=len(offsets) - 1)
                    continue
                if not self.echo(key.fileobj, key.data, offsets):
                    selector.unregister(key.fileobj)
                    key.fileobj.close()
                    del offsets[key.fileobj]

    def echo(self, conn, number, offsets):
        try:
            data = conn.recv(65536)
            answer = self.spoil(number, data, offsets[conn]) if data else None
            if answer is None:
                return False
            offsets[conn] += len(data)
            conn.sendall(answer)
            return True
        except ConnectionError:
            return False

    def close(self):
        os.write(self.stop_write, b"x")
        self.join()
        self.listener.close()
        os.close(self.stop_read)
        os.close(self.stop_write)


def right(_, data, __):
    return data


def at_offset(change):
    """Changes the bytes in which the byte WRONG_AT of connection 3 lies."""

    def spoil(number, data, offset):
        if number != 3 or not offset <= WRONG_AT < offset + len(data):
            return data
        return change(data, WRONG_AT - offset)

    return spoil


def flip(data, i):
    return data[:i] + bytes([data[i] ^ 1]) + data[i + 1 :]


def swap(data, i):
    """Exchanges two halves of what was read, as a server does that mixes up the order of its buffers."""
    half = len(data) // 2
    return data[half:] + data[:half]


class CrossTalk:
    """Answers one connection with what another one sent."""

    def __init__(self):
        self.stolen = None

    def __call__(self, number, data, offset):
        if number == 2:
            self.stolen = data
        if number == 3 and offset >= WRONG_AT and self.stolen is not None:
            return self.stolen
        return data


@contextlib.contextmanager
def serving(spoil, family=socket.AF_INET):
    server = Server(spoil, family)
    server.start()
    try:
        yield server.address
    finally:
        server.close()


@contextlib.contextmanager
def raw(name, *args):
    path = os.path.join(BUILD, name)
    if not os.path.exists(path):
        raise unittest.SkipTest(f"{name} was not built")
    with subprocess.Popen([path, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline()
            if not line:
                raise unittest.SkipTest(f"{name}: {process.stderr.read().strip()}")
            yield line.split()[-1]
            if process.poll() is not None:
                raise AssertionError(f"{name} ended with {process.returncode}: {process.stderr.read().strip()}")
        finally:
            process.kill()


def load(*args):
    command = [os.path.join(BUILD, "gyre-load"), *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


SMALL = ["--connections", "8", "--size", "100", "--pipeline", "4", "--duration-ms", "500", "--warmup-ms", "0",
         "--stall-ms", "400"]


class RightServers(unittest.TestCase):
    def check(self, result):
        self.assertEqual(result.returncode, 0, result.stderr)
        answer = json.loads(result.stdout)
        self.assertGreater(answer["requests"], 0)
        latency = answer["latency_ns"]
        quantiles = [latency[name] for name in ("p50", "p90", "p99", "p99_9", "max")]
        self.assertEqual(quantiles, sorted(quantiles))
        self.assertGreater(quantiles[0], 0)
        return answer

    def measured(self, *args, duration_ms, more_than=0):
        """How fast a machine is says nothing about right and wrong: the run is made longer until it has answers."""
        while True:
            result = load(*args, "--duration-ms", str(duration_ms), "--json")
            self.assertEqual(result.returncode, 0, result.stderr)
            if json.loads(result.stdout)["requests"] > more_than or duration_ms > 10000:
                break
            duration_ms *= 4
        answer = self.check(result)
        self.assertGreater(answer["requests"], more_than)
        return answer

    def cells(self, name):
        with raw(name) as address:
            for size, pipeline in ((64, 1), (64, 16), (16384, 1), (262144, 2)):
                for connections in (1, 64, 1000 if size < 262144 else 100):
                    with self.subTest(size=size, pipeline=pipeline, connections=connections):
                        answer = self.measured("--address", address, "--connections", str(connections), "--size",
                                               str(size), "--pipeline", str(pipeline), "--warmup-ms", "50",
                                               duration_ms=400)
                        self.assertEqual(answer["connections"], connections)

    def works(self, address):
        """Small, pipelined, and more than fits the sockets' buffers, on connections that go and on new ones."""
        for size, pipeline, connections in ((64, 1, 64), (64, 16, 200), (16384, 16, 32), (3000000, 1, 6)):
            with self.subTest(size=size, pipeline=pipeline, connections=connections):
                self.measured("--address", address, "--connections", str(connections), "--size", str(size),
                              "--pipeline", str(pipeline), "--warmup-ms", "0", duration_ms=100)

    def test_peers(self):
        for name in ("libuv_echo", "libuv_queued_echo", "libevent_echo", "libev_echo", "asio_echo", "asio_uring_echo"):
            with self.subTest(name=name), raw(name) as address:
                self.works(address)

    def test_relays(self):
        for name in ("raw_epoll_relay", "raw_uring_relay"):
            with self.subTest(name=name), raw("raw_epoll") as backend, raw(name, backend) as address:
                self.works(address)
                self.works(address)  # once more, over descriptors that others have had

    def test_relays_refuse_a_wrong_address(self):
        for name in ("raw_epoll_relay", "raw_uring_relay"):
            path = os.path.join(BUILD, name)
            for args in ([], ["nowhere"], ["tcp://127.0.0.1"]):
                with self.subTest(name=name, args=args):
                    if not os.path.exists(path):
                        self.skipTest(f"{name} was not built")
                    result = subprocess.run([path, *args], capture_output=True, text=True, timeout=60, check=False)
                    # Where the kernel refuses io_uring, that is said first.
                    self.assertIn(result.returncode, (1, 2) if "uring" in name else (2,))
                    self.assertEqual(result.stdout, "")

    def test_churn(self):
        with raw("raw_epoll") as address:
            for size, connections in ((64, 1), (64, 16), (300000, 4)):
                with self.subTest(size=size, connections=connections):
                    self.measured("--address", address, "--churn", "--connections", str(connections), "--size",
                                  str(size), "--warmup-ms", "0", duration_ms=100, more_than=connections)

    def test_raw_epoll(self):
        self.cells("raw_epoll")

    def test_raw_uring(self):
        self.cells("raw_uring")

    def test_unix(self):
        with serving(right, socket.AF_UNIX) as address:
            self.check(load("--address", address, *SMALL, "--json"))

    def test_open_loop_keeps_the_rate(self):
        with serving(right) as address:
            answer = self.check(load("--address", address, *SMALL, "--mode", "open", "--rate", "1000", "--json"))
        self.assertEqual(answer["unanswered"], 0)
        self.assertGreater(answer["requests"], 0)  # how many depends on how busy the machine is
        self.assertLessEqual(answer["requests"], 501)

    def test_open_loop_charges_a_pause_to_all_that_was_due(self):
        """A server that sleeps 300 ms of 500 must show in the median, though only few requests were in flight."""
        slept = threading.Event()

        def spoil(_, data, __):
            if not slept.is_set():
                slept.set()
                time.sleep(0.3)
            return data

        with serving(spoil) as address:
            answer = self.check(load("--address", address, *SMALL, "--mode", "open", "--rate", "1000", "--json"))
        self.assertGreater(answer["latency_ns"]["p50"], 20e6)
        self.assertGreater(answer["latency_ns"]["max"], 250e6)

    def test_open_loop_counts_what_it_gives_up(self):
        def spoil(_, data, __):
            time.sleep(0.01)
            return data

        with serving(spoil) as address:
            result = load("--address", address, "--connections", "4", "--size", "1000", "--duration-ms", "300",
                          "--warmup-ms", "0", "--stall-ms", "300", "--mode", "open", "--rate", "1000", "--json")
        self.assertEqual(result.returncode, 0, result.stderr)
        answer = json.loads(result.stdout)
        self.assertGreater(answer["unanswered"], 200)
        self.assertGreater(answer["latency_ns"]["p50"], 250e6)


class WrongServers(unittest.TestCase):
    def check(self, spoil, message, *more):
        with serving(spoil) as address:
            result = load("--address", address, *SMALL, *more)
        self.assertEqual(result.returncode, 1, result.stdout)
        self.assertIn(message, result.stderr)
        self.assertIn(address, result.stderr)
        return result

    def test_flipped_bit(self):
        message = f"byte {WRONG_AT} came back as"
        self.assertEqual(self.check(at_offset(flip), message).stdout, "")
        result = self.check(at_offset(flip), message, "--json")
        self.assertIn(message, json.loads(result.stdout)["error"])
        self.check(at_offset(flip), message, "--mode", "open", "--rate", "20000")

    def test_dropped_byte_within_a_batch(self):
        self.check(at_offset(lambda data, i: data[:i] + data[i + 1 :]), "came back as")

    def test_dropped_last_byte(self):
        self.check(at_offset(lambda data, i: data[:-1]), "no progress for 400 ms with 1 bytes to come")

    def test_doubled_byte(self):
        self.check(at_offset(lambda data, i: data[: i + 1] + data[i:]), "came back as")

    def test_extra_byte_at_the_end(self):
        self.check(at_offset(lambda data, i: data + b"x"), "nobody had sent")

    def test_swapped_parts(self):
        self.check(at_offset(swap), "came back as")

    def test_cross_talk(self):
        self.check(CrossTalk(), "came back as")

    def test_early_close(self):
        self.check(at_offset(lambda data, i: None), "the server closed it")

    def test_silence(self):
        self.check(at_offset(lambda data, i: b""), "no progress for 400 ms with 400 bytes to come")


    def test_churn_needs_an_end(self):
        """A server that answers rightly and does not close; one that closes too early; and one that spoils a byte."""
        churn = ["--churn", "--connections", "4", "--duration-ms", "500", "--warmup-ms", "0", "--stall-ms", "400"]
        with socket.create_server(("127.0.0.1", 0), backlog=16) as listener:
            kept = []

            def answer_and_keep():
                with contextlib.suppress(OSError):
                    while True:
                        kept.append(listener.accept()[0])
                        kept[-1].sendall(kept[-1].recv(100))

            threading.Thread(target=answer_and_keep, daemon=True).start()
            result = load("--address", f"tcp://127.0.0.1:{listener.getsockname()[1]}", *churn)
            listener.shutdown(socket.SHUT_RDWR)
            for conn in kept:
                conn.close()
        self.assertEqual(result.returncode, 1)
        self.assertIn("does not close when the other side has ended", result.stderr)
        for spoil, message in ((lambda *_: None, "the server closed it"),
                               (lambda _, data, __: flip(data, 5), "byte 5")):
            with self.subTest(message=message), serving(spoil) as address:
                result = load("--address", address, *churn)
                self.assertEqual(result.returncode, 1)
                self.assertIn(message, result.stderr)


class Slices(unittest.TestCase):
    def converse(self, addresses, commands):
        args = [os.path.join(BUILD, "gyre-load"), "--slices", *SMALL[:6], "--stall-ms", "400"]
        for address in addresses:
            args += ["--address", address]
        result = subprocess.run(args, input=commands, capture_output=True, text=True, timeout=60, check=False)
        return result.returncode, [json.loads(line) for line in result.stdout.splitlines()]

    def test_turns(self):
        with serving(right) as first, serving(right) as second:
            status, lines = self.converse([first, second], "run 0 50\nrun 1 50\nonce 0\nrun 0 50\nquit\n")
        self.assertEqual(status, 0)
        self.assertEqual([line["index"] for line in lines], [0, 1, 0, 1, 0, 0])
        self.assertTrue(lines[0]["ready"] and lines[1]["ready"])
        for line in lines[2:]:
            self.assertGreaterEqual(line["requests_total"], line["requests"])
            self.assertGreater(line["requests"], 0)
        self.assertEqual(lines[4]["requests_total"], 8 * 4)

    def test_one_failure_leaves_the_others(self):
        with serving(right) as first, serving(at_offset(flip)) as second:
            status, lines = self.converse([first, second], "run 1 300\nrun 0 50\nrun 1 50\n")
        self.assertEqual(status, 1)
        self.assertIn("came back as", lines[2]["error"])
        self.assertGreater(lines[3]["requests"], 0)
        self.assertIn("came back as", lines[4]["error"])

    def test_nobody_there(self):
        with serving(right) as first:
            status, lines = self.converse(["unix://@gyre-load-nobody", first], "run 0 50\nrun 1 50\n")
        self.assertEqual(status, 1)
        self.assertIn("Connection refused", lines[0]["error"])
        self.assertIn("Connection refused", lines[2]["error"])
        self.assertGreater(lines[3]["requests"], 0)

    def test_wrong_commands(self):
        for command in ("run", "run 0", "run 1 50", "run 0 0", "run 0 50 x", "once", "once 7", "walk 0 1"):
            with self.subTest(command=command), serving(right) as address:
                status, lines = self.converse([address], command + "\n")
                self.assertEqual(status, 1)
                self.assertIn("a command is", lines[1]["error"])


class CommandLine(unittest.TestCase):
    def test_refused(self):
        nowhere = ["--address", "unix://@gyre-load-nobody"]
        cases = [
            ([], "--address is needed"),
            (["--address", "http://127.0.0.1:1"], "tcp://, udp:// or unix://"),
            (["--address", "tcp://127.0.0.1"], "tcp://HOST:PORT"),
            (["--address", "unix://"], "1 to 107 bytes"),
            (nowhere + nowhere, "--slices"),
            (nowhere + ["--mode", "half"], "closed or open"),
            (nowhere + ["--mode", "open"], "needs --rate"),
            (nowhere + ["--rate", "5"], "needs --mode open"),
            (nowhere + ["--slices", "--duration-ms", "5"], "come with the commands"),
            (nowhere + ["--churn", "--pipeline", "2"], "one request at a time"),
            (nowhere + ["more"], "not an option"),
            (nowhere + ["--bogus"], "bogus"),
        ]
        ranges = [("connections", "0", "65537"), ("size", "0", "16777217"), ("pipeline", "0", "65537"),
                  ("duration-ms", "0", "3600001"), ("warmup-ms", "-1", "600001"), ("stall-ms", "9", "600001"),
                  ("rate", "0", "100000001")]
        for name, low, high in ranges:
            for value in (low, high, "", "1x", "99999999999999999999"):
                cases.append((nowhere + [f"--{name}", value], f"--{name} must be a number from"))
        for args, message in cases:
            with self.subTest(args=args):
                result = load(*args)
                self.assertEqual(result.returncode, 2)
                self.assertIn(message, result.stderr)
                self.assertEqual(result.stdout, "")

    def test_nobody_there(self):
        result = load("--address", "unix://@gyre-load-nobody")
        self.assertEqual(result.returncode, 1)
        self.assertIn("Connection refused", result.stderr)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    BUILD = sys.argv.pop(1)
    unittest.main()
