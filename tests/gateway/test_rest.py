"""Promise: a vendor that is described, not programmed, is a provider as any other: its codes are sent, checked, resent and
canceled, on record, under the limits, within routes; what its description says wrongly is refused when it is written; and
its secrets are as secret as the others'."""

import json
import os
import pathlib

import pytest

import psycopg2
from canaries import RUN
from conftest import listed
from vendors import VONAGE


def description(**changes):
    """As an option's value: one line, its quotes doubled."""
    return json.dumps({**VONAGE, **changes}).replace("'", "''")


@pytest.fixture
def vonage(quick_gateway):
    quick_gateway.execute('ALTER SERVER vonage OPTIONS (ADD defaults \'{"brand": "Example"}\')')
    return quick_gateway


def send(gateway, to, provider="vonage", session=None, **payload):
    return gateway.row("SELECT * FROM otp_send(%s, %s)", (provider, json.dumps({"mobile": to, **payload})), session)


def test_a_described_vendor_sends_and_verifies(vonage, simulator):
    to = vonage.number("ideamart")
    sent = send(vonage, to)
    assert (sent["outcome"], sent["status"], sent["vendor_code"]) == ("sent", "pending", None)
    assert sent["reference"]
    wrong = vonage.verify(sent["verification_id"], simulator.wrong("vonage", to))
    assert (wrong["outcome"], wrong["vendor_code"], wrong["attempts_left"]) == ("invalid_code", "invalid-code", 2)
    right = vonage.verify(sent["verification_id"], simulator.code("vonage", to))
    assert (right["outcome"], right["status"]) == ("approved", "approved")
    assert [line["complaint"] for line in simulator.log("vonage")] == [None] * 3


def tried(gateway, *arguments, session=None):
    """otp_gateway.try, as JSON."""
    return gateway.execute(f"SELECT otp_gateway.try({', '.join(['%s'] * len(arguments))})", arguments, session)[0][0]


def test_try_shows_what_is_sent_and_read_without_a_call_or_a_record(vonage, simulator):
    sent = tried(
        vonage, "vonage", "send", '{"mobile": "+94771234567", "channel_timeout": 300}', 202, '{"request_id": "R1"}'
    )
    assert sent["request"] == {
        "method": "POST",
        "url": f"{simulator.url('vonage')}/v2/verify",
        "headers": {"authorization": "Basic ***", "content-type": "application/json"},
        "body": {"brand": "Example", "channel_timeout": 300, "workflow": [{"to": "94771234567", "channel": "sms"}]},
    }
    assert (sent["recipient"], sent["code_lifetime"], sent["max_checks"]) == ("+94*****4567", "5min", 3)
    assert (sent["reading"]["outcome"], sent["reading"]["reference"]) == ("sent", "R1")
    assert {field["field"]: field["required"] for field in sent["fields"]}["brand"] == "yes"
    verify = tried(vonage, "vonage", "verify", '{"reference": "a/b"}', 400, '{"title": "Invalid Code", "type": "x#y"}')
    assert (verify["request"]["url"], verify["request"]["body"]) == (
        f"{simulator.url('vonage')}/v2/verify/a%2Fb",
        {"code": "***"},
    )
    assert (verify["reading"]["outcome"], verify["reading"]["vendor_code"]) == ("invalid_code", "y")
    resend = tried(vonage, "vonage", "resend", '{"reference": "R1", "mobile": "+94771234567"}')
    assert (resend["cancel_first"]["method"], resend["reading"]) == ("DELETE", None)
    assert tried(vonage, "vonage", "cancel", '{"reference": "R1"}', 204)["reading"]["outcome"] == "canceled"
    assert simulator.count("vonage") == 0
    assert vonage.execute("SELECT count(*)::int FROM otp_gateway.attempt") == [(0,)]


def refusal(gateway, statement, arguments=None, session=None):
    with pytest.raises(psycopg2.Error) as refused:
        gateway.execute(statement, arguments, session)
    return refused.value


