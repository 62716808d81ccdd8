"""Promise: where a superuser has listed in otp_gateway.allowed_hosts what providers may point to, nothing is sent anywhere
else, whatever base_url and token_url say and whatever DNS answers: what counts is the address that is connected to, at each
connect. A name in the list opens no way into the server's own network. A list that cannot be read is refused, never passed
over; nobody but a superuser sees or changes it."""

import contextlib
import json
import os
import pathlib
import socket
import threading

import psycopg2
import pytest

from cluster import Cluster, free_port
from conftest import Gateway, Running, until
from test_at_most_once import at
from test_misuse import role as role
from test_network import oauth as oauth

SETTING = "otp_gateway.allowed_hosts"


class Names:
    """What names stand for, in this cluster alone: nss_wrapper, a library made for tests, answers in place of DNS."""

    def __init__(self, directory):
        self.file = pathlib.Path(directory) / "hosts"
        self.versions = 0
        self.say()

    def say(self, **addresses):
        """`vendor="127.0.0.1"`: what vendor.example stands for from now on."""
        lines = [f"{address} {name}.example\n" for name, list in addresses.items() for address in list.split()]
        new = self.file.with_suffix(".new")
        new.write_text("".join(lines))
        # It is by the time that the library notices.
        self.versions += 1
        os.utime(new, (self.versions, self.versions))
        new.chmod(0o644)
        new.rename(self.file)


@pytest.fixture(scope="module")
def shared_cluster():
    """A cluster of this module's own, whose server setting it changes and whose names it makes up."""
    cluster = Cluster()
    cluster.names = Names(cluster.directory)
    cluster.create()
    try:
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("LD_PRELOAD", "libnss_wrapper.so")
            environment.setenv("NSS_WRAPPER_HOSTS", str(cluster.names.file))
            cluster.start()
        cluster.witness = cluster.connect()
        yield cluster
    finally:
        cluster.remove()


@pytest.fixture
def names(shared_cluster):
    return shared_cluster.names


@pytest.fixture
def gateway(quick_gateway):
    # No list of these tests holds it: whether it is refused shows which list the worker goes by.
    quick_gateway.create_provider(
        "elsewhere", "ideamart", base_url=f"http://127.0.0.9:{free_port()}", enforce="observe"
    )
    yield quick_gateway
    allow(quick_gateway, "")


def allow(gateway, hosts):
    """A list in place of none, or none again; returns when the worker goes by it."""
    gateway.execute(f"ALTER SYSTEM SET {SETTING} = '{hosts}'")
    gateway.cluster.reload()
    until(
        lambda: (SETTING in gateway.send("elsewhere", vendor="ideamart")["vendor_message"]) == bool(hosts),
        f"the worker goes by {hosts!r}",
    )


def called(gateway, simulator, host="127.0.0.1", scheme="http"):
    """How a send ends that is made to this host, at the simulator's port: the message of a refusal, or None."""
    url = simulator.url("ideamart", scheme).replace("127.0.0.1", host)
    # Observed: so many refusals in a row would open the breaker.
    at(gateway, "ideamart", base_url=url, enforce="observe")
    before = simulator.count()
    row = gateway.send()
    if row["outcome"] == "sent":
        assert simulator.count() == before + 1
        return None
    assert (row["outcome"], row["status"], row["retryable"]) == ("unreachable", "failed", True), row
    assert SETTING in row["vendor_message"] and "nothing was sent" in row["vendor_message"], row
    assert simulator.count() == before
    recorded = gateway.row(
        "SELECT outcome::text, vendor_message FROM otp_gateway.attempt WHERE id = %s", (row["attempt_id"],)
    )
    assert recorded == {"outcome": "unreachable", "vendor_message": row["vendor_message"]}
    return row["vendor_message"]


@contextlib.contextmanager
def listening(host):
    """Somebody who must not be called."""
    with socket.create_server((host, 0)) as listener:
        listener.settimeout(0)
        yield listener.getsockname()[1]
        with pytest.raises(BlockingIOError):
            listener.accept()


# What the list says


def test_by_default_everything_is_allowed(gateway, simulator, names):
    assert gateway.row(f"SELECT setting, boot_val, context FROM pg_settings WHERE name = '{SETTING}'") == {
        "setting": "",
        "boot_val": "",
        "context": "sighup",
    }
    names.say(vendor="127.0.0.1")
    assert called(gateway, simulator) is None
    assert called(gateway, simulator, "vendor.example") is None


