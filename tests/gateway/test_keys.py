"""Promise: what is sealed is never lost for want of care. A key file that is missing, wrong, damaged or open to others is said
to be so at the start and at each use, and is never replaced in silence; once it is mended, everything goes on. Keys can be
changed at any time, under load too: whatever was sealed opens, and no limit, key or number is forgotten."""

import contextlib
import json
import os
import pathlib
import pwd
import re
import subprocess
import tempfile
import threading

import psycopg2
import pytest

from cluster import Cluster
from conftest import FLOWS, Gateway, until

SEALS = "SELECT id, encode(substr(sealed, 1, 4), 'hex') FROM otp_gateway_internal.verification_record WHERE sealed IS NOT NULL ORDER BY id"


@pytest.fixture
def gateway(own_cluster, simulator):
    with Gateway(own_cluster, "postgres", simulator) as gateway:
        gateway.execute("CREATE EXTENSION otp_gateway")
        gateway.create_providers()
        yield gateway


def key_file(cluster):
    return cluster.data / "otp_gateway.key"


def note(cluster):
    return cluster.data / "otp_gateway.key_id"


def another(key):
    return "".join(f"{15 - int(digit, 16):x}" for digit in key.strip()) + "\n"


def write(path, text, mode=0o600):
    """As the server's system user would."""
    path.write_text(text)
    path.chmod(mode)
    if os.geteuid() == 0:
        user = pwd.getpwnam("postgres")
        os.chown(path, user.pw_uid, user.pw_gid)


def rotate(gateway, session=None):
    return gateway.execute("SELECT otp_gateway.rotate_key()", None, session)[0][0]


# the file


def test_made_on_the_first_start(gateway):
    own_cluster = gateway.cluster
    text = until(lambda: key_file(own_cluster).exists() and key_file(own_cluster).read_text(), "the key is made")
    # It gives way to another file, as long as it has sealed nothing.
    assert not note(own_cluster).exists()
    gateway.send()
    for path in (key_file(own_cluster), note(own_cluster)):
        assert path.stat().st_mode & 0o777 == 0o600
    assert key_file(own_cluster).read_text() == text
    assert re.fullmatch("[0-9a-f]{64}\n", text)
    # The note is no part of the key.
    assert re.fullmatch("[0-9a-f]{8}\n", note(own_cluster).read_text())
    assert note(own_cluster).read_text().strip() not in text
    gateway.session.close()
    own_cluster.restart()
    assert key_file(own_cluster).read_text() == text


REMOVAL = re.compile(r"^rm (/var/lib/postgresql/15/main/.*)$", re.M)


def test_removed_and_installed_anew(gateway):
    """Removal leaves two files, as its page says; who takes the key alone is told of the other one."""
    cluster = gateway.cluster
    named = REMOVAL.search((pathlib.Path(__file__).resolve().parents[2] / "docs" / "operations.md").read_text())[1]
    left = [cluster.data / pathlib.Path(path).name for path in named.split()]
    gateway.send()
    for is_as_the_page_says in (False, True):
        assert all(path.exists() for path in left)
        for (server,) in gateway.execute("SELECT quote_ident(srvname) FROM pg_foreign_server"):
            gateway.execute(f"DROP SERVER {server} CASCADE")
        gateway.execute("DROP EXTENSION otp_gateway")
        gateway.session.close()
        cluster.configure({"shared_preload_libraries": "''"})
        cluster.restart()
        assert [path for path in cluster.data.glob("otp_gateway*") if path not in left] == []
        for path in left if is_as_the_page_says else [key_file(cluster)]:
            path.unlink()
        cluster.configure({"shared_preload_libraries": "'otp_gateway'"})
        cluster.restart()
        gateway.session = gateway.connect()
        gateway.execute("CREATE EXTENSION otp_gateway")
        gateway.create_providers()
        if not is_as_the_page_says:
            with pytest.raises(psycopg2.errors.ObjectNotInPrerequisiteState) as raised:
                gateway.send()
            assert f"remove {note(cluster)} and restart" in raised.value.diag.message_hint
            note(cluster).unlink()
            gateway.session.close()
            cluster.restart()
            gateway.session = gateway.connect()
        assert gateway.send()["outcome"] == "sent"


