"""Promise: what is used wrongly is refused before anything leaves, with the SQLSTATE of its kind, the name of the field
or option and its rule, and a hint what to do; and no value of a payload is in any text that a client or a log gets.
Options are checked when they are written, credentials and keys when they are used."""

import json
import os
import pathlib
import pwd
import re
import shutil
import tempfile

import psycopg2
import pytest

from cluster import Cluster, standby_of
from conftest import CREDENTIALS, FLOWS, Gateway, credential_options, listed

CANARIES = {
    "mobile": "9123498761",
    "lk": "0771239876",
    "aadhaar": "481516234299",
    "token": "tok-Qz81mVx7Lw",
    "text": "Canary7Hx2Kp",
    "code": "K7Q2Z9M4",
}
# Also as they stand behind a country's code, or a digit.
IN_LOG = [*CANARIES.values(), CANARIES["mobile"][1:], CANARIES["lk"][1:]]


@pytest.fixture
def gateway(quick_gateway):
    return quick_gateway


class Refused:
    """A statement that must fail: its SQLSTATE and texts, searched for values of the payload, in the log too."""

    def __init__(self, gateway, statement, arguments=None, session=None, values=(), sent=0):
        before = len(gateway.cluster.log())
        with pytest.raises(psycopg2.Error) as caught:
            gateway.execute(statement, arguments, session)
        error = caught.value
        self.state, diag = error.pgcode, error.diag
        self.message, self.hint = diag.message_primary or "", diag.message_hint or ""
        self.texts = "\n".join(
            text or ""
            for text in (
                str(error),
                diag.message_primary,
                diag.message_detail,
                diag.message_hint,
                diag.context,
                diag.internal_query,
                diag.schema_name,
                diag.table_name,
                diag.column_name,
                diag.constraint_name,
            )
        )
        log = gateway.cluster.log()[before:]
        for value in [*IN_LOG, *values]:
            assert value not in self.texts, "the error shows a value"
            assert value not in log, "the server's log shows a value"
        # A name that is nobody's may be a value in the wrong place.
        logged = re.sub(
            r'(provider|has no option|option) "[^"]*"(?! is a credential| belongs)', r'\1 "%s"', self.message
        )
        logged = re.sub(r"(has no field (?:[^;]*\.)?)\w+(?=;|$)", r"\1%s", logged)
        assert logged in log, "the error itself is not in the log"
        assert gateway.simulator.count() == sent
        if gateway.session is not None and sent == 0:
            assert gateway.execute("SELECT count(*) FROM otp_gateway.attempt") == [(0,)]
            assert gateway.execute("SELECT count(*) FROM otp_gateway.verification") == [(0,)]

    def says(self, state, *words):
        assert self.state == state, f"{self.state}: {self.message}"
        for word in words:
            assert word in f"{self.message}\n{self.hint}", f"{word!r} is not in: {self.message} / {self.hint}"
        assert self.hint, f"no hint: {self.message}"
        return self


def literal(value):
    return "'" + value.replace("'", "''") + "'"


def send(provider, payload):
    """As people type it, values and all: the log must hide the statement."""
    text = payload if isinstance(payload, str) else json.dumps(payload)
    return f"SELECT * FROM otp_send({literal(provider)}, {literal(text)})"


def with_(vendor, **fields):
    """A good payload with canaries in it, changed; `...` leaves a field out."""
    to = {"ideamart": CANARIES["lk"], "relid": CANARIES["text"]}.get(vendor, CANARIES["mobile"])
    payload = FLOWS[vendor]["send"](to)
    for name, field in [("ovd_data", "aadhaar"), ("token", "token")]:
        if name in payload:
            payload[name] = CANARIES[field]
    payload.update(fields)
    return {name: value for name, value in payload.items() if value is not ...}


