"""Promise: rows belong to the foreign server and the role that made them, whatever these are called. A rename changes
nothing: what is open goes on, limits count on, the queue is sent. A name that is free again carries nothing: who takes it sees,
verifies, forgets and sends nothing of another's. A route does for its callers what its owner may do, and its list of names is
no invitation. A dump is restored to those who bear the names then, once."""

import contextlib
import os
import signal
import uuid

import psycopg2
import pytest

from conftest import FLOWS, Gateway, Running, until
from test_crash import worker_pid
from vendors import order


class Session(psycopg2.extensions.connection):
    """Of a role, whose name it knows."""

    name = None


@contextlib.contextmanager
def role(gateway, *grants, options="LOGIN"):
    """A role with these grants, and a session of it; `{role}` stands for its name."""
    name = f"role_{uuid.uuid4().hex[:8]}"
    gateway.execute(f"CREATE ROLE {name} {options}")
    for grant in grants:
        gateway.execute(grant.format(role=name))
    session = gateway.connect(user=name, connection_factory=Session)
    session.name = name
    try:
        yield session
    finally:
        session.close()
        current = session.name
        gateway.execute(
            f"REASSIGN OWNED BY {current} TO postgres; DROP OWNED BY {current} CASCADE; DROP ROLE {current}"
        )


USAGE = "GRANT USAGE ON FOREIGN SERVER ideamart TO {role}"
WRAPPERS = "GRANT USAGE ON FOREIGN DATA WRAPPER otp_ideamart, otp_route, otp_sandbox TO {role}"


def squat(gateway, session, name):
    """A server of that name, made by somebody who may; its vendor says yes to everything."""
    gateway.execute(f"CREATE SERVER {name} FOREIGN DATA WRAPPER otp_sandbox", session=session)
    gateway.execute(f"GRANT USAGE ON FOREIGN SERVER {name} TO PUBLIC", session=session)


def error(gateway, statement, arguments=None, session=None):
    with pytest.raises(psycopg2.Error) as caught:
        gateway.execute(statement, arguments, session)
    return caught.value


def synced(gateway, name, kind="server"):
    """The worker has heard of it."""
    until(
        lambda: gateway.execute(
            "SELECT 1 FROM otp_gateway_internal.identity WHERE kind = %s AND name = %s", (kind, name)
        ),
        f"{name} is known by that name",
    )


# renames


def test_a_provider_is_renamed(gateway):
    gateway.create_provider("narrow", "ideamart", send_limit="2 per day", max_checks="5")
    to = gateway.number()
    row = gateway.send("narrow", to=to, vendor="ideamart")
    code = gateway.simulator.code("ideamart", to)
    gateway.execute("ALTER SERVER narrow RENAME TO wide")
    wrong = gateway.verify(row["verification_id"], "000000")
    assert wrong["outcome"] == "invalid_code" and wrong["attempts_left"] == 4
    assert gateway.send("wide", to=to, vendor="ideamart")["outcome"] == "sent"
    blocked = gateway.send("wide", to=to, vendor="ideamart")
    assert (blocked["outcome"], blocked["reason"]) == ("blocked", "send_limit")
    assert gateway.verify(row["verification_id"], code)["outcome"] in (
        "approved",
        "expired",
        "invalid_code",
        "not_found",
    )
    synced(gateway, "wide")
    assert {p for (p,) in gateway.execute("SELECT provider FROM otp_gateway.verification")} == {"wide"}
    assert {p for (p,) in gateway.execute("SELECT provider FROM otp_gateway.attempt")} == {"wide"}
    assert gateway.execute("SELECT count(*)::int FROM otp_gateway.find('wide', %s)", (to,)) == [(3,)]
    assert gateway.execute("SELECT otp_gateway.forget('wide', %s)", (to,)) == [(3,)]


def test_a_provider_is_renamed_while_its_queue_waits(gateway):
    gateway.full("narrow")
    queued = gateway.enqueue("narrow", vendor="ideamart")
    gateway.execute("ALTER SERVER narrow RENAME TO wide")
    gateway.simulator.release()
    assert gateway.wait(queued["verification_id"])["outcome"] == "sent"


def test_resend_and_cancel_after_a_rename(gateway):
    for name in ("relid", "hyperverge"):
        row = gateway.send(name)
        gateway.execute(f"ALTER SERVER {name} RENAME TO {name}_2")
        again = gateway.row("SELECT * FROM otp_resend(%s)", (row["verification_id"],))
        assert again["outcome"] == "sent", again
    assert (
        gateway.row("SELECT * FROM otp_cancel(%s)", (gateway.send("relid_2", vendor="relid")["verification_id"],))[
            "outcome"
        ]
        == "canceled"
    )


def test_a_role_is_renamed(gateway):
    gateway.full("narrow")
    gateway.execute("GRANT USAGE ON FOREIGN SERVER narrow TO PUBLIC")
    with role(gateway, USAGE) as session:
        to = gateway.number()
        row = gateway.send(to=to, session=session)
        queued = gateway.enqueue("narrow", vendor="ideamart", session=session)
        gateway.execute(f"ALTER ROLE {session.name} RENAME TO {session.name}_2")
        session.name += "_2"
        synced(gateway, session.name, "role")
        seen = gateway.execute("SELECT id, created_by FROM otp_gateway.verification", session=session)
        assert {id for id, _ in seen} == {row["verification_id"], queued["verification_id"]}
        assert {name for _, name in seen} == {session.name}
        assert gateway.verify(row["verification_id"], "000000", session=session)["outcome"] == "invalid_code"
        gateway.simulator.release()
        assert gateway.wait(queued["verification_id"], session=session)["outcome"] == "sent"


