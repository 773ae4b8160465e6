#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Do the runner, the demo and the memory measurement work, and do they stand what can go wrong?

Usage: test_run.py DIRECTORY, the one gyre-load and the raw loops were built in. The place of the echo example is taken
by a program in this file that prints what the example prints and can be told to misbehave: what is tested here is the
measuring and not the library.
"""
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest
import xml.etree.ElementTree

import cells
import harness
import relays

HERE = os.path.dirname(os.path.abspath(__file__))
BUILD = "."

ECHO = r'''#!%s
import os, selectors, signal, socket, sys
args = sys.argv[1:]
fault = os.environ.get("ECHO_FAULT", "")
backend = args[args.index("--backend") + 1] if "--backend" in args else "io_uring"
reason = "asked for by name" if "--backend" in args else "the best that works here"
if fault == "refused" and backend == "io_uring":
    if "--backend" in args:
        sys.exit("echo: io_uring: refused by this kernel")
    backend, reason = "epoll", "io_uring is refused: EPERM"
if fault == "other" and backend == "io_uring":
    backend = "epoll"
requests = 0
def stop(*_):
    print("enters  %%d  system calls that wait" %% (requests // 2))
    print("calls  %%d\nevents_per_enter  0.50" %% requests, flush=True)
    os._exit(3 if fault == "status" else 0)
signal.signal(signal.SIGTERM, stop)
listener = socket.create_server(("127.0.0.1", 0), backlog=500)
print("listening on tcp://127.0.0.1:%%d, backend %%s (%%s)" %% (listener.getsockname()[1], backend, reason), flush=True)
selector = selectors.DefaultSelector()
selector.register(listener, selectors.EVENT_READ)
while True:
    for key, _ in selector.select():
        if key.fileobj is listener:
            selector.register(listener.accept()[0], selectors.EVENT_READ)
            continue
        data = key.fileobj.recv(65536)
        requests += 1
        if fault == "dies" and backend == "epoll" and requests > 20:
            sys.exit("echo: out of luck")
        if fault == "wrong" and backend == "epoll" and requests > 20:
            data = data[::-1]
        if data:
            key.fileobj.sendall(data)
        else:
            selector.unregister(key.fileobj)
            key.fileobj.close()
'''


DYING_RELAY = r'''#!%s
import select, socket, sys
host, port = sys.argv[-1][len("tcp://"):].split(":")
listener = socket.create_server(("127.0.0.1", 0), backlog=500)
print("listening on tcp://127.0.0.1:%%d" %% listener.getsockname()[1], flush=True)
peers = {}
requests = 0
while True:
    for ready in select.select([listener, *peers], [], [])[0]:
        if ready is listener:
            near, far = listener.accept()[0], socket.create_connection((host, int(port)))
            peers.update({near: far, far: near})
            continue
        requests += 1
        if requests > 100:
            sys.exit("a relay out of luck")
        peers[ready].sendall(ready.recv(65536))
'''


DYING_UDP = r'''#!%s
import socket, sys
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.bind(("127.0.0.1", 0))
print("listening on udp://127.0.0.1:%%d" %% sock.getsockname()[1], flush=True)
for _ in range(20):
    sock.sendto(*sock.recvfrom(65536))
sys.exit("out of datagrams")
'''


class Runs(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.build = scratch.name
        self.output = os.path.join(scratch.name, "result.json")
        os.symlink(os.path.abspath(BUILD), os.path.join(self.build, "bench"))
        os.mkdir(os.path.join(self.build, "examples"))
        self.echo = os.path.join(self.build, "examples", "echo")
        with open(self.echo, "w", encoding="utf-8") as file:
            file.write(ECHO % sys.executable)
        os.chmod(self.echo, 0o755)

    def command(self, script, *args):
        return [sys.executable, os.path.join(HERE, script), "--build", self.build, *args]

    def script(self, script, *args, fault=""):
        return subprocess.run(self.command(script, *args), env={**os.environ, "ECHO_FAULT": fault}, timeout=120,
                              capture_output=True, text=True, check=False)

    def bench(self, *args, fault="", rounds="2"):
        result = self.script("run.py", "--cells", "64@4,64x4@2", "--rounds", rounds, "--slice-ms", "30", "--no-memory",
                             "--output", self.output, *args, fault=fault)
        report = None
        if os.path.exists(self.output):
            with open(self.output, encoding="utf-8") as file:
                report = json.load(file)
        return result, report


class Runner(Runs):
    def test_all_is_well(self):
        result, report = self.bench()
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual([cell["cell"] for cell in report["cells"]], ["64 B @ 4", "64 B x4 @ 2"])
        for cell in report["cells"]:
            if "raw-io_uring" not in cell["dropped"]:  # as where the kernel refuses io_uring
                self.assertEqual(len(cell["ratios"]), 5)
            self.assertEqual(set(cell["servers"]) | {"raw-io_uring"},
                             {"gyre-epoll", "gyre-io_uring", "raw-epoll", "raw-io_uring"})
            for server in cell["servers"].values():
                self.assertEqual(len(server["slices"]), 2)
                self.assertGreater(server["requests_per_cpu_second"], 0)
                self.assertGreater(server["p99_ns"], 0)
            for ratio in cell["ratios"]:
                median, low, high = ratio["per_cpu_second"]
                self.assertTrue(0 < low <= median <= high, ratio)
        # The echo in this file counts three calls for two reads; a read is a request in the first cell.
        self.assertAlmostEqual(report["cells"][0]["servers"]["gyre-epoll"]["calls_per_request"], 1.5, delta=0.05)
        self.assertRegex(result.stdout, r"gyre-uring/raw-epoll")

    def test_refused_arguments(self):
        for args in (["--rounds", "0"], ["--rounds", "x"], ["--slice-ms", "9"], ["--cells", "64"], ["--cells", ""],
                     ["--cells", "0@1"], ["--cells", "64x0@1"], ["--cells", "64@70000"], ["--servers", "nobody"],
                     ["--server", "x"], ["--server", "=y"], ["--cells", "64@65000"], ["--cells", "splice:64@1"],
                     ["--cells", "churn:64x2@1"], ["--part", "all"],
                     ["--cells", "udp:7@1"], ["--cells", "udp:65508@1"], ["--part", "udp", "--cells", "64@1"]):
            with self.subTest(args=args):
                result = self.script("run.py", *args)
                self.assertEqual(result.returncode, 2, result.stderr)

    def test_few_descriptors(self):
        """A set goes on without the cells that need more than a process may have."""
        limited = ["prlimit", "--nofile=300:300"]
        args = ["--rounds", "1", "--slice-ms", "10", "--no-memory", "--servers", "raw-epoll", "--output", self.output]
        result = subprocess.run([*limited, *self.command("run.py", *args)], timeout=120, capture_output=True, text=True,
                                check=False)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("left out: 64 B @ 1000 needs 1064 descriptors, and a process may have 300", result.stderr)
        with open(self.output, encoding="utf-8") as file:
            self.assertIn("64 B @ 64", [cell["cell"] for cell in json.load(file)["cells"]])

    def test_server_that_dies(self):
        result, report = self.bench(fault="dies")
        self.assertEqual(result.returncode, 1)
        for cell in report["cells"]:
            self.assertIn("ended with status 1: echo: out of luck", cell["dropped"]["gyre-epoll"])
            self.assertLessEqual({"gyre-io_uring", "raw-epoll"}, set(cell["servers"]))
            self.assertNotIn("gyre-epoll", {ratio[side] for ratio in cell["ratios"] for side in ("of", "to")})

    def test_server_that_is_wrong(self):
        result, report = self.bench(fault="wrong")
        self.assertEqual(result.returncode, 1)
        self.assertIn("came back as", report["cells"][0]["dropped"]["gyre-epoll"])
        self.assertLessEqual({"gyre-io_uring", "raw-epoll"}, set(report["cells"][0]["servers"]))

    def test_refused_backend(self):
        result, report = self.bench(fault="refused")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("refused by this kernel", report["cells"][0]["dropped"]["gyre-io_uring"])
        self.assertIn("refused by this kernel", result.stdout)

    def test_another_backend_is_not_mistaken(self):
        _, report = self.bench(fault="other")
        self.assertIn("runs on another backend", report["cells"][0]["dropped"]["gyre-io_uring"])

    def test_missing_program_and_taken_port(self):
        os.unlink(self.echo)
        raw = os.path.join(BUILD, "raw_epoll")
        with socket.create_server(("127.0.0.1", 0)) as taken:
            result, report = self.bench("--server", f"taken={raw} --port {taken.getsockname()[1]}", "--server",
                                        "mute=true", "--server", "nameless=echo hello")
        self.assertEqual(result.returncode, 0, result.stderr)
        dropped = report["cells"][0]["dropped"]
        self.assertIn("make release", dropped["gyre-epoll"])
        self.assertIn("Address already in use", dropped["taken"])
        self.assertIn("ended with status 0", dropped["mute"])
        self.assertIn("names no address", dropped["nameless"])
        self.assertIn("raw-epoll", report["cells"][0]["servers"])

    def own_programs(self, *kept, **scripts):
        """A directory `bench` with only some of the programs, and scripts in the place of others."""
        build = os.path.join(self.build, "bench")
        os.unlink(build)
        os.mkdir(build)
        for name in kept:
            os.symlink(os.path.join(os.path.abspath(BUILD), name), os.path.join(build, name))
        for name, script in scripts.items():
            with open(os.path.join(build, name), "w", encoding="utf-8") as file:
                file.write(script % sys.executable)
            os.chmod(file.name, 0o755)

    def test_kinds_of_work(self):
        """A relay that dies, one that is missing, one that is right; churn; two reactors; a peer that is not built."""
        self.own_programs("gyre-load", "raw_epoll", "raw_epoll_relay", raw_uring_relay=DYING_RELAY)
        result, report = self.bench("--cells", "relay:64@4,churn:64@2,two:64@2", "--servers",
                                    "gyre-epoll,gyre-epoll-x2,raw-epoll,raw-io_uring,libuv")
        self.assertEqual(result.returncode, 1, result.stderr)
        relay, churn, two = report["cells"]
        self.assertEqual(set(relay["servers"]), {"raw-epoll"})
        self.assertIn("a relay out of luck", relay["dropped"]["raw-io_uring"])
        self.assertIn("make release", relay["dropped"]["gyre-epoll"])
        self.assertIn("make bench-setup", churn["dropped"]["libuv"])
        self.assertEqual(set(churn["servers"]), {"raw-epoll", "gyre-epoll"})
        self.assertEqual({(r["of"], r["to"]) for r in two["ratios"]},
                         {("gyre-epoll-x2", "gyre-epoll"), ("gyre-epoll", "raw-epoll")})
        for kind in ("relay", "churn", "two"):
            chart = xml.etree.ElementTree.parse(f"{self.output[:-5]}-{kind}.svg")
            self.assertGreater(len(chart.findall(".//{http://www.w3.org/2000/svg}rect")), 1)
        self.assertEqual(self.children(), [])

    def test_few_and_many_connections(self):
        """The same server twice, with 64 connections and with more; raw loops with two reactors."""
        result, report = self.bench("--cells", "flat:64@80,two:64@4", "--servers",
                                    "raw-epoll,raw-epoll@64,raw-epoll-x2")
        self.assertEqual(result.returncode, 0, result.stderr)
        flat, two = report["cells"]
        self.assertEqual([(r["of"], r["to"]) for r in flat["ratios"]], [("raw-epoll", "raw-epoll@64")])
        self.assertEqual([(r["of"], r["to"]) for r in two["ratios"]], [("raw-epoll-x2", "raw-epoll")])

    def test_datagrams(self):
        """UDP: a server that is right, one that dies, one that speaks TCP, one that is not built."""
        self.own_programs("gyre-load", "raw_udp_epoll", raw_udp_uring=DYING_UDP)
        result, report = self.bench("--cells", "udp:64x4@2,udp:1400@4", "--servers",
                                    "raw-epoll,raw-io_uring,gyre-epoll,libuv")
        self.assertEqual(result.returncode, 1, result.stderr)
        for cell in report["cells"]:
            self.assertEqual(set(cell["servers"]), {"raw-epoll"})
            self.assertGreater(cell["servers"]["raw-epoll"]["requests_per_cpu_second"], 0)
            self.assertIn("out of datagrams", cell["dropped"]["raw-io_uring"])
            self.assertIn("it does not speak udp://", cell["dropped"]["gyre-epoll"])
            self.assertIn("make bench-setup", cell["dropped"]["libuv"])
        self.assertEqual(self.children(), [])

    def test_parts_become_a_document(self):
        """All parts, one of them alone, one that is no part; what is missing is said."""
        parts = os.path.join(self.build, "parts")
        document = os.path.join(self.build, "RESULTS.md")
        os.mkdir(parts)
        result, _ = self.bench("--cells", "64@4,flat:64@80,two:64@4,udp:64@4", "--servers",
                               "raw-epoll,raw-epoll@64,raw-epoll-x2,gyre-epoll,gyre-epoll@64,gyre-epoll-x2")
        self.assertEqual(result.stderr.count("Traceback"), 0, result.stderr)
        result = self.results(self.output, "--output", document)
        self.assertEqual(result.returncode, 0, result.stderr)
        with open(document, encoding="utf-8") as file:
            text = file.read()
        self.assertIn("**Not measured: echo, peers, relay, churn, two, udp, memory.**", text)
        self.assertRegex(text, r"(?m)^\| gyre on epoll ÷ raw epoll, every cell \| ≥ 0.97 \| lowest \d")
        self.assertRegex(text, r"(?m)^\| two reactors ÷ one, ÷ the same of the raw loop \| ≥ 1.00 \| lowest \d")
        self.assertRegex(text, r"(?m)^\| 8000 connections ÷ 64, .* lowest \d")
        for figure in re.findall(r"!\[.*?\]\((.*?)\)", text):
            self.assertTrue(os.path.exists(os.path.join(self.build, figure)), figure)
        for content in ("", "[]", "{}", '{"environment": {}, "cells": [1], "idle_memory": {}, "rounds": 1}'):
            with open(self.output, "w", encoding="utf-8") as file:
                file.write(content)
            with self.subTest(content=content):
                result = self.results(self.output, "--output", document)
                self.assertEqual(result.returncode, 1)
                self.assertRegex(result.stderr, r"\Aresults.py: [^\n]+\n\Z")
        with open(document, encoding="utf-8") as file:
            self.assertEqual(file.read(), text)  # and what was there stays

    def results(self, *args):
        return subprocess.run([sys.executable, os.path.join(HERE, "results.py"), *args], timeout=60,
                              capture_output=True, text=True, check=False)

    def test_full_goes_on_with_what_is_missing(self):
        """Every part but `memory` is there, and not measured again."""
        parts = os.path.join(self.build, "parts")
        os.mkdir(parts)
        result, report = self.bench()
        for part in cells.PARTS:
            if part == "memory":
                continue
            with open(os.path.join(parts, f"{part}.json"), "w", encoding="utf-8") as file:
                json.dump({**report, "part": part}, file)
        document = os.path.join(self.build, "RESULTS.md")
        result = subprocess.run(["prlimit", "--nofile=400:400", *self.command(
            "full.py", "--missing", "--results", parts, "--output", document)], timeout=120, capture_output=True,
            text=True, check=False)
        self.assertEqual(re.findall(r"(?m)^(\w+): \d+ s$", result.stdout), ["memory"], result.stderr)
        with open(document, encoding="utf-8") as file:
            self.assertRegex(file.read(), r"(?m)^\| gyre-epoll \| \d+ \| \d+ \| -?\d+ \|")

    def test_nothing_to_measure(self):
        result, _ = self.bench("--server", "mute=true", "--servers", "mute")
        self.assertEqual(result.returncode, 1)

    def children(self):
        """Processes whose command line names this test's build directory, other than the runner."""
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{pid}/cmdline", "rb") as file:
                    line = file.read()
            except OSError:
                continue
            if self.build.encode() in line and b"run.py" not in line:
                found.append(int(pid))
        return found

    def interrupted(self, number):
        with subprocess.Popen(self.command("run.py", "--cells", "64@4", "--rounds", "1000", "--no-memory", "--servers",
                                           "gyre-io_uring,gyre-epoll,raw-epoll"),
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)) as process:
            deadline = time.monotonic() + 30
            while len(self.children()) < 6 and time.monotonic() < deadline:  # three servers, a load for each
                time.sleep(0.02)
            started = len(self.children())
            process.send_signal(number)
            _, stderr = process.communicate(timeout=30)
        self.assertEqual(started, 6)
        while self.children() and time.monotonic() < deadline:
            time.sleep(0.02)
        self.assertEqual(self.children(), [])
        return process.returncode, stderr

    def test_interrupt(self):
        status, stderr = self.interrupted(signal.SIGINT)
        self.assertEqual(status, 130)
        self.assertTrue(stderr.endswith("interrupted\n"), stderr)
        self.assertNotIn("Traceback", stderr)

    def test_terminate(self):
        self.assertEqual(self.interrupted(signal.SIGTERM)[0], 130)

    def test_kill(self):
        self.assertEqual(self.interrupted(signal.SIGKILL)[0], -signal.SIGKILL)