MSG = {"lng": "en", "subject": "s", "message": f"{CANARIES['text']} $$OTP$$", "label": {}}
PAYLOADS = [
    # what, provider, payload, words of message or hint
    ("SQL null", "ideamart", None, ["payload is null"]),
    ("JSON null", "ideamart", "null", ["payload is not an object"]),
    ("array", "ideamart", json.dumps([CANARIES["lk"]]), ["payload is not an object"]),
    ("string", "ideamart", json.dumps(CANARIES["lk"]), ["payload is not an object"]),
    (
        "encoded twice",
        "ideamart",
        json.dumps(json.dumps({"mobile": CANARIES["lk"]})),
        ["payload is a JSON string that holds an object: encode it once"],
    ),
    ("text in braces", "ideamart", json.dumps("{" + CANARIES["text"]), ["payload is not an object"]),
    ("number", "ideamart", CANARIES["mobile"], ["payload is not an object"]),
    ("empty", "ideamart", {}, ["mobile is missing", "tel:94"]),
    ("missing mobile", "hyperverge", with_("hyperverge", mobile=...), ["mobile is missing", "10 digits"]),
    ("missing template", "hyperverge", with_("hyperverge", template_id=...), ["template_id is missing"]),
    ("missing token", "paytm", with_("paytm", token=...), ["token is missing"]),
    ("missing otp_type", "iserveu", with_("iserveu", otp_type=...), ["otp_type is missing"]),
    ("missing ovd_data", "iserveu", with_("iserveu", ovd_data=...), ["ovd_data is missing", "12 digits"]),
    ("missing amount", "iserveu", with_("iserveu", otp_type="2", reference="REF001"), ["amount is missing"]),
    ("missing user", "relid", with_("relid", user_id=...), ["user_id is missing"]),
    ("unknown", "ideamart", with_("ideamart", moblie=CANARIES["lk"]), ["no field moblie", "did you mean mobile"]),
    (
        "unknown, far off",
        "ideamart",
        with_("ideamart", colour=CANARIES["text"]),
        ["no field colour", "it takes: mobile"],
    ),
    ("value for a name", "ideamart", with_("ideamart", **{CANARIES["lk"]: "mobile"}), ["name is not an identifier"]),
    ("number for a name", "ideamart", with_("ideamart", **{"+94" + CANARIES["lk"][1:]: ""}), ["not an identifier"]),
    ("of another call", "ideamart", with_("ideamart", reference="x"), ["reference", "verify"]),
    ("a way that it does not have", "hyperverge", with_("hyperverge", channel="voice"), ["channel", "only sms"]),
    (
        "a way that is none of ours",
        "twilio",
        with_("twilio", channel="sna"),
        ["channel", "sms, voice, whatsapp, email"],
    ),
    (
        "an address, and no e-mail",
        "msg91",
        with_("msg91", mobile=CANARIES["text"] + "@example.org"),
        ["mobile", "8 to 15 digits"],
    ),
    ("no address", "twilio", with_("twilio", mobile=CANARIES["text"] + "@example"), ["mobile", "an e-mail address"]),
    (
        "a text to an address",
        "twilio",
        with_("twilio", mobile=CANARIES["text"] + "@example.org", channel="sms"),
        ["channel does not go"],
    ),
    ("half of a payment", "twilio", with_("twilio", payee=CANARIES["text"]), ["amount is missing"]),
    (
        "a code of the caller's own",
        "twilio",
        with_("twilio", extra={"CustomCode": CANARIES["code"]}),
        ["extra.CustomCode"],
    ),
    (
        "a variable that is a code",
        "msg91",
        with_("msg91", variables={"otp": CANARIES["code"]}),
        ["otp does not belong in variables"],
    ),
    (
        "a variable over a field",
        "msg91",
        with_("msg91", variables={"Mobile": CANARIES["mobile"]}),
        ["variables.Mobile", "mobile"],
    ),
    ("no code at all", "msg91", with_("msg91", extra={"invisible": CANARIES["text"]}), ["extra.invisible"]),
    ("both names", "ideamart", with_("ideamart", subscriberId="tel:94771239876"), ["mobile is given twice"]),
    ("both names, equal", "hyperverge", with_("hyperverge", templateId="tpl-1"), ["template_id is given twice"]),
    (
        "both names, nested",
        "ideamart",
        with_("ideamart", metadata={"app_code": CANARIES["text"], "appCode": "x"}),
        ["metadata.app_code is given twice"],
    ),
    ("null field", "ideamart", with_("ideamart", mobile=None), ["mobile is null"]),
    ("boolean number", "ideamart", with_("ideamart", mobile=True), ["mobile", "tel:94"]),
    ("object number", "ideamart", with_("ideamart", mobile={"n": CANARIES["lk"]}), ["mobile", "tel:94"]),
    ("array number", "hyperverge", with_("hyperverge", mobile=[CANARIES["mobile"]]), ["mobile", "10 digits"]),
    ("short number", "hyperverge", with_("hyperverge", mobile=CANARIES["mobile"][:-1]), ["mobile", "10 digits"]),
    ("long number", "hyperverge", with_("hyperverge", mobile="120" + CANARIES["mobile"]), ["mobile", "10 digits"]),
    ("two numbers", "ideamart", with_("ideamart", mobile=f"{CANARIES['lk']},{CANARIES['lk']}"), ["mobile"]),
    ("broadcast", "ideamart", with_("ideamart", mobile="tel:all"), ["mobile", "broadcast"]),
    ("letters", "iserveu", with_("iserveu", ovd_data=CANARIES["text"]), ["ovd_data", "12 digits"]),
    ("text for a list", "relid", with_("relid", msg=CANARIES["text"]), ["msg", "array"]),
    ("text in a list", "relid", with_("relid", msg=[CANARIES["text"]]), ["msg[0]"]),
    (
        "missing in a list",
        "relid",
        with_("relid", msg=[{"lng": "en", "subject": CANARIES["text"], "label": ""}]),
        ["msg[0].message is missing"],
    ),
    (
        "missing language",
        "relid",
        with_("relid", msg=[{"subject": "s", "message": MSG["message"], "label": {}}]),
        ["msg[0].lng is missing"],
    ),
    (
        "missing subject",
        "relid",
        with_("relid", msg=[{"lng": "en", "message": MSG["message"], "label": {}}]),
        ["msg[0].subject is missing"],
    ),
    (
        "missing label",
        "relid",
        with_("relid", msg=[{"lng": "en", "subject": "s", "message": MSG["message"]}]),
        ["msg[0].label is missing"],
    ),
    ("missing life", "relid", with_("relid", expires_in=...), ["expires_in is missing", "code_lifetime"]),
    ("missing notification", "relid", with_("relid", notification_msg=...), ["notification_msg is missing"]),
    ("no place for the code", "relid", with_("relid", msg=[{**MSG, "message": CANARIES["text"]}]), ["msg", "$$OTP$$"]),
    (
        "unknown in a list",
        "relid",
        with_("relid", msg=[{**MSG, "subjekt": CANARIES["text"]}]),
        ["msg[0].subjekt", "subject"],
    ),
    ("out of range", "hyperverge", with_("hyperverge", otp_length=10), ["otp_length", "4 to 9"]),
    ("fraction", "hyperverge", with_("hyperverge", otp_length=4.5), ["otp_length", "4 to 9"]),
    ("half of a pair", "hyperverge", with_("hyperverge", time="10"), ["time_format is missing"]),
    ("over-long", "hyperverge", with_("hyperverge", template_id=CANARIES["text"] * 100), ["template_id", "256"]),
    ("over-long token", "paytm", with_("paytm", token=CANARIES["token"] * 1000), ["token", "4096"]),
    ("over-long name", "ideamart", with_("ideamart", **{CANARIES["text"] * 10: 1}), ["name is not an identifier"]),
    ("line break", "hyperverge", with_("hyperverge", transaction_id=CANARIES["text"] + "\r\nx: y"), ["transaction_id"]),
    (
        "one MB",
        "ideamart",
        with_("ideamart", metadata={"client": CANARIES["text"] * 90_000}),
        ["payload is longer than"],
    ),
    (
        "65 kB of fields",
        "ideamart",
        {**with_("ideamart"), **{f"f{n}": CANARIES["text"] for n in range(4000)}},
        ["payload is longer than"],
    ),
    ("10,000 deep", "ideamart", '{"metadata":' + "[" * 10_000 + "]" * 10_000 + "}", ["nested too deep"]),
    ("40 deep", "ideamart", '{"metadata":' * 40 + f'"{CANARIES["text"]}"' + "}" * 40, ["nested too deep"]),
    ("huge number", "hyperverge", '{"mobile": 1e400, "template_id": "x"}', ["mobile does not follow its rule"]),
    ("code in it", "ideamart", with_("ideamart", otp=CANARIES["code"]), ["otp does not belong", "argument otp"]),
    (
        "code in it, by another name",
        "hyperverge",
        with_("hyperverge", otp_code=CANARIES["code"]),
        ["otp_code does not belong"],
    ),
    (
        "code in it, the vendor's name",
        "relid",
        with_("relid", otp_value=CANARIES["code"]),
        ["otp_value does not belong"],
    ),
]


