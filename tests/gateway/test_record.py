"""Promise: what was asked of a vendor stays on record with its true outcome, and every try of a code counts, whatever
becomes of the caller's transaction, session or connection; nobody gets more tries than are allowed, and no code is
approved twice. A call in SQL is one call at the vendor, in every place where SQL can stand; and no number or code that
a failing statement names gets into the server's log."""

import contextlib
import json
import os
import socket

import psycopg2
import pytest

from conftest import FLOWS, Gateway, Running, until
from vendors import TABLE, VENDORS

# What a vendor says that approves whatever it is asked about.
SUCCESS = {
    "ideamart": {
        "version": "1.0",
        "statusCode": "S1000",
        "statusDetail": "Success",
        "subscriptionStatus": "REGISTERED",
    },
    "hyperverge": {"status": "success", "statusCode": 200},
}


@pytest.fixture(scope="module")
def one_database(shared_cluster, simulator_program):
    """One for the whole file, for time's sake: every test has numbers, and so verifications, of its own."""
    with shared_cluster.database() as name, Gateway(shared_cluster, name, simulator_program) as gateway:
        gateway.create_providers()
        yield gateway


@pytest.fixture
def gateway(cluster, one_database, simulator):
    one_database.execute(
        "TRUNCATE otp_gateway_internal.verification_record, otp_gateway_internal.attempt_record, otp_gateway_internal.reference"
    )
    return one_database


# ways to lose what a transaction did


def rollback(gateway, call):
    with gateway.cluster.session(gateway.database, autocommit=False) as session:
        gateway.execute(call, session=session)
        session.rollback()


def rollback_to_savepoint(gateway, call):
    with gateway.cluster.session(gateway.database, autocommit=False) as session:
        gateway.execute("SAVEPOINT before", session=session)
        gateway.execute(call, session=session)
        gateway.execute("ROLLBACK TO SAVEPOINT before", session=session)
        session.commit()


def exception_block(gateway, call):
    gateway.execute(f"""DO $do$ BEGIN
        PERFORM x.outcome FROM ({call}) AS x;
        RAISE EXCEPTION 'changed my mind';
        EXCEPTION WHEN raise_exception THEN NULL;
    END $do$""")


def error_in_the_same_statement(gateway, call):
    with pytest.raises(psycopg2.errors.DivisionByZero):
        gateway.execute(f"SELECT 1 / (x.outcome IS NULL)::int FROM ({call}) AS x")


def under_way(gateway, call):
    """The call in another session, held at the vendor."""
    gateway.simulator.fault("hold", times=1)
    running = Running(gateway.connect(), call)
    gateway.simulator.held(1)
    return running


def cancel(gateway, call):
    running = under_way(gateway, call)
    running.session.cancel()
    running.wait()
    assert running.error.pgcode == "57014"
    gateway.simulator.release()
    running.session.close()


def terminate(gateway, call):
    running = under_way(gateway, call)
    gateway.execute("SELECT pg_terminate_backend(%s)", (running.session.info.backend_pid,))
    running.wait()
    assert running.error is not None
    gateway.simulator.release()


def client_vanishes(gateway, call):
    running = under_way(gateway, call)
    with socket.socket(fileno=os.dup(running.session.fileno())) as wire:
        wire.shutdown(socket.SHUT_RDWR)
    running.wait()
    assert running.error is not None
    gateway.simulator.release()


WAYS = [
    rollback,
    rollback_to_savepoint,
    exception_block,
    error_in_the_same_statement,
    cancel,
    terminate,
    client_vanishes,
]


def settled_attempts(gateway, verification_id, count):
    """All attempts of a verification, once there are so many and each has an outcome."""
    found = until(
        lambda: (lambda rows: len(rows) == count and all(outcome for _, outcome in rows) and rows)(
            gateway.attempts(verification_id)
        ),
        f"{count} attempts with an outcome",
    )
    return found


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_a_send_stays_on_record(gateway, simulator, way):
    to = gateway.number()
    way(gateway, f"""SELECT * FROM otp_send('ideamart', '{{"mobile": "{to}"}}')""")
    [(verification,)] = gateway.execute("SELECT id FROM otp_gateway.verification")
    assert settled_attempts(gateway, verification, 1) == [("send", "sent")]
    # The person has the code, and it can be used.
    assert gateway.verify(verification, simulator.code("ideamart", to))["outcome"] == "approved"
    assert simulator.count("ideamart", "send") == 1


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_a_try_counts(gateway, simulator, way):
    to = gateway.number()
    sent = gateway.send(to=to)
    verification = sent["verification_id"]
    wrong = simulator.wrong("ideamart", to)
    way(gateway, f"SELECT * FROM otp_verify('{verification}'::uuid, '{wrong}')")
    assert settled_attempts(gateway, verification, 2) == [("send", "sent"), ("verify", "invalid_code")]
    row = gateway.verification(verification)
    assert (row["status"], row["check_count"]) == ("pending", 1)
    right = gateway.verify(verification, simulator.code("ideamart", to))
    assert right["outcome"] == "approved"


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_an_approval_stays_on_record(gateway, simulator, way):
    to = gateway.number()
    verification = gateway.send(to=to)["verification_id"]
    code = simulator.code("ideamart", to)
    way(gateway, f"SELECT * FROM otp_verify('{verification}'::uuid, '{code}')")
    assert settled_attempts(gateway, verification, 2) == [("send", "sent"), ("verify", "approved")]
    # A vendor that would approve again is not asked.
    simulator.fault("reply", operation="verify", body=SUCCESS["ideamart"])
    assert gateway.verify(verification, code)["outcome"] == "already_used"
    assert simulator.count("ideamart", "verify") == 1


