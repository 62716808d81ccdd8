"""Promise: whoever has codes sent to numbers of their own, to be paid for each message, gets few of them: a range of numbers
whose codes nobody types in is held back, but for single probes, until they are typed in. Nobody else notices: other ranges,
people who have typed a code in before, checks of codes, other providers. A vendor that delivers nothing is not taken for it.
It can be seen, watched without being enforced, and undone; a restart changes nothing; and of no person anything is kept."""

import datetime
import json
import secrets
import time

import psycopg2
import pytest

from canaries import RUN
from cluster import standby_of
from conftest import Gateway, Running, until
from test_health import becomes, health, level
from test_misuse import role as role
from test_retention import acting_as

# In what follows, of ideamart: people's, and others'.
HOME, PUMPED = "+94701", "+94775"
HELD = ("blocked", "min_conversion")
SENT = ("sent", None)


@pytest.fixture
def gateway(quick_gateway):
    gateway = quick_gateway
    stop(gateway)
    gateway.execute("DELETE FROM otp_gateway_internal.number_range; DELETE FROM otp_gateway_internal.low_conversion")
    gateway.execute("ALTER SERVER ideamart OPTIONS (ADD min_conversion '10%')")
    yield gateway
    gateway.drain()


def number(prefix):
    """A recipient in the range, as the vendor writes numbers."""
    national = prefix.removeprefix("+94")
    while True:
        # Low ones are what tests count up that keep their numbers in tables of their own.
        drawn = f"{national}{200_000 + secrets.randbelow(800_000)}"
        if drawn not in RUN.numbers and not drawn.endswith("0000"):
            return "0" + RUN.digits(drawn)


def said(row):
    return row["outcome"], row["reason"]


def send(gateway, prefix, provider="ideamart", to=None, **payload):
    return gateway.send(provider, to or number(prefix), vendor="ideamart", **payload)


def type_in(gateway, prefix, provider="ideamart", to=None):
    """A code that is sent, and typed in."""
    to = to or number(prefix)
    row = send(gateway, prefix, provider, to)
    assert row["outcome"] == "sent", row
    assert gateway.verify(row["verification_id"], gateway.simulator.code("ideamart", to))["outcome"] == "approved"
    return to


def pids(gateway):
    return gateway.execute(
        "SELECT pid FROM pg_stat_activity WHERE backend_type = 'otp_gateway worker' AND datname = current_database()"
    )


def stop(gateway):
    """The worker leaves, and puts down what it has counted."""
    for (pid,) in pids(gateway):
        gateway.execute("SELECT pg_terminate_backend(%s)", (pid,))
        until(lambda pid=pid: (pid,) not in pids(gateway), "the worker is gone")


def age(gateway, prefixes):
    """What was counted was counted so long ago: the worker reads it when it comes."""
    stop(gateway)
    for prefix, interval in prefixes.items():
        gateway.execute(
            "UPDATE otp_gateway_internal.number_range SET counted_at = counted_at - %s::interval WHERE range = %s",
            (interval, prefix),
        )


def pump(gateway, count=55, prefix=PUMPED, provider="ideamart"):
    numbers = [number(prefix) for _ in range(count)]
    RUN.sample(numbers, 3)
    assert {said(send(gateway, prefix, provider, to)) for to in numbers} == {("sent", None)}


def shown(gateway, prefix=PUMPED, provider="ideamart", session=None):
    rows = gateway.execute(
        "SELECT sends, converted, tripped_at IS NOT NULL, enforced, blocked, passed FROM otp_gateway.ranges"
        " WHERE provider = %s AND range = %s",
        (provider, prefix + "******"),
        session,
    )
    return rows[0] if rows else None


def attacked(gateway, provider="ideamart"):
    """People have typed codes in for hours; then others have codes sent that nobody types in."""
    for _ in range(10):
        type_in(gateway, HOME, provider)
    pump(gateway, provider=provider)
    age(gateway, {HOME: "2 hours", PUMPED: "15 minutes"})