@pytest.mark.parametrize(
    "provider, payload, words", [case[1:] for case in PAYLOADS], ids=[case[0] for case in PAYLOADS]
)
def test_payload(gateway, provider, payload, words):
    statement = f"SELECT * FROM otp_send('{provider}', NULL)" if payload is None else send(provider, payload)
    Refused(gateway, statement).says("22023", *words)


@pytest.mark.parametrize("provider", list(FLOWS))
def test_the_good_payload_is_good(gateway, simulator, provider):
    """The refusals above are for what was changed, not for the canaries."""
    assert gateway.execute(send(provider, with_(provider)))[0][3] == "sent"
    assert simulator.count() == 1


def test_payload_of_verify_and_resend(gateway, simulator):
    to = CANARIES["mobile"]
    id = gateway.send("hyperverge", to)["verification_id"]
    for statement, words in [
        (
            f"SELECT otp_verify('{id}'::uuid, 'x', '{{\"mobile\": \"9876500000\"}}')",
            ["mobile belongs to the verification"],
        ),
        (f"SELECT otp_verify('{id}'::uuid, 'x', NULL)", ["payload is null"]),
        (f"SELECT otp_verify('{id}'::uuid, 'x', '{{\"otp\": \"{CANARIES['code']}\"}}')", ["otp does not belong"]),
        (f"SELECT otp_verify('{id}'::uuid, '{CANARIES['code']}', '{{\"template_id\": \"x\"}}')", ["template_id"]),
        (f"SELECT otp_resend('{id}'::uuid, '{{\"channel\": \"{CANARIES['text']}\"}}')", ["channel", "sms, voice"]),
        (f"SELECT otp_verify('{id}'::uuid, NULL)", ["otp is null"]),
        (
            f"SELECT otp_cancel('{id}'::uuid)",
            ["hyperverge has no cancel", "hyperverge has: send, verify, resend", "stays good until expires_at"],
        ),
        ("SELECT otp_verify(NULL::uuid, '1')", ["verification_id is null"]),
        ("SELECT otp_verify(NULL, '1')", ["verification_id (or provider) is null"]),
        ("SELECT otp_resend(NULL)", ["verification_id is null"]),
        ("SELECT otp_cancel(NULL)", ["verification_id is null"]),
        ("SELECT otp_gateway.wait(NULL)", ["verification_id is null"]),
        (f"SELECT otp_verify('{str(id)[:-1]}', '1')", ["verification_id is not a uuid", "31 hexadecimal digits"]),
        (f"SELECT otp_verify('{id}0', '1')", ["verification_id is not a uuid", "33 hexadecimal digits"]),
        (f"SELECT otp_verify('{str(id)[:-1]}o', '1')", ["verification_id is not a uuid", "31 hexadecimal digits"]),
        ("SELECT otp_send(NULL, '{}')", ["provider is null"]),
        ("SELECT otp_verify('ideamart', '1234', '{}')", ["reference is missing"]),
    ]:
        Refused(gateway, statement, values=["9876500000", str(id)[:-1]], sent=1).says("22023", *words)
    assert gateway.attempts(id) == [("send", "sent")]
    assert gateway.verification(id)["check_count"] == 0


