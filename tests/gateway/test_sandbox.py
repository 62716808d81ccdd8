"""Promise: an application can be developed and tested without a vendor. The sandbox sends nothing, needs neither account
nor network, takes a code that is known beforehand, and ends any call in whatever way it is told to. At a provider for
real, test numbers never reach the vendor: they take their own code, bear no limit, and are marked on record. And what is
in force at a provider, and why, is there for everybody to see, without any secret in it."""

import json
import re

import psycopg2
import pytest

from cluster import free_port
from conftest import CREDENTIALS, FLOWS, listed, until
from simulator import ROOT
from vendors import TABLE, VENDORS, wrapper
from test_limits import ENQUEUE, SEND, play, sandbox
from test_misuse import role as role

TO = "+94771234567"


@pytest.fixture
def gateway(quick_gateway):
    yield quick_gateway
    quick_gateway.execute("DROP TABLE IF EXISTS customer CASCADE")
    quick_gateway.drain()


@pytest.fixture
def plain(gateway):
    """With a sandbox, as the documents make one."""
    sandbox(gateway)
    return gateway


def resend(gateway, id, **payload):
    return gateway.row("SELECT * FROM otp_resend(%s, %s::jsonb)", (id, json.dumps(payload)))


def cancel(gateway, id):
    return gateway.row("SELECT * FROM otp_cancel(%s)", (id,))


# the sandbox


def test_a_whole_flow(plain, simulator):
    sent = play(plain, "077 123 4567")
    id = sent["verification_id"]
    assert (sent["outcome"], sent["status"], sent["attempts_left"], sent["reference"]) == (
        "sent",
        "pending",
        5,
        str(id),
    )
    assert sent["expires_at"] is not None
    wrong = plain.verify(id, "123456")
    assert (wrong["outcome"], wrong["attempts_left"], wrong["retryable"]) == ("invalid_code", 4, True)
    assert resend(plain, id)["outcome"] == "sent"
    right = plain.verify(id, "000000")
    assert (right["outcome"], right["status"]) == ("approved", "approved")
    assert plain.verify(id, "000000")["outcome"] == "already_used"
    assert plain.attempts(id) == [
        ("send", "sent"),
        ("verify", "invalid_code"),
        ("resend", "sent"),
        ("verify", "approved"),
        ("verify", "already_used"),
    ]
    row = plain.verification(id)
    assert (row["vendor"], row["recipient_masked"], row["is_test"]) == ("sandbox", "+94*****4567", False)
    # A message to a number that was typed another way is to the same person.
    other = play(plain, "+94 77 123-4567")["verification_id"]
    assert plain.verification(other)["recipient_key"] == row["recipient_key"]
    assert simulator.count() == 0


def test_the_last_try_and_the_end_of_the_code(plain):
    id = play(plain)["verification_id"]
    assert [plain.verify(id, "1")["attempts_left"] for _ in range(5)] == [4, 3, 2, 1, 0]
    assert plain.verify(id, "000000")["outcome"] == "max_attempts_reached"
    plain.execute("TRUNCATE otp_gateway_internal.attempt_record")
    late = play(plain)["verification_id"]
    plain.execute("UPDATE otp_gateway_internal.verification_record SET expires_at = now() WHERE id = %s", (late,))
    assert plain.verify(late, "000000")["outcome"] == "expired"


def test_canceled(plain):
    id = play(plain)["verification_id"]
    assert (cancel(plain, id)["outcome"], plain.verification(id)["status"]) == ("canceled", "canceled")
    assert plain.verify(id, "000000")["outcome"] == "not_found"


def test_begun_elsewhere(plain):
    """By the number, or by a reference of the application's own."""
    assert plain.verify_at("sandbox", "1", mobile="8144094480")["outcome"] == "invalid_code"
    assert plain.verify_at("sandbox", "000000", mobile="+91 81440 94480")["outcome"] == "approved"
    assert plain.verify_at("sandbox", "000000", reference="order-1")["outcome"] == "approved"
    assert plain.verify_at("sandbox", "000000", reference="order-1")["outcome"] == "already_used"
    sent = play(plain, reference="order-2")
    assert sent["reference"] == "order-2"
    assert plain.verify_at("sandbox", "000000", reference="order-2")["verification_id"] == sent["verification_id"]


