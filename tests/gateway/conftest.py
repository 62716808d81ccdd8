"""What every gateway test has: a cluster of its own making, a simulator, a database for each test, and a witness.

The witness is a connection that stays open for the whole run: if the server restarted behind our back (a crash of one
process takes all sessions down), it is dead, and the test that it died in fails.

Every byte that a cluster leaves is searched before it goes (canaries.py): whatever a test sends, misuses or breaks, none of
the numbers, tokens and credentials of its payloads may be at rest afterwards. Where one is, the run ends in an error that
names the file and the test. A test that keeps a number in a table of its own says so: Gateway.keeps_numbers.
"""

import functools
import json
import re
import secrets
import subprocess
import threading
import time

import psycopg2
import psycopg2.extras
import pytest

from canaries import RUN, search
from cluster import BINDIR, MAJOR, Cluster, until
from simulator import Simulator
from vendors import CREDENTIALS, FLOWS, TABLE, VENDORS, wrapper

psycopg2.extras.register_uuid()


# What must be found, or the search is none.
CONTROL = "control" + secrets.token_hex(9)
STARTED = "starting PostgreSQL"


def last_look(cluster):
    """Searches everything that a cluster leaves behind."""
    if not cluster.logfile.exists():
        return
    # With those that a test made just before its cluster.
    canaries = RUN.since((cluster.data / "PG_VERSION").stat().st_mtime - 60)
    canaries.text(STARTED)
    has_control = hasattr(cluster, "control_left")
    if has_control:
        canaries.text(CONTROL)
    hits = search(cluster.directory, canaries)
    found = {hit for hit in hits if STARTED in hit or CONTROL in hit}
    # A cluster of a test's own may have its log in another folder.
    for where in PLACES if has_control else ("/server.log",):
        assert any(where in hit for hit in found), f"the search is blind: nothing found in {where}"
    leaks = [hit for hit in hits if hit not in found]
    assert not leaks, "\n".join([f"{len(leaks)} at rest", *leaks[:100]])


def keep_tables(cluster, database):
    """What a pg_dump of a database that goes would hold of ours, without a tenth of a second for each."""
    # Whatever the test has set for the database.
    settings = "-c statement_timeout=0 -c lock_timeout=0 -c default_transaction_read_only=off -c search_path=pg_catalog"
    with cluster.session(database, options=settings) as session, session.cursor() as cursor:
        # Whoever is left there may hold a lock.
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )
        cursor.execute(
            "SELECT oid::regclass::text, relname FROM pg_class"
            # Also of a version that has its tables beside its views.
            " WHERE relkind = 'r' AND relnamespace IN (to_regnamespace('otp_gateway'), to_regnamespace('otp_gateway_internal'))"
        )
        # Binary: as text, ids and seals have digits in them that are a number by chance.
        for table, name in cursor.fetchall():
            cursor.execute(f"COPY {table} TO '{cluster.dump()}/{database}.{name}' (FORMAT binary)")


# Where the control is to be found, and with it every canary that is there.
PLACES = ("/data/base/", "/data/pg_wal/", "/server.log", "/dump/test_", "/dump/control.sql", "/dump/backup/")


def leave_control(cluster):
    """The control, in each kind of place; a pg_dump and a pg_basebackup of what is there at the end."""
    with cluster.database() as name, cluster.session(name) as session, session.cursor() as cursor:
        cursor.execute(f"CREATE SERVER {CONTROL} FOREIGN DATA WRAPPER otp_sandbox")
        cursor.execute(f"CREATE USER MAPPING FOR PUBLIC SERVER {CONTROL}")
        cursor.execute('SELECT outcome FROM otp_send(%s, \'{"mobile": "+94770000001"}\')', (CONTROL,))
        assert cursor.fetchone() == ("sent",)
        cluster.witness.cursor().execute(f"CREATE TABLE control AS SELECT '{CONTROL}' AS a")
        cursor.execute(f"DO $$ BEGIN RAISE LOG '{CONTROL}'; END $$; CHECKPOINT")
        at = ["-h", cluster.directory, "-p", str(cluster.port), "-U", "postgres"]
        subprocess.run([BINDIR / "pg_dump", *at, "-f", cluster.dump() / "control.sql", name], check=True)
        cluster.control_left = True
        subprocess.run(
            [BINDIR / "pg_basebackup", *at, "-c", "fast", "-X", "none", "-D", cluster.dump() / "backup"], check=True
        )