# how many tries


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize("undo", ["rollback", "savepoint", "exception"])
def test_wrong_codes_that_are_rolled_back_leave_no_more_tries(gateway, simulator, vendor, undo):
    """Also if the vendor would go on for ever, and says that the last one is right."""
    name = f"{vendor}_{undo}"
    gateway.create_provider(name, vendor, max_checks="5")
    to = gateway.number(vendor)
    sent = gateway.send(name, to, vendor=vendor)
    assert sent["attempts_left"] == 5
    payload = FLOWS[vendor]["verify"]
    wrong = simulator.wrong(vendor, to)
    way = {"rollback": rollback, "savepoint": rollback_to_savepoint, "exception": exception_block}[undo]
    call = f"SELECT * FROM otp_verify('{sent['verification_id']}'::uuid, '{wrong}', '{json.dumps(payload)}')"
    # The vendor's own count of tries is not what ends it.
    simulator.fault("reply", vendor, "verify", body=TABLE[vendor].wrong, status=TABLE[vendor].statuses[1])
    for _ in range(5):
        way(gateway, call)
    sixth = gateway.verify(sent["verification_id"], simulator.code(vendor, to), **payload)
    assert (sixth["outcome"], sixth["status"], sixth["attempts_left"]) == (
        "max_attempts_reached",
        "max_attempts_reached",
        0,
    )
    assert simulator.count(vendor, "verify") == 5
    assert gateway.attempts(sent["verification_id"]) == (
        [("send", "sent")] + [("verify", "invalid_code")] * 5 + [("verify", "max_attempts_reached")]
    )


@pytest.mark.parametrize("vendor", VENDORS)
def test_the_last_try_may_be_the_right_one(gateway, simulator, vendor):
    to = gateway.number(vendor)
    sent = gateway.send(vendor, to)
    payload = FLOWS[vendor]["verify"]
    wrong = simulator.wrong(vendor, to)
    for left in range(sent["attempts_left"] - 1, 0, -1):
        row = gateway.verify(sent["verification_id"], wrong, **payload)
        assert (row["outcome"], row["attempts_left"]) == ("invalid_code", left)
    right = gateway.verify(sent["verification_id"], simulator.code(vendor, to), **payload)
    assert (right["outcome"], right["status"]) == ("approved", "approved")


@pytest.mark.parametrize("vendor", VENDORS)
def test_the_last_wrong_one_ends_it(gateway, simulator, vendor):
    to = gateway.number(vendor)
    sent = gateway.send(vendor, to)
    payload = FLOWS[vendor]["verify"]
    wrong = simulator.wrong(vendor, to)
    rows = [gateway.verify(sent["verification_id"], wrong, **payload) for _ in range(sent["attempts_left"])]
    assert (rows[-1]["status"], rows[-1]["attempts_left"], rows[-1]["retryable"]) == ("max_attempts_reached", 0, False)
    assert gateway.verification(sent["verification_id"])["sealed"] is None


# once approved


SESSIONS = 50


def waiting(gateway, word):
    """How many sessions wait for an answer of the gateway."""
    return gateway.execute(
        "SELECT count(*)::int FROM pg_stat_activity WHERE datname = current_database() AND state = 'active'"
        " AND wait_event_type = 'Extension' AND query LIKE %s AND pid <> pg_backend_pid()",
        (f"%{word}%",),
    )[0][0]


def at_once(gateway, simulator, call, arguments):
    """Every session's outcome, all of them having asked before the first was answered."""
    sessions = [gateway.connect() for _ in range(SESSIONS)]
    try:
        running = [Running(session, call, arguments) for session in sessions]
        until(lambda: waiting(gateway, "otp_verify") == SESSIONS, "all of them wait")
        simulator.release()
        return sorted(one.row()["outcome"] for one in running)
    finally:
        for session in sessions:
            session.close()


def test_fifty_sessions_one_approval(gateway, simulator):
    gateway.create_provider("one_approval", "ideamart", max_checks="1000")
    to = gateway.number()
    sent = gateway.send("one_approval", to, vendor="ideamart")
    # The first is held until all have asked; whoever else is let through finds a vendor that says yes to everybody.
    simulator.fault("hold", operation="verify", times=1)
    simulator.fault("reply", operation="verify", body=SUCCESS["ideamart"])
    arguments = (sent["verification_id"], simulator.code("ideamart", to))
    outcomes = at_once(gateway, simulator, "SELECT * FROM otp_verify(%s::uuid, %s)", arguments)
    assert outcomes == ["already_used"] * (SESSIONS - 1) + ["approved"]
    assert simulator.count("ideamart", "verify") == 1
    assert gateway.attempts(sent["verification_id"]).count(("verify", "approved")) == 1