class Packaged(unittest.TestCase):
    """How haproxy and nginx are started, with a program in their place that needs neither."""

    SCRIPT = r"""
import os, signal, socket, sys
try:
    listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
except OSError as err:
    sys.exit(f"cannot bind: {err}")
signal.pause()
"""

    def start(self, command, port=None):
        cpu = harness.processors()[0]
        return relays.start_packaged("relay", cpu, command, port)

    def listening(self, directory, port):
        self.directories.append(directory)
        return [sys.executable, "-c", self.SCRIPT, str(port)]

    def setUp(self):
        self.directories = []

    def test_a_taken_port(self):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            server = self.start(self.listening, port)
            try:
                self.assertNotIn(f":{port}", server.address)
                host, chosen = server.address.removeprefix("tcp://").split(":")
                socket.create_connection((host, int(chosen)), timeout=5).close()
            finally:
                server.stop()
        self.assertEqual(len(self.directories), 2)
        self.assertFalse(any(map(os.path.exists, self.directories)))

    def test_a_program_that_ends_or_is_missing(self):
        for command, reason in ((["false"], "ended with status 1"), (["/nonexistent/relay"], "No such file")):
            with self.subTest(command=command), self.assertRaisesRegex(harness.Unavailable, reason):
                self.start(lambda directory, _port, command=command: self.directories.append(directory) or command)
        self.assertFalse(any(map(os.path.exists, self.directories)))

    def test_not_installed(self):
        with self.assertRaisesRegex(harness.Unavailable, "make bench-setup"):
            relays.find("no-such-relay-here")


