"""Promise: a number is proven by the code that went to it, and by no other. `otp_gateway.is_approved` says so of one
verification and one number, as the record is at that moment, whatever the caller's isolation level and whatever was rolled
back; and the documented function that is built on it makes a row active only while it has the verification and the number
that were checked, whoever changes it meanwhile, and locks nobody out whose transaction failed."""

import contextlib
import json

import psycopg2
import psycopg2.extensions
import pytest

from canaries import RUN
from conftest import FLOWS, Running, until
from test_documented_functions import DOCUMENTED, bank
from vendors import TABLE, VENDORS, spelled

LEVELS = {
    "read committed": psycopg2.extensions.ISOLATION_LEVEL_READ_COMMITTED,
    "repeatable read": psycopg2.extensions.ISOLATION_LEVEL_REPEATABLE_READ,
    "serializable": psycopg2.extensions.ISOLATION_LEVEL_SERIALIZABLE,
}
levels = pytest.mark.parametrize("level", LEVELS.values(), ids=list(LEVELS))


def approved(gateway, id, mobile, within=None, session=None):
    arguments = (id, mobile) if within is None else (id, mobile, within)
    statement = f"SELECT otp_gateway.is_approved(%s, %s{', %s::interval' if within else ''})"
    return gateway.execute(statement, arguments, session)[0][0]


def approve(gateway, to=None, vendor="ideamart", session=None, **payload):
    """A verification whose code was right."""
    to = to or gateway.number(vendor)
    id = gateway.send(vendor, to, session=session)["verification_id"]
    assert gateway.verify(id, gateway.simulator.code(vendor, to), session, **payload)["outcome"] == "approved"
    return id, to


# the function


@pytest.mark.parametrize("vendor", VENDORS)
def test_this_number_in_any_spelling(quick_gateway, vendor):
    gateway = quick_gateway
    id, to = approve(gateway, vendor=vendor, **TABLE[vendor].verify)
    assert [spelling for spelling in spelled(vendor, to) if not approved(gateway, id, spelling)] == []
    other = gateway.number(vendor)
    # Another number, no number at all, and somebody else's.
    for mobile in (other, "", "x", "\u0660", None, f"{to}0", to[:-1]):
        assert approved(gateway, id, mobile) is False
    assert approved(gateway, approve(gateway, other, vendor, **TABLE[vendor].verify)[0], to) is False


def test_only_what_was_approved(quick_gateway, simulator):
    gateway = quick_gateway
    to = gateway.number()
    id = gateway.send(to=to)["verification_id"]
    assert approved(gateway, id, to) is False
    gateway.verify(id, simulator.wrong("ideamart", to))
    assert approved(gateway, id, to) is False
    queued = gateway.enqueue("ideamart", gateway.number())["verification_id"]
    assert approved(gateway, queued, to) is False
    for id in (None, "00000000-0000-0000-0000-000000000000", "01980000-0000-7000-8000-000000000000"):
        assert approved(gateway, id, to) is False
        assert approved(gateway, id, None) is False


def test_not_longer_ago_than_that(quick_gateway):
    gateway = quick_gateway
    id, to = approve(gateway)
    moved = "UPDATE otp_gateway_internal.verification_record SET approved_at = clock_timestamp() - %s::interval WHERE id = %s"
    gateway.execute(moved, ("9 minutes 50 seconds", id))
    assert (approved(gateway, id, to), approved(gateway, id, to, "1 minute")) == (True, False)
    gateway.execute(moved, ("10 minutes 1 second", id))
    assert (
        approved(gateway, id, to),
        approved(gateway, id, to, "11 minutes"),
        approved(gateway, id, to, "1 year"),
    ) == (False, True, True)
    # The clock was set back: by a little, and by a lot.
    gateway.execute(moved, ("-30 seconds", id))
    assert approved(gateway, id, to) is True
    gateway.execute(moved, ("-1 hour", id))
    assert approved(gateway, id, to, "1 year") is False
    for within in ("-1 second", None):
        with pytest.raises(psycopg2.errors.InvalidParameterValue) as error:
            gateway.execute("SELECT otp_gateway.is_approved(%s, %s, %s)", (id, to, within))
        assert "within" in error.value.diag.message_primary and to not in str(error.value)