@pytest.mark.parametrize("vendor", ["ideamart", "hyperverge"])
def test_fifty_sessions_one_approval_of_a_flow_begun_elsewhere(gateway, simulator, vendor):
    """Found by reference (Ideamart) and by recipient (HyperVerge)."""
    gateway.create_provider(f"elsewhere_{vendor}", vendor, max_checks="1000")
    payload = {"reference": "213561321321613"} if vendor == "ideamart" else {"mobile": gateway.number("hyperverge")}
    # The vendor says yes to everybody, a while after it was asked: all have asked by then.
    simulator.fault("reply", vendor, "verify", body=SUCCESS[vendor], ms=1500)
    call = f"SELECT * FROM otp_verify('elsewhere_{vendor}'::text, '123456', %s::jsonb)"
    outcomes = at_once(gateway, simulator, call, (json.dumps(payload),))
    assert outcomes == ["already_used"] * (SESSIONS - 1) + ["approved"]
    assert simulator.count(vendor, "verify") == 1


# one call at a time for each verification


def test_calls_of_one_verification_go_one_after_the_other(gateway, simulator):
    to = gateway.number()
    verification = gateway.send(to=to)["verification_id"]
    wrong = simulator.wrong("ideamart", to)
    simulator.fault("hold", operation="verify", times=2)
    sessions = [gateway.connect() for _ in range(2)]
    running = [Running(one, "SELECT * FROM otp_verify(%s::uuid, %s)", (verification, wrong)) for one in sessions]
    until(lambda: waiting(gateway, "otp_verify") == 2, "both wait")
    # Another verification's call goes right by.
    assert gateway.send()["outcome"] == "sent"
    assert simulator.held(1) == 1
    assert simulator.count("ideamart", "verify") == 1
    simulator.release()
    simulator.count("ideamart", "verify", atleast=2, wait=10000)
    simulator.held(1)
    simulator.release()
    assert sorted(one.row()["attempts_left"] for one in running) == [1, 2]
    for session in sessions:
        session.close()


def test_a_verify_waits_for_its_send(gateway, simulator):
    to = gateway.number()
    simulator.fault("hold", operation="send", times=1)
    sessions = [gateway.connect() for _ in range(2)]
    send = Running(sessions[0], "SELECT * FROM otp_send('ideamart', %s::jsonb)", (json.dumps({"mobile": to}),))
    simulator.held(1)
    [(verification, status)] = gateway.execute("SELECT id, status::text FROM otp_gateway.verification")
    assert status == "sending"
    code = simulator.code("ideamart", to)
    verify = Running(sessions[1], "SELECT * FROM otp_verify(%s::uuid, %s)", (verification, code))
    until(lambda: waiting(gateway, "otp_verify") == 1, "the verify waits")
    assert simulator.count("ideamart", "verify") == 0
    simulator.release()
    assert send.row()["outcome"] == "sent"
    assert verify.row()["outcome"] == "approved"
    for session in sessions:
        session.close()


# what is one call


def test_expanded_row_is_one_call(gateway, simulator):
    to = gateway.number()
    row = gateway.row("SELECT (otp_send('ideamart', %s::jsonb)).*", (json.dumps({"mobile": to}),))
    assert row["outcome"] == "sent"
    assert simulator.count("ideamart", "send") == 1
    assert gateway.attempts(row["verification_id"]) == [("send", "sent")]


def test_identical_calls_in_one_statement_are_one(gateway, simulator):
    one, other = (json.dumps({"mobile": gateway.number()}) for _ in range(2))
    [(first, second, third)] = gateway.execute(
        "SELECT (a).attempt_id, (b).attempt_id, (c).attempt_id FROM (SELECT otp_send('ideamart', %s::jsonb) AS a,"
        " otp_send('ideamart', %s::jsonb) AS b, otp_send('ideamart', %s::jsonb) AS c OFFSET 0) AS x",
        (one, one, other),
    )
    assert first == second != third
    assert simulator.count("ideamart", "send") == 2


def test_a_loop_makes_a_call_each_time(gateway, simulator):
    to = gateway.number()
    verification = gateway.send(to=to)["verification_id"]
    wrong = simulator.wrong("ideamart", to)
    gateway.execute(f"""DO $$ DECLARE row record; code text;
        BEGIN
            FOR i IN 1..2 LOOP row := otp_verify('{verification}'::uuid, '{wrong}'); END LOOP;
            SELECT (otp_verify('{verification}'::uuid, '{wrong}')).outcome INTO code;
        END $$""")
    assert simulator.count("ideamart", "verify") == 3
    assert gateway.verification(verification)["status"] == "max_attempts_reached"


