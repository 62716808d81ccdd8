"""Promise: no code, no full number, no Aadhaar number, no token and no credential is at rest: not in any byte of the data
directory (tables, indexes, WAL, temporary files) nor in the server's log, while flows are open or after they ended, and
whether statements succeed, fail, are cancelled or are nonsense. What is kept sealed is erased when a verification ends."""

import base64
import json
import secrets
import struct
import threading

import psycopg2
import pytest

from canaries import NUMERIC_HEADER, Canaries, control, digits, search
from cluster import Cluster, kill
from conftest import FLOWS, Gateway, until
from vendors import TABLE, VENDORS

VISIBLE = "control" + secrets.token_hex(8)


class Place:
    """A cluster of which every byte is searched, and a directory of credentials outside it."""

    def __init__(self, simulator):
        self.cluster = Cluster(settings={"wal_compression": "off"}).create().start()
        with self.cluster.session() as session:
            session.cursor().execute("CREATE EXTENSION otp_gateway")
            # A compressed value could hide what it holds from the search.
            session.cursor().execute(
                "ALTER TABLE otp_gateway_internal.attempt_record ALTER response SET STORAGE EXTERNAL"
            )
        self.gateway = Gateway(self.cluster, "postgres", simulator)
        self.canaries = Canaries()

    def remove(self):
        self.cluster.remove()
        self.canaries.remove_files()

    def file(self, prefix):
        """A credential in a file: its path."""
        return self.canaries.in_file(self.canaries.secret(prefix))

    def search(self):
        return search(self.cluster.directory, self.canaries)

    def as_text(self):
        """Every row, as a person would read it."""
        return "\n".join(
            row
            for table in ("otp_gateway.verification", "otp_gateway.attempt", "otp_gateway_internal.reference")
            for (row,) in self.gateway.execute(f"SELECT t::text FROM {table} t")
        )


@pytest.fixture
def place(simulator):
    place = Place(simulator)
    try:
        with place.gateway:
            yield place
    finally:
        place.remove()


def literal(value):
    text = value if isinstance(value, str) else json.dumps(value)
    return "'" + text.replace("'", "''") + "'"


def test_search_finds_what_is_there(tmp_path):
    """Every form that is looked for is found where it is."""
    canaries = Canaries()
    number, secret = canaries.number(), canaries.secret("s")
    aadhaar = canaries.number(12)
    forms = [
        f"+91{number}",
        f"tel:94{number}",
        f"+91 {number[:5]} {number[5:]}",
        f"{number[:3]}-{number[3:6]}-{number[6:]}",
        secret.upper(),
        base64.b64encode(f"user:{secret}".encode()).decode(),
        base64.b64encode(f"us:{secret}".encode()).decode(),
        base64.b64encode(secret.encode()).decode(),
        secret.encode().hex(),
        f"{aadhaar[:4]} {aadhaar[4:8]} {aadhaar[8:]}",
    ]
    for n, form in enumerate(forms):
        (tmp_path / str(n)).write_bytes(b"\0\xff" + form.encode() + b"\0")
    (tmp_path / "numeric").write_bytes(
        b"\0" + NUMERIC_HEADER + struct.pack("<3h", int(number[:2]), int(number[2:6]), int(number[6:]))
    )
    (tmp_path / "nothing").write_bytes(b"harmless")
    hits = search(tmp_path, canaries)
    files = {hit.lstrip("/").split(":")[0] for hit in hits}
    assert files == {*map(str, range(len(forms))), "numeric"}