def test_idempotency_keys_survive_renames(gateway):
    """Of the provider and of the role; who takes either name has keys of its own."""
    gateway.create_provider("narrow", "ideamart")
    grant = "GRANT USAGE ON FOREIGN SERVER narrow TO {role}"
    call = "SELECT verification_id FROM otp_send(%s, %s, 'key')"
    with role(gateway, grant) as session, role(gateway) as other:
        body = f'{{"mobile": "{gateway.number()}"}}'
        (first,) = gateway.execute(call, ("narrow", body), session)
        gateway.execute("ALTER SERVER narrow RENAME TO wide")
        gateway.execute(f"ALTER ROLE {session.name} RENAME TO {session.name}_2")
        old_name, session.name = session.name, f"{session.name}_2"
        assert gateway.execute(call, ("wide", body), session) == [first]
        gateway.create_provider("narrow", "ideamart")
        gateway.execute(f"ALTER ROLE {other.name} RENAME TO {old_name}")
        other.name = old_name
        gateway.execute(f"GRANT USAGE ON FOREIGN SERVER narrow, wide TO {old_name}, {session.name}")
        found = {
            first,
            *(gateway.execute(call, (name, body), who)[0] for name in ("narrow", "wide") for who in (session, other)),
        }
        assert len(found) == 4, "one for each role at each provider"


# names that are free again


def test_who_takes_a_providers_name_takes_nothing_else(gateway):
    to = gateway.number()
    with role(gateway, USAGE) as victim, role(gateway, WRAPPERS) as thief:
        row = gateway.send(to=to, session=victim)
        calls = gateway.simulator.count()
        gateway.execute("ALTER SERVER ideamart RENAME TO moved")
        squat(gateway, thief, "ideamart")
        assert gateway.execute("SELECT * FROM otp_gateway.verification", session=thief) == []
        assert gateway.execute("SELECT * FROM otp_gateway.attempt", session=thief) == []
        assert gateway.execute("SELECT * FROM otp_gateway.find('ideamart', %s)", (to,), thief) == []
        assert gateway.execute("SELECT otp_gateway.forget('ideamart', %s)", (to,), thief) == [(0,)]
        assert gateway.execute("SELECT otp_gateway.purge('40 years')", session=thief) == [(0,)]
        # The flow goes on where it was begun.
        assert gateway.verify(row["verification_id"], "000000", session=victim)["outcome"] == "invalid_code"
        assert gateway.simulator.count() == calls + 1


def test_a_dropped_provider_leaves_nothing_to_a_new_one(gateway):
    to = gateway.number()
    with role(gateway, USAGE) as victim, role(gateway, WRAPPERS) as thief:
        row = gateway.send(to=to, session=victim)
        gateway.execute("DROP SERVER ideamart CASCADE")
        squat(gateway, thief, "ideamart")
        assert gateway.execute("SELECT * FROM otp_gateway.verification", session=thief) == []
        gone = error(gateway, "SELECT outcome FROM otp_verify(%s::uuid, '000000')", (row["verification_id"],), victim)
        assert gone.pgcode == "42704" and "does not exist any more" in str(gone), gone
        # Its own rows are still the role's to see.
        assert gateway.execute("SELECT provider FROM otp_gateway.verification", session=victim) == [("ideamart",)]


def test_a_dropped_role_leaves_nothing_to_a_new_one(gateway):
    name = f"role_{uuid.uuid4().hex[:8]}"
    for _ in range(2):
        gateway.execute(f"CREATE ROLE {name} LOGIN; GRANT USAGE ON FOREIGN SERVER ideamart TO {name}")
        with contextlib.closing(gateway.connect(user=name)) as session:
            assert gateway.execute("SELECT * FROM otp_gateway.verification", session=session) == []
            row = gateway.send(session=session)
            assert gateway.execute("SELECT id FROM otp_gateway.verification", session=session) == [
                (row["verification_id"],)
            ]
        gateway.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")


def test_the_queue_of_a_dropped_provider_is_not_a_new_ones(gateway):
    gateway.full("narrow")
    queued = gateway.enqueue("narrow", vendor="ideamart")
    gateway.execute("DROP SERVER narrow CASCADE")
    gateway.execute("CREATE SERVER narrow FOREIGN DATA WRAPPER otp_sandbox")
    gateway.simulator.release()
    row = gateway.wait(queued["verification_id"])
    assert (row["status"], row["outcome"]) == ("failed", "auth_failed"), row


def test_limits_of_a_dropped_provider_do_not_bind_a_new_one(gateway):
    to = gateway.number()
    for _ in range(2):
        gateway.create_provider("narrow", "ideamart", send_limit="1 per day")
        assert gateway.send("narrow", to=to, vendor="ideamart")["outcome"] == "sent"
        assert gateway.send("narrow", to=to, vendor="ideamart")["outcome"] == "blocked"
        gateway.execute("DROP SERVER narrow CASCADE")


def test_what_a_dropped_provider_left_is_forgotten(gateway):
    to = gateway.number()
    gateway.send(to=to)
    gateway.execute("DROP SERVER ideamart CASCADE")
    with role(gateway) as session:
        assert error(gateway, "SELECT otp_gateway.forget('ideamart', %s)", (to,), session).pgcode == "42704"
    assert gateway.execute("SELECT otp_gateway.forget('ideamart', %s)", (to,)) == [(1,)]
    assert gateway.execute(
        "SELECT count(*)::int FROM otp_gateway_internal.verification_record WHERE recipient_key IS NOT NULL OR recipient_masked IS NOT NULL"
    ) == [(0,)]


PERSONS = "SELECT count(*)::int FROM otp_gateway_internal.verification_record WHERE recipient_key IS NOT NULL OR recipient_masked IS NOT NULL"