def test_a_code_of_one_s_own(gateway):
    """On the user mapping, as credentials are; one role's is not another's."""
    sandbox(gateway)
    gateway.execute("CREATE USER MAPPING FOR PUBLIC SERVER sandbox OPTIONS (code 'Xy-42')")
    id = play(gateway)["verification_id"]
    assert [gateway.verify(id, code)["outcome"] for code in ("000000", "xy-42", "Xy-42")] == ["invalid_code"] * 2 + [
        "approved"
    ]


SENDS = {
    # how a send ends, and what becomes of the verification
    "sent": "pending",
    "already_registered": "failed",
    "rate_limited": "failed",
    "invalid_request": "failed",
    "auth_failed": "failed",
    "refused": "failed",
    "provider_error": "failed",
    "unreachable": "failed",
    "unknown": "unknown",
}
RESENDS = {**dict.fromkeys([*SENDS, "not_found"], "pending"), "unknown": "unknown"}
VERIFIES = {
    "approved": "approved",
    "invalid_code": "pending",
    "expired": "expired",
    "already_used": "failed",
    "max_attempts_reached": "max_attempts_reached",
    "not_found": "failed",
    "rate_limited": "pending",
    "invalid_request": "pending",
    "auth_failed": "pending",
    "refused": "pending",
    "provider_error": "pending",
    "unreachable": "pending",
    "unknown": "unknown",
}
RETRYABLE = {
    "send": {"rate_limited", "provider_error", "unreachable"},
    "verify": {"invalid_code", "rate_limited", "unreachable"},
}


@pytest.mark.parametrize("outcome", SENDS)
def test_a_send_ends_as_it_is_told(plain, simulator, outcome):
    """Time and again: there is no provider that a breaker would have to leave alone."""
    for _ in range(7):
        row = play(plain, outcome=outcome)
        assert (row["outcome"], row["status"]) == (outcome, SENDS[outcome])
        assert row["retryable"] == (outcome in RETRYABLE["send"])
    assert plain.attempts(row["verification_id"]) == [("send", outcome)]
    assert plain.verification(row["verification_id"])["status"] == SENDS[outcome]
    # It may have arrived.
    if outcome in ("sent", "unknown"):
        assert plain.verify(row["verification_id"], "000000")["outcome"] == "approved"
    assert simulator.count() == 0


@pytest.mark.parametrize("outcome", RESENDS)
def test_a_resend_ends_as_it_is_told(plain, outcome):
    id = play(plain)["verification_id"]
    row = resend(plain, id, outcome=outcome)
    assert (row["outcome"], row["status"]) == (outcome, RESENDS[outcome])
    # That once.
    assert resend(plain, id)["outcome"] == "sent"


@pytest.mark.parametrize("outcome", VERIFIES)
@pytest.mark.parametrize("code", ["000000", "123456"])
def test_a_verify_ends_as_it_is_told(plain, outcome, code):
    """Whatever the code."""
    id = play(plain)["verification_id"]
    row = plain.verify(id, code, outcome=outcome)
    assert (row["outcome"], row["status"]) == (outcome, VERIFIES[outcome])
    assert row["retryable"] == (outcome in RETRYABLE["verify"])
    assert plain.verification(id)["status"] == VERIFIES[outcome]


@pytest.mark.parametrize("outcome", ["approved", "blocked", "bogus", ""])
def test_an_outcome_that_a_send_cannot_have(plain, outcome):
    with pytest.raises(psycopg2.errors.InvalidParameterValue) as error:
        play(plain, outcome=outcome)
    assert "outcome" in error.value.diag.message_primary and "already_registered" in error.value.diag.message_hint


def test_limits_are_for_the_sandbox_too(gateway):
    """So that an application sees how it is refused."""
    sandbox(gateway, send_limit="1 per hour", check_limit="1 per hour")
    id = play(gateway)["verification_id"]
    assert play(gateway)["reason"] == "send_limit"
    assert gateway.verify(id, "1")["outcome"] == "invalid_code"
    assert gateway.verify(id, "000000")["reason"] == "check_limit"