def test_a_call_at_once_after_the_first_start(gateway, simulator):
    """The server takes connections before the key is made: who comes then waits for it."""
    cluster = gateway.cluster
    for _ in range(5):
        gateway.execute("DELETE FROM otp_gateway_internal.sealing_key")
        gateway.session.close()
        cluster.stop()
        for path in (key_file(cluster), note(cluster)):
            path.unlink(missing_ok=True)
        starting = threading.Thread(target=cluster.start)
        starting.start()
        gateway.session = until(lambda: connected(gateway), "it takes connections")
        assert gateway.send()["outcome"] == "sent"
        starting.join()


def connected(gateway):
    try:
        return gateway.connect()
    except psycopg2.OperationalError:
        return None


# How it is spoilt, and what is said of it.
SPOILT = {
    "missing": (lambda path, good: path.unlink(), "is missing, and no new key is made in its place"),
    "unreadable": (lambda path, good: (path.unlink(), path.mkdir(0o700)), "cannot be read"),
    "world-readable": (lambda path, good: path.chmod(0o644), "may be read or written by others"),
    "group-readable": (lambda path, good: path.chmod(0o640), "may be read or written by others"),
    "world-writable": (lambda path, good: path.chmod(0o602), "may be read or written by others"),
    "damaged": (lambda path, good: write(path, "x" * 64 + "\n"), "is damaged in line 1"),
    "damaged further down": (lambda path, good: write(path, f"{good}\n+{good[1:]}"), "is damaged in line 3"),
    "short": (lambda path, good: write(path, good[:40]), "is damaged in line 1"),
    "empty": (lambda path, good: write(path, ""), "is empty"),
    "not text": (lambda path, good: path.write_bytes(b"\xff\xfe" * 32), "cannot be read"),
    "another cluster's": (lambda path, good: write(path, another(good)), "does not hold the key that sealed last"),
}


@pytest.mark.parametrize("how", list(SPOILT))
def test_a_spoilt_file_is_said_to_be_so(gateway, simulator, how):
    cluster, path = gateway.cluster, key_file(gateway.cluster)
    spoil, words = SPOILT[how]
    to = gateway.number("hyperverge")
    begun = gateway.send("hyperverge", to)["verification_id"]
    good = path.read_text()
    spoil(path, good)
    before = sorted((entry.name, entry.stat().st_ino) for entry in cluster.data.glob("otp_gateway*"))

    def refused():
        for statement in [
            """SELECT otp_send('ideamart', '{"mobile": "0771234567"}')""",
            """SELECT otp_send('ideamart', '{"mobile": "0771234567"}', 'key')""",
            """SELECT otp_enqueue('ideamart', '{"mobile": "0771234567"}')""",
            f"SELECT otp_verify('{begun}', '123456')",
            f"SELECT otp_resend('{begun}')",
            "SELECT otp_gateway.find('ideamart', '0771234567')",
            "SELECT otp_gateway.forget('ideamart', '0771234567')",
            "SELECT otp_gateway.rotate_key()",
        ]:
            with pytest.raises(psycopg2.errors.ObjectNotInPrerequisiteState) as caught:
                gateway.execute(statement)
            said = f"{caught.value.diag.message_primary} {caught.value.diag.message_hint}"
            assert words in said and str(path) in said and "Restore it" in said, (statement, said)
            assert good.strip() not in str(caught.value)

    refused()
    gateway.session.close()
    cluster.restart()
    until(
        lambda: re.search(rf"WARNING: +otp_gateway: otp_gateway.key_file .*{re.escape(words)}", cluster.log()),
        "the log says so",
    )
    assert good.strip() not in cluster.log()
    gateway.session = gateway.connect()
    refused()
    # Nothing was made, and nothing was made of it.
    assert sorted((entry.name, entry.stat().st_ino) for entry in cluster.data.glob("otp_gateway*")) == before
    assert simulator.count() == 1
    if path.is_dir():
        path.rmdir()
    write(path, good)
    assert gateway.verify(begun, simulator.code("hyperverge", to))["outcome"] == "approved"