def test_what_a_dropped_provider_left_is_forgotten_though_there_is_a_new_one(gateway):
    """By the owner of the database; who only owns the new one keeps its record alone."""
    to = gateway.number()
    gateway.send(to=to)
    gateway.execute("DROP SERVER ideamart CASCADE")
    with role(gateway, WRAPPERS) as keeper, role(gateway, WRAPPERS) as owner:
        gateway.execute("CREATE SERVER ideamart FOREIGN DATA WRAPPER otp_sandbox", session=keeper)
        to = f"+94{to[1:]}"
        gateway.send(to=to, session=keeper)
        assert gateway.execute("SELECT otp_gateway.forget('ideamart', %s)", (to,), keeper) == [(1,)]
        assert gateway.execute(PERSONS) == [(1,)]
        gateway.execute(f"ALTER DATABASE {gateway.database} OWNER TO {owner.name}")
        try:
            # The new one is not its own.
            assert error(gateway, "SELECT otp_gateway.forget('ideamart', %s)", (to,), owner).pgcode == "42501"
            gateway.execute("DROP SERVER ideamart CASCADE")
            assert gateway.execute("SELECT otp_gateway.forget('ideamart', %s)", (to,), owner) == [(1,)]
        finally:
            gateway.execute(f"ALTER DATABASE {gateway.database} OWNER TO postgres")
    assert gateway.execute(PERSONS) == [(0,)]


def test_a_superuser_forgets_at_the_new_and_the_dropped_provider_at_once(gateway):
    to = gateway.number()
    gateway.send(to=to)
    for _ in range(2):
        gateway.execute("DROP SERVER ideamart CASCADE; CREATE SERVER ideamart FOREIGN DATA WRAPPER otp_sandbox")
        gateway.send(to=f"+94{to[1:]}")
    assert gateway.execute("SELECT otp_gateway.forget('ideamart', %s)", (f"+94{to[1:]}",)) == [(3,)]
    assert gateway.execute(PERSONS) == [(0,)]


def test_what_a_dropped_route_left_is_forgotten(gateway):
    """Also what was queued for it and went to none of its providers."""
    gateway.full("narrow")
    gateway.execute("CREATE SERVER codes FOREIGN DATA WRAPPER otp_route OPTIONS (providers 'narrow')")
    to = gateway.number()
    # Whose places the route's queue minds is not known before its first turn: it has one.
    first = gateway.enqueue("codes", vendor="ideamart")
    queued = gateway.enqueue("codes", to=to, vendor="ideamart")
    assert gateway.row("SELECT * FROM otp_cancel(%s)", (queued["verification_id"],))["outcome"] == "canceled"
    gateway.execute("DROP SERVER codes CASCADE")
    assert gateway.execute("SELECT otp_gateway.forget('codes', %s)", (f"+94{to[1:]}",)) == [(1,)]
    assert gateway.verification(queued["verification_id"])["recipient_masked"] is None
    assert gateway.verification(first["verification_id"])["recipient_masked"] is not None
    gateway.drain()


def test_reassign_owned_is_harmless(gateway):
    """To a provider, to a route, and to what its owner began."""
    with role(gateway, USAGE, WRAPPERS) as old, role(gateway, USAGE, WRAPPERS) as new, role(gateway) as app:
        gateway.execute(
            "CREATE SERVER box FOREIGN DATA WRAPPER otp_sandbox OPTIONS (send_limit '2 per day')", session=old
        )
        gateway.execute("CREATE SERVER codes FOREIGN DATA WRAPPER otp_route OPTIONS (providers 'box')", session=old)
        gateway.execute(f"GRANT USAGE ON FOREIGN SERVER codes, box TO {app.name}", session=old)
        to = f"+94{gateway.number()[1:]}"
        rows = [gateway.send(server, to=to, vendor="ideamart", session=app) for server in ("codes", "box")]
        mine = gateway.send(session=old)
        gateway.execute(f"REASSIGN OWNED BY {old.name} TO {new.name}")
        assert gateway.verify(rows[0]["verification_id"], "000000", session=app)["outcome"] == "approved"
        assert gateway.verify(rows[1]["verification_id"], "000001", session=app)["outcome"] == "invalid_code"
        blocked = gateway.send("codes", to=to, vendor="ideamart", session=app)
        assert (blocked["outcome"], blocked["reason"]) == ("blocked", "send_limit")
        # Whose the provider is keeps its record, and nothing else of the one before.
        seen = {id for (id,) in gateway.execute("SELECT id FROM otp_gateway.verification", session=new)}
        assert seen == {row["verification_id"] for row in [*rows, blocked]}
        assert gateway.execute("SELECT id FROM otp_gateway.verification", session=old) == [(mine["verification_id"],)]
        assert gateway.verify(mine["verification_id"], "000000", session=old)["outcome"] == "invalid_code"
        assert gateway.execute("SELECT otp_gateway.forget('box', %s)", (to,), new) == [(3,)]


def test_ones_own_of_two_with_one_reference(gateway):
    """Applications at one provider that make their references themselves."""
    grant = "GRANT USAGE ON FOREIGN SERVER paytm TO {role}"
    with role(gateway, grant) as app, role(gateway, grant) as other, role(gateway, grant) as third:
        reference = order()
        rows = [gateway.send("paytm", session=session, order_id=reference) for session in (app, other)]
        assert [row["outcome"] for row in rows] == ["sent", "sent"]
        assert {row["reference"] for row in rows} == {reference}
        fields = {
            name: value for name, value in FLOWS["paytm"]["send"](gateway.number("paytm")).items() if name != "mobile"
        }
        found = [
            gateway.verify_at("paytm", "000000", session, **{**fields, "order_id": reference})["verification_id"]
            for session in (app, other, third)
        ]
        # Who has none of its own was given the reference of the latest.
        assert found == [rows[0]["verification_id"], rows[1]["verification_id"], rows[1]["verification_id"]]


