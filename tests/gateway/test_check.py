"""Promise: `otp_gateway.check` says before the first send what stands in its way, one row a finding, with what to do. It sends
nothing to the vendor and puts nothing on record; it calls nobody for a role that may not use the provider; it ends in
time, and at once when it is canceled, and holds up no call meanwhile; and no secret is in what it says."""

import contextlib
import os
import pathlib
import re
import shutil
import socket
import time

import psycopg2
import pytest

from canaries import RUN
from cluster import Cluster, free_port
from conftest import CREDENTIALS, Gateway, Running, credential_options, until
from proxy import Proxy
from test_at_most_once import at
from test_enqueue import gone
from test_misuse import role as role
from test_network import Authority, tls_server

# What a provider of the tests has, with nothing wrong but that it is called in plain HTTP, on a server as it comes.
GOOD = {
    "usage": "ok",
    "credential_file": "ok",
    "credentials": "ok",
    "base_url": "warning",
    "defaults": "ok",
    "send_limit": "ok",
    "provider_limit": "ok",
    "allowed_prefixes": "ok",
    "min_conversion": "ok",
    "enforce": "ok",
    "preload": "ok",
    "record": "ok",
    "worker": "ok",
    "key_file": "warning",
    "breaker": "ok",
    "allowed_hosts": "warning",
    "tcp": "ok",
}
# As a server has it where nobody has set anything.
OF_THE_SERVER = {"key_file", "allowed_hosts"}
SET = {
    "defaults": '{"template_id": "t"}',
    "send_limit": "5 per hour",
    "provider_limit": "100 per hour",
    "allowed_prefixes": "+91",
    "min_conversion": "10%",
}
VENDOR = "hyperverge"
# Of a user mapping that holds them itself: at rest, as Postgres has it.
PUBLIC = {"app_id": "literal_id", "app_key": "literal_key"}


@pytest.fixture
def gateway(quick_gateway):
    gateway = quick_gateway
    gateway.create_provider("well", VENDOR, **SET)
    return gateway


@pytest.fixture
def app(role):
    return role[0]


@pytest.fixture(scope="module")
def authority(simulator_program):
    return Authority(pathlib.Path(simulator_program.directory.name) / "authority_of_checks")


def rows(gateway, provider="well", session=None):
    return gateway.execute("SELECT item, status, detail, hint FROM otp_gateway.check(%s)", (provider,), session)


def check(gateway, provider="well", session=None):
    """The worst finding of each item: (status, detail, hint)."""
    found = {}
    for item, status, detail, hint in rows(gateway, provider, session):
        assert status in ("ok", "warning", "error") and detail
        assert (hint is None) == (status == "ok"), "what is wrong has a hint, what is well has none"
        if item not in found or found[item][0] == "ok":
            found[item] = (status, detail, hint)
    return found


def statuses(found):
    return {item: status for item, (status, _, _) in found.items()}


def faults(found):
    return {item for item, (status, _, _) in found.items() if status == "error"}


def test_all_is_well(gateway, simulator):
    before = gateway.execute("SELECT count(*)::int FROM otp_gateway_internal.attempt_record")
    found = check(gateway)
    assert statuses(found) == GOOD
    assert found["min_conversion"][1] == "10%: numbers that begin alike are held back where fewer type a code in"
    # As it says, a send goes through.
    assert gateway.send("well", vendor=VENDOR)["outcome"] == "sent"
    assert (simulator.count(), before) == (1, [(0,)])


def test_nothing_is_sent_and_nothing_is_recorded(gateway, simulator):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        at(gateway, "well", base_url=f"http://127.0.0.1:{listener.getsockname()[1]}")
        assert statuses(check(gateway)) == GOOD
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(10)
            assert connection.recv(1) == b"", "the connection is closed, and nothing came on it"
    assert simulator.count() == 0
    assert gateway.execute("SELECT count(*)::int FROM otp_gateway_internal.attempt_record") == [(0,)]
    assert gateway.execute("SELECT count(*)::int FROM otp_gateway_internal.verification_record") == [(0,)]


