"""`make soak` (MINUTES=10): what hours of a busy and troubled server would show, sooner. 200 immediate and 200 queued sends
a second with their verifies, while workers and launcher are cancelled and terminated, tables are locked, indexes are built
and the server is restarted in the middle. Draws a line of progress each 10 s, and a table at its end; exits 1 if a promise
is broken: each send arrives at most once and is on record, nobody hangs, and nothing grows with time but the record."""

import collections
import os
import pathlib
import statistics
import sys
import threading
import time

import psycopg2

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "gateway"))

from cluster import Cluster, private_kib  # noqa: E402
from vendor import Vendor  # noqa: E402

MINUTES = float(os.environ.get("MINUTES", "10"))
PER_SECOND = 200
SESSIONS = 64
TIMEOUT = "2s"
# The provider's max_in_flight. The worker keeps as many connections as were in use at once; and has some files of its own.
PLACES = 256
OWN_FILES = 40
# A call that takes longer than any timeout, lock and restart of the soak is one that hangs.
HANGS_AFTER = 30

# What befalls the server: the second of each minute, and what.
TROUBLE = [
    (7, "cancel worker"),
    (14, "lock table"),
    (21, "terminate worker"),
    (33, "index"),
    (45, "terminate launcher"),
    (52, "lock row"),
]


class Rate:
    """Turns at a steady rate, for whoever comes; what was missed by more than a second is not made up for."""

    def __init__(self, per_second, until):
        self.step, self.until = 1 / per_second, until
        self.next, self.lock = time.monotonic(), threading.Lock()

    def turn(self):
        """Waits for one; False when it is over."""
        with self.lock:
            self.next = max(self.next, time.monotonic() - 1)
            mine, self.next = self.next, self.next + self.step
        if mine >= self.until:
            return False
        time.sleep(max(0, mine - time.monotonic()))
        return True