def test_unknown_things(gateway):
    other = "01980000-0000-7000-8000-000000000000"
    Refused(gateway, send("nowhere", with_("ideamart"))).says("42704", "nowhere", "CREATE SERVER")
    Refused(gateway, f"SELECT otp_verify('{other}'::uuid, '{CANARIES['code']}')").says("42704", "no verification")
    Refused(gateway, f"SELECT otp_verify('{other}', '{CANARIES['code']}')").says("42704", "no verification")
    Refused(gateway, f"SELECT otp_verify('nowhere', '{CANARIES['code']}')").says("42704", "nowhere")
    # No id that is spoilt: too short, or a server's name.
    Refused(gateway, f"SELECT otp_verify('deadbeef-cafe', '{CANARIES['code']}')").says("42704", "deadbeef-cafe")
    name = "0a1b2c3d4e5f6a7b-0a1b2c3d4e5f6a7b0"
    gateway.execute(f'CREATE SERVER "{name}" FOREIGN DATA WRAPPER otp_ideamart')
    Refused(gateway, f"SELECT otp_verify('{name}', '{CANARIES['code']}', '{{\"reference\": \"r\"}}')").says(
        "42704", name, "user mapping"
    )
    Refused(gateway, f"SELECT otp_resend('{other}')").says("42704", "no verification")
    Refused(gateway, f"SELECT otp_cancel('{other}')").says("42704", "no verification")
    gateway.execute("CREATE FOREIGN DATA WRAPPER plain")
    gateway.execute("CREATE SERVER elsewhere FOREIGN DATA WRAPPER plain")
    try:
        Refused(gateway, send("elsewhere", with_("ideamart"))).says("42704", "not a provider", "otp_ideamart")
    finally:
        gateway.execute("DROP FOREIGN DATA WRAPPER plain CASCADE")


@pytest.fixture
def role(gateway):
    """A role without any right, and its session."""
    name = f"app_{os.urandom(4).hex()}"
    gateway.execute(f"CREATE ROLE {name} LOGIN")
    session = gateway.connect(user=name)
    try:
        yield name, session
    finally:
        session.close()
        gateway.execute(f"DROP OWNED BY {name}")
        gateway.execute(f"DROP ROLE {name}")


def test_no_usage(gateway, simulator, role):
    name, session = role
    Refused(gateway, send("ideamart", with_("ideamart")), session=session).says("42501", "ideamart", "GRANT USAGE")
    Refused(
        gateway, f"SELECT otp_verify('ideamart', '{CANARIES['code']}', '{{\"reference\": \"r\"}}')", session=session
    ).says("42501", "ideamart", "GRANT USAGE")
    gateway.execute(f"GRANT USAGE ON FOREIGN SERVER ideamart TO {name}")
    assert gateway.send(session=session)["outcome"] == "sent"
    # The right can be taken away again.
    gateway.execute(f"REVOKE USAGE ON FOREIGN SERVER ideamart FROM {name}")
    Refused(gateway, send("ideamart", with_("ideamart")), session=session, sent=1).says("42501", "ideamart")