def test_the_statements_of_hints_do_as_they_say(gateway):
    """Everything that can be set is set by them, beside what is set already."""
    gateway.create_provider("bare", VENDOR, defaults='{"otp_length": 6}', enforce="observe")
    found = check(gateway, "bare")
    asked = {item: hint for item, (status, _, hint) in found.items() if status != "ok" and item not in OF_THE_SERVER}
    assert set(asked) == {
        "base_url",
        "defaults",
        "send_limit",
        "provider_limit",
        "allowed_prefixes",
        "min_conversion",
        "enforce",
    }
    for hint in asked.values():
        [statement] = re.findall(r"ALTER SERVER .*\)(?=\.$)", hint)
        gateway.execute(statement.replace('"..."', '"t"').replace("'https://...'", "'https://127.0.0.1:9'"))
    found = check(gateway, "bare")
    assert {item for item, (status, _, _) in found.items() if status != "ok"} == {"tcp"} | OF_THE_SERVER
    assert gateway.execute(
        "SELECT option_value::jsonb FROM pg_foreign_server, pg_options_to_table(srvoptions)"
        " WHERE srvname = 'bare' AND option_name = 'defaults'"
    ) == [({"otp_length": 6, "template_id": "t"},)]


# rights and credentials


def test_who_may_not_use_it_learns_nothing_else(gateway, app):
    """And nobody is called: a check is no way into the server's network for whoever can connect to the database."""
    with socket.create_server(("127.0.0.1", 0)) as listener, contextlib.closing(gateway.connect(user=app)) as session:
        at(gateway, "well", base_url=f"http://127.0.0.1:{listener.getsockname()[1]}")
        [(item, status, detail, hint)] = rows(gateway, session=session)
        assert (item, status) == ("usage", "error")
        assert "GRANT USAGE ON FOREIGN SERVER well" in hint
        gateway.execute(f"GRANT USAGE ON FOREIGN SERVER well TO {app}")
        assert statuses(check(gateway, session=session)) == GOOD
        listener.settimeout(0)
        listener.accept()[0].close()
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_no_such_provider(gateway):
    with pytest.raises(psycopg2.errors.UndefinedObject):
        check(gateway, "nobody")
    gateway.execute("CREATE FOREIGN DATA WRAPPER others; CREATE SERVER others FOREIGN DATA WRAPPER others")
    try:
        assert faults(check(gateway, "others")) == {"options"}
    finally:
        gateway.execute("DROP FOREIGN DATA WRAPPER others CASCADE")


def test_the_mapping_of_my_role(gateway, app):
    """It is the caller's own that is looked at."""
    gateway.execute(
        f"GRANT USAGE ON FOREIGN SERVER well TO {app}; CREATE USER MAPPING FOR {app} SERVER well OPTIONS (app_id 'a', app_key_file '/nowhere')"
    )
    with contextlib.closing(gateway.connect(user=app)) as session:
        found = check(gateway, session=session)
    # Once, and as the system says it.
    assert faults(found) == {"credential_file"} and "credentials" not in found
    assert "no such file or directory" in found["credential_file"][1], found
    assert "app_key_file" in found["credential_file"][1] and "/nowhere" not in str(found)
    assert faults(check(gateway)) == set()
    gateway.execute("DROP USER MAPPING FOR PUBLIC SERVER well")
    found = check(gateway)
    assert faults(found) == {"credentials"} and "CREATE USER MAPPING" in found["credentials"][2]


def test_files_that_others_can_read(gateway):
    path = pathlib.Path(credential_options(VENDOR)["app_key_file"])
    before = path.stat().st_mode
    try:
        path.chmod(0o644)
        found = check(gateway)
        assert (found["credential_file"][0], faults(found)) == ("warning", set())
        assert "app_key_file" in found["credential_file"][1] and "0644" in found["credential_file"][1]
        path.chmod(0o000)
        found = check(gateway)
        assert faults(found) == {"credential_file"} and "permission denied" in found["credential_file"][1]
    finally:
        path.chmod(before)
    assert check(gateway)["credential_file"][0] == "ok"