@pytest.mark.parametrize(
    "hosts", ["127.0.0.1", "127.0.0.0/31", "127.0.0.0/29", " 10.0.0.0/8 ,127.0.0.1/32, x.example "]
)
def test_a_network_that_holds_the_address(gateway, simulator, names, hosts):
    names.say(vendor="127.0.0.1")
    allow(gateway, hosts)
    for host in ("127.0.0.1", "vendor.example", "VENDOR.Example"):
        assert called(gateway, simulator, host) is None


@pytest.mark.parametrize("hosts", ["10.0.0.0/8", "127.0.0.2/31", "127.0.0.0/32", "::/0", "localhost", "x.example"])
def test_a_list_that_does_not(gateway, simulator, names, hosts):
    names.say(vendor="127.0.0.1")
    allow(gateway, hosts)
    assert "127.0.0.1: list the address or its network" in called(gateway, simulator)
    assert "vendor.example: list the host" in called(gateway, simulator, "vendor.example")


# Names


@pytest.mark.parametrize("hosts", ["vendor.example", "*.example", "Vendor.Example.", "10.0.0.0/8, vendor.example"])
def test_a_name_alone_does_not_lead_home(gateway, simulator, names, hosts):
    allow(gateway, hosts)
    for address in (
        "127.0.0.1",
        "127.9.9.9",
        "10.255.0.1" if "10." not in hosts else "172.16.0.1",
        "192.168.0.1",
        "100.64.0.1",
        "169.254.169.254",
        "0.0.0.0",
        "::1",
        "::",
        "fd00:ec2::254",
        "fe80::1",
        "::ffff:127.0.0.1",
        "64:ff9b::a9fe:a9fe",
    ):
        names.say(vendor=address)
        why = called(gateway, simulator, "vendor.example")
        assert "vendor.example, which is listed by name alone" in why and "list its network too" in why, (address, why)
        # What a name stands for is not told to whoever may write a base_url.
        assert address == "::" or address not in why


def test_localhost_by_name(gateway, simulator):
    allow(gateway, "localhost")
    assert "list its network too" in called(gateway, simulator, "localhost")


def test_a_name_with_its_network(gateway, simulator, names):
    names.say(vendor="127.0.0.1")
    allow(gateway, "vendor.example, 127.0.0.0/30")
    for host in ("vendor.example", "vendor.example.", "VENDOR.EXAMPLE"):
        assert called(gateway, simulator, host) is None


def test_a_name_leads_to_a_public_address(gateway, names):
    """3000::/4 is public, and given out to nobody: there is no way there, but it was allowed."""
    names.say(vendor="3000::1", other="3000::1")
    allow(gateway, "vendor.example")
    for name, is_allowed in (("vendor", True), ("other", False)):
        at(gateway, "ideamart", base_url=f"http://{name}.example", connect_timeout="200ms")
        row = gateway.send()
        assert row["outcome"] == "unreachable"
        assert (SETTING not in row["vendor_message"]) == is_allowed, row["vendor_message"]


def test_of_several_addresses_those_that_are_allowed(gateway, simulator, names):
    with listening("127.0.0.8") as port:
        allow(gateway, "127.0.0.1")
        names.say(vendor="127.0.0.8 127.0.0.1")
        assert called(gateway, simulator, "vendor.example") is None
        at(gateway, "ideamart", base_url=f"http://vendor.example:{port}")
        assert "Connection refused" in gateway.send()["vendor_message"]


def test_rebinding(gateway, simulator, names):
    """A name that is allowed today and points into the network tomorrow."""
    port = int(simulator.at["http"].rsplit(":", 1)[1])
    with socket.create_server(("127.0.0.8", port)) as listener:
        listener.settimeout(0)
        # Reached, were it allowed: by the same name, with the same options.
        names.say(vendor="127.0.0.8")
        at(
            gateway,
            "ideamart",
            base_url=simulator.url("ideamart").replace("127.0.0.1", "vendor.example"),
            timeout="500ms",
        )
        assert gateway.send()["outcome"] == "unknown"
        listener.accept()[0].close()
        at(gateway, "ideamart", timeout="10s")

        names.say(vendor="127.0.0.1")
        allow(gateway, "127.0.0.1")
        assert called(gateway, simulator, "vendor.example") is None
        names.say(vendor="127.0.0.8")
        # The connection that was allowed leads where it led.
        assert called(gateway, simulator, "vendor.example") is None
        # A new one is looked at anew.
        at(gateway, "ideamart", connect_timeout="2s")
        assert "vendor.example: list the host" in called(gateway, simulator, "vendor.example")
        names.say(vendor="127.0.0.1")
        assert called(gateway, simulator, "vendor.example") is None
        with pytest.raises(BlockingIOError):
            listener.accept()


# Addresses in place of names

