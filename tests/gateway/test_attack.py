"""Promise: an insider gets what SECURITY.md says, and no more. Each test is one line of a table of attempts on 0.3.0, made
by a role of that kind: those that held then ("held"), and those that fell (R1 to R22), which are to hold now. It asserts
what is right, not how it is done. What has a file of its own (test_rights.py, test_hostile.py, test_limits.py,
test_allowed_hosts.py, test_documented_functions.py) is here in one line at most."""

import contextlib
import ctypes
import datetime
import json
import os
import pathlib
import re
import stat
import struct
import subprocess

import psycopg2
import pytest

from cluster import BINDIR, Cluster
from conftest import CREDENTIALS, FLOWS, Gateway, Running, until
from test_crash import worker_pid
from test_enqueue import preparing as preparing
from test_enqueue import preparing_cluster as preparing_cluster
from test_logs import Libpq
from test_record import TRANSACTION


class Insiders:
    """A database with the five providers, and roles made as a test needs them."""

    def __init__(self, gateway):
        self.gateway, self.simulator = gateway, gateway.simulator
        self.execute = gateway.execute
        self.prefix, self.sessions = f"insider_{os.urandom(3).hex()}", {}

    def name(self, role):
        return f"{self.prefix}_{role}"

    def role(self, role, attributes="", usage=(), member_of=()):
        """The session of a role: USAGE on these providers, a member of these roles."""
        name = self.name(role)
        self.execute(f"CREATE ROLE {name} LOGIN {attributes}")
        for provider in usage:
            self.execute(f"GRANT USAGE ON FOREIGN SERVER {provider} TO {name}")
        for other in member_of:
            self.execute(f"GRANT {other} TO {name}")
        self.sessions[role] = self.gateway.connect(user=name)
        return self.sessions[role]

    def state(self, statement, session, arguments=None):
        """What becomes of a statement, which is undone: an SQLSTATE, or the number of rows."""
        session.autocommit = False
        try:
            with session.cursor() as cursor:
                cursor.execute(statement, arguments)
                return cursor.rowcount
        except psycopg2.Error as error:
            return error.pgcode
        finally:
            session.rollback()
            session.autocommit = True

    def allowed(self, session, statements):
        """Those that are not refused for want of a right, or for want of the thing."""
        return [
            one
            for one in statements
            if self.state(one, session) not in ("42501", "42704", "42883", "42P01", "0A000", "39P01")
        ]

    def compared(self, vendor, recipient=None):
        """How many codes the vendor has compared: guesses that reached it."""
        return self.simulator.count(vendor, "verify", recipient)

    def close(self):
        for session in self.sessions.values():
            session.close()
        # With their temporary tables.
        there = "SELECT 1 FROM pg_stat_activity WHERE usename = ANY (%s)"
        until(
            lambda: self.execute(there, ([self.name(role) for role in self.sessions],)) == [], "their sessions are gone"
        )
        for role in self.sessions:
            self.execute(f"REASSIGN OWNED BY {self.name(role)} TO postgres; DROP OWNED BY {self.name(role)} CASCADE")
        for role in self.sessions:
            self.execute(f"DROP ROLE {self.name(role)}")


@pytest.fixture
def insiders(quick_gateway):
    yield from among(quick_gateway)


@pytest.fixture
def insiders_alone(gateway):
    """In a database of the test's own, which it leaves as no other test wants it."""
    yield from among(gateway)


def among(gateway):
    insiders = Insiders(gateway)
    try:
        yield insiders
    finally:
        gateway.drain()
        insiders.close()


@contextlib.contextmanager
def elsewhere(cluster, simulator, name="postgres"):
    """For attacks that may take the server down, or that are on the server as a whole: a cluster of its own."""
    with cluster.session(name) as session, session.cursor() as cursor:
        cursor.execute("CREATE EXTENSION otp_gateway")
    with Gateway(cluster, name, simulator) as gateway:
        gateway.create_providers()
        insiders = Insiders(gateway)
        try:
            yield insiders
        finally:
            insiders.close()


def wrong(code):
    return code[:-1] + ("1" if code[-1] != "1" else "2")


def outcome(gateway, *arguments, session, **payload):
    """Of a verify by reference or number; a refusal is one, too."""
    try:
        return gateway.verify_at(*arguments, session, **payload)["outcome"]
    except psycopg2.Error as error:
        assert error.pgcode in ("42501", "42704") or "recipient" in str(error) or "belongs" in str(error), error
        return error.pgcode


# a role with CONNECT and nothing else


def test_connect_reads_and_calls_nothing(insiders):
    """Held."""
    nobody = insiders.role("nobody")
    id = insiders.gateway.send()["verification_id"]
    tables = ("verification_record", "attempt_record", "reference", "breaker")
    assert insiders.allowed(nobody, [f"SELECT * FROM otp_gateway_internal.{table}" for table in tables]) == []
    assert (
        insiders.allowed(
            nobody,
            [
                "SELECT otp_send('ideamart', '{\"mobile\": \"0771231231\"}')",
                "SELECT otp_enqueue('ideamart', '{\"mobile\": \"0771231231\"}')",
                "SELECT otp_verify('ideamart', '1234', '{\"reference\": \"r\"}')",
                f"SELECT otp_verify('{id}'::uuid, '1234')",
                f"SELECT otp_resend('{id}')",
                f"SELECT otp_cancel('{id}')",
                f"SELECT otp_gateway.wait('{id}', '1s')",
                "SELECT otp_gateway.forget('ideamart', '0771231231')",
                "SELECT otp_gateway.purge('30 years')",
                "SELECT otp_gateway.rotate_key()",
                "SELECT otp_gateway.send_after_commit()",
                "SELECT otp_gateway_internal.note_queued()",
            ],
        )
        == []
    )
    for rows in ("otp_gateway.verification", "otp_gateway.attempt", "otp_gateway.find('ideamart', '0771231231')"):
        assert insiders.execute(f"SELECT * FROM {rows}", session=nobody) == []


# What the four functions that take an id are sent in its place: ids, TOAST pointers, expanded objects, every length.
POINTERS = [
    "01a200f75a4870479b4535f21e75f89a",
    "0101" + "41" * 14,
    "0102" + "41" * 14,
    "0112" + "00000000" * 3 + "0000",
    "00" * 16,
    "ff" * 16,
    "03" + "00" * 15,
    "02000000" + "00" * 12,
]


class FastPath(Libpq):
    """The protocol's FunctionCall message, which knows no expression around the call."""

    class Argument(ctypes.Structure):
        _fields_ = [("length", ctypes.c_int), ("isint", ctypes.c_int), ("pointer", ctypes.c_char_p)]

    def call(self, function, *values):
        """SQLSTATE; None where it went well. Fails if the server is gone."""
        arguments = (self.Argument * len(values))(*(self.Argument(len(value), 0, value) for value in values))
        into, length = ctypes.create_string_buffer(65536), ctypes.c_int()
        self.library.PQfn.restype = ctypes.c_void_p
        result = ctypes.c_void_p(
            self.library.PQfn(self.connection, function, into, ctypes.byref(length), 0, arguments, len(values))
        )
        state = self.library.PQresultErrorField(result, ord("C"))
        self.library.PQclear(result)
        assert self.library.PQstatus(self.connection) == 0, self.library.PQerrorMessage(self.connection)
        return state and state.decode()


def test_connect_calls_by_the_fast_path(own_cluster, simulator):
    """R1: a login took the whole server down. An id that is not there is 42704, as by SQL."""
    with elsewhere(own_cluster, simulator) as insiders:
        insiders.role("nobody")
        functions = {
            "public.otp_cancel(uuid)": (),
            "public.otp_resend(uuid, jsonb)": (b"\x01{}",),
            "public.otp_verify(uuid, text, jsonb)": (b"1234", b"\x01{}"),
            "otp_gateway.wait(uuid, interval)": (struct.pack("!qii", 1000, 0, 0),),
        }
        session = FastPath(own_cluster, "postgres", insiders.name("nobody"))
        for function, more in functions.items():
            ((oid,),) = insiders.execute("SELECT %s::regprocedure::oid::int", (function,))
            for pointer in POINTERS:
                assert session.call(oid, bytes.fromhex(pointer), *more) == "42704", function
        session.close()
        assert insiders.execute("SELECT 1") == [(1,)]