def test_max_in_flight_holds_over_a_rename(gateway, simulator):
    """Of what is queued, and of what is called at once."""
    held = gateway.full("narrow")
    gateway.execute("ALTER SERVER narrow RENAME TO wide")
    queued = gateway.enqueue("wide", vendor="ideamart")
    with gateway.connect() as session:
        to = gateway.number()
        running = Running(session, "SELECT * FROM otp_send('wide', %s)", (f'{{"mobile": "{to}"}}',))
        in_flight = "SELECT count(*)::int FROM otp_gateway.attempt WHERE outcome IS NULL"
        until(lambda: gateway.execute(in_flight) == [(2,)], "the call waits for a place")
        # Another provider's have their turn meanwhile, each way.
        other = gateway.enqueue("hyperverge")
        assert gateway.wait(other["verification_id"])["outcome"] == "sent"
        assert gateway.send("hyperverge")["outcome"] == "sent"
        assert gateway.verification(queued["verification_id"])["status"] == "queued"
        assert simulator.count("ideamart", "send") == 1
        simulator.release()
        assert running.row()["outcome"] == "sent"
    for row in (held, queued):
        assert gateway.wait(row["verification_id"])["outcome"] == "sent"


def test_an_oid_that_comes_round_again_is_nobodys(gateway):
    """Once the worker has seen a server and then missed it, its OID is no key to what is on record of it."""
    gateway.send()
    gateway.execute("CREATE SERVER box FOREIGN DATA WRAPPER otp_sandbox; ALTER SERVER box RENAME TO boxes")
    until(
        lambda: not gateway.execute("SELECT 1 FROM otp_gateway_internal.identity WHERE object IS NULL"), "all are there"
    )
    gateway.execute("ALTER SERVER ideamart RENAME TO dialog")
    synced(gateway, "dialog")
    gateway.execute("DROP SERVER dialog CASCADE")
    until(
        lambda: gateway.execute("SELECT 1 FROM otp_gateway_internal.identity WHERE name = 'dialog' AND object IS NULL"),
        "the OID is forgotten",
    )


def test_an_identity_of_a_rolled_back_server(gateway):
    """A server and its first queued send in one transaction: committed, it is sent; rolled back, nothing is left to harm."""
    for end in ("ROLLBACK", "COMMIT"):
        gateway.execute("BEGIN")
        gateway.execute("CREATE SERVER box FOREIGN DATA WRAPPER otp_sandbox")
        queued = gateway.execute("SELECT verification_id FROM otp_enqueue('box', '{\"mobile\": \"+94770000001\"}')")[0][
            0
        ]
        # The worker looks at all that it knows meanwhile.
        with gateway.cluster.session(gateway.database) as other:
            gateway.execute(
                "CREATE SERVER other FOREIGN DATA WRAPPER otp_sandbox; ALTER SERVER other RENAME TO others; DROP SERVER others",
                session=other,
            )
            gateway.send(session=other)
        gateway.execute(end)
    assert gateway.wait(queued)["outcome"] == "sent"
    assert gateway.execute("SELECT provider FROM otp_gateway.verification WHERE id = %s", (queued,)) == [("box",)]


def test_an_identity_of_a_batch_that_failed(gateway, simulator):
    """The first send at a provider is put on record with a check of a row that somebody has locked: the batch fails, and is done
    again in parts."""
    gateway.create_provider("fresh", "ideamart")
    held = gateway.send("hyperverge")["verification_id"]
    with gateway.cluster.session(gateway.database, autocommit=False) as locker:
        gateway.execute("UPDATE otp_gateway_internal.verification_record SET id = id WHERE id = %s", (held,), locker)
        pid = worker_pid(gateway, None)
        os.kill(pid, signal.SIGSTOP)
        checked = Running(gateway.connect(), "SELECT * FROM otp_verify(%s::uuid, '000000')", (held,))
        body = "SELECT * FROM otp_send('fresh', jsonb_build_object('mobile', %s))"
        sent = Running(gateway.connect(), body, (gateway.number(),))
        waiting = "SELECT count(*)::int FROM pg_stat_activity WHERE query ~ '^SELECT . FROM otp_' AND wait_event = 'Extension' AND datname = current_database()"
        until(lambda: gateway.execute(waiting) == [(2,)], "both wait for the worker")
        os.kill(pid, signal.SIGCONT)
        id = sent.row()["verification_id"]
        assert gateway.verify(id, "000000")["outcome"] == "invalid_code"
        locker.rollback()
    assert checked.row()["outcome"] == "invalid_code"
    assert (
        gateway.execute(
            "SELECT 1 FROM otp_gateway_internal.verification_record WHERE provider_id NOT IN (SELECT id FROM otp_gateway_internal.identity)"
        )
        == []
    )


# routes


def test_a_route_does_what_its_owner_may(gateway):
    with role(gateway, WRAPPERS) as mallory:
        gateway.execute(
            "CREATE SERVER mine FOREIGN DATA WRAPPER otp_route OPTIONS (providers 'ideamart')", session=mallory
        )
        statement = "SELECT outcome FROM otp_send('mine', %s::jsonb)"
        payload = f'{{"mobile": "{gateway.number()}"}}'
        refused = error(gateway, statement, (payload,), mallory)
        assert refused.pgcode == "42501" and "ideamart" in str(refused), refused
        queued = error(gateway, statement.replace("otp_send", "otp_enqueue"), (payload,), mallory)
        assert queued.pgcode == "42501"
        assert gateway.simulator.count() == 0
        # Given it, taken again: looked at in use.
        gateway.execute(f"GRANT USAGE ON FOREIGN SERVER ideamart TO {mallory.name}")
        sent = gateway.row("SELECT * FROM otp_send('mine', %s::jsonb)", (payload,), mallory)
        assert sent["outcome"] == "sent"
        gateway.execute(f"REVOKE USAGE ON FOREIGN SERVER ideamart FROM {mallory.name}")
        later = error(
            gateway, "SELECT outcome FROM otp_verify(%s::uuid, '000000')", (sent["verification_id"],), mallory
        )
        assert later.pgcode == "42501" and "ideamart" in str(later), later