Cluster.before_removal = staticmethod(last_look)
Cluster.before_drop = staticmethod(keep_tables)


@pytest.fixture(scope="session", autouse=True)
def credential_files():
    yield
    RUN.remove_files()


@pytest.fixture(scope="session")
def simulator_program():
    simulator = Simulator()
    yield simulator
    simulator.stop()


@pytest.fixture
def simulator(simulator_program):
    simulator_program.reset()
    yield simulator_program
    simulator_program.reset()


@pytest.fixture(scope="session")
def shared_cluster():
    # All WAL of the run is there at its end.
    cluster = Cluster({"max_wal_size": "16GB", "checkpoint_timeout": "1d"}).create()
    try:
        cluster.start()
        cluster.witness = cluster.connect()
        yield cluster
        leave_control(cluster)
    finally:
        cluster.remove()


@pytest.fixture
def cluster(shared_cluster):
    yield shared_cluster
    with shared_cluster.witness.cursor() as cursor:
        cursor.execute("SELECT 1")
        assert cursor.fetchone() == (1,), "the server restarted during this test"
    assert "PANIC" not in shared_cluster.log() and "terminated by signal" not in shared_cluster.log()


@pytest.fixture
def own_cluster():
    """For tests that stop, crash or configure the server."""
    cluster = Cluster().create()
    try:
        yield cluster.start()
    finally:
        cluster.remove()


# epoll_wait, as the server calls it: in a main thread that is to die it fails.
MORTAL = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