LOOPBACK = [
    "127.1",
    "2130706433",
    "0x7f.1",
    "0x7f000001",
    "0177.0.0.1",
    "127.0.0.1.",
    "127.0.0.%31",
    "\uff11\uff12\uff17.0.0.1",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[0:0:0:0:0:ffff:127.0.0.1]",
]


def test_every_form_of_an_address(gateway, simulator):
    allow(gateway, "127.0.0.2, localhost, ::/0")
    for host in LOOPBACK:
        assert SETTING in called(gateway, simulator, host), host
    allow(gateway, "")
    allow(gateway, "127.0.0.1")
    for host in LOOPBACK:
        assert called(gateway, simulator, host) is None, host


def test_ipv6(gateway, simulator):
    allow(gateway, "127.0.0.0/29")
    for host in ("[::1]", "[0:0::1]", "[::127.0.0.1]", "[fe80::1]"):
        assert SETTING in called(gateway, simulator, host), host
    allow(gateway, "")
    allow(gateway, "::1")
    at(gateway, "ideamart", base_url=f"http://[::1]:{free_port()}")
    assert "Connection refused" in gateway.send()["vendor_message"]


# Both URLs


def test_token_url(gateway, simulator, oauth):
    oauth()
    allow(gateway, "127.0.0.1")
    assert gateway.send("relid_oauth", vendor="relid")["outcome"] == "sent"
    before = simulator.count()
    with listening("127.0.0.8") as port:
        at(gateway, "relid_oauth", token_url=f"http://127.0.0.8:{port}/oauth/token")
        row = gateway.send("relid_oauth", vendor="relid")
    assert row["outcome"] == "unreachable"
    assert (
        "no connection to token_url" in row["vendor_message"]
        and f"{SETTING} does not allow 127.0.0.8" in row["vendor_message"]
    )
    assert simulator.count() == before


def test_token_url_by_name(gateway, simulator, oauth, names):
    oauth()
    names.say(tokens="127.0.0.1")
    at(gateway, "relid_oauth", token_url=simulator.url("relid").replace("127.0.0.1", "tokens.example") + "/oauth/token")
    allow(gateway, "127.0.0.1")
    assert gateway.send("relid_oauth", vendor="relid")["outcome"] == "sent"
    allow(gateway, "")
    allow(gateway, "127.0.0.2, tokens.example")
    # The token is still good: it is the call itself that goes nowhere.
    row = gateway.send("relid_oauth", vendor="relid")
    assert "no connection to base_url" in row["vendor_message"] and SETTING in row["vendor_message"]
    assert simulator.count("relid", "send") == 1
    gateway.create_provider(
        "relid_fresh",
        "relid",
        {"client_id": f"otp-app-{os.urandom(4).hex()}", "client_secret": "otp-secret"},
        token_url=simulator.url("relid").replace("127.0.0.1", "tokens.example") + "/oauth/token",
    )
    row = gateway.send("relid_fresh", vendor="relid")
    assert "no connection to token_url" in row["vendor_message"]
    assert "tokens.example, which is listed by name alone" in row["vendor_message"]
    assert simulator.count("relid", "token") == 1


def test_https(gateway, simulator):
    """The list is asked before TLS is spoken."""
    allow(gateway, "10.0.0.0/8")
    assert SETTING in called(gateway, simulator, scheme="https")


def test_a_route_goes_on_to_a_provider_that_is_allowed(gateway, simulator):
    gateway.create_provider("inside", "ideamart", base_url=simulator.url("ideamart").replace("127.0.0.1", "127.0.0.8"))
    gateway.execute("CREATE SERVER route FOREIGN DATA WRAPPER otp_route OPTIONS (providers 'inside, ideamart')")
    allow(gateway, "127.0.0.1")
    row = gateway.send("route", vendor="ideamart")
    assert row["outcome"] == "sent"
    assert gateway.attempts(row["verification_id"]) == [("send", "unreachable"), ("send", "sent")]


def test_queued_sends(gateway, simulator):
    allow(gateway, "10.0.0.0/8")
    row = gateway.enqueue()
    # Nothing has left: it is tried again, and goes once it may.
    until(lambda: gateway.attempts(row["verification_id"])[:1] == [("send", "unreachable")], "it was tried")
    assert simulator.count() == 0
    allow(gateway, "")
    assert gateway.wait(row["verification_id"])["outcome"] == "sent"
    assert simulator.count() == 1


# Changes


