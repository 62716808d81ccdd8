"""Promise: nobody gets more messages, or more guesses, than the provider's options allow, however many sessions ask at
once, however the number is typed, whatever is rolled back, queued, restarted or crashed; and a right code spends nothing.
A refusal is a row that names its rule, and says how long to wait: to wait so long is enough, and no more than is needed.
With enforce 'observe' the same decisions are written down, and nothing is held back. All of it costs no more on a long
record than on a short one.

Time is moved by backdating the record."""

import collections
import concurrent.futures
import datetime
import json
import os
import pathlib
import random
import re
import statistics
import threading
import time

import psycopg2
import pytest

from cluster import free_port
from conftest import FLOWS, Gateway, statistics_at_once, until
from simulator import ROOT
from vendors import TABLE

SESSIONS = 200
SEED = int(os.environ.get("OTP_TRAFFIC_SEED", random.SystemRandom().randrange(10**6)))

SEND = "SELECT * FROM otp_send(%s, %s::jsonb)"
ENQUEUE = "SELECT * FROM otp_enqueue(%s, %s::jsonb)"
VERIFY = "SELECT * FROM otp_verify(%s::uuid, %s)"

# Every form of the page (docs/vendors/ideamart.md), white space, hyphens, and a JSON number.
SPELLINGS = [
    "0771234567",
    "771234567",
    "+94771234567",
    "94771234567",
    "0094771234567",
    "tel:94771234567",
    "077 123 4567",
    "+94-77-123-4567",
    771234567,
    94771234567,
]


@pytest.fixture
def gateway(quick_gateway):
    yield quick_gateway
    quick_gateway.drain()


@pytest.fixture(scope="module")
def crowd(shared_cluster, module_database):
    """Two hundred sessions, for every test that wants them."""
    sessions = connected(shared_cluster, module_database)
    yield sessions
    for session in sessions:
        session.close()


def connected(cluster, database):
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        return list(pool.map(lambda _: cluster.connect(database), range(SESSIONS)))


class AtOnce:
    """What each of many sessions does, all of them starting together."""

    def __init__(self, sessions, work):
        self.work, self.ended, self.error = work, [], None
        self.start = threading.Barrier(len(sessions))
        self.threads = [
            threading.Thread(target=self.run, args=(n, session), daemon=True) for n, session in enumerate(sessions)
        ]
        for thread in self.threads:
            thread.start()

    def run(self, n, session):
        self.start.wait(60)
        try:
            self.ended.append(self.work(n, session))
        except Exception as error:
            self.error = error

    def results(self, timeout=60):
        for thread in self.threads:
            thread.join(timeout)
        assert not any(thread.is_alive() for thread in self.threads), "a session does not come back"
        if self.error is not None:
            raise self.error
        return self.ended


def counted(rows, column="outcome"):
    return dict(collections.Counter(row[column] for row in rows))


def pass_time(gateway, interval, session=None):
    """So much time passes for everything that limits look at."""
    gateway.execute(
        "UPDATE otp_gateway_internal.attempt_record SET started_at = started_at - %s::interval", (interval,), session
    )


def clock(gateway):
    return gateway.execute("SELECT clock_timestamp()")[0][0]


def seconds(**units):
    return datetime.timedelta(**units)


def sandbox(gateway, name="sandbox", **options):
    """Without a network, and with every outcome at will."""
    listed = ", ".join(f"{option} '{value}'" for option, value in options.items())
    gateway.execute(
        f"CREATE SERVER {name} FOREIGN DATA WRAPPER otp_sandbox" + (f" OPTIONS ({listed})" if listed else "")
    )


def play(gateway, to="+94771234567", provider="sandbox", session=None, **payload):
    return gateway.row(SEND, (provider, json.dumps({"mobile": to, **payload})), session)


# two hundred at once


def test_five_messages_for_two_hundred_sessions(gateway, simulator, crowd):
    """While five are on their way, and nobody knows yet what becomes of them, all the others are refused."""
    gateway.create_provider("limited", "ideamart", send_limit="5 per hour", timeout="60s")
    to = gateway.number()
    simulator.fault("hold", "ideamart", "send")
    sending = AtOnce(crowd, lambda _, session: gateway.send("limited", to, session, "ideamart"))
    until(lambda: len(sending.ended) == SESSIONS - 5, "all but five are answered", 60)
    assert counted(sending.ended, "reason") == {"send_limit": SESSIONS - 5}
    simulator.held(5)
    simulator.release()
    assert counted(sending.results()) == {"sent": 5, "blocked": SESSIONS - 5}
    assert simulator.count("ideamart", "send") == simulator.count("ideamart", "send", to) == 5
    assert gateway.execute("SELECT outcome::text, count(*)::int FROM otp_gateway.attempt GROUP BY 1 ORDER BY 1") == [
        ("blocked", SESSIONS - 5),
        ("sent", 5),
    ]


def test_rolled_back(gateway, simulator, crowd):
    gateway.create_provider("limited", "ideamart", send_limit="5 per hour")
    to = gateway.number()

    def work(n, session):
        session.autocommit = False
        try:
            row = gateway.send("limited", to, session, "ideamart")
            session.rollback()
            return row
        finally:
            session.autocommit = True

    assert counted(AtOnce(crowd, work).results()) == {"sent": 5, "blocked": SESSIONS - 5}
    assert simulator.count("ideamart", "send") == 5
    # Once more, one after the other, and undone in the middle of a transaction.
    gateway.execute(
        "DO $do$ BEGIN FOR n IN 1..5 LOOP BEGIN PERFORM otp_send('limited', %s::jsonb); RAISE EXCEPTION 'no';"
        " EXCEPTION WHEN raise_exception THEN NULL; END; END LOOP; END $do$",
        (json.dumps({"mobile": to}),),
    )
    assert simulator.count("ideamart", "send") == 5


def test_ten_spellings(gateway, simulator, crowd):
    gateway.create_provider("limited", "ideamart", send_limit="5 per hour")

    def work(n, session):
        return gateway.row(SEND, ("limited", json.dumps({"mobile": SPELLINGS[n % len(SPELLINGS)]})), session)

    rows = AtOnce(crowd, work).results()
    assert counted(rows, "reason") == {None: 5, "send_limit": SESSIONS - 5}
    assert simulator.count("ideamart", "send") == simulator.count("ideamart", "send", "0771234567") == 5


