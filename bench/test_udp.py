#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Does the judge judge datagrams? gyre-load against UDP servers that are right and that are wrong in one way each.

Usage: test_udp.py DIRECTORY, the one gyre-load and the raw loops were built in."""
import contextlib
import json
import os
import socket
import sys
import threading
import time
import unittest

import test_load
from test_load import load, raw

SMALL = ["--connections", "4", "--size", "100", "--pipeline", "8", "--duration-ms", "400", "--warmup-ms", "0",
         "--stall-ms", "400", "--json"]
WRONG_AT = 40  # datagram with which a wrong server goes wrong


@contextlib.contextmanager
def serving(answers):
    """A server that answers datagram number n with those of `answers(n, bytes)`, each perhaps to another peer."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(0.05)
        done = threading.Event()

        def run():
            count = 0
            while not done.is_set():
                with contextlib.suppress(TimeoutError, ConnectionError):
                    data, peer = sock.recvfrom(65536)
                    count += 1
                    for answer in answers(count, data):
                        sock.sendto(answer, peer)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            yield f"udp://127.0.0.1:{sock.getsockname()[1]}"
        finally:
            done.set()
            thread.join()


class Right(unittest.TestCase):
    def test_raw_loops_and_peers(self):
        for name in ("raw_udp_epoll", "raw_udp_uring", "libuv_udp_echo"):
            for size, pipeline, connections in ((64, 1, 1), (64, 1, 64), (8, 16, 4), (1400, 16, 4), (1400, 1, 50)):
                with self.subTest(name=name, size=size), raw(name) as address:
                    result = load("--address", address, "--size", str(size), "--pipeline", str(pipeline), "--json",
                                  "--connections", str(connections), "--duration-ms", "200", "--warmup-ms", "20")
                    self.assertEqual(result.returncode, 0, result.stderr)
                    answer = json.loads(result.stdout)
                    self.assertGreater(answer["requests"], 0)
                    self.assertEqual(answer["bytes"], answer["requests"] * size)

    def test_more_than_fits_is_lost_and_goes_on(self):
        with raw("raw_udp_epoll") as address:
            result = load("--address", address, "--size", "1400", "--pipeline", "64", "--connections", "64",
                          "--duration-ms", "500")
            self.assertEqual(result.returncode, 0, result.stderr)
            self.assertRegex(result.stdout, r"\d+ datagrams were lost")

    def test_losses_are_counted(self):
        with serving(lambda n, data: [] if n % 20 == 0 else [data]) as address:
            result = load("--address", address, *SMALL)
            self.assertEqual(result.returncode, 0, result.stderr)
            answer = json.loads(result.stdout)
            self.assertGreater(answer["lost"], 0)
            self.assertGreater(answer["requests"], answer["lost"])

    def test_late_answers_are_told_apart(self):
        """Answers that come after their datagrams were given up are neither answers nor wrong."""
        kept = []  # (when, datagram)

        def slow(n, data):
            ripe = [kept.pop(0)[1]] if kept and time.monotonic() - kept[0][0] > 0.2 else []
            if n % 100 == 0:
                kept.append((time.monotonic(), data))
                return ripe
            return [*ripe, data]

        with serving(slow) as address:
            result = load("--address", address, *SMALL, "--connections", "1", "--duration-ms", "1000")
            self.assertEqual(result.returncode, 0, result.stdout)
            answer = json.loads(result.stdout)
            self.assertGreater(answer["late"], 0)
            self.assertGreaterEqual(answer["lost"], answer["late"])


class Wrong(unittest.TestCase):
    def check(self, answers, message):
        with serving(answers) as address:
            result = load("--address", address, *SMALL)
            self.assertEqual(result.returncode, 1, result.stdout)
            self.assertRegex(json.loads(result.stdout)["error"], message)

    def wrong_once(self, change):
        return lambda n, data: change(data) if n == WRONG_AT else [data]

    def test_flipped_bit(self):
        self.check(self.wrong_once(lambda data: [data[:50] + bytes([data[50] ^ 1]) + data[51:]]), "other bytes")

    def test_short_and_long(self):
        self.check(self.wrong_once(lambda data: [data[:-1]]), "came back with 99 bytes and was sent with 100")
        self.check(self.wrong_once(lambda data: [data + b"x"]), "came back with at least 101 bytes")
        self.check(self.wrong_once(lambda data: [b""]), "came back with 0 bytes")

    def test_doubled(self):
        self.check(self.wrong_once(lambda data: [data, data]), "came back twice")

    def test_nobody_sent_it(self):
        self.check(self.wrong_once(lambda data: [data[:4] + b"\xff\xff\0\0" + data[8:]]), "nobody had sent")
        self.check(self.wrong_once(lambda data: [b"\xff" * 4 + data[4:]]), "nobody had sent")

    def test_silence(self):
        self.check(lambda n, data: [], "no answer at all for 400 ms")

    def test_cross_talk(self):
        """A datagram of one socket comes back on another."""
        seen = []

        def mixed(n, data):
            seen.append(data)
            return [seen[0]] if n == 12 else [data]

        self.check(mixed, "other bytes|twice|nobody had sent")

    def test_nobody_there(self):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind(("127.0.0.1", 0))
            address = f"udp://127.0.0.1:{sock.getsockname()[1]}"
        result = load("--address", address, *SMALL)
        self.assertEqual(result.returncode, 1)
        self.assertIn("Connection refused", json.loads(result.stdout)["error"])


class CommandLine(unittest.TestCase):
    def test_refused(self):
        address = ["--address", "udp://127.0.0.1:9"]
        for args in (["--churn"], ["--mode", "open", "--rate", "10"], ["--size", "7"], ["--size", "65508"],
                     ["--connections", "65536", "--pipeline", "65536"]):
            with self.subTest(args=args):
                result = load(*address, *args)
                self.assertEqual(result.returncode, 2)
                self.assertRegex(result.stderr, r"udp://")
        result = load("--address", "udp://nowhere")
        self.assertEqual(result.returncode, 2)
        self.assertIn("udp://HOST:PORT", result.stderr)

    def test_raw_loops(self):
        for name in ("raw_epoll", "raw_udp_epoll"):
            for args in (["--port", "65536"], ["--loops", "0"], ["--port"], ["--loops", "17"], ["x", "y"],
                         *([["--loops", "2"]] if "udp" in name else [])):
                with self.subTest(name=name, args=args), self.assertRaisesRegex(unittest.SkipTest, "usage: "):
                    with raw(name, *args):
                        pass


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    test_load.BUILD = os.path.abspath(sys.argv.pop(1))
    unittest.main()