def held(gateway, provider="ideamart", prefix=PUMPED):
    """The first send that finds it so."""
    row = send(gateway, prefix, provider)
    assert said(row) == HELD, row
    return row


def test_it_is_stopped(gateway, simulator):
    attacked(gateway)
    before = simulator.count("ideamart", "send")
    row = held(gateway)
    assert (row["status"], row["retryable"]) == ("blocked", True)
    assert datetime.timedelta(hours=11) < row["retry_after"] <= datetime.timedelta(hours=12)
    assert "min_conversion" in row["vendor_message"] and "nothing was sent" in row["vendor_message"]
    assert {said(send(gateway, PUMPED)) for _ in range(18)} == {HELD}
    assert simulator.count("ideamart", "send") == before
    # One in twenty goes.
    assert [said(send(gateway, PUMPED)) for _ in range(2)] == [SENT, HELD]
    assert simulator.count("ideamart", "send") == before + 1
    # Everybody else's go, and what was refused counts for nobody.
    assert said(send(gateway, HOME)) == said(send(gateway, "+94716")) == SENT
    until(lambda: shown(gateway) == (56, 0, True, True, 20, 1), "it can be seen")
    assert shown(gateway, HOME) == (11, 10, False, None, None, None) and shown(gateway, "+94716") is None
    row = gateway.row("SELECT outcome, reason, http_status FROM otp_gateway.attempt ORDER BY id DESC OFFSET 2 LIMIT 1")
    assert row == {"outcome": "blocked", "reason": "min_conversion", "http_status": None}
    log = gateway.cluster.log()
    assert 'provider "ideamart": of 55 codes to +94775****** 0 were typed in: sends to that range are held back' in log


def test_it_opens_when_codes_are_typed_in(gateway):
    attacked(gateway)
    assert level(gateway, "pumping") == 0
    held(gateway)
    row = becomes(gateway, "pumping", 1)
    assert "ideamart: sends to +94775****** (0 of 55 typed in) are held back" in row["detail"] and row["value"] == 1
    typed = 0
    while typed < 5:
        to = number(PUMPED)
        row = send(gateway, PUMPED, to=to)
        if row["outcome"] == "sent":
            assert (
                gateway.verify(row["verification_id"], gateway.simulator.code("ideamart", to))["outcome"] == "approved"
            )
            typed += 1
    # Five of five: whoever asks next is one of many again.
    assert [said(send(gateway, PUMPED)) for _ in range(3)] == [SENT] * 3
    becomes(gateway, "pumping", 0)
    assert shown(gateway) is None
    assert 'provider "ideamart": sends to +94775****** go as before' in gateway.cluster.log()


def test_people_who_are_known_go(gateway, simulator):
    to, other = type_in(gateway, PUMPED), number(PUMPED)
    opened = send(gateway, PUMPED, to=other)["verification_id"]
    attacked(gateway)
    held(gateway)
    assert said(send(gateway, PUMPED, to=to)) == SENT
    # What is open goes on.
    assert gateway.row("SELECT * FROM otp_resend(%s)", (opened,))["outcome"] == "sent"
    assert gateway.verify(opened, simulator.code("ideamart", other))["outcome"] == "approved"
    assert said(send(gateway, PUMPED, to=other)) == SENT
    # Their codes are no probes: they do not open it for others.
    for _ in range(6):
        type_in(gateway, PUMPED, to=to)
    assert said(send(gateway, PUMPED)) == HELD
    # Who is forgotten is nobody who is known.
    gateway.execute("SELECT otp_gateway.forget('ideamart', %s)", (to,))
    assert said(send(gateway, PUMPED, to=to)) == HELD


def test_a_test_number_is_nobody(gateway):
    gateway.execute("ALTER SERVER ideamart OPTIONS (ADD test_numbers '+94775000001=4711')")
    attacked(gateway)
    held(gateway)
    before = shown(gateway)
    assert said(send(gateway, PUMPED, to="0775000001")) == SENT
    assert shown(gateway)[:2] == before[:2]