@pytest.mark.parametrize(
    "script",
    [
        "{call}; {call}",
        "BEGIN; {call}; {call}; COMMIT",
        "BEGIN; {call}; COMMIT; BEGIN; {call}; COMMIT",
        "BEGIN; {call}; ROLLBACK; BEGIN; {call}; ROLLBACK",
        "BEGIN; SAVEPOINT s; {call}; ROLLBACK TO s; {call}; COMMIT",
    ],
)
def test_consecutive_statements_are_calls_of_their_own(gateway, simulator, script):
    """Also in one message to the server, which has one time of start for all of them."""
    if gateway.execute("SELECT 1 FROM pg_foreign_server WHERE srvname = 'generous'") == []:
        gateway.create_provider("generous", "ideamart", max_checks="10")
    to = gateway.number()
    verification = gateway.send("generous", to, vendor="ideamart")["verification_id"]
    wrong = simulator.wrong("ideamart", to)
    with gateway.cluster.session(gateway.database) as session:
        gateway.execute(script.format(call=f"SELECT otp_verify('{verification}'::uuid, '{wrong}')"), session=session)
    assert simulator.count("ideamart", "verify") == 2
    assert gateway.verification(verification)["check_count"] == 2


def test_one_message_does_not_approve_twice(gateway, simulator):
    to = gateway.number()
    verification = gateway.send(to=to)["verification_id"]
    code = simulator.code("ideamart", to)
    gateway.execute("CREATE TABLE heard (outcome text)")
    call = f"INSERT INTO heard SELECT outcome FROM otp_verify('{verification}'::uuid, '{code}')"
    with gateway.cluster.session(gateway.database) as session:
        gateway.execute(f"BEGIN; {call}; COMMIT; BEGIN; {call}; COMMIT", session=session)
    assert gateway.execute("SELECT * FROM heard") == [("approved",), ("already_used",)]


def test_a_call_in_a_failed_statement_is_not_remembered(gateway, simulator):
    to = gateway.number()
    verification = gateway.send(to=to)["verification_id"]
    wrong = simulator.wrong("ideamart", to)
    call = f"otp_verify('{verification}'::uuid, '{wrong}')"
    with gateway.cluster.session(gateway.database, autocommit=False) as session:
        gateway.execute("SAVEPOINT s", session=session)
        with pytest.raises(psycopg2.errors.DivisionByZero):
            gateway.execute(f"SELECT 1 / (outcome IS NULL)::int FROM {call}", session=session)
        gateway.execute("ROLLBACK TO s", session=session)
        gateway.execute(f"SELECT * FROM {call}", session=session)
    assert simulator.count("ideamart", "verify") == 2
    assert gateway.verification(verification)["check_count"] == 2


# otp_verify by provider


def test_verify_at_a_provider_finds_the_open_verification(gateway, simulator):
    to = gateway.number()
    sent = gateway.send(to=to)
    wrong = gateway.verify_at("ideamart", simulator.wrong("ideamart", to), reference=sent["reference"])
    assert (wrong["verification_id"], wrong["outcome"]) == (sent["verification_id"], "invalid_code")
    with gateway.cluster.session(gateway.database) as other:
        right = gateway.verify_at("ideamart", simulator.code("ideamart", to), other, reference=sent["reference"])
    assert (right["verification_id"], right["outcome"]) == (sent["verification_id"], "approved")
    # And it stays the one that this reference names.
    simulator.fault("reply", operation="verify", body=SUCCESS["ideamart"])
    again = gateway.verify_at("ideamart", simulator.code("ideamart", to), reference=sent["reference"])
    assert (again["verification_id"], again["outcome"]) == (sent["verification_id"], "already_used")


def test_verify_at_a_provider_by_recipient(gateway, simulator):
    to = gateway.number("hyperverge")
    sent = gateway.send("hyperverge", to)
    wrong = gateway.verify_at("hyperverge", simulator.wrong("hyperverge", to), mobile=to)
    assert (wrong["verification_id"], wrong["outcome"]) == (sent["verification_id"], "invalid_code")
    right = gateway.verify_at("hyperverge", simulator.code("hyperverge", to), mobile=f"+91{to}")
    assert (right["verification_id"], right["outcome"]) == (sent["verification_id"], "approved")
    assert gateway.attempts(sent["verification_id"]) == [
        ("send", "sent"),
        ("verify", "invalid_code"),
        ("verify", "approved"),
    ]


def test_verify_at_a_provider_by_recipient_tells_nothing_of_another_role(gateway, simulator):
    """A number is known to many: whoever guesses at it does so in a flow of their own, and all guesses count together."""
    gateway.create_provider("shared", "hyperverge", max_checks="3")
    to = gateway.number("hyperverge")
    sent = gateway.send("shared", to, vendor="hyperverge")
    role = f"{gateway.database}_guesser"
    gateway.execute(f"CREATE ROLE {role} LOGIN; GRANT USAGE ON FOREIGN SERVER shared TO {role}")
    session = gateway.connect(user=role)
    wrong = simulator.wrong("hyperverge", to)
    try:
        rows = [gateway.verify_at("shared", wrong, session, mobile=to) for _ in range(4)]
        assert sent["verification_id"] not in {row["verification_id"] for row in rows}
        # Who sent nothing gets half of them, rounded up; the rest is left to who did.
        assert [row["outcome"] for row in rows] == ["invalid_code"] * 2 + ["blocked"] * 2
        assert gateway.verification(sent["verification_id"])["check_count"] == 0
        assert gateway.verify(sent["verification_id"], wrong)["outcome"] == "invalid_code"
        assert gateway.verify(sent["verification_id"], wrong)["reason"] == "max_checks"
        assert simulator.count("hyperverge", "verify") == 3
    finally:
        session.close()
        gateway.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


