"""PgBouncer in front of a cluster: Debian's, started and stopped by a test."""

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import time

from cluster import Cluster, as_server_user, free_port

PROGRAM = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")


class Pooler:
    """To be used in place of a cluster by whoever connects: it has a directory and a port, too."""

    def __init__(self, cluster, users=("postgres",), **settings):
        assert PROGRAM, "pgbouncer is not here: make setup installs it on Debian"
        # Below the cluster's, where every byte is searched in the end: the pooler's log, too.
        self.directory = cluster.directory / f"pooler_{secrets.token_hex(4)}"
        self.port = free_port()
        self.directory.mkdir()
        shutil.chown(self.directory, cluster.data.owner(), cluster.data.group())
        self.logfile = self.directory / "pooler.log"
        (self.directory / "users").write_text("".join(f'"{user}" ""\n' for user in users))
        settings = {
            "unix_socket_dir": self.directory,
            "listen_port": self.port,
            "logfile": self.logfile,
            "auth_type": "trust",
            "auth_file": self.directory / "users",
            "admin_users": "postgres",
            "max_client_conn": 300,
            # All that are there are the test's: the next client gets the one that is free.
            "default_pool_size": 1,
            "min_pool_size": 0,
            **settings,
        }
        lines = "".join(f"{name} = {value}\n" for name, value in settings.items())
        (self.directory / "pooler.ini").write_text(
            f"[databases]\n* = host={cluster.directory} port={cluster.port}\n[pgbouncer]\n{lines}"
        )

    def __enter__(self):
        self.process = subprocess.Popen(
            as_server_user([PROGRAM, "-q", str(self.directory / "pooler.ini")]),
            # The libraries beside a server that lies anywhere are not the pooler's.
            env={name: value for name, value in os.environ.items() if name != "LD_LIBRARY_PATH"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        end = time.monotonic() + 15
        # The socket is there a moment before it listens.
        while not self.listens():
            assert self.process.poll() is None and time.monotonic() < end, self.log()
            time.sleep(0.01)
        return self

    def listens(self):
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(f"{self.directory}/.s.PGSQL.{self.port}") == 0

    def __exit__(self, *_):
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(5)
        self.process.kill()
        self.process.wait()

    def log(self):
        return self.logfile.read_text(errors="replace") if self.logfile.exists() else "it has no log"

    connect = Cluster.connect
    session = Cluster.session