def test_half_of_them_queued(gateway, simulator, crowd):
    gateway.create_provider("limited", "ideamart", send_limit="5 per hour")
    to = gateway.number()
    call = [ENQUEUE, SEND]
    AtOnce(
        crowd, lambda n, session: gateway.row(call[n % 2], ("limited", json.dumps({"mobile": to})), session)
    ).results()
    assert counted(gateway.settle()) == {"sent": 5, "blocked": SESSIONS - 5}
    assert simulator.count("ideamart", "send") == 5
    # What was queued says the same of a refusal as what was sent at once.
    said = gateway.execute("""SELECT DISTINCT v.status::text, v.send_count, v.sealed IS NULL, a.reason, a.vendor_message
        FROM otp_gateway_internal.verification_record AS v JOIN otp_gateway_internal.attempt_record AS a ON a.verification_id = v.id
        WHERE a.outcome = 'blocked'""")
    assert [row[:4] for row in said] == [("blocked", 0, True, "send_limit")]


def test_all_of_them_queued_in_one_transaction(gateway, simulator):
    gateway.create_provider("limited", "ideamart", send_limit="5 per hour")
    gateway.execute(
        "SELECT count(*) FROM generate_series(1, 200) AS n, otp_enqueue('limited',"
        " jsonb_build_object('mobile', '0771234567', 'metadata', jsonb_build_object('client', n::text)))"
    )
    assert counted(gateway.settle()) == {"sent": 5, "blocked": 195}
    assert simulator.count("ideamart", "send") == 5


def test_the_bill(gateway, simulator, crowd):
    """provider_limit: so many messages, whoever they are for."""
    gateway.create_provider("limited", "ideamart", provider_limit="5 per hour")
    numbers = [gateway.number() for _ in crowd]
    rows = AtOnce(crowd, lambda n, session: gateway.send("limited", numbers[n], session, "ideamart")).results()
    assert counted(rows, "reason") == {None: 5, "provider_limit": SESSIONS - 5}
    assert simulator.count("ideamart", "send") == 5
    # Another account has another bill.
    assert gateway.send(to=numbers[0])["outcome"] == "sent"


def test_across_a_restart_and_a_crash(own_cluster, simulator):
    cluster = own_cluster
    with cluster.session() as admin:
        admin.cursor().execute("CREATE EXTENSION otp_gateway")
    gateway = Gateway(cluster, "postgres", simulator)
    with gateway:
        gateway.create_provider("limited", "ideamart", send_limit="5 per hour", check_limit="2 per day", timeout="60s")
    to, crashed = "0770000001", "0770000002"
    refused = {"blocked": SESSIONS}

    def wave(number):
        sessions = connected(cluster, "postgres")
        rows = AtOnce(sessions, lambda _, session: gateway.send("limited", number, session, "ideamart")).results()
        [session.close() for session in sessions]
        return counted(rows)

    assert wave(to) == {"sent": 5, "blocked": SESSIONS - 5}
    with gateway:
        sent = gateway.execute("SELECT max(verification_id::text) FROM otp_gateway.attempt WHERE outcome = 'sent'")[0][
            0
        ]
        wrong = simulator.wrong("ideamart", to)
        assert [gateway.verify(sent, wrong)["outcome"] for _ in range(2)] == ["invalid_code"] * 2
    cluster.restart()
    assert wave(to) == refused
    with gateway:
        assert gateway.verify(sent, wrong)["reason"] == "check_limit"

    # Five are on their way when the server dies: they may have arrived, so they count.
    simulator.fault("hold", "ideamart", "send")
    sessions = connected(cluster, "postgres")
    dying = AtOnce(sessions, lambda _, session: gateway.send("limited", crashed, session, "ideamart"))
    until(lambda: len(dying.ended) == SESSIONS - 5, "all but five are answered", 60)
    simulator.held(5)
    cluster.stop("immediate")
    with pytest.raises(psycopg2.Error):
        dying.results()
    [session.close() for session in sessions]
    simulator.clear_faults()
    simulator.release()
    cluster.start()
    assert wave(crashed) == refused
    with gateway:
        assert gateway.send("limited", to, vendor="ideamart")["reason"] == "send_limit"
        assert gateway.verify(sent, wrong)["reason"] == "check_limit"
        # A day later all are free again.
        pass_time(gateway, "1 day")
        assert {gateway.send("limited", number, vendor="ideamart")["outcome"] for number in (to, crashed)} == {"sent"}
        assert gateway.verify(sent, wrong)["outcome"] == "invalid_code"
    assert [simulator.count("ideamart", "send", number) for number in (to, crashed)] == [6, 6]
    assert "PANIC" not in cluster.log()


# two hundred guesses


@pytest.fixture
def guessed(gateway, simulator):
    """A provider with max_checks 5, whose vendor would let people guess for ever."""
    gateway.create_provider("guessed", "hyperverge", max_checks="5", timeout="60s")
    simulator.fault("reply", "hyperverge", "verify", body=TABLE["hyperverge"].wrong)
    return gateway


def begin(gateway, to, provider="guessed"):
    sent = gateway.send(provider, to, vendor="hyperverge")
    assert sent["outcome"] == "sent", sent
    return sent["verification_id"]


def test_five_guesses_for_two_hundred_sessions(guessed, simulator, crowd):
    id = begin(guessed, guessed.number("hyperverge"))
    rows = AtOnce(crowd, lambda n, session: guessed.verify(id, f"{n:06}", session)).results()
    assert counted(rows) == {"invalid_code": 5, "max_attempts_reached": SESSIONS - 5}
    assert simulator.count("hyperverge", "verify") == 5
    assert guessed.verification(id)["status"] == "max_attempts_reached"


def test_five_guesses_at_twenty_verifications(guessed, simulator, crowd):
    """More verifications of one number are no more guesses, and the five are let through however many there are."""
    to = guessed.number("hyperverge")
    ids = [begin(guessed, to) for _ in range(20)]
    rows = AtOnce(crowd, lambda n, session: guessed.verify(ids[n % 20], f"{n:06}", session)).results()
    outcomes = counted(rows)
    assert outcomes["invalid_code"] == simulator.count("hyperverge", "verify") == 5
    assert set(outcomes) <= {"invalid_code", "blocked", "max_attempts_reached"}
    assert {row["reason"] for row in rows if row["outcome"] == "blocked"} == {"max_checks"}