def test_no_secret_is_in_it(gateway):
    gateway.create_provider("literal", VENDOR, credentials=PUBLIC, **SET)
    gateway.create_provider("tested", VENDOR, test_numbers="+94770000001=918273", **SET)
    for provider in ("well", "literal", "tested"):
        said = str(rows(gateway, provider))
        for secret in [*PUBLIC.values(), *CREDENTIALS[VENDOR].values(), *credential_options(VENDOR).values(), "918273"]:
            assert str(secret) not in said, provider


def test_options_that_cannot_be_read(gateway):
    gateway.execute("UPDATE pg_foreign_server SET srvoptions = '{timeout=soon}' WHERE srvname = 'well'")
    found = check(gateway)
    assert faults(found) == {"options"} and "timeout" in found["options"][1]


def test_options(gateway):
    """Each is told by itself, so that nobody mends one only to meet the next."""
    gateway.create_provider("bare", VENDOR, enforce="observe")
    found = check(gateway, "bare")
    asked = {item for item, (status, _, _) in found.items() if status == "warning"} - OF_THE_SERVER
    assert asked == {
        "base_url",
        "defaults",
        "send_limit",
        "provider_limit",
        "allowed_prefixes",
        "min_conversion",
        "enforce",
    }
    assert "template_id" in found["defaults"][1]
    gateway.execute("CREATE SERVER pay FOREIGN DATA WRAPPER otp_paytm OPTIONS (proxy 'http://127.0.0.1:9')")
    found = check(gateway, "pay")
    assert "test host" in found["base_url"][1] and faults(found) == {"tcp"}
    # Whom a code goes to has no country there.
    assert "allowed_prefixes" not in check(gateway, "relid")


def test_the_sandbox_has_nobody_to_be_called(gateway):
    gateway.execute("CREATE SERVER box FOREIGN DATA WRAPPER otp_sandbox")
    found = check(gateway, "box")
    assert faults(found) == set() and not {"dns", "tcp", "tls"} & set(found)


def test_a_breaker_that_is_open(gateway, simulator):
    """Nothing can be sent: why, since when, until when. And what to mend, by what failed."""
    body = {"status": "failure", "statusCode": 401, "error": {"message": "no"}}
    simulator.fault("reply", VENDOR, "send", body=body, times=5)
    for _ in range(5):
        assert gateway.send("well", vendor=VENDOR)["outcome"] == "auth_failed"
    status, detail, hint = check(gateway)["breaker"]
    assert status == "error" and "open for" in detail and "nothing is sent" in detail, detail
    assert "(auth_failed, vendor code 401)" in detail and "the next one is tried in" in detail, detail
    assert "credentials" in hint and "list of addresses" in hint, hint
    # Mended: the next one is tried, and that is said.
    gateway.execute("ALTER SERVER well OPTIONS (ADD connect_timeout '2s')")
    status, detail, hint = check(gateway)["breaker"]
    assert (status, hint) == ("ok", None) and "closed" in detail and "have changed" in detail, detail
    # The view says the same of it, by whomever it is asked.
    assert in_view(gateway) == "closed"
    assert gateway.send("well", vendor=VENDOR)["outcome"] == "sent"
    assert check(gateway)["breaker"][:2] == ("ok", "closed")


def in_view(gateway, session=None):
    [(value, _)] = gateway.execute(
        "SELECT value, source FROM otp_gateway.provider WHERE provider = 'well' AND setting = 'breaker'",
        session=session,
    )
    return value


def test_a_breaker_whose_credentials_cannot_be_read(gateway, simulator):
    """Nobody can say that they have changed: check and view show what is on record, and check what is wrong with them."""
    simulator.fault("status", VENDOR, "send", status=503, times=5)
    for _ in range(5):
        gateway.send("well", vendor=VENDOR)
    path = pathlib.Path(credential_options(VENDOR)["app_key_file"])
    before = path.stat().st_mode
    try:
        path.chmod(0o000)
        assert "open for" in check(gateway)["breaker"][1] and in_view(gateway).startswith("open until")
        assert faults(check(gateway)) == {"credential_file", "breaker"}
    finally:
        path.chmod(before)