def test_queued_sends_wait_for_it(gateway, simulator):
    """They are not failed for it: it may be mended."""
    path = key_file(gateway.cluster)
    gateway.full()
    queued = [gateway.enqueue("narrow", vendor="ideamart")["verification_id"] for _ in range(3)]
    good = path.read_text()
    path.unlink()
    simulator.release()
    until(lambda: "is missing" in gateway.cluster.log(), "the log says so")
    assert gateway.execute(
        "SELECT DISTINCT status::text FROM otp_gateway.verification WHERE id = ANY (%s)", (queued,)
    ) == [("queued",)]
    write(path, good)
    assert [gateway.wait(id)["outcome"] for id in queued] == ["sent"] * 3
    assert simulator.count("ideamart", "send") == 4


def test_lost_for_good(gateway, simulator):
    """What the hint says helps: a new key, under which nothing old opens."""
    begun = gateway.send("hyperverge")["verification_id"]
    old = key_file(gateway.cluster).read_text()
    gateway.session.close()
    gateway.cluster.stop()
    key_file(gateway.cluster).unlink()
    note(gateway.cluster).unlink()
    gateway.cluster.start()
    until(lambda: key_file(gateway.cluster).exists(), "a new key is made")
    assert key_file(gateway.cluster).read_text() != old
    gateway.session = gateway.connect()
    # In this database nothing begins anew by itself.
    with pytest.raises(psycopg2.errors.ObjectNotInPrerequisiteState, match="was sealed under the key") as caught:
        gateway.send("ideamart")
    [accept] = re.findall(r"DELETE FROM \S+(?=;)", caught.value.diag.message_hint)
    gateway.execute(accept)
    with pytest.raises(psycopg2.errors.ObjectNotInPrerequisiteState, match="another key"):
        gateway.verify(begun, "123456")
    assert gateway.send("ideamart")["outcome"] == "sent"
    until(
        lambda: (
            "1 open verifications are sealed under a key that otp_gateway.key_file does not hold"
            in gateway.cluster.log()
        ),
        "the log says so",
    )


def test_elsewhere_than_the_data(simulator, tmp_path):
    """The note lies with the data: a path to nowhere is no first start."""
    cluster = Cluster().create()
    try:
        cluster.start()
        with Gateway(cluster, "postgres", simulator) as gateway:
            gateway.execute("CREATE EXTENSION otp_gateway")
            gateway.create_provider("ideamart")
            assert gateway.send()["outcome"] == "sent"
        elsewhere = cluster.directory / "otp.key"
        cluster.configure({"otp_gateway.key_file": f"'{elsewhere}'"})
        cluster.restart()
        until(lambda: f"{elsewhere} is missing" in cluster.log(), "the log says so")
        assert not elsewhere.exists()
        key_file(cluster).rename(elsewhere)
        with Gateway(cluster, "postgres", simulator) as gateway:
            assert gateway.send()["outcome"] == "sent"
            assert rotate(gateway) == 2
        assert len(elsewhere.read_text().splitlines()) == 2
    finally:
        cluster.remove()


# Where the server's system user cannot write, as in /etc: each hint leads out, taken at its word.


@pytest.fixture
def foreign_place():
    """A directory that everybody may look into, and only root writes."""
    with tempfile.TemporaryDirectory(prefix="otp_gateway_", dir="/tmp") as parent:
        place = pathlib.Path(parent)
        place.chmod(0o555 if os.geteuid() else 0o755)
        yield place
        place.chmod(0o755)


