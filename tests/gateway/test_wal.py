"""Promise: a send at one session writes no more write-ahead log than is said here, record by record; what the log costs a server,
its standbys and its archive is no surprise of a new version."""

import collections
import re
import subprocess

from cluster import BINDIR
from conftest import Gateway

SENDS = 200
# Of one send, without images of pages, which are a matter of the checkpoints: the split of an index page now and then is what
# there is beyond whole records.
MOST_RECORDS = 16.2
MOST_BYTES = 2400


def logged(cluster, relations, start, end):
    """What was logged between two places: how many records, and how many bytes, for each kind of record and relation."""
    dump = subprocess.run(
        [BINDIR / "pg_waldump", "-p", cluster.data / "pg_wal", "-s", start, "-e", end],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    records, bytes = collections.Counter(), collections.Counter()
    for line in dump.stdout.splitlines():
        manager, length, what = re.match(r"rmgr: (\S+)\s+len \(rec/tot\):\s*(\d+)/.*?desc: (\w+)", line).groups()
        files = re.findall(r"rel \d+/\d+/(\d+)", line)
        kind = (manager, what, relations.get(int(files[0]), "another") if files else "")
        records[kind] += 1
        bytes[kind] += int(length)
    return records, bytes


def test_a_send(own_cluster, simulator):
    with own_cluster.database() as name, Gateway(own_cluster, name, simulator) as gateway:
        gateway.create_provider("ideamart")
        place = "SELECT pg_current_wal_insert_lsn()::text"
        for _ in range(50):
            gateway.send()
        relations = dict(
            gateway.execute("SELECT pg_relation_filenode(oid)::int, relname::text FROM pg_class WHERE relkind IN ('r', 'i')")
        )
        [(start,)] = gateway.execute(place)
        for _ in range(SENDS):
            assert gateway.send()["outcome"] == "sent"
        # The commit of the last one's outcome may be in no file yet: another one writes it.
        [(end,)] = gateway.execute(place)
        gateway.execute("SELECT pg_switch_wal()")
        records, bytes = logged(own_cluster, relations, start, end)
    table = "\n".join(
        f"{count / SENDS:6.2f} records {bytes[kind] / SENDS:7.1f} bytes  {' '.join(kind)}" for kind, count in records.most_common()
    )
    print(table)
    assert sum(records.values()) / SENDS <= MOST_RECORDS, table
    assert sum(bytes.values()) / SENDS <= MOST_BYTES, table