def test_a_budget_that_is_spent(gateway, simulator):
    """Nothing is sent until a send leaves the window: when that is, as a send itself would be told; also of the sandbox."""
    at(gateway, "well", provider_limit="2 per hour")
    assert check(gateway)["provider_limit"] == ("ok", "2 per hour", None)
    gateway.send("well", vendor=VENDOR)
    assert check(gateway)["provider_limit"][0] == "ok"
    gateway.send("well", vendor=VENDOR)
    status, detail, hint = check(gateway)["provider_limit"]
    assert status == "error" and "otp_gateway.recent" in hint
    assert re.fullmatch("2 per hour: spent, and nothing is sent; the next one goes in (1h|60min|59min)", detail), detail
    row = gateway.send("well", vendor=VENDOR)
    assert row["reason"] == "provider_limit" and 3500 < row["retry_after"].total_seconds() <= 3600
    at(gateway, "well", enforce="observe")
    assert check(gateway)["provider_limit"][0] == "warning"
    at(gateway, "well", provider_limit="3 per hour", enforce="on")
    assert check(gateway)["provider_limit"] == ("ok", "3 per hour", None)
    gateway.execute("CREATE SERVER box FOREIGN DATA WRAPPER otp_sandbox OPTIONS (provider_limit '1 per hour')")
    assert faults(check(gateway, "box")) == set()
    gateway.execute("SELECT otp_send('box', '{\"mobile\": \"+94770000001\"}')")
    assert faults(check(gateway, "box")) == {"provider_limit"}


def test_a_budget_of_a_provider_of_a_route(gateway):
    at(gateway, "well", provider_limit="1 per hour")
    gateway.execute("CREATE SERVER way FOREIGN DATA WRAPPER otp_route OPTIONS (providers 'well')")
    gateway.send("well", vendor=VENDOR)
    found = gateway.execute("SELECT provider, item FROM otp_gateway.check('way') WHERE status = 'error'")
    assert found == [("well", "provider_limit")]


def test_a_route(gateway, app):
    """Each of its providers is looked at, by the rights of the route's owner, as a send is."""
    gateway.create_provider("other", VENDOR, **{**SET, "base_url": "http://127.0.0.1:1"})
    gateway.execute(
        f"CREATE SERVER way FOREIGN DATA WRAPPER otp_route OPTIONS (providers 'well, other, gone'); GRANT USAGE ON FOREIGN SERVER way TO {app}"
    )
    with contextlib.closing(gateway.connect(user=app)) as session:
        found = gateway.execute(
            "SELECT provider, item FROM otp_gateway.check('way') WHERE status = 'error'", session=session
        )
        assert found == [("other", "tcp"), ("gone", "usage")]
        # Once, not for each provider.
        of_all = gateway.execute(
            "SELECT provider FROM otp_gateway.check('way') WHERE item IN ('key_file', 'worker')", session=session
        )
        assert of_all == [("way",), ("way",)]


# the network


def reached(gateway, last, **options):
    """The check's step that failed is the last one that it tells of."""
    at(gateway, "well", **options)
    found = check(gateway)
    steps = [
        item
        for item, _, _, _ in rows(gateway)
        if item in ("tls_files", "allowed_hosts", "dns", "tcp", "tls", "certificate")
    ]
    assert steps[-1] == last and faults(found) == {last}, (steps, found)
    return found[last][1]


def test_a_port_that_is_closed(gateway):
    assert "refused" in reached(gateway, "tcp", base_url=f"https://127.0.0.1:{free_port()}")


def test_a_host_that_is_not_there(gateway):
    assert "lookup" in reached(gateway, "dns", base_url="https://nobody.invalid")


def test_files_of_tls_that_hold_nothing(gateway, authority):
    nothing = authority.directory / "nothing.pem"
    nothing.write_text("nothing")
    nothing.chmod(0o644)
    assert "PEM" in reached(gateway, "tls_files", ca_file=nothing)