@contextlib.contextmanager
def with_keys_at(path, simulator):
    cluster = Cluster({"otp_gateway.key_file": f"'{path}'"}).create()
    try:
        cluster.start()
        with Gateway(cluster, "postgres", simulator) as gateway:
            gateway.execute("CREATE EXTENSION otp_gateway")
            gateway.create_providers()
        yield cluster
    finally:
        cluster.remove()


def told(cluster, simulator, call="SELECT otp_send('ideamart', '{\"mobile\": \"0771234567\"}')"):
    """Message and hint of a call that is refused."""
    with (
        Gateway(cluster, "postgres", simulator) as gateway,
        pytest.raises(psycopg2.errors.ObjectNotInPrerequisiteState) as caught,
    ):
        gateway.execute(call)
    return caught.value.diag.message_primary, caught.value.diag.message_hint


def obey(cluster, hint):
    """Does what it says: the command, the setting, the restart."""
    command = re.search(r"As root: (.*?)(?:;? then |\. |\.$)", hint)[1]
    if os.geteuid():
        command = re.sub(r"-o \S+ ", "", command)
    subprocess.run(["sh", "-c", command], check=True)
    if setting := re.search(r"otp_gateway.key_file = ('[^']+')", hint):
        cluster.configure({"otp_gateway.key_file": setting[1]})
    if "restart" in hint:
        cluster.restart()


def works(cluster, simulator):
    """Reading, making and rotating."""
    with Gateway(cluster, "postgres", simulator) as gateway:
        begun = gateway.send("hyperverge")["verification_id"]
        assert rotate(gateway) > 0
        assert gateway.row("SELECT * FROM otp_resend(%s)", (begun,))["outcome"] == "sent"


@pytest.mark.parametrize("below", ["", "not_there/"])
def test_a_place_where_it_cannot_be_made(simulator, foreign_place, below):
    path = foreign_place / f"{below}otp_gateway.key"
    with with_keys_at(path, simulator) as cluster:
        until(lambda: f"{path} cannot be made" in cluster.log(), "the log says so")
        (line,) = re.findall(r"HINT: .*install.*", cluster.log())
        message, hint = told(cluster, simulator)
        # No circle: there is no note to remove, and a restart alone helps nothing.
        assert "is missing" in message and "otp_gateway.key_id" not in hint and hint in line
        obey(cluster, hint)
        works(cluster, simulator)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a file to root")
def test_a_secret_as_containers_mount_it(gateway):
    """Kubernetes mounts root's file, which a group may read, and nobody may write: as Postgres takes it of a TLS key."""
    path = key_file(gateway.cluster)
    gateway.send()
    os.chown(path, 0, pwd.getpwnam("postgres").pw_gid)
    path.chmod(0o440)
    assert gateway.send()["outcome"] == "sent"
    # The group may read it, and that is all.
    for mode in (0o444, 0o460, 0o450, 0o442):
        path.chmod(mode)
        with pytest.raises(psycopg2.errors.ObjectNotInPrerequisiteState, match="may be read or written by others"):
            gateway.send()
    path.chmod(0o440)
    assert gateway.send()["outcome"] == "sent"


def test_a_place_where_it_cannot_be_changed(simulator, foreign_place):
    """A file that was put there by hand is read; what changes it says what that takes."""
    path = foreign_place / "otp_gateway.key"
    foreign_place.chmod(0o755)
    write(path, "5" * 64 + "\n")
    foreign_place.chmod(0o555 if os.geteuid() else 0o755)
    with with_keys_at(path, simulator) as cluster:
        with Gateway(cluster, "postgres", simulator) as gateway:
            begun = gateway.send("hyperverge")["verification_id"]
        message, hint = told(cluster, simulator, "SELECT otp_gateway.rotate_key()")
        assert "cannot be written" in message and "openssl rand -hex 32" in hint
        # The new place takes the old keys along.
        obey(cluster, hint)
        with Gateway(cluster, "postgres", simulator) as gateway:
            assert gateway.row("SELECT * FROM otp_resend(%s)", (begun,))["outcome"] == "sent"
        works(cluster, simulator)