@pytest.mark.parametrize(
    "call",
    [
        "otp_gateway.wait(gen_random_uuid(), '178000000 years')",
        "otp_gateway.wait(gen_random_uuid(), '-178000000 years')",
        "otp_gateway.purge('178000000 years')",
        "otp_gateway.purge('-178000000 years')",
        "otp_send('ideamart', ('{\"mobile\": \"' || repeat('7', 100000) || '\"}')::jsonb)",
        "otp_send('ideamart', (repeat('[', 5000) || repeat(']', 5000))::jsonb)",
        "otp_send(repeat('x', 100000), '{}')",
        "otp_send(E'ideamart\\n', '{\"mobile\": \"0771231231\"}')",
        "otp_send('ideamart', '{\"mobile\": \"0771231231\"}', repeat('k', 1000000))",
        "otp_verify('ideamart', repeat('1', 1000000), '{\"reference\": \"r\"}')",
        "otp_gateway_internal.iserveu_validator(ARRAY[['a=b'], ['c=d']], 0)",
        "otp_gateway_internal.iserveu_validator('{NULL}', 1417)",
        "otp_gateway_internal.effective_settings(0)",
        "otp_gateway_internal.effective_settings(4294967295)",
    ],
)
def test_connect_calls_with_odd_values(insiders, call):
    """Held: an error of its own, or nothing at all."""
    nobody = insiders.role("nobody", usage=["ideamart"])
    assert insiders.state(f"SELECT {call}", nobody) in (
        "22023",
        "42704",
        "42501",
        "22001",
        "54001",
        "22P02",
        "22004",
        "HV00D",
        1,
    )
    assert insiders.simulator.count() == 0


def test_connect_takes_no_locks(insiders):
    """Held: what reading takes, and no more."""
    nobody = insiders.role("nobody")
    for view in ("verification", "attempt"):
        assert (
            insiders.allowed(
                nobody, [f"LOCK TABLE otp_gateway.{view} IN SHARE MODE", f"SELECT FROM otp_gateway.{view} FOR UPDATE"]
            )
            == []
        )


def test_connect_hides_from_the_log(insiders, cluster):
    """R13: a comment or a string that names a function of ours hides no statement; nor is anything hidden in a database
    that has no extension."""
    nobody = insiders.role("nobody")
    probes = []
    for session in (nobody, cluster.connect("postgres", user=insiders.name("nobody"))):
        for probe in ("", "/*otp_(*/", "/* otp_verify( */", "/* x */ WHERE 'otp_send(1)' = ''", "-- otp_verify(1, 2)"):
            mark = f"probe{os.urandom(6).hex()}"
            assert insiders.state(f"SELECT {mark} FROM pg_authid {probe}", session) in ("42501", "42703")
            probes.append(mark)
    session.close()
    log = cluster.log()
    shown = [mark for mark in probes if re.search(rf"STATEMENT:.*{mark}", log)]
    # The control: those that hide nothing.
    assert {probes[0], probes[5]} <= set(shown)
    assert shown == probes


def test_connect_listens_and_notifies(insiders, preparing):
    """R19: who may connect hears nothing of others': their channels' names are told to nobody, and what they say on a
    channel of any name is a hint, and no fact. The record is as it was."""
    insiders = Insiders(preparing)
    try:
        nobody = insiders.role("nobody")
        [(channel,)] = insiders.execute("SELECT otp_gateway.channel()")
        for name in (
            "otp_gateway",
            "otp_gateway_" + "0" * 32,
            insiders.execute("SELECT otp_gateway.channel()", session=nobody)[0][0],
        ):
            insiders.execute(f"LISTEN {name}", session=nobody)
        assert insiders.state("SELECT otp_gateway.channel('postgres')", nobody) == "42501"
        owner = preparing.connect()
        insiders.execute(f"LISTEN {channel}", session=owner)
        id = preparing.send()["verification_id"]
        until(lambda: owner.poll() or any(str(id) in notify.payload for notify in owner.notifies), "the notification")
        insiders.execute(f'NOTIFY otp_gateway, \'{{"id": "{id}", "status": "approved"}}\'', session=nobody)
        until(lambda: nobody.poll() or nobody.notifies, "their own")
        assert [notify.channel for notify in nobody.notifies] == ["otp_gateway"]
        assert preparing.verification(id)["status"] == "pending"
        owner.close()
    finally:
        insiders.close()


def test_connect_learns_how_much_there_is(insiders):
    """R22: EXPLAIN ANALYZE and the statistics tell every role how many rows there are, of which time (ids begin with it),
    and nothing of them."""
    nobody = insiders.role("nobody")
    to = insiders.gateway.number()
    insiders.gateway.send(to=to)
    for since, met in (("00000000-0000-7000-8000-000000000000", True), ("f0000000-0000-7000-8000-000000000000", False)):
        plan = insiders.execute(
            "EXPLAIN ANALYZE SELECT * FROM otp_gateway.attempt WHERE id >= %s::uuid", (since,), nobody
        )
        text = "\n".join(line for (line,) in plan)
        assert (
            bool(re.search(r"on attempt_record a .*\(actual .* rows=1(?:\.00)? loops=1\)", text)) == met
            and to.lstrip("0") not in text
        )
    written = "SELECT n_tup_ins > 0 FROM pg_stat_user_tables WHERE relname = 'attempt_record'"
    # The worker reports now and then.
    until(lambda: insiders.gateway.send() and insiders.execute(written, session=nobody) == [(True,)], "the statistics")


# USAGE on one provider


def test_usage_touches_nothing_of_another_role(insiders):
    """Held: by its id, it is as if it were not there."""
    owner, thief = insiders.role("a", usage=["ideamart"]), insiders.role("b", usage=["ideamart"])
    to = insiders.gateway.number()
    id = insiders.gateway.send(to=to, session=owner)["verification_id"]
    code = insiders.simulator.code("ideamart", to)
    assert (
        insiders.allowed(
            thief,
            [
                f"SELECT otp_verify('{id}'::uuid, '{code}')",
                f"SELECT otp_verify('{id}', '{code}')",
                f"SELECT otp_resend('{id}')",
                f"SELECT otp_cancel('{id}')",
                f"SELECT otp_gateway.wait('{id}', '1s')",
                f"SELECT otp_gateway.forget('ideamart', '{to}')",
                "SELECT otp_gateway.purge('1 day')",
            ],
        )
        == []
    )
    assert insiders.execute("SELECT * FROM otp_gateway.find('ideamart', %s)", (to,), thief) == []
    assert insiders.gateway.verify(id, code, owner)["outcome"] == "approved"


def test_usage_leaves_the_mapping_of_public_alone(insiders):
    """Held: neither read nor changed, and a file only for those who may read files."""
    role = insiders.role("b", usage=["ideamart"])
    assert (
        insiders.allowed(
            role,
            [
                "ALTER USER MAPPING FOR PUBLIC SERVER ideamart OPTIONS (SET application_id 'x')",
                "DROP USER MAPPING FOR PUBLIC SERVER ideamart",
                "CREATE USER MAPPING FOR postgres SERVER ideamart OPTIONS (application_id 'x', password 'y')",
                "CREATE USER MAPPING FOR CURRENT_USER SERVER ideamart OPTIONS (application_id 'x', password_file '/etc/passwd')",
            ],
        )
        == []
    )
    shown = insiders.execute("SELECT umoptions FROM pg_user_mappings WHERE srvname = 'ideamart'", session=role)
    assert shown == [(None,)]