@contextlib.contextmanager
def full_listener():
    """Takes no more connections, and refuses none: who connects hears nothing."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, contextlib.ExitStack() as waiting:
        for _ in range(2):
            client = waiting.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def test_a_host_that_says_nothing(gateway):
    with full_listener() as address:
        began = time.monotonic()
        assert "connect_timeout" in reached(gateway, "tcp", base_url=f"https://{address}", connect_timeout="300ms")
        # Twice, for `reached` asks twice; each looks twice.
        assert time.monotonic() - began < 8


def test_a_host_that_says_nothing_of_tls(gateway):
    """It is not the network that is to blame."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"https://127.0.0.1:{listener.getsockname()[1]}"
        assert "connect_timeout" in reached(gateway, "tls", base_url=url, connect_timeout="300ms")


def test_what_is_no_tls(gateway, simulator):
    assert reached(gateway, "tls", base_url=simulator.url(VENDOR).replace("http:", "https:"))


CERTIFICATES = [
    ("expired", "IP:127.0.0.1", (-30, -1), "expired"),
    ("early", "IP:127.0.0.1", (1, 90), "not valid yet"),
    ("of another", "IP:127.0.0.2,DNS:localhost", (-1, 90), "not valid for name"),
]


@pytest.mark.parametrize("what, names, days, why", CERTIFICATES, ids=[what for what, *_ in CERTIFICATES])
def test_a_certificate_that_is_none(gateway, authority, what, names, days, why):
    with tls_server(authority.certificate(what.replace(" ", "_"), names, days)) as (url, heard):
        assert why in reached(gateway, "tls", base_url=url, ca_file=authority.ca)
        assert heard == []


def test_an_authority_that_nobody_named(gateway, authority):
    with tls_server(authority.certificate("unknown")) as (url, _):
        assert "UnknownIssuer" in reached(gateway, "tls", base_url=url)


@pytest.mark.parametrize("days, status", [(400.5, "ok"), (30.5, "ok"), (29.5, "warning"), (0.5, "warning")])
def test_when_the_certificate_ends(gateway, authority, days, status):
    with tls_server(authority.certificate(f"ends{days}", days=(-1, days))) as (url, heard):
        at(gateway, "well", base_url=url, ca_file=authority.ca)
        found = check(gateway)
        assert faults(found) == set() and found["tls"][0] == "ok" and found["base_url"][0] == "ok"
        assert found["certificate"][0] == status and f"in {int(days)} day" in found["certificate"][1]
        until(lambda: heard, "the host saw the connection go")
        assert heard == [b""]


def test_a_certificate_that_the_host_wants(gateway, simulator):
    tls = pathlib.Path(simulator.at["tls_dir"])
    url = simulator.at["mtls"] + f"/{VENDOR}"
    assert "CertificateRequired" in reached(gateway, "tls", base_url=url, ca_file=tls / "ca.pem")
    gateway.execute(
        f"ALTER SERVER well OPTIONS (ADD client_cert_file '{tls}/client.pem', ADD client_key_file '{tls}/client.key')"
    )
    found = check(gateway)
    assert faults(found) == set() and found["certificate"][0] == "ok"
    # The simulator's is for all to read.
    assert found["client_key_file"][0] == "warning"
    assert simulator.count() == 0


def test_a_proxy(gateway, simulator):
    tls = pathlib.Path(simulator.at["tls_dir"])
    with Proxy() as proxy:
        at(gateway, "well", base_url=simulator.url(VENDOR, "https"), ca_file=tls / "ca.pem", proxy=proxy.url)
        found = check(gateway)
        # Through a tunnel the certificate is checked; when it ends, the client does not say.
        assert faults(found) == set() and found["tls"][0] == "ok" and "certificate" not in found
        assert len(proxy.asked("CONNECT")) == 1 and proxy.asked("POST") == []
        proxy.instead = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"
        assert "proxy" in reached(gateway, "tcp")
    assert "proxy" in reached(gateway, "tcp")
    assert simulator.count() == 0


def test_the_token_url_is_looked_at_too(gateway, simulator):
    gateway.execute("DROP SERVER relid CASCADE")
    gateway.create_provider(
        "relid",
        credentials={
            "client_id_file": RUN.in_file(RUN.secret("id")),
            "client_secret_file": RUN.in_file(RUN.secret("key")),
        },
        token_url=f"http://127.0.0.1:{free_port()}/token",
    )
    found = gateway.execute("SELECT item, detail FROM otp_gateway.check('relid') WHERE status = 'error'")
    [(item, detail)] = found
    assert item == "tcp" and "token_url" in detail