REGULAR = [f"+9471{digit}" for digit in range(8)]


def test_a_vendor_that_delivers_nothing_is_not_pumping(gateway):
    """The vendor says that it has sent them, and nobody has a code to type in."""
    # What a restart keeps it keeps by the hours of the clock: all of it is to be of one.
    until(lambda: time.time() % 3600 < 3570, "the hour is not about to end", 40)
    for prefix in REGULAR:
        for _ in range(10):
            type_in(gateway, prefix)
    age(gateway, dict.fromkeys(REGULAR, "2 hours"))
    for prefix in REGULAR:
        pump(gateway, 10, prefix)
    pump(gateway)
    pump(gateway, 55, REGULAR[0])
    age(gateway, dict.fromkeys([PUMPED, *REGULAR], "15 minutes"))
    assert [said(send(gateway, prefix)) for prefix in (PUMPED, *REGULAR)] == [SENT] * 9
    row = becomes(gateway, "conversion", 1)
    assert "ideamart: 0 of the 190 codes of the last hour were typed in, and 100% of those before" in row["detail"]
    assert (row["value"], level(gateway, "pumping")) == (0, 0) and row["since"] is not None
    # It delivers again.
    age(gateway, dict.fromkeys([PUMPED, *REGULAR], "70 minutes"))
    assert level(gateway, "conversion") == 1
    for _ in range(10):
        type_in(gateway, "+94719")
    age(gateway, {"+94719": "15 minutes"})
    assert said(send(gateway, HOME)) == SENT
    becomes(gateway, "conversion", 0)


def test_where_nobody_types_a_code_in(gateway):
    """Codes are checked elsewhere: nothing is held back, and nothing is wrong."""
    pump(gateway)
    pump(gateway, 20, HOME)
    age(gateway, {HOME: "2 hours", PUMPED: "15 minutes"})
    assert [said(send(gateway, PUMPED)) for _ in range(3)] == [SENT] * 3
    assert level(gateway, "conversion") == level(gateway, "pumping") == 0


def release(gateway, prefix=PUMPED, provider="ideamart", session=None):
    return gateway.execute("SELECT otp_gateway.release(%s, %s)", (provider, prefix), session)[0][0]


def test_release(gateway, role):
    attacked(gateway)
    held(gateway)
    name, session = role
    gateway.execute(f"GRANT USAGE ON FOREIGN SERVER ideamart TO {name}")
    for provider, prefix, code in [
        ("ideamart", PUMPED, "42501"),
        ("nobody", PUMPED, "42704"),
        ("ideamart", "94775", "42501"),
    ]:
        with pytest.raises(psycopg2.Error) as error:
            release(gateway, prefix, provider, session)
        assert error.value.pgcode == code
    for prefix in ("94775", "", "+", "+94 77", "+9477512345", "+94775a"):
        with pytest.raises(psycopg2.Error) as error:
            release(gateway, prefix)
        assert error.value.pgcode == "22023" and "range is none" in str(error.value)
    assert said(send(gateway, PUMPED)) == HELD
    assert release(gateway, HOME) is False
    gateway.execute(
        f"GRANT USAGE ON FOREIGN DATA WRAPPER otp_ideamart TO {name}; ALTER SERVER ideamart OWNER TO {name}"
    )
    # No rollback takes it back.
    gateway.execute("BEGIN", session=session)
    assert release(gateway, PUMPED + "******", session=session) is True
    gateway.execute("ROLLBACK", session=session)
    gateway.execute("ALTER SERVER ideamart OWNER TO postgres")
    assert said(send(gateway, PUMPED)) == SENT
    assert release(gateway) is False
    stop(gateway)
    assert said(send(gateway, PUMPED)) == SENT
    assert level(gateway, "pumping") == 0
    # Whoever goes on is stopped anew.
    pump(gateway, 50)
    age(gateway, {PUMPED: "15 minutes"})
    held(gateway)


