"""`make bench`: what a call costs, as ratios measured side by side, in alternation, in one run: seven pairs, the median, and the
spread. Absolute figures are printed beside them and say more of the machine than of the product. `bench.py start queue`
measures these rows alone; `make bench-scale` the same on a long record.

  session memory    what a session's own memory grows by with its first call
  http              otp_send against one POST by pgsql-http and the INSERT of a row, 1, 16 and 64 sessions; with the
                    statement sent whole each time (simple), and prepared; and 1 session once more with processors that
                    are kept awake: what a wake-up costs is the machine's, and a call wakes four processes or threads
  floor             otp_send against the same record written by the session itself, in two commits and without HTTP;
                    simple and prepared
  find              otp_gateway.find of a number with one verification, against a row by its primary key
  wal               write-ahead log of one immediate send, by LSNs and by pg_waldump
  hot               which share of the updates leaves the indexes alone, 64 sessions
  pg_net            5,000 queued sends drained, against pg_net's 5,000 requests
  places            5,000 queued behind a vendor that takes 50 ms: the share of what max_in_flight 256 allows
  queue             10,000 queued sends drained, against 10,000 immediate sends by 64 sessions
  trigger           an INSERT of 10,000 rows with our trigger, against one with a PL/pgSQL trigger that writes an equal row
  commit            from COMMIT to the request's arrival at the vendor, against the COMMIT itself, idle
  long record       otp_send with 1,000,000 attempts on record, against the same with few
  start             the first call after an end of the worker, with 1,000,000 attempts on record, against the same with 1,000
  open transaction  from COMMIT to a queued send's outcome beside a transaction that is older than 300,000 that were
                    enqueued since, against the same without one
  slow vendor       a vendor that takes 50 ms, 200 sessions, against pg_sleep(0.05) in as many sessions
  idle worker       context switches and queries of the worker in 30 s in which nobody calls

pgsql-http and pg_net come from tests/bench/peers.sh; where they are not installed, their rows say so.
"""

import contextlib
import http.client
import os
import pathlib
import re
import socket
import statistics
import struct
import subprocess
import sys
import threading
import time
import urllib.parse

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "gateway"))

from cluster import BINDIR, Cluster, private_kib  # noqa: E402
from simulator import Simulator  # noqa: E402

ROUNDS = 7
SECONDS = 3
# The statement sent whole each time, as pgbench does by default, and prepared once.
PROTOCOLS = ("simple", "prepared")


def say(text):
    print(text, flush=True)


def hop():
    """Microseconds from one process to another on the other processor, by pipes: mostly the wake-up."""
    times, (to, answers) = 5000, (os.pipe(), os.pipe())
    first, *_, last = sorted(os.sched_getaffinity(0))
    if (other := os.fork()) == 0:
        os.sched_setaffinity(0, {last})
        for _ in range(times):
            os.write(answers[1], os.read(to[0], 1))
        os._exit(0)
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {first})
    began = time.monotonic()
    for _ in range(times):
        os.write(to[1], b"x")
        os.read(answers[0], 1)
    took = time.monotonic() - began
    os.sched_setaffinity(0, before)
    os.waitpid(other, 0)
    for end in (*to, *answers):
        os.close(end)
    return took / times / 2 * 1e6


