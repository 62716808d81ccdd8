"""Promise: neither an error, nor a row, nor the time it takes tells a role anything about a verification that is not its
own: not that an id exists, that a number was ever used, that a key was taken. (Of time: not in a few hundred tries; see PAIRS.) Two things are told because they must be:
limits and cooldowns protect a number whoever sends to it, so that `blocked` says that somebody did; and a reference names a
flow to whoever was given it, so that otp_verify(provider, ...) finds by it one that another role began. Roles that must not
know that much of each other get providers of their own."""

import contextlib
import json
import math
import statistics
import time
import uuid

import psycopg2
import pytest

from conftest import Gateway

# What cannot be told in so many pairs counts as not told. There is something to be told in thousands: a row that is there
# and is left out costs its reading, some 5 us for an id.
PAIRS = 400
USED, UNUSED = "0771111111", "0772222222"
TEST_USED, TEST_UNUSED = "0779000001", "0779000002"
FOREIGN_USED, FOREIGN_UNUSED = "8144094480", "8144094481"


class Two:
    """Two roles that send through the same provider, and what the other of them did."""

    def __init__(self, gateway):
        self.gateway = gateway
        self.one, self.other = f"{gateway.database}_one", f"{gateway.database}_other"

    def make(self):
        execute = self.gateway.execute
        for role in (self.one, self.other):
            execute(f"CREATE ROLE {role} LOGIN")
        self.provider("bank")
        self.provider("strict", "send_limit '3 per hour', resend_after '1h'")
        self.provider("narrow", "allowed_prefixes '+94', test_numbers '+94779000001=111111, +94779000002=111111'")
        self.session = self.gateway.connect(user=self.one)
        self.others = self.gateway.connect(user=self.other)
        self.mine = self.send("bank", UNUSED, self.session)["verification_id"]
        self.theirs = [self.send("bank", USED, self.others, f"key-{n}")["verification_id"] for n in range(20)]
        for number in (TEST_USED, FOREIGN_USED):
            self.send("narrow", number, self.others)
        execute("ANALYZE")

    def provider(self, name, options="resend_after '0s', send_limit '100000 per hour', check_limit '100000 per hour'"):
        self.gateway.execute(f"CREATE SERVER {name} FOREIGN DATA WRAPPER otp_sandbox OPTIONS ({options})")
        self.gateway.execute(f"GRANT USAGE ON FOREIGN SERVER {name} TO {self.one}, {self.other}")

    def send(self, provider, number, session, key=None):
        return self.gateway.row(
            "SELECT * FROM otp_send(%s, %s, %s)", (provider, json.dumps({"mobile": number}), key), session
        )

    def remove(self):
        self.session.close()
        self.others.close()
        for role in (self.one, self.other):
            self.gateway.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")

    def answer(self, statement, arguments):
        """An error as the caller has it, or the rows without what is new in each."""
        try:
            with self.session.cursor() as cursor:
                cursor.execute(statement, arguments)
                names = [column.name for column in cursor.description]
                return [tuple(v for n, v in zip(names, row) if not n.endswith("_id")) for row in cursor.fetchall()]
        except psycopg2.Error as error:
            diag = error.diag
            return (error.pgcode, diag.message_primary, diag.message_detail, diag.message_hint, diag.context)


@pytest.fixture(scope="module")
def two(shared_cluster, simulator_program):
    with shared_cluster.database() as name, Gateway(shared_cluster, name, simulator_program) as gateway:
        two = Two(gateway)
        try:
            two.make()
            yield two
        finally:
            two.remove()


def measured(one, other, pairs=PAIRS):
    """The times of two calls, made by turns, in an order that changes, so that whatever the machine does meets both."""
    times = ([], [])
    for turn in range(pairs):
        for which in ((0, 1), (1, 0))[turn % 2]:
            start = time.perf_counter_ns()
            (one, other)[which]()
            times[which].append(time.perf_counter_ns() - start)
    return times


def told_apart(one, other):
    """Whether somebody who may try so often would see a difference: one of the two is the slower in more of the pairs
    than chance has it (a sign test, six sigma), and by more than a tenth of the time."""
    pairs = len(one)
    slower = sum(a > b for a, b in zip(one, other))
    ratio = statistics.median(one) / statistics.median(other)
    return abs(slower - pairs / 2) > 6 * math.sqrt(pairs) / 2 and not 1 / 1.1 < ratio < 1.1


def same(two, statement, one, other):
    """The same answer in the same time, whatever is asked about. Tried again before it is said that it is not: a busy
    machine can favour one of the two for a while, and what can be told can be told each time."""
    assert two.answer(statement, one) == two.answer(statement, other)
    for _ in range(3):
        if not told_apart(*measured(lambda: two.answer(statement, one), lambda: two.answer(statement, other))):
            return
    raise AssertionError("the time tells them apart")