def test_five_guesses_across_resends_and_new_sends(guessed, simulator, crowd):
    """Every session has a code sent, again or anew, and guesses at it; half of them roll all of it back."""
    to = guessed.number("hyperverge")
    ids = [begin(guessed, to) for _ in range(4)]

    def work(n, session):
        session.autocommit = n % 2 == 0
        try:
            id = ids[n % 4]
            if n % 3 == 0:
                id = guessed.send("guessed", to, session, "hyperverge")["verification_id"]
            elif n % 3 == 1:
                guessed.row("SELECT * FROM otp_resend(%s)", (id,), session)
            row = guessed.verify(id, f"{n:06}", session)
            if n % 2:
                session.rollback()
            return row
        finally:
            session.rollback()
            session.autocommit = True

    outcomes = counted(AtOnce(crowd, work).results())
    assert outcomes["invalid_code"] == simulator.count("hyperverge", "verify") == 5
    assert set(outcomes) <= {"invalid_code", "blocked", "max_attempts_reached"}
    # And still, one after the other.
    id = begin(guessed, to)
    assert guessed.row("SELECT * FROM otp_resend(%s)", (id,))["outcome"] == "sent"
    row = guessed.verify(id, "123456")
    assert (row["outcome"], row["reason"], row["status"]) == ("blocked", "max_checks", "pending")
    # By number, as a flow begun elsewhere, too.
    row = guessed.verify_at("guessed", "123456", mobile=to)
    assert (row["outcome"], row["reason"]) == ("blocked", "max_checks")
    assert simulator.count("hyperverge", "verify") == 5


def test_check_limit_for_two_hundred_sessions(gateway, simulator, crowd):
    gateway.create_provider("guessed", "hyperverge", max_checks="1000", check_limit="5 per hour")
    simulator.fault("reply", "hyperverge", "verify", body=TABLE["hyperverge"].wrong)
    to, other = gateway.number("hyperverge"), gateway.number("hyperverge")
    ids = [begin(gateway, to) for _ in range(20)]
    rows = AtOnce(crowd, lambda n, session: gateway.verify(ids[n % 20], f"{n:06}", session)).results()
    assert counted(rows, "reason") == {None: 5, "check_limit": SESSIONS - 5}
    assert simulator.count("hyperverge", "verify") == 5
    # Another person has guesses of their own.
    assert gateway.verify(begin(gateway, other), "123456")["outcome"] == "invalid_code"


def test_a_right_code_spends_none(gateway):
    sandbox(gateway, check_limit="2 per hour", max_checks="5")

    def check(code):
        row = gateway.verify(play(gateway)["verification_id"], code)
        return row["reason"] or row["outcome"]

    assert [check("000000") for _ in range(4)] == ["approved"] * 4
    assert [check("111111"), check("000000"), check("000000"), check("111111")] == [
        "invalid_code",
        "approved",
        "approved",
        "invalid_code",
    ]
    # Two wrong ones within the hour: now even the right one has to wait, or one could go on guessing.
    assert [check("000000"), check("111111")] == ["check_limit"] * 2
    assert gateway.execute("SELECT max(check_count) FROM otp_gateway.verification WHERE status = 'approved'") == [(0,)]


def test_a_right_code_forgives_the_wrong_ones(gateway):
    """max_checks: the owner has shown that it was the owner who mistyped."""
    sandbox(gateway, max_checks="3")

    def check(code):
        row = gateway.verify(play(gateway)["verification_id"], code)
        return row["reason"] or row["outcome"]

    for _ in range(3):
        assert [check("111111"), check("111111"), check("000000")] == ["invalid_code", "invalid_code", "approved"]
    assert [check("111111") for _ in range(4)] == ["invalid_code"] * 3 + ["max_checks"]
    assert check("000000") == "max_checks"


def test_what_the_record_answers_spends_none(gateway, simulator):
    """Where no code was compared, no guess was made: too late, or one of a crowd after the last try."""
    gateway.create_provider("guessed", "hyperverge", max_checks="2", check_limit="3 per day")
    to = gateway.number("hyperverge")
    for _ in range(4):
        id = begin(gateway, to)
        gateway.execute(
            "UPDATE otp_gateway_internal.verification_record SET expires_at = now() - interval '1 second' WHERE id = %s",
            (id,),
        )
        assert gateway.verify(id, "123456")["outcome"] == "expired"
    assert simulator.count("hyperverge", "verify") == 0
    assert gateway.verify(begin(gateway, to), "123456")["outcome"] == "invalid_code"


def test_what_a_crowd_hears_after_the_last_try_spends_none(gateway, simulator, crowd):
    gateway.create_provider("guessed", "hyperverge", max_checks="2", check_limit="3 per day")
    simulator.fault("reply", "hyperverge", "verify", body=TABLE["hyperverge"].wrong)
    to = gateway.number("hyperverge")
    id = begin(gateway, to)
    rows = AtOnce(crowd[:20], lambda n, session: gateway.verify(id, f"{n:06}", session)).results()
    assert counted(rows) == {"invalid_code": 2, "max_attempts_reached": 18}
    # The wrong ones count against the person for an hour at most; of the three of the day one is left.
    pass_time(gateway, "1 hour")
    id = begin(gateway, to)
    assert gateway.verify(id, "123456")["outcome"] == "invalid_code"
    assert gateway.verify(id, "123456")["reason"] == "check_limit"


def test_a_check_of_which_nobody_knows_the_end(gateway, simulator):
    """The vendor has taken the code, and the answer was lost: what it says then is told as it is, and never as approved."""
    gateway.create_provider("guessed", "hyperverge")
    to = gateway.number("hyperverge")
    id = begin(gateway, to)
    code = simulator.code("hyperverge", to)
    simulator.fault("close_after_read", "hyperverge", "verify", times=1)
    lost = gateway.verify(id, code)
    assert (lost["outcome"], lost["status"], lost["retryable"]) == ("unknown", "unknown", False)
    again = gateway.verify(id, code)
    assert (again["outcome"], again["status"]) == ("already_used", "failed")
    # That was the end of it, whatever the vendor would say.
    assert simulator.count("hyperverge", "verify") == 2
    assert gateway.verify(id, code)["outcome"] == "not_found"
    assert simulator.count("hyperverge", "verify") == 2


# what counts


@pytest.mark.parametrize(
    "outcome, counts",
    [
        ("sent", True),
        ("unknown", True),
        ("already_registered", False),
        ("rate_limited", False),
        ("invalid_request", False),
        ("auth_failed", False),
        ("refused", False),
        ("provider_error", False),
        ("unreachable", False),
    ],
)
def test_sends_that_count(gateway, outcome, counts):
    """What went out, or may have; also where it is a resend."""
    sandbox(gateway, send_limit="2 per hour")
    assert play(gateway, outcome=outcome)["outcome"] == outcome
    id = play(gateway)["verification_id"]
    again = gateway.row("SELECT * FROM otp_resend(%s, %s)", (id, json.dumps({"outcome": outcome})))
    assert (again["outcome"], again["reason"]) == (("blocked", "send_limit") if counts else (outcome, None))
    assert play(gateway)["reason"] == ("send_limit" if counts else None)