def in_steps(what, attempts, step):
    """The first and the last number of each step, with a bar that grows."""
    began = time.monotonic()
    for start in range(1, attempts + 1, step):
        end = min(start + step - 1, attempts)
        yield start, end
        done = end / attempts
        left = (time.monotonic() - began) * (1 - done) / done
        bar = f"{what}: {'#' * int(done * 40):40} {end:,} attempts, {left:.0f} s left "
        print(f"\r   {bar}", end="", flush=True)
    print()


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
        self.execute(
            "CREATE SCHEMA floor; CREATE TABLE floor.sent (at timestamptz, mobile bigint, status integer, content text)"
        )
        for table, ours in (
            ("verification", "verification_record"),
            ("attempt", "attempt_record"),
            ("reference", "reference"),
        ):
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

    def rate(self, script, sessions, database="postgres", protocol="prepared"):
        file = HERE / f"{script}.sql"
        if protocol == "simple":
            # Here pgbench puts a variable's text into the statement as it is: it needs the quotes of a literal.
            text = re.sub(r":(url|v|a)\b", r"':\1'", file.read_text())
            file = pathlib.Path(self.cluster.directory) / file.name
            file.write_text(text)
        done = subprocess.run(
            [
                BINDIR / "pgbench",
                "-n",
                "-M",
                protocol,
                "-f",
                file,
                "-c",
                str(sessions),
                "-j",
                "2",
                "-T",
                str(SECONDS),
                "-D",
                f"url={self.simulator.url('ideamart')}/subscription/otp/request",
                "-h",
                self.cluster.directory,
                "-p",
                str(self.cluster.port),
                "-U",
                "postgres",
                database,
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if done.returncode != 0 or "ERROR" in done.stdout:
            raise RuntimeError(done.stdout[-2000:])
        return float(re.search(r"tps = ([0-9.]+)", done.stdout)[1])

    def timed(self, session, statement, times=100):
        """The median of what a statement takes, in milliseconds."""
        took = []
        with session.cursor() as cursor:
            for number in range(times):
                began = time.perf_counter()
                cursor.execute(statement % {"n": number})
                cursor.fetchall()
                took.append((time.perf_counter() - began) * 1000)
        return statistics.median(took)

    def ratio(self, what, script, against, sessions, wanted, protocol="prepared"):
        """The median of the rounds' ratios: each round measures both, one right after the other."""
        pairs = []
        for name in (script, against):
            self.rate(name, sessions, protocol=protocol)  # warms connections and caches
        for number in range(ROUNDS):
            order = (script, against) if number % 2 == 0 else (against, script)
            rates = {name: self.rate(name, sessions, protocol=protocol) for name in order}
            pairs.append((rates[script], rates[against]))
            say(f"   {what}: {rates[script]:.0f}/s against {rates[against]:.0f}/s")
        rates = f"{statistics.median(a for a, _ in pairs):.0f}/s : {statistics.median(b for _, b in pairs):.0f}/s"
        self.note_ratios(what, [a / b for a, b in pairs], wanted, rates)

    def note_ratios(self, what, ratios, wanted, detail="", at_least=True):
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        self.note(what, statistics.median(ratios), wanted, f"{spread}, {detail}" if detail else spread, at_least)

    def not_measured(self, what, why):
        self.rows.append((what, "-", "", "", why))

    def note(self, what, figure, wanted, detail, at_least=True):
        met = figure >= wanted if at_least else figure <= wanted
        self.failed |= not met
        sign = ">=" if at_least else "<="
        self.rows.append((what, f"{figure:.2f}", f"{sign} {wanted:g}", "yes" if met else "NO", detail))

    def immediate(self, sends):
        """Seconds that so many immediate sends by 64 sessions take, connecting aside."""
        return sends / self.rate("send", 64)

    def drained(self, sends, slow=False):
        """Seconds from the COMMIT of so many queued sends to the last one's outcome, by the record."""
        if not slow:
            self.simulator.reset()
            self.simulator.ask("POST", "/logging", {"enabled": False})
        before = self.simulator.count("ideamart", "send")
        ((first,),) = self.execute("SELECT otp_gateway.id_at(clock_timestamp())")
        self.execute("BEGIN")
        self.execute(
            "SELECT count(e.verification_id) FROM generate_series(1, %d) AS n, "
            "otp_enqueue('ideamart', jsonb_build_object('mobile', '077' || lpad(n::text, 7, '0'))) AS e" % sends
        )
        self.execute("COMMIT")
        ((began,),) = self.execute("SELECT clock_timestamp()")
        self.simulator.count("ideamart", "send", atleast=before + sends, wait=120_000)
        # By the index: to look at all of the record would be what is measured.
        while self.execute(
            f"SELECT 1 FROM otp_gateway.verification WHERE id >= '{first}' AND status IN ('queued', 'sending') LIMIT 1"
        ):
            time.sleep(0.01)
        ((ended,),) = self.execute(f"SELECT max(finished_at) FROM otp_gateway.attempt WHERE id >= '{first}'")
        return (ended - began).total_seconds()

    def queue(self):
        sends, ratios = 10_000, []
        for _ in range(ROUNDS):
            drained, immediate = self.drained(sends), self.immediate(sends)
            say(f"   queue: {sends} drained in {drained:.2f} s against {immediate:.2f} s of immediate sends")
            ratios.append(drained / immediate)
        self.note_ratios("queue / immediate, 10,000 sends", ratios, 1.0, at_least=False)

    def http(self):
        if not self.execute("SELECT 1 FROM pg_available_extensions WHERE name = 'http'"):
            return self.not_measured(
                "send / pgsql-http and INSERT", "pgsql-http is not installed: tests/bench/peers.sh"
            )
        self.execute("CREATE EXTENSION IF NOT EXISTS http")
        for protocol in PROTOCOLS:
            for sessions, wanted in ((1, 0.95), (16, 1.6), (64, 2.0)):
                what = f"send / pgsql-http and INSERT, {sessions} session{'s' * (sessions > 1)}, {protocol}"
                self.ratio(what, "send", "http", sessions, wanted, protocol)
        self.http_awake()
        assert self.execute("SELECT DISTINCT status, content::jsonb->>'statusCode' FROM floor.sent") == [(200, "S1000")]

    def http_awake(self):
        what = "send / pgsql-http and INSERT, 1 session, {}, processors awake"
        asleep = hop()
        try:
            qos = open("/dev/cpu_dma_latency", "wb", buffering=0)  # noqa: SIM115
        except OSError as error:
            return self.not_measured(what.format("simple"), f"the kernel's PM QoS: {error}")
        # The kernel keeps to it as long as the file is open.
        with qos:
            qos.write(struct.pack("i", 0))
            say(f"   a wake-up: {asleep:.1f} us, {hop():.1f} us with processors that are kept awake")
            for protocol in PROTOCOLS:
                self.ratio(what.format(protocol), "send", "http", 1, 0.95, protocol)

    def pg_net(self):
        """In a server of its own, in the batches of 200 that it makes by itself."""
        if not self.execute("SELECT 1 FROM pg_available_extensions WHERE name = 'pg_net'"):
            return self.not_measured("pg_net / drain of 5,000", "pg_net is not installed: tests/bench/peers.sh")
        sends, ratios, details = 5000, [], []
        settings = {"shared_preload_libraries": "'pg_net'", "pg_net.database_name": "'postgres'"}
        cluster = Cluster({**settings, "shared_buffers": "'256MB'"}, preload=False).create().start()
        try:
            with cluster.session() as session, session.cursor() as cursor:
                cursor.execute("CREATE EXTENSION pg_net")
                for _ in range(3):
                    theirs = self.drained_by_pg_net(cursor, sends)
                    ours = statistics.median(self.drained(sends) for _ in range(3))
                    say(f"   pg_net: {sends} drained in {ours:.2f} s against {theirs:.2f} s")
                    ratios.append(theirs / ours)
                    details.append(f"{sends / ours:.0f}/s : {sends / theirs:.0f}/s")
        finally:
            cluster.remove()
        self.note_ratios("pg_net / drain of 5,000", ratios, 20, details[-1])

    def drained_by_pg_net(self, cursor, sends):
        cursor.execute("TRUNCATE net._http_response")
        cursor.execute(
            "SELECT count(net.http_post(%s, jsonb_build_object('applicationId', 'APP_001100', 'password', 'secret', 'subscriberId', "
            "'tel:9477' || lpad(n::text, 7, '0'), 'applicationHash', 'abcdefgh'), timeout_milliseconds => 60000)) FROM generate_series(1, %s) AS n",
            (self.simulator.url("ideamart") + "/subscription/otp/request", sends),
        )
        began = time.monotonic()
        while True:
            cursor.execute("SELECT count(*) FROM net._http_response")
            if cursor.fetchone()[0] >= sends:
                return time.monotonic() - began
            time.sleep(0.05)

    def places(self):
        self.simulator.fault("latency", vendor="ideamart", ms=50)
        sends, places = 5000, 256
        # The vendor's timer adds to the 50 ms, which nobody's places can make up for.
        takes = self.vendor_takes()
        ratios = [sends / self.drained(sends, slow=True) / (places / takes) for _ in range(5)]
        self.simulator.clear_faults()
        self.note_ratios(
            "5,000 behind 50 ms / what 256 places allow",
            ratios,
            0.9,
            f"{statistics.median(ratios) * places / takes:.0f}/s, the vendor takes {takes * 1000:.1f} ms",
        )

    def vendor_takes(self):
        """Seconds from a request to its answer, on a connection that is there: the median."""
        url = urllib.parse.urlsplit(self.simulator.url("ideamart"))
        times = []
        with contextlib.closing(http.client.HTTPConnection(url.netloc)) as connection:
            for _ in range(20):
                began = time.monotonic()
                connection.request("POST", f"{url.path}/subscription/otp/request", "{}")
                connection.getresponse().read()
                times.append(time.monotonic() - began)
        return statistics.median(times)

    def find(self):
        """As many look-ups a second as there are of a row by its primary key, or half."""
        self.execute("CREATE TABLE floor.found (number integer PRIMARY KEY, id uuid, status text)")
        self.execute(
            "INSERT INTO floor.found SELECT n, s.verification_id, s.status FROM generate_series(0, 999) AS n, "
            "otp_send('ideamart', jsonb_build_object('mobile', '0779' || lpad(n::text, 6, '0'))) AS s"
        )
        self.execute("ANALYZE")
        rates = [(self.rate("find", 1), self.rate("lookup", 1)) for _ in range(ROUNDS)]
        times = f"{statistics.median(1e6 / a for a, _ in rates):.0f} us : {statistics.median(1e6 / b for _, b in rates):.0f} us"
        self.note_ratios("find / row by primary key, 1 session", [b / a for a, b in rates], 2, times, at_least=False)

    def wal(self):
        """Without full-page images: they are a matter of the checkpoints."""
        sends, per_send, records = 1000, [], []
        send = "SELECT outcome FROM otp_send('ideamart', '{\"mobile\": \"0781%06d\"}')"
        for part in range(3):
            # What comes before the first is a matter of who was here before.
            for number in range(100):
                self.execute(send % (100_000 * part + number))
            ((start,),) = self.execute("SELECT pg_current_wal_insert_lsn()")
            for number in range(sends):
                self.execute(send % (100_000 * part + 1000 + number))
            time.sleep(0.5)
            ((end,),) = self.execute("SELECT pg_current_wal_insert_lsn()")
            dump = subprocess.run(
                [BINDIR / "pg_waldump", "-p", self.cluster.data / "pg_wal", "-s", start, "-e", end],
                stdout=subprocess.PIPE,
                text=True,
            )
            lengths = [int(length) for length in re.findall(r"len \(rec/tot\):\s*(\d+)/", dump.stdout)]
            per_send.append(sum(lengths) / sends)
            records.append(len(lengths) / sends)
        self.note_ratios("write-ahead log of a send, bytes", per_send, 1250, at_least=False)
        self.note_ratios("write-ahead log of a send, records", records, 10, at_least=False)

    def hot(self):
        count = "SELECT relname, n_tup_upd, n_tup_hot_upd FROM pg_stat_all_tables WHERE relname IN ('attempt_record', 'verification_record') ORDER BY 1"
        self.settle_statistics()
        before = self.execute(count)
        for _ in range(3):
            self.rate("send", 64)
        self.settle_statistics()
        for (table, updates, hot), (_, earlier, earlier_hot) in zip(self.execute(count), before):
            share = (hot - earlier_hot) / (updates - earlier)
            self.note(f"updates that are HOT, {table}", share, 0.98, f"{updates - earlier} updates, 64 sessions")

    def settle_statistics(self):
        """The worker tells the statistics once a second at most, and when it does something."""
        for _ in range(3):
            self.execute("SELECT otp_send('ideamart', '{\"mobile\": \"0771234567\"}')")
            time.sleep(1.1)

    def trigger(self):
        for statement in TRIGGERS:
            self.execute(statement)

        def insert(table):
            self.execute("BEGIN")
            began = time.monotonic()
            self.execute(
                f"INSERT INTO {table} (phone) SELECT '077' || lpad(n::text, 7, '0') FROM generate_series(1, 10000) AS n"
            )
            took = time.monotonic() - began
            self.execute("ROLLBACK")
            return took

        insert("with_ours"), insert("with_plain")
        ratios = []
        for _ in range(2 * ROUNDS + 1):
            ours, plain = insert("with_ours"), insert("with_plain")
            say(f"   trigger: 10,000 rows in {ours * 1000:.0f} ms against {plain * 1000:.0f} ms")
            ratios.append(ours / plain)
        self.note(
            "trigger / trigger in PL/pgSQL",
            statistics.median(ratios),
            2.0,
            f"{min(ratios):.2f} to {max(ratios):.2f}",
            at_least=False,
        )

    def commit_to_arrival(self):
        listener = Listener()
        self.execute(
            f"CREATE SERVER near FOREIGN DATA WRAPPER otp_ideamart OPTIONS (base_url '{listener.url}', allow_plain_http 'true')"
        )
        self.execute(
            "CREATE USER MAPPING FOR PUBLIC SERVER near OPTIONS (application_id 'APP_001100', password 'secret')"
        )
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
        self.note(
            "arrival / COMMIT, p50",
            arrival / commit,
            3,
            f"{arrival * 1e6:.0f} us : {commit * 1e6:.0f} us",
            at_least=False,
        )

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
                    cursor.execute(
                        "CREATE USER MAPPING FOR PUBLIC SERVER ideamart OPTIONS (application_id 'A', password 'secret')"
                    )
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
        self.note(
            "start, 1,000,000 attempts / 1,000",
            long / short,
            2,
            f"{long * 1000:.0f} ms : {short * 1000:.0f} ms",
            at_least=False,
        )

    def queued_sends(self, session, sends=200):
        """The median of the seconds that queued sends take, one after the other."""
        times = []
        with session.cursor() as cursor:
            for number in range(sends):
                cursor.execute(
                    "SELECT verification_id FROM otp_enqueue('ideamart', '{\"mobile\": \"076%07d\"}')" % number
                )
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
            "queued send beside an open transaction",
            beside / without,
            1.5,
            f"{beside * 1000:.1f} ms : {without * 1000:.1f} ms",
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
            cursor.execute(
                "CREATE USER MAPPING FOR PUBLIC SERVER ideamart OPTIONS (application_id 'A', password 'secret')"
            )
            cursor.execute("SELECT outcome FROM otp_send('ideamart', '{\"mobile\": \"0771234567\"}')")
            assert cursor.fetchone() == ("sent",)
            yield session

    def session_memory(self):
        """Beside it, what is left of it in a session that has read a view before: much is Postgres' own, for whoever is first
        to call for it."""

        def grown(first="SELECT 1"):
            with self.cluster.session() as session, session.cursor() as cursor:
                # What any session has loaded that has worked with the catalog and with JSON at all.
                cursor.execute("SELECT count(*) FROM pg_class WHERE relname LIKE 'pg\\_%'")
                cursor.execute("SELECT ('{\"mobile\": \"0771234567\"}'::jsonb)->>'mobile'")
                cursor.execute(first)
                pid = session.info.backend_pid
                before = private_kib(pid)
                cursor.execute("SELECT outcome FROM otp_send('ideamart', '{\"mobile\": \"0771234567\"}')")
                return private_kib(pid) - before

        alone = [grown() for _ in range(5)]
        beside = statistics.median(grown("SELECT setting FROM pg_settings WHERE name = 'port'") for _ in range(5))
        what = f"of 5 sessions: {sorted(alone)}; {beside:.0f} after a look at pg_settings"
        self.note("session memory, KiB", statistics.median(alone), 64, what, at_least=False)

    def idle_worker(self):
        worker = "SELECT pid, query_start, xact_start FROM pg_stat_activity WHERE backend_type = 'otp_gateway worker'"
        # What the load before has left to be written down comes within ten seconds after it.
        settled = f"SELECT clock_timestamp() - query_start > interval '12 s' FROM ({worker}) AS w"
        until = time.monotonic() + 60
        while not self.execute(settled)[0][0] and time.monotonic() < until:
            time.sleep(1)
        ((pid, query_start, _),) = self.execute(worker)
        switches = self.switches(pid)
        say("   idle worker: 30 s in which nobody calls")
        time.sleep(30)
        switched = self.switches(pid) - switches
        ((_, later, _),) = self.execute(worker)
        self.note("idle worker, context switches in 30 s", switched, 0, "all threads", at_least=False)
        self.note("idle worker, queries in 30 s", float(later != query_start), 0, "by pg_stat_activity", at_least=False)

    def switches(self, pid):
        status = (task / "status" for task in pathlib.Path(f"/proc/{pid}/task").iterdir())
        return sum(int(count) for file in status for count in re.findall(r"ctxt_switches:\s+(\d+)", file.read_text()))

    def slow_vendor(self):
        self.simulator.fault("latency", vendor="ideamart", ms=50)
        self.ratio("slow vendor / pg_sleep, 200 sessions", "send", "sleep", 200, 0.85)
        self.simulator.clear_faults()

    def floor(self):
        for protocol in PROTOCOLS:
            for sessions, wanted in ((16, 1.6), (64, 2.0)):
                what = f"send / the same record by hand, {sessions} sessions, {protocol}"
                self.ratio(what, "send", "floor", sessions, wanted, protocol)

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
    "session_memory",
    "places",
    "http",
    "floor",
    "find",
    "wal",
    "hot",
    "pg_net",
    "queue",
    "trigger",
    "commit_to_arrival",
    "long_record",
    "start",
    "open_transaction",
    "slow_vendor",
    "idle_worker",
)


def main():
    rows = sys.argv[1:] or ROWS
    if unknown := [row for row in rows if row not in ROWS]:
        sys.exit(f"no row {unknown[0]}: {', '.join(ROWS)}")
    with contextlib.closing(Bench()) as bench:
        return bench.run(rows)


if __name__ == "__main__":
    sys.exit(main())