@pytest.mark.parametrize(
    "credentials",
    [
        ("hyperverge", "app_id 'x', app_key 'wrong'"),
        ("hyperverge", r"app_id E'x\ny', app_key 'z'"),
        ("ideamart", "application_id 'x', password 'wrong'"),
    ],
    ids=["wrong", "with a newline", "wrong in the body"],
)
def test_usage_opens_no_breaker_for_others(insiders, credentials):
    """R5: credentials of one's own that fail, or that cannot stand in a header, are one's own trouble."""
    provider, options = credentials
    honest, saboteur = insiders.role("a", usage=[provider]), insiders.role("b", usage=[provider])
    # Refused when it is written, or of no consequence.
    with contextlib.suppress(psycopg2.errors.InvalidParameterValue):
        insiders.execute(
            f"CREATE USER MAPPING FOR CURRENT_USER SERVER {provider} OPTIONS ({options})", session=saboteur
        )
        for _ in range(8):
            assert insiders.gateway.send(provider, session=saboteur)["outcome"] in (
                "auth_failed",
                "unreachable",
                "blocked",
            )
    assert insiders.gateway.send(provider, session=honest)["outcome"] == "sent"


def test_usage_rolls_guesses_back(insiders):
    """Held: as many as max_checks reach the vendor, whoever rolls back, in parallel, too."""
    gateway = insiders.gateway
    role = insiders.role("b", usage=["ideamart"])
    to = gateway.number()
    id = gateway.send(to=to, session=role)["verification_id"]
    code = wrong(insiders.simulator.code("ideamart", to))
    sessions = [gateway.connect(user=insiders.name("b"), autocommit=False) for _ in range(8)]
    try:
        for _ in range(3):
            running = [
                Running(session, "SELECT outcome FROM otp_verify(%s::uuid, %s)", (id, code)) for session in sessions
            ]
            for one in running:
                one.wait().session.rollback()
    finally:
        for session in sessions:
            session.close()
    assert insiders.compared("ideamart") == 3


def test_usage_sends_by_every_spelling_and_way(insiders):
    """Held: the limit is the recipient's, direct and by a route, now and later, whoever sends."""
    gateway = insiders.gateway
    gateway.execute(
        "ALTER SERVER ideamart OPTIONS (ADD send_limit '2 per hour'); ALTER SERVER ideamart OPTIONS (SET resend_after '0s')"
    )
    gateway.execute("CREATE SERVER way FOREIGN DATA WRAPPER otp_route OPTIONS (providers 'ideamart')")
    sessions = [insiders.role(name, usage=["ideamart", "way"]) for name in ("a", "b")]
    to = gateway.number()
    national = to.lstrip("0")
    spellings = [to, f"+94{national}", f"0094{national}", f"{to[:3]} {to[3:]}", f"+94-{national[:2]}-{national[2:]}"]
    for provider in ("ideamart", "way"):
        for session in sessions:
            for spelling in spellings:
                for call in ("otp_send", "otp_enqueue"):
                    gateway.row(f"SELECT * FROM {call}(%s, %s)", (provider, json.dumps({"mobile": spelling})), session)
    gateway.settle()
    assert insiders.simulator.count("ideamart", "send") == 2


def test_usage_sets_nothing(insiders):
    """Held: our settings and the options of a provider are not for who sends."""
    role = insiders.role("b", usage=["ideamart"])
    settings = (
        "max_sends_per_transaction = 1000000",
        "max_tries = 100",
        "retention = 1",
        "notify = on",
        "queue_max_age = '1d'",
        "key_file = '/tmp/k'",
        "allowed_hosts = ''",
    )
    assert [one for one in settings if insiders.state(f"SET otp_gateway.{one}", role) not in ("42501", "55P02")] == []
    for whose in (f"ROLE {insiders.name('b')}", f"DATABASE {insiders.gateway.database}"):
        assert [
            one
            for one in settings
            if insiders.state(f"ALTER {whose} SET otp_gateway.{one}", role) not in ("42501", "55P02")
        ] == []
    assert insiders.allowed(role, ["ALTER SERVER ideamart OPTIONS (SET resend_after '1s')"]) == []


def test_usage_approves_once(insiders):
    """Held: a code that was taken is taken, by id and by reference, after a rollback, too."""
    gateway = insiders.gateway
    role = insiders.role("b", usage=["ideamart"])
    to = gateway.number()
    row = gateway.send(to=to, session=role)
    code = insiders.simulator.code("ideamart", to)
    role.autocommit = False
    assert gateway.verify(row["verification_id"], code, role)["outcome"] == "approved"
    role.rollback()
    role.autocommit = True
    assert gateway.verify(row["verification_id"], code, role)["outcome"] == "already_used"
    assert outcome(gateway, "ideamart", code, session=role, reference=row["reference"]) != "approved"
    assert insiders.compared("ideamart") <= 2


def test_usage_takes_what_is_everybody_s(insiders):
    """R22: what a provider has for all together, one role can use up: its bill (provider_limit) and its places
    (max_in_flight). Who must not meet so has a provider of their own."""
    gateway = insiders.gateway
    gateway.execute("ALTER SERVER ideamart OPTIONS (ADD provider_limit '3 per hour')")
    gateway.execute("ALTER SERVER hyperverge OPTIONS (ADD max_in_flight '1', ADD timeout '4s')")
    roles = [insiders.role(name, usage=["ideamart", "hyperverge"]) for name in ("a", "b")]
    for _ in range(3):
        assert gateway.send(session=roles[1])["outcome"] == "sent"
    assert gateway.send(session=roles[0])["reason"] == "provider_limit"
    insiders.simulator.fault("hold", "hyperverge", "send", times=1)
    body = json.dumps(FLOWS["hyperverge"]["send"](gateway.number("hyperverge")))
    slow = Running(roles[1], "SELECT * FROM otp_send('hyperverge', %s)", (body,))
    insiders.simulator.held(1)
    assert gateway.send("hyperverge", session=roles[0])["outcome"] == "unreachable"
    insiders.simulator.release()
    slow.wait()
    # And what its vendor answers to one of those who share credentials is held against the account.
    insiders.simulator.fault("status", "paytm", "send", status=500, times=5)
    for role in roles:
        gateway.execute(f"GRANT USAGE ON FOREIGN SERVER paytm TO {role.info.user}")
    for _ in range(5):
        assert gateway.send("paytm", session=roles[1])["outcome"] in ("provider_error", "unknown")
    assert gateway.send("paytm", session=roles[0])["reason"] == "breaker"


def test_usage_learns_when_somebody_sent(insiders):
    """R22: retry_after tells, to the microsecond, when another role sent to the number, as far back as the window is."""
    gateway = insiders.gateway
    gateway.execute("ALTER SERVER ideamart OPTIONS (ADD send_limit '1 per 31 days')")
    first, second = (insiders.role(name, usage=["ideamart"]) for name in ("a", "b"))
    to = gateway.number()
    gateway.send(to=to, session=first)
    ((began,),) = gateway.execute("SELECT started_at FROM otp_gateway.attempt")
    row = gateway.send(to=to, session=second)
    ((blocked,),) = gateway.execute("SELECT started_at FROM otp_gateway.attempt WHERE outcome = 'blocked'")
    told = blocked + row["retry_after"] - datetime.timedelta(days=31)
    assert abs(told - began) < datetime.timedelta(seconds=1)


# Guessing: what counts is what the vendor compared. By id, by reference, by number, in whosever name.

CHECKED = {"ideamart": 3, "relid": 5, "paytm": 5}


def named(vendor, row, to):
    """What a verify by reference takes, where it takes no number."""
    if vendor == "paytm":
        return {"mid": "MID01", "order_id": row["reference"], "token": FLOWS["paytm"]["send"](to)["token"]}
    return {"reference": row["reference"]}