@pytest.mark.parametrize("base_url", [None, "https://nowhere.invalid/path", "https://192.0.2.1:9"])
def test_no_network(gateway, simulator, base_url):
    """Wherever it points to, nobody is asked for anything, not even a name server."""
    options = {"timeout": "200ms"} if base_url is None else {"base_url": base_url, "timeout": "200ms"}
    sandbox(gateway, **options)
    ids = [play(gateway)["verification_id"] for _ in range(20)]
    assert [gateway.verify(id, "000000")["outcome"] for id in ids] == ["approved"] * 20
    assert gateway.execute("SELECT DISTINCT http_status, outcome::text FROM otp_gateway.attempt ORDER BY 2") == [
        (None, "approved"),
        (None, "sent"),
    ]
    # And one that would reach somebody is not used either.
    gateway.execute(
        f"ALTER SERVER sandbox OPTIONS ({'ADD' if base_url is None else 'SET'} base_url '{simulator.url('ideamart')}',"
        " ADD allow_plain_http 'true')"
    )
    assert play(gateway)["outcome"] == "sent"
    assert simulator.count() == 0


def test_enqueued(plain, simulator):
    id = plain.row(ENQUEUE, ("sandbox", json.dumps({"mobile": TO})))["verification_id"]
    assert plain.wait(id)["outcome"] == "sent"
    assert plain.verify(id, "000000")["outcome"] == "approved"
    for outcome, status in SENDS.items():
        id = plain.row(ENQUEUE, ("sandbox", json.dumps({"mobile": TO, "outcome": outcome})))["verification_id"]
        if outcome in [*RETRYABLE["send"], "auth_failed"]:
            # It is tried again, refused credentials until they are mended; nobody waits for the end of that.
            until(lambda: ("send", outcome) in plain.attempts(id), "a first try")
            assert plain.row("SELECT * FROM otp_cancel(%s)", (id,))["status"] in ("canceled", "pending", "failed")
        else:
            row = plain.wait(id)
            assert (row["outcome"], row["status"]) == (outcome, status)
    with plain.cluster.session(plain.database, autocommit=False) as session:
        gone = plain.row(ENQUEUE, ("sandbox", json.dumps({"mobile": TO})), session)["verification_id"]
        session.rollback()
    assert plain.execute("SELECT 1 FROM otp_gateway.verification WHERE id = %s", (gone,)) == []
    assert simulator.count() == 0


def test_a_registration_table(plain):
    """The documents' own, with the sandbox for a provider."""
    plain.execute("""
        CREATE TABLE customer (id int GENERATED ALWAYS AS IDENTITY, phone text NOT NULL, verification_id uuid,
                               verified boolean NOT NULL DEFAULT false);
        CREATE TRIGGER send_code BEFORE INSERT OR UPDATE ON customer FOR EACH ROW EXECUTE FUNCTION
            otp_gateway.send_after_commit('sandbox', '{"mobile": "phone"}', 'verification_id');
    """)
    plain.keeps_numbers = True
    [(id,)] = plain.execute("INSERT INTO customer (phone) VALUES (%s) RETURNING verification_id", (plain.number(),))
    assert plain.wait(id)["outcome"] == "sent"
    assert plain.verify(id, "000000")["outcome"] == "approved"
    with pytest.raises(psycopg2.errors.InvalidParameterValue):
        plain.execute("INSERT INTO customer (phone) VALUES ('not a number')")


def test_an_ordinary_role(plain, role):
    """USAGE is all that it takes."""
    name, session = role
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        play(plain, session=session)
    plain.execute(f"GRANT USAGE ON FOREIGN SERVER sandbox TO {name}")
    id = play(plain, session=session)["verification_id"]
    assert plain.verify(id, "000000", session)["outcome"] == "approved"


# test numbers


# of a vendor: a test number as the option takes it, and how people type it
NUMBERS = {name: vendor.test_number for name, vendor in TABLE.items() if vendor.test_number}
NUMBERS["sandbox"] = ("+12025550123", "+1 202 555 0123")


@pytest.fixture
def tested(gateway):
    """Every vendor with a test number, and with limits that let nothing pass twice."""
    for vendor, (number, _) in NUMBERS.items():
        options = {
            "test_numbers": f"{number}=Code-1, +919999900002=222222, +94770000002=333333",
            "resend_after": "1h",
            "send_limit": "1 per day",
            "check_limit": "1 per day",
            "provider_limit": "1 per day",
        }
        if vendor == "sandbox":
            sandbox(gateway, "with_sandbox", **options)
        else:
            # Nobody is there: what left the machine would show.
            gateway.create_provider(
                f"with_{vendor}", vendor, base_url=f"http://127.0.0.1:{free_port()}/nobody", **options
            )
    return gateway


def payload_of(vendor, to):
    return {"mobile": to} if vendor == "sandbox" else FLOWS[vendor]["send"](to)