def test_it_is_the_caller_s_own(quick_gateway, simulator):
    """Who may not have a code checked for a verification learns nothing of it."""
    gateway = quick_gateway
    names = [f"{gateway.database}_{who}" for who in ("one", "two", "owner")]
    one, two, owner = names
    gateway.execute(f"CREATE ROLE {one} LOGIN; CREATE ROLE {two} LOGIN; CREATE ROLE {owner} LOGIN IN ROLE {one}")
    gateway.execute(f"GRANT USAGE ON FOREIGN SERVER ideamart TO {one}")
    try:
        with contextlib.ExitStack() as stack:
            sessions = {
                name: stack.enter_context(gateway.cluster.session(gateway.database, user=name)) for name in names
            }
            id, to = approve(gateway, session=sessions[one])
            assert [approved(gateway, id, to, session=sessions[name]) for name in names] == [True, False, True]
            # The provider need not be the caller's, nor be there any more.
            gateway.execute("DROP SERVER ideamart CASCADE")
            assert approved(gateway, id, to, session=sessions[one]) is True
    finally:
        gateway.execute(f"DROP OWNED BY {', '.join(names)}; DROP ROLE {', '.join(names)}")


def test_after_a_new_key_and_after_forget(gateway):
    id, to = approve(gateway)
    gateway.execute("SELECT otp_gateway.rotate_key()")
    assert approved(gateway, id, to) is True
    gateway.execute("SELECT otp_gateway.forget('ideamart', %s)", (to,))
    assert approved(gateway, id, to) is False


def test_a_flow_begun_elsewhere_proves_no_number(quick_gateway, simulator):
    """Its payload may name any number: nobody here knows to whom the reference's code went."""
    gateway = quick_gateway
    own, victim = gateway.number(), gateway.number()
    reference = gateway.send(to=own)["reference"]
    code = simulator.code("ideamart", own)
    gateway.execute(
        "TRUNCATE otp_gateway_internal.attempt_record, otp_gateway_internal.verification_record, otp_gateway_internal.reference"
    )
    # As the simulator's page has it, or refused: then there is nothing to claim.
    with contextlib.suppress(psycopg2.errors.InvalidParameterValue):
        gateway.verify_at("ideamart", code, reference=reference, mobile=victim)
    if gateway.execute("SELECT count(*)::int FROM otp_gateway.verification") == [(0,)]:
        assert gateway.verify_at("ideamart", code, reference=reference)["outcome"] == "approved"
    for (id,) in gateway.execute("SELECT id FROM otp_gateway.verification"):
        assert (approved(gateway, id, victim), approved(gateway, id, own)) == (False, False)
    # Where the vendor knows it by the number, the verification is no proof that a code went there from here, either.
    to = gateway.number("hyperverge")
    gateway.send("hyperverge", to)
    code = simulator.code("hyperverge", to)
    gateway.execute(
        "TRUNCATE otp_gateway_internal.attempt_record, otp_gateway_internal.verification_record, otp_gateway_internal.reference"
    )
    found = gateway.verify_at("hyperverge", simulator.wrong("hyperverge", to), mobile=to)
    id = found["verification_id"]
    # Not even once a code was to be sent again from here, and could not be: the one that is checked is still another's.
    simulator.fault("status", "hyperverge", "resend", status=500, times=1)
    gateway.row("SELECT * FROM otp_resend(%s)", (id,))
    assert gateway.verification(id)["send_count"] > 0
    assert (gateway.verify(id, code)["outcome"], approved(gateway, id, to)) == ("approved", False)