@pytest.mark.parametrize("vendor", ["ideamart", "hyperverge"])
def test_verify_at_a_provider_counts_across_calls_and_sessions(gateway, simulator, vendor):
    gateway.create_provider(f"strict_{vendor}", vendor, max_checks="3")
    payload = {"reference": "213561321321613"} if vendor == "ideamart" else {"mobile": gateway.number(vendor)}
    simulator.fault("reply", vendor, "verify", body=TABLE[vendor].wrong, status=TABLE[vendor].statuses[1])
    rows = []
    for code in ("100001", "100002", "100003", "100004"):
        with gateway.cluster.session(gateway.database, autocommit=False) as session:
            rows.append(gateway.verify_at(f"strict_{vendor}", code, session, **payload))
            session.rollback()
    if vendor == "ideamart":
        assert [row["outcome"] for row in rows] == ["invalid_code"] * 3 + ["max_attempts_reached"]
        assert [row["attempts_left"] for row in rows] == [2, 1, 0, 0]
    else:
        # By number it is anybody's: of whom nothing was sent here, half of the guesses are taken, rounded up.
        assert [row["outcome"] for row in rows] == ["invalid_code"] * 2 + ["blocked"] * 2
        assert [row["attempts_left"] for row in rows] == [1, 0, 0, 0]
    assert len({row["verification_id"] for row in rows}) == 1
    assert simulator.count(vendor, "verify") == (3 if vendor == "ideamart" else 2)


# the end of a verification


def ended(gateway, simulator, how):
    """A REL-ID verification at its end, and the code that it had."""
    to = gateway.number("relid")
    sent = gateway.send("relid", to)
    verification, code = sent["verification_id"], simulator.code("relid", to)
    if how == "approved":
        assert gateway.verify(verification, code)["outcome"] == "approved"
    elif how == "canceled":
        assert gateway.row("SELECT * FROM otp_cancel(%s)", (verification,))["outcome"] == "canceled"
    elif how == "max_attempts_reached":
        for _ in range(sent["attempts_left"]):
            gateway.verify(verification, simulator.wrong("relid", to))
    return verification, code


@pytest.mark.parametrize(
    "how, verify, resend, cancel",
    [
        ("approved", "already_used", "already_used", "already_used"),
        ("canceled", "not_found", "not_found", "canceled"),
        ("max_attempts_reached",) + ("max_attempts_reached",) * 3,
    ],
)
def test_what_has_ended_answers_from_the_record(gateway, simulator, how, verify, resend, cancel):
    verification, code = ended(gateway, simulator, how)
    before, attempts = simulator.count("relid"), len(gateway.attempts(verification))
    rows = [
        gateway.verify(verification, code),
        gateway.row("SELECT * FROM otp_resend(%s)", (verification,)),
        gateway.row("SELECT * FROM otp_cancel(%s)", (verification,)),
    ]
    assert [row["outcome"] for row in rows] == [verify, resend, cancel]
    assert [row["status"] for row in rows] == [how] * 3
    assert simulator.count("relid") == before
    assert gateway.attempts(verification)[attempts:] == [("verify", verify), ("resend", resend), ("cancel", cancel)]
    assert gateway.verification(verification)["sealed"] is None


def brief(gateway, to):
    """A send whose code lives for a second."""
    if gateway.execute("SELECT 1 FROM pg_foreign_server WHERE srvname = 'brief'") == []:
        gateway.create_provider("brief", "ideamart", code_lifetime="1s")
    return gateway.send("brief", to, vendor="ideamart")


def test_a_code_that_is_too_old_is_not_tried(gateway, simulator):
    sent = brief(gateway, to := gateway.number())
    until(
        lambda: gateway.execute("SELECT clock_timestamp() >= %s", (sent["expires_at"],)) == [(True,)],
        "the end of its time",
    )
    row = gateway.verify(sent["verification_id"], simulator.code("ideamart", to))
    assert (row["outcome"], row["status"], row["attempts_left"]) == ("expired", "expired", 0)
    assert simulator.count("ideamart", "verify") == 0
    stored = gateway.verification(sent["verification_id"])
    assert (stored["status"], stored["sealed"]) == ("expired", None)


def resend(gateway, sent, **payload):
    return gateway.row("SELECT * FROM otp_resend(%s, %s::jsonb)", (sent["verification_id"], json.dumps(payload)))


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_new_code_begins_a_new_life_and_the_same_one_does_not(gateway, simulator, vendor):
    """HyperVerge sends again what it sent before, whose life `otp_expiry` of the send says."""
    payload = {"otp_expiry": 10} if vendor == "hyperverge" else {}
    gateway.create_provider(f"lasting_{vendor}", vendor, code_lifetime="20min")
    sent = gateway.send(f"lasting_{vendor}", vendor=vendor, **payload)
    for outcome in ("sent", "unknown", "refused"):
        if outcome != "sent":
            simulator.fault("status", vendor, "*", times=1, status=500 if outcome == "unknown" else 404)
        again = resend(gateway, sent)
        is_new = not TABLE[vendor].repeats_code and outcome == "sent"
        if outcome == "sent":
            assert again["outcome"] == "sent"
            assert (again["expires_at"] > sent["expires_at"]) == is_new, again
            assert again["expires_at"] == gateway.verification(sent["verification_id"])["expires_at"]
        elif TABLE[vendor].repeats_code:
            assert (again["outcome"], again["expires_at"]) == (outcome, sent["expires_at"])