int epoll_wait(int set, struct epoll_event *events, int most, int timeout) {
    int (*real)(int, struct epoll_event *, int, int) = (int (*)(int, struct epoll_event *, int, int)) dlsym(RTLD_NEXT, "epoll_wait");
    char place[256];
    snprintf(place, sizeof place, "%s/dies.%d", PLACE, getpid());
    if (syscall(SYS_gettid) == getpid() && access(place, F_OK) == 0) {
        errno = EBADF;
        return -1;
    }
    return real(set, events, most, timeout);
}
"""


@pytest.fixture
def mortal_cluster():
    """One in which a process can be made to end by an error when it goes to sleep next."""
    cluster = Cluster()
    library = cluster.directory / "mortal.so"
    compiler = ["cc", "-shared", "-fPIC", f'-DPLACE="{cluster.directory}"', "-o", library, "-xc", "-", "-ldl"]
    subprocess.run(compiler, input=MORTAL, text=True, check=True)
    cluster.environment = {"LD_PRELOAD": str(library)}
    try:
        yield cluster.create().start()
    finally:
        cluster.remove()


def make_fail(cluster, pid):
    """The process ends by an error when it goes to sleep next."""
    (cluster.directory / f"dies.{pid}").touch()


@pytest.fixture
def database(cluster):
    with cluster.database() as name:
        yield name


@pytest.fixture
def gateway(cluster, database, simulator):
    """A database with the extension and a provider of each vendor."""
    with Gateway(cluster, database, simulator) as gateway:
        gateway.create_providers()
        yield gateway


@pytest.fixture(scope="module")
def module_database(shared_cluster):
    with shared_cluster.database() as name:
        yield name


@pytest.fixture
def quick_gateway(cluster, module_database, simulator):
    """A gateway for tests that need no database of their own: emptied and with fresh providers, in one for the module."""
    with Gateway(cluster, module_database, simulator) as gateway:
        for (server,) in gateway.execute("SELECT quote_ident(srvname) FROM pg_foreign_server"):
            gateway.execute(f"DROP SERVER {server} CASCADE")
        gateway.execute(
            "TRUNCATE otp_gateway_internal.attempt_record, otp_gateway_internal.verification_record, otp_gateway_internal.reference"
        )
        gateway.create_providers()
        yield gateway


@functools.cache
def credential_options(vendor):
    """In files: what stands in a user mapping itself is in the catalog, as Postgres does it."""
    return {f"{name}_file": RUN.in_file(value) for name, value in CREDENTIALS[vendor].items()}


class Gateway:
    """A database with the extension, its providers, and a session in it."""

    # Its numbers go into a table of the test's own, where they stand for all to see.
    keeps_numbers = False

    def __init__(self, cluster, database, simulator):
        self.cluster, self.database, self.simulator = cluster, database, simulator
        self.session = None

    def __enter__(self):
        self.session = self.connect()
        return self

    def __exit__(self, *_):
        self.session.close()

    def connect(self, **options):
        return self.cluster.connect(self.database, **options)

    def create_provider(self, name, vendor=None, credentials=None, role="PUBLIC", **options):
        """CREATE SERVER and USER MAPPING, pointed at the simulator; `None` leaves an option out."""
        vendor = vendor or name
        # Tests send to one number several times; those of the cooldown say so.
        ours = {"base_url": self.simulator.url(vendor), "allow_plain_http": "true", "resend_after": "0s"}
        own = TABLE[vendor].options if vendor in TABLE else {}
        options = {**ours, **own, **options}
        self.execute(f"CREATE SERVER {name} FOREIGN DATA WRAPPER {wrapper(vendor)} OPTIONS ({listed(options)})")
        credentials = credential_options(vendor) if credentials is None else credentials
        self.execute(f"CREATE USER MAPPING FOR {role} SERVER {name} OPTIONS ({listed(credentials)})")

    def create_providers(self, **options):
        for vendor in VENDORS:
            self.create_provider(vendor, **options)

    def execute(self, statement, arguments=None, session=None):
        with (session or self.session).cursor() as cursor:
            cursor.execute(statement, arguments)
            return cursor.fetchall() if cursor.description else None

    def row(self, statement, arguments=None, session=None):
        """The one row of a statement, by column name."""
        with (session or self.session).cursor(cursor_factory=psycopg2.extras.RealDictCursor) as cursor:
            cursor.execute(statement, arguments)
            return dict(cursor.fetchone())

    def number(self, vendor="ideamart"):
        """A recipient that nobody has used."""
        return RUN.recipient(FLOWS[vendor]["number"], self.keeps_numbers)

    def send(self, provider="ideamart", to=None, session=None, vendor=None, **payload):
        vendor = vendor or provider
        to = to or self.number(vendor)
        body = {**FLOWS[vendor]["send"](to), **payload}
        return self.row("SELECT * FROM otp_send(%s, %s::jsonb)", (provider, json.dumps(body)), session)

    def enqueue(self, provider="ideamart", to=None, session=None, vendor=None, **payload):
        vendor = vendor or provider
        to = to or self.number(vendor)
        body = {**FLOWS[vendor]["send"](to), **payload}
        return self.row("SELECT * FROM otp_enqueue(%s, %s::jsonb)", (provider, json.dumps(body)), session)

    def enqueue_many(self, count, provider="ideamart", session=None, vendor=None):
        """So many sends in one statement, to numbers of their own: the verifications."""
        vendor = vendor or provider
        recipients = [self.number(vendor) for _ in range(count)]
        RUN.sample(recipients)
        bodies = [json.dumps(FLOWS[vendor]["send"](to)) for to in recipients]
        statement = "SELECT verification_id FROM unnest(%s::text[]) AS t (body), otp_enqueue(%s, body::jsonb)"
        return [id for (id,) in self.execute(statement, (bodies, provider), session)]

    def wait(self, verification_id, timeout="30s", session=None):
        return self.row("SELECT * FROM otp_gateway.wait(%s, %s::interval)", (verification_id, timeout), session)

    def settle(self):
        """What has become of every verification on record, once each has an outcome."""
        ids = self.execute("SELECT id FROM otp_gateway.verification ORDER BY created_at")
        return [self.wait(id) for (id,) in ids]

    def full(self, provider="narrow", vendor="ideamart", **options):
        """A provider whose one place is taken until simulator.release(): what is enqueued there stays queued."""
        self.create_provider(provider, vendor, **{"max_in_flight": "1", "timeout": "60s", **options})
        before = self.simulator.ask("GET", "/held")["held"]
        self.simulator.fault("hold", vendor, "send", times=1)
        row = self.enqueue(provider, vendor=vendor)
        self.simulator.held(before + 1)
        return row

    def drain(self, timeout=30):
        """Lets everything go that a test has left queued or held, so that it does not arrive in the next one."""
        self.simulator.clear_faults()
        left = "SELECT count(*)::int FROM otp_gateway.verification WHERE status IN ('queued', 'sending')"
        until(
            lambda: self.simulator.release() or self.execute(left) == [(0,)], "nothing is queued or in flight", timeout
        )

    def verify(self, verification_id, code, session=None, **payload):
        return self.row(
            "SELECT * FROM otp_verify(%s::uuid, %s, %s::jsonb)",
            (verification_id, RUN.code(code), json.dumps(payload)),
            session,
        )

    def verify_at(self, provider, code, session=None, **payload):
        return self.row(
            "SELECT * FROM otp_verify(%s::text, %s, %s::jsonb)",
            (provider, RUN.code(code), json.dumps(payload)),
            session,
        )

    def attempts(self, verification_id):
        """(operation, outcome) of every attempt, in order."""
        return self.execute(
            "SELECT operation::text, outcome::text FROM otp_gateway.attempt WHERE verification_id = %s ORDER BY id",
            (verification_id,),
        )

    def verification(self, verification_id):
        return self.row(
            "SELECT v.*, coalesce(c.name, v.created_by::text) AS created_by FROM otp_gateway_internal.verification_record AS v"
            " LEFT JOIN otp_gateway_internal.identity AS c ON c.id = v.role_id WHERE v.id = %s",
            (verification_id,),
        )

    def settled(self, attempt_id, timeout=15):
        """The attempt's row once it has an outcome."""
        import time

        end = time.monotonic() + timeout
        while True:
            row = self.row("SELECT * FROM otp_gateway_internal.attempt_record WHERE id = %s", (attempt_id,))
            if row["outcome"] is not None:
                return row
            assert time.monotonic() < end, "the attempt is still in flight"
            time.sleep(0.01)