def test_all_flows(place, simulator):
    gateway, canaries, cluster = place.gateway, place.canaries, place.cluster

    def provider(name, vendor, credentials, **options):
        gateway.create_provider(name, vendor, {f"{key}_file": place.file(key) for key in credentials}, **options)

    provider("iserveu", "iserveu", ["client_id", "client_secret"])
    provider("hyperverge", "hyperverge", ["app_id", "app_key"])
    provider("paytm", "paytm", ["username", "password"])
    provider("ideamart", "ideamart", ["application_id", "password"], timeout="2s")
    provider("relid", "relid", ["username", "password"])
    provider("relid_token", "relid", ["access_token"])
    provider("relid_oauth", "relid", ["client_id", "client_secret"], token_url=simulator.url("relid") + "/oauth/token")

    provider("twilio", "twilio", ["api_key", "api_secret"])
    provider("twilio_account", "twilio", ["account_sid", "auth_token"])
    provider("msg91", "msg91", ["authkey"])
    provider("vonage", "vonage", ["api_key", "api_secret"])

    def sri_lankan():
        national = "77" + digits(7)
        canaries.digits(national)
        return national

    def payload(vendor):
        """(recipient, payload of the send, payload of the verify)"""
        if vendor == "ideamart":
            national = sri_lankan()
            spelled = secrets.choice([f"0{national}", f"+94{national}", f"tel:94{national}", f"0094{national}"])
            return (
                f"0{national}",
                {"mobile": spelled, "metadata": {"client": "WebSite", "app_code": "https://a.example"}},
                {},
            )
        if vendor == "vonage":
            national = sri_lankan()
            spelled = secrets.choice([f"0{national}", f"+94{national}", f"0094{national}"])
            return f"0{national}", {"mobile": spelled, "brand": VISIBLE[:16], "code_length": 10}, {}
        if vendor == "twilio":
            national, address = sri_lankan(), f"{canaries.secret('asha')}@example.org"
            to, spelled = secrets.choice(
                [(f"0{national}", f"+94{national}"), (address, address.replace("example", "EXAMPLE"))]
            )
            more = {
                "rate_limits": {"user": canaries.secret("user")},
                "amount": "1001",
                "payee": canaries.secret("payee"),
            }
            return to, {"mobile": spelled, **more}, {}
        if vendor == "relid":
            user = canaries.secret("user")
            return user, FLOWS["relid"]["send"](user) | {"controls": {"otp": {"otp_spec": "LN-9", "attempts": 3}}}, {}
        to = canaries.number()
        send = FLOWS[vendor]["send"](secrets.choice([to, f"+91{to}", f"0{to}", f"+91 {to[:5]} {to[5:]}"]))
        if vendor in ("hyperverge", "msg91"):
            send["otp_length"] = 9
        if vendor == "msg91":
            send |= {"variables": {"name": canaries.secret("name")}, "email": f"{canaries.secret('asha')}@example.org"}
        if vendor == "paytm":
            send |= {"order_id": "ORDER" + secrets.token_hex(6), "token": canaries.secret("token")}
        if vendor == "iserveu":
            send |= {"ovd_data": canaries.number(12), "username": VISIBLE}
        return to, send, FLOWS[vendor]["verify"]

    def code(vendor, to):
        code = simulator.code(vendor, to)
        # A shorter one is found by chance, in a time or a page.
        if len(code) >= 9:
            canaries.text(code)
        return code

    providers = ["iserveu", "hyperverge", "paytm", "ideamart", "relid", "relid_token", "relid_oauth"]
    providers += ["twilio", "twilio_account", "msg91", "vonage"]
    assert {name.split("_")[0] for name in providers} == set(VENDORS)
    ended, open_ = [], []
    for name in providers:
        vendor = name.split("_")[0]
        # One to its end, as people write it: all in the text of the statement.
        for end in ("approved", "tries spent", "left open"):
            to, send, verify = payload(vendor)
            id = gateway.execute(f"SELECT (otp_send('{name}', {literal(send)})).verification_id")[0][0]
            (ended if end != "left open" else open_).append(id)
            for _ in range(1 if end != "tries spent" else 9):
                typed = canaries.number(9)
                gateway.execute(f"SELECT otp_verify('{id}', {literal(typed)}, {literal(verify)})")
            if end == "approved":
                row = gateway.row(f"SELECT * FROM otp_verify('{id}', {literal(code(vendor, to))}, {literal(verify)})")
                assert row["outcome"] == "approved", row
            elif end == "left open":
                gateway.execute(f"SELECT otp_resend('{id}')")
                code(vendor, to)

    # A transaction of iServeU, and a cancel of REL-ID.
    to, reference = canaries.number(), "REF" + secrets.token_hex(5)
    transaction = {"mobile": to, "otp_type": "2", "username": VISIBLE, "reference": reference, "amount": "100"}
    id = gateway.execute(f"SELECT (otp_send('iserveu', {literal(transaction)})).verification_id")[0][0]
    bene = {
        "account_number": canaries.number(14),
        "bene_bank_name": "Bank",
        "bene_mobile": canaries.number(),
        "bene_name": "B",
        "bank_code": "B1",
        "bene_ifsc_code": "BANK0001",
        "transaction_mode": "IMPS",
        "customer_name": "C",
        "pincode": "751001",
        "address": "Street 1",
        "is_hold_transaction": False,
        "lat_long": "1.0,2.0",
        "customer_ip": "203.0.113.9",
    }
    row = gateway.row(f"SELECT * FROM otp_verify('{id}', {literal(code('iserveu', to))}, {literal(bene)})")
    assert row["outcome"] == "approved", row
    ended.append(id)
    to, send, _ = payload("relid")
    id = gateway.execute(f"SELECT (otp_send('relid', {literal(send)})).verification_id")[0][0]
    assert gateway.row(f"SELECT * FROM otp_cancel('{id}')")["outcome"] == "canceled"
    ended.append(id)

    # Vendors that echo what they were sent, in every member and in words; and a control value beside it.
    for vendor, operation, reply in [
        (
            "ideamart",
            "send",
            lambda n, c, t: {
                "statusCode": "E1999",
                "statusDetail": f"{VISIBLE}: no such tel:94{n}",
                "subscriberId": f"tel:94{n}",
                "x": [n, int(n), f"0{n}"],
            },
        ),
        (
            "ideamart",
            "verify",
            lambda n, c, t: {"statusCode": "E1850", "statusDetail": f"wrong {c} for +94 {n}", "otp": c, "echo": {c: c}},
        ),
        (
            "hyperverge",
            "send",
            lambda n, c, t: {
                "status": "failure",
                "statusCode": 422,
                "error": {"message": f"{n} is blocked", "type": "x"},
                "mobileNumber": n,
                "n": int(n),
            },
        ),
        (
            "hyperverge",
            "verify",
            lambda n, c, t: {
                "status": "failure",
                "statusCode": 422,
                "error": f"OTP not match: {c} of {n}",
                "again": f"91{n}",
            },
        ),
        (
            "paytm",
            "send",
            lambda n, c, t: {
                "body": {
                    "resultInfo": {"resultStatus": "F", "resultCode": "432", "resultMsg": f"{t} of {n}"},
                    "token": t,
                    "also": [t, n],
                }
            },
        ),
        (
            "paytm",
            "verify",
            lambda n, c, t: {
                "body": {
                    "resultInfo": {"resultStatus": "F", "resultCode": "403", "resultMsg": f"{c} {t}"},
                    "authenticated": False,
                    "also": {"a": t, "b": c, "n": n},
                }
            },
        ),
        (
            "twilio",
            "send",
            lambda n, c, t: {"code": 60200, "message": f"{VISIBLE}: no such {n}", "status": 400, "to": n, "x": [n]},
        ),
        (
            "twilio",
            "verify",
            lambda n, c, t: {
                "sid": "VE" + "0c" * 16,
                "status": "pending",
                "valid": False,
                "to": n,
                "lookup": {"n": n},
                "code_sent": f"{c} to {n}",
            },
        ),
        (
            "msg91",
            "send",
            lambda n, c, t: {"type": "error", "message": f"{n} is blocked", "mobile": int(n), "x": f"91{n}"},
        ),
        (
            "msg91",
            "verify",
            lambda n, c, t: {"type": "error", "message": "OTP not match", "mobile": f"91{n}", "again": [c, {c: n}]},
        ),
        (
            "vonage",
            "send",
            lambda n, c, t: {
                "title": "Bad Request",
                "detail": f"{VISIBLE}: no such +94 {n}",
                "to": n,
                "x": [f"94{n}", int(n)],
            },
        ),
        (
            "vonage",
            "verify",
            lambda n, c, t: {
                "title": "Invalid Code",
                "detail": f"wrong {c} for 94{n}",
                "phone_number": n,
                "again": {c: c},
            },
        ),
    ]:
        to, send, verify = payload(vendor)
        national = to.removeprefix("0")
        token, typed = send.get("token", "-"), canaries.number(9)
        if operation == "send":
            simulator.fault(
                "reply", vendor, "send", times=1, body=reply(national, typed, token), status=TABLE[vendor].statuses[1]
            )
        id = gateway.execute(f"SELECT (otp_send('{vendor}', {literal(send)})).verification_id")[0][0]
        if operation == "verify":
            simulator.fault(
                "reply", vendor, "verify", times=1, body=reply(national, typed, token), status=TABLE[vendor].statuses[1]
            )
            row = gateway.row(f"SELECT * FROM otp_verify('{id}', {literal(typed)}, {literal(verify)})")
            assert row["outcome"] == "invalid_code", row

    # Statements that fail after the call, are cancelled, or are refused: Postgres would log them.
    to, send, _ = payload("ideamart")
    for statement in [
        f"SELECT 1 / (attempts_left - attempts_left) FROM otp_send('ideamart', {literal(send)})",
        f"DO $do$ BEGIN PERFORM otp_send('ideamart', {literal(send)}); RAISE EXCEPTION 'no'; END $do$",
        f"SELECT otp_send('ideamart', {literal(send | {'moblie': to})})",
        f"SELECT otp_send('ideamart', {literal({to: to})})",
        f"SELECT otp_send('nowhere', {literal(send)})",
        f"SELECT otp_verify('{open_[0]}', '1', {literal({'otp': canaries.secret('code')})})",
        f"SET statement_timeout = '100ms'; SELECT otp_send('ideamart', {literal(send)})",
    ]:
        if "statement_timeout" in statement:
            simulator.fault("hold", "ideamart", "send", times=1)
        with pytest.raises(psycopg2.Error):
            gateway.execute(statement)
    gateway.execute("RESET statement_timeout")
    # The worker shows nothing of the call that it makes.
    for (activity,) in gateway.execute("SELECT query FROM pg_stat_activity WHERE backend_type LIKE 'otp_gateway%'"):
        assert not [value for value in (*canaries.texts, *canaries.numbers) if value in activity]
    simulator.release()
    # Answers that cannot be read, and none.
    for kind in ("truncated_json", "not_utf8", "html", "close_after_read", "status"):
        simulator.fault(kind, "ideamart", "send", times=1)
        gateway.execute(f"SELECT otp_send('ideamart', {literal(payload('ideamart')[1])})")

    statuses = dict(gateway.execute("SELECT id, sealed IS NOT NULL FROM otp_gateway_internal.verification_record"))
    assert [id for id in ended if statuses[id]] == [], "ended, and still sealed"
    assert [id for id in open_ if not statuses[id]] == [], "open, and nothing kept"
    assert gateway.execute(
        "SELECT count(*) FROM otp_gateway_internal.verification_record WHERE sealed IS NOT NULL AND status IN "
        "('approved', 'canceled', 'expired', 'max_attempts_reached', 'failed', 'blocked')"
    ) == [(0,)]
    rows = place.as_text()
    assert VISIBLE in rows
    assert sorted(needle for needle in canaries.needles() if needle in rows) == []

    gateway.execute(f"DO $$ BEGIN RAISE LOG 'in the log: %', '{VISIBLE}'; END $$")
    gateway.execute("CHECKPOINT")
    assert place.search() == []
    gateway.session.close()
    cluster.stop()
    assert place.search() == []
    # The search sees tables, WAL and log: a value that may be there is found in each.
    hits = search(cluster.directory, control(VISIBLE))
    for where in ("/data/base/", "/data/pg_wal/", "/server.log"):
        assert any(hit.startswith(where) for hit in hits), (where, hits)
    assert len(canaries.texts) > 30 and len(canaries.numbers) > 80