def test_callers_need_the_route_alone(gateway):
    gateway.execute("CREATE SERVER codes FOREIGN DATA WRAPPER otp_route OPTIONS (providers 'ideamart')")
    with role(gateway, "GRANT USAGE ON FOREIGN SERVER codes TO {role}") as session:
        row = gateway.send("codes", vendor="ideamart", session=session)
        assert row["outcome"] == "sent"
        assert gateway.verify(row["verification_id"], "000000", session=session)["outcome"] == "invalid_code"


def test_a_missing_member_is_no_invitation(gateway):
    gateway.execute("CREATE SERVER codes FOREIGN DATA WRAPPER otp_route OPTIONS (providers 'spare, ideamart')")
    with role(gateway, WRAPPERS) as thief:
        squat(gateway, thief, "spare")
        refused = error(gateway, "SELECT outcome FROM otp_send('codes', '{\"mobile\": \"0770000001\"}')")
        assert refused.pgcode == "42501" and "spare" in str(refused), refused
        assert gateway.simulator.count() == 0
        # Its owner, a superuser, says that it is meant.
        gateway.execute("ALTER SERVER spare OWNER TO postgres")
        assert gateway.row("SELECT * FROM otp_send('codes', '{\"mobile\": \"0770000001\"}')")["outcome"] == "sent"


def test_a_queued_send_of_a_route_meets_it_as_well(gateway):
    gateway.full("narrow")
    gateway.execute("CREATE SERVER codes FOREIGN DATA WRAPPER otp_route OPTIONS (providers 'narrow')")
    queued = gateway.enqueue("codes", vendor="ideamart")
    with role(gateway) as other:
        gateway.execute(f"ALTER SERVER narrow OWNER TO {other.name}")
        gateway.simulator.release()
        row = gateway.wait(queued["verification_id"])
        assert (row["status"], row["outcome"]) in (("failed", "auth_failed"), ("pending", "sent")), row


def test_forgetting_through_a_route_resets_no_limit_of_others(gateway):
    gateway.create_provider("narrow", "ideamart", send_limit="2 per day", max_checks="3")
    to = gateway.number()
    with role(gateway, WRAPPERS, "GRANT USAGE ON FOREIGN SERVER narrow TO {role}") as mallory:
        gateway.execute(
            "CREATE SERVER mine FOREIGN DATA WRAPPER otp_route OPTIONS (providers 'narrow')", session=mallory
        )
        outcomes = []
        for _ in range(6):
            outcomes.append(gateway.send("mine", to=to, vendor="ideamart", session=mallory)["outcome"])
            gateway.execute("SELECT otp_gateway.forget('mine', %s)", (to,), mallory)
        assert outcomes == ["sent"] * 2 + ["blocked"] * 4
        # Its own record of the person is gone all the same.
        assert gateway.execute("SELECT count(*)::int FROM otp_gateway.find('mine', %s)", (to,), mallory) == [(0,)]
    # Who owns the provider forgets the rest, and there limits begin anew.
    gateway.execute("SELECT otp_gateway.forget('narrow', %s)", (to,))
    assert gateway.send("narrow", to=to, vendor="ideamart")["outcome"] == "sent"
    assert gateway.execute(
        "SELECT count(*)::int FROM otp_gateway_internal.attempt_record WHERE octet_length(recipient_key) > 0 AND reason IS NULL"
    ) == [(1,)]


# brought here from another cluster


def test_before_a_worker_has_looked_at_what_pg_upgrade_brought(gateway, simulator):
    """Servers and roles are on record with the OIDs of another cluster: whoever calls first is known all the same, and
    so is his idempotency key."""
    keyed, to = "SELECT * FROM otp_send('ideamart', %s::jsonb, 'request-1')", gateway.number()
    payload = '{"mobile": "%s"}' % to
    with role(gateway, USAGE) as app:
        first = gateway.row(keyed, (payload,), app)
        assert first["outcome"] == "sent"
        gateway.execute(
            "UPDATE otp_gateway_internal.identity SET home = home + 1, object = (object::bigint + 1000000)::oid"
        )
        with contextlib.closing(gateway.connect(user=app.name)) as session:
            assert gateway.row(keyed, (payload,), session)["verification_id"] == first["verification_id"]
            assert simulator.count() == 1
            row = gateway.verify(first["verification_id"], simulator.code("ideamart", to), session)
            assert row["outcome"] == "approved"
            assert gateway.execute(
                "SELECT otp_gateway.is_approved(%s, %s)", (first["verification_id"], to), session
            ) == [(True,)]
        with role(gateway, USAGE) as other:
            with pytest.raises(psycopg2.errors.UndefinedObject):
                gateway.verify(first["verification_id"], "000000", other)


# members


def is_before(gateway, major):
    return gateway.session.server_version < major * 10000


# How a role comes to be a member of another without having its rights; from Postgres 16 on each grant says so for itself.
WITHOUT_RIGHTS = {
    "NOINHERIT": (13, "LOGIN NOINHERIT", "GRANT {app} TO {role}"),
    "INHERIT FALSE": (16, "LOGIN", "GRANT {app} TO {role} WITH INHERIT FALSE"),
    "INHERIT FALSE, SET FALSE": (16, "LOGIN", "GRANT {app} TO {role} WITH INHERIT FALSE, SET FALSE"),
    "ADMIN alone": (16, "LOGIN", "GRANT {app} TO {role} WITH ADMIN TRUE, INHERIT FALSE, SET FALSE"),
    "through another": (16, "LOGIN", "GRANT {app} TO pg_monitor WITH INHERIT FALSE; GRANT pg_monitor TO {role}"),
}