def test_allowed_hosts(simulator):
    cluster = Cluster({"otp_gateway.allowed_hosts": "'10.0.0.0/8'"}).create()
    try:
        cluster.start()
        with cluster.database() as name, Gateway(cluster, name, simulator) as gateway:
            gateway.create_provider("well", VENDOR, **SET)
            found = check(gateway)["allowed_hosts"]
            assert "127.0.0.1" in reached(gateway, "allowed_hosts") and found[0] == "error"
            assert "localhost" in reached(
                gateway, "allowed_hosts", base_url=simulator.url(VENDOR).replace("127.0.0.1", "localhost")
            )
    finally:
        cluster.remove()


# the gateway


def test_the_key_file(simulator):
    cluster = Cluster().create()
    try:
        cluster.start()
        with cluster.database() as name, Gateway(cluster, name, simulator) as gateway:
            gateway.create_provider("well", VENDOR, **SET)
            # Whoever has a base backup has both.
            status, detail, hint = check(gateway)["key_file"]
            assert status == "warning" and "data directory" in detail and "otp_gateway.key_file" in hint
            key = cluster.data / "otp_gateway.key"
            # Wherever a link leads: that of a folder elsewhere is no copy of it.
            aside = cluster.directory / "keys"
            aside.mkdir()
            shutil.chown(aside, *(["postgres"] * 2 if os.getuid() == 0 else [os.getuid(), os.getgid()]))
            key.rename(aside / "key")
            key.symlink_to(aside / "key")
            assert check(gateway)["key_file"][0] == "ok"
            key.unlink()
            (aside / "key").rename(key)
            key.chmod(0o644)
            with contextlib.closing(gateway.connect()) as session:
                found = check(gateway, session=session)
            assert faults(found) == {"key_file"}
            key.chmod(0o600)
            # Of another server, as a dump brings it.
            gateway.execute("INSERT INTO otp_gateway_internal.sealing_key VALUES ('2346842f')")
            found = check(gateway)
            assert faults(found) == {"key_file"} and "2346842f" in str(found["key_file"])
            gateway.execute("DELETE FROM otp_gateway_internal.sealing_key WHERE id = '2346842f'")
            key.rename(key.with_suffix(".away"))
            with contextlib.closing(gateway.connect()) as session:
                assert faults(check(gateway, session=session)) == {"key_file"}
    finally:
        cluster.remove()


def test_without_preload(simulator):
    cluster = Cluster(preload=False).create()
    try:
        cluster.start()
        with cluster.database() as name, Gateway(cluster, name, simulator) as gateway:
            gateway.create_provider("well", VENDOR, **SET)
            found = check(gateway)
            assert faults(found) == {"preload"} and "shared_preload_libraries" in found["preload"][2]
            assert found["connection"][0] == "warning"
    finally:
        cluster.remove()


def test_a_worker_that_cannot_come(simulator):
    """No place for one."""
    cluster = Cluster({"max_worker_processes": 1}).create()
    try:
        cluster.start()
        with cluster.database() as name, Gateway(cluster, name, simulator) as gateway:
            gateway.create_provider("well", VENDOR, **SET)
            found = check(gateway)
            assert faults(found) == {"worker", "key_file"} and "max_worker_processes" in found["worker"][2]
    finally:
        cluster.remove()


def test_in_a_read_only_transaction(gateway):
    gateway.execute("BEGIN READ ONLY")
    try:
        assert statuses(check(gateway)) == GOOD
    finally:
        gateway.execute("ROLLBACK")


# the record, locked by somebody

# Each table that a look of the check's, or the worker, might wait for; each mode that is in the worker's way.
TABLES = ["verification_record", "attempt_record", "reference", "identity", "breaker", "sealing_key"]
LOCKS = [
    *[("ACCESS EXCLUSIVE", table) for table in TABLES],
    *[(mode, "attempt_record") for mode in ("SHARE", "SHARE ROW EXCLUSIVE", "EXCLUSIVE")],
]


@pytest.fixture
def locker(gateway):
    with gateway.cluster.session(gateway.database, autocommit=False) as session:
        yield session