def test_narrowed_while_connections_are_warm(gateway, simulator):
    for _ in range(3):
        assert called(gateway, simulator) is None
    assert len({entry["connection"] for entry in simulator.log()}) == 1
    allow(gateway, "10.0.0.0/8")
    for _ in range(3):
        assert called(gateway, simulator)
    allow(gateway, "")
    assert called(gateway, simulator) is None
    # The old connection was given up, not kept for later.
    assert len({entry["connection"] for entry in simulator.log()}) == 2


def test_a_call_under_way_ends_as_it_began(gateway, simulator):
    simulator.fault("hold", "ideamart", "send", times=1)
    with contextlib.closing(gateway.connect()) as session:
        body = json.dumps({"mobile": gateway.number()})
        running = Running(session, "SELECT outcome FROM otp_send('ideamart', %s::jsonb)", (body,))
        simulator.held(1)
        allow(gateway, "10.0.0.0/8")
        assert called(gateway, simulator)
        simulator.release()
        assert running.row()["outcome"] == "sent"


def test_a_reload_of_something_else_keeps_connections(gateway, simulator):
    allow(gateway, "127.0.0.1")
    assert called(gateway, simulator) is None
    gateway.execute(f"LISTEN {gateway.execute('SELECT otp_gateway.channel()')[0][0]}")
    gateway.execute("ALTER SYSTEM SET otp_gateway.notify = on")
    try:
        gateway.cluster.reload()
        # What the session has been told arrives with its next answer.
        until(lambda: called(gateway, simulator) is None and gateway.session.notifies, "it was reloaded")
    finally:
        gateway.execute("ALTER SYSTEM RESET otp_gateway.notify")
        gateway.cluster.reload()
        gateway.execute("UNLISTEN *")
    assert len({entry["connection"] for entry in simulator.log()}) == 1


def test_narrowed_under_load(gateway, simulator):
    """From the first refusal on, nothing of any session gets through."""
    stop, outcomes = threading.Event(), []

    def send(to):
        with contextlib.closing(gateway.connect()) as session:
            while not stop.is_set():
                outcomes.append(gateway.send("loaded", to, session, "ideamart")["outcome"])

    gateway.create_provider("loaded", "ideamart", enforce="observe")
    threads = [threading.Thread(target=send, args=(gateway.number(),)) for _ in range(8)]
    [thread.start() for thread in threads]
    until(lambda: outcomes.count("sent") > 50, "there is load")
    allow(gateway, "10.0.0.0/8")
    # Those that had begun before have ended when each session has been refused once.
    refused = outcomes.count("unreachable")
    until(lambda: outcomes.count("unreachable") > refused + 50, "they are refused")
    count = simulator.count()
    until(lambda: outcomes.count("unreachable") > refused + 200, "they are refused again")
    stop.set()
    [thread.join(20) for thread in threads]
    assert simulator.count() == count == outcomes.count("sent")
    assert set(outcomes) == {"sent", "unreachable"}


# Malformed lists

MALFORMED = [
    ("127.0.0.1, 10.0.0.1/8", '"10.0.0.1/8"', "write 10.0.0.0/8 or 10.0.0.1"),
    ("https://vendor.example", '"https://vendor.example"', "10.1.0.0/16"),
    ("vendor.example:443", '"vendor.example:443"', "no scheme, port or path"),
    ("127.1", '"127.1"', "write 127.0.0.1"),
    ("::ffff:127.0.0.1", '"::ffff:127.0.0.1"', "IPv4"),
    ("*", '"*"', "nothing at all to allow every host"),
    ("127.0.0.1,", '""', "no host name"),
]


@pytest.mark.parametrize("hosts, entry, rule", MALFORMED, ids=[entry for _, entry, _ in MALFORMED])
def test_a_malformed_list_cannot_be_set(gateway, hosts, entry, rule):
    with pytest.raises(psycopg2.errors.InvalidParameterValue) as refused:
        gateway.execute(f"ALTER SYSTEM SET {SETTING} = '{hosts}'")
    said = refused.value.diag
    assert SETTING in said.message_primary and entry in said.message_detail and rule in said.message_detail


def test_a_malformed_list_in_the_file_changes_nothing(gateway, simulator, cluster):
    automatic = cluster.data / "postgresql.auto.conf"
    allow(gateway, "127.0.0.0/30")
    allowed = automatic.read_text()
    try:
        automatic.write_text(allowed.replace("127.0.0.0/30", "127.0.0.1/30"))
        gateway.execute("SELECT pg_reload_conf()")
        until(lambda: "127.0.0.1/30" in cluster.log(), "the server complains")
        assert 'entry "127.0.0.1/30" has bits set' in cluster.log()
        assert called(gateway, simulator) is None
        assert "127.0.0.8" in called(gateway, simulator, "127.0.0.8")
    finally:
        automatic.write_text(allowed)