@pytest.mark.parametrize("vendor", CHECKED)
@pytest.mark.parametrize("by", ["id", "reference"])
def test_usage_guesses(insiders, vendor, by):
    """Held by id, R2 by reference: a new send gives no new guesses."""
    gateway = insiders.gateway
    role = insiders.role("b", usage=[vendor])
    to = gateway.number(vendor)
    for number in range(6):
        more = {"order_id": f"ORDER{number}"} if vendor == "paytm" else {}
        row = gateway.send(vendor, to=to, session=role, **more)
        if row["outcome"] != "sent":
            continue
        guess = insiders.simulator.wrong(vendor, to)
        for _ in range(3):
            if by == "id":
                gateway.verify(row["verification_id"], guess, role)
            else:
                outcome(gateway, vendor, guess, session=role, **named(vendor, row, to))
    assert 0 < insiders.compared(vendor) <= CHECKED[vendor]


class Beneficiary:
    """iServeU's type 2, whose verify takes a reference and a number."""

    def __init__(self, insiders, session):
        self.gateway, self.simulator, self.session = insiders.gateway, insiders.simulator, session

    def send(self, to, reference):
        body = {"mobile": to, "otp_type": "2", "username": "agent1", "reference": reference, "amount": "100"}
        row = self.gateway.row("SELECT * FROM otp_send('iserveu', %s::jsonb)", (json.dumps(body),), self.session)
        return row["outcome"] == "sent"

    def verify(self, code, to, reference):
        more = {**TRANSACTION, "mobile": to, "otp_type": "2", "username": "agent1", "reference": reference}
        return outcome(self.gateway, "iserveu", code, session=self.session, **more)

    def answers(self, **body):
        """The next verify: of a vendor that does not look whose number comes with a reference."""
        self.simulator.fault("reply", "iserveu", "verify", body=body, times=1)


def test_usage_forgives_with_an_approval_of_its_own(insiders):
    """R12: one's own right code in the victim's name forgives none of the victim's wrong ones."""
    gateway, flow = insiders.gateway, Beneficiary(insiders, insiders.role("b", usage=["iserveu"]))
    victim = gateway.number("iserveu")
    guessed = 0
    for round in range(6):
        if flow.send(victim, f"VICTIM{round}"):
            insiders.simulator.clear_faults()
            for _ in range(4):
                before = insiders.compared("iserveu")
                flow.verify(insiders.simulator.wrong("iserveu", victim), victim, f"VICTIM{round}")
                guessed += insiders.compared("iserveu") - before
        own = gateway.number("iserveu")
        assert flow.send(own, f"OWNFLOW{round}")
        flow.answers(status="SUCCESS", statusCode="0")
        flow.verify(insiders.simulator.code("iserveu", own), victim, f"OWNFLOW{round}")
    assert 0 < guessed <= 5


def test_usage_guesses_in_the_names_of_others(insiders):
    """R12: the victim's flow, by its reference, with another number each time: it is the victim's checks that are spent."""
    gateway, flow = insiders.gateway, Beneficiary(insiders, insiders.role("b", usage=["iserveu"]))
    victim = gateway.number("iserveu")
    for round in range(5):
        if flow.send(victim, f"VICTIM{round}"):
            if round == 0:
                # The control: in the victim's own name it reaches the vendor.
                assert flow.verify(insiders.simulator.wrong("iserveu", victim), victim, "VICTIM0") == "invalid_code"
            for _ in range(4):
                flow.answers(**{"status": "FAILED", "statusCode": "3", "status-desc": "Invalid OTP"})
                flow.verify(insiders.simulator.wrong("iserveu", victim), gateway.number("iserveu"), f"VICTIM{round}")
    assert 0 < insiders.compared("iserveu") <= 5


def test_usage_locks_nobody_out(insiders):
    """R16: wrong codes by a role that sent nothing take the right one from nobody who was sent it."""
    gateway = insiders.gateway
    honest, saboteur = insiders.role("a", usage=["hyperverge"]), insiders.role("b", usage=["hyperverge"])
    to = gateway.number("hyperverge")
    id = gateway.send("hyperverge", to=to, session=honest)["verification_id"]
    guess = insiders.simulator.wrong("hyperverge", to)
    for _ in range(8):
        outcome(gateway, "hyperverge", guess, session=saboteur, mobile=to)
    # And they are as many as anybody has.
    assert insiders.compared("hyperverge") <= 5
    assert gateway.verify(id, insiders.simulator.code("hyperverge", to), honest)["outcome"] == "approved"


def test_usage_holds_no_key_of_another_role(preparing):
    """R6: a key that another role has in an open or in a prepared transaction makes nobody wait, and shows nobody anything."""
    insiders = Insiders(preparing)
    try:
        honest, saboteur = insiders.role("a", usage=["ideamart"]), insiders.role("b", usage=["ideamart"])
        nobody = insiders.role("n")
        for session in (honest, nobody):
            insiders.execute("SET statement_timeout = '15s'", session=session)
        keyed = "SELECT * FROM {}('ideamart', %s, 'request-4711')"

        def call(function, session):
            return preparing.row(keyed.format(function), (json.dumps({"mobile": preparing.number()}),), session)

        insiders.execute("BEGIN", session=saboteur)
        call("otp_enqueue", saboteur)
        for end in ("PREPARE TRANSACTION 'hold'", None):
            for function in ("otp_send", "otp_enqueue"):
                with pytest.raises(psycopg2.errors.InsufficientPrivilege):
                    call(function, nobody)
            with contextlib.suppress(psycopg2.errors.InvalidParameterValue):
                # One's own key, which the second time stands for another payload.
                assert call("otp_send", honest)["outcome"] == "sent"
            if end:
                insiders.execute(end, session=saboteur)
    finally:
        with contextlib.suppress(psycopg2.Error):
            insiders.execute("ROLLBACK PREPARED 'hold'")
        insiders.close()


def test_usage_fills_the_queue(insiders):
    """R18: turns go by role: one's few do not wait for all that another role has enqueued."""
    gateway = insiders.gateway
    gateway.execute("ALTER SERVER ideamart OPTIONS (ADD max_in_flight '2')")
    flooder, other = insiders.role("a", usage=["ideamart"]), insiders.role("b", usage=["ideamart"])
    insiders.simulator.fault("latency", "ideamart", "send", ms=20)
    gateway.enqueue_many(200, session=flooder)
    to = gateway.number()
    gateway.enqueue(to=to, session=other)
    insiders.simulator.count("ideamart", "send", to, atleast=1, wait=30_000)
    assert insiders.simulator.count("ideamart", "send") < 100


# a route, and forgetting


def test_route_without_usage_on_its_members(insiders):
    """R3: what a route reaches, its owner must be allowed to reach. The error names the member."""
    gateway = insiders.gateway
    gateway.execute("CREATE SERVER handed FOREIGN DATA WRAPPER otp_route OPTIONS (providers 'ideamart')")
    mallory = insiders.role("mallory")
    gateway.execute(f"GRANT USAGE ON FOREIGN DATA WRAPPER otp_route TO {insiders.name('mallory')}")
    gateway.execute(f"ALTER SERVER handed OWNER TO {insiders.name('mallory')}")
    with contextlib.suppress(psycopg2.errors.InsufficientPrivilege):
        gateway.execute(
            "CREATE SERVER mine FOREIGN DATA WRAPPER otp_route OPTIONS (providers 'ideamart')", session=mallory
        )
    routes = [
        name
        for (name,) in gateway.execute(
            "SELECT srvname FROM pg_foreign_server WHERE srvowner = %s::regrole", (insiders.name("mallory"),)
        )
    ]
    assert "handed" in routes
    for route in routes:
        for call in ("otp_send", "otp_enqueue"):
            with pytest.raises(psycopg2.errors.InsufficientPrivilege, match="ideamart"):
                gateway.row(f"SELECT * FROM {call}(%s, %s)", (route, json.dumps({"mobile": gateway.number()})), mallory)
    gateway.settle()
    assert insiders.simulator.count() == 0
    # With USAGE it goes, and callers need none but on the route.
    gateway.execute(f"GRANT USAGE ON FOREIGN SERVER ideamart TO {insiders.name('mallory')}")
    caller = insiders.role("caller", usage=["handed"])
    assert gateway.send("handed", vendor="ideamart", session=caller)["outcome"] == "sent"


