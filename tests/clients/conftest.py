"""A cluster, a simulator, PgBouncer, and the clients as programs that are told what to do."""

import json
import pathlib
import subprocess
import sys
import time

import pytest

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT / "tests/gateway"))

from cluster import Cluster, as_server_user, free_port  # noqa: E402
from simulator import Simulator  # noqa: E402

PLACE = ROOT / "target/clients"
SCHEMA = """
CREATE SCHEMA otp;
CREATE EXTENSION otp_gateway SCHEMA otp;
CREATE ROLE app LOGIN;
GRANT USAGE ON SCHEMA otp TO app;
CREATE SERVER sandbox FOREIGN DATA WRAPPER otp_sandbox;
CREATE SERVER patient FOREIGN DATA WRAPPER otp_sandbox OPTIONS (resend_after '30s');
CREATE SERVER vendor FOREIGN DATA WRAPPER otp_ideamart
  OPTIONS (base_url '{url}', allow_plain_http 'true', resend_after '0s', timeout '60s');
CREATE USER MAPPING FOR PUBLIC SERVER vendor OPTIONS (application_id 'APP_001100', password 'secret');
GRANT USAGE ON FOREIGN SERVER sandbox, patient, vendor TO app;
"""


class Place:
    """Where the clients connect to."""

    def __init__(self, cluster, simulator):
        self.cluster, self.simulator = cluster, simulator
        self.session = cluster.connect(user="app")
        self.bouncers, self.numbers = {}, iter(range(771000000, 772000000))

    def url(self, port=None):
        return f"postgresql://app@127.0.0.1:{port or self.cluster.port}/postgres"

    def number(self):
        return f"0{next(self.numbers)}"

    def rows(self, statement, arguments=None):
        with self.session.cursor() as cursor:
            cursor.execute(statement, arguments)
            return cursor.fetchall()

    def row(self, statement, arguments=None):
        with self.session.cursor() as cursor:
            cursor.execute(statement, arguments)
            return dict(zip([column[0] for column in cursor.description], cursor.fetchone(), strict=True))

    def bouncer(self, mode, size=4):
        """The port of a PgBouncer in that mode, with so many connections to the server."""
        if (mode, size) not in self.bouncers:
            port, directory = free_port(), self.cluster.dump()
            users, configuration = directory / "users.txt", directory / f"{mode}{size}.ini"
            users.write_text('"app" ""\n')
            configuration.write_text(
                f"[databases]\npostgres = host={self.cluster.directory} port={self.cluster.port}\n"
                f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = trust\n"
                f"auth_file = {users}\npool_mode = {mode}\ndefault_pool_size = {size}\n"
            )
            log = open(directory / f"{mode}{size}.log", "w")
            self.bouncers[mode, size] = port, subprocess.Popen(as_server_user(["/usr/sbin/pgbouncer", configuration]), stdout=log, stderr=log)
            self.answers(port)
        return self.bouncers[mode, size][0]

    def answers(self, port):
        import psycopg2

        end = time.monotonic() + 20
        while True:
            try:
                return psycopg2.connect(self.url(port)).close()
            except psycopg2.OperationalError:
                assert time.monotonic() < end, (self.cluster.dump() / "*.log", "PgBouncer does not answer")
                time.sleep(0.02)

    def close(self):
        self.session.close()
        for _, process in self.bouncers.values():
            process.terminate()
            process.wait()


@pytest.fixture(scope="session")
def place():
    cluster, simulator = Cluster({"listen_addresses": "'127.0.0.1'", "otp_gateway.notify": "on"}).create(), Simulator()
    try:
        cluster.start()
        with cluster.session() as admin, admin.cursor() as cursor:
            cursor.execute(SCHEMA.format(url=simulator.url("ideamart")))
        place = Place(cluster, simulator)
        yield place
        place.close()
    finally:
        simulator.stop()
        cluster.remove()


class Refused(Exception):
    """What the client's exception told."""

    def __init__(self, found):
        super().__init__(found["message"])
        self.found = found


class Program:
    def __init__(self, *command):
        self.process = subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def __call__(self, operation, *arguments):
        self.process.stdin.write("\t".join([operation, *arguments]) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, "the client's program has ended"
        answer = json.loads(line)
        if "error" in answer:
            raise Refused(answer["error"])
        return answer["value"]

    def close(self):
        self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


# What has passed, for the table: client to what was found.
PASSED = {}


def pytest_terminal_summary(terminalreporter):
    from table import table

    if PASSED:
        terminalreporter.write_line("\n" + table(PASSED))