@pytest.mark.parametrize("vendor", NUMBERS)
def test_a_test_number(tested, simulator, vendor):
    """All operations, more often than any limit allows, without the vendor."""
    _, to = NUMBERS[vendor]
    body = json.dumps(payload_of(vendor, to))
    more = {} if vendor == "sandbox" else FLOWS[vendor]["verify"]
    ids = []
    for _ in range(3):
        sent = tested.row(SEND, (f"with_{vendor}", body))
        assert (sent["outcome"], sent["status"], sent["reason"]) == ("sent", "pending", None)
        ids.append(sent["verification_id"])
    id = ids[0]
    wrong = [tested.verify(id, code, **more) for code in ("000000", "code-1")]
    assert [(row["outcome"], row["status"]) for row in wrong] == [("invalid_code", "pending")] * 2
    assert wrong[0]["attempts_left"] == wrong[1]["attempts_left"] + 1
    assert tested.row("SELECT * FROM otp_resend(%s)", (id,))["outcome"] == "sent"
    right = tested.verify(id, "Code-1", **more)
    assert (right["outcome"], right["status"]) == ("approved", "approved")
    assert tested.verify(id, "Code-1", **more)["outcome"] == "already_used"
    # As often as one likes, also when it is queued.
    queued = tested.row(ENQUEUE, (f"with_{vendor}", body))["verification_id"]
    assert tested.wait(queued)["outcome"] == "sent"
    assert tested.verify(queued, "Code-1", **more)["outcome"] == "approved"
    if vendor == "sandbox":
        assert cancel(tested, ids[1])["outcome"] == "canceled"
    # Marked, and nobody's limit has it.
    assert tested.execute("SELECT DISTINCT is_test, provider FROM otp_gateway.verification") == [
        (True, f"with_{vendor}")
    ]
    assert tested.execute("SELECT DISTINCT reason, provider FROM otp_gateway.attempt") == [(None, f"with_{vendor}")]
    assert tested.execute("SELECT DISTINCT recipient_key FROM otp_gateway_internal.attempt_record") == [(None,)]
    assert simulator.count() == 0


def test_wrong_codes_of_a_test_number_are_limited_within_a_flow_alone(tested):
    for _ in range(3):
        id = tested.row(SEND, ("with_hyperverge", json.dumps(payload_of("hyperverge", "9999900001"))))[
            "verification_id"
        ]
        assert [tested.verify(id, "1")["outcome"] for _ in range(5)] == ["invalid_code"] * 5
        assert tested.verify(id, "Code-1")["outcome"] == "max_attempts_reached"


def test_a_test_number_of_a_flow_begun_elsewhere(tested, simulator):
    row = tested.verify_at("with_hyperverge", "222222", mobile="9999900002")
    assert row["outcome"] == "approved"
    assert tested.verification(row["verification_id"])["is_test"] is True
    assert tested.verify_at("with_hyperverge", "Code-1", mobile="9999900002")["outcome"] == "invalid_code"
    assert simulator.count() == 0


def test_everybody_else_is_real(gateway, simulator):
    """The number beside it goes to the vendor, the test's code is worth nothing there, and counts are kept apart."""
    gateway.create_provider(
        "real", "ideamart", test_numbers="+94770009999=4711", send_limit="1 per hour", provider_limit="2 per hour"
    )
    tests = [gateway.send("real", "0770009999", vendor="ideamart") for _ in range(5)]
    assert {row["outcome"] for row in tests} == {"sent"}
    to = "0770009998"
    sent = gateway.send("real", to, vendor="ideamart")
    assert sent["outcome"] == "sent"
    assert gateway.verify(sent["verification_id"], "4711")["outcome"] == "invalid_code"
    assert gateway.verify(sent["verification_id"], simulator.code("ideamart", to))["outcome"] == "approved"
    assert gateway.send("real", to, vendor="ideamart")["reason"] == "send_limit"
    # Of the bill the tests are no part.
    assert gateway.send("real", "0770009997", vendor="ideamart")["outcome"] == "sent"
    assert gateway.send("real", "0770009996", vendor="ideamart")["reason"] == "provider_limit"
    assert gateway.send("real", "0770009999", vendor="ideamart")["outcome"] == "sent"
    assert simulator.count("ideamart", "send") == 2
    assert gateway.execute(
        "SELECT is_test, count(*)::int FROM otp_gateway.verification WHERE status <> 'blocked' GROUP BY 1 ORDER BY 1"
    ) == [(False, 2), (True, 6)]


