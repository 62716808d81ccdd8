"""`make bench`: what a call costs, as ratios measured side by side, in alternation, in one run. Absolute figures are
printed beside them and say more of the machine than of the product. `bench.py start queue` measures these rows alone.

  send / floor      otp_send against the same record written by the session itself, in two commits and without HTTP
  slow vendor       a vendor that takes 50 ms, 200 sessions, against pg_sleep(0.05) in as many sessions
  session memory    what a session's own memory grows by with its first call
  queue             10,000 queued sends drained, against 10,000 immediate sends by 64 sessions
  trigger           an INSERT of 10,000 rows with our trigger, against one with a PL/pgSQL trigger that writes an equal row
  commit            from COMMIT to the request's arrival at the vendor, against the COMMIT itself, idle
  long record       otp_send with 1,000,000 attempts on record, against the same with few
  start             the first call after an end of the worker, with 1,000,000 attempts on record, against the same with 1,000
  open transaction  from COMMIT to a queued send's outcome beside a transaction that is older than 300,000 that were
                    enqueued since, against the same without one
  idle worker       context switches and queries of the worker in 60 s in which nobody calls
"""

import contextlib
import pathlib
import re
import socket
import statistics
import subprocess
import sys
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "gateway"))

from cluster import BINDIR, Cluster, private_kib  # noqa: E402
from simulator import Simulator  # noqa: E402

ROUNDS = 3
SECONDS = 5


def say(text):
    print(text, flush=True)