@pytest.mark.parametrize("vendor", VENDORS)
def test_after_its_end_a_code_is_sent_anew_and_not_again(gateway, simulator, vendor):
    """The same whenever one asks, and not only once the worker has erased what it takes to send again."""
    gateway.create_provider(f"brief_{vendor}", vendor, code_lifetime="1s")
    sent = gateway.send(f"brief_{vendor}", vendor=vendor, **({"expires_in": 15} if vendor == "relid" else {}))
    if vendor == "relid":
        gateway.execute(
            "UPDATE otp_gateway_internal.verification_record SET expires_at = now() WHERE id = %s",
            (sent["verification_id"],),
        )
    else:
        ends = (sent["expires_at"],)
        until(lambda: gateway.execute("SELECT clock_timestamp() >= %s", ends) == [(True,)], "the end of its time")
    before = simulator.count(vendor)
    for _ in range(2):
        row = resend(gateway, sent)
        assert (row["outcome"], row["status"], row["retryable"], row["attempts_left"]) == (
            "expired",
            "expired",
            False,
            0,
        )
        assert "sent anew" in row["vendor_message"] and "otp_send" in row["vendor_message"]
        recorded = gateway.row("SELECT vendor_message FROM otp_gateway.attempt WHERE id = %s", (row["attempt_id"],))
        assert recorded["vendor_message"] == row["vendor_message"]
    assert simulator.count(vendor) == before
    assert gateway.send(f"brief_{vendor}", vendor=vendor)["outcome"] == "sent"


@pytest.mark.parametrize("how", ["approved", "canceled", "max_attempts_reached"])
def test_what_is_over_says_what_to_do(gateway, simulator, how):
    verification, code = ended(gateway, simulator, how)
    for row in (resend(gateway, {"verification_id": verification}), gateway.verify(verification, code)):
        assert how in row["vendor_message"] and "sent anew" in row["vendor_message"], row


# resend and cancel


@pytest.mark.parametrize("vendor", VENDORS)
def test_resend(gateway, simulator, vendor):
    to = gateway.number(vendor)
    sent = gateway.send(vendor, to)
    again = gateway.row("SELECT * FROM otp_resend(%s)", (sent["verification_id"],))
    assert (again["outcome"], again["status"], again["verification_id"]) == ("sent", "pending", sent["verification_id"])
    second = simulator.code(vendor, to, atleast=2)
    if vendor == "relid":
        # One code is good at a time: the old one is voided first.
        assert simulator.count(vendor, "cancel") == 1
        assert again["reference"] != sent["reference"]
    assert gateway.verification(sent["verification_id"])["send_count"] == 2
    right = gateway.verify(sent["verification_id"], second, **FLOWS[vendor]["verify"])
    assert right["outcome"] == "approved"
    assert gateway.attempts(sent["verification_id"]) == [("send", "sent"), ("resend", "sent"), ("verify", "approved")]
    assert {entry["complaint"] for entry in simulator.log(vendor)} == {None}


def test_resend_does_not_give_new_tries(gateway, simulator):
    to = gateway.number()
    sent = gateway.send(to=to)
    wrong = gateway.verify(sent["verification_id"], simulator.wrong("ideamart", to))
    again = gateway.row("SELECT * FROM otp_resend(%s)", (sent["verification_id"],))
    assert again["attempts_left"] == wrong["attempts_left"] == sent["attempts_left"] - 1


TRANSACTION = {
    "account_number": "1234567890", "bene_bank_name": "Bank", "bene_mobile": "9812345678", "bene_name": "Asha Rao",
    "bank_code": "BANK01", "bene_ifsc_code": "BANK0000001", "transaction_mode": "IMPS", "customer_name": "Ravi Rao",
    "pincode": "751001", "address": "1 Road", "is_hold_transaction": False, "lat_long": "20.29,85.82",
    "customer_ip": "203.0.113.7",
}  # fmt: skip


def test_iserveu_transactions_need_a_new_reference(gateway, simulator):
    to = gateway.number("iserveu")
    body = {"mobile": to, "otp_type": "2", "username": "agent1", "reference": "REFERENCE1", "amount": "100"}
    sent = gateway.row("SELECT * FROM otp_send('iserveu', %s::jsonb)", (json.dumps(body),))
    assert sent["outcome"] == "sent"
    resend = "SELECT * FROM otp_resend(%s, %s::jsonb)"
    for same in ({}, {"reference": "REFERENCE1"}):
        with pytest.raises(psycopg2.Error) as error:
            gateway.execute(resend, (sent["verification_id"], json.dumps(same)))
        assert error.value.pgcode == "22023"
    assert simulator.count("iserveu", "send") == 1
    again = gateway.row(resend, (sent["verification_id"], json.dumps({"reference": "REFERENCE2"})))
    assert (again["outcome"], again["reference"]) == ("sent", "REFERENCE2")
    code = simulator.code("iserveu", to, atleast=2)
    right = gateway.verify(sent["verification_id"], code, **TRANSACTION)
    assert right["outcome"] == "approved"
    assert {entry["complaint"] for entry in simulator.log("iserveu")} == {None}