def acts_for_nobody(gateway, app, member, to, row):
    """Sees and does nothing of what the role `app` began, or owns."""
    for look in ("otp_gateway.verification", "otp_gateway.attempt", f"otp_gateway.find('ideamart', '{to}')"):
        assert gateway.execute(f"SELECT * FROM {look}", session=member) == [], look
    for call in ("otp_verify(%s, '000000')", "otp_resend(%s)", "otp_cancel(%s)", "otp_gateway.wait(%s)"):
        refused = error(gateway, f"SELECT * FROM {call}", (str(row["verification_id"]),), member)
        assert refused.pgcode == "42704", (call, refused)
    assert gateway.verification(row["verification_id"])["check_count"] == 0
    # What the role owns.
    for look in ("otp_gateway.verification", "otp_gateway.find('owned', '0771112233')"):
        assert gateway.execute(f"SELECT * FROM {look}", session=member) == [], look
    for call in ("otp_gateway.forget('owned', '0771112233')", "otp_gateway.purge('30 years')"):
        assert error(gateway, f"SELECT {call}", session=member).pgcode == "42501", call
    gateway.execute(f"GRANT USAGE ON FOREIGN DATA WRAPPER otp_route TO {member.name}")
    gateway.execute(f"GRANT USAGE ON FOREIGN SERVER owned TO {member.name}", session=app)
    gateway.execute("CREATE SERVER mine FOREIGN DATA WRAPPER otp_route OPTIONS (providers 'owned')", session=member)
    refused = error(gateway, "SELECT otp_send('mine', '{\"mobile\": \"0771112233\"}')", session=member)
    assert refused.pgcode == "42501" and "whose rights" in str(refused), refused
    gateway.execute("DROP SERVER mine", session=member)


@contextlib.contextmanager
def application(gateway):
    """A role with a verification of its own, and a provider; what it sent to, and the verification."""
    with role(gateway, USAGE, WRAPPERS) as app:
        gateway.execute("CREATE SERVER owned FOREIGN DATA WRAPPER otp_sandbox", session=app)
        assert gateway.send("owned", vendor="ideamart")["outcome"] == "sent"
        to = gateway.number()
        yield app, to, gateway.send(to=to, session=app)


@pytest.mark.parametrize("since, options, grant", WITHOUT_RIGHTS.values(), ids=WITHOUT_RIGHTS)
def test_a_member_without_its_rights_does_not_act_for_a_role(gateway, since, options, grant):
    if is_before(gateway, since):
        pytest.skip(f"from Postgres {since} on")
    with application(gateway) as (app, to, row), role(gateway, USAGE, options=options) as member:
        gateway.execute(grant.format(app=app.name, role=member.name))
        acts_for_nobody(gateway, app, member, to, row)
        if "SET FALSE" not in grant and "pg_monitor" not in grant:
            # Who may become the role is it from then on.
            gateway.execute(f"SET ROLE {app.name}", session=member)
            assert gateway.execute(
                "SELECT id FROM otp_gateway.verification WHERE created_by = current_user", session=member
            ) == [(row["verification_id"],)]
            assert gateway.verify(row["verification_id"], "000000", session=member)["outcome"] == "invalid_code"
            gateway.execute("RESET ROLE", session=member)
        gateway.execute(f"REVOKE {app.name} FROM pg_monitor")


def test_who_makes_a_role_does_not_act_for_it(gateway):
    """From Postgres 16 on CREATEROLE comes with ADMIN on what it makes."""
    if is_before(gateway, 16):
        pytest.skip("from Postgres 16 on")
    with role(gateway, USAGE, options="LOGIN CREATEROLE") as maker:
        name = f"role_{uuid.uuid4().hex[:8]}"
        gateway.execute(f"CREATE ROLE {name} LOGIN", session=maker)
        try:
            assert gateway.execute(
                f"SELECT pg_has_role('{name}', 'MEMBER'), pg_has_role('{name}', 'USAGE')", session=maker
            ) == [(True, False)]
            gateway.execute(USAGE.format(role=name))
            gateway.execute(WRAPPERS.format(role=name))
            with contextlib.closing(gateway.connect(user=name)) as app:
                gateway.execute("CREATE SERVER owned FOREIGN DATA WRAPPER otp_sandbox", session=app)
                to = gateway.number()
                acts_for_nobody(gateway, app, maker, to, gateway.send(to=to, session=app))
        finally:
            gateway.execute(f"DROP OWNED BY {name} CASCADE; DROP ROLE {name}")


def test_a_member_acts_for_a_role(gateway):
    with application(gateway) as (app, to, row), role(gateway, USAGE, WRAPPERS) as member:
        gateway.execute(f"GRANT {app.name} TO {member.name}")
        seen = gateway.execute("SELECT id FROM otp_gateway.verification WHERE created_by = %s", (app.name,), member)
        assert seen == [(row["verification_id"],)]
        assert gateway.execute("SELECT id FROM otp_gateway.find('ideamart', %s)", (to,), member) == seen
        assert gateway.verify(row["verification_id"], "000000", session=member)["outcome"] == "invalid_code"
        assert gateway.execute("SELECT otp_gateway.forget('owned', '0771112233')", session=member) == [(0,)]
        gateway.execute("CREATE SERVER mine FOREIGN DATA WRAPPER otp_route OPTIONS (providers 'owned')", session=member)
        assert gateway.send("mine", vendor="ideamart", session=member)["outcome"] == "sent"


# dumps