def test_queued_ones_are_marked_too(gateway, simulator):
    gateway.create_provider("real", "ideamart", test_numbers="+94770009999=4711")
    with gateway.cluster.session(gateway.database, autocommit=False) as session:
        id = gateway.enqueue("real", "0770009999", session, "ideamart")["verification_id"]
        assert (
            gateway.row("SELECT is_test FROM otp_gateway.verification WHERE id = %s", (id,), session)["is_test"] is True
        )
        session.commit()
    assert gateway.wait(id)["outcome"] == "sent"
    assert gateway.verification(id)["is_test"] is True
    assert simulator.count() == 0


def test_what_is_kept_of_a_test_number_is_no_code(tested):
    """Neither in a table nor in the log: in the catalog it is, where the administrator has put it."""
    before = len(tested.cluster.log())
    id = tested.row(SEND, ("with_hyperverge", json.dumps(payload_of("hyperverge", "9999900001"))))["verification_id"]
    assert tested.verify(id, "Code-1")["outcome"] == "approved"
    tables = tested.execute(
        "SELECT oid::regclass::text FROM pg_class WHERE relnamespace = 'otp_gateway_internal'::regnamespace AND relkind = 'r'"
    )
    text = "\n".join(row for (table,) in tables for (row,) in tested.execute(f"SELECT t::text FROM {table} AS t"))
    for secret in ("Code-1", "9999900001"):
        assert secret not in text and secret not in tested.cluster.log()[before:]


# the view of what is in force


def settings(gateway, provider, session=None):
    rows = gateway.execute(
        "SELECT setting, value, source FROM otp_gateway.provider WHERE provider = %s", (provider,), session
    )
    assert len({setting for setting, *_ in rows}) == len(rows)
    return {setting: (value, source) for setting, value, source in rows}


DEFAULTS = {
    # as the table of server options in docs/reference.md has them
    "timeout": "10s",
    "connect_timeout": "3s",
    "proxy": None,
    "ca_file": None,
    "client_cert_file": None,
    "client_key_file": None,
    "max_in_flight": "256",
    "defaults": "{}",
    "send_limit": None,
    "check_limit": None,
    "provider_limit": None,
    "min_conversion": None,
    "allowed_prefixes": None,
    "enforce": "on",
    "test_numbers": None,
    "allow_plain_http": "false",
    "paused": "false",
}
VENDOR_DEFAULTS = {name: vendor.page for name, vendor in TABLE.items()}
VENDOR_DEFAULTS["sandbox"] = ("10min", "5", "0s")


@pytest.mark.parametrize("vendor", VENDOR_DEFAULTS)
def test_the_defaults_can_be_seen(gateway, vendor):
    """All of them hold of a server that says nothing, but where its installation is."""
    own = {} if vendor == "sandbox" else TABLE[vendor].options
    has_host = vendor not in ("relid", "vonage")
    needed = own if has_host else {"base_url": f"https://{vendor}.example:8443", **own}
    given = f" OPTIONS ({listed(needed)})" if needed else ""
    gateway.execute(f"CREATE SERVER bare FOREIGN DATA WRAPPER {wrapper(vendor)}{given}")
    shown = settings(gateway, "bare")
    for setting, value in DEFAULTS.items():
        assert shown.pop(setting) == (value, "default"), setting
    lifetime, checks, interval = VENDOR_DEFAULTS[vendor]
    assert shown.pop("code_lifetime") == (lifetime, "vendor default" if lifetime else "default")
    assert shown.pop("max_checks") == (checks, "vendor default")
    assert shown.pop("resend_after") == (interval, "vendor default")
    url, source = shown.pop("base_url")
    assert url.startswith("https://") and source == ("vendor default" if has_host else "server")
    assert shown.pop("credentials") == ("none", "user mapping")
    assert shown.pop("breaker", ("closed", None))[0] == "closed"
    if vendor == "relid":
        assert shown.pop("token_url") == (None, "default")
    if vendor == "vonage":
        assert shown.pop("description_file") == (None, "default")
    for setting, value in own.items():
        assert shown.pop(setting) == (value.replace("''", "'"), "server")
    assert shown == {}


