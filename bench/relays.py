# SPDX-License-Identifier: MIT
"""haproxy and nginx as relays: one thread each, with a configuration of our own in a directory that goes with them.

They cannot be told to take any free port and to say which, so a port is chosen for them; where somebody else takes it
in between, they end at once and another one is tried."""
import os
import shutil
import socket
import tempfile
import time

import harness

ATTEMPTS = 3
NGINX_STREAM = "/usr/lib/nginx/modules/ngx_stream_module.so"

HAPROXY = """\
global
    nbthread 1
    maxconn {connections}
defaults
    mode tcp
    timeout connect 5s
    timeout client 1h
    timeout server 1h
    {options}
listen relay
    bind {host}:{port} backlog 4096
    server backend {backend}
"""

NGINX = """\
{module}
daemon off;
master_process off;
pid {directory}/pid;
error_log stderr error;
worker_rlimit_nofile {descriptors};
events {{
    use epoll;
    multi_accept on;
    worker_connections {descriptors};
}}
stream {{
    access_log off;
    tcp_nodelay on;
    proxy_buffer_size 64k;
    proxy_timeout 1h;
    server {{
        listen {host}:{port} backlog=4096;
        proxy_pass {backend};
    }}
}}
"""

HOST = "127.0.0.1"


def free_port():
    with socket.create_server((HOST, 0)) as listener:
        return listener.getsockname()[1]


def find(program):
    path = shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    if path is None:
        raise harness.Unavailable(f"{program} is not installed: run `make bench-setup`")
    return path


def haproxy(directory, port, backend, connections, splice):
    path = os.path.join(directory, "haproxy.cfg")
    with open(path, "w", encoding="ascii") as file:
        file.write(HAPROXY.format(host=HOST, port=port, backend=backend, connections=connections,
                                  options="option splice-request\n    option splice-response" if splice else ""))
    return [find("haproxy"), "-db", "-q", "-f", path]


def nginx(directory, port, backend, connections):
    path = os.path.join(directory, "nginx.conf")
    module = f"load_module {NGINX_STREAM};" if os.path.exists(NGINX_STREAM) else ""
    with open(path, "w", encoding="ascii") as file:
        file.write(NGINX.format(host=HOST, port=port, backend=backend, descriptors=2 * connections + 64,
                                directory=directory, module=module))
    return [find("nginx"), "-p", directory, "-c", path, "-e", "stderr"]


class Packaged(harness.Server):
    """A server that says nothing when it is ready: its address is the one it was given, and it is ready when somebody
    can connect."""

    def __init__(self, name, cpu, make_command, port=None):
        self._directory = tempfile.TemporaryDirectory(prefix="gyre-bench-")
        self._port = port or free_port()
        try:
            command = make_command(self._directory.name, self._port)
            super().__init__(name, command, cpu)
        except BaseException:
            self._directory.cleanup()
            raise

    def _first_line(self):
        deadline = time.monotonic() + harness.START_SECONDS
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise harness.Unavailable(self.how_it_ended())
            if self._listens():
                return f"listening on tcp://{HOST}:{self._port}"
            time.sleep(0.01)
        raise harness.Unavailable(f"it does not listen after {harness.START_SECONDS} s")

    def _listens(self):
        """Whether it is this very process that listens: another one may have taken the port."""
        inodes = set()
        with open("/proc/net/tcp", encoding="ascii") as file:
            for line in file.readlines()[1:]:
                fields = line.split()
                if fields[3] == "0A" and int(fields[1].rsplit(":", 1)[1], 16) == self._port:
                    inodes.add(f"socket:[{fields[9]}]")
        folder = f"/proc/{self.process.pid}/fd"
        try:
            return any(os.readlink(os.path.join(folder, fd)) in inodes for fd in os.listdir(folder))
        except OSError:  # it is closing some, or ending
            return False

    def stop(self):
        try:
            return super().stop()
        finally:
            self._directory.cleanup()


def start_packaged(name, cpu, make_command, port=None):
    """Tries again on another port where one is taken."""
    for attempt in range(ATTEMPTS):
        try:
            return Packaged(name, cpu, make_command, port)
        except harness.Unavailable as err:
            taken = "ddress already in use" in str(err) or "cannot bind" in str(err)
            if not taken or attempt == ATTEMPTS - 1:
                raise
            port = None


def starters(backend, connections):
    """Name -> function that starts it on a processor. `backend` is where they relay to, HOST:PORT."""
    connections += 64

    def starter(make):
        return lambda name, cpu: start_packaged(name, cpu, make)

    return {
        "haproxy": starter(lambda d, p: haproxy(d, p, backend, connections, False)),
        "haproxy-splice": starter(lambda d, p: haproxy(d, p, backend, connections, True)),
        "nginx": starter(lambda d, p: nginx(d, p, backend, connections)),
    }
