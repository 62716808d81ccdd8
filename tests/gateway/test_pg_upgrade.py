"""Promise: pg_upgrade takes everything along, and nothing of ours runs inside it. With the key file brought, what was queued is
sent, what was open is verified, and limits, idempotency keys and find remember; without it every call is an error that names
the file, nothing is sent and nothing lost, and no new key takes its place until somebody says so. The same after pg_dump, but
that nobody sends the queue of a dump.

From other versions to the one of PG_CONFIG; tests/versions.py has their servers (OTP_SERVERS, of them OTP_BUILT) and runs it."""

import json
import os
import pathlib
import re
import shutil
import subprocess

import psycopg2
import pytest

from cluster import BINDIR, MAJOR, PG_CONFIG, Cluster, as_server_user
from conftest import Gateway, until

ROOT = pathlib.Path(__file__).resolve().parents[2]
SERVERS = pathlib.Path(os.environ.get("OTP_SERVERS", "/nowhere"))
# Those that have the same library as this one.
BUILT = map(int, os.environ.get("OTP_BUILT", "").split())
NEWEST = max(map(int, re.findall(r"^pg(\d+) = ", (ROOT / "Cargo.toml").read_text(), re.MULTILINE)))
OLDER = sorted(major for major in BUILT if major < MAJOR)
# 18 made checksums the default; both clusters must agree.
NO_CHECKSUMS = ["--no-data-checksums"] if MAJOR >= 18 else []
KEYED = "SELECT * FROM otp_send('limited', %s::jsonb, 'request-1')"
STARTS = "otp_gateway launcher|otp_gateway worker"

pytestmark = pytest.mark.skipif(not OLDER, reason="tests/versions.py has the older servers")


