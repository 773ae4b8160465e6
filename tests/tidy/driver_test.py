# SPDX-License-Identifier: MIT
"""scripts/test.py counts right: what it makes of the reports of ctest and Criterion, the bad ones above all."""

import contextlib
import importlib.util
import io
import tempfile
import xml.etree.ElementTree as xml
from pathlib import Path

CASE = '<testcase name="a" status="{}"/>'
GOOD, BAD = '<testcase name="x" status="run"/>', '<testcase name="x" status="fail"><failure message="1"/></testcase>'
SKIPPED = '<testcase name="x" status="notrun"><skipped message="SKIP_RETURN_CODE=77"/></testcase>'
NOT_FOUND = '<testcase name="x" status="notrun"><skipped message="Unable to find executable"/></testcase>'

# name, the line of ctest's report, the statuses in Criterion's report (None: there is none; "": it is cut short), and
# how many passed, failed and skipped
CASES = [
    ("a plain program", GOOD, None, (1, 0, 0)),
    ("a plain program that fails", BAD, None, (0, 1, 0)),
    ("a plain program that skips", SKIPPED, None, (0, 0, 1)),
    ("a program that is not there", NOT_FOUND, None, (0, 1, 0)),
    ("a suite", GOOD, ["PASSED", "PASSED", "SKIPPED"], (2, 0, 1)),
    ("a suite with a failure and a crash", BAD, ["PASSED", "FAILED", "ERRORED"], (1, 2, 0)),
    ("a suite that leaks at exit", BAD, ["PASSED", "PASSED"], (2, 1, 0)),
    ("a suite that crashes before its report", BAD, None, (0, 1, 0)),
    ("a suite whose report is cut short", GOOD, "", (0, 1, 0)),
    ("a suite that dies while it reports", BAD, "", (0, 1, 0)),
    ("a status nobody knows", GOOD, ["PASSED", "PUZZLED"], (1, 1, 0)),
]


def load(root):
    spec = importlib.util.spec_from_file_location("test_driver", Path(root, "scripts/test.py"))
    driver = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(driver)
    return driver


def count(driver, line, statuses):
    with tempfile.TemporaryDirectory() as folder:
        if statuses is not None:
            body = "".join(CASE.format(status) for status in statuses)
            end = f'<testsuite name="s">{body}</testsuite></testsuites>' if statuses else ""
            Path(folder, "x.xml").write_text(f"<testsuites>{end}", encoding="utf-8")
        tally = driver.Tally()
        driver.ctest_case(xml.fromstring(line), Path(folder), driver.STAGES[0], tally)
        return tally.passed, tally.failed, len(tally.skipped)


def count_left_out(driver):
    """What is counted of a report with three cases, when the stage leaves the suite out that two of them belong to."""
    with tempfile.TemporaryDirectory() as folder:
        text = "".join(f'<testsuite name="{suite}">{cases}</testsuite>' for suite, cases in (
            ("s", CASE.format("SKIPPED") + CASE.format("SKIPPED")), ("t", CASE.format("PASSED"))))
        Path(folder, "x.xml").write_text(f"<testsuites>{text}</testsuites>", encoding="utf-8")
        tally = driver.Tally()
        driver.ctest_case(xml.fromstring(GOOD), Path(folder), driver.Stage("dev", "", without=("s",)), tally)
        return tally.passed, tally.failed, len(tally.skipped)


def count_sanitizers(driver, failed, files):
    """How many more failures there are when sanitizers have left these files."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        for name in files:
            Path(folder, name).write_text("" if name.endswith(".empty") else "a leak", encoding="utf-8")
        tally = driver.Tally(failures=list(failed))
        driver.sanitizer_reports(Path(folder), driver.STAGES[0], tally)
        return tally.failed


def run(root, verdict):
    """A verdict for each case."""
    driver = load(root)
    for failed, files, expected in (([], [], 0), ([], ["sanitizer.worker.1", "sanitizer.worker.2", "unit.xml"], 2),
                                    ([], ["sanitizer.load.empty"], 0),
                                    (["dev: stress_a"], ["sanitizer.stress_a.1", "sanitizer.stress_b.1"], 1)):
        yield verdict(f"scripts/test.py: sanitizers: {files}", [] if count_sanitizers(driver, failed, files) == expected
                      else files, None)
    got = count_left_out(driver)
    yield verdict(f"scripts/test.py: a suite that is left out: {got} counted", [] if got == (1, 0, 0) else [got], None)
    for name, line, statuses, expected in CASES:
        got = count(driver, line, statuses)
        yield verdict(f"scripts/test.py: {name}: {expected} expected, {got} counted", [] if got == expected else [got],
                      None)