@pytest.mark.parametrize(
    "outcome, counts",
    [
        ("invalid_code", True),
        ("unknown", True),
        ("expired", True),
        ("already_used", True),
        ("not_found", True),
        ("max_attempts_reached", True),
        ("refused", True),
        ("approved", False),
        ("rate_limited", False),
        ("invalid_request", False),
        ("auth_failed", False),
        ("provider_error", False),
        ("unreachable", False),
    ],
)
def test_checks_that_count(gateway, outcome, counts):
    """Where the vendor may have compared the code, and did not find it right."""
    sandbox(gateway, check_limit="1 per hour")
    id = play(gateway)["verification_id"]
    assert gateway.verify(id, "000000", outcome=outcome)["outcome"] == outcome
    row = gateway.verify(play(gateway)["verification_id"], "111111")
    assert (row["outcome"], row["reason"]) == (("blocked", "check_limit") if counts else ("invalid_code", None))


def test_who_counts(gateway):
    """One recipient at one provider, whatever the role, the verification and the operation."""
    sandbox(gateway, send_limit="2 per hour")
    sandbox(gateway, "other_one", send_limit="2 per hour")
    id = play(gateway)["verification_id"]
    assert gateway.row("SELECT * FROM otp_resend(%s)", (id,))["outcome"] == "sent"
    assert gateway.row("SELECT * FROM otp_resend(%s)", (id,))["reason"] == "send_limit"
    assert play(gateway)["reason"] == "send_limit"
    assert play(gateway, "+94771234568")["outcome"] == "sent"
    assert play(gateway, provider="other_one")["outcome"] == "sent"
    # Cancelling and checking are no sends, and no limit of sends stands in their way.
    assert gateway.verify(id, "111111")["outcome"] == "invalid_code"
    assert gateway.row("SELECT * FROM otp_cancel(%s)", (id,))["outcome"] == "canceled"


def test_what_is_refused_does_not_count(gateway):
    """Asking again and again does not put off the time at which it is allowed."""
    sandbox(gateway, resend_after="1h")
    assert play(gateway)["outcome"] == "sent"
    waits = [play(gateway)["retry_after"] for _ in range(20)]
    assert waits == sorted(waits, reverse=True)
    pass_time(gateway, waits[0])
    assert play(gateway)["outcome"] == "sent"


def test_a_new_option_holds_at_once(gateway):
    sandbox(gateway)
    assert [play(gateway)["outcome"] for _ in range(3)] == ["sent"] * 3
    gateway.execute("ALTER SERVER sandbox OPTIONS (ADD send_limit '3 per hour')")
    assert play(gateway)["reason"] == "send_limit"
    gateway.execute("ALTER SERVER sandbox OPTIONS (SET send_limit '4 per hour')")
    assert [play(gateway)["reason"] for _ in range(2)] == [None, "send_limit"]
    gateway.execute("ALTER SERVER sandbox OPTIONS (DROP send_limit)")
    assert play(gateway)["outcome"] == "sent"


# resend_after


@pytest.mark.parametrize("vendor", [*FLOWS, "sandbox"])
def test_the_default_interval(gateway, simulator, vendor):
    """Thirty seconds with every vendor; the sandbox has none."""
    if vendor == "sandbox":
        sandbox(gateway)
        assert [play(gateway)["outcome"] for _ in range(2)] == ["sent"] * 2
        return
    gateway.create_provider("usual", vendor, resend_after=None)
    to = gateway.number(vendor)
    sent = gateway.send("usual", to, vendor=vendor)
    assert sent["outcome"] == "sent"
    row = gateway.send("usual", to, vendor=vendor)
    assert (row["outcome"], row["reason"], row["retryable"]) == ("blocked", "resend_after", True)
    assert seconds(seconds=0) < row["retry_after"] <= seconds(seconds=30)
    again = gateway.row("SELECT * FROM otp_resend(%s)", (sent["verification_id"],))
    assert (again["outcome"], again["reason"], again["status"]) == ("blocked", "resend_after", "pending")
    assert simulator.count(vendor, "send") + simulator.count(vendor, "resend") == 1
    pass_time(gateway, "30 seconds")
    assert gateway.row("SELECT * FROM otp_resend(%s)", (sent["verification_id"],))["outcome"] == "sent"
    # A resend is a send: the next one waits for it.
    assert gateway.send("usual", to, vendor=vendor)["reason"] == "resend_after"


def test_a_double_click(gateway, simulator, crowd):
    """A second send without a key is refused with the wait, and is no second message."""
    gateway.create_provider("usual", "hyperverge", resend_after=None)
    to = gateway.number("hyperverge")
    rows = AtOnce(crowd[:20], lambda _, session: gateway.send("usual", to, session, "hyperverge")).results()
    assert counted(rows, "reason") == {None: 1, "resend_after": 19}
    assert simulator.count("hyperverge", "send") == 1


# the edges of the windows


def again_and_again(gateway, provider, **payload):
    """A send, that counts, and how to make another."""
    to = "+94771234567"
    assert play(gateway, to, provider)["outcome"] == "sent"
    return lambda: play(gateway, to, provider, **payload)


def guess_and_guess(gateway, provider):
    to = "+94771234567"

    def guess():
        return gateway.verify(play(gateway, to, provider)["verification_id"], "111111")

    assert guess()["outcome"] == "invalid_code"
    return guess


EDGES = [
    # the rule, the server's options, the window
    ("resend_after", {"resend_after": "45s"}, seconds(seconds=45), again_and_again),
    ("send_limit", {"send_limit": "1 per hour"}, seconds(hours=1), again_and_again),
    ("send_limit", {"send_limit": "9 per minute, 1 per 31 days"}, seconds(days=31), again_and_again),
    ("send_limit", {"send_limit": "1 per 10 minutes, 5 per day"}, seconds(minutes=10), again_and_again),
    ("provider_limit", {"provider_limit": "1 per day"}, seconds(days=1), again_and_again),
    ("check_limit", {"check_limit": "1 per 2 hours"}, seconds(hours=2), guess_and_guess),
    ("max_checks", {"max_checks": "1", "code_lifetime": "3min"}, seconds(minutes=3), guess_and_guess),
    # Nobody is kept out for longer than an hour for having mistyped.
    ("max_checks", {"max_checks": "1", "code_lifetime": "1d"}, seconds(hours=1), guess_and_guess),
]