def test_read_only_transaction(gateway):
    session = gateway.connect(options="-c default_transaction_read_only=on")
    for statement in [
        send("ideamart", with_("ideamart")),
        f"SELECT otp_verify('ideamart', '{CANARIES['code']}', '{{\"reference\": \"r\"}}')",
    ]:
        Refused(gateway, statement, session=session).says("25006", "read-only transaction")
    session.close()


def test_cancelled(gateway, simulator):
    """57014 to the caller; the call goes on and is on record."""
    simulator.fault("hold", "ideamart", "send", times=1)
    gateway.execute("SET statement_timeout = '300ms'")
    before = len(gateway.cluster.log())
    with pytest.raises(psycopg2.errors.QueryCanceled):
        gateway.execute(send("ideamart", with_("ideamart")))
    gateway.execute("RESET statement_timeout")
    simulator.release()
    assert [value for value in IN_LOG if value in gateway.cluster.log()[before:]] == []
    ((attempt,),) = gateway.execute("SELECT id FROM otp_gateway.attempt")
    assert gateway.settled(attempt)["outcome"] == "sent"


def test_not_preloaded():
    cluster = Cluster(preload=False).create()
    try:
        cluster.start()
        with cluster.session() as session, session.cursor() as cursor:
            cursor.execute("CREATE EXTENSION otp_gateway")
            cursor.execute("CREATE SERVER ideamart FOREIGN DATA WRAPPER otp_ideamart")
            cursor.execute("CREATE USER MAPPING FOR PUBLIC SERVER ideamart OPTIONS (application_id 'a', password 'b')")
            for statement in [
                send("ideamart", with_("ideamart")),
                f"SELECT otp_verify('01980000-0000-7000-8000-000000000000', '{CANARIES['code']}')",
                "SELECT otp_resend('01980000-0000-7000-8000-000000000000')",
                "SELECT otp_cancel('01980000-0000-7000-8000-000000000000')",
            ]:
                with pytest.raises(psycopg2.Error) as caught:
                    cursor.execute(statement)
                assert caught.value.pgcode == "55000"
                assert "shared_preload_libraries = 'otp_gateway'" in caught.value.diag.message_hint
                assert [value for value in IN_LOG if value in str(caught.value)] == []
            # Options are checked all the same.
            with pytest.raises(psycopg2.Error) as caught:
                cursor.execute("ALTER SERVER ideamart OPTIONS (ADD timeuot '1s')")
            assert "timeout" in caught.value.diag.message_hint
    finally:
        cluster.remove()


def test_hot_standby(simulator):
    primary = Cluster(settings={"wal_level": "replica", "max_wal_senders": 4}).create()
    try:
        primary.start()
        with primary.session() as session:
            session.cursor().execute("CREATE EXTENSION otp_gateway")
        with Gateway(primary, "postgres", simulator) as gateway:
            gateway.create_providers()
            sent = gateway.send("hyperverge", CANARIES["mobile"])
            with standby_of(primary) as standby:
                gateway.cluster = standby
                gateway.session = None
                session = standby.connect()
                for statement in [
                    send("ideamart", with_("ideamart")),
                    f"SELECT otp_verify('{sent['verification_id']}', '{CANARIES['code']}')",
                    f"SELECT otp_resend('{sent['verification_id']}')",
                    f"SELECT otp_cancel('{sent['verification_id']}')",
                ]:
                    Refused(gateway, statement, session=session, sent=1).says("25006", "standby", "primary")
                # Promoted, it sends; the flow that the primary began goes on.
                standby.run("pg_ctl", "-D", standby.data, "-w", "promote")
                code = simulator.code("hyperverge", CANARIES["mobile"])
                assert gateway.verify(sent["verification_id"], code, session)["outcome"] == "approved"
                session.close()
                gateway.session = primary.connect()
    finally:
        primary.remove()


# What is written: options


