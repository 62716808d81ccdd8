"""Promise: what happened can be read without a join: `otp_gateway.recent` has the latest attempts, a row of at most 100
columns, in words that people read; `otp_gateway.find(mobile)` has a number's verifications wherever they are, and
`otp_gateway.history` what happened to it, and when. Each role sees its own."""

import contextlib
import json
import time

import psycopg2
import pytest

from conftest import FLOWS, until
from test_breaker import end_worker
from test_misuse import role as role
from test_retention import acting_as, usage

OUTCOMES = (
    "sent",
    "approved",
    "canceled",
    "invalid_code",
    "expired",
    "already_used",
    "already_registered",
    "max_attempts_reached",
    "not_found",
    "rate_limited",
    "invalid_request",
    "auth_failed",
    "refused",
    "provider_error",
    "unreachable",
    "unknown",
    "blocked",
)
EVER = ("-infinity", "infinity")


@pytest.fixture
def gateway(quick_gateway):
    yield quick_gateway
    quick_gateway.drain()


def recent(gateway, session=None):
    return gateway.execute(
        "SELECT provider, recipient_masked, operation, outcome, words FROM otp_gateway.recent", session=session
    )


def history(gateway, to, since="-infinity", until="infinity", session=None):
    return gateway.execute(
        "SELECT provider, operation, outcome, words, verification_id FROM otp_gateway.history(%s, %s, %s)",
        (to, since, until),
        session,
    )


# recent


def test_the_newest_first(gateway, simulator):
    to = gateway.number()
    sent = gateway.send(to=to)
    masked = f"+94*****{to[-4:]}"
    wrong = simulator.wrong("ideamart", to)
    gateway.verify(sent["verification_id"], wrong)
    gateway.verify(sent["verification_id"], simulator.code("ideamart", to))
    assert recent(gateway) == [
        ("ideamart", masked, "verify", "approved", "right code"),
        ("ideamart", masked, "verify", "invalid_code", "wrong code"),
        ("ideamart", masked, "send", "sent", "code sent"),
    ]
    began = "SELECT to_char(started_at, 'MM-DD HH24:MI:SS') FROM otp_gateway.attempt WHERE id = %s"
    assert gateway.execute("SELECT time FROM otp_gateway.recent OFFSET 2") == gateway.execute(
        began, (sent["attempt_id"],)
    )


def test_which_rule_it_was(gateway):
    gateway.create_provider("strict", "ideamart", resend_after="1h")
    to = gateway.number()
    for _ in range(2):
        gateway.send("strict", to, vendor="ideamart")
    assert [row[3:] for row in recent(gateway)] == [("blocked", "asked too soon"), ("sent", "code sent")]


def test_what_is_in_flight(gateway, simulator):
    row = gateway.full()
    simulator.held(1)
    assert [line[2:] for line in recent(gateway)] == [("send", None, "under way")]
    simulator.release()
    assert gateway.wait(row["verification_id"])["outcome"] == "sent"


ALL_OF_THEM = """
    INSERT INTO otp_gateway_internal.attempt_record
    SELECT gen_random_uuid(), a.verification_id, p.operation, o.outcome, NULL, NULL, NULL, NULL, started_at, NULL, a.provider,
        NULL, r.reason, provider_id, role_id
    FROM otp_gateway_internal.attempt_record AS a, unnest(%s) AS o (outcome),
        unnest(ARRAY['send', 'verify', 'resend', 'cancel']) AS p (operation), unnest(%s::text[]) AS r (reason)
"""
RULES = [
    "allowed_prefixes",
    "resend_after",
    "send_limit",
    "provider_limit",
    "min_conversion",
    "max_checks",
    "check_limit",
    "breaker",
    None,
]


def test_a_row_of_100_columns(gateway, cluster):
    """Whatever happened, as psql prints it, of a provider with a name like those of the documents."""
    gateway.create_provider("hyper_bank", "ideamart")
    gateway.send("hyper_bank", vendor="ideamart")
    gateway.execute(ALL_OF_THEM, (list(OUTCOMES), RULES))
    gateway.execute("UPDATE otp_gateway_internal.verification_record SET recipient_masked = '+***********4567'")
    lines = cluster.psql(
        gateway.database, "-c", "SET TimeZone = 'Asia/Kolkata'", "-c", "SELECT * FROM otp_gateway.recent"
    ).splitlines()
    assert len(lines) > 400 and max(map(len, lines)) <= 100, max(lines, key=len)


