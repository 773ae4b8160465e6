#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Every test there is, in stages, and one line at the end that sums them up: `N passed, N failed`.

With --check it is a selection of them, for people who change gyre: CHECK below.

Each stage is a preset: it is configured, built as far as it needs, and its tests are run with ctest. What counts is
one test case: of a Criterion program each case, read from the report it writes; any other program counts once. A stage
that does not build, or runs nothing, counts as one failure, and the stages after it still run. A program that fails
though none of its cases did counts as one failure too, and so does each report of a sanitizer.

Exits with 0 only if nothing failed.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as xml
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass
class Stage:
    preset: str
    what: str
    targets: list = field(default_factory=list)  # empty: everything
    labels: str = ""  # a regular expression for ctest -L; empty: every test
    names: str = ""  # likewise for ctest -R
    without: tuple = ()  # suites of Criterion's that are left out
    fixed_addresses: bool = False  # without address space randomisation, which old sanitizers trip over
    without_uring: bool = False


STAGES = [
    Stage("dev", "everything, with ASan and UBSan", fixed_addresses=True),
    Stage("tsan", "the stress programs, with TSan", ["tests_stress"], "^stress$", fixed_addresses=True),
    Stage("no-uring", "without liburing", ["tests_portable"], "^portable$", without_uring=True),
    Stage("release", "what users get: installed, and used from outside", ["gyre_product"], "^installed$"),
]

# `make check`: of two presets the suites that see most defects, without what takes longest there.
CHECK = [
    Stage("release", "the public interface, as users get it", ["test_api", "gyre_shared", "gyre_static"],
          names="^(api|tidy_symbols)$", without=("api_sim", "api_cycles")),
    Stage("dev", "units, the promises of backends, and the rules of the house, with ASan and UBSan",
          ["test_unit", "test_contract"], names="^(unit|contract|tidy_([^s]|se|sh|si|st).*)$",
          without=("uring_direct_full",), fixed_addresses=True),
]


@dataclass
class Tally:
    passed: int = 0
    failed: int = 0
    skipped: list = field(default_factory=list)  # names
    failures: list = field(default_factory=list)  # what, in words

    def fail(self, what):
        self.failed += 1
        self.failures.append(what)

    def add(self, other):
        self.passed += other.passed
        self.failed += other.failed
        self.skipped += other.skipped
        self.failures += other.failures


def run(command, env=None):
    """Run a command with its output on ours. Returns whether it succeeded."""
    print("$ " + " ".join(command), flush=True)
    return subprocess.run(command, cwd=ROOT, env=env, check=False).returncode == 0


def build(stage, jobs):
    command = ["cmake", "--build", "--preset", stage.preset, "--parallel", str(jobs)]
    if stage.targets:
        command += ["--target", *stage.targets]
    return run(["cmake", "--preset", stage.preset, "--log-level=WARNING"]) and run(command)


def environment(stage, reports):
    """What the tests see. Sanitizers write to files, for what becomes of a test's process does not tell: Criterion has
    counted a test as passed when its process ends and its leaks are found."""
    env = dict(os.environ)
    for name in ("ASAN_OPTIONS", "TSAN_OPTIONS", "UBSAN_OPTIONS"):
        given = [env[name]] if env.get(name) else []
        env[name] = ":".join([*given, "print_stacktrace=1", f"log_path={reports / 'sanitizer'}", "log_exe_name=1"])
    if stage.without:
        env["CRITERION_TEST_PATTERN"] = f"!({'|'.join(stage.without)})/*"
    required = env.get("GYRE_TEST_REQUIRE")
    if required and stage.without_uring:
        env["GYRE_TEST_REQUIRE"] = ",".join(name for name in required.split(",") if name != "io_uring")
    return env


def unrandomised():
    """The command prefix that turns address space randomisation off; empty where that is not allowed."""
    setarch = shutil.which("setarch")
    if setarch and subprocess.run([setarch, "-R", "true"], capture_output=True, check=False).returncode == 0:
        return [setarch, "-R"]
    return []


def criterion_report(path, program, tally, without=()):
    """Count the cases of one Criterion program. Returns how many failed, or None if it wrote no report. The suites that
    were left out are in the report too, as skipped, and do not count."""
    try:
        suites = xml.parse(path).getroot()
    except (OSError, xml.ParseError):
        return None
    failed = 0
    for suite in suites.iter("testsuite"):
        if suite.get("name") in without:
            continue
        for case in suite.iter("testcase"):
            name = f"{program}: {suite.get('name')}::{case.get('name')}"
            if case.get("status") == "PASSED":
                tally.passed += 1
            elif case.get("status") == "SKIPPED":
                tally.skipped.append(name)
            else:
                tally.fail(name)
                failed += 1
    return failed