SERVER_OPTIONS = [
    # what, vendor, options, SQLSTATE, words
    ("mistyped", "ideamart", {"timeuot": "1s"}, "HV00D", ["timeuot", '"timeout"', "Valid options"]),
    ("mistyped, again", "ideamart", {"baseurl": "https://x"}, "HV00D", ["baseurl", '"base_url"']),
    ("of another vendor", "ideamart", {"token_url": "https://x"}, "HV00D", ["token_url", "Valid options"]),
    ("credential", "ideamart", {"password": CANARIES["text"]}, "HV00D", ["password", "user mapping"]),
    ("credential file", "hyperverge", {"app_key_file": "/tmp/x"}, "HV00D", ["app_key_file", "user mapping"]),
    ("plain http", "ideamart", {"base_url": "http://vendor.example"}, "22023", ["base_url", "allow_plain_http"]),
    (
        "plain http refused",
        "ideamart",
        {"base_url": "http://vendor.example", "allow_plain_http": "false"},
        "22023",
        ["base_url", "allow_plain_http"],
    ),
    (
        "plain token_url",
        "relid",
        {"base_url": "https://a", "token_url": "http://b"},
        "22023",
        ["token_url", "allow_plain_http"],
    ),
    (
        "user in URL",
        "ideamart",
        {"base_url": f"https://me:{CANARIES['text']}@vendor.example"},
        "22023",
        ["base_url", "user mapping"],
    ),
    (
        "query",
        "ideamart",
        {"base_url": f"https://vendor.example/?key={CANARIES['text']}"},
        "22023",
        ["base_url", "query"],
    ),
    ("fragment", "ideamart", {"base_url": "https://vendor.example/#x"}, "22023", ["base_url", "fragment"]),
    ("no host", "ideamart", {"base_url": "https:///otp"}, "22023", ["base_url", "host"]),
    ("only a port", "ideamart", {"base_url": "https://:443"}, "22023", ["base_url", "host"]),
    ("bad port", "ideamart", {"base_url": "https://vendor.example:99999"}, "22023", ["base_url", "port"]),
    ("no URL", "ideamart", {"base_url": "vendor.example"}, "22023", ["base_url", "https://"]),
    ("other scheme", "ideamart", {"base_url": "ftp://vendor.example"}, "22023", ["base_url", "https://"]),
    ("white space", "ideamart", {"base_url": "https://vendor.example/a b"}, "22023", ["base_url", "white space"]),
    ("empty", "ideamart", {"base_url": ""}, "22023", ["base_url"]),
    ("required", "relid", {}, "22023", ["base_url is required"]),
    ("required of its own", "twilio", {}, "22023", ["service_sid is required"]),
    (
        "mistyped of its own",
        "twilio",
        {"service_sid": "VA" + CANARIES["text"]},
        "22023",
        ["service_sid", "32 hexadecimal digits"],
    ),
    ("of another vendor alone", "ideamart", {"service_sid": "VA" + "0a" * 16}, "HV00D", ["service_sid"]),
    ("no unit", "ideamart", {"timeout": "8"}, "22023", ["timeout", "ms, s"]),
    ("no number", "ideamart", {"connect_timeout": "soon"}, "22023", ["connect_timeout", "ms, s"]),
    ("too long", "ideamart", {"timeout": "1d"}, "22023", ["timeout", "at most"]),
    ("zero", "ideamart", {"timeout": "0s"}, "22023", ["timeout", "at least"]),
    ("negative", "ideamart", {"max_in_flight": "-1"}, "22023", ["max_in_flight", "from 1"]),
    ("no count", "ideamart", {"max_checks": "three"}, "22023", ["max_checks", "from 1"]),
    ("no boolean", "ideamart", {"allow_plain_http": "maybe"}, "22023", ["allow_plain_http", "true or false"]),
    ("relative path", "ideamart", {"ca_file": "ca.pem"}, "22023", ["ca_file", "absolute"]),
    ("half a pair", "ideamart", {"client_cert_file": "/tmp/c.pem"}, "22023", ["client_key_file"]),
    ("defaults no JSON", "hyperverge", {"defaults": "{"}, "22023", ["defaults", "JSON object"]),
    ("defaults no object", "hyperverge", {"defaults": "[]"}, "22023", ["defaults", "JSON object"]),
    (
        "defaults unknown",
        "hyperverge",
        {"defaults": '{"templateid_": "x", "tempalte_id": "x"}'},
        "22023",
        ["defaults", "template_id"],
    ),
    (
        "defaults mistyped",
        "hyperverge",
        {"defaults": '{"otp_length": 99}'},
        "22023",
        ["defaults", "otp_length", "4 to 9"],
    ),
    (
        "defaults personal",
        "hyperverge",
        {"defaults": json.dumps({"mobile": CANARIES["mobile"]})},
        "22023",
        ["defaults", "mobile"],
    ),
    (
        "defaults a token",
        "paytm",
        {"defaults": json.dumps({"token": CANARIES["token"]})},
        "22023",
        ["defaults", "token"],
    ),
    ("defaults a code", "ideamart", {"defaults": json.dumps({"otp": CANARIES["code"]})}, "22023", ["defaults", "otp"]),
]
MAPPINGS = [
    ("server option", "ideamart", {"base_url": "https://x"}, "HV00D", ["base_url", "server"]),
    ("timeout", "ideamart", {**CREDENTIALS["ideamart"], "timeout": "1s"}, "HV00D", ["timeout", "server"]),
    ("token_url", "relid", {"token_url": "https://x"}, "HV00D", ["token_url", "server"]),
    ("mistyped", "ideamart", {"aplication_id": CANARIES["text"]}, "HV00D", ["aplication_id", '"application_id"']),
    ("of another vendor", "ideamart", {"app_key": CANARIES["text"]}, "HV00D", ["app_key", "application_id"]),
    ("incomplete", "ideamart", {"password": CANARIES["text"]}, "22023", ["application_id and password"]),
    ("incomplete, again", "hyperverge", {"app_id": CANARIES["text"]}, "22023", ["app_id and app_key"]),
    ("none", "hyperverge", {}, "22023", ["app_id and app_key"]),
    ("a single one", "msg91", {"auth_key": CANARIES["text"]}, "HV00D", ["auth_key", '"authkey"']),
    (
        "one of each pair",
        "twilio",
        {"api_key": "k", "auth_token": CANARIES["text"]},
        "22023",
        ["api_key and api_secret; or account_sid"],
    ),
    ("an address for a secret", "twilio", {"service_sid": "VA" + "0a" * 16}, "HV00D", ["service_sid", "server"]),
    ("half of Basic", "paytm", {"username": CANARIES["text"]}, "22023", ["username and password; or none"]),
    (
        "two sets",
        "relid",
        {"username": "u", "password": CANARIES["text"], "access_token": CANARIES["token"]},
        "22023",
        ["username and password; or access_token; or client_id and client_secret"],
    ),
    ("a set and a half", "relid", {"access_token": CANARIES["token"], "client_id": "x"}, "22023", ["Exactly one"]),
    (
        "twice",
        "ideamart",
        {"application_id": "a", "password": CANARIES["text"], "password_file": "/tmp/p"},
        "22023",
        ["password_file"],
    ),
    ("empty", "ideamart", {"application_id": "a", "password": ""}, "22023", ["password is empty"]),
]


