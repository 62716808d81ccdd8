"""A throwaway Postgres cluster: made, started, stopped, crashed and removed by the tests, the demo and the bench."""

import contextlib
import os
import pathlib
import pwd
import re
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time

import psycopg2

PG_CONFIG = os.environ.get("PG_CONFIG", "pg_config")
BINDIR = pathlib.Path(subprocess.check_output([PG_CONFIG, "--bindir"], text=True).strip())
MAJOR = int(re.search(r" (\d+)", subprocess.check_output([PG_CONFIG, "--version"], text=True))[1])
# A server that lies anywhere has a libpq of its own, which its walreceiver and dblink do not find by themselves.
os.environ["LD_LIBRARY_PATH"] = subprocess.check_output([PG_CONFIG, "--libdir"], text=True).strip()


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def until(condition, what, timeout=15):
    """Waits for what nobody announces; returns what the condition found."""
    end = time.monotonic() + timeout
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < end, f"never came to pass: {what}"
        time.sleep(0.01)


def as_server_user(command):
    """The server refuses root: as root, everything of it runs as the system user postgres."""
    if os.geteuid() != 0:
        return command
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", *command]


class Cluster:
    # What the tests do with a cluster's files, and with a database of it, before they go.
    before_removal = staticmethod(lambda cluster: None)
    before_drop = staticmethod(lambda cluster, database: None)

    def __init__(self, settings=None, preload=True, environment=None, bindir=BINDIR, initdb=()):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="otp_gateway_", dir="/tmp"))
        self.data = self.directory / "data"
        self.logfile = self.directory / "server.log"
        self.port = free_port()
        self.preload = preload
        self.settings = settings or {}
        self.environment = environment or {}
        self.bindir, self.initdb = bindir, initdb

    # making and removing

    def create(self):
        if os.geteuid() == 0:
            user = pwd.getpwnam("postgres")
            os.chown(self.directory, user.pw_uid, user.pw_gid)
        self.directory.chmod(0o755)
        self.run("initdb", "-D", self.data, "-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C", *self.initdb)
        self.configure(
            {
                "port": self.port,
                "listen_addresses": "''",
                "unix_socket_directories": f"'{self.directory}'",
                "max_connections": 300,
                "max_worker_processes": 32,
                "autovacuum_naptime": "1d",
                # The tests search all of it.
                "wal_keep_size": "16GB",
                "logging_collector": "off",
                **({"shared_preload_libraries": "'otp_gateway'"} if self.preload else {}),
                **self.settings,
            }
        )
        return self

    def configure(self, settings):
        lines = "".join(f"{name} = {value}\n" for name, value in settings.items())
        with (self.data / "postgresql.conf").open("a") as file:
            file.write(lines)

    def remove(self):
        if (self.data / "postmaster.pid").exists():
            self.stop("immediate", check=False)
        try:
            self.before_removal(self)
        finally:
            shutil.rmtree(self.directory, ignore_errors=True)

    def dump(self):
        """A directory for what is written out of it."""
        directory = self.directory / "dump"
        if not directory.exists():
            directory.mkdir(mode=0o777)
            directory.chmod(0o777)
        return directory

    # the server

    def run(self, program, *arguments, check=True):
        done = subprocess.run(
            as_server_user([str(self.bindir / program), *map(str, arguments)]),
            cwd="/",
            # As a service manager starts it: not with the developer's wish for backtraces, which slow every error down.
            env={name: value for name, value in os.environ.items() if not name.startswith("RUST_")} | self.environment,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        if check and done.returncode != 0:
            raise RuntimeError(f"{program} failed:\n{done.stdout}\n{self.log()[-2000:]}")
        return done

    def base_backup(self, primary, *flags):
        """Takes the data directory of a server that runs."""
        at = ("-h", primary.directory, "-p", primary.port, "-U", "postgres")
        self.run("pg_basebackup", "-D", self.data, *flags, "-X", "stream", "-c", "fast", *at)

    def start(self):
        self.run("pg_ctl", "-D", self.data, "-l", self.logfile, "-t", "60", "-w", "start")
        return self

    def stop(self, mode="fast", check=True):
        self.run("pg_ctl", "-D", self.data, "-m", mode, "-t", "60", "-w", "stop", check=check)

    def restart(self, mode="fast"):
        self.stop(mode)
        self.start()

    def reload(self, **options):
        """Returns when every process has been told: the postmaster tells them all before it lets another session in,
        which has from it when the files were read. So a worker that sleeps reads them before whatever comes next."""

        def read_at():
            with self.session(**options) as session, session.cursor() as cursor:
                cursor.execute("SELECT pg_conf_load_time()")
                return cursor.fetchone()

        before = read_at()
        self.run("pg_ctl", "-D", self.data, "reload")
        until(lambda: read_at() != before, "the files are read")

    def postmaster_pid(self):
        return int((self.data / "postmaster.pid").read_text().splitlines()[0])

    def log(self):
        return self.logfile.read_text(errors="replace") if self.logfile.exists() else ""

    # sessions

    def connect(self, dbname="postgres", user="postgres", autocommit=True, **options):
        connection = psycopg2.connect(host=str(self.directory), port=self.port, dbname=dbname, user=user, **options)
        connection.autocommit = autocommit
        return connection

    @contextlib.contextmanager
    def session(self, dbname="postgres", **options):
        connection = self.connect(dbname, **options)
        try:
            yield connection
        finally:
            connection.close()

    def psql(self, dbname, *arguments, script=None):
        """psql's output, standard error included, as a person would see it."""
        return subprocess.run(
            [
                self.bindir / "psql",
                "-X",
                "-h",
                self.directory,
                "-p",
                str(self.port),
                "-U",
                "postgres",
                "-d",
                dbname,
                *arguments,
            ],
            input=script,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ).stdout

    # databases

    @contextlib.contextmanager
    def database(self, extension=True):
        """A database of its own for a test, dropped afterwards."""
        name = f"test_{secrets.token_hex(4)}"
        with self.session() as admin:
            # Copied as files where Postgres lets choose: faster here, and nothing of it is in the WAL.
            how = "STRATEGY file_copy" if admin.server_version >= 150000 else ""
            admin.cursor().execute(f"CREATE DATABASE {name} TEMPLATE template0 {how}")
        try:
            if extension:
                with self.session(name) as session:
                    session.cursor().execute("CREATE EXTENSION otp_gateway")
            yield name
        finally:
            self.before_drop(self, name)
            with self.session() as admin:
                admin.cursor().execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def kill(pid, how=signal.SIGKILL):
    os.kill(pid, how)


def private_kib(pid):
    """What nobody else could use: written pages of private mappings. (Pages of the library's code, and of the
    server's shared memory, count as private, too, while nobody else happens to have touched them.)"""
    kib, is_private = 0, False
    for line in pathlib.Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if mapping := re.match(r"[0-9a-f]+-[0-9a-f]+ (\S{4}) ", line):
            is_private = mapping[1].endswith("p")
        elif is_private and (dirty := re.match(r"Private_Dirty:\s+(\d+) kB", line)):
            kib += int(dirty[1])
    return kib


@contextlib.contextmanager
def copied(bring):
    """Another server, not started: `bring` brings its data directory."""
    copy = Cluster()
    try:
        if os.geteuid() == 0:
            os.chown(copy.directory, *pwd.getpwnam("postgres")[2:4])
        bring(copy)
        copy.configure({"port": copy.port, "unix_socket_directories": f"'{copy.directory}'"})
        yield copy
    finally:
        copy.remove()


@contextlib.contextmanager
def standby_of(primary):
    with copied(lambda standby: standby.base_backup(primary, "-R")) as standby:
        yield standby.start()