@pytest.mark.parametrize("reason, options, window, first", EDGES, ids=[f"{case[0]} {case[2]}" for case in EDGES])
def test_edge(gateway, reason, options, window, first):
    """One second before the end of the window it is refused; at its end, or after the wait that was told, it is not."""
    sandbox(gateway, **options)
    done = {"invalid_code"} if first is guess_and_guess else {"sent"}

    def afresh():
        gateway.execute(
            "TRUNCATE otp_gateway_internal.attempt_record, otp_gateway_internal.verification_record, otp_gateway_internal.reference"
        )
        again = first(gateway, "sandbox")
        return again, set_start

    def set_start(age):
        """What counts began so long ago, by the clock as it is now; returns when."""
        return gateway.execute(
            "WITH now AS (SELECT clock_timestamp() AS at), moved AS (UPDATE otp_gateway_internal.attempt_record"
            " SET started_at = at - %s FROM now) SELECT at FROM now",
            (age,),
        )[0][0]

    # At the end of the window.
    again, start = afresh()
    start(window)
    row = again()
    assert (row["outcome"], row["reason"]) == (done.pop(), None)

    # A second before; unless this machine takes that second to ask.
    for _ in range(20):
        again, start = afresh()
        set_at = start(window - seconds(seconds=1))
        row = again()
        if clock(gateway) - set_at < seconds(seconds=1):
            break
    else:
        pytest.fail("never asked within a second")
    assert (row["outcome"], row["reason"], row["retryable"]) == ("blocked", reason, True)
    assert seconds(seconds=0) < row["retry_after"] <= seconds(seconds=1)

    # Some time before: the wait is the rest of the window, by the clock of the decision, and obeying it is enough.
    again, start = afresh()
    set_at = start(window / 3)
    before = clock(gateway)
    row = again()
    after = clock(gateway)
    assert row["reason"] == reason
    began = set_at - window / 3
    assert began + window - after <= row["retry_after"] <= began + window - before
    pass_time(gateway, row["retry_after"])
    row = again()
    assert (row["outcome"], row["reason"]) in [("sent", None), ("invalid_code", None)]
    # And that one begins a new window.
    assert again()["reason"] == reason


def test_the_window_slides(gateway):
    """No hour whatsoever has more than three, wherever it begins; each is free again as the oldest leaves."""
    sandbox(gateway, send_limit="3 per hour")
    for expected in ["sent", "sent", "sent", "blocked"]:
        assert play(gateway)["outcome"] == expected
        pass_time(gateway, "10 minutes")
    # The first is 40 minutes old.
    row = play(gateway)
    assert seconds(minutes=19) < row["retry_after"] <= seconds(minutes=20)
    for _ in range(4):
        row = play(gateway)
        assert row["reason"] == "send_limit" and row["retry_after"] <= seconds(minutes=40)
        pass_time(gateway, row["retry_after"])
        assert play(gateway)["outcome"] == "sent"


def test_the_clock_set_back(gateway):
    """What is dated ahead was written while the clock was wrong, and blocks nobody until then; a little ahead counts as now."""
    sandbox(gateway, resend_after="1min", send_limit="2 per hour", check_limit="1 per hour")
    assert play(gateway)["outcome"] == "sent"
    pass_time(gateway, "-30 seconds")
    row = play(gateway)
    assert (row["reason"], row["retry_after"]) == ("resend_after", seconds(minutes=1))
    pass_time(gateway, "-1 day")
    assert [play(gateway)["outcome"] for _ in range(2)] == ["sent", "blocked"]


# several rules


def test_the_longest_wait(gateway):
    """Of all rules that refuse the one is told that lasts: to wait for it is enough."""
    sandbox(gateway, resend_after="1h", send_limit="2 per day", provider_limit="3 per week")

    def asked(to):
        row = play(gateway, to)
        hours = row["retry_after"] and round(row["retry_after"] / seconds(hours=1), 1)
        return row["reason"] or row["outcome"], hours

    one, two, three = "+94771234561", "+94771234562", "+94771234563"
    assert [asked(one), asked(one)] == [("sent", None), ("resend_after", 1.0)]
    pass_time(gateway, "1 hour")
    assert [asked(one), asked(one)] == [("sent", None), ("send_limit", 23.0)]
    assert [asked(two), asked(two)] == [("sent", None), ("provider_limit", 167.0)]
    # The bill is full for everybody, and lasts longer than all else.
    assert [asked(three), asked(one)] == [("provider_limit", 167.0)] * 2
    pass_time(gateway, "167 hours")
    assert asked(three) == ("sent", None)
    assert asked(one)[0] == "provider_limit"


def test_the_longest_wait_of_a_check(gateway):
    sandbox(gateway, check_limit="3 per 5 minutes, 4 per day", max_checks="2", code_lifetime="10min")

    def check():
        row = gateway.verify(play(gateway)["verification_id"], "111111")
        minutes = row["retry_after"] and round(row["retry_after"] / seconds(minutes=1))
        return row["reason"] or row["outcome"], minutes

    assert [check() for _ in range(3)] == [("invalid_code", None)] * 2 + [("max_checks", 10)]
    pass_time(gateway, "10 minutes")
    assert [check() for _ in range(3)] == [("invalid_code", None)] * 2 + [("check_limit", 1430)]


def test_a_rule_without_a_wait_comes_first(gateway):
    """What waiting does not help is said at once."""
    sandbox(gateway, resend_after="1h", allowed_prefixes="+91")
    row = play(gateway)
    assert (row["reason"], row["retry_after"], row["retryable"]) == ("allowed_prefixes", None, False)


# allowed_prefixes


@pytest.mark.parametrize(
    "to, prefixes, goes",
    [
        ("0771234567", "+94", True),
        ("tel:94771234567", "+91, +94", True),
        ("+94771234567", "+9477", True),
        ("771234567", "+91", False),
        ("0771234567", "+9471, +9476", False),
        ("8144094480", "+94", False),
        ("08144094480", "+91", True),
        ("+1 202 555 0123", "+91, +94", False),
        ("+1 202 555 0123", "+1", True),
        ("94771234567", "+9", True),
        ("+442079460958", "+4", True),
        ("+442079460958", "+44207946095812", False),
    ],
)
def test_allowed_prefixes(gateway, to, prefixes, goes):
    """By the number in full, however it was typed."""
    sandbox(gateway, allowed_prefixes=prefixes)
    for call in (SEND, ENQUEUE):
        gateway.row(call, ("sandbox", json.dumps({"mobile": to})))
    assert counted(gateway.settle()) == {("sent" if goes else "blocked"): 2}
    assert {reason for (reason,) in gateway.execute("SELECT reason FROM otp_gateway.attempt")} == {
        None if goes else "allowed_prefixes"
    }