def test_by_a_route(quick_gateway, simulator):
    """Whichever of its providers sent the code."""
    gateway = quick_gateway
    gateway.create_provider("down", "hyperverge", base_url="http://127.0.0.1:9", defaults='{"template_id": "t"}')
    gateway.create_provider("up", "iserveu", defaults='{"username": "agent1", "otp_type": "1"}')
    gateway.execute("CREATE SERVER either FOREIGN DATA WRAPPER otp_route OPTIONS (providers 'down, up')")
    to = gateway.number("iserveu")
    payload = json.dumps(
        {name: value for name, value in FLOWS["iserveu"]["send"](to).items() if name not in ("username", "otp_type")}
    )
    for statement in ("SELECT * FROM otp_send('either', %s)", "SELECT * FROM otp_enqueue('either', %s)"):
        id = gateway.row(statement, (payload,))["verification_id"]
        assert gateway.wait(id)["outcome"] == "sent"
        code = simulator.code("iserveu", to)
        assert gateway.verify(id, code, **FLOWS["iserveu"]["verify"])["outcome"] == "approved"
        assert (approved(gateway, id, f"+91 {to}"), approved(gateway, id, gateway.number("iserveu"))) == (True, False)
        simulator.reset()


@levels
def test_it_sees_what_the_worker_has_recorded(quick_gateway, simulator, level):
    """Since the snapshot was taken, by this session and by another one; in a read-only transaction, too."""
    gateway = quick_gateway
    to, other = gateway.number(), gateway.number()
    id, second = gateway.send(to=to)["verification_id"], gateway.send(to=other)["verification_id"]
    with gateway.cluster.session(gateway.database, autocommit=False) as session:
        session.set_session(isolation_level=level)
        assert approved(gateway, id, to, session=session) is False
        assert gateway.verify(id, simulator.code("ideamart", to), session)["outcome"] == "approved"
        assert approved(gateway, id, to, session=session) is True
        assert gateway.verify(second, simulator.code("ideamart", other))["outcome"] == "approved"
        assert approved(gateway, second, other, session=session) is True
        session.rollback()
        assert approved(gateway, id, to, session=session) is True
        session.rollback()
        session.set_session(readonly=True)
        assert approved(gateway, id, to, session=session) is True


def test_it_is_asked_anew_for_each_row(quick_gateway, simulator):
    """What is approved while a statement runs counts from then on: nothing is folded or remembered."""
    gateway = quick_gateway
    to = gateway.number()
    id = gateway.send(to=to)["verification_id"]
    assert gateway.execute(
        """
        SELECT otp_gateway.is_approved(%s, %s), (SELECT outcome FROM otp_verify(%s::uuid, %s)), otp_gateway.is_approved(%s, %s)
    """,
        (id, to, id, simulator.code("ideamart", to), id, to),
    ) == [(False, "approved", True)]


def test_in_a_parallel_query(quick_gateway):
    """It is not for workers, and a function that says otherwise is told so."""
    gateway = quick_gateway
    gateway.execute("""
        CREATE OR REPLACE FUNCTION says_it_is_safe(a uuid) RETURNS boolean LANGUAGE plpgsql PARALLEL SAFE AS
            $$ BEGIN RETURN otp_gateway.is_approved(a, '1'); END $$;
        CREATE TABLE many AS SELECT gen_random_uuid() AS a FROM generate_series(1, 20000); ANALYZE many
    """)
    try:
        with gateway.cluster.session(gateway.database) as session:
            gateway.execute(
                "SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0",
                session=session,
            )
            assert "Gather" in str(
                gateway.execute("EXPLAIN SELECT * FROM many WHERE says_it_is_safe(a)", session=session)
            )
            assert "Gather" not in str(
                gateway.execute("EXPLAIN SELECT * FROM many WHERE otp_gateway.is_approved(a, '1')", session=session)
            )
            with pytest.raises(psycopg2.errors.InvalidTransactionState):
                gateway.execute("SELECT * FROM many WHERE says_it_is_safe(a)", session=session)
    finally:
        gateway.execute("DROP TABLE many; DROP FUNCTION says_it_is_safe")