GIVEN = {
    # an option as it is written, and as it is shown
    "base_url": ("https://vendor.example:8443/path", None),
    "timeout": ("8000 ms", "8s"),
    "connect_timeout": ("2s", None),
    "proxy": ("http://proxy.example:3128", None),
    "ca_file": ("/etc/ssl/ca.pem", None),
    "client_cert_file": ("/etc/ssl/client.pem", None),
    "client_key_file": ("/etc/ssl/client.key", None),
    "max_in_flight": (" 7", "7"),
    "defaults": ('{"metadata": {"client": "x"}}', '{"metadata":{"client":"x"}}'),
    "allow_plain_http": ("off", "false"),
    "paused": ("off", "false"),
    "code_lifetime": ("90 min", "90min"),
    "max_checks": ("4", None),
    "resend_after": ("120s", "2min"),
    "send_limit": ("10 PER day,5 per 60 minutes", "5 per hour, 10 per day"),
    "check_limit": ("3 per 90 s", "3 per 90 seconds"),
    "provider_limit": ("1000 per 7 days", "1000 per week"),
    "min_conversion": (" 10 %", "10%"),
    "allowed_prefixes": ("+91,+94,+91", "+91, +94"),
    "enforce": ("Observe", "observe"),
    "test_numbers": ("+94770009999=s3cr3t,+94770009998=0000", "+94770009998=***, +94770009999=***"),
}


def test_what_is_given_can_be_seen(gateway):
    """In the form that the option takes, with its source; the rest of it is as before."""
    assert set(GIVEN) == {*DEFAULTS, "base_url", "code_lifetime", "max_checks", "resend_after"}
    for option, (written, shown) in GIVEN.items():
        others = {"client_cert_file": "client_key_file", "client_key_file": "client_cert_file"}
        options = {option: written} | ({others[option]: "/other"} if option in others else {})
        gateway.execute(f"CREATE SERVER bare FOREIGN DATA WRAPPER otp_ideamart OPTIONS ({listed(options)})")
        seen = settings(gateway, "bare")
        assert seen[option] == (shown or written, "server"), option
        assert {name for name, (_, source) in seen.items() if source == "server"} == set(options)
        gateway.execute("DROP SERVER bare")
        # What is shown can be written: it means the same.
        if option not in ("test_numbers", *others):
            gateway.execute(
                f"CREATE SERVER bare FOREIGN DATA WRAPPER otp_ideamart OPTIONS ({option} '{shown or written}')"
            )
            assert settings(gateway, "bare")[option] == seen[option]
            gateway.execute("DROP SERVER bare")


BY_DEFAULTS = [
    # vendor, defaults, other options, what is shown of code_lifetime and max_checks
    ("hyperverge", {"otp_expiry": 10}, {}, ("10min", "defaults"), ("5", "vendor default")),
    ("hyperverge", {"otpExpiry": "90"}, {"code_lifetime": "1h"}, ("90min", "defaults"), ("5", "vendor default")),
    ("hyperverge", {"otp_length": 6}, {"code_lifetime": "1h"}, ("1h", "server"), ("5", "vendor default")),
    ("relid", {"expires_in": 90}, {}, ("90s", "defaults"), ("3", "vendor default")),
    ("relid", {"expires_in": 90}, {"code_lifetime": "1h"}, ("90s", "defaults"), ("3", "vendor default")),
    ("relid", {"controls": {"otp": {"attempts": 7}}}, {"max_checks": "4"}, (None, "default"), ("7", "defaults")),
    ("relid", {}, {"code_lifetime": "1h"}, ("1h", "server"), ("3", "vendor default")),
    ("iserveu", {"otp_type": "2"}, {}, (None, "defaults"), ("5", "vendor default")),
    ("iserveu", {"otp_type": "2"}, {"code_lifetime": "5min"}, ("5min", "server"), ("5", "vendor default")),
]