@pytest.fixture
def one_provider(place):
    place.gateway.create_provider(
        "ideamart", credentials={"application_id_file": place.file("id"), "password_file": place.file("pw")}
    )
    place.gateway.create_provider(
        "hyperverge", credentials={"app_id_file": place.file("id"), "app_key_file": place.file("key")}
    )
    return place


@pytest.mark.parametrize("vendor", ["hyperverge", "ideamart"])
def test_reference_that_echoes(one_provider, simulator, vendor):
    """Not only a vendor's words: its reference is kept, too."""
    gateway, canaries = one_provider.gateway, one_provider.canaries
    national = "77" + digits(7)
    canaries.digits(national)
    body = {
        "hyperverge": {"status": "success", "statusCode": 200, "metaData": {"requestId": f"req-9{national}"}},
        "ideamart": {"statusCode": "S1000", "statusDetail": "ok", "referenceNo": f"94{national}"},
    }[vendor]
    simulator.fault("reply", vendor, "send", times=1, body=body)
    gateway.send(vendor, {"hyperverge": "9", "ideamart": "0"}[vendor] + national)
    gateway.execute("CHECKPOINT")
    assert one_provider.search() == []


def test_vendor_code_that_echoes(place, simulator):
    gateway, canaries = place.gateway, place.canaries
    gateway.create_provider(
        "paytm", credentials={"username_file": place.file("user"), "password_file": place.file("pw")}
    )
    to, typed = canaries.number(), canaries.number(9)
    payload = {"mobile": to, "mid": "M", "order_id": "O" + secrets.token_hex(4), "token": canaries.secret("token")}
    id = gateway.send("paytm", to, **payload)["verification_id"]
    simulator.fault(
        "reply",
        "paytm",
        "verify",
        times=1,
        body={"body": {"resultInfo": {"resultStatus": "F", "resultCode": typed, "resultMsg": "no"}}},
    )
    gateway.verify(id, typed)
    simulator.fault(
        "reply",
        "paytm",
        "send",
        times=1,
        body={"body": {"resultInfo": {"resultStatus": "F", "resultCode": to, "resultMsg": "no"}}},
    )
    gateway.send("paytm", to, **payload)
    gateway.execute("CHECKPOINT")
    assert place.search() == []