def test_route_resets_no_limits(insiders):
    """R4: who forgets through a route of their own begins no limit anew at a provider that is not theirs."""
    gateway = insiders.gateway
    gateway.execute("ALTER SERVER ideamart OPTIONS (SET resend_after '1h', ADD send_limit '2 per day')")
    mallory = insiders.role("mallory", usage=["ideamart"])
    gateway.execute(f"GRANT USAGE ON FOREIGN DATA WRAPPER otp_route TO {insiders.name('mallory')}")
    gateway.execute("CREATE SERVER mine FOREIGN DATA WRAPPER otp_route OPTIONS (providers 'ideamart')", session=mallory)
    to = gateway.number()
    for _ in range(6):
        gateway.send("mine", to=to, vendor="ideamart", session=mallory)
        with contextlib.suppress(psycopg2.errors.InsufficientPrivilege):
            gateway.execute("SELECT otp_gateway.forget('mine', %s)", (to,), mallory)
    assert insiders.simulator.count("ideamart", "send") == 1


# USAGE on a wrapper: who makes servers


def creator(insiders, *wrappers, **options):
    """The session of a role that may make servers of these."""
    session = insiders.role("creator", **options)
    for wrapper in wrappers:
        insiders.execute(f"GRANT USAGE ON FOREIGN DATA WRAPPER otp_{wrapper} TO {insiders.name('creator')}")
    return session


@pytest.mark.parametrize("how", ["ALTER SERVER ideamart RENAME TO other", "DROP SERVER ideamart CASCADE"])
def test_wrapper_takes_a_name_that_is_free_again(insiders, how):
    """R11: a new server of an old name has nothing of the old one: no row, no number, no call, no approval."""
    gateway = insiders.gateway
    honest, squatter = insiders.role("a", usage=["ideamart"]), creator(insiders, "ideamart", "sandbox")
    to = gateway.number()
    id = gateway.send(to=to, session=honest)["verification_id"]
    gateway.execute(how)
    for wrapper in ("ideamart", "sandbox"):
        gateway.execute(f"CREATE SERVER ideamart FOREIGN DATA WRAPPER otp_{wrapper}", session=squatter)
        gateway.execute("GRANT USAGE ON FOREIGN SERVER ideamart TO PUBLIC", session=squatter)
        for rows in ("otp_gateway.verification", "otp_gateway.attempt", f"otp_gateway.find('ideamart', '{to}')"):
            assert gateway.execute(f"SELECT * FROM {rows}", session=squatter) == []
        assert insiders.state("SELECT otp_gateway.forget('ideamart', %s)", squatter, (to,)) in ("42501", 1)
        assert gateway.verification(id)["recipient_key"] is not None
        # Of the old one's flow the new one decides nothing.
        got = insiders.state(
            "SELECT outcome FROM otp_verify(%s::uuid, '000000') WHERE outcome = 'approved'", honest, (id,)
        )
        assert got in (0, "42704", "42501")
        gateway.execute("DROP SERVER ideamart", session=squatter)


def test_wrapper_takes_a_member_s_place(insiders):
    """R11: a member of a route that is not there, or no longer, is replaced by no stranger's server of its name."""
    gateway = insiders.gateway
    squatter = creator(insiders, "ideamart", "sandbox")
    # Refused when it is written, or of no use to anybody later.
    with contextlib.suppress(psycopg2.Error):
        gateway.execute("CREATE SERVER way FOREIGN DATA WRAPPER otp_route OPTIONS (providers 'spare, ideamart')")
    gateway.create_provider("gone", "ideamart")
    gateway.execute(
        "CREATE SERVER route FOREIGN DATA WRAPPER otp_route OPTIONS (providers 'gone, ideamart'); DROP SERVER gone CASCADE"
    )
    for name in ("spare", "gone"):
        gateway.execute(
            f"CREATE SERVER {name} FOREIGN DATA WRAPPER otp_sandbox; GRANT USAGE ON FOREIGN SERVER {name} TO PUBLIC",
            session=squatter,
        )
    for (route,) in gateway.execute("SELECT srvname FROM pg_foreign_server WHERE srvname IN ('way', 'route')"):
        # A superuser's, who may use whatever there is.
        with contextlib.suppress(psycopg2.Error):
            gateway.send(route, vendor="ideamart")
    assert gateway.execute("SELECT provider FROM otp_gateway.verification WHERE provider IN ('spare', 'gone')") == []


@pytest.mark.parametrize(
    "url",
    [
        "http://user:secret@10.0.0.1/",
        "http:\\\\10.0.0.1\\",
        "http://10.0.0.1/?x=1",
        "http://10.0.0.1/#x",
        "file:///etc/passwd",
        "gopher://10.0.0.1/",
        "http://10.0.0.1:99999/",
        "http://",
        "ftp://10.0.0.1/",
        "http://10.0.0.1/\r\nX: y",
        "//10.0.0.1/",
        "javascript:1",
        "http:// 10.0.0.1/",
    ],
)
def test_wrapper_writes_an_odd_url(insiders, url):
    """Held: refused when it is written."""
    session = creator(insiders, "ideamart")
    statement = "CREATE SERVER s FOREIGN DATA WRAPPER otp_ideamart OPTIONS (allow_plain_http 'true', base_url %s)"
    assert insiders.state(statement, session, (url,)) == "22023"


@pytest.mark.parametrize("option", ["ca_file", "client_cert_file", "client_key_file"])
def test_wrapper_names_a_file(insiders, option):
    """Held: the server reads files for those alone who may read files."""
    session = creator(insiders, "ideamart")
    statement = f"CREATE SERVER s FOREIGN DATA WRAPPER otp_ideamart OPTIONS (base_url 'https://127.0.0.1:9', {option} '/etc/shadow')"
    assert insiders.state(statement, session) == "42501"


def test_wrapper_is_led_elsewhere(insiders):
    """Held: an answer leads nowhere."""
    for status in (301, 302, 303, 307, 308):
        target = insiders.simulator.url("hyperverge")
        insiders.simulator.fault("status", "ideamart", "send", status=status, headers={"Location": target}, times=1)
        assert insiders.gateway.send()["outcome"] != "sent"
    assert insiders.simulator.count("hyperverge") == 0


@pytest.mark.parametrize("value", ["x\r\nEvil: 1", "x\nEvil: 1", "x\x7f"], ids=["CRLF", "LF", "DEL"])
def test_wrapper_splits_a_header(insiders, value):
    """Held: of a credential or a transaction id no line of its own is made."""
    session = creator(insiders, "hyperverge", usage=["hyperverge"])
    mapping = "CREATE USER MAPPING FOR CURRENT_USER SERVER hyperverge OPTIONS (app_id %s, app_key 'k')"
    body = {**FLOWS["hyperverge"]["send"](insiders.gateway.number("hyperverge")), "transaction_id": value}
    # Refused, when it is written or when it is used.
    with contextlib.suppress(psycopg2.errors.InvalidParameterValue):
        insiders.execute("SELECT otp_send('hyperverge', %s)", (json.dumps(body),), session)
    with contextlib.suppress(psycopg2.errors.InvalidParameterValue):
        insiders.execute(mapping, (value,), session)
        assert insiders.gateway.send("hyperverge", session=session)["outcome"] != "sent"
    assert "evil" not in {name.lower() for entry in insiders.simulator.log("hyperverge") for name in entry["headers"]}


# the owner of a provider


