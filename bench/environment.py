# SPDX-License-Identifier: MIT
"""What a figure depends on, as far as it can be told: machine, kernel, its mitigations, versions, commit."""
import contextlib
import glob
import os
import platform
import re
import subprocess
import time

HERE = os.path.dirname(os.path.abspath(__file__))
VERSION_COMMANDS = {
    "compiler": ["cc", "--version"],
    "haproxy": ["haproxy", "-v"],
    "nginx": ["nginx", "-v"],
}
PKG_CONFIG = {"liburing": "liburing", "libuv": "libuv", "libevent": "libevent_core"}
HEADERS = {  # the version of these is only in their headers
    "libev": ("ev.h", r"EV_VERSION_MAJOR (\d+)", r"EV_VERSION_MINOR (\d+)"),
    "asio": ("asio/version.hpp", r"ASIO_VERSION \d+ // ([\d.]+)"),
}


def _said(command):
    """The first line of what a command says, or None."""
    path = os.environ.get("PATH", "") + ":/usr/sbin"
    try:
        result = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=False, timeout=10,
                                env={**os.environ, "PATH": path, "LC_ALL": "C"})
    except (OSError, subprocess.TimeoutExpired):
        return None
    text = (result.stdout or result.stderr).strip()
    return text.splitlines()[0] if result.returncode == 0 and text else None


def _line_of(path, start=""):
    with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.startswith(start):
                return line.strip()
    return None


def _header_version(name, *patterns):
    with contextlib.suppress(OSError), open(os.path.join("/usr/include", name), encoding="utf-8") as file:
        text = file.read()
        parts = [re.search(pattern, text) for pattern in patterns]
        if all(parts):
            return ".".join(part[1] for part in parts)
    return None


def processor_name():
    line = _line_of("/proc/cpuinfo", "model name")
    return line.split(":", 1)[1].strip() if line else platform.machine()


def mitigations():
    """What the kernel does about the processor's faults: each costs system calls something."""
    found = {os.path.basename(path): _line_of(path) for path in
             glob.glob("/sys/devices/system/cpu/vulnerabilities/*")}
    return {name: text for name, text in sorted(found.items()) if text and text != "Not affected"}


def versions():
    found = {name: _said(command) for name, command in VERSION_COMMANDS.items()}
    found.update((name, _said(["pkg-config", "--modversion", package])) for name, package in PKG_CONFIG.items())
    found.update((name, _header_version(*where)) for name, where in HEADERS.items())
    return {name: version for name, version in found.items() if version}


def environment():
    return {
        "kernel": platform.release(),
        "processor": processor_name(),
        "processors": len(os.sched_getaffinity(0)),
        "mitigations": mitigations(),
        "versions": versions(),
        "load_average": os.getloadavg()[0],
        "revision": _said(["git", "describe", "--always", "--dirty"]) or "unknown",
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