def test_a_foreign_number_never_leaves(gateway, simulator):
    gateway.create_provider("at_home", "ideamart", allowed_prefixes="+91")
    gateway.create_provider("users", "relid", allowed_prefixes="+91")
    row = gateway.send("at_home", vendor="ideamart")
    assert (row["outcome"], row["status"], row["retryable"], row["retry_after"]) == ("blocked", "blocked", False, None)
    # Who is no number has no prefix.
    assert gateway.send("users", vendor="relid")["outcome"] == "sent"
    assert (simulator.count("ideamart"), simulator.count("relid", "send")) == (0, 1)


def test_a_code_that_was_sent_can_be_checked(gateway):
    """allowed_prefixes says who may be sent to: a resend is a send, and a check or a cancel is none."""
    sandbox(gateway)
    checked, canceled = play(gateway)["verification_id"], play(gateway)["verification_id"]
    gateway.execute("ALTER SERVER sandbox OPTIONS (ADD allowed_prefixes '+91')")
    assert gateway.row("SELECT * FROM otp_resend(%s)", (checked,))["reason"] == "allowed_prefixes"
    assert gateway.verify(checked, "000000")["outcome"] == "approved"
    assert gateway.row("SELECT * FROM otp_cancel(%s)", (canceled,))["outcome"] == "canceled"


# what a refusal looks like


def test_a_blocked_send(gateway, simulator):
    gateway.create_provider("limited", "ideamart", send_limit="1 per hour")
    to = gateway.number()
    gateway.send("limited", to, vendor="ideamart")
    row = gateway.send("limited", to, vendor="ideamart")
    assert list(row)[-1] == "reason"
    wait = row.pop("retry_after")
    assert seconds(minutes=59) < wait <= seconds(hours=1)
    id, attempt_id, words = row.pop("verification_id"), row.pop("attempt_id"), row.pop("vendor_message")
    assert "send_limit" in words and "nothing was sent" in words
    assert row == {
        "status": "blocked",
        "outcome": "blocked",
        "retryable": True,
        "attempts_left": 0,
        "expires_at": None,
        "reference": None,
        "vendor_code": None,
        "response": None,
        "reason": "send_limit",
    }
    verification = gateway.verification(id)
    assert {
        name: verification[name] for name in ("provider", "status", "send_count", "check_count", "sealed", "created_by")
    } == {
        "provider": "limited",
        "status": "blocked",
        "send_count": 0,
        "check_count": 0,
        "sealed": None,
        "created_by": "postgres",
    }
    assert verification["recipient_key"] is not None and verification["recipient_masked"].endswith(to[-4:])
    attempt = gateway.row("SELECT * FROM otp_gateway_internal.attempt_record WHERE id = %s", (attempt_id,))
    assert attempt["verification_id"] == id and attempt["recipient_key"] == verification["recipient_key"]
    assert (attempt["operation"], attempt["outcome"], attempt["reason"]) == ("send", "blocked", "send_limit")
    [(provider,)] = gateway.execute("SELECT provider FROM otp_gateway.attempt WHERE id = %s", (attempt_id,))
    assert (provider, attempt["vendor_message"]) == ("limited", words)
    assert (attempt["http_status"], attempt["vendor_code"], attempt["response"]) == (None, None, None)
    assert attempt["started_at"] <= attempt["finished_at"]
    # It has ended: the record answers, without a call.
    for answer in (gateway.verify(id, "123456"), gateway.row("SELECT * FROM otp_resend(%s)", (id,)), gateway.wait(id)):
        assert (answer["outcome"], answer["status"]) == ("blocked", "blocked")
    assert simulator.count() == 1


def test_a_blocked_check_changes_nothing(gateway, simulator):
    gateway.create_provider("limited", "ideamart", check_limit="1 per hour")
    to = gateway.number()
    id = gateway.send("limited", to, vendor="ideamart")["verification_id"]
    wrong = simulator.wrong("ideamart", to)
    first = gateway.verify(id, wrong)
    before = gateway.verification(id)
    row = gateway.verify(id, wrong)
    assert (row["outcome"], row["reason"], row["status"], row["retryable"]) == (
        "blocked",
        "check_limit",
        "pending",
        True,
    )
    assert row["attempts_left"] == first["attempts_left"] == 0
    assert "check_limit" in row["vendor_message"] and "nothing was checked" in row["vendor_message"]
    assert gateway.verification(id) == before
    assert gateway.attempts(id) == [("send", "sent"), ("verify", "invalid_code"), ("verify", "blocked")]
    assert simulator.count("ideamart", "verify") == 1
    # After the wait the right code is as good as ever.
    pass_time(gateway, row["retry_after"])
    assert gateway.verify(id, simulator.code("ideamart", to))["outcome"] == "approved"


def test_a_blocked_resend_changes_nothing(gateway, simulator):
    gateway.create_provider("limited", "ideamart", resend_after="1h")
    to = gateway.number()
    id = gateway.send("limited", to, vendor="ideamart")["verification_id"]
    before = gateway.verification(id)
    row = gateway.row("SELECT * FROM otp_resend(%s)", (id,))
    assert (row["outcome"], row["reason"], row["status"]) == ("blocked", "resend_after", "pending")
    assert gateway.verification(id) == before
    # The first code is still the one.
    assert gateway.verify(id, simulator.code("ideamart", to))["outcome"] == "approved"
    assert simulator.count("ideamart", "send") == 1


def test_a_queued_one_that_is_refused(gateway, simulator):
    """When its turn comes: what was sent meanwhile counts."""
    gateway.full("narrow", send_limit="1 per hour")
    to = gateway.number()
    first, second = (gateway.enqueue("narrow", to, vendor="ideamart")["verification_id"] for _ in range(2))
    simulator.release()
    assert gateway.wait(first)["outcome"] == "sent"
    row = gateway.wait(second)
    assert (row["outcome"], row["status"], row["reason"]) == ("blocked", "blocked", "send_limit")
    assert gateway.attempts(second) == [("send", "blocked")]
    assert simulator.count("ideamart", "send", to) == 1


# observe