@pytest.mark.skipif(os.geteuid() != 0, reason="a file of somebody else's takes root")
def test_a_file_of_somebody_elses(gateway, simulator):
    path = key_file(gateway.cluster)
    os.chown(path, 0, 0)
    message, hint = told(gateway.cluster, simulator)
    assert "permission denied" in message
    obey(gateway.cluster, hint)
    works(gateway.cluster, simulator)


def test_a_setting_that_was_changed_alone(gateway, simulator):
    """The keys are where they were: not a word of a new one."""
    cluster, old = gateway.cluster, key_file(gateway.cluster)
    begun = gateway.send("hyperverge")["verification_id"]
    cluster.configure({"otp_gateway.key_file": "'keys'"})
    cluster.restart()
    message, hint = told(cluster, simulator)
    assert "is missing" in message and str(old) in hint and "otp_gateway.key_id" not in hint
    obey(cluster, hint)
    assert (cluster.data / "keys").read_text() == old.read_text()
    with Gateway(cluster, "postgres", simulator) as gateway:
        assert gateway.row("SELECT * FROM otp_resend(%s)", (begun,))["outcome"] == "sent"


def test_a_link_stays_a_link(gateway):
    path = key_file(gateway.cluster)
    real = gateway.cluster.directory / "real.key"
    path.rename(real)
    path.symlink_to(real)
    rotate(gateway)
    assert path.is_symlink() and len(real.read_text().splitlines()) == 2


# rotation


def test_whatever_was_sealed_opens_and_nothing_is_forgotten(gateway, simulator):
    gateway.create_provider("limited", "ideamart", send_limit="3 per hour", resend_after="0s")
    gateway.create_provider("cool", "ideamart", resend_after="1h")
    to, open_ = gateway.number("hyperverge"), {}
    for vendor in FLOWS:
        number = gateway.number(vendor)
        open_[vendor] = (number, gateway.send(vendor, number)["verification_id"])
    gateway.full()
    queued = gateway.enqueue("narrow", vendor="ideamart")["verification_id"]
    limited, cool, guessed, keyed = (gateway.number() for _ in range(4))
    for _ in range(2):
        assert gateway.send("limited", limited, vendor="ideamart")["outcome"] == "sent"
    assert gateway.send("cool", cool, vendor="ideamart")["outcome"] == "sent"
    elsewhere = gateway.send("hyperverge", to)["verification_id"]
    assert gateway.verify_at("hyperverge", "000000", mobile=to)["verification_id"] == elsewhere
    wrong = gateway.send("ideamart", guessed)["verification_id"]
    for _ in range(2):
        assert gateway.verify(wrong, simulator.wrong("ideamart", guessed))["outcome"] == "invalid_code"
    send_keyed = "SELECT * FROM otp_send('ideamart', %s::jsonb, 'request-1')"
    first = gateway.row(send_keyed, (json.dumps({"mobile": keyed}),))

    before = gateway.execute(SEALS)
    old = key_file(gateway.cluster).read_text()
    assert rotate(gateway) == len(before) > 5
    after = gateway.execute(SEALS)
    new = note(gateway.cluster).read_text().strip()
    assert [id for id, _ in after] == [id for id, _ in before]
    assert {key for _, key in after} == {new} and new not in {key for _, key in before}
    lines = key_file(gateway.cluster).read_text().splitlines()
    assert len(lines) == 2 and lines[1] == old.strip() != lines[0]
    assert key_file(gateway.cluster).stat().st_mode & 0o777 == 0o600
    assert rotate(gateway) == len(before)

    # Limits, cooldown, checks, idempotency keys and numbers: known under the old key, and under the new.
    assert gateway.send("limited", limited, vendor="ideamart")["outcome"] == "sent"
    blocked = gateway.send("limited", limited, vendor="ideamart")
    assert (blocked["outcome"], blocked["reason"]) == ("blocked", "send_limit")
    blocked = gateway.send("cool", cool, vendor="ideamart")
    assert (blocked["outcome"], blocked["reason"]) == ("blocked", "resend_after")
    again = gateway.send("ideamart", guessed)["verification_id"]
    assert gateway.verify(again, simulator.wrong("ideamart", guessed))["outcome"] == "invalid_code"
    blocked = gateway.verify(again, simulator.wrong("ideamart", guessed))
    assert (blocked["outcome"], blocked["reason"]) == ("blocked", "max_checks")
    assert gateway.row(send_keyed, (json.dumps({"mobile": keyed}),))["attempt_id"] == first["attempt_id"]
    with pytest.raises(psycopg2.errors.InvalidParameterValue, match="another payload"):
        gateway.row(send_keyed, (json.dumps({"mobile": gateway.number()}),))
    assert gateway.verify_at("hyperverge", "000000", mobile=to)["verification_id"] == elsewhere
    found = gateway.execute("SELECT id FROM otp_gateway.find('ideamart', %s)", (guessed,))
    assert found == [(again,), (wrong,)]
    simulator.release()
    assert gateway.wait(queued)["outcome"] == "sent"
    for vendor, (number, id) in open_.items():
        assert gateway.verify(id, simulator.code(vendor, number), **FLOWS[vendor]["verify"])["outcome"] == "approved", (
            vendor
        )