def test_a_resend_cancels_and_sends_and_a_cancel_is_a_delete(vonage, simulator):
    to = vonage.number()
    sent = send(vonage, to)
    again = vonage.row("SELECT * FROM otp_resend(%s)", (sent["verification_id"],))
    assert (again["outcome"], again["reference"] != sent["reference"]) == ("sent", True)
    assert [line["operation"] for line in simulator.log("vonage")] == ["send", "cancel", "send"]
    canceled = vonage.row("SELECT * FROM otp_cancel(%s)", (sent["verification_id"],))
    assert (canceled["outcome"], canceled["status"], canceled["response"]) == ("canceled", "canceled", None)
    assert [line["complaint"] for line in simulator.log("vonage")] == [None] * 4
    assert simulator.log("vonage", "cancel")[-1]["method"] == "DELETE"


def test_a_resend_may_take_another_way(vonage, simulator):
    sent = send(vonage, vonage.number())
    again = vonage.row("SELECT * FROM otp_resend(%s, %s)", (sent["verification_id"], '{"channel": "whatsapp"}'))
    assert again["outcome"] == "sent"
    assert [line["body"]["workflow"][0]["channel"] for line in simulator.log("vonage", "send")] == ["sms", "whatsapp"]
    error = refusal(vonage, "SELECT otp_resend(%s, %s)", (sent["verification_id"], '{"channel": "email"}'))
    assert "one of sms, whatsapp, voice, rcs" in error.diag.message_hint


def test_a_send_is_to_somebody_and_limits_count_them(vonage, simulator):
    """Also where the description does not require it."""
    fields = {**VONAGE["fields"], "mobile": {"rule": "phone", "without": "+"}}
    vonage.execute(
        f"ALTER SERVER vonage OPTIONS (SET description '{description(fields=fields)}', ADD send_limit '1 per hour')"
    )
    for call in ("otp_send", "otp_enqueue"):
        error = refusal(vonage, f"SELECT {call}('vonage', '{{}}')")
        assert (error.pgcode, "mobile is missing" in str(error)) == ("22023", True)
    to = vonage.number()
    assert [send(vonage, to)["outcome"], send(vonage, "+94" + to[1:])["reason"]] == ["sent", "send_limit"]
    assert simulator.count("vonage") == 1


def test_a_credential_that_everybody_could_read_is_warned_of(vonage):
    operations = json.loads(json.dumps(VONAGE["operations"]))
    operations["send"]["headers"] = {"X-Api-Key": RUN.secret("literal")}
    vonage.session.notices.clear()
    options = {"base_url": "https://vendor.example", "description": description(operations=operations)}
    vonage.execute(f"BEGIN; CREATE SERVER loud FOREIGN DATA WRAPPER otp_rest OPTIONS ({listed(options)}); ROLLBACK")
    (notice,) = vonage.session.notices
    assert notice.startswith("WARNING") and "operations.send.headers.X-Api-Key" in notice and "literal" not in notice
    vonage.session.notices.clear()
    vonage.execute(f"ALTER SERVER vonage OPTIONS (SET description '{description()}')")
    assert vonage.session.notices == []