def test_there_are_words_for_everything(gateway):
    gateway.send()
    gateway.execute(ALL_OF_THEM, (list(OUTCOMES), RULES))
    rows = gateway.execute("SELECT DISTINCT outcome, words FROM otp_gateway.recent")
    assert all(words and words != "under way" for outcome, words in rows)
    # Different things are called by different words, but that no checks are left, whoever says so.
    told = [words for _, words in rows]
    assert len(set(told)) == len(told) - 1


def test_each_role_sees_its_own(gateway, role):
    name, session = role
    gateway.execute(f"GRANT USAGE ON FOREIGN SERVER ideamart TO {name}")
    mine, theirs = gateway.number(), gateway.number()
    gateway.send(to=theirs)
    gateway.send(to=mine, session=session)
    assert [masked for _, masked, *_ in recent(gateway, session)] == [f"+94*****{mine[-4:]}"]
    assert len(history(gateway, mine, session=session)) == 1 and history(gateway, theirs, session=session) == []
    assert len(recent(gateway)) == 2
    gateway.execute(f"GRANT pg_read_all_data TO {name}")
    assert len(recent(gateway, session)) == 2 and len(history(gateway, theirs, session=session)) == 1


def test_a_look_at_a_long_record(gateway):
    """Costs what is shown: whatever else is on record."""
    gateway.send()
    gateway.execute(
        """
        WITH known AS (SELECT * FROM otp_gateway_internal.attempt_record LIMIT 1), ids AS MATERIALIZED (
            SELECT (lpad(to_hex((extract(epoch FROM now()) * 1000)::bigint - n), 12, '0') || '7' || substr(md5(n::text), 1, 19))::uuid AS id
            FROM generate_series(1, 200000) AS n
        ), verifications AS (
            INSERT INTO otp_gateway_internal.verification_record (id, provider, vendor, status, recipient_masked, recipient_key,
                created_by, created_at, send_count, check_count, max_checks, is_test, provider_id, role_id)
            SELECT ids.id, 'ideamart', 'ideamart', 'approved', '+94*****4567', sha256(ids.id::text::bytea), current_user, now(),
                1, 1, 3, false, provider_id, role_id
            FROM ids, known
        )
        INSERT INTO otp_gateway_internal.attempt_record (id, verification_id, operation, outcome, started_at, finished_at,
            provider, provider_id, role_id)
        SELECT ids.id, ids.id, 'send', 'sent', now(), now(), 'ideamart', provider_id, role_id FROM ids, known
        """
    )
    gateway.execute("ANALYZE")
    began = time.monotonic()
    assert len(gateway.execute("SELECT * FROM otp_gateway.recent LIMIT 20")) == 20
    took = time.monotonic() - began
    plan = json.dumps(gateway.execute("EXPLAIN (FORMAT json) SELECT * FROM otp_gateway.recent LIMIT 20"))
    assert '"attempt_pkey"' in plan and "Sort" not in plan and took < 1, (took, plan)
    # And otp_gateway.attempt asks once whose rows are shown, not for each attempt.
    plan = json.dumps(
        gateway.execute("EXPLAIN (FORMAT json) SELECT outcome, count(*) FROM otp_gateway.attempt GROUP BY 1")
    )
    assert '"Subplan Name": "InitPlan' in plan and '"Parent Relationship": "SubPlan"' not in plan, plan


# find and history


def test_find_at_all_providers(gateway):
    """Also where the number is written in another way, where it was sent through a route, and where it was dropped."""
    gateway.create_provider("second", "ideamart")
    gateway.create_provider("third", "ideamart")
    gateway.execute("CREATE SERVER route FOREIGN DATA WRAPPER otp_route OPTIONS (providers 'third')")
    to = gateway.number()
    ids = [
        gateway.send(provider, to, vendor="ideamart")["verification_id"] for provider in ("ideamart", "second", "route")
    ]
    gateway.send()
    for spelling in (to, f"+94{to[1:]}", f"+94 {to[1:]}"):
        assert gateway.execute("SELECT id FROM otp_gateway.find(%s)", (spelling,)) == [(id,) for id in reversed(ids)]
    gateway.execute("DROP SERVER second CASCADE")
    assert gateway.execute("SELECT id FROM otp_gateway.find(%s)", (to,)) == [(id,) for id in reversed(ids)]
    assert gateway.row("SELECT * FROM otp_gateway.find(%s) LIMIT 1", (to,)) == gateway.row(
        "SELECT * FROM otp_gateway.verification WHERE id = %s", (ids[-1],)
    )