def options(given):
    return f"OPTIONS ({listed(given)})" if given else ""


@pytest.mark.parametrize(
    "vendor, given, state, words", [case[1:] for case in SERVER_OPTIONS], ids=[case[0] for case in SERVER_OPTIONS]
)
def test_server_option(gateway, vendor, given, state, words):
    # Postgres logs the statement, which holds what the writer wrote; the error itself names no value.
    Refused(gateway, f"CREATE SERVER refused FOREIGN DATA WRAPPER otp_{vendor} {options(given)}").says(state, *words)
    assert gateway.execute("SELECT 1 FROM pg_foreign_server WHERE srvname = 'refused'") == []


@pytest.mark.parametrize(
    "vendor, given, state, words", [case[1:] for case in MAPPINGS], ids=[case[0] for case in MAPPINGS]
)
def test_user_mapping(gateway, vendor, given, state, words):
    Refused(gateway, f"CREATE USER MAPPING FOR CURRENT_USER SERVER {vendor} {options(given)}").says(state, *words)


def test_altered_options_are_checked_too(gateway):
    for statement in [
        "ALTER SERVER ideamart OPTIONS (SET allow_plain_http 'false')",
        "ALTER SERVER ideamart OPTIONS (DROP allow_plain_http)",
        "ALTER SERVER relid OPTIONS (DROP base_url)",
        "ALTER SERVER twilio OPTIONS (DROP service_sid)",
        "ALTER USER MAPPING FOR PUBLIC SERVER ideamart OPTIONS (DROP password_file)",
    ]:
        Refused(gateway, statement).says("22023")
    Refused(gateway, "ALTER FOREIGN DATA WRAPPER otp_ideamart OPTIONS (ADD password 'x')").says("HV00D", "password")


def test_files_are_for_those_who_may_read_files(gateway, role):
    name, session = role
    gateway.execute(f"GRANT USAGE ON FOREIGN DATA WRAPPER otp_ideamart TO {name}")
    gateway.execute("CREATE SERVER mine FOREIGN DATA WRAPPER otp_ideamart", session=session)
    for statement in [
        "ALTER SERVER mine OPTIONS (ADD ca_file '/etc/passwd')",
        "ALTER SERVER mine OPTIONS (ADD client_cert_file '/a', ADD client_key_file '/b')",
        "CREATE USER MAPPING FOR CURRENT_USER SERVER mine OPTIONS (application_id 'a', password_file '/etc/passwd')",
        "CREATE USER MAPPING FOR CURRENT_USER SERVER mine OPTIONS (application_id_file '/etc/passwd', password 'b')",
    ]:
        Refused(gateway, statement, session=session).says("42501", "_file", "pg_read_server_files")
    gateway.execute(f"GRANT pg_read_server_files TO {name}")
    gateway.execute(
        "CREATE USER MAPPING FOR CURRENT_USER SERVER mine OPTIONS (application_id 'a', password_file '/etc/passwd')",
        session=session,
    )


# What is used: mappings, files, the key