def check_in_time(gateway, session=None):
    """All of it, within the time of a worker that does not answer, for each of which it is asked."""
    began = time.monotonic()
    found = check(gateway, session=session)
    assert time.monotonic() - began < 12
    return found


@pytest.mark.parametrize("mode, table", LOCKS)
def test_a_table_that_is_locked(gateway, locker, mode, table):
    """By whom, since when, and what to do. The others of the check's findings are there, too, as far as one can look."""
    gateway.send("well", vendor=VENDOR)
    gateway.execute(f"LOCK TABLE otp_gateway_internal.{table} IN {mode} MODE", session=locker)
    pid = locker.get_backend_pid()
    found = check_in_time(gateway)
    status, detail, hint = found["record"]
    assert status == "error" and f"pid {pid} " in detail and table in detail and "ago" in detail, detail
    assert mode.title().replace(" ", "") + "Lock" in detail, detail
    assert f"pg_terminate_backend({pid})" in hint
    assert set(GOOD) <= set(found) | {"allowed_hosts", "tcp"}
    [statement] = re.findall(r"SELECT pg_terminate_backend\(\d+\)", hint)
    assert gateway.execute(statement) == [(True,)]
    gone(gateway, pid)
    assert statuses(check(gateway)) == GOOD


def test_locks_that_hold_up_nobody(gateway, locker):
    gateway.execute("LOCK TABLE otp_gateway_internal.attempt_record IN SHARE UPDATE EXCLUSIVE MODE", session=locker)
    gateway.execute("SELECT count(*) FROM otp_gateway_internal.verification_record", session=locker)
    assert statuses(check(gateway)) == GOOD


def test_who_waits_for_a_lock_holds_up_others(gateway, locker):
    """A long report, an ALTER TABLE that waits for it, and everybody else behind that."""
    gateway.execute("SELECT count(*) FROM otp_gateway_internal.attempt_record", session=locker)
    behind = gateway.connect()
    pid = behind.get_backend_pid()
    waits = Running(behind, "DO $$ BEGIN LOCK TABLE otp_gateway_internal.attempt_record; END $$")
    until(lambda: gateway.execute("SELECT true FROM pg_locks WHERE NOT granted AND pid = %s", (pid,)), "it waits")
    [(status, detail, hint)] = [row[1:] for row in rows(gateway) if row[0] == "record"]
    assert status == "error" and f"pid {pid} waits for AccessExclusiveLock on attempt_record" in detail, detail
    assert gateway.execute(re.findall(r"SELECT pg_blocking_pids\(\d+\)", hint)[0]) == [([locker.get_backend_pid()],)]
    assert gateway.execute(re.findall(r"SELECT pg_cancel_backend\(\d+\)", hint)[0]) == [(True,)]
    assert isinstance(waits.wait().error, psycopg2.errors.QueryCanceled)
    assert statuses(check(gateway)) == GOOD


def test_ones_own_lock(gateway, locker):
    gateway.execute("LOCK TABLE otp_gateway_internal.verification_record", session=locker)
    status, detail, hint = check_in_time(gateway, session=locker)["record"]
    assert status == "error" and "your own transaction" in detail and "COMMIT" in hint
    gateway.execute("ROLLBACK; BEGIN", session=locker)
    assert statuses(check(gateway, session=locker)) == GOOD


def test_a_lock_of_somebody_who_is_not_shown(gateway, locker, app):
    """Who may not see when another's transaction began is told who it is all the same."""
    gateway.execute(f"GRANT USAGE ON FOREIGN SERVER well TO {app}")
    gateway.execute("LOCK TABLE otp_gateway_internal.verification_record", session=locker)
    with contextlib.closing(gateway.connect(user=app)) as session:
        detail = check_in_time(gateway, session=session)["record"][1]
    assert f"pid {locker.get_backend_pid()} has" in detail and "ago" not in detail