@pytest.mark.parametrize("vendor", FLOWS)
def test_find_of_every_vendor(gateway, vendor):
    to = gateway.number(vendor)
    id = gateway.send(vendor, to)["verification_id"]
    assert gateway.execute("SELECT id FROM otp_gateway.find(%s)", (to,)) == [(id,)]


def test_the_owner_of_a_provider_finds_all_of_it(gateway):
    to = gateway.number()
    gateway.create_provider("bank", "ideamart")
    with (
        acting_as(gateway, "one", usage("bank", "one")) as one,
        acting_as(gateway, "keeper", usage("bank", "keeper")) as keeper,
    ):
        theirs = gateway.send("bank", to, one, vendor="ideamart")["verification_id"]
        gateway.send(to=to)
        look = "SELECT id FROM otp_gateway.find(%s)"
        assert gateway.execute(look, (to,), keeper) == []
        # Both what one began, and what went to what one owns: once.
        mine = gateway.send("bank", to, keeper, vendor="ideamart")["verification_id"]
        assert gateway.execute(look, (to,), keeper) == [(mine,)]
        gateway.execute("ALTER SERVER bank OWNER TO keeper")
        assert gateway.execute(look, (to,), keeper) == [(mine,), (theirs,)]
        assert len(history(gateway, to, session=keeper)) == len(recent(gateway, keeper)) == 2


@pytest.mark.parametrize("mobile", ["", "\n"])
def test_find_of_nonsense(gateway, mobile):
    for call in ("find(%s)", "history(%s, 'today', 'now')"):
        with pytest.raises(psycopg2.errors.InvalidParameterValue) as caught:
            gateway.execute(f"SELECT * FROM otp_gateway.{call}", (mobile,))
        assert "mobile" in caught.value.diag.message_primary


def test_history(gateway, simulator):
    to = gateway.number()
    gateway.create_provider("second", "ideamart")
    one = gateway.send(to=to)["verification_id"]
    gateway.verify(one, simulator.wrong("ideamart", to))
    [(between,)] = gateway.execute("SELECT clock_timestamp()")
    gateway.execute("ALTER SERVER second OPTIONS (SET base_url 'http://127.0.0.1:1')")
    other = gateway.send("second", to, vendor="ideamart")["verification_id"]
    gateway.send()
    first = [("ideamart", "send", "sent", "code sent", one), ("ideamart", "verify", "invalid_code", "wrong code", one)]
    second = [("second", "send", "unreachable", "no connection", other)]
    assert history(gateway, to) == first + second
    assert history(gateway, to, until=between) == first
    assert history(gateway, to, since=between) == second
    assert history(gateway, to, since="today", until="now") == first + second
    assert history(gateway, to, until="2000-01-01") == history(gateway, to, since="tomorrow") == []
    told = gateway.execute("SELECT time, vendor_message FROM otp_gateway.history(%s, %s, %s)", (to, *EVER))
    began = "SELECT started_at, vendor_message FROM otp_gateway.attempt WHERE verification_id = ANY (%s) ORDER BY id"
    assert told == gateway.execute(began, ([one, other],)) and "refused" in told[-1][1]


def test_history_without_times(gateway):
    """The last 30 days, up to what this very transaction has just done."""
    to = gateway.number()
    old, first = (gateway.send(to=to)["verification_id"] for _ in range(2))
    gateway.execute(
        "UPDATE otp_gateway_internal.attempt_record SET started_at = now() - interval '31 days' WHERE verification_id = %s",
        (old,),
    )
    gateway.execute("BEGIN")
    second = gateway.send(to=to)["verification_id"]
    told = gateway.execute("SELECT verification_id FROM otp_gateway.history(%s)", (to,))
    gateway.execute("COMMIT")
    assert told == [(first,), (second,)]
    since = "SELECT count(*)::int FROM otp_gateway.history(%s, since => now() - interval '40 days')"
    assert gateway.execute(since, (to,)) == [(3,)]