def test_a_route_is_released_by_its_providers(gateway):
    gateway.execute("CREATE SERVER either FOREIGN DATA WRAPPER otp_route OPTIONS (providers 'ideamart')")
    with pytest.raises(psycopg2.Error, match="this is a route") as error:
        release(gateway, provider="either")
    assert error.value.pgcode == "22023"


def test_a_restart_keeps_it(gateway):
    attacked(gateway)
    held(gateway)
    until(lambda: shown(gateway) == (55, 0, True, True, 1, 0), "it is on record at once")
    assert said(send(gateway, PUMPED)) == HELD
    stop(gateway)
    assert shown(gateway) == (55, 0, True, True, 2, 0)
    assert said(send(gateway, PUMPED)) == HELD
    # A code that the worker before has sent is typed in now.
    to = number(HOME)
    row = send(gateway, HOME, to=to)
    stop(gateway)
    assert shown(gateway, HOME)[:2] == (11, 10)
    assert gateway.verify(row["verification_id"], gateway.simulator.code("ideamart", to))["outcome"] == "approved"
    stop(gateway)
    assert shown(gateway, HOME)[:2] == (11, 11)


def test_its_time_is_over(gateway):
    attacked(gateway)
    held(gateway)
    stop(gateway)
    gateway.execute(
        "UPDATE otp_gateway_internal.low_conversion SET since = since - interval '12 hours', until = until - interval '12 hours'"
    )
    assert shown(gateway)[2] is False and level(gateway, "pumping") == 0


@pytest.fixture
def own(own_cluster, simulator):
    with Gateway(own_cluster, "postgres", simulator) as gateway:
        gateway.execute("CREATE EXTENSION otp_gateway")
        gateway.create_provider("ideamart", min_conversion="10%")
        yield gateway


def test_a_crash_and_a_promotion_keep_it(own, own_cluster, simulator):
    attacked(own)
    held(own)
    until(lambda: shown(own) == (55, 0, True, True, 1, 0), "it is on record")
    # As a breaker, it is not flushed by itself.
    own.execute("SELECT pg_switch_wal()")
    own.session.close()
    own_cluster.restart("immediate")
    own.session = own.connect()
    assert shown(own)[:4] == (55, 0, True, True)
    assert said(send(own, PUMPED)) == HELD
    own.execute("SELECT pg_switch_wal()")
    with standby_of(own_cluster) as standby:
        own.session.close()
        own_cluster.stop("immediate")
        with Gateway(standby, "postgres", simulator) as there:
            # It can be seen there, too.
            assert shown(there)[:4] == (55, 0, True, True) and level(there, "pumping") == 1
            standby.run("pg_ctl", "-D", standby.data, "-w", "promote")
            assert said(send(there, PUMPED)) == HELD
            assert said(send(there, HOME)) == SENT


def test_observed(gateway, simulator):
    gateway.execute("ALTER SERVER ideamart OPTIONS (ADD enforce 'observe')")
    attacked(gateway)
    before = simulator.count("ideamart", "send")
    rows = [said(send(gateway, PUMPED)) for _ in range(21)]
    # What it would do is noted, and all go; one in twenty would have gone.
    assert rows == [("sent", "min_conversion")] * 19 + [SENT] + [("sent", "min_conversion")]
    assert simulator.count("ideamart", "send") == before + 21
    stop(gateway)
    assert shown(gateway) == (56, 0, True, False, 20, 1)
    assert "would be held back" in health(gateway)["pumping"]["detail"]
    gateway.execute("ALTER SERVER ideamart OPTIONS (SET enforce 'on')")
    assert said(send(gateway, PUMPED)) == HELD