def test_crash_of_a_session(one_provider, simulator):
    """The postmaster logs what a process that died was running, and a crash leaves what it leaves."""
    gateway, canaries = one_provider.gateway, one_provider.canaries
    to = canaries.number()
    sent = gateway.send("hyperverge", to)
    simulator.fault("hold", "hyperverge", "verify", times=1)
    typed = canaries.number(9)
    session = gateway.connect()

    def verify():
        with pytest.raises(psycopg2.Error):
            gateway.execute(f"SELECT otp_verify('{sent['verification_id']}', {literal(typed)})", session=session)

    thread = threading.Thread(target=verify)
    thread.start()
    simulator.held(1)
    kill(session.info.backend_pid)
    thread.join(15)
    simulator.release()
    gateway.session.close()
    # A fast stop in the midst of the recovery hangs in Postgres 18.6, without us, too.
    until(lambda: is_back(one_provider.cluster), "the server is back")
    one_provider.cluster.stop()
    assert "was terminated by signal 9" in one_provider.cluster.log()
    assert one_provider.search() == []


def is_back(cluster):
    """Until the postmaster has noticed, it lets sessions in."""
    try:
        cluster.connect().close()
    except psycopg2.OperationalError:
        return False
    return "was terminated by signal 9" in cluster.log()


def test_a_number_within_a_random_id_is_none(tmp_path):
    """Else one of thousands would be found by chance; where it also stands by itself, it is found."""
    canaries = Canaries()
    number = canaries.digits("729088156")
    (tmp_path / "id").write_text(f"1491c1eeac998ff{number}457a6974392209b")
    assert search(tmp_path, canaries) == []
    for text in (f"tel:94{number}", f"0{number}", f"1491c1eeac998ff{number}457a6974392209b {number}", f"req-9{number}"):
        (tmp_path / "number").write_text(text)
        assert [hit for hit in search(tmp_path, canaries) if hit.startswith(f"/number:{number}")], text