def test_no_start_with_a_malformed_list(own_cluster, simulator):
    """Left to itself, Postgres would warn and start with the default, which allows everything."""
    own_cluster.stop()
    own_cluster.configure({SETTING: "'127.0.0.1, 10.0.0.1/8'"})
    with pytest.raises(RuntimeError, match='FATAL: .*entry "10.0.0.1/8" has bits set beyond its prefix length'):
        own_cluster.start()
    own_cluster.configure({SETTING: "'10.0.0.0/8'"})
    own_cluster.start()
    with own_cluster.session() as session:
        session.cursor().execute("CREATE EXTENSION otp_gateway")
    # And it holds from the first call on.
    with Gateway(own_cluster, "postgres", simulator) as gateway:
        gateway.create_providers()
        assert "127.0.0.1" in called(gateway, simulator)


# Whose it is


def test_only_a_superuser_sets_it(gateway, role):
    name, session = role
    database = gateway.database
    gateway.execute(f"ALTER DATABASE {database} OWNER TO {name}")
    statements = [
        f"SET {SETTING} = ''",
        f"SET LOCAL {SETTING} = ''",
        f"SELECT set_config('{SETTING}', '', false)",
        f"RESET {SETTING}",
        f"ALTER ROLE {name} SET {SETTING} = ''",
        f"ALTER DATABASE {database} SET {SETTING} = ''",
        f"ALTER ROLE {name} IN DATABASE {database} SET {SETTING} = ''",
        f"ALTER SYSTEM SET {SETTING} = ''",
        f"CREATE FUNCTION open() RETURNS void LANGUAGE sql SET {SETTING} = '' AS ''",
    ]
    try:
        for statement in statements:
            with pytest.raises((psycopg2.errors.CantChangeRuntimeParam, psycopg2.errors.InsufficientPrivilege)):
                gateway.execute(statement, None, session)
        with pytest.raises(psycopg2.OperationalError, match="cannot be changed now"):
            gateway.connect(user=name, options=f"-c {SETTING}=")
        # A superuser sets it for the server, not for a session.
        with pytest.raises(psycopg2.errors.CantChangeRuntimeParam):
            gateway.execute(f"SET {SETTING} = ''")
    finally:
        gateway.execute(f"ALTER DATABASE {database} OWNER TO postgres")


def test_what_a_refusal_tells(gateway, simulator, names):
    """A name is resolved before the list is asked: who makes providers learns which names there are."""
    names.say(inside="127.0.0.1")
    allow(gateway, "10.0.0.0/8")
    told = []
    for host in ("inside.example", "outside.example"):
        at(gateway, "ideamart", base_url=f"http://{host}:9", enforce="observe")
        row = gateway.send()
        assert row["outcome"] == "unreachable" and simulator.count() == 0
        told.append(SETTING in row["vendor_message"])
    assert told == [True, False]


def test_who_sees_it(gateway, role):
    """A superuser, and pg_read_all_settings, which is in pg_monitor."""
    name, session = role
    for statement in (f"SHOW {SETTING}", f"SELECT current_setting('{SETTING}')"):
        with pytest.raises(psycopg2.errors.InsufficientPrivilege):
            gateway.execute(statement, None, session)
    shown = f"SELECT count(*)::int FROM pg_settings WHERE name = '{SETTING}'"
    assert (gateway.execute(shown, None, session), gateway.execute(shown)) == ([(0,)], [(1,)])
    assert SETTING not in dict((row[0], row[1]) for row in gateway.execute("SHOW ALL", None, session))
    gateway.execute(f"GRANT pg_monitor TO {name}")
    assert len(gateway.execute(f"SHOW {SETTING}", None, session)) == 1


def test_a_value_from_before_the_library_was_loaded(simulator):
    """What has no owner yet can be set for a database: up to Postgres 14 by the database's own owner."""
    cluster = Cluster(preload=False).create()
    try:
        cluster.start()
        with cluster.session() as session:
            session.cursor().execute(f"ALTER DATABASE postgres SET {SETTING} = ''")
        cluster.configure({"shared_preload_libraries": "'otp_gateway'", SETTING: "'10.0.0.0/8'"})
        cluster.restart()
        with cluster.session() as session:
            session.cursor().execute("CREATE EXTENSION otp_gateway")
        with Gateway(cluster, "postgres", simulator) as gateway:
            gateway.create_providers()
            assert gateway.execute("SELECT setconfig FROM pg_db_role_setting") == [([f"{SETTING}="],)]
            assert "127.0.0.1" in called(gateway, simulator)
    finally:
        cluster.remove()
