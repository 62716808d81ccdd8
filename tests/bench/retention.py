"""`make bench-retention ROWS=2000000`: one table, from which old attempts are deleted, against partitions by the day, of which old
ones are dropped. The attempts of ninety days are written twice, with the same indexes, and measured side by side:

  a day goes        DELETE and VACUUM of the oldest day, against DROP of its partition: seconds, write-ahead log, and how many
                    times as fast as 500 attempts a second come that is
  by recipient      all attempts of a recipient: one index, against one in each partition
  beside a report   how long a write waits for the oldest day to go while another transaction has read the record

ARCHITECTURE.md, 12, says what was decided by it.
"""

import contextlib
import statistics
import sys
import threading
import time

from bench import Bench, in_steps, say

DAYS = 90
STEP = 50_000
TABLES = ("one", "parts")
FILL = """
INSERT INTO {table} (id, verification_id, operation, outcome, http_status, vendor_code, vendor_message, response, started_at,
    finished_at, recipient_key, provider_id, role_id, account)
SELECT id, id, 'send', 'sent', 200, 'S1000', 'Success',
    jsonb_build_object('version', '1.0', 'statusCode', 'S1000', 'statusDetail', 'Success', 'referenceNo', md5(n::text)),
    at, at + interval '80 ms', sha256((hashint8(n) % ({all} / 2))::text::bytea), 1, 2, sha256('account')
FROM (SELECT n, at, (left(otp_gateway.id_at(at)::text, 15) || substr(md5(n::text), 1, 3) || '-8' || substr(md5(n::text), 4, 3) || '-'
                     || substr(md5(n::text), 7, 12))::uuid AS id
      FROM (SELECT n, current_date - {days} + (n - 0.5) * (interval '1 day' * {days} / {all}) AS at
            FROM generate_series({start}, {end}) AS n) AS t) AS s
"""


class Retention(Bench):
    def __init__(self, attempts):
        super().__init__()
        self.attempts = attempts
        record = "otp_gateway_internal.attempt_record INCLUDING STORAGE INCLUDING INDEXES"
        self.execute(f"CREATE TABLE one (LIKE {record}) WITH (autovacuum_enabled = off)")
        self.execute(f"CREATE TABLE parts (LIKE {record}) PARTITION BY RANGE (id)")
        for day in range(DAYS + 1):
            ((start, end),) = self.execute(
                f"SELECT otp_gateway.id_at(current_date - {DAYS} + {day}), otp_gateway.id_at(current_date - {DAYS} + {day} + 1)"
            )
            self.execute(f"CREATE TABLE part_{day} PARTITION OF parts FOR VALUES FROM ('{start}') TO ('{end}')")

    def fill(self):
        for table in TABLES:
            for start, end in in_steps(f"filling {table}", self.attempts, STEP):
                self.execute(FILL.format(table=table, start=start, end=end, all=self.attempts, days=DAYS))
        self.execute("VACUUM ANALYZE one")
        self.execute("VACUUM ANALYZE parts")

    def cost(self, *statements):
        """Seconds, and bytes of write-ahead log."""
        self.execute("CHECKPOINT")
        ((start,),) = self.execute("SELECT pg_current_wal_insert_lsn()")
        began = time.monotonic()
        for statement in statements:
            self.execute(statement)
        took = time.monotonic() - began
        ((log,),) = self.execute(f"SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '{start}')::float8")
        return took, log

    def a_day_goes(self):
        came, gone = self.attempts / DAYS, {table: [] for table in TABLES}
        for day in range(5):
            say(f"   day {day + 1} of 5 goes")
            ((until,),) = self.execute(f"SELECT otp_gateway.id_at(current_date - {DAYS} + {day} + 1)")
            gone["one"].append(self.cost(f"DELETE FROM one WHERE id < '{until}'", "VACUUM one"))
            gone["parts"].append(self.cost(f"DROP TABLE part_{day}"))
        for table, how in (("one", "DELETE and VACUUM"), ("parts", "DROP")):
            took = statistics.median(took for took, _ in gone[table])
            log = statistics.median(log for _, log in gone[table])
            detail = f"{came:,.0f} attempts in {took:.3f} s, {log / came:.0f} B of write-ahead log each"
            self.note(f"a day goes by {how} / 500 a second come", came / took / 500, 1, detail)

    def by_recipient(self):
        times = {table: [] for table in TABLES}
        for number in range(6):
            for table in TABLES:
                self.execute(
                    f"PREPARE of_{table}_{number} AS SELECT outcome FROM {table} WHERE reason IS NULL AND recipient_key = "
                    f"sha256('{number * 1000}')"
                )
                times[table].append(self.timed(self.session, f"EXECUTE of_{table}_{number}"))
        detail = " : ".join(f"{statistics.median(times[table]) * 1000:.0f} us" for table in reversed(TABLES))
        ratios = [parts / one for parts, one in zip(times["parts"], times["one"])]
        self.note_ratios("by recipient, partitions / one table", ratios, 2, detail, at_least=False)

    def beside_a_report(self):
        write = "INSERT INTO {} (id, verification_id, operation, started_at) SELECT id, id, 'send', now() FROM otp_gateway.id_at(clock_timestamp()) AS id"
        ((until,),) = self.execute(f"SELECT otp_gateway.id_at(current_date - {DAYS} + 6)")
        for table, goes in (("one", f"DELETE FROM one WHERE id < '{until}'"), ("parts", "DROP TABLE part_5")):
            with self.cluster.session(autocommit=False) as report, self.cluster.session() as other:
                report.cursor().execute(f"SELECT count(*) FROM {table} WHERE id < '{until}'")
                going = threading.Thread(target=lambda: other.cursor().execute(goes))
                going.start()
                while going.is_alive() and self.execute("SELECT 1 FROM pg_locks WHERE NOT granted") == []:
                    time.sleep(0.01)
                end_of_report = threading.Timer(5, report.rollback)
                end_of_report.start()
                began = time.monotonic()
                self.execute(write.format(table))
                waited = time.monotonic() - began
                end_of_report.join()
                going.join()
            self.note(
                f"beside a report of 5 s a write waits, {table}, s",
                waited,
                0.1,
                goes.split(" WHERE")[0],
                at_least=False,
            )

    def run(self):
        self.fill()
        self.by_recipient()
        self.a_day_goes()
        self.beside_a_report()
        return super().run(())


def main():
    with contextlib.closing(Retention(int(sys.argv[1]) if len(sys.argv) > 1 else 2_000_000)) as retention:
        return retention.run()


if __name__ == "__main__":
    sys.exit(main())