def test_every_database_follows(gateway, simulator):
    with gateway.cluster.database() as name, Gateway(gateway.cluster, name, simulator) as other:
        other.create_provider("hyperverge")
        to = other.number("hyperverge")
        id = other.send("hyperverge", to)["verification_id"]
        rotate(gateway)
        new = note(gateway.cluster).read_text().strip()
        until(lambda: other.execute(SEALS) == [(id, new)], "the other database is resealed")
        assert other.verify(id, simulator.code("hyperverge", to))["outcome"] == "approved"


def test_a_key_put_first_by_hand(gateway, simulator):
    """Also one that was added while the server was down: what is sealed under the others follows."""
    to = gateway.number("hyperverge")
    id = gateway.send("hyperverge", to)["verification_id"]
    [(_, old)] = gateway.execute(SEALS)
    gateway.session.close()
    gateway.cluster.stop()
    path = key_file(gateway.cluster)
    write(path, f"{another(path.read_text())}\n{path.read_text()}\n")
    gateway.cluster.start()
    gateway.session = gateway.connect()
    until(lambda: [key for _, key in gateway.execute(SEALS)] not in ([], [old]), "it is resealed")
    assert gateway.verify(id, simulator.code("hyperverge", to))["outcome"] == "approved"


def test_an_old_key_may_be_taken_out(gateway, simulator):
    """Once nothing is sealed under it: what it sealed is resealed, what it found is found no more."""
    to = gateway.number("hyperverge")
    id = gateway.send("hyperverge", to)["verification_id"]
    rotate(gateway)
    path = key_file(gateway.cluster)
    write(path, path.read_text().splitlines()[0] + "\n")
    assert gateway.verify(id, simulator.code("hyperverge", to))["outcome"] == "approved"
    assert gateway.execute("SELECT id FROM otp_gateway.find('hyperverge', %s)", (to,)) == []