class Moved:
    """An old cluster with something in every state, and a new one, of another version."""

    def __init__(self, major, simulator):
        # Postgres' own: the names of those who start, so that it shows who starts in pg_upgrade.
        self.simulator, settings = simulator, {"log_min_messages": "debug1"}
        self.old = Cluster(settings, bindir=SERVERS / f"{major}/bin").create()
        self.new = Cluster(settings, initdb=NO_CHECKSUMS).create()

    def fill(self):
        self.old.start()
        with Gateway(self.old, "postgres", self.simulator) as gateway:
            gateway.execute("CREATE DATABASE flows TEMPLATE template0")
        with Gateway(self.old, "flows", self.simulator) as gateway:
            gateway.execute("CREATE EXTENSION otp_gateway")
            gateway.create_providers()
            gateway.create_provider("limited", "ideamart", send_limit="1 per day")
            self.keyed, self.to, self.done = (
                gateway.number(),
                gateway.number("hyperverge"),
                gateway.number("hyperverge"),
            )
            self.first = gateway.row(KEYED, (json.dumps({"mobile": self.keyed}),))
            assert self.first["outcome"] == "sent"
            self.pending = gateway.send("hyperverge", self.to)["verification_id"]
            self.approved = gateway.send("hyperverge", self.done)["verification_id"]
            code = self.simulator.code("hyperverge", self.done)
            assert gateway.verify(self.approved, code)["outcome"] == "approved"
            self.in_flight = gateway.full()["verification_id"]
            self.queued = gateway.enqueue_many(3, "narrow", vendor="ideamart")
            gateway.execute(
                "CREATE TABLE customer (id int PRIMARY KEY, phone text, verification_id uuid);"
                "CREATE TRIGGER send_code BEFORE INSERT OR UPDATE ON customer FOR EACH ROW"
                """ EXECUTE FUNCTION otp_gateway.send_after_commit('narrow', '{"mobile": "phone"}', 'verification_id')"""
            )
        # The call in flight is cut off: nobody can say what became of it.
        self.old.stop("immediate")
        # Recovered, as pg_upgrade demands, by a server without the library: a worker would begin with the queue.
        self.old.configure({"shared_preload_libraries": "''"})
        self.old.start()
        self.old.stop()
        self.old.configure({"shared_preload_libraries": "'otp_gateway'"})
        self.simulator.clear_faults()
        self.simulator.release()
        self.count = self.simulator.count()

    def pg_upgrade(self, mode):
        aside = self.new.dump()
        arguments = ["-b", self.old.bindir, "-B", BINDIR, "-d", self.old.data, "-D", self.new.data, "-U", "postgres"]
        # To copy is the default, and has no name before 16.
        arguments += [mode] if mode != "--copy" else []
        done = subprocess.run(
            as_server_user([str(word) for word in (BINDIR / "pg_upgrade", *arguments, "--retain")]),
            cwd=aside,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        logs = [path for place in (aside, self.new.data) for path in place.rglob("pg_upgrade_*.log")]
        assert done.returncode == 0, done.stdout + "".join(path.read_text(errors="replace")[-2000:] for path in logs)
        # Nothing of ours ran meanwhile.
        text = "".join(path.read_text(errors="replace") for path in logs)
        assert "database system is ready" in text and not re.findall(STARTS, text)
        assert not list(self.new.data.glob("otp_gateway*"))
        assert self.simulator.count() == self.count

    def bring_key(self):
        # The note stays behind: the file is all that is to be brought.
        shutil.copy2(self.old.data / "otp_gateway.key", self.new.data / "otp_gateway.key")
        if os.geteuid() == 0:
            shutil.chown(self.new.data / "otp_gateway.key", "postgres", "postgres")

    def goes_on(self, gateway):
        """With the key."""
        found = lambda: (
            gateway.execute("SELECT count(*)::int FROM otp_gateway.find('hyperverge', %s)", (self.to,)) == [(1,)]
        )
        until(found, "the worker has found the servers and roles again")
        assert gateway.verify(self.pending, self.simulator.code("hyperverge", self.to))["outcome"] == "approved"
        assert gateway.execute("SELECT otp_gateway.is_approved(%s, %s)", (self.approved, self.done)) == [(True,)]
        again = gateway.row(KEYED, (json.dumps({"mobile": self.keyed}),))
        assert again["verification_id"] == self.first["verification_id"]
        blocked = gateway.send("limited", self.keyed, vendor="ideamart")
        assert (blocked["outcome"], blocked["reason"]) == ("blocked", "send_limit")
        assert gateway.wait(self.in_flight)["outcome"] == "unknown"

    def refuses(self, gateway):
        """Without it."""
        for statement in [
            """SELECT otp_send('ideamart', '{"mobile": "0771234567"}')""",
            """SELECT otp_enqueue('ideamart', '{"mobile": "0771234567"}')""",
            f"SELECT otp_verify('{self.pending}', '123456')",
            f"SELECT otp_resend('{self.pending}')",
            "SELECT otp_gateway.find('ideamart', '0771234567')",
            "SELECT otp_gateway.forget('ideamart', '0771234567')",
            "SELECT otp_gateway.rotate_key()",
        ]:
            with pytest.raises(
                psycopg2.errors.ObjectNotInPrerequisiteState, match="was sealed under the key"
            ) as caught:
                gateway.execute(statement)
            assert (
                str(self.new.data / "otp_gateway.key") in str(caught.value)
                and "Add to it" in caught.value.diag.message_hint
            )
        until(lambda: "was sealed under the key" in self.new.log(), "the log says so")
        return caught.value.diag.message_hint

    def remove(self):
        self.new.remove()
        self.old.remove()


@pytest.fixture
def moved(request, simulator):
    moved = Moved(request.param, simulator)
    try:
        moved.fill()
        yield moved
    finally:
        moved.remove()


def pairs(*pairs):
    return pytest.mark.parametrize(
        "moved, mode", pairs, indirect=["moved"], ids=[" ".join(map(str, pair)) for pair in pairs]
    )


# To the newest from each, to others from the one before; copied once.
FROM = OLDER if MAJOR == NEWEST else OLDER[-1:]


@pairs(*((major, "--link") for major in FROM), *((major, "--copy") for major in FROM[:1]))
def test_with_the_key(moved, mode, simulator):
    moved.pg_upgrade(mode)
    moved.bring_key()
    moved.new.start()
    with Gateway(moved.new, "flows", simulator) as gateway:
        moved.goes_on(gateway)
        assert [gateway.wait(id)["outcome"] for id in moved.queued] == ["sent"] * 3
        assert simulator.count() == moved.count + 4
        # The trigger came along.
        gateway.keeps_numbers = True
        [(id,)] = gateway.execute("INSERT INTO customer VALUES (1, %s) RETURNING verification_id", (gateway.number(),))
        assert gateway.wait(id)["outcome"] == "sent"
        # And sends from here, as from anywhere else: what is queued now is this cluster's, too.
        moved.new.restart()


@pairs(*((major, "--copy") for major in FROM[-1:]))
def test_without_the_key(moved, mode, simulator):
    moved.pg_upgrade(mode)
    moved.new.start()
    with Gateway(moved.new, "flows", simulator) as gateway:
        moved.refuses(gateway)
    moved.new.restart()
    with Gateway(moved.new, "flows", simulator) as gateway:
        moved.refuses(gateway)
        statuses = "SELECT DISTINCT status::text FROM otp_gateway_internal.verification_record WHERE id = ANY (%s)"
        assert gateway.execute(statuses, (moved.queued,)) == [("queued",)]
        assert simulator.count() == moved.count
        # One line for each start, and one of what waits.
        lines = re.findall(r"^.*WARNING: .*was sealed under the key.*$", moved.new.log(), re.MULTILINE)
        assert 2 <= len(lines) <= 4, lines
        moved.bring_key()
        moved.goes_on(gateway)
        assert [gateway.wait(id)["outcome"] for id in moved.queued] == ["sent"] * 3
        assert simulator.count() == moved.count + 4


@pairs(*((major, "--copy") for major in FROM[-1:]))
def test_the_key_is_lost_for_good(moved, mode, simulator):
    moved.pg_upgrade(mode)
    moved.new.start()
    with Gateway(moved.new, "flows", simulator) as gateway:
        hint = moved.refuses(gateway)
        [accept] = re.findall(r"DELETE FROM \S+(?=;)", hint)
        gateway.execute(accept)
        assert gateway.send("ideamart")["outcome"] == "sent"
        with pytest.raises(psycopg2.errors.ObjectNotInPrerequisiteState, match="another key"):
            gateway.verify(moved.pending, "123456")
        # They cannot be read any more.
        assert [gateway.wait(id)["status"] for id in moved.queued] == ["failed"] * 3
        new_id = (moved.new.data / "otp_gateway.key_id").read_text().strip()
        assert gateway.execute(accept.replace("DELETE", "SELECT *")) == [(new_id,)]
        assert simulator.count() == moved.count + 1


@pytest.mark.parametrize("moved", OLDER[-1:], indirect=True)
def test_a_dump(moved, simulator):
    """Into a new cluster, with pg_dump of the newer version."""
    moved.old.start()
    # What the old one still had to do.
    with Gateway(moved.old, "flows", simulator) as gateway:
        assert [gateway.wait(id)["outcome"] for id in moved.queued] == ["sent"] * 3
        gateway.full("other")
        queued = gateway.enqueue("other", vendor="ideamart")["verification_id"]
        file = moved.new.dump() / "flows.dump"
        moved.new.run(
            "pg_dump", "-h", moved.old.directory, "-p", moved.old.port, "-U", "postgres", "-Fc", "-f", file, "flows"
        )
        gateway.drain()
    moved.old.stop()
    moved.count = simulator.count()
    moved.new.start()
    with Gateway(moved.new, "postgres", simulator) as gateway:
        gateway.execute("CREATE DATABASE flows TEMPLATE template0")
    at = ["-h", moved.new.directory, "-p", moved.new.port, "-U", "postgres"]
    moved.new.run("pg_restore", *at, "-d", "flows", "--exit-on-error", file)
    with Gateway(moved.new, "flows", simulator) as gateway:
        moved.refuses(gateway)
        moved.bring_key()
        moved.goes_on(gateway)
        assert gateway.wait(queued)["status"] == "failed"
        assert simulator.count() == moved.count + 1