def test_owner_gets_a_file_of_the_superuser_s(insiders):
    """R17: a credential in a file, which a superuser gave, goes only where a reader of files sends it."""
    gateway = insiders.gateway
    gateway.create_provider("theirs", "ideamart", base_url="http://127.0.0.1:9")
    secret = CREDENTIALS["ideamart"]["password"]
    owner = insiders.role("owner")
    gateway.execute(f"ALTER SERVER theirs OWNER TO {insiders.name('owner')}")
    gateway.execute(f"ALTER SERVER theirs OPTIONS (SET base_url '{insiders.simulator.url('ideamart')}')", session=owner)
    for call in ("otp_send", "otp_enqueue"):
        with contextlib.suppress(psycopg2.Error):
            row = gateway.row(f"SELECT * FROM {call}('theirs', %s)", (json.dumps({"mobile": gateway.number()}),), owner)
            gateway.wait(row["verification_id"])
    assert secret not in json.dumps(insiders.simulator.log("ideamart"))
    # Whose owner may read files may have them sent.
    gateway.execute(f"GRANT pg_read_server_files TO {insiders.name('owner')}")
    assert gateway.send("theirs", vendor="ideamart", session=owner)["outcome"] == "sent"


def test_owner_wears_the_worker_out(insiders):
    """R20: an option that changes with each send keeps nothing for good."""
    gateway = insiders.gateway
    gateway.send()
    pid = worker_pid(gateway, None)

    def descriptors():
        return len(os.listdir(f"/proc/{pid}/fd"))

    before = descriptors()
    for number in range(150):
        gateway.execute(
            f"ALTER SERVER ideamart OPTIONS ({'SET' if number else 'ADD'} connect_timeout '{1000 + number}ms')"
        )
        assert gateway.send()["outcome"] == "sent"
    assert descriptors() - before < 75


def test_owner_begins_limits_anew_by_a_new_name(insiders):
    """R11: a provider that is renamed keeps its record, its limits and its open flows."""
    gateway = insiders.gateway
    gateway.execute("ALTER SERVER ideamart OPTIONS (ADD send_limit '1 per day')")
    to = gateway.number()
    id = gateway.send(to=to)["verification_id"]
    gateway.execute("ALTER SERVER ideamart RENAME TO dialog")
    assert gateway.send("dialog", to=to, vendor="ideamart")["reason"] == "send_limit"
    assert gateway.verify(id, insiders.simulator.code("ideamart", to))["outcome"] == "approved"


# CREATE on public, and the owner of the database


def test_owner_of_the_schema_overloads(cluster, simulator):
    """R9: CREATE EXTENSION says so where others may put functions beside ours; in a schema of a superuser's nobody can."""
    with cluster.database(extension=False) as name, Gateway(cluster, name, simulator) as gateway:
        insiders = Insiders(gateway)
        try:
            dba = insiders.role("dba")
            gateway.execute(
                f"ALTER DATABASE {name} OWNER TO {insiders.name('dba')}; CREATE SCHEMA otp; CREATE SCHEMA shared"
            )
            gateway.execute(f"GRANT CREATE ON SCHEMA shared TO {insiders.name('dba')}")
            for schema, warned in (("otp", False), ("shared", True), ("public", True)):
                gateway.session.notices.clear()
                gateway.execute(f"CREATE EXTENSION otp_gateway SCHEMA {schema}")
                assert any("WARNING" in notice and schema in notice for notice in gateway.session.notices) == warned, (
                    schema
                )
                gateway.execute("DROP EXTENSION otp_gateway")
            gateway.execute("CREATE EXTENSION otp_gateway SCHEMA otp; CREATE SERVER s FOREIGN DATA WRAPPER otp_sandbox")
            assert (
                insiders.allowed(
                    dba,
                    [
                        "CREATE FUNCTION otp.otp_send(text, text) RETURNS int LANGUAGE sql AS 'SELECT 1'",
                        "ALTER SCHEMA otp OWNER TO CURRENT_USER",
                        "DROP EXTENSION otp_gateway",
                        "DROP SCHEMA otp CASCADE",
                    ],
                )
                == []
            )
            gateway.execute("CREATE SCHEMA evil", session=dba)
            gateway.execute(
                "CREATE FUNCTION evil.otp_send(text, text) RETURNS int LANGUAGE sql AS 'SELECT 1'", session=dba
            )
            gateway.execute(f"ALTER DATABASE {name} SET search_path = evil, public", session=dba)
            with cluster.session(name) as later:
                row = gateway.row("""SELECT * FROM otp.otp_send('s', '{"mobile": "0771231231"}')""", session=later)
                assert row["outcome"] == "sent"
            gateway.execute(f"ALTER DATABASE {name} OWNER TO postgres")
        finally:
            insiders.close()


def test_owner_of_the_database(insiders):
    """Held: changes nothing of ours, reads nothing. Possible: VACUUM FULL and REINDEX, which lock the record a while."""
    gateway = insiders.gateway
    dba = insiders.role("dba")
    gateway.send()
    gateway.execute(f"ALTER DATABASE {gateway.database} OWNER TO {insiders.name('dba')}")
    try:
        assert (
            insiders.allowed(
                dba,
                [
                    "SELECT * FROM otp_gateway_internal.verification_record",
                    "CREATE TABLE otp_gateway.mine ()",
                    "DROP EXTENSION otp_gateway",
                    "CREATE TRIGGER t AFTER INSERT ON otp_gateway_internal.attempt_record EXECUTE FUNCTION suppress_redundant_updates_trigger()",
                    "CREATE PUBLICATION p FOR TABLE otp_gateway_internal.attempt_record",
                ],
            )
            == []
        )
        for statement in (
            "ALTER SYSTEM SET otp_gateway.retention = 1",
            f"ALTER DATABASE {gateway.database} SET otp_gateway.notify = on",
        ):
            with pytest.raises((psycopg2.errors.InsufficientPrivilege, psycopg2.errors.CantChangeRuntimeParam)):
                gateway.execute(statement, session=dba)
        assert gateway.execute("SELECT * FROM otp_gateway.attempt", session=dba) == []
        gateway.execute("VACUUM FULL", session=dba)
        gateway.execute(f"REINDEX DATABASE {gateway.database}", session=dba)
        assert gateway.send()["outcome"] == "sent"
    finally:
        gateway.execute(f"ALTER DATABASE {gateway.database} OWNER TO postgres")


# attributes of a role, and Postgres' own roles


def test_createdb_takes_all_worker_places(simulator):
    """R15: copies of a database that call once, and then sleep, keep no other database from having its worker."""
    cluster = Cluster({"max_worker_processes": 6}).create()
    try:
        cluster.start()
        with cluster.session() as admin, admin.cursor() as cursor:
            cursor.execute("CREATE ROLE maker LOGIN CREATEDB")
            cursor.execute("CREATE DATABASE one OWNER maker")
            cursor.execute("CREATE DATABASE team")
        call = """SELECT outcome FROM otp_send('s', '{"mobile": "0771231231"}')"""
        for name in ("one", "team"):
            with cluster.session(name) as session, session.cursor() as cursor:
                cursor.execute(
                    "CREATE EXTENSION otp_gateway; CREATE SERVER s FOREIGN DATA WRAPPER otp_sandbox OPTIONS (resend_after '0s')"
                )
                cursor.execute("GRANT USAGE ON FOREIGN SERVER s TO maker")
        for number in range(6):
            with cluster.session(user="maker") as session, session.cursor() as cursor:
                cursor.execute(f"CREATE DATABASE copy{number} TEMPLATE one")
            with cluster.session(f"copy{number}", user="maker") as session, session.cursor() as cursor:
                with contextlib.suppress(psycopg2.Error):
                    cursor.execute(call)
        with cluster.session("team") as session, session.cursor() as cursor:
            cursor.execute("SET statement_timeout = '60s'")
            cursor.execute(call)
            assert cursor.fetchone() == ("sent",)
    finally:
        cluster.remove()


