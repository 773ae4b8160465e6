# SPDX-License-Identifier: MIT
"""gyre without a C compiler: an echo over the shared library's functions alone, called through Python's ctypes.

What a binding in any language does. It works because handles are opaque, options may be NULL, and no function of the
interface exists only in a header. Prints "echoed N bytes over BACKEND"; a loop that fell silent is ended by the caller.
"""

import ctypes
import sys
from ctypes import CFUNCTYPE, POINTER, Structure, byref, c_char, c_char_p, c_int, c_int64, c_size_t, c_void_p

LINE = b"a line from Python, outside the tree\n"
CONN_FN = CFUNCTYPE(None, c_void_p)
CLOSE_FN = CFUNCTYPE(None, c_void_p, c_int)


class Handlers(Structure):
    """struct gyre_conn_handlers"""
    _fields_ = [("on_open", CONN_FN), ("on_data", CONN_FN), ("on_drain", CONN_FN), ("on_eof", CONN_FN),
                ("on_timeout", CONN_FN), ("on_close", CLOSE_FN)]


class Report(Structure):
    """struct gyre_backend_report"""
    _fields_ = [("backend", c_char_p), ("reason", c_char * 384), ("features", c_char * 384)]


def declare(lib):
    signatures = {
        "gyre_loop_create_sized": (c_int, [POINTER(c_void_p), c_void_p, c_size_t]),
        "gyre_loop_destroy": (c_int, [c_void_p]),
        "gyre_loop_run": (c_int, [c_void_p]),
        "gyre_loop_stop": (None, [c_void_p]),
        "gyre_loop_backend": (None, [POINTER(Report), c_void_p]),
        "gyre_loop_listen_sized": (c_int, [POINTER(c_void_p), c_void_p, c_char_p, POINTER(Handlers), c_void_p,
                                           c_size_t, c_size_t]),
        "gyre_listener_address": (c_char_p, [c_void_p]),
        "gyre_connect_sized": (c_int, [POINTER(c_void_p), c_void_p, c_char_p, POINTER(Handlers), c_void_p, c_size_t]),
        "gyre_conn_forward": (c_int64, [c_void_p, c_void_p, c_size_t]),
        "gyre_conn_write": (c_int, [c_void_p, c_char_p, c_size_t]),
        "gyre_conn_inbound": (c_size_t, [c_void_p]),
        "gyre_conn_read": (c_size_t, [c_char_p, c_size_t, c_void_p]),
        "gyre_conn_close": (c_int, [c_void_p]),
        "gyre_err_text": (c_char_p, [c_int]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(lib, name)
        function.restype = result
        function.argtypes = arguments


def check(lib, err, what):
    if err != 0:
        sys.exit(f"ctypes: {what}: {lib.gyre_err_text(err).decode()}")


def echo(lib, loop):
    """Listen, connect, send, and collect what comes back."""
    got = bytearray()

    def take(conn):
        room = ctypes.create_string_buffer(lib.gyre_conn_inbound(conn))
        count = lib.gyre_conn_read(room, len(room), conn)
        got.extend(room.raw[:count])
        if len(got) >= len(LINE):
            lib.gyre_conn_close(conn)

    server = Handlers(on_data=CONN_FN(lambda conn: lib.gyre_conn_forward(conn, conn, len(LINE)) and None))
    client = Handlers(on_open=CONN_FN(lambda conn: lib.gyre_conn_write(conn, LINE, len(LINE)) and None),
                      on_data=CONN_FN(take), on_close=CLOSE_FN(lambda conn, err: lib.gyre_loop_stop(loop)))
    listener = c_void_p()
    err = lib.gyre_loop_listen_sized(byref(listener), loop, b"tcp://127.0.0.1:0", byref(server), None, 0, 0)
    check(lib, err, "listen")
    address = lib.gyre_listener_address(listener)
    check(lib, lib.gyre_connect_sized(None, loop, address, byref(client), None, 0), "connect")
    check(lib, lib.gyre_loop_run(loop), "run")
    check(lib, lib.gyre_loop_destroy(loop), "destroy")
    return bytes(got)


def main():
    lib = ctypes.CDLL(sys.argv[1])
    declare(lib)
    loop = c_void_p()
    check(lib, lib.gyre_loop_create_sized(byref(loop), None, 0), "create")
    report = Report()
    lib.gyre_loop_backend(byref(report), loop)
    backend = report.backend.decode()
    got = echo(lib, loop)
    if got != LINE:
        sys.exit(f"ctypes: sent {LINE!r}, got {got!r}")
    print(f"echoed {len(got)} bytes over {backend}")


if __name__ == "__main__":
    main()