@pytest.fixture
def secrets():
    """A directory outside the data directory with files that the server may read."""
    directory = pathlib.Path(tempfile.mkdtemp(prefix="otp_secrets_", dir="/tmp"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


def own(path, mode):
    path.chmod(mode)
    if os.geteuid() == 0:
        os.chown(path, *pwd.getpwnam("postgres")[2:4])


def test_missing_user_mapping(gateway, role):
    name, session = role
    gateway.execute("DROP USER MAPPING FOR PUBLIC SERVER ideamart")
    Refused(gateway, send("ideamart", with_("ideamart"))).says(
        "42704", "user mapping", "ideamart", "(application_id '...', password '...')"
    )
    gateway.execute(f"GRANT USAGE ON FOREIGN SERVER ideamart TO {name}")
    gateway.execute(
        f"CREATE USER MAPPING FOR postgres SERVER ideamart OPTIONS ({listed(credential_options('ideamart'))})"
    )
    # Another role's mapping is of no use.
    Refused(gateway, send("ideamart", with_("ideamart")), session=session).says("42704", "user mapping")


@pytest.mark.parametrize("what", ["missing", "unreadable", "a directory", "empty"])
def test_credential_file(gateway, simulator, secrets, what):
    file = secrets / "password"
    gateway.execute("ALTER USER MAPPING FOR PUBLIC SERVER ideamart OPTIONS (SET password_file '%s')" % file)
    match what:
        case "unreadable":
            file.write_text(CANARIES["text"])
            file.chmod(0o600)
            if os.geteuid() != 0:
                pytest.skip("needs a file of another user")
        case "a directory":
            file.mkdir()
        case "empty":
            file.write_text("\n")
            own(file, 0o600)
    Refused(gateway, send("ideamart", with_("ideamart"))).says("55000", "password_file")
    if what == "a directory":
        file.rmdir()
    file.write_text("right\n")
    own(file, 0o600)
    # Read at use: no restart, no new mapping.
    assert gateway.send()["outcome"] == "sent"
    assert simulator.log("ideamart", "send")[0]["body"]["password"] == "right"


def test_relid_without_token_url(gateway):
    gateway.execute("DROP USER MAPPING FOR PUBLIC SERVER relid")
    gateway.execute("CREATE USER MAPPING FOR PUBLIC SERVER relid OPTIONS (client_id 'a', client_secret 'b')")
    Refused(gateway, send("relid", with_("relid"))).says("22023", "token_url", "ALTER SERVER relid")


def test_settings_name_no_key(gateway, role):
    """Where the key is, is for superusers."""
    _, session = role
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        gateway.execute("SHOW otp_gateway.key_file", session=session)
    with pytest.raises(psycopg2.Error):
        gateway.execute("SET otp_gateway.key_file = '/tmp/other'")


# Statements that fail before any function of ours runs: Postgres itself would log them, code and number included.


@pytest.mark.parametrize(
    "statement",
    [
        f"SELECT otp_verify('01980000-0000-7000-8000-000000000000'::uuid, 481516234299)",
        f"SELECT otp_verify('ideamart', '{CANARIES['code']}', '{{\"reference\": \"{CANARIES['text']}\"')",
        f"SELECT otp_send('ideamart', '{{\"mobile\": {CANARIES['lk']}}}')",
        f"SELECT otp_send('ideamart', '{{\"mobile\": \"{CANARIES['lk']}\"}}', no_such_column)",
        f"SELECT otp_verify('0198-not-a-uuid'::uuid, '{CANARIES['code']}')",
        f"SELECT public.otp_verify('ideamart', otp => '{CANARIES['code']}', payloda => '{{}}')",
    ],
    ids=[
        "code as a number",
        "JSON cut off",
        "number with a leading zero",
        "no such function",
        "no uuid",
        "no such argument",
    ],
)
def test_statement_that_fails_before_it_runs_is_not_logged(gateway, statement):
    before = len(gateway.cluster.log())
    with pytest.raises(psycopg2.Error):
        gateway.execute(statement)
    log = gateway.cluster.log()[before:]
    assert "ERROR" in log
    assert [value for value in IN_LOG if value in log] == []


def test_failure_after_ours_ran_is_not_logged(gateway):
    before = len(gateway.cluster.log())
    payload = json.dumps(with_("ideamart"))
    for statement in [
        f"SELECT (otp_send('ideamart', '{payload}')).outcome::text::integer",
        f"SELECT outcome FROM otp_send('ideamart', '{payload}') WHERE 1 / (send_count - 1) = 0".replace(
            "send_count", "attempts_left - attempts_left + 1"
        ),
        f"DO $$ BEGIN PERFORM otp_send('ideamart', '{payload}'); RAISE EXCEPTION 'no'; END $$",
        f"BEGIN; SELECT otp_send('ideamart', '{payload}'); SELECT 1 / 0; COMMIT",
    ]:
        with pytest.raises(psycopg2.Error):
            gateway.execute(statement)
        gateway.execute("ROLLBACK")
    log = gateway.cluster.log()[before:]
    assert log.count("ERROR") == 4
    assert [value for value in IN_LOG if value in log] == []
    # Statements that are none of ours are logged as ever.
    with pytest.raises(psycopg2.Error):
        gateway.execute("SELECT 1 / 0 AS control_value_in_the_log")
    assert "control_value_in_the_log" in gateway.cluster.log()