# the documented function


WHERE = [where for where in DOCUMENTED if where.endswith(" public.verify_customer")]


@pytest.fixture(params=WHERE)
def registry(request, cluster, simulator):
    """The table and the function as the documents have them; one customer, whose code has arrived."""
    with bank(cluster, simulator, DOCUMENTED[request.param]) as bank_:
        bank_.phone, bank_.id = bank_.execute(
            "SELECT phone, verification_id FROM public.customer WHERE id = %s", (bank_.victim,)
        )[0]
        bank_.code = simulator.code("ideamart", bank_.phone)
        bank_.other = bank_.gateway.number()
        yield bank_


VERIFY = "SELECT outcome FROM public.verify_customer(%s, %s)"
CHANGE = "UPDATE public.customer SET phone = %s WHERE id = %s"


@contextlib.contextmanager
def app(registry, level):
    """Another session of the application."""
    with registry.gateway.cluster.session(registry.gateway.database, user=registry.app, autocommit=False) as session:
        session.set_session(isolation_level=level)
        yield session


def row(registry):
    """The number, the one that is on record as verified, and whether the customer is verified: they are the same."""
    return registry.execute(
        "SELECT c.phone, p.phone, p.phone IS NOT DISTINCT FROM c.phone FROM public.customer AS c"
        " LEFT JOIN public.verified_phone AS p ON p.customer_id = c.id WHERE c.id = %s",
        (registry.victim,),
    )[0]


def waits(registry, session):
    pid = session.info.backend_pid
    until(
        lambda: registry.execute("SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND pid = %s", (pid,)),
        "it waits for the row",
    )


def never_with_another_number(registry):
    """Whatever came of it: verified only with the number whose code was checked."""
    phone, verified, is_verified = row(registry)
    assert verified in (None, registry.phone)
    assert not is_verified or phone == registry.phone


@levels
def test_the_number_changes_while_the_vendor_answers(registry, simulator, level):
    """One's own number, one's own code, and "change my number to the victim's" while the vendor is slow."""
    simulator.fault("hold", "ideamart", "verify", times=1)
    with app(registry, level) as session:
        running = Running(session, VERIFY, (registry.victim, registry.code))
        simulator.held(1)
        registry.as_app(CHANGE, (registry.other, registry.victim))
        simulator.release()
        if level == LEVELS["read committed"]:
            assert running.row()["outcome"] == "superseded"
            session.commit()
        else:
            assert isinstance(running.wait().error, psycopg2.errors.SerializationFailure)
            session.rollback()
    assert row(registry) == (registry.other, None, False)
    # The row's own code makes it active.
    assert registry.as_app(VERIFY, (registry.victim, simulator.code("ideamart", registry.other))) == [("approved",)]
    assert row(registry) == (registry.other, registry.other, True)


@pytest.mark.parametrize("end", ["commit", "rollback"])
@levels
def test_the_number_is_being_changed_in_another_session(registry, simulator, level, end):
    """The verify waits for the row's lock, and goes by what the row is then."""
    with app(registry, LEVELS["read committed"]) as changing, app(registry, level) as session:
        registry.execute(CHANGE, (registry.other, registry.victim), changing)
        running = Running(session, VERIFY, (registry.victim, registry.code))
        waits(registry, session)
        getattr(changing, end)()
        running.wait()
        if end == "rollback":
            assert running.row()["outcome"] == "approved"
            session.commit()
            return
        if level == LEVELS["read committed"]:
            assert running.row()["outcome"] == "superseded"
        else:
            assert isinstance(running.error, psycopg2.errors.SerializationFailure)
        session.rollback()
    assert row(registry) == (registry.other, None, False)