def test_a_dump_is_restored_by_name_once(cluster, gateway, simulator):
    with role(gateway, USAGE) as app, role(gateway, USAGE) as gone:
        to = gateway.number()
        row = gateway.send(to=to, session=app)
        gateway.send(session=gone)
        gateway.execute("ALTER SERVER ideamart RENAME TO dialog")
        gateway.execute("CREATE SERVER ideamart FOREIGN DATA WRAPPER otp_ideamart")
        synced(gateway, "dialog")
        at = ["-h", cluster.directory, "-p", cluster.port, "-U", "postgres"]
        dump = cluster.directory / f"{gateway.database}.sql"
        cluster.run("pg_dump", *at, "-f", dump, gateway.database)
        text = dump.read_text()
        dump.unlink()
        with cluster.database(extension=False) as name, Gateway(cluster, name, simulator) as restored:
            output = cluster.psql(name, "-q", "-v", "ON_ERROR_STOP=1", script=text)
            assert "ERROR" not in output, output
            servers = dict(restored.execute("SELECT srvname, oid::int8 FROM pg_foreign_server"))
            known = dict(
                restored.execute("SELECT name, object::int8 FROM otp_gateway_internal.identity WHERE kind = 'server'")
            )
            assert known["dialog"] == servers["dialog"]
            assert {p for (p,) in restored.execute("SELECT provider FROM otp_gateway.verification")} == {"dialog"}
            with contextlib.closing(restored.connect(user=app.name)) as session:
                seen = restored.execute("SELECT id FROM otp_gateway.verification", session=session)
                assert seen == [(row["verification_id"],)]
                # Sealed under the cluster's key: it goes on.
                assert restored.verify(row["verification_id"], "000000", session=session)["outcome"] == "invalid_code"


def test_rows_of_another_cluster_wait_to_be_found_by_name(gateway):
    """As pg_upgrade leaves them: the OIDs are another cluster's. Calls find them by name; the views, once the worker has."""
    with role(gateway, USAGE) as app:
        row = gateway.send(session=app)
        gateway.execute("UPDATE otp_gateway_internal.identity SET home = 1, object = 10 WHERE name = %s", (app.name,))
        with contextlib.closing(gateway.connect(user=app.name)) as fresh:
            assert gateway.execute("SELECT * FROM otp_gateway.verification", session=fresh) == []
            assert gateway.verify(row["verification_id"], "000000", session=fresh)["outcome"] == "invalid_code"
        gateway.execute("ALTER SERVER ideamart RENAME TO moved")
        until(
            lambda: gateway.execute(
                "SELECT 1 FROM otp_gateway_internal.identity WHERE name = %s AND home <> 1", (app.name,)
            ),
            "found by name",
        )
        with contextlib.closing(gateway.connect(user=app.name)) as fresh:
            assert gateway.execute("SELECT id FROM otp_gateway.verification", session=fresh) == [
                (row["verification_id"],)
            ]


# rights that nobody meant to give


def test_default_privileges_give_nothing(cluster, simulator):
    name = f"app_{uuid.uuid4().hex[:8]}"
    with cluster.database(extension=False) as database, Gateway(cluster, database, simulator) as gateway:
        gateway.execute(f"CREATE ROLE {name}")
        for what in ("TABLES", "FUNCTIONS", "SCHEMAS", "TYPES", "SEQUENCES"):
            gateway.execute(f"ALTER DEFAULT PRIVILEGES GRANT ALL ON {what} TO {name} WITH GRANT OPTION")
        gateway.execute("CREATE EXTENSION otp_gateway")
        rights = gateway.execute(
            "SELECT c.relname, a.privilege_type FROM pg_class AS c, aclexplode(c.relacl) AS a"
            f" WHERE c.relnamespace::regnamespace::text LIKE 'otp_gateway%' AND a.grantee = '{name}'::regrole"
        )
        assert rights == []
        for function in (
            "otp_gateway.rotate_key()",
            "otp_gateway_internal.note_queued()",
            "otp_gateway_internal.recognise()",
        ):
            assert gateway.execute(f"SELECT has_function_privilege('{name}', '{function}', 'EXECUTE')") == [(False,)]
        assert gateway.execute(f"SELECT has_schema_privilege('{name}', 'otp_gateway', 'CREATE')") == [(False,)]
        assert gateway.execute(f"SELECT has_schema_privilege('{name}', 'otp_gateway', 'USAGE')") == [(True,)]
        assert gateway.execute(f"SELECT has_schema_privilege('{name}', 'otp_gateway_internal', 'USAGE')") == [(False,)]
        gateway.execute(f"ALTER DEFAULT PRIVILEGES REVOKE ALL ON TABLES FROM {name}")
        gateway.execute(f"DROP OWNED BY {name}")
    cluster.witness.cursor().execute(f"DROP ROLE {name}")


def test_an_upgrade_takes_back_what_was_given(cluster, simulator):
    name = f"app_{uuid.uuid4().hex[:8]}"
    with cluster.database(extension=False) as database, Gateway(cluster, database, simulator) as gateway:
        gateway.execute(f"CREATE ROLE {name}; CREATE EXTENSION otp_gateway VERSION '0.2.0'")
        gateway.execute(f"GRANT ALL ON otp_gateway.verification, otp_gateway.attempt TO {name} WITH GRANT OPTION")
        gateway.execute(f"GRANT UPDATE (status) ON otp_gateway.verification TO {name}")
        gateway.execute("ALTER EXTENSION otp_gateway UPDATE")
        for table in ("verification_record", "attempt_record"):
            for right in ("SELECT", "UPDATE", "TRIGGER", "TRUNCATE"):
                assert gateway.execute(
                    f"SELECT has_table_privilege('{name}', 'otp_gateway_internal.{table}', '{right}')"
                ) == [(False,)]
        assert gateway.execute(
            f"SELECT has_any_column_privilege('{name}', 'otp_gateway_internal.verification_record', 'UPDATE')"
        ) == [(False,)]
        gateway.execute(f"DROP OWNED BY {name}")
    cluster.witness.cursor().execute(f"DROP ROLE {name}")