def test_createrole_makes_itself_a_member(insiders):
    """R22: up to Postgres 15 CREATEROLE grants itself the application's role, and with it its rows; not from 16 on."""
    app, maker = insiders.role("app", usage=["ideamart"]), insiders.role("maker", "CREATEROLE")
    insiders.gateway.send(session=app)
    got = insiders.state(f"GRANT {insiders.name('app')} TO {insiders.name('maker')}", maker)
    assert got == ("42501" if maker.server_version >= 160000 else -1)


def test_pg_read_all_data(insiders):
    """Held: the views, and of the tables behind them no row; user mappings from the catalog."""
    reader = insiders.role("reader", member_of=["pg_read_all_data"])
    insiders.gateway.send()
    assert len(insiders.execute("SELECT * FROM otp_gateway.verification", session=reader)) == 1
    for table in ("verification_record", "attempt_record", "reference"):
        assert insiders.execute(f"SELECT * FROM otp_gateway_internal.{table}", session=reader) == []
    sampled = "SELECT count(*)::int FROM pg_statistic JOIN pg_attribute ON attrelid = starelid AND attnum = staattnum WHERE attname IN ('sealed', 'recipient_key')"
    insiders.execute("ANALYZE")
    assert insiders.execute(sampled, session=reader) == [(0,)]
    mappings = json.dumps(insiders.execute("SELECT umoptions FROM pg_user_mapping", session=reader))
    assert "password_file=" in mappings and CREDENTIALS["ideamart"]["password"] not in mappings


def test_pg_write_all_data(insiders):
    """Held: writes no row and takes none away. Possible: a LOCK, which holds all sends up."""
    writer = insiders.role("writer", member_of=["pg_write_all_data"])
    insiders.gateway.send()
    for statement in (
        "UPDATE otp_gateway_internal.verification_record SET status = 'approved'",
        "DELETE FROM otp_gateway_internal.attempt_record",
    ):
        assert insiders.state(statement, writer) in (0, "42501")
    assert (
        insiders.allowed(
            writer,
            [
                "TRUNCATE otp_gateway_internal.attempt_record",
                "INSERT INTO otp_gateway_internal.reference VALUES ('a', 'b', gen_random_uuid())",
            ],
        )
        == []
    )
    assert (
        insiders.state("LOCK TABLE otp_gateway_internal.attempt_record IN ACCESS EXCLUSIVE MODE NOWAIT", writer) == -1
    )


def test_pg_monitor(insiders):
    """R22: no row; but the text of others' statements, literals included, and our settings."""
    app, monitor = insiders.role("app", usage=["ideamart"]), insiders.role("monitor", member_of=["pg_monitor"])
    insiders.gateway.send(session=app)
    assert insiders.execute("SELECT * FROM otp_gateway.verification", session=monitor) == []
    assert insiders.allowed(monitor, ["SELECT * FROM otp_gateway_internal.attempt_record"]) == []
    with contextlib.suppress(psycopg2.Error):
        insiders.execute("SELECT otp_verify('ideamart', '135790', '{\"reference\": \"r\"}')", session=app)
    texts = insiders.execute("SELECT query FROM pg_stat_activity", session=monitor)
    assert any("135790" in text for (text,) in texts)
    assert len(insiders.execute("SHOW otp_gateway.allowed_hosts", session=monitor)) == 1


def test_pg_read_server_files(insiders):
    """R22: reads the key file, so that what is sealed is open to such a role: treat it like a superuser."""
    reader = insiders.role("reader", member_of=["pg_read_server_files"])
    ((path,),) = insiders.execute("SELECT current_setting('data_directory') || '/otp_gateway.key'")
    insiders.execute("CREATE TEMP TABLE key (line text)", session=reader)
    insiders.execute(f"COPY key FROM '{path}'", session=reader)
    assert re.fullmatch("[0-9a-f]{64}", insiders.execute("SELECT line FROM key", session=reader)[0][0])


def test_pg_signal_backend(insiders):
    """Held: launcher and workers are a superuser's."""
    signaller = insiders.role("signaller", member_of=["pg_signal_backend"])
    insiders.gateway.send()
    pids = insiders.execute("SELECT pid FROM pg_stat_activity WHERE backend_type LIKE 'otp_gateway%%'")
    assert len(pids) >= 2
    for (pid,) in pids:
        for function in ("pg_terminate_backend", "pg_cancel_backend"):
            assert insiders.allowed(signaller, [f"SELECT {function}({pid})"]) == []


# What has the server's files, its key among them: (role, how it gets at the file).
FILES = {
    "pg_write_server_files": "COPY (SELECT 'x') TO '{path}.copy'",
    "pg_execute_server_program": "COPY key FROM PROGRAM 'cat {path}'",
}


@pytest.mark.parametrize("role", FILES)
def test_roles_with_the_server_s_files(insiders, role):
    """R22: as good as the server's system user: overwrites the key file or reads it. Treat it like a superuser."""
    session = insiders.role("r", member_of=[role])
    ((path,),) = insiders.execute("SELECT current_setting('data_directory') || '/otp_gateway.key'")
    insiders.execute("CREATE TEMP TABLE key (line text)", session=session)
    insiders.execute(FILES[role].format(path=path), session=session)


def test_pg_read_all_settings(insiders):
    """R22: our settings, where the key file lies and whom providers may call; no row."""
    reader = insiders.role("reader", member_of=["pg_read_all_settings"])
    for setting in ("key_file", "allowed_hosts"):
        assert len(insiders.execute(f"SHOW otp_gateway.{setting}", session=reader)) == 1
    insiders.gateway.send()
    assert insiders.execute("SELECT * FROM otp_gateway.verification", session=reader) == []


@pytest.mark.parametrize(
    "role",
    [
        "pg_checkpoint",
        "pg_read_all_stats",
        "pg_stat_scan_tables",
        "pg_use_reserved_connections",
        "pg_create_subscription",
        "pg_maintain",
        "pg_signal_autovacuum_worker",
    ],
)
def test_other_roles_of_postgres(insiders, role):
    """Held: no row, and nothing to write or to lock. pg_maintain (17) may have the whole database written anew, the
    record with it."""
    if insiders.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (role,)) == []:
        pytest.skip(f"this Postgres has no {role}")
    session = insiders.role("r", member_of=[role])
    insiders.gateway.send()
    assert insiders.execute("SELECT * FROM otp_gateway.verification", session=session) == []
    assert (
        insiders.allowed(
            session,
            [
                "SELECT * FROM otp_gateway_internal.verification_record",
                "DELETE FROM otp_gateway_internal.attempt_record",
                "SELECT otp_gateway.rotate_key()",
            ],
        )
        == []
    )
    assert (
        insiders.state("LOCK TABLE otp_gateway_internal.attempt_record IN ACCESS EXCLUSIVE MODE NOWAIT", session)
        == "42501"
    )
    file = "SELECT pg_relation_filenode('otp_gateway_internal.attempt_record')"
    before = insiders.execute(file)
    insiders.execute("VACUUM FULL", session=session)
    assert (insiders.execute(file) != before) == (role == "pg_maintain")


def test_bypassrls(insiders):
    """Held: alone it has no right on the tables, and in the views its own."""
    session = insiders.role("r", "BYPASSRLS")
    insiders.gateway.send()
    assert insiders.execute("SELECT * FROM otp_gateway.verification", session=session) == []
    assert insiders.allowed(session, ["SELECT * FROM otp_gateway_internal.verification_record"]) == []