def listed(options):
    return ", ".join(f"{name} '{value}'" for name, value in options.items() if value is not None)


class Running:
    """A statement under way in a session of its own, so that the test can do something to it meanwhile."""

    def __init__(self, session, statement, arguments=None):
        self.session, self.rows, self.error, self.ended_at = session, None, None, None
        self.thread = threading.Thread(target=self.run, args=(statement, arguments), daemon=True)
        self.thread.start()

    def run(self, statement, arguments):
        try:
            with self.session.cursor(cursor_factory=psycopg2.extras.RealDictCursor) as cursor:
                cursor.execute(statement, arguments)
                self.rows = [dict(row) for row in cursor.fetchall()] if cursor.description else []
        except Exception as error:
            self.error = error
        self.ended_at = time.monotonic()

    def wait(self, timeout=20):
        """Its end, however it ended."""
        self.thread.join(timeout)
        assert not self.thread.is_alive(), "the statement does not come back"
        return self

    def row(self, timeout=20):
        self.wait(timeout)
        if self.error is not None:
            raise self.error
        return self.rows[0]


statistics_at_once = pytest.mark.skipif(MAJOR < 15, reason="before 15 a process collects statistics, and is late")


def complaints(log):
    """The lines of a server log that say that something went wrong."""
    lines = re.findall(r"^.*\b(?:WARNING|ERROR|FATAL|PANIC): .*$", log, re.MULTILINE)
    # Before 15 everybody may, in a new database, and CREATE EXTENSION says so.
    return [line for line in lines if MAJOR >= 15 or "other roles may create functions in schema public" not in line]