def test_where_pg_locks_is_not_for_all(gateway, app):
    """The rest of the check is theirs all the same."""
    gateway.execute(f"GRANT USAGE ON FOREIGN SERVER well TO {app}; REVOKE SELECT ON pg_locks FROM PUBLIC")
    try:
        with contextlib.closing(gateway.connect(user=app)) as session:
            found = check(gateway, session=session)
        assert statuses(found) == GOOD | {"record": "warning"} and "pg_locks" in found["record"][2]
    finally:
        gateway.execute("GRANT SELECT ON pg_locks TO PUBLIC")


def test_the_view_does_not_wait_for_a_lock(gateway, locker):
    gateway.execute("LOCK TABLE otp_gateway_internal.breaker", session=locker)
    began = time.monotonic()
    assert "is locked by another transaction" in in_view(gateway)
    assert time.monotonic() - began < 5


def test_a_prepared_transaction(simulator):
    """Has no process that one could end."""
    cluster = Cluster({"max_prepared_transactions": 2}).create()
    try:
        cluster.start()
        with cluster.database() as name, Gateway(cluster, name, simulator) as gateway:
            gateway.create_provider("well", VENDOR, **SET)
            gateway.execute("BEGIN; LOCK TABLE otp_gateway_internal.verification_record; PREPARE TRANSACTION 'it''s'")
            try:
                status, detail, hint = check_in_time(gateway)["record"]
                assert (
                    status == "error" and "a prepared transaction has AccessExclusiveLock" in detail and "ago" in detail
                )
            finally:
                gateway.execute("ROLLBACK PREPARED 'it''s'")
            assert hint.endswith("ROLLBACK PREPARED 'it''s'.")
            assert check(gateway)["record"][0] == "ok"
    finally:
        cluster.remove()


# in time


def test_other_calls_go_on(gateway, simulator):
    gateway.create_provider("slow", VENDOR, **{**SET, "base_url": "http://127.0.0.1:1", "connect_timeout": "5s"})
    with full_listener() as address:
        at(gateway, "slow", base_url=f"http://{address}")
        checks = [Running(gateway.connect(), "SELECT * FROM otp_gateway.check('slow')") for _ in range(4)]
        began = time.monotonic()
        assert gateway.send("well", vendor=VENDOR)["outcome"] == "sent"
        assert faults(check(gateway)) == set()
        assert time.monotonic() - began < 10
        assert all(one.thread.is_alive() for one in checks)
        # Canceled, it ends at once.
        for one in checks:
            began = time.monotonic()
            one.session.cancel()
            assert isinstance(one.wait().error, psycopg2.errors.QueryCanceled)
            assert time.monotonic() - began < 2
            one.session.close()


def test_while_a_worker_ends(gateway):
    """Who waits for it asks the next one."""
    gateway.create_provider(
        "slow", VENDOR, **{**SET, "base_url": "http://127.0.0.1:1", "connect_timeout": "2s", "timeout": "60s"}
    )
    workers = (
        "SELECT pid FROM pg_stat_activity WHERE backend_type = 'otp_gateway worker' AND datname = current_database()"
    )
    with full_listener() as address:
        at(gateway, "slow", base_url=f"http://{address}")
        assert gateway.send("well", vendor=VENDOR)["outcome"] == "sent"
        check = Running(gateway.connect(), "SELECT * FROM otp_gateway.check('slow')")
        time.sleep(0.5)
        [(pid,)] = gateway.execute(workers)
        gateway.execute("SELECT pg_terminate_backend(%s, 10000)", (pid,))
        check.wait()
        assert check.error is None
        assert [row["item"] for row in check.rows if row["status"] == "error"] == ["tcp"]
        check.session.close()


def test_no_more_at_once_than_do_no_harm(gateway):
    gateway.create_provider("slow", VENDOR, **{**SET, "base_url": "http://127.0.0.1:1", "connect_timeout": "5s"})
    with full_listener() as address:
        at(gateway, "slow", base_url=f"http://{address}")
        checks = [Running(gateway.connect(), "SELECT * FROM otp_gateway.check('slow')") for _ in range(17)]
        refused = until(lambda: [one for one in checks if not one.thread.is_alive()], "one is too many")
        for one in refused:
            [row] = [row for row in one.rows if row["status"] == "error"]
            assert row["item"] == "connection" and "at once" in row["detail"]
        for one in checks:
            one.session.cancel()
            one.wait().session.close()
