#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Does gyre-scale measure, and does it and scale.py refuse what they cannot do? Usage: test_scale.py DIRECTORY."""
import json
import os
import subprocess
import sys
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
BUILD = "."


def scale(*args):
    return subprocess.run([os.path.join(BUILD, "gyre-scale"), *args], capture_output=True, text=True, timeout=60)


class Program(unittest.TestCase):
    def test_timers(self):
        answer = json.loads(scale("timers", "2000").stdout)
        self.assertEqual(answer["timers"], 2000)
        self.assertTrue(all(answer[key] > 0 for key in ("bytes", "start_ns", "again_ns", "stop_ns", "expire_ns")))

    def test_connections(self):
        for count in (1, 500):
            answer = json.loads(scale("connections", str(count)).stdout)
            self.assertEqual(answer["ends"], 2 * count)
            self.assertGreater(answer["bytes_per_pair"], 0)

    def test_bad_arguments(self):
        for args in ((), ("timers",), ("timers", "0"), ("timers", "-1"), ("timers", "1x"), ("timers", "1000001"),
                     ("connections", "500001"), ("sheep", "5"), ("timers", "5", "6")):
            done = scale(*args)
            self.assertEqual(done.returncode, 2, args)
            self.assertIn("usage:", done.stderr)


class Runner(unittest.TestCase):
    def run_it(self, *args):
        return subprocess.run([sys.executable, os.path.join(HERE, "scale.py"), *args], capture_output=True, text=True,
                              timeout=60)

    def test_bad_arguments(self):
        for args in (("--counts", "0"), ("--counts", "many"), ("--counts", "70000"), ("--timers", "0"),
                     ("--simulated", "500001"), ("--no-such-flag",)):
            done = self.run_it(*args)
            self.assertEqual(done.returncode, 2, args)
            self.assertIn("usage:", done.stderr)

    def test_not_built(self):
        done = self.run_it("--build", "/nonexistent")
        self.assertNotIn(done.returncode, (0, 2))
        self.assertIn("scale.py:", done.stderr)
        self.assertNotIn("Traceback", done.stderr)


if __name__ == "__main__":
    BUILD = sys.argv.pop(1)
    unittest.main(verbosity=2)