def test_observe_holds_nothing_back(gateway, simulator, crowd):
    """What `on` would have refused is sent, and says so in the row and on record."""
    gateway.create_provider("watched", "ideamart", send_limit="5 per hour", enforce="observe")
    to = gateway.number()
    rows = AtOnce(crowd[:50], lambda _, session: gateway.send("watched", to, session, "ideamart")).results()
    assert counted(rows) == {"sent": 50}
    assert counted(rows, "reason") == {None: 5, "send_limit": 45}
    assert simulator.count("ideamart", "send") == 50
    for row in rows:
        attempt = gateway.row(
            "SELECT outcome::text, reason FROM otp_gateway.attempt WHERE id = %s", (row["attempt_id"],)
        )
        assert attempt == {"outcome": "sent", "reason": row["reason"]}
        assert (row["status"], row["retry_after"], row["retryable"]) == ("pending", None, False)


class Traffic:
    """The same things asked of two providers, one that enforces and one that observes, with time passing by."""

    RECIPIENTS = ["+94771234561", "+94771234562", "+94771234563", "+12025550123"]

    def __init__(self, gateway, seed, **options):
        self.gateway, self.dice, self.pairs = gateway, random.Random(seed), []
        for name in ("on", "observe"):
            sandbox(gateway, f"with_{name}", enforce=name, **options)

    def step(self):
        what = self.dice.choices(["send", "queue", "resend", "verify", "later"], [8, 2, 2, 14, 3])[0]
        if what == "later":
            # All windows are whole multiples of this, so that a slow machine does not come upon an edge.
            pass_time(self.gateway, f"{self.dice.choice([200, 200, 400, 1000])} seconds")
        elif what in ("send", "queue"):
            self.send(what)
        else:
            self.follow(what)

    def send(self, what):
        to = self.dice.choices(self.RECIPIENTS, [6, 3, 3, 1])[0]
        outcome = self.dice.choices(["sent", "unknown", "refused", "unreachable", "rate_limited"], [8, 2, 1, 1, 1])[0]
        if what == "queue" and outcome in ("unreachable", "rate_limited"):
            # These would be tried again in their own time.
            outcome = "sent"
        rows = []
        for name in ("with_on", "with_observe"):
            row = self.gateway.row(
                SEND if what == "send" else ENQUEUE, (name, json.dumps({"mobile": to, "outcome": outcome}))
            )
            rows.append(self.gateway.wait(row["verification_id"]) if what == "queue" else row)
        self.pairs.append([row["verification_id"] for row in rows])

    def follow(self, what):
        """Something about a flow that is open with both, and has checks left."""
        open_ids = {
            id
            for (id,) in self.gateway.execute(
                "SELECT id FROM otp_gateway.verification WHERE status IN ('pending', 'unknown') AND check_count < max_checks"
            )
        }
        open_ones = [pair for pair in self.pairs[-12:] if open_ids.issuperset(pair)]
        if not open_ones:
            return
        pair = self.dice.choice(open_ones)
        outcome = self.dice.choices([None, "unknown", "provider_error"], [12, 1, 1])[0]
        code = self.dice.choices(["111111", "000000"], [9, 1])[0]
        payload = json.dumps({} if outcome is None else {"outcome": outcome})
        for id in pair:
            if what == "verify":
                self.gateway.row("SELECT * FROM otp_verify(%s::uuid, %s, %s::jsonb)", (id, code, payload))
            else:
                self.gateway.row("SELECT * FROM otp_resend(%s, %s::jsonb)", (id, payload))

    def decisions(self, name):
        return self.gateway.execute(
            "SELECT operation::text, reason, outcome = 'blocked' FROM otp_gateway.attempt WHERE provider = %s ORDER BY id",
            (f"with_{name}",),
        )


def test_observe_decides_as_on_does(gateway):
    print(f"OTP_TRAFFIC_SEED={SEED}")
    traffic = Traffic(
        gateway,
        SEED,
        resend_after="200s",
        send_limit="2 per 600 seconds, 9 per 2 hours",
        check_limit="7 per 2400 seconds",
        provider_limit="5 per 800 seconds",
        max_checks="4",
        code_lifetime="600s",
        allowed_prefixes="+94",
    )
    everything = {None, "resend_after", "send_limit", "provider_limit", "check_limit", "max_checks", "allowed_prefixes"}
    for _ in range(20):
        [traffic.step() for _ in range(100)]
        on, observe = traffic.decisions("on"), traffic.decisions("observe")
        # The traffic met every rule, and was let through as well.
        if len(on) > 250 and {reason for _, reason, _ in on} == everything:
            break
    else:
        pytest.fail("the traffic met too little")
    assert [(operation, reason) for operation, reason, _ in observe] == [
        (operation, reason) for operation, reason, _ in on
    ]
    assert all(blocked == (reason is not None) for _, reason, blocked in on)
    assert not any(blocked for *_, blocked in observe)


def faulty(gateway, name, **options):
    gateway.create_provider(name, "ideamart", base_url=f"http://127.0.0.1:{free_port()}/ideamart", **options)


def test_observe_decides_as_on_does_of_the_breaker(gateway):
    """Five faults open it: the sixth is refused, or would have been."""
    for name in ("on", "observe"):
        faulty(gateway, f"with_{name}", enforce=name)
        rows = [gateway.send(f"with_{name}", vendor="ideamart") for _ in range(7)]
        assert [row["reason"] for row in rows] == [None] * 5 + ["breaker"] * 2
        assert {row["outcome"] for row in rows[5:]} == {"blocked" if name == "on" else "unreachable"}


def test_observed_faults_are_not_the_breaker_s(gateway, simulator):
    """What `on` would have refused would not have met the provider's faults either."""
    simulator.fault("status", "ideamart", "send", status=500)
    decisions = {}
    for name in ("on", "observe"):
        gateway.create_provider(f"with_{name}", "ideamart", enforce=name, resend_after="1h")
        to = gateway.number()
        # It may have arrived (`unknown`), so that it counts; then six that are refused, or would have been.
        asked = [to] * 7 + [gateway.number() for _ in range(5)]
        decisions[name] = [gateway.send(f"with_{name}", number, vendor="ideamart")["reason"] for number in asked]
    assert decisions["on"] == [None] + ["resend_after"] * 6 + [None] * 4 + ["breaker"]
    assert decisions["observe"] == decisions["on"]


# a long record


ATTEMPTS = 100_000


def source(path):
    return (pathlib.Path(ROOT) / path).read_text()