@pytest.mark.parametrize("vendor, defaults, options, lifetime, checks", BY_DEFAULTS)
def test_what_the_defaults_say_is_in_force(gateway, simulator, vendor, defaults, options, lifetime, checks):
    """It is each payload's own word, and comes before the server's: what is shown is what a send then gets."""
    gateway.create_provider("told", vendor, defaults=json.dumps(defaults), **options)
    shown = settings(gateway, "told")
    assert (shown["code_lifetime"], shown["max_checks"]) == (lifetime, checks)
    to = gateway.number(vendor)
    body = {name: value for name, value in FLOWS[vendor]["send"](to).items() if name not in ("expires_in", "otp_type")}
    if vendor == "relid" and lifetime[0] is None:
        body["expires_in"] = 60
    if vendor == "iserveu":
        body |= {"reference": "REF0000042", "amount": "100"}
    sent = gateway.row("SELECT * FROM otp_send('told', %s)", (json.dumps(body),))
    assert (sent["outcome"], sent["attempts_left"]) == ("sent", int(checks[0]))
    [(is_so,)] = gateway.execute(
        "SELECT expires_at - finished_at BETWEEN %(life)s::interval - interval '2 s' AND %(life)s::interval + interval '2 s'"
        " FROM otp_gateway.verification AS v JOIN otp_gateway.attempt AS a ON a.verification_id = v.id WHERE v.id = %(id)s",
        {"life": lifetime[0] or "1min", "id": sent["verification_id"]},
    )
    assert is_so is (None if vendor == "iserveu" and lifetime[0] is None else True)


def test_every_option_has_its_line_in_the_reference(gateway):
    page = (ROOT / "docs/reference.md").read_text()
    [table] = re.findall(r"\| server option \| default \| meaning \|\n(.*?)\n\n", page, re.DOTALL)
    documented = set(re.findall(r"`(\w+)`", " ".join(line.split("|")[1] for line in table.splitlines()[1:])))
    gateway.execute("CREATE SERVER bare FOREIGN DATA WRAPPER otp_relid OPTIONS (base_url 'https://relid.example')")
    assert set(settings(gateway, "bare")) - {"credentials", "breaker"} <= documented


def test_no_secret_can_be_seen(gateway, role):
    """Neither credentials nor test codes: not by anybody, not in any form."""
    name, session = role
    gateway.execute("ALTER SERVER ideamart OPTIONS (ADD test_numbers '+94770009999=s3cr3t-code')")
    sandbox(gateway)
    gateway.execute("CREATE USER MAPPING FOR PUBLIC SERVER sandbox OPTIONS (code 's3cr3t-sandbox')")
    gateway.execute(
        f"CREATE USER MAPPING FOR {name} SERVER hyperverge OPTIONS (app_id 's3cr3t-id', app_key 's3cr3t-key')"
    )
    for who in (None, session):
        rows = gateway.execute("SELECT * FROM otp_gateway.provider", session=who)
        text = "\n".join(map(str, rows)).replace("application_id, password", "")
        assert {row[0] for row in rows} == {*VENDORS, "sandbox"}
        for secret in ("s3cr3t", *(value for values in CREDENTIALS.values() for value in values.values())):
            assert secret not in text
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        gateway.execute("SELECT * FROM otp_gateway_internal.breaker", session=session)


def test_everybody_sees_their_own_credentials_names(gateway, role):
    name, session = role
    gateway.execute("DROP USER MAPPING FOR PUBLIC SERVER hyperverge")
    gateway.execute(f"CREATE USER MAPPING FOR {name} SERVER hyperverge OPTIONS (app_id 'a', app_key 'b')")
    names = [settings(gateway, "hyperverge", who)["credentials"] for who in (None, session)]
    assert names == [("none", "user mapping"), ("app_id, app_key", "user mapping")]
    assert settings(gateway, "ideamart", session)["credentials"][0] == "application_id_file, password_file"


def test_the_view_survives_what_it_cannot_read(gateway):
    """Written past the validator, as a dump of a later version would be: that one says so, the others are shown."""
    gateway.execute("UPDATE pg_foreign_server SET srvoptions = ARRAY['send_limit=often'] WHERE srvname = 'ideamart'")
    shown = settings(gateway, "ideamart")
    assert "send_limit" in shown["error"][0]
    assert settings(gateway, "hyperverge")["timeout"] == ("10s", "default")
    with pytest.raises(psycopg2.errors.InvalidParameterValue, match="send_limit"):
        gateway.send()


def test_other_people_s_servers_are_not_in_it(gateway):
    gateway.execute("CREATE FOREIGN DATA WRAPPER not_ours; CREATE SERVER elsewhere FOREIGN DATA WRAPPER not_ours")
    try:
        assert settings(gateway, "elsewhere") == {}
        assert gateway.execute(
            "SELECT otp_gateway_internal.effective_settings(0), otp_gateway_internal.effective_settings(NULL)"
        ) == [([], None)]
    finally:
        gateway.execute("DROP FOREIGN DATA WRAPPER not_ours CASCADE")