def test_without_the_option(gateway, simulator):
    """Nothing is held back, and all limits count as ever; it is seen what it would do."""
    gateway.execute("ALTER SERVER ideamart OPTIONS (DROP min_conversion, ADD send_limit '2 per day')")
    attacked(gateway)
    to = number(PUMPED)
    assert [said(send(gateway, PUMPED, to=to)) for _ in range(3)] == [SENT, SENT, ("blocked", "send_limit")]
    # What min_conversion would not have sent tells it nothing, whatever becomes of it.
    type_in(gateway, PUMPED)
    stop(gateway)
    assert shown(gateway) == (55, 0, True, False, 3, 0)
    row = health(gateway)["pumping"]
    assert row["level"] == 1 and "would be held back, and go" in row["detail"] and "min_conversion" in row["hint"]
    gateway.execute("ALTER SERVER ideamart OPTIONS (ADD min_conversion '10%')")
    assert said(send(gateway, PUMPED)) == HELD
    stop(gateway)
    assert shown(gateway)[3] is True


def test_two_providers_of_a_route(gateway, simulator):
    """Each knows its own sends; what one holds back does not go through the other."""
    gateway.create_provider("second", "ideamart", min_conversion="10%")
    gateway.execute("CREATE SERVER either FOREIGN DATA WRAPPER otp_route OPTIONS (providers 'ideamart, second')")
    attacked(gateway, "either")
    before = simulator.count("ideamart", "send")
    row = send(gateway, PUMPED, "either")
    assert said(row) == HELD
    assert gateway.execute(
        "SELECT provider, outcome, reason FROM otp_gateway.attempt WHERE verification_id = %s",
        (row["verification_id"],),
    ) == [("ideamart", *HELD)]
    assert simulator.count("ideamart", "send") == before
    # That one has sent nothing to them yet.
    assert said(send(gateway, PUMPED, "second")) == SENT
    assert said(send(gateway, PUMPED, "ideamart")) == HELD
    assert shown(gateway, PUMPED, "second") is None


def test_a_queued_send(gateway, simulator):
    attacked(gateway)
    held(gateway)
    before = simulator.count("ideamart", "send")
    queued = gateway.enqueue("ideamart", number(PUMPED))["verification_id"]
    row = gateway.wait(queued)
    assert (said(row), row["status"], row["retryable"]) == (HELD, "blocked", True)
    assert gateway.wait(gateway.enqueue("ideamart", number(HOME))["verification_id"])["outcome"] == "sent"
    assert simulator.count("ideamart", "send") == before + 1


def test_many_at_once(gateway, simulator):
    """One statement, one transaction of the worker's: each is asked, and one in twenty goes."""
    attacked(gateway)
    before = simulator.count("ideamart", "send")
    numbers = [number(PUMPED) for _ in range(100)]
    RUN.sample(numbers, 3)
    bodies = [json.dumps({"mobile": to}) for to in numbers]
    ids = [
        id
        for (id,) in gateway.execute(
            "SELECT verification_id FROM unnest(%s::text[]) AS t (body), otp_enqueue('ideamart', body::jsonb)",
            (bodies,),
        )
    ]
    rows = [said(gateway.wait(id)) for id in ids]
    assert (rows.count(HELD), rows.count(SENT)) == (95, 5)
    assert simulator.count("ideamart", "send") == before + 5


def test_who_sees_it(gateway, role):
    attacked(gateway)
    held(gateway)
    until(lambda: shown(gateway), "it is on record")
    name, session = role
    gateway.execute(f"GRANT USAGE ON FOREIGN SERVER ideamart TO {name}")
    assert gateway.execute("SELECT * FROM otp_gateway.ranges", session=session) == []
    row = health(gateway, session)["pumping"]
    assert row["level"] == 1 and "pg_monitor" in row["detail"] and row["value"] is None and row["since"] is None
    with acting_as(gateway, "monitoring", "GRANT pg_monitor TO monitoring") as monitoring:
        assert shown(gateway, session=monitoring)
        assert "+94775******" in health(gateway, monitoring)["pumping"]["detail"]
        for table in ("number_range", "low_conversion"):
            with pytest.raises(psycopg2.errors.InsufficientPrivilege):
                gateway.execute(f"SELECT * FROM otp_gateway_internal.{table}", session=monitoring)
    gateway.execute(
        f"GRANT USAGE ON FOREIGN DATA WRAPPER otp_ideamart TO {name}; ALTER SERVER ideamart OWNER TO {name}"
    )
    assert shown(gateway, session=session)
    gateway.execute("ALTER SERVER ideamart OWNER TO postgres")
    # A renamed provider is the same.
    gateway.execute("ALTER SERVER ideamart RENAME TO dialog")
    until(lambda: shown(gateway, provider="dialog"), "under its new name")
    gateway.execute("ALTER SERVER dialog RENAME TO ideamart")