@levels
def test_the_number_changes_after_the_row_is_active(registry, level):
    """The change waits for the verify; then the customer has a number that nobody has proven."""
    with app(registry, level) as session, app(registry, level) as changing:
        assert registry.execute(VERIFY, (registry.victim, registry.code), session) == [("approved",)]
        running = Running(changing, CHANGE, (registry.other, registry.victim))
        waits(registry, changing)
        session.commit()
        running.wait()
        assert running.error is None
        changing.commit()
    assert row(registry) == (registry.other, registry.phone, False)


@levels
def test_the_number_changes_and_changes_back(registry, simulator, level):
    """The same number, but not the verification that was checked: its code is another one."""
    simulator.fault("hold", "ideamart", "verify", times=1)
    with app(registry, level) as session:
        running = Running(session, VERIFY, (registry.victim, registry.code))
        simulator.held(1)
        registry.as_app(CHANGE, (registry.other, registry.victim))
        registry.as_app(CHANGE, (registry.phone, registry.victim))
        simulator.release()
        running.wait()
        if level == LEVELS["read committed"]:
            assert running.row()["outcome"] == "superseded"
        session.rollback()
    never_with_another_number(registry)
    assert row(registry)[2] is False


@levels
def test_the_customer_is_deleted_meanwhile(registry, simulator, level):
    simulator.fault("hold", "ideamart", "verify", times=1)
    with app(registry, level) as session:
        running = Running(session, VERIFY, (registry.victim, registry.code))
        simulator.held(1)
        registry.execute("DELETE FROM public.customer WHERE id = %s", (registry.victim,))
        simulator.release()
        running.wait()
        if level == LEVELS["read committed"]:
            assert running.row()["outcome"] == "superseded"
        else:
            assert isinstance(running.error, psycopg2.errors.SerializationFailure)
        session.rollback()
    assert registry.as_app(VERIFY, (registry.victim, registry.code)) == [("not_found",)]


@levels
def test_two_clicks_at_once(registry, simulator, level):
    """Both have the right code, at the same time: neither is told that it is used, but one that has to begin anew."""
    simulator.fault("hold", "ideamart", "verify", times=1)
    with app(registry, level) as one, app(registry, level) as two:
        first = Running(one, VERIFY, (registry.victim, registry.code))
        simulator.held(1)
        second = Running(two, VERIFY, (registry.victim, registry.code))
        simulator.release()
        until(lambda: first.ended_at or second.ended_at, "one of them has the row")
        # Either may be the one.
        (winner, its), (loser, other) = sorted(((first, one), (second, two)), key=lambda call: call[0].ended_at is None)
        assert winner.row()["outcome"] == "approved"
        waits(registry, other)
        its.commit()
        loser.wait()
        if level == LEVELS["read committed"]:
            assert loser.row()["outcome"] == "approved"
        else:
            assert isinstance(loser.error, psycopg2.errors.SerializationFailure)
            other.rollback()
            # By then the customer is verified, as the application sees.
            assert registry.execute(VERIFY, (registry.victim, registry.code), other) == [("already_used",)]
        other.commit()
    assert row(registry) == (registry.phone, registry.phone, True)
    assert simulator.count("ideamart", "verify") == 1


def test_after_the_approval_no_code_is_approved(registry, simulator):
    """Whoever asks for a second step with the same function is not let in by any code at all."""
    assert registry.as_app(VERIFY, (registry.victim, registry.code)) == [("approved",)]
    for code in (simulator.wrong("ideamart", registry.phone), registry.code, "hello", ""):
        assert registry.as_app(VERIFY, (registry.victim, code)) == [("already_used",)]
    assert row(registry) == (registry.phone, registry.phone, True)


UNDO = {"rolled back": lambda session: session.rollback(), "the connection is lost": lambda session: session.close()}