def statement(name):
    """The SQL of one of the worker's statements."""
    found = re.search(rf'\n    {name}\([^)]*\)\n      "([^"]*)"', source("src/store/limits.rs"))
    assert found, f"no statement {name}"
    # The policy's rules, which src/store/prepared.rs puts in.
    sent = "'sent', 'unknown'"
    uncompared = "'unreachable', 'rate_limited', 'invalid_request', 'auth_failed', 'provider_error', 'blocked'"
    return found.group(1).replace("{sent}", sent).replace("{uncompared}", uncompared)


@pytest.fixture(scope="module")
def long_record(shared_cluster, simulator_program):
    """A database with a hundred thousand attempts of twenty thousand recipients, all of them in the last hour."""
    with shared_cluster.database() as name, Gateway(shared_cluster, name, simulator_program) as gateway:
        gateway.create_provider(
            "ideamart", send_limit="5 per hour", provider_limit="1000000 per day", check_limit="5 per day"
        )
        # The worker makes its plans now, when there is nothing to plan for.
        assert gateway.send(to="0770000001")["outcome"] == "sent"
        gateway.execute(
            """INSERT INTO otp_gateway_internal.attempt_record
                 (id, verification_id, operation, outcome, started_at, finished_at, provider, provider_id, recipient_key)
               SELECT gen_random_uuid(), gen_random_uuid(), CASE WHEN n %% 5 = 0 THEN 'verify' ELSE 'send' END,
                      CASE WHEN n %% 5 = 0 THEN 'invalid_code' ELSE 'sent' END, now() - n * interval '36 ms', now(),
                      CASE WHEN n %% 10 = 0 THEN 'another' ELSE 'ideamart' END,
                      CASE WHEN n %% 10 <> 0 THEN (SELECT id FROM otp_gateway_internal.identity WHERE kind = 'server') ELSE 1 END,
                      sha256((n %% 20000)::text::bytea)
               FROM generate_series(1, %s) AS n""",
            (ATTEMPTS,),
        )
        yield gateway


QUESTIONS = {
    "select_provider_sends": (
        "int8, timestamptz, int8",
        "{ideamart}, now() - interval '1 day', 20::int8",
        "attempt_provider_idx",
    )
}


@pytest.mark.parametrize("analyzed", [False, True], ids=["as planned at first", "with statistics"])
@pytest.mark.parametrize("name", list(QUESTIONS))
def test_an_index_serves_it(long_record, name, analyzed):
    """The worker's own questions, with the worker's own settings: a few pages are read, not the table."""
    types, arguments, index = QUESTIONS[name]
    [(ideamart,)] = long_record.execute("SELECT id FROM otp_gateway_internal.identity WHERE kind = 'server'")
    arguments = arguments.format(ideamart=ideamart)
    with long_record.cluster.session(long_record.database) as session:

        def run(text):
            return long_record.execute(text, session=session)

        settings = re.findall(r'\(c"(\w+)", c"([^"]*)"\)', source("src/worker/lifecycle.rs"))
        assert ("plan_cache_mode", "force_generic_plan") in settings
        if analyzed:
            run("ANALYZE otp_gateway_internal.attempt_record")
        for setting, value in settings:
            # Some are those of later versions.
            if run(f"SELECT current_setting('{setting}', true)") != [(None,)]:
                run(f"SET {setting} = '{value}'")
        run(f"PREPARE question ({types}) AS {statement(name)}")
        found = run(f"EXECUTE question ({arguments})")
        assert found
        [(plan,)] = run(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE question ({arguments})")
    nodes = list(flattened(plan[0]["Plan"]))
    of_attempt = [node for node in nodes if node.get("Relation Name") == "attempt_record"]
    assert {(node["Node Type"], node["Index Name"]) for node in of_attempt} == {("Index Scan", index)}
    assert not any(node["Node Type"] == "Sort" for node in nodes)
    pages = plan[0]["Plan"]["Shared Hit Blocks"] + plan[0]["Plan"]["Shared Read Blocks"]
    assert pages <= 100, plan


@statistics_at_once
def test_what_is_asked_for_each_call_is_a_look_into_an_index(long_record):
    """Of a recipient with five events within its hour as of a new one: a few pages are read, not the table."""
    gateway = long_record

    def read():
        [(scans, table, index, pages)] = gateway.execute(
            """SELECT t.seq_scan, t.n_tup_ins, i.idx_scan,
                      io.heap_blks_hit + io.heap_blks_read + io.idx_blks_hit + io.idx_blks_read
               FROM pg_stat_all_tables AS t JOIN pg_statio_all_tables AS io USING (relid)
               JOIN pg_stat_all_indexes AS i USING (relid)
               WHERE t.relname = 'attempt_record' AND i.indexrelname = 'attempt_recipient_idx'"""
        )
        return scans, table, index, pages

    def settled(attempts):
        # The worker tells the statistics once a second at most, and when it does something.
        def told():
            gateway.send()
            return read() if read()[1] >= attempts else None

        return until(told, "the worker's statistics")

    scans, before, looks, pages = settled(read()[1] + 1)
    for number in range(20):
        gateway.send(to=f"07700001{number:02d}")
    later_scans, after, later_looks, later_pages = settled(before + 20)
    assert later_scans == scans and later_looks - looks >= 20
    assert (later_pages - pages) / (after - before) <= 60


def flattened(node):
    yield node
    for child in node.get("Plans", []):
        yield from flattened(child)


def test_limits_hold_on_a_long_record(long_record, simulator):
    """With plans from before it was long."""
    gateway, to = long_record, "0770000002"
    assert [gateway.send(to=to)["reason"] for _ in range(6)] == [None] * 5 + ["send_limit"]
    assert simulator.count("ideamart", "send") == 5


def test_a_refusal_costs_the_same_whatever_the_window_holds(long_record, simulator):
    """The limit against pumping is no lever to hold up everybody else: with eighty thousand in the window as with one."""
    gateway = long_record
    gateway.create_provider("small", "ideamart", provider_limit="1 per day")
    gateway.send("small", vendor="ideamart")
    gateway.execute("ALTER SERVER ideamart OPTIONS (SET provider_limit '50000 per day')")
    took = {"small": [], "ideamart": []}
    for number in range(60):
        for name in took:
            began = time.monotonic()
            assert gateway.send(name, vendor="ideamart")["reason"] == "provider_limit"
            took[name].append(time.monotonic() - began)
    # The first ones read the record.
    ours, small = (statistics.median(took[name][10:]) for name in ("ideamart", "small"))
    print(f"{ours * 1000:.2f} ms : {small * 1000:.2f} ms")
    assert ours <= 2 * small + 0.001, (ours, small)