class Soak:
    def __init__(self):
        settings = {
            "autovacuum_naptime": "'10s'",
            "shared_buffers": "'256MB'",
            "max_wal_size": "'4GB'",
            "wal_keep_size": "0",
        }
        self.cluster = Cluster(settings).create().start()
        self.vendor = Vendor(self.cluster.dump() / "arrivals")
        with self.cluster.session() as session, session.cursor() as cursor:
            cursor.execute("CREATE SCHEMA otp; CREATE EXTENSION otp_gateway SCHEMA otp")
            cursor.execute(
                "CREATE SERVER soak FOREIGN DATA WRAPPER otp_ideamart OPTIONS "
                f"(base_url '{self.vendor.url}', allow_plain_http 'true', resend_after '0s', timeout '{TIMEOUT}', "
                f"max_in_flight '{PLACES}')"
            )
            cursor.execute("CREATE USER MAPPING FOR PUBLIC SERVER soak OPTIONS (application_id 'A', password 'secret')")
        self.lock = threading.Lock()
        self.number = 0
        # id: when COMMIT was sent (ns), of those whose COMMIT came back.
        self.committed = {}
        self.answered = collections.Counter()
        self.errors = collections.Counter()
        self.hung = 0
        self.happened = []
        self.samples = []
        self.began = time.monotonic()
        self.ends = self.began + MINUTES * 60

    def close(self):
        self.vendor.stop()
        self.cluster.remove()

    def next_number(self):
        with self.lock:
            self.number += 1
            return f"07{self.number:08d}"

    # those who call

    def caller(self, rate, call):
        """A session that calls at its turn, and comes back after whatever becomes of it."""
        session = None
        while rate.turn():
            began = time.monotonic()
            try:
                if session is None:
                    session = self.cluster.connect(options=f"-c statement_timeout={HANGS_AFTER}s")
                call(session)
            except psycopg2.Error as error:
                with self.lock:
                    self.errors[error.pgcode or "no connection"] += 1
                if session is None or session.closed:
                    session = None
                    time.sleep(0.2)
            if time.monotonic() - began > HANGS_AFTER - 1:
                with self.lock:
                    self.hung += 1
        if session is not None:
            session.close()

    def immediate(self, session):
        with session.cursor() as cursor:
            cursor.execute(
                "SELECT verification_id::text, outcome FROM otp.otp_send('soak', jsonb_build_object('mobile', %s))",
                (self.next_number(),),
            )
            id, outcome = cursor.fetchone()
            self.note("send", outcome, id)
            if outcome == "sent":
                code = "111111" if int(id[-1], 16) % 4 else "222222"
                cursor.execute("SELECT outcome FROM otp.otp_verify(%s::uuid, %s)", (id, code))
                self.note("verify", *cursor.fetchone())

    def queued(self, session):
        session.autocommit = False
        try:
            with session.cursor() as cursor:
                cursor.execute(
                    "SELECT verification_id::text FROM otp.otp_enqueue('soak', jsonb_build_object('mobile', %s))",
                    (self.next_number(),),
                )
                (id,) = cursor.fetchone()
            at = time.monotonic_ns()
            session.commit()
        finally:
            if not session.closed:
                session.rollback()
                session.autocommit = True
        with self.lock:
            self.committed[id] = at
        self.note("enqueue", "committed", id)
        if int(id[-1], 16) % 4 == 0:
            with session.cursor() as cursor:
                cursor.execute("SELECT status FROM otp_gateway.wait(%s::uuid, '10s')", (id,))
                if cursor.fetchone() == ("pending",):
                    cursor.execute("SELECT outcome FROM otp.otp_verify(%s::uuid, '111111')", (id,))
                    self.note("verify", *cursor.fetchone())

    def note(self, what, outcome, id=None):
        with self.lock:
            self.answered[what, outcome] += 1
            if what == "send":
                self.committed.setdefault(id, None)

    # what befalls them

    def trouble(self):
        middle = self.began + MINUTES * 30
        plan = sorted(
            [
                (self.began + minute * 60 + second, what)
                for minute in range(int(MINUTES) + 1)
                for second, what in TROUBLE
            ]
            + [(middle, "restart")]
        )
        for at, what in plan:
            if at > self.ends - 5:
                return
            time.sleep(max(0, at - time.monotonic()))
            try:
                getattr(self, what.replace(" ", "_"))()
                self.happened.append(what)
            except (psycopg2.Error, RuntimeError) as error:
                # On the way of another trouble.
                self.happened.append(f"{what}: {type(error).__name__}")

    def execute(self, *statements):
        with self.cluster.session(options="-c lock_timeout=10s") as session, session.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return cursor.fetchall() if cursor.description else None

    def signal(self, function, process):
        self.execute(f"SELECT {function}(pid) FROM pg_stat_activity WHERE backend_type = 'otp_gateway {process}'")

    def cancel_worker(self):
        self.signal("pg_cancel_backend", "worker")

    def terminate_worker(self):
        self.signal("pg_terminate_backend", "worker")

    def terminate_launcher(self):
        self.signal("pg_terminate_backend", "launcher")

    def hold(self, *statements):
        with (
            self.cluster.session(autocommit=False, options="-c lock_timeout=10s") as session,
            session.cursor() as cursor,
        ):
            for statement in statements:
                cursor.execute(statement)
            time.sleep(1)
            session.rollback()

    def lock_table(self):
        self.hold("LOCK TABLE otp_gateway_internal.attempt_record IN SHARE MODE")

    def lock_row(self):
        self.hold("SELECT FROM otp_gateway_internal.verification_record ORDER BY id DESC LIMIT 5 FOR UPDATE")

    def index(self):
        self.execute(
            "CREATE INDEX soak ON otp_gateway_internal.attempt_record (started_at)",
            "DROP INDEX otp_gateway_internal.soak",
        )

    def restart(self):
        self.cluster.restart()

    # what is looked at

    def arrived(self):
        """The arrivals of each verification, in ns."""
        found = collections.defaultdict(list)
        with open(self.vendor.arrivals) as file:
            for line in file:
                id, at = line.split()
                found[id].append(int(at))
        return found

    def sample(self):
        """What must not grow: of each of our processes, and of the record for each verification in it."""
        found = {}
        processes = self.execute(
            "SELECT backend_type, pid FROM pg_stat_activity WHERE backend_type LIKE 'otp_gateway%'"
        )
        for name, pid in [*processes, ("postmaster", self.cluster.postmaster_pid())]:
            name = name.removeprefix("otp_gateway ")
            found[f"{name}: private memory, KiB"] = private_kib(pid)
            found[f"{name}: file descriptors"] = len(os.listdir(f"/proc/{pid}/fd"))
        ((rows, bytes, xid),) = self.execute("""
            SELECT (SELECT count(*) FROM otp_gateway_internal.verification_record),
                   (SELECT sum(pg_total_relation_size(oid)) FROM pg_class
                    WHERE relkind = 'r' AND relnamespace = 'otp_gateway_internal'::regnamespace),
                   pg_snapshot_xmax(pg_current_snapshot())::text::bigint
        """)
        found["record: bytes for each verification"] = int(bytes / max(rows, 1))
        found["rows"], found["xid"] = rows, xid
        return found

    def progress(self):
        """A line each 10 s; a sample at the end of each minute, so that each is of a worker of the same age."""
        seconds = 0
        while time.monotonic() < self.ends:
            time.sleep(max(0, min(self.began + seconds + 10, self.ends) - time.monotonic()))
            seconds += 10
            try:
                sample = self.sample()
            except (psycopg2.Error, FileNotFoundError, ProcessLookupError) as error:
                print(f"{seconds:5d} s  ({type(error).__name__})", flush=True)
                continue
            if seconds % 60 == 0 or MINUTES < 2:
                self.samples.append(sample)
            with self.lock:
                sends = sum(n for (what, _), n in self.answered.items() if what == "send")
                queued = self.answered["enqueue", "committed"]
                errors, happened, self.happened = sum(self.errors.values()), self.happened, []
            worker = sample.get("worker: private memory, KiB", 0)
            print(
                f"{seconds:5d} s  {sends:7d} sent now  {queued:7d} queued  {sample['rows']:7d} on record  {errors:5d} errors  "
                f"worker {worker:6d} KiB  {', '.join(happened)}",
                flush=True,
            )

    def settle(self):
        """Until nothing is queued or in flight any more, or nobody is at it."""
        left = "SELECT count(*)::int FROM otp_gateway.verification WHERE status IN ('queued', 'sending')"
        for _ in range(600):
            if self.execute(left) == [(0,)]:
                return True
            time.sleep(0.1)
        return False

    # the whole

    def run(self):
        threads = [threading.Thread(target=self.trouble), threading.Thread(target=self.progress)]
        for call in (self.immediate, self.queued):
            rate = Rate(PER_SECOND, self.ends)
            threads += [threading.Thread(target=self.caller, args=(rate, call)) for _ in range(SESSIONS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        settled = self.settle()
        # After the last trouble everything of ours is back.
        time.sleep(2)
        return self.judge(settled)

    def judge(self, settled):
        arrived = self.arrived()
        record = dict(self.execute("SELECT id::text, status::text FROM otp_gateway.verification"))
        in_flight = self.execute("SELECT count(*)::int FROM otp_gateway.attempt WHERE outcome IS NULL")[0][0]
        running = {
            name.removeprefix("otp_gateway ")
            for (name,) in self.execute(
                "SELECT backend_type FROM pg_stat_activity WHERE backend_type LIKE 'otp_gateway%'"
            )
        }
        doubled = sum(len(times) > 1 for times in arrived.values())
        unrecorded = len((set(self.committed) | set(arrived)) - set(record))
        claimed = sum(status in ("pending", "approved") and id not in arrived for id, status in record.items())
        rows = [
            ("sends that arrived", len(arrived), True),
            ("  more than once", doubled, doubled == 0),
            ("  or were promised, and are not on record", unrecorded, unrecorded == 0),
            ("on record as sent, and never arrived", claimed, claimed == 0),
            ("still queued or in flight at the end", in_flight, settled and in_flight == 0),
            ("calls that hung", self.hung, self.hung == 0),
            ("processes of ours at the end", ", ".join(sorted(running)), running == {"launcher", "worker"}),
        ]
        # A soak that does not bear its load shows nothing; a restart takes some of it.
        for what in ("send", "enqueue"):
            per_second = sum(n for (name, _), n in self.answered.items() if name == what) / (MINUTES * 60)
            rows.append((f"{what}: a second", f"{per_second:.0f}", per_second > 0.8 * PER_SECOND))
        rows += [(f"  {what}: {outcome}", count, True) for (what, outcome), count in sorted(self.answered.items())]
        rows += [(f"  error {state}", count, True) for state, count in sorted(self.errors.items())]
        rows += self.latencies(arrived)
        rows += self.growth()
        width = max(len(what) for what, *_ in rows)
        print()
        for what, figure, is_well in rows:
            print(f"{what:<{width}}  {figure!s:>24}  {'' if is_well else 'BROKEN'}".rstrip())
        return 0 if all(is_well for *_, is_well in rows) else 1

    def latencies(self, arrived):
        """From COMMIT to arrival, of the first and of the last tenth, and of all."""
        times = [(at, arrived[id][0]) for id, at in self.committed.items() if at is not None and id in arrived]
        waits = [(committed, (arrival - committed) / 1e6) for committed, arrival in sorted(times)]
        tenth = max(len(waits) // 10, 2)
        for name, some in (("first tenth", waits[:tenth]), ("last tenth", waits[-tenth:]), ("all", waits)):
            some = [wait for _, wait in some]
            if len(some) < 2:
                continue
            cuts = statistics.quantiles(some, n=100)
            # Most of them meet no trouble at all.
            is_well = name != "all" or cuts[49] < 100
            yield (f"from COMMIT to arrival, {name}: p50, p99, ms", f"{cuts[49]:.1f}, {cuts[98]:.1f}", is_well)

    def growth(self):
        """At a tenth and at the end; too short a soak says nothing of it."""
        if len(self.samples) < 3:
            return
        early, before, late = self.samples[0], self.samples[-2], self.samples[-1]
        judged = MINUTES >= 5
        for what in early:
            if what in ("rows", "xid") or what not in late:
                continue
            room = max(2048, early[what] // 4) if "KiB" in what else early[what] // 3
            if "descriptors" in what:
                room = max(10, PLACES + OWN_FILES - early[what])
            is_well = not judged or late[what] <= early[what] + room
            yield (f"{what}: early, at the end", f"{early[what]}, {late[what]}", is_well)
        first, last = (
            (b["xid"] - a["xid"]) / max(b["rows"] - a["rows"], 1) for a, b in ((early, self.samples[1]), (before, late))
        )
        is_well = not judged or last <= first * 1.3
        yield ("transaction ids for each send: early, at the end", f"{first:.2f}, {last:.2f}", is_well)


def main():
    soak = Soak()
    try:
        return soak.run()
    finally:
        soak.close()


sys.exit(main())