def test_cancel_voids_the_code(gateway, simulator):
    to = gateway.number("relid")
    sent = gateway.send("relid", to)
    canceled = gateway.row("SELECT * FROM otp_cancel(%s)", (sent["verification_id"],))
    assert (canceled["outcome"], canceled["status"]) == ("canceled", "canceled")
    assert simulator.count("relid", "cancel") == 1
    assert gateway.verification(sent["verification_id"])["sealed"] is None


@pytest.mark.parametrize("vendor", [name for name, vendor in TABLE.items() if not vendor.cancels])
def test_vendors_without_cancel_say_so(gateway, simulator, vendor):
    sent = gateway.send(vendor)
    with pytest.raises(psycopg2.Error) as error:
        gateway.execute("SELECT * FROM otp_cancel(%s)", (sent["verification_id"],))
    assert error.value.pgcode == "22023"
    assert gateway.verification(sent["verification_id"])["status"] == "pending"


# wherever SQL can stand


@pytest.mark.parametrize("isolation", ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"])
def test_send_and_verify_in_one_transaction(gateway, simulator, isolation):
    to = gateway.number()
    with gateway.cluster.session(gateway.database, autocommit=False) as session:
        gateway.execute(f"SET TRANSACTION ISOLATION LEVEL {isolation}", session=session)
        # The snapshot is taken before anything is recorded.
        gateway.execute("SELECT count(*) FROM otp_gateway.attempt", session=session)
        sent = gateway.send(to=to, session=session)
        wrong = gateway.verify(sent["verification_id"], simulator.wrong("ideamart", to), session)
        right = gateway.verify(sent["verification_id"], simulator.code("ideamart", to), session)
        again = gateway.verify(sent["verification_id"], simulator.code("ideamart", to), session)
        session.commit()
    assert [row["outcome"] for row in (sent, wrong, right, again)] == [
        "sent",
        "invalid_code",
        "approved",
        "already_used",
    ]


def test_in_a_do_block(gateway, simulator):
    to = gateway.number()
    gateway.execute(f"""DO $$ DECLARE sent record;
        BEGIN
            sent := otp_send('ideamart', '{{"mobile": "{to}"}}');
            ASSERT sent.outcome = 'sent';
            PERFORM otp_verify(sent.verification_id, '000');
            COMMIT;
            PERFORM otp_verify(sent.verification_id, '000');
        END $$""")
    assert simulator.count("ideamart", "send") == 1
    assert simulator.count("ideamart", "verify") == 2


def test_in_a_trigger(gateway, simulator):
    gateway.keeps_numbers = True
    gateway.execute("""
        CREATE TABLE registration (mobile text, verification uuid);
        CREATE FUNCTION send_code() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            NEW.verification := (otp_send('ideamart', jsonb_build_object('mobile', NEW.mobile))).verification_id;
            RETURN NEW;
        END $$;
        CREATE TRIGGER send_code BEFORE INSERT ON registration FOR EACH ROW EXECUTE FUNCTION send_code();
    """)
    numbers = [gateway.number() for _ in range(3)]
    gateway.execute("INSERT INTO registration (mobile) SELECT unnest(%s)", (numbers,))
    assert simulator.count("ideamart", "send") == 3
    for to, verification in gateway.execute("SELECT mobile, verification FROM registration"):
        assert gateway.verify(verification, simulator.code("ideamart", to))["outcome"] == "approved"


def test_in_a_security_definer_function(gateway, simulator):
    """The owner's rights count, and the owner is on record."""
    gateway.execute("""
        CREATE ROLE definer_owner; CREATE ROLE definer_caller LOGIN;
        GRANT USAGE ON FOREIGN SERVER ideamart TO definer_owner;
        GRANT CREATE ON SCHEMA public TO definer_owner;
        SET ROLE definer_owner;
        CREATE FUNCTION send_code(mobile text) RETURNS uuid LANGUAGE sql SECURITY DEFINER AS
            $$ SELECT verification_id FROM otp_send('ideamart', jsonb_build_object('mobile', mobile)) $$;
        CREATE FUNCTION check_code(id uuid, code text) RETURNS text LANGUAGE sql SECURITY DEFINER AS
            $$ SELECT outcome FROM otp_verify(id, code) $$;
        RESET ROLE;
    """)
    try:
        to = gateway.number()
        with gateway.cluster.session(gateway.database, user="definer_caller") as caller:
            with pytest.raises(psycopg2.errors.InsufficientPrivilege):
                gateway.send(to=to, session=caller)
            [(verification,)] = gateway.execute("SELECT send_code(%s)", (to,), caller)
            code = simulator.code("ideamart", to)
            with pytest.raises(psycopg2.errors.UndefinedObject):
                gateway.verify(verification, code, caller)
            assert gateway.execute("SELECT check_code(%s, %s)", (verification, code), caller) == [("approved",)]
        assert gateway.verification(verification)["created_by"] == "definer_owner"
    finally:
        gateway.execute("DROP OWNED BY definer_owner; DROP ROLE definer_owner; DROP ROLE definer_caller")


def test_through_prepared_statements(gateway, simulator):
    gateway.execute("PREPARE send (jsonb) AS SELECT * FROM otp_send('ideamart', $1)")
    gateway.execute("PREPARE verify (uuid, text) AS SELECT * FROM otp_verify($1, $2)")
    # Often enough for a generic plan.
    for _ in range(7):
        to = gateway.number()
        sent = gateway.row("EXECUTE send (%s)", (json.dumps({"mobile": to}),))
        right = gateway.row("EXECUTE verify (%s, %s)", (sent["verification_id"], simulator.code("ideamart", to)))
        assert (sent["outcome"], right["outcome"]) == ("sent", "approved")
    assert simulator.count("ideamart", "send") == 7


def test_with_a_cursor(gateway, simulator):
    numbers = [gateway.number() for _ in range(3)]
    with gateway.cluster.session(gateway.database, autocommit=False) as session:
        gateway.execute("CREATE TEMP TABLE asked AS SELECT unnest(%s) AS mobile", (numbers,), session)
        gateway.execute(
            "DECLARE c CURSOR FOR SELECT (s).verification_id FROM (SELECT otp_send('ideamart',"
            " jsonb_build_object('mobile', mobile)) AS s FROM asked OFFSET 0) AS x",
            session=session,
        )
        for count, to in enumerate(numbers, 1):
            [(verification,)] = gateway.execute("FETCH c", session=session)
            # A row is sent when it is fetched, and not before.
            assert simulator.count("ideamart", "send") == count
            code = simulator.code("ideamart", to)
            assert gateway.verify(verification, code, session)["outcome"] == "approved"
        session.commit()


# the server's log


NUMBER, CODE = "0771987654", "864219"
LITERAL = f"""'ideamart', '{{"mobile": "{NUMBER}"}}'"""


@contextlib.contextmanager
def nothing_leaks(gateway):
    before = len(gateway.cluster.log())
    yield
    log = gateway.cluster.log()[before:]
    assert "ERROR" in log or "FATAL" in log
    assert NUMBER not in log and CODE not in log, log


@pytest.mark.parametrize(
    "statement",
    [
        pytest.param(f"SELECT 1 / (outcome IS NULL)::int FROM otp_send({LITERAL})", id="an error after the call"),
        pytest.param(f"SELECT * FROM otp_send('nowhere', '{{\"mobile\": \"{NUMBER}\"}}')", id="no such provider"),
        pytest.param(f"SELECT * FROM otp_send('ideamart', '{{\"mobil\": \"{NUMBER}\"}}')", id="a field mistyped"),
        pytest.param(f"SELECT * FROM otp_send('ideamart', '{{\"mobile\": \"{NUMBER}77\"}}')", id="a number too long"),
        pytest.param(
            f"SELECT * FROM otp_verify('ideamart', '{CODE}', '{{\"refrence\": \"1\"}}')", id="a verify mistyped"
        ),
        pytest.param(
            f"SELECT * FROM otp_verify('{'0' * 8}-0000-7000-8000-{'0' * 12}', '{CODE}')", id="no such verification"
        ),
        pytest.param(f"DO $$ BEGIN PERFORM otp_send({LITERAL}); RAISE EXCEPTION 'no'; END $$", id="in PL/pgSQL"),
        pytest.param(f"SET statement_timeout = 200; SELECT * FROM otp_send({LITERAL})", id="statement_timeout"),
        # Those below fail before any function of ours runs.
        pytest.param(f"SELECT * FROM otp_send('ideamart', '{{\"mobile\": \"{NUMBER}\"')", id="JSON that ends too soon"),
        pytest.param(f"SELECT * FROM otp_send('ideamart', '{{\"mobile\": {NUMBER}x}}')", id="no JSON"),
        pytest.param(f"SELECT * FROM otp_verify('ideamart', '{CODE}', '{{}}', 1)", id="an argument too many"),
        pytest.param(f"SELECT nothing FROM otp_send({LITERAL})", id="a column that is not there"),
        pytest.param(f"SELECT pg_sleep(1 / 0), otp_send({LITERAL})", id="an error before the call"),
        pytest.param(f"SELEC * FROM otp_verify('ideamart', '{CODE}')", id="a syntax error"),
    ],
)
def test_no_number_and_no_code_in_the_log(gateway, simulator, statement):
    if "statement_timeout" in statement:
        simulator.fault("hold", operation="send")
    with nothing_leaks(gateway), gateway.cluster.session(gateway.database) as session:
        with pytest.raises(psycopg2.Error):
            gateway.execute(statement, session=session)


@pytest.mark.parametrize("how", ["cancel", "terminate"])
def test_an_interrupt_leaves_no_number_in_the_log(gateway, simulator, how):
    with nothing_leaks(gateway):
        {"cancel": cancel, "terminate": terminate}[how](gateway, f"SELECT * FROM otp_send({LITERAL})")