TRAP = """
CREATE SCHEMA trap;
CREATE TABLE trap.fired (by text, at text);
CREATE FUNCTION trap.fire() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO trap.fired VALUES (current_user, TG_TABLE_NAME);
  RETURN coalesce(NEW, OLD);
END $$;
GRANT USAGE ON SCHEMA trap TO PUBLIC;
GRANT ALL ON trap.fired TO PUBLIC;
"""


def test_no_trigger_of_others_is_fired(gateway):
    """Whoever was given TRIGGER on the record, the worker's rights, and those of the owner, are not theirs."""
    gateway.execute(TRAP)
    with role(gateway, USAGE) as mallory:
        for table in ("verification_record", "attempt_record", "reference", "identity", "breaker"):
            gateway.execute(
                f"GRANT USAGE ON SCHEMA otp_gateway_internal TO {mallory.name}; GRANT TRIGGER ON otp_gateway_internal.{table} TO {mallory.name}"
            )
            for timing in ("BEFORE", "AFTER"):
                gateway.execute(
                    f"CREATE TRIGGER {timing} {timing} INSERT OR UPDATE OR DELETE ON otp_gateway_internal.{table}"
                    " FOR EACH ROW EXECUTE FUNCTION trap.fire()",
                    session=mallory,
                )
        row = gateway.send()
        gateway.verify(row["verification_id"], "000000")
        queued = gateway.enqueue()
        gateway.wait(queued["verification_id"])
        gateway.keeps_numbers = True
        with gateway.connect(autocommit=False) as session:
            # Taken back before the COMMIT, with the owner's rights.
            gateway.execute("CREATE TABLE t (phone text, v uuid, PRIMARY KEY (phone))", session=session)
            gateway.execute(
                "CREATE TRIGGER t BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION"
                " otp_gateway.send_after_commit('ideamart', '{\"mobile\": \"phone\"}', 'v')",
                session=session,
            )
            number = gateway.number()
            for _ in range(2):
                gateway.execute(f"INSERT INTO t VALUES ('{number}') ON CONFLICT DO NOTHING", session=session)
            session.commit()
            gateway.execute("DROP TABLE t", session=session)
            session.commit()
        gateway.execute("SELECT otp_gateway.forget('ideamart', %s)", (number,))
        assert gateway.execute("SELECT * FROM trap.fired") == []
        # The trap works: by hand, as anybody's own statement, it is fired.
        gateway.execute("UPDATE otp_gateway_internal.verification_record SET send_count = send_count")
        assert gateway.execute("SELECT count(*) > 0 FROM trap.fired") == [(True,)]
        # And a worker that finds it says so.
        gateway.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'otp_gateway worker' AND datname = current_database()"
        )
        gateway.send()
        line = until(
            lambda: [
                line
                for line in gateway.cluster.log().splitlines()
                if "which the extension did not put" in line or "did not put there" in line
            ],
            "the log names the triggers",
        )[-1]
        assert (
            "trigger before on verification_record" in line and f"TRIGGER on attempt_record to {mallory.name}" in line
        ), line


def test_an_upgrade_fires_no_trigger_of_others(cluster, simulator):
    with cluster.database(extension=False) as database, Gateway(cluster, database, simulator) as gateway:
        gateway.execute("CREATE EXTENSION otp_gateway VERSION '0.3.0'")
        gateway.execute(TRAP)
        old = "otp_gateway"
        gateway.execute(
            f"INSERT INTO {old}.verification_record (id, provider, vendor, status, created_by, created_at, send_count,"
            " check_count, max_checks) VALUES (gen_random_uuid(), 'x', 'ideamart', 'approved', 'postgres', now(), 1, 1, 3)"
        )
        gateway.execute(
            f"CREATE TRIGGER t BEFORE UPDATE ON {old}.verification_record FOR EACH ROW EXECUTE FUNCTION trap.fire()"
        )
        gateway.execute("ALTER EXTENSION otp_gateway UPDATE")
        assert gateway.execute("SELECT * FROM trap.fired") == []
        assert gateway.execute("SELECT provider_id IS NOT NULL FROM otp_gateway_internal.verification_record") == [
            (True,)
        ]


# where the functions are


def notices(gateway, statement):
    del gateway.session.notices[:]
    gateway.execute(statement)
    return "".join(gateway.session.notices)


def test_a_schema_that_others_write_to(cluster, simulator):
    name = f"app_{uuid.uuid4().hex[:8]}"
    with cluster.database(extension=False) as database, Gateway(cluster, database, simulator) as gateway:
        gateway.execute(
            f"CREATE ROLE {name}; CREATE SCHEMA otp; CREATE SCHEMA shared; GRANT CREATE ON SCHEMA shared TO {name}"
        )
        assert notices(gateway, "CREATE EXTENSION otp_gateway SCHEMA otp") == ""
        gateway.execute("DROP EXTENSION otp_gateway")
        said = notices(gateway, "CREATE EXTENSION otp_gateway SCHEMA shared")
        assert "WARNING" in said and name in said and "CREATE SCHEMA otp" in said, said
        gateway.execute("DROP EXTENSION otp_gateway; GRANT CREATE ON SCHEMA otp TO PUBLIC")
        assert "PUBLIC" in notices(gateway, "CREATE EXTENSION otp_gateway SCHEMA otp")
        gateway.execute(f"DROP OWNED BY {name}")
    cluster.witness.cursor().execute(f"DROP ROLE {name}")


def test_a_schema_of_the_databases_owner(cluster, simulator):
    name = f"app_{uuid.uuid4().hex[:8]}"
    with cluster.database(extension=False) as database, Gateway(cluster, database, simulator) as gateway:
        gateway.execute(f"CREATE ROLE {name}; ALTER DATABASE {database} OWNER TO {name}")
        assert name in notices(gateway, "CREATE EXTENSION otp_gateway")
        gateway.execute(f"ALTER DATABASE {database} OWNER TO postgres")
    cluster.witness.cursor().execute(f"DROP ROLE {name}")