def test_nothing_is_left_of_a_person(gateway):
    """How numbers begin, hour by hour, and a day later not even that."""
    to = type_in(gateway, HOME)
    stop(gateway)
    [row] = gateway.execute("SELECT range, sends, converted FROM otp_gateway_internal.number_range")
    assert row == (HOME, [1], [1])
    # So few are not shown: with the masked number they would say more than it does.
    assert shown(gateway, HOME) is None
    gateway.execute("SELECT otp_gateway.forget('ideamart', %s)", (to,))
    stop(gateway)
    gateway.execute("UPDATE otp_gateway_internal.number_range SET counted_at = counted_at - interval '25 hours'")
    type_in(gateway, "+94716")
    stop(gateway)
    assert gateway.execute("SELECT range FROM otp_gateway_internal.number_range") == [("+94716",)]


def test_a_lock_holds_up_nobody(gateway):
    attacked(gateway)
    with gateway.cluster.session(gateway.database, autocommit=False) as locker:
        gateway.execute("LOCK otp_gateway_internal.number_range, otp_gateway_internal.low_conversion", None, locker)
        found = health(gateway)
        assert (found["conversion"]["level"], found["pumping"]["level"]) == (3, 3)
        began = time.monotonic()
        locker.rollback()
        held(gateway)
        gateway.execute("LOCK otp_gateway_internal.number_range, otp_gateway_internal.low_conversion", None, locker)
        assert said(send(gateway, HOME)) == SENT and said(send(gateway, PUMPED)) == HELD
        assert time.monotonic() - began < 5
        locker.rollback()
    becomes(gateway, "pumping", 1)


def test_emptied_tables_begin_anew(gateway):
    """Whoever deletes the counts by hand has them begin anew with the next worker."""
    attacked(gateway)
    held(gateway)
    stop(gateway)
    gateway.execute("DELETE FROM otp_gateway_internal.number_range; DELETE FROM otp_gateway_internal.low_conversion")
    assert said(send(gateway, PUMPED)) == SENT


def test_the_sandbox_knows_nobody(gateway):
    """Its code is known to everybody: whoever typed it in is not known at other providers for it."""
    gateway.execute("CREATE SERVER box FOREIGN DATA WRAPPER otp_sandbox")
    to = number(PUMPED)
    row = gateway.row("SELECT * FROM otp_send('box', %s::jsonb)", (json.dumps({"mobile": to}),))
    assert gateway.verify(row["verification_id"], "000000")["outcome"] == "approved"
    attacked(gateway)
    held(gateway)
    assert said(send(gateway, PUMPED, to=to)) == HELD


def test_a_send_waits_for_no_count(gateway):
    """A session of the application's that has a count locked."""
    attacked(gateway)
    held(gateway)
    until(lambda: shown(gateway), "it is on record")
    with gateway.cluster.session(gateway.database, autocommit=False) as locker:
        gateway.execute("SELECT FROM otp_gateway_internal.low_conversion FOR UPDATE", None, locker)
        gateway.execute("SELECT FROM otp_gateway_internal.number_range FOR UPDATE", None, locker)
        calls = [
            Running(
                gateway.connect(),
                "SELECT outcome FROM otp_send('ideamart', %s)",
                (json.dumps({"mobile": number(HOME)}),),
            )
            for _ in range(3)
        ]
        assert [call.row(5)["outcome"] for call in calls] == ["sent"] * 3
        locker.rollback()