def test_replication():
    """R22: a base backup takes the key along, if it lies in the data directory, where it is by default; and logical decoding
    reads past row security."""
    cluster = Cluster({"wal_level": "logical"}).create()
    try:
        cluster.start()
        with cluster.session() as session, session.cursor() as cursor:
            cursor.execute("CREATE ROLE copier LOGIN REPLICATION; CREATE EXTENSION otp_gateway")
            cursor.execute("CREATE SERVER s FOREIGN DATA WRAPPER otp_sandbox")
            with cluster.session(user="copier") as theirs, theirs.cursor() as copier:
                copier.execute("SELECT pg_create_logical_replication_slot('copy', 'test_decoding')")
                cursor.execute("SELECT outcome FROM otp_send('s', '{\"mobile\": \"0771231231\"}')")
                copier.execute("SELECT data FROM pg_logical_slot_get_changes('copy', NULL, NULL)")
                changes = "\n".join(data for (data,) in copier.fetchall())
        assert "otp_gateway_internal.verification_record: INSERT" in changes and "recipient_masked" in changes
        target = cluster.dump() / "copy"
        subprocess.run(
            [
                BINDIR / "pg_basebackup",
                "-h",
                cluster.directory,
                "-p",
                str(cluster.port),
                "-U",
                "copier",
                "-c",
                "fast",
                "-X",
                "none",
                "-D",
                target,
            ],
            check=True,
            stderr=subprocess.DEVNULL,
        )
        assert (target / "otp_gateway.key").read_text() == (cluster.data / "otp_gateway.key").read_text()
    finally:
        cluster.remove()


# what an administrator does around us


def test_default_privileges(cluster, simulator):
    """R8: nobody has any right on the tables and on what is not for everybody, whatever was granted beforehand."""
    with cluster.database(extension=False) as name, Gateway(cluster, name, simulator) as gateway:
        insiders = Insiders(gateway)
        try:
            app = insiders.role("app")
            for what in ("TABLES", "FUNCTIONS", "SEQUENCES", "TYPES", "SCHEMAS"):
                gateway.execute(f"ALTER DEFAULT PRIVILEGES GRANT ALL ON {what} TO {insiders.name('app')}")
            gateway.execute("CREATE EXTENSION otp_gateway")
            gateway.execute("CREATE SERVER s FOREIGN DATA WRAPPER otp_sandbox")
            assert gateway.row("""SELECT outcome FROM otp_send('s', '{"mobile": "0771231231"}')""") == {
                "outcome": "sent"
            }
            assert (
                insiders.allowed(
                    app,
                    [
                        "SELECT * FROM otp_gateway_internal.verification_record",
                        "TRUNCATE otp_gateway_internal.attempt_record",
                        "CREATE TRIGGER t AFTER INSERT ON otp_gateway_internal.attempt_record EXECUTE FUNCTION suppress_redundant_updates_trigger()",
                        "SELECT otp_gateway.rotate_key()",
                        "CREATE TABLE otp_gateway.mine ()",
                    ],
                )
                == []
            )
            assert gateway.execute("SELECT * FROM otp_gateway.verification", session=app) == []
            tables = "SELECT relname FROM pg_class, aclexplode(relacl) WHERE relnamespace::regnamespace::text LIKE 'otp_gateway%%' AND grantee = %s::regrole AND (relkind = 'r' OR privilege_type <> 'SELECT')"
            assert gateway.execute(tables, (insiders.name("app"),)) == []
            functions = "SELECT proname FROM pg_proc, aclexplode(proacl) WHERE proname IN ('rotate_key', 'note_queued') AND grantee <> proowner"
            assert gateway.execute(functions) == []
        finally:
            insiders.close()


def test_a_trigger_on_the_record(insiders_alone):
    """R8: the worker, a superuser, runs no trigger but ours, and says in the log that there is one."""
    insiders = insiders_alone
    gateway, cluster = insiders.gateway, insiders.gateway.cluster
    gateway.execute("""
        CREATE TABLE ran (who name, what text);
        CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN INSERT INTO public.ran VALUES (current_user, TG_TABLE_NAME || TG_OP); RETURN NEW; END $$
    """)
    for table in ("verification_record", "attempt_record", "reference"):
        gateway.execute(
            f"CREATE TRIGGER strange_{table} BEFORE INSERT OR UPDATE ON otp_gateway_internal.{table} FOR EACH ROW EXECUTE FUNCTION note()"
        )
    app, to = insiders.role("a", usage=["ideamart"]), gateway.number()
    id = gateway.send(to=to, session=app)["verification_id"]
    assert gateway.verify(id, insiders.simulator.code("ideamart", to), app)["outcome"] == "approved"
    gateway.wait(gateway.enqueue(session=app)["verification_id"])
    # Nor does the session run one with more rights than its own, where it puts something into the queue.
    assert gateway.execute("SELECT * FROM ran WHERE who <> %s", (insiders.name("a"),)) == []
    # Seen when a worker starts.
    gateway.execute("SELECT pg_terminate_backend(%s)", (worker_pid(gateway, None),))
    gateway.send()
    until(lambda: re.search(r"WARNING: .*trigger", cluster.log()), "the log's word of it")


def test_execute_on_all_functions(own_cluster, simulator):
    """R14: the record's trigger function on a table of one's own is an error, whatever the table looks like."""
    with elsewhere(own_cluster, simulator) as insiders:
        gateway = insiders.gateway
        app = insiders.role("app")
        gateway.execute(
            f"GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA otp_gateway, otp_gateway_internal TO {insiders.name('app')}; GRANT USAGE ON SCHEMA otp_gateway_internal TO {insiders.name('app')}; CREATE SCHEMA AUTHORIZATION {insiders.name('app')}"
        )
        columns = ", ".join(f"c{number} {type}" for number, type in enumerate(["text"] * 30))
        for table, made in {
            "wide": columns,
            "narrow": "a int",
            "numbers": ", ".join(f"n{n} bigint" for n in range(30)),
        }.items():
            insiders.execute(f"CREATE TABLE {table} ({made})", session=app)
            for name, when in (
                ("after", "AFTER INSERT OR UPDATE OR DELETE"),
                ("before", "BEFORE INSERT OR UPDATE OR DELETE"),
            ):
                with contextlib.suppress(psycopg2.Error):
                    insiders.execute(
                        f"CREATE TRIGGER {name} {when} ON {table} FOR EACH ROW EXECUTE FUNCTION otp_gateway_internal.note_queued()",
                        session=app,
                    )
            state = insiders.state(f"INSERT INTO {table} DEFAULT VALUES", app)
            assert isinstance(state, str) and not state.startswith(("57", "58", "XX", "08")), (table, state)
        assert gateway.execute("SELECT 1") == [(1,)]


# the system


def test_files(insiders):
    """Held: the key, and what notes which it is, are for the server's user alone, and so is what is in shared memory."""
    data = insiders.gateway.cluster.data
    for name in ("otp_gateway.key", "otp_gateway.key_id"):
        if (data / name).exists():
            assert stat.S_IMODE((data / name).stat().st_mode) == 0o600
    assert (data / "otp_gateway.key").exists()
    for name in os.listdir("/dev/shm"):
        if name.startswith("PostgreSQL"):
            with contextlib.suppress(FileNotFoundError):
                assert stat.S_IMODE(os.stat(f"/dev/shm/{name}").st_mode) == 0o600


# what is said of it


def test_every_claim_has_a_test():
    """SECURITY.md names no test that is not there, and in its tables a test for each claim about an attacker."""
    root = pathlib.Path(__file__).resolve().parents[2]
    text = (root / "SECURITY.md").read_text()
    named = set(re.findall(r"\b(\w+\.py)\b", text))
    assert named and [name for name in named if not (root / "tests/gateway" / name).exists()] == []
    assert [path for path in re.findall(r"\]\(([^)]+)\)", text) if not (root / path.partition("#")[0]).exists()] == []
    cannot = [line for line in text.splitlines() if line.startswith("| cannot |")]
    assert len(cannot) > 20 and [line for line in cannot if not line.split("|")[3].strip()] == []


def test_every_role_of_postgres_is_in_it(insiders):
    text = (pathlib.Path(__file__).resolve().parents[2] / "SECURITY.md").read_text()
    roles = insiders.execute(
        "SELECT rolname FROM pg_roles WHERE rolname LIKE 'pg\\_%%' AND rolname <> 'pg_database_owner'"
    )
    assert len(roles) > 8
    assert [name for (name,) in roles if name not in text] == []