def test_what_is_queued_is_part_of_the_history(gateway, simulator):
    """Nothing has been asked of the vendor yet; so there is no attempt."""
    gateway.full()
    to = gateway.number()
    queued = gateway.enqueue("narrow", to, vendor="ideamart")["verification_id"]
    assert history(gateway, to) == [("narrow", "send", None, "waits its turn", queued)]
    simulator.release()
    assert gateway.wait(queued)["outcome"] == "sent"
    was_queued = ("narrow", "send", None, "was queued", queued)
    assert history(gateway, to) == [was_queued, ("narrow", "send", "sent", "code sent", queued)]
    # When that was is told, too.
    [(told, began)] = gateway.execute(
        "SELECT (SELECT min(time) FROM otp_gateway.history(%s)), created_at FROM otp_gateway.verification WHERE id = %s",
        (to, queued),
    )
    assert told == began


def test_a_send_that_was_too_late_for_the_queue(gateway, simulator):
    """Support sees that we sent nothing, and not that a user came late with their code."""
    gateway.full()
    to = gateway.number()
    queued = gateway.enqueue("narrow", to, vendor="ideamart")["verification_id"]
    gateway.execute(
        "UPDATE otp_gateway_internal.verification_record SET created_at = created_at - interval '1 hour' WHERE id = %s",
        (queued,),
    )
    end_worker(gateway)
    assert gateway.wait(queued)["outcome"] == "expired"
    assert history(gateway, to) == [
        ("narrow", "send", None, "was queued", queued),
        ("narrow", "send", "expired", "never sent", queued),
    ]
    # A code of which the user says too late what it is.
    simulator.release()
    late = gateway.send(to=gateway.number())
    gateway.execute(
        "UPDATE otp_gateway_internal.verification_record SET expires_at = now() - interval '1 minute', status = 'pending'"
        " WHERE id = %s",
        (late["verification_id"],),
    )
    gateway.verify(late["verification_id"], "123456")
    assert ("ideamart", "verify", "expired", "code too old") in [(p, o, out, w) for p, _, o, out, w in recent(gateway)]


def test_a_queued_send_that_was_canceled(gateway, simulator):
    gateway.full()
    to = gateway.number()
    queued = gateway.enqueue("narrow", to, vendor="ideamart")["verification_id"]
    gateway.execute("SELECT otp_cancel(%s)", (queued,))
    assert [row[3] for row in history(gateway, to)] == ["was queued", "code is void"]
    simulator.release()


def test_on_a_standby_or_read_only(gateway):
    to = gateway.number()
    gateway.send(to=to)
    with contextlib.closing(gateway.connect(options="-c default_transaction_read_only=on")) as session:
        assert len(history(gateway, to, session=session)) == 1
        assert len(gateway.execute("SELECT * FROM otp_gateway.find(%s)", (to,), session)) == 1


def test_as_the_record_has_it(gateway, role):
    """Whom the record shows an attempt, and whom the code went to, and whom not."""
    name, session = role
    gateway.create_provider("second", "ideamart", base_url="http://127.0.0.1:1")
    gateway.execute("CREATE SERVER route FOREIGN DATA WRAPPER otp_route OPTIONS (providers 'second, ideamart')")
    gateway.send("route", vendor="ideamart")
    gateway.execute(f"GRANT USAGE ON FOREIGN SERVER ideamart TO {name}")
    gateway.send(session=session)
    asked = """
        SELECT to_char(a.started_at, 'MM-DD HH24:MI:SS'), a.provider, v.recipient_masked, a.operation, a.outcome
        FROM otp_gateway.attempt AS a LEFT JOIN otp_gateway.verification AS v ON v.id = a.verification_id ORDER BY a.id DESC
    """
    for statement in (
        "SELECT",
        f"ALTER SERVER second OWNER TO {name}",
        f"ALTER SERVER route OWNER TO {name}",
        f"GRANT pg_read_all_data TO {name}",
    ):
        gateway.execute(statement)
        for of in (session, None):
            shown = gateway.execute(
                "SELECT time, provider, recipient_masked, operation, outcome FROM otp_gateway.recent", session=of
            )
            assert shown == gateway.execute(asked, session=of), statement
    assert len(shown) == 3 and all(masked for _, _, masked, *_ in shown)
    gateway.execute("ALTER SERVER second OWNER TO CURRENT_USER; ALTER SERVER route OWNER TO CURRENT_USER")


def test_forgotten_is_forgotten(gateway):
    to = gateway.number()
    gateway.send(to=to)
    gateway.execute("SELECT otp_gateway.forget('ideamart', %s)", (to,))
    assert history(gateway, to) == [] and gateway.execute("SELECT * FROM otp_gateway.find(%s)", (to,)) == []
    assert [masked for _, masked, *_ in recent(gateway)] == [None]