def test_the_statistic_tells_apart(two):
    """The control: a call that takes half as long again, and the same call twice."""
    spin = "SELECT count(*) FROM generate_series(1, %s)"
    # Each once in three times: the machine has other things to do.
    assert any(
        told_apart(*measured(lambda: two.answer(spin, (6000,)), lambda: two.answer(spin, (9000,)))) for _ in range(3)
    )
    assert any(
        not told_apart(*measured(lambda: two.answer(spin, (6000,)), lambda: two.answer(spin, (6000,))))
        for _ in range(3)
    )


@pytest.mark.parametrize(
    "call",
    [
        # First, while one's own is open.
        "SELECT otp_gateway.send_again(%s::uuid)",
        "SELECT * FROM otp_verify(%s::uuid, '000000')",
        "SELECT * FROM otp_verify(%s::text, '000000')",
        "SELECT * FROM otp_resend(%s::uuid)",
        "SELECT * FROM otp_cancel(%s::uuid)",
        "SELECT * FROM otp_gateway.wait(%s::uuid, '0s')",
        "SELECT * FROM otp_gateway.verification WHERE id = %s::uuid",
        "SELECT * FROM otp_gateway.attempt WHERE verification_id = %s::uuid",
    ],
)
def test_an_id_of_another_s_and_one_that_is_not_there(two, call):
    same(two, call, (str(two.theirs[7]),), (str(uuid.uuid4()),))
    # The control: one's own is answered otherwise.
    assert two.answer(call, (str(two.mine),)) != two.answer(call, (str(two.theirs[7]),))


@pytest.mark.parametrize(
    "call",
    [
        "SELECT * FROM otp_gateway.find('bank', %s)",
        "SELECT * FROM otp_gateway.find(%s)",
        "SELECT * FROM otp_gateway.history(%s, '-infinity', 'infinity')",
        "SELECT * FROM otp_gateway.forget('bank', %s)",
    ],
)
def test_a_number_that_another_used(two, call):
    """Looked up."""
    same(two, call, (USED,), ("0773333333",))


@pytest.mark.parametrize(
    "used, unused", [(USED, "0773333333"), (TEST_USED, TEST_UNUSED), (FOREIGN_USED, FOREIGN_UNUSED)]
)
def test_a_number_that_another_sent_to(two, used, unused):
    """Sent to, where no limit stands in the way: also one of the test numbers, and one that the provider does not allow."""
    provider = "bank" if used == USED else "narrow"
    answer = lambda number: two.answer(
        "SELECT status, outcome, retryable, attempts_left, retry_after, vendor_code, vendor_message, reason FROM otp_send(%s, %s)",
        (provider, json.dumps({"mobile": number})),
    )
    assert answer(used) == answer(unused)
    for _ in range(3):
        if not told_apart(*measured(lambda: answer(used), lambda: answer(unused), 150)):
            return
    raise AssertionError("the time tells them apart")


@pytest.mark.parametrize("function", ["otp_send", "otp_enqueue"])
def test_a_key_that_another_used(two, function):
    """Of an idempotency key, too, nothing is told: it is another one."""
    asks = f"SELECT status, outcome, reason FROM {function}('bank', %s, %s)"
    payload = json.dumps({"mobile": "0774444444"})
    assert two.answer(asks, (payload, f"key-{function == 'otp_send':d}")) == two.answer(
        asks, (payload, f"never-{function}")
    )
    # And it is one's own from then on.
    assert two.answer(asks, (json.dumps({"mobile": "0775555555"}), f"never-{function}"))[0] == "22023"


# what is told, because it must be


def test_limits_tell_that_somebody_sent(two):
    """A limit that counted each role's sends alone would let as many roles send to a person as there are. So who is
    blocked learns that the number was sent to, and until when it is left alone; not by whom, nor by which flow."""
    two.send("strict", USED, two.others)
    (blocked,) = two.answer("SELECT * FROM otp_send('strict', %s)", (json.dumps({"mobile": USED}),))
    (free,) = two.answer("SELECT * FROM otp_send('strict', %s)", (json.dumps({"mobile": UNUSED}),))
    assert ("blocked" in blocked, "resend_after" in blocked) == (True, True) and "sent" in free
    text = str(blocked)
    assert two.other not in text
    with contextlib.closing(two.gateway.connect()) as session:
        theirs = two.gateway.execute(
            "SELECT id, reference FROM otp_gateway.verification WHERE provider = 'strict' AND created_by = %s",
            (two.other,),
            session,
        )
    assert theirs and not any(str(value) in text for row in theirs for value in row)
    # What it has on record is its own refusal.
    asks = "SELECT a.outcome, a.reason FROM otp_gateway.attempt AS a JOIN otp_gateway.verification AS v ON v.id = a.verification_id WHERE v.provider = 'strict' ORDER BY a.id"
    assert two.gateway.execute(asks, session=two.session) == [("blocked", "resend_after"), ("sent", None)]