@pytest.mark.parametrize("undo", UNDO.values(), ids=list(UNDO))
@levels
def test_a_retry_after_a_rollback(registry, simulator, level, undo):
    """Approved, and then the transaction fails: the same request again makes the customer active."""
    with app(registry, level) as session:
        assert registry.execute(VERIFY, (registry.victim, registry.code), session) == [("approved",)]
        undo(session)
    assert row(registry) == (registry.phone, None, False)
    with app(registry, level) as session:
        assert registry.execute(VERIFY, (registry.victim, registry.code), session) == [("approved",)]
        session.commit()
    assert row(registry) == (registry.phone, registry.phone, True)
    assert simulator.count("ideamart", "verify") == 1


def test_a_retry_by_savepoint(registry):
    """In one transaction, as frameworks nest them."""
    with app(registry, LEVELS["repeatable read"]) as session:
        registry.execute("SAVEPOINT s", session=session)
        assert registry.execute(VERIFY, (registry.victim, registry.code), session) == [("approved",)]
        registry.execute("ROLLBACK TO s", session=session)
        assert registry.execute(VERIFY, (registry.victim, registry.code), session) == [("approved",)]
        session.commit()
    assert row(registry) == (registry.phone, registry.phone, True)


def test_a_retry_that_comes_too_late(registry):
    """An approval is good for ten minutes; then the code is one that was used."""
    with app(registry, LEVELS["read committed"]) as session:
        assert registry.execute(VERIFY, (registry.victim, registry.code), session) == [("approved",)]
        session.rollback()
    registry.execute(
        "UPDATE otp_gateway_internal.verification_record SET approved_at = approved_at - interval '11 minutes'"
    )
    assert registry.as_app(VERIFY, (registry.victim, registry.code)) == [("superseded",)]
    assert row(registry)[2] is False


def test_it_says_how_many_tries_are_left_and_how_long_to_wait(registry, simulator):
    """What an application tells a person who mistyped: the call's own numbers come through the documented function."""
    answer = "SELECT outcome, attempts_left, retry_after FROM public.verify_customer(%s, %s)"
    wrong = simulator.wrong("ideamart", registry.phone)
    assert registry.as_app(answer, (registry.victim, wrong)) == [("invalid_code", 2, None)]
    registry.execute("ALTER SERVER ideamart OPTIONS (ADD check_limit '1 per hour')")
    ((outcome, _, wait),) = registry.as_app(answer, (registry.victim, registry.code))
    assert outcome == "blocked" and 3000 < wait.total_seconds() <= 3600
    registry.execute("ALTER SERVER ideamart OPTIONS (DROP check_limit)")
    assert registry.as_app(answer, (registry.victim, registry.code)) == [("approved", 0, None)]
    # There is no such customer.
    assert registry.as_app(answer, (0, registry.code)) == [("not_found", None, None)]


def test_a_verification_of_another_number_does_not_count(registry, simulator):
    """However it got into the row: approved, by its own code, and the row stays as it is."""
    registry.as_app("SET search_path = public, otp")
    id, _ = approve(registry.gateway, session=registry.session)
    registry.execute("UPDATE public.customer SET verification_id = %s WHERE id = %s", (id, registry.victim))
    assert registry.as_app(VERIFY, (registry.victim, registry.code))[0][0] != "approved"
    assert row(registry)[2] is False


def test_whoever_wins_nobody_is_active_with_another_number(registry, simulator):
    """Many verifies and changes at once, in every order that comes about."""
    with contextlib.ExitStack() as stack:
        sessions = [stack.enter_context(app(registry, level)) for level in [*LEVELS.values()] * 2]
        running = []
        for number, session in enumerate(sessions):
            session.autocommit = True
            statement = (
                (VERIFY, (registry.victim, registry.code))
                if number % 2 == 0
                else (CHANGE, (registry.other, registry.victim))
            )
            running.append(Running(session, *statement))
        for one in running:
            one.wait()
    never_with_another_number(registry)