class Charts(unittest.TestCase):
    def test_what_is_no_result(self):
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            for content in ("", "[]", '{"cells": 1}', '{"cells": [{"kind": "echo"}], "environment": {}}'):
                file.seek(0)
                file.truncate()
                file.write(content)
                file.flush()
                with self.subTest(content=content):
                    result = subprocess.run([sys.executable, os.path.join(HERE, "charts.py"), file.name], timeout=60,
                                            capture_output=True, text=True, check=False)
                    self.assertEqual(result.returncode, 1)
                    self.assertRegex(result.stderr, r"\Acharts.py: [^\n]+\n\Z")


class Demo(Runs):
    def demo(self, fault=""):
        return self.script("demo.py", "--slice-ms", "20", fault=fault)

    def test_both(self):
        result = self.demo()
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("chose io_uring: the best that works here", result.stdout)
        self.assertRegex(result.stdout, r"(?m)^io_uring +\d+ +\d+ +\d+ +\d+ +1\.5\d\d$")
        self.assertRegex(result.stdout, r"(?m)^epoll +\d+")
        self.assertIn("io_uring answers", result.stdout)

    def test_io_uring_refused(self):
        result = self.demo(fault="refused")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("chose epoll: io_uring is refused: EPERM", result.stdout)
        self.assertNotRegex(result.stdout, r"(?m)^io_uring ")

    def test_failures_are_told(self):
        for fault, message in (("dies", "out of luck"), ("wrong", "came back as"), ("status", "ended with status 3")):
            with self.subTest(fault=fault):
                result = self.demo(fault=fault)
                self.assertEqual(result.returncode, 1)
                self.assertIn(message, result.stderr)
                self.assertNotIn("Traceback", result.stderr)

    def test_not_built(self):
        os.unlink(self.echo)
        result = self.demo()
        self.assertEqual(result.returncode, 1)
        self.assertIn("make release", result.stderr)


class IdleMemory(Runs):
    def test_table(self):
        result = self.script("idle_memory.py", "--connections", "200")
        if result.returncode != 0:  # as where the kernel refuses io_uring
            self.assertRegex(result.stderr, r"\Araw-io_uring: [^\n]*\n\Z")
        for name in ("gyre-io_uring", "gyre-epoll", "raw-epoll"):
            self.assertRegex(result.stdout, rf"(?m)^{name} +\d+ +\d+ +-?\d+ +-?\d+$")

    def test_server_that_dies(self):
        result = self.script("idle_memory.py", "--connections", "200", fault="dies")
        self.assertEqual(result.returncode, 1)
        self.assertIn("gyre-epoll: ended with status 1: echo: out of luck", result.stderr)
        self.assertIn("gyre-io_uring", result.stdout)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    BUILD = sys.argv.pop(1)
    unittest.main()