HOSTILE = [
    "\\u0000",
    "[" * 500,
    '{"a":' * 500,
    "null",
    "5",
    '"x"',
    "[]",
    "{}",
    '{"fields": 5}',
    '{"operations": {"send": []}}',
    '{"fields": {"mobile": {"rule": "phone"}}, "operations": {"send": {"path": "/{mobile}{mobile}"}}}',
    '{"fields": {"' + "x" * 60_000 + '": {}}}',
    "{" + ",".join(f'"a{n}": {n}' for n in range(5000)) + "}",
    "x" * 70_000,
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_description_is_refused_in_a_line(vonage, text):
    options = {"base_url": "https://vendor.example", "description": text}
    error = refusal(vonage, f"CREATE SERVER bad FOREIGN DATA WRAPPER otp_rest OPTIONS ({listed(options)})")
    assert error.pgcode == "22023" and "the description is wrong" in str(error)
    # An error is for a person to read.
    assert len(error.diag.message_primary) < 1500 and len(error.diag.message_primary.splitlines()) == 1


def test_try_of_what_is_no_provider_and_of_nothing(vonage):
    vonage.execute("CREATE SERVER way FOREIGN DATA WRAPPER otp_route OPTIONS (providers 'vonage')")
    assert refusal(vonage, "SELECT otp_gateway.try('way', 'send', '{}')").pgcode == "42704"
    for arguments in [("NULL", "'send'", "'{}'"), ("'vonage'", "NULL", "'{}'"), ("'vonage'", "'send'", "NULL")]:
        error = refusal(vonage, f"SELECT otp_gateway.try({', '.join(arguments)})")
        assert error.pgcode in ("22023", "22004"), str(error)
    # An answer that nobody would keep, and one that echoes all that it got.
    read = tried(vonage, "vonage", "verify", '{"reference": "R1"}', 200, "[" * 100_000)["reading"]
    assert (read["outcome"], read["response"]) == ("unknown", None)
    to = vonage.number()
    echo = json.dumps({"title": f"no {to}", "to": to, "x": [f"94{to[1:]}", int(to)]})
    read = tried(vonage, "vonage", "send", json.dumps({"mobile": to}), 422, echo)["reading"]
    assert to[1:] not in json.dumps(read), read


def test_checks_and_time_are_the_description_s(vonage, simulator):
    to = vonage.number()
    sent = send(vonage, to, channel_timeout=300)
    kept = vonage.verification(sent["verification_id"])
    assert (kept["vendor"], kept["max_checks"], (kept["expires_at"] - kept["created_at"]).seconds) == ("rest", 3, 300)
    ends = [vonage.verify(sent["verification_id"], simulator.wrong("vonage", to)) for _ in range(4)]
    assert [(end["outcome"], end["attempts_left"]) for end in ends] == [
        ("invalid_code", 2),
        ("invalid_code", 1),
        ("invalid_code", 0),
        ("max_attempts_reached", 0),
    ]
    # The third wrong one was the last that the record allows: the vendor was not asked again.
    assert simulator.count("vonage", "verify") == 3
    settings = dict(vonage.execute("SELECT setting, value FROM otp_gateway.provider WHERE provider = 'vonage'"))
    assert (settings["code_lifetime"], settings["max_checks"]) == ("3min", "3")
    assert settings["credentials"] == "api_key_file, api_secret_file"


def test_a_queued_send_is_described_in_the_worker_too(vonage, simulator):
    to = vonage.number()
    queued = vonage.row("SELECT * FROM otp_enqueue('vonage', %s)", (json.dumps({"mobile": to}),))
    sent = vonage.wait(queued["verification_id"])
    assert (sent["outcome"], sent["status"]) == ("sent", "pending")
    assert vonage.verify(sent["verification_id"], simulator.code("vonage", to))["outcome"] == "approved"


def test_failover_to_and_from_a_described_vendor(vonage, simulator):
    vonage.execute("CREATE SERVER first FOREIGN DATA WRAPPER otp_route OPTIONS (providers 'vonage, ideamart')")
    vonage.execute("CREATE SERVER last FOREIGN DATA WRAPPER otp_route OPTIONS (providers 'ideamart, vonage')")
    simulator.fault("status", "vonage", "send", status=503)
    to = vonage.number()
    sent = send(vonage, to, "first")
    assert (sent["outcome"], sent["status"]) == ("sent", "pending")
    assert vonage.verification(sent["verification_id"])["provider"] == "ideamart"
    assert vonage.verify(sent["verification_id"], simulator.code("ideamart", to))["outcome"] == "approved"
    simulator.clear_faults()
    simulator.fault("status", "ideamart", "send", status=503)
    other = vonage.number()
    sent = send(vonage, other, "last")
    assert vonage.verification(sent["verification_id"])["provider"] == "vonage"
    assert vonage.verify(sent["verification_id"], simulator.code("vonage", other))["outcome"] == "approved"
    # One recipient, however it is spelled and through whichever.
    keys = [
        vonage.verification(id)["recipient_key"]
        for id in (send(vonage, "+94" + other[1:])["verification_id"], sent["verification_id"])
    ]
    assert keys[0] == keys[1]


@pytest.mark.parametrize(
    "reference", ["..", "../../v1/other", "a?b=c", "a#b", "//evil.example", "%2e%2e", "a b", "\\\\evil", "a\r\nHost: x"]
)
def test_no_reference_leads_to_another_path(vonage, simulator, reference):
    try:
        row = vonage.verify_at("vonage", "1234", reference=reference)
    except psycopg2.Error as error:
        assert error.pgcode == "22023" and "reference" in str(error)
        assert simulator.count("vonage") == 0
        return
    assert row["outcome"] == "not_found"
    (line,) = simulator.log("vonage")
    assert line["complaint"] is None and line["path"].startswith("/vonage/v2/verify/") and line["path"].count("/") == 4


MISTAKES = [
    (
        {"outcomes": [{"of": "send", "status": 200, "outcome": "approved"}]},
        "at outcomes[0].outcome: a send cannot end as approved",
    ),
    ({"outcomes": [{"of": "verify", "status": 404, "outcome": "approved"}]}, "at outcomes[0].status: an HTTP status"),
    ({"reference": "request_id"}, "at reference: it is no JSON pointer, as /error/code"),
    ({"referenc": "/a"}, "at referenc: there is no such name; did you mean reference?"),
    (
        {"operations": {**VONAGE["operations"], "cancel": {"path": "//evil.example/x"}}},
        "at operations.cancel.path: a path has",
    ),
    ({"credentials": ["api_key"]}, "at authorization.basic[1]: there is no such name; there are: api_key"),
]


@pytest.mark.parametrize("changes, mistake", MISTAKES)
def test_a_mistake_is_refused_when_it_is_written_with_its_path(vonage, changes, mistake):
    options = {"base_url": "https://vendor.example", "description": description(**changes)}
    created = refusal(vonage, f"CREATE SERVER bad FOREIGN DATA WRAPPER otp_rest OPTIONS ({listed(options)})")
    altered = refusal(vonage, f"ALTER SERVER vonage OPTIONS (SET description '{options['description']}')")
    for error in (created, altered):
        assert (error.pgcode, mistake in str(error)) == ("22023", True), str(error)


def test_what_a_server_must_say(vonage):
    for options, mistake in [
        ({"base_url": "https://a.example"}, "exactly one of the options description and description_file"),
        ({"base_url": "https://a.example", "description": description(), "description_file": "/x"}, "exactly one of"),
        ({"description": description()}, "option base_url is required"),
        ({"base_url": "https://a.example", "description": "{"}, "it is not JSON"),
        ({"base_url": "https://a.example", "description": description(), "defaults": '{"brnd": "a"}'}, "brnd"),
        ({"base_url": "https://a.example", "description": description(), "api_key": "a"}, "is a credential"),
    ]:
        error = refusal(vonage, f"CREATE SERVER bad FOREIGN DATA WRAPPER otp_rest OPTIONS ({listed(options)})")
        assert mistake in str(error), str(error)
    # Which credentials there are, the description says: a user mapping's statement does not name the server to its validator.
    vonage.create_provider("other", "vonage", {"api_key": "a", "api_secre": "b"})
    error = refusal(vonage, "SELECT otp_send('other', '{\"mobile\": \"+94771234567\"}')")
    assert "(api_key '...', api_secret '...')" in error.diag.message_hint
    error = refusal(vonage, "CREATE USER MAPPING FOR CURRENT_USER SERVER other OPTIONS (base_url 'https://a.example')")
    assert "belongs on the server" in str(error)


def test_a_file_is_read_by_each_call(quick_gateway, simulator):
    gateway = quick_gateway
    folder = pathlib.Path(simulator.directory.name)
    path = folder / "description.json"
    path.unlink(missing_ok=True)
    gateway.create_provider("filed", "vonage", description=None, description_file=str(path))
    assert any("is not there" in notice for notice in gateway.session.notices)
    brand = {"brand": "Example"}
    assert "cannot be read: no such file or directory" in str(
        refusal(gateway, "SELECT otp_send('filed', '{\"mobile\": \"+94771234567\"}')")
    )
    path.write_text(json.dumps(VONAGE))
    os.chmod(path, 0o644)
    assert send(gateway, gateway.number(), "filed", **brand)["outcome"] == "sent"
    changed = {**VONAGE, "outcomes": [{"of": "send", "status": 202, "outcome": "unknown"}]}
    path.write_text(json.dumps(changed))
    assert send(gateway, gateway.number(), "filed", **brand)["outcome"] == "unknown"
    path.write_text(json.dumps({**VONAGE, "outcome": []}))
    assert "at outcome: there is no such name" in str(
        refusal(gateway, "SELECT otp_send('filed', '{\"mobile\": \"+94771234567\"}')")
    )
    # The others' settings are shown all the same.
    shown = dict(gateway.execute("SELECT setting, value FROM otp_gateway.provider WHERE provider = 'filed'"))
    assert "at outcome: there is no such name" in shown["error"]


def test_a_file_is_named_by_those_alone_who_may_have_files_read(quick_gateway):
    gateway = quick_gateway
    role = f"{gateway.database}_plain"
    gateway.execute(f"DROP ROLE IF EXISTS {role}")
    gateway.execute(f"CREATE ROLE {role}; GRANT USAGE ON FOREIGN DATA WRAPPER otp_rest TO {role}")
    try:
        gateway.execute(f"SET ROLE {role}")
        error = refusal(
            gateway,
            "CREATE SERVER x FOREIGN DATA WRAPPER otp_rest OPTIONS (base_url 'https://a.example', description_file '/etc/passwd')",
        )
        assert (error.pgcode, "description_file" in str(error)) == ("42501", True)
    finally:
        gateway.execute(f"RESET ROLE; DROP OWNED BY {role}; DROP ROLE {role}")


def test_try_is_for_the_owner_and_blanks_what_is_secret(vonage, simulator):
    role = f"{vonage.database}_owner"
    vonage.execute(f"DROP ROLE IF EXISTS {role}")
    vonage.execute(f"CREATE ROLE {role} LOGIN; GRANT USAGE ON FOREIGN SERVER vonage TO {role}")
    session = vonage.connect(user=role)
    try:
        statement = "SELECT otp_gateway.try('vonage', 'send', '{\"mobile\": \"+94771234567\"}')"
        assert refusal(vonage, statement, session=session).pgcode == "42501"
        vonage.execute(f"GRANT pg_read_server_files TO {role}; ALTER SERVER vonage OWNER TO {role}")
        assert vonage.execute(statement, session=session)[0][0]["request"]["headers"]["authorization"] == "Basic ***"
    finally:
        session.close()
        vonage.execute(f"ALTER SERVER vonage OWNER TO CURRENT_USER; DROP OWNED BY {role}; DROP ROLE {role}")
    for arguments, state, word in [
        (("nowhere", "send"), "42704", "nowhere"),
        (("vonage", "sending"), "22023", "operation"),
        (("vonage", "send", "{}"), "22023", "mobile"),
        (("vonage", "cancel", '{"reference": "a"}', 999), "22023", "status"),
    ]:
        error = refusal(vonage, f"SELECT otp_gateway.try({', '.join(['%s'] * len(arguments))})", arguments)
        assert (error.pgcode, word in str(error)) == (state, True), str(error)


def test_try_works_for_the_vendors_of_ours(vonage, simulator):
    aadhaar = RUN.number(12)
    payload = {
        "mobile": vonage.number("iserveu"),
        "otp_type": "1",
        "username": "agent1",
        "ovd_type": "Aadhaar Card",
        "ovd_data": aadhaar,
    }
    sent = tried(
        vonage,
        "iserveu",
        "send",
        json.dumps(payload),
        200,
        '{"status": "SUCCESS", "statusCode": "0", "statusDesc": "OTP Sent"}',
    )
    assert sent["reading"]["outcome"] == "sent"
    text = json.dumps(sent)
    assert aadhaar not in text and sent["request"]["headers"]["client_secret"] == "***"
    sent = tried(vonage, "ideamart", "send", json.dumps({"mobile": "0771234567"}), 200, '{"statusCode": "E1313"}')
    assert (sent["reading"]["outcome"], sent["request"]["body"]["password"]) == ("auth_failed", "***")
    assert simulator.count() == 0