def ctest_case(case, reports, stage, tally):
    """Count what one line of ctest's report stands for."""
    name = case.get("name")
    label = f"{stage.preset}: {name}"
    skipped = case.find("skipped")
    good = case.get("status") == "run" and case.find("failure") is None
    report = reports / f"{name}.xml"
    if report.exists():
        failed = criterion_report(report, label, tally, stage.without)
        if not good and not failed:
            tally.fail(f"{label}: no case failed, but the program did")
        if good and failed is None:
            tally.fail(f"{label}: its report does not parse")
    elif good:
        tally.passed += 1
    elif skipped is not None and "SKIP_RETURN_CODE" in skipped.get("message", ""):
        tally.skipped.append(label)
    else:
        tally.fail(label)


def sanitizer_reports(reports, stage, tally):
    """Each file that a sanitizer wrote is one failure, unless it is of a program that counts as failed already, or is
    empty: then the program was killed, as tests of the benchmarks do, and did not come to say anything."""
    for path in sorted(reports.glob("sanitizer.*")):
        if path.stat().st_size == 0:
            print(f"\n-- {path.name}: empty", flush=True)
            continue
        print(f"\n-- {path.name}\n{path.read_text(errors='replace')}", flush=True)
        if f"{stage.preset}: {path.name.split('.')[1]}" not in tally.failures:
            tally.fail(f"{stage.preset}: report of a sanitizer: {path.name}")


def run_stage(stage, jobs):
    print(f"\n== {stage.preset}: {stage.what}", flush=True)
    tally = Tally()
    if not build(stage, jobs):
        tally.fail(f"{stage.preset}: does not build")
        return tally
    directory = ROOT / "build" / stage.preset
    reports = directory / "tests" / "reports"
    shutil.rmtree(reports, ignore_errors=True)
    reports.mkdir(parents=True)
    summary = directory / "ctest.xml"
    summary.unlink(missing_ok=True)
    command = ["ctest", "--test-dir", str(directory), "--output-on-failure", "--output-junit", str(summary),
               "--parallel", str(jobs)]
    if stage.labels:
        command += ["-L", stage.labels]
    if stage.names:
        command += ["-R", stage.names]
    prefix = unrandomised() if stage.fixed_addresses else []
    good = run(prefix + command, environment(stage, reports))
    try:
        cases = list(xml.parse(summary).getroot().iter("testcase"))
    except (OSError, xml.ParseError):
        cases = []
    for case in cases:
        ctest_case(case, reports, stage, tally)
    sanitizer_reports(reports, stage, tally)
    if not cases:
        tally.fail(f"{stage.preset}: no test ran")
    elif not good and tally.failed == 0:
        tally.fail(f"{stage.preset}: ctest failed")
    return tally


def print_names(title, names, most=40):
    if not names:
        return
    print(f"\n{title}:")
    for name in names[:most]:
        print(f"  {name}")
    if len(names) > most:
        print(f"  and {len(names) - most} more")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 2)
    parser.add_argument("--stage", action="append", choices=[stage.preset for stage in STAGES],
                        help="only this one (may be given several times)")
    parser.add_argument("--check", action="store_true", help="a selection of the tests")
    args = parser.parse_args()
    total = Tally()
    lines = []
    for stage in CHECK if args.check else STAGES:
        if args.stage and stage.preset not in args.stage:
            continue
        start = time.monotonic()
        tally = run_stage(stage, args.jobs)
        seconds = time.monotonic() - start
        lines.append(f"{stage.preset:<10} {tally.passed:>7} {tally.failed:>7} {len(tally.skipped):>8} {seconds:>8.0f}")
        total.add(tally)
    print_names("skipped", total.skipped)
    print_names("failed", total.failures)
    print(f"\n{'stage':<10} {'passed':>7} {'failed':>7} {'skipped':>8} {'seconds':>8}")
    print("\n".join(lines))
    print(f"\n{len(total.skipped)} skipped")
    print(f"{total.passed} passed, {total.failed} failed")
    return 1 if total.failed > 0 else 0


if __name__ == "__main__":
    sys.exit(main())