def test_a_listener_hears_on(gateway):
    """By the name that it asked for before the change, as long as the key is in the file; by the new one from then on."""
    gateway.execute("ALTER SYSTEM SET otp_gateway.notify = on")
    gateway.cluster.reload()
    sessions, channels = [], []
    for rotated in (False, True):
        if rotated:
            rotate(gateway)
        [(channel,)] = gateway.execute("SELECT otp_gateway.channel()")
        session = gateway.connect()
        gateway.execute(f"LISTEN {channel}", session=session)
        sessions, channels = [*sessions, session], [*channels, channel]
    assert channels[0] != channels[1]

    def hears(session, id):
        return until(
            lambda: session.poll() or [one.channel for one in session.notifies if str(id) in one.payload], "it hears"
        )

    id = gateway.send()["verification_id"]
    assert [set(hears(session, id)) for session in sessions] == [{channels[0]}, {channels[1]}]
    path = key_file(gateway.cluster)
    write(path, path.read_text().splitlines()[0] + "\n")
    id = gateway.send()["verification_id"]
    hears(sessions[1], id)
    sessions[0].poll()
    assert not any(str(id) in one.payload for one in sessions[0].notifies)
    for session in sessions:
        session.close()


def test_two_at_once_are_two_keys(gateway):
    before = key_file(gateway.cluster).read_text().splitlines()
    sessions = [gateway.connect() for _ in range(8)]
    threads = [threading.Thread(target=rotate, args=(gateway, session)) for session in sessions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    lines = key_file(gateway.cluster).read_text().splitlines()
    assert len(set(lines)) == 9 and lines[-1:] == before
    for session in sessions:
        session.close()


def test_for_superusers_alone(gateway):
    gateway.execute(
        "CREATE ROLE app LOGIN; GRANT USAGE ON FOREIGN SERVER ideamart TO app; ALTER SERVER ideamart OWNER TO app"
    )
    before = key_file(gateway.cluster).read_text()
    session = gateway.connect(user="app")
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        rotate(gateway, session)
    session.close()
    assert key_file(gateway.cluster).read_text() == before


SESSIONS = 64
ROUNDS = 4


def test_under_load(own_cluster, simulator):
    """64 sessions send and verify while the key changes: no verify fails, no limit forgets."""
    with Gateway(own_cluster, "postgres", simulator) as gateway:
        gateway.execute("CREATE EXTENSION otp_gateway")
        gateway.create_provider("hyperverge", timeout="60s")
        gateway.create_provider("limited", "ideamart", send_limit="5 per hour", timeout="60s")
        numbers = [[gateway.number("hyperverge") for _ in range(ROUNDS)] for _ in range(SESSIONS)]
        shared = [gateway.number() for _ in range(ROUNDS)]
        began, faults, sent = threading.Barrier(SESSIONS + 1), [], []
        sessions = [gateway.connect() for _ in range(SESSIONS)]

        def run(session, mine):
            try:
                began.wait(60)
                for number, everybodys in zip(mine, shared):
                    id = gateway.send("hyperverge", number, session)["verification_id"]
                    sent.append(gateway.send("limited", everybodys, session, vendor="ideamart")["outcome"])
                    resent = gateway.row("SELECT * FROM otp_resend(%s)", (id,), session)
                    row = gateway.verify(id, simulator.code("hyperverge", number, atleast=2), session)
                    if (resent["outcome"], row["outcome"]) != ("sent", "approved"):
                        faults.append((resent, row))
            except Exception as error:
                faults.append(error)

        threads = [threading.Thread(target=run, args=pair) for pair in zip(sessions, numbers)]
        for thread in threads:
            thread.start()
        began.wait(60)
        rotations = 0
        while any(thread.is_alive() for thread in threads):
            rotate(gateway)
            rotations += 1
        for session in sessions:
            session.close()
        assert faults == []
        assert rotations >= 3
        assert sorted(set(sent)) == ["blocked", "sent"] and sent.count("sent") == 5 * ROUNDS
        assert [simulator.count("ideamart", "send", number) for number in shared] == [5] * ROUNDS
        assert gateway.execute(
            "SELECT DISTINCT status::text FROM otp_gateway.verification WHERE provider = 'hyperverge'"
        ) == [("approved",)]