class Bench:
    def __init__(self):
        self.simulator = Simulator()
        self.simulator.ask("POST", "/logging", {"enabled": False})
        self.cluster = Cluster({"shared_buffers": "'256MB'", "max_wal_size": "'4GB'"}).create().start()
        self.session = self.cluster.connect()
        self.execute("CREATE EXTENSION otp_gateway")
        url = self.simulator.url("ideamart")
        self.execute(
            "CREATE SERVER ideamart FOREIGN DATA WRAPPER otp_ideamart "
            # pgbench's random numbers meet each other.
            f"OPTIONS (base_url '{url}', allow_plain_http 'true', resend_after '0s')"
        )
        self.execute(
            "CREATE USER MAPPING FOR PUBLIC SERVER ideamart OPTIONS (application_id 'APP_001100', password 'secret')"
        )
        self.execute("SET otp_gateway.max_sends_per_transaction = 1000000")
        self.execute("CREATE SCHEMA floor")
        for table, ours in (("verification", "verification_record"), ("attempt", "attempt_record"), ("reference", "reference")):
            self.execute(f"CREATE TABLE floor.{table} (LIKE otp_gateway_internal.{ours} INCLUDING ALL)")
        self.failed = False
        self.rows = []

    def close(self):
        self.cluster.remove()
        self.simulator.stop()

    def execute(self, statement):
        with self.session.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else None

    def rate(self, script, sessions, database="postgres"):
        done = subprocess.run(
            [
                BINDIR / "pgbench", "-n", "-M", "prepared", "-f", HERE / f"{script}.sql", "-c", str(sessions), "-j", "2",
                "-T", str(SECONDS), "-h", self.cluster.directory, "-p", str(self.cluster.port), "-U", "postgres", database,
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if done.returncode != 0 or "ERROR" in done.stdout:
            raise RuntimeError(done.stdout[-2000:])
        return float(re.search(r"tps = ([0-9.]+)", done.stdout)[1])

    def ratio(self, what, script, against, sessions, wanted):
        """The median of the rounds' ratios: each round measures both, one right after the other."""
        pairs = []
        self.rate(script, sessions)  # warms connections and caches
        for number in range(ROUNDS):
            order = (script, against) if number % 2 == 0 else (against, script)
            rates = {name: self.rate(name, sessions) for name in order}
            pairs.append((rates[script], rates[against]))
            say(f"   {what}: {rates[script]:.0f}/s against {rates[against]:.0f}/s")
        self.note(
            what,
            statistics.median(a / b for a, b in pairs),
            wanted,
            f"{statistics.median(a for a, _ in pairs):.0f}/s : {statistics.median(b for _, b in pairs):.0f}/s",
        )

    def note(self, what, figure, wanted, detail, at_least=True):
        met = figure >= wanted if at_least else figure <= wanted
        self.failed |= not met
        sign = ">=" if at_least else "<="
        self.rows.append((what, f"{figure:.2f}", f"{sign} {wanted:g}", "yes" if met else "NO", detail))

    def immediate(self, sends):
        """Seconds that so many immediate sends by 64 sessions take, connecting aside."""
        return sends / self.rate("send", 64)

    def drained(self, sends):
        """Seconds from the COMMIT of so many queued sends to the last one's outcome."""
        self.simulator.reset()
        self.simulator.ask("POST", "/logging", {"enabled": False})
        self.execute("BEGIN")
        self.execute(
            "SELECT count(e.verification_id) FROM generate_series(1, %d) AS n, "
            "otp_enqueue('ideamart', jsonb_build_object('mobile', '077' || lpad(n::text, 7, '0'))) AS e" % sends
        )
        self.execute("COMMIT")
        began = time.monotonic()
        self.simulator.count("ideamart", "send", atleast=sends, wait=120_000)
        while self.execute("SELECT 1 FROM otp_gateway.verification WHERE status IN ('queued', 'sending') LIMIT 1"):
            time.sleep(0.005)
        return time.monotonic() - began

    def queue(self):
        sends, ratios = 10_000, []
        for _ in range(ROUNDS):
            drained, immediate = self.drained(sends), self.immediate(sends)
            say(f"   queue: {sends} drained in {drained:.2f} s against {immediate:.2f} s of immediate sends")
            ratios.append(drained / immediate)
        self.note("queue / immediate, 10,000 sends", statistics.median(ratios), 1.0, f"{min(ratios):.2f} to {max(ratios):.2f}", at_least=False)

    def trigger(self):
        for statement in TRIGGERS:
            self.execute(statement)

        def insert(table):
            self.execute("BEGIN")
            began = time.monotonic()
            self.execute(f"INSERT INTO {table} (phone) SELECT '077' || lpad(n::text, 7, '0') FROM generate_series(1, 10000) AS n")
            took = time.monotonic() - began
            self.execute("ROLLBACK")
            return took

        insert("with_ours"), insert("with_plain")
        ratios = []
        for _ in range(2 * ROUNDS + 1):
            ours, plain = insert("with_ours"), insert("with_plain")
            say(f"   trigger: 10,000 rows in {ours * 1000:.0f} ms against {plain * 1000:.0f} ms")
            ratios.append(ours / plain)
        self.note("trigger / trigger in PL/pgSQL", statistics.median(ratios), 2.0, f"{min(ratios):.2f} to {max(ratios):.2f}", at_least=False)

    def commit_to_arrival(self):
        listener = Listener()
        self.execute(f"CREATE SERVER near FOREIGN DATA WRAPPER otp_ideamart OPTIONS (base_url '{listener.url}', allow_plain_http 'true')")
        self.execute("CREATE USER MAPPING FOR PUBLIC SERVER near OPTIONS (application_id 'APP_001100', password 'secret')")
        commits, arrivals = [], []
        for number in range(220):
            self.execute("BEGIN")
            self.execute(f"SELECT otp_enqueue('near', '{{\"mobile\": \"078{number:07d}\"}}')")
            began = time.monotonic()
            self.execute("COMMIT")
            commits.append(time.monotonic() - began)
            arrivals.append(listener.arrived() - began)
            time.sleep(0.005)
        commits, arrivals = commits[20:], arrivals[20:]
        listener.close()
        commit, arrival = statistics.median(commits), statistics.median(arrivals)
        self.note("arrival / COMMIT, p50", arrival / commit, 3, f"{arrival * 1e6:.0f} us : {commit * 1e6:.0f} us", at_least=False)

    def long_record(self):
        """In databases of their own, side by side."""
        rates = {}
        with self.cluster.database() as short, self.cluster.database() as long:
            for name in (short, long):
                with self.cluster.session(name) as session, session.cursor() as cursor:
                    url = self.simulator.url("ideamart")
                    cursor.execute(
                        f"CREATE SERVER ideamart FOREIGN DATA WRAPPER otp_ideamart OPTIONS (base_url '{url}', "
                        "allow_plain_http 'true', resend_after '1s', send_limit '100 per day')"
                    )
                    cursor.execute("CREATE USER MAPPING FOR PUBLIC SERVER ideamart OPTIONS (application_id 'A', password 'secret')")
                    if name == long:
                        say("   long record: writing 1,000,000 attempts")
                        cursor.execute(LONG_RECORD)
                    cursor.execute("ANALYZE")
            for number in range(ROUNDS + 1):
                order = (short, long) if number % 2 == 0 else (long, short)
                for name in order:
                    rates.setdefault(name, []).append(self.rate("send", 16, name))
                say(f"   long record: {rates[long][-1]:.0f}/s against {rates[short][-1]:.0f}/s")
            ratio = statistics.median(a / b for a, b in zip(rates[long][1:], rates[short][1:]))
        self.note("send, 1,000,000 attempts / few", ratio, 0.9, "16 sessions")

    def first_call(self, session):
        """Seconds that the first call takes after an end of the worker."""
        with session.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity "
                "WHERE backend_type = 'otp_gateway worker' AND datname = current_database()"
            )
            began = time.monotonic()
            cursor.execute("SELECT outcome FROM otp_send('ideamart', '{\"mobile\": \"0771234567\"}')")
            assert cursor.fetchone() == ("sent",)
            return time.monotonic() - began

    def start(self):
        """In one database, in which the record grows."""
        took = {}
        with self.gateway() as session, session.cursor() as cursor:
            self.first_call(session)
            for before, attempts in ((0, 1000), (1000, 1_000_000)):
                say(f"   start: {attempts:,} attempts on record")
                cursor.execute(RECENT_RECORD, (attempts - before, 4 * 3_600_000))
                cursor.execute("CHECKPOINT")
                took[attempts] = statistics.median(self.first_call(session) for _ in range(2 * ROUNDS + 1))
        long, short = took[1_000_000], took[1000]
        self.note("start, 1,000,000 attempts / 1,000", long / short, 2, f"{long * 1000:.0f} ms : {short * 1000:.0f} ms", at_least=False)

    def queued_sends(self, session, sends=200):
        """The median of the seconds that queued sends take, one after the other."""
        times = []
        with session.cursor() as cursor:
            for number in range(sends):
                cursor.execute("SELECT verification_id FROM otp_enqueue('ideamart', '{\"mobile\": \"076%07d\"}')" % number)
                (verification,) = cursor.fetchone()
                began = time.monotonic()
                cursor.execute("SELECT outcome FROM otp_gateway.wait(%s, '60s')", (verification,))
                assert cursor.fetchone() == ("sent",)
                times.append(time.monotonic() - began)
        return statistics.median(times)

    def open_transaction(self):
        with self.gateway() as session, session.cursor() as cursor:
            with self.cluster.session(autocommit=False) as other:
                other.cursor().execute("SELECT pg_current_xact_id()")
                # As they stand there long since sent: that they were would take minutes.
                say("   open transaction: 300,000 enqueued since")
                cursor.execute(RECENT_RECORD, (300_000, 60_000))
                cursor.execute("CHECKPOINT")
                self.queued_sends(session, 20)
                beside = self.queued_sends(session)
            without = self.queued_sends(session)
        self.note(
            "queued send beside an open transaction", beside / without, 1.5, f"{beside * 1000:.1f} ms : {without * 1000:.1f} ms",
            at_least=False,
        )

    @contextlib.contextmanager
    def gateway(self):
        """A session in a database of its own, with a provider that has been used."""
        with self.cluster.database() as name, self.cluster.session(name) as session, session.cursor() as cursor:
            cursor.execute(
                f"CREATE SERVER ideamart FOREIGN DATA WRAPPER otp_ideamart OPTIONS (base_url '{self.simulator.url('ideamart')}', "
                "allow_plain_http 'true', resend_after '0s')"
            )
            cursor.execute("CREATE USER MAPPING FOR PUBLIC SERVER ideamart OPTIONS (application_id 'A', password 'secret')")
            cursor.execute("SELECT outcome FROM otp_send('ideamart', '{\"mobile\": \"0771234567\"}')")
            assert cursor.fetchone() == ("sent",)
            yield session

    def session_memory(self):
        grown = []
        for number in range(5):
            with self.cluster.session() as session, session.cursor() as cursor:
                # What any session has loaded that has worked with the catalog and with JSON at all.
                cursor.execute("SELECT count(*) FROM pg_class WHERE relname LIKE 'pg\\_%'")
                cursor.execute("SELECT ('{\"mobile\": \"0771234567\"}'::jsonb)->>'mobile'")
                pid = session.info.backend_pid
                before = private_kib(pid)
                cursor.execute("SELECT outcome FROM otp_send('ideamart', '{\"mobile\": \"0771234567\"}')")
                grown.append(private_kib(pid) - before)
        self.note("session memory, KiB", statistics.median(grown), 256, f"of 5 sessions: {sorted(grown)}", at_least=False)

    def idle_worker(self):
        worker = "SELECT pid, query_start, xact_start FROM pg_stat_activity WHERE backend_type = 'otp_gateway worker'"
        (pid, query_start, _), = self.execute(worker)
        switches = self.switches(pid)
        say("   idle worker: 60 s in which nobody calls")
        time.sleep(60)
        switched = self.switches(pid) - switches
        (_, later, _), = self.execute(worker)
        self.note("idle worker, context switches in 60 s", switched, 2, "all threads", at_least=False)
        self.note("idle worker, queries in 60 s", float(later != query_start), 0, "by pg_stat_activity", at_least=False)

    def switches(self, pid):
        status = (task / "status" for task in pathlib.Path(f"/proc/{pid}/task").iterdir())
        return sum(int(count) for file in status for count in re.findall(r"ctxt_switches:\s+(\d+)", file.read_text()))

    def slow_vendor(self):
        self.simulator.fault("latency", vendor="ideamart", ms=50)
        self.ratio("slow vendor / pg_sleep, 200 sessions", "send", "sleep", 200, 0.75)
        self.simulator.clear_faults()

    def floor(self):
        self.ratio("send / floor, 16 sessions", "send", "floor", 16, 1.0)
        self.ratio("send / floor, 64 sessions", "send", "floor", 64, 1.6)

    def run(self, rows):
        for row in rows:
            getattr(self, row)()
        widths = [max(len(row[column]) for row in [*self.rows, HEAD]) for column in range(len(HEAD))]
        say("")
        for row in (HEAD, tuple("-" * width for width in widths), *self.rows):
            say("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
        return 1 if self.failed else 0


# Two days of a busy provider.
LONG_RECORD = """
WITH v AS (
    INSERT INTO otp_gateway_internal.verification_record
           (id, provider, vendor, status, recipient_key, created_by, created_at, send_count, check_count, max_checks, is_test)
    SELECT gen_random_uuid(), 'ideamart', 'ideamart', 'approved', sha256(n::text::bytea), 'postgres', now() - interval '2 days',
           1, 1, 3, false
    FROM generate_series(1, 500000) AS n
    RETURNING id, recipient_key)
INSERT INTO otp_gateway_internal.attempt_record (id, verification_id, operation, outcome, started_at, finished_at, provider, recipient_key)
SELECT gen_random_uuid(), v.id, o.operation, o.outcome, now() - random() * interval '2 days', now(), 'ideamart', v.recipient_key
FROM v, (VALUES ('send', 'sent'), ('verify', 'approved')) AS o (operation, outcome)
"""


# So many queued sends that are over, of so many milliseconds until now; each in the record as the worker leaves it.
RECENT_RECORD = """
WITH one AS MATERIALIZED (
    SELECT n, at, (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '7' || substr(md5(n::text), 1, 19))::uuid AS id
    FROM (SELECT n, now() - n * all_of_it / total AS at
          FROM (SELECT %s AS total, %s * interval '1 millisecond' AS all_of_it) AS t, generate_series(1, total) AS n) AS s
), who AS MATERIALIZED (
    SELECT (SELECT i.id FROM otp_gateway_internal.identity AS i JOIN pg_foreign_server AS s ON s.oid = i.object WHERE s.srvname = 'ideamart')
               AS provider_id,
           (SELECT i.id FROM otp_gateway_internal.identity AS i WHERE i.kind = 'role' AND i.object = current_user::regrole) AS role_id
), v AS (
    INSERT INTO otp_gateway_internal.verification_record (id, provider, vendor, status, recipient_key, created_by, created_at, send_count,
        check_count, max_checks, is_test, provider_id, role_id, enqueued)
    SELECT id, 'ideamart', 'ideamart', 'approved', sha256(n::text::bytea), current_user, at, 1, 1, 3, false, provider_id, role_id,
        pg_current_xact_id()
    FROM one, who
)
INSERT INTO otp_gateway_internal.attempt_record (id, verification_id, operation, outcome, started_at, finished_at, provider, recipient_key,
    provider_id, role_id)
SELECT id, id, 'send', 'sent', at, at, 'ideamart', sha256(n::text::bytea), provider_id, role_id FROM one, who
"""


class Listener:
    """A vendor that notes when a request arrives, and answers as Ideamart does."""

    def __init__(self):
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = "http://127.0.0.1:%d" % self.socket.getsockname()[1]
        self.times, self.here = [], threading.Condition()
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        try:
            while True:
                connection, _ = self.socket.accept()
                threading.Thread(target=self.talk, args=(connection,), daemon=True).start()
        except OSError:
            pass

    def talk(self, connection):
        body = b'{"version":"1.0","statusCode":"S1000","referenceNo":"0123456789","statusDetail":"Success"}'
        answer = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body) + body
        while connection.recv(65536):
            with self.here:
                self.times.append(time.monotonic())
                self.here.notify()
            connection.sendall(answer)

    def arrived(self):
        with self.here:
            assert self.here.wait_for(lambda: self.times, 10), "no request came"
            return self.times.pop()

    def close(self):
        self.socket.close()


# The same table twice, with our trigger and with one that writes an equal row.
TRIGGERS = [
    "CREATE TABLE with_ours (id serial PRIMARY KEY, phone text)",
    "CREATE TABLE with_plain (id serial PRIMARY KEY, phone text)",
    "CREATE TRIGGER send AFTER INSERT ON with_ours FOR EACH ROW "
    """EXECUTE FUNCTION otp_gateway.send_after_commit('ideamart', '{"mobile": "phone"}')""",
    """CREATE FUNCTION floor.queue() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO floor.verification (id, provider, vendor, status, recipient_masked, recipient_key, created_by,
               created_at, send_count, check_count, max_checks, sealed, enqueued)
        VALUES (gen_random_uuid(), 'ideamart', 'ideamart', 'queued', '+94*****' || right(NEW.phone, 4),
               sha256(NEW.phone::bytea), current_user, clock_timestamp(), 0, 0, 3, repeat('sealed: ', 7)::bytea,
               pg_current_xact_id());
        RETURN NULL;
    END $$""",
    "CREATE TRIGGER send AFTER INSERT ON with_plain FOR EACH ROW EXECUTE FUNCTION floor.queue()",
]

HEAD = ("what", "figure", "wanted", "met", "in this run")


# In this order.
ROWS = (
    "session_memory", "floor", "queue", "trigger", "commit_to_arrival", "long_record", "start", "open_transaction", "slow_vendor",
    "idle_worker",
)


def main():
    rows = sys.argv[1:] or ROWS
    if unknown := [row for row in rows if row not in ROWS]:
        sys.exit(f"no row {unknown[0]}: {', '.join(ROWS)}")
    bench = Bench()
    try:
        return bench.run(rows)
    finally:
        bench.close()


sys.exit(main())
