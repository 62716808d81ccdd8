"""Promise: whatever the network does, a vendor sees one send, and one code, at most once. The outcome says what is
known: `unknown` where bytes may have left this machine, `unreachable` where none did."""

import collections
import contextlib
import json
import socket
import threading

import psycopg2
import pytest

from cluster import free_port
from conftest import FLOWS
from simulator import VENDORS


@pytest.fixture
def gateway(quick_gateway):
    return quick_gateway


def at(gateway, provider, **options):
    """Points a provider elsewhere."""
    for name, value in options.items():
        known = gateway.execute(
            "SELECT 1 FROM pg_foreign_server, pg_options_to_table(srvoptions) WHERE srvname = %s AND option_name = %s",
            (provider, name),
        )
        gateway.execute(f"ALTER SERVER {provider} OPTIONS ({'SET' if known else 'ADD'} {name} '{value}')")


@pytest.mark.parametrize("warm", [False, True], ids=["new connection", "warm connection"])
@pytest.mark.parametrize("kind", ["close_before_read", "close_after_read", "reset", "never", "truncated"])
@pytest.mark.parametrize("vendor", ["hyperverge", "relid"])
def test_broken_send(gateway, simulator, vendor, kind, warm):
    at(gateway, vendor, timeout="700ms")
    if warm:
        assert gateway.send(vendor)["outcome"] == "sent"
    to = gateway.number(vendor)
    simulator.fault(kind, vendor, "send", times=1)
    row = gateway.send(vendor, to)
    assert (row["outcome"], row["status"], row["retryable"]) == ("unknown", "unknown", False)
    assert gateway.attempts(row["verification_id"]) == [("send", "unknown")]
    assert gateway.row("SELECT vendor_message FROM otp_gateway.attempt WHERE id = %s", (row["attempt_id"],))[
        "vendor_message"
    ]
    # A fault serves one request: a second one would have been answered and counted.
    assert simulator.count(vendor, "send", to) == (0 if kind == "close_before_read" else 1)
    # The fault was met, not passed by.
    assert gateway.send(vendor)["outcome"] == "sent"
    assert [key for key, n in collections.Counter(simulator.keys(vendor, "send")).items() if n > 1] == []


@pytest.mark.parametrize("kind", ["close_before_read", "close_after_read", "reset", "never"])
@pytest.mark.parametrize("vendor", VENDORS)
def test_broken_verify(gateway, simulator, vendor, kind):
    """A verify has side effects: it is not repeated either, and the try counts."""
    at(gateway, vendor, timeout="700ms")
    to = gateway.number(vendor)
    sent = gateway.send(vendor, to)
    simulator.fault(kind, vendor, "verify", times=1)
    row = gateway.verify(sent["verification_id"], simulator.code(vendor, to), **FLOWS[vendor]["verify"])
    assert (row["outcome"], row["status"], row["retryable"]) == ("unknown", "unknown", False)
    assert row["attempts_left"] == sent["attempts_left"] - 1
    assert simulator.count(vendor, "verify") == (0 if kind == "close_before_read" else 1)
    assert gateway.attempts(sent["verification_id"]) == [("send", "sent"), ("verify", "unknown")]


@pytest.mark.parametrize("vendor", VENDORS)
def test_connection_closed_at_reuse(gateway, simulator, vendor):
    """The classic: a kept connection dies as the next request begins to arrive."""
    simulator.fault("close_at_reuse", vendor, "send", times=1)
    assert gateway.send(vendor)["outcome"] == "sent"
    to = gateway.number(vendor)
    row = gateway.send(vendor, to)
    assert (row["outcome"], row["retryable"]) == ("unknown", False)
    assert simulator.count(vendor, "send", to) == 0
    assert gateway.send(vendor)["outcome"] == "sent"
    assert simulator.count(vendor, "send") == 2


def test_verify_on_connection_closed_at_reuse(gateway, simulator):
    simulator.fault("close_at_reuse", "hyperverge", "send", times=1)
    to = gateway.number("hyperverge")
    sent = gateway.send("hyperverge", to)
    row = gateway.verify(sent["verification_id"], simulator.code("hyperverge", to))
    assert (row["outcome"], row["status"]) == ("unknown", "unknown")
    assert simulator.count("hyperverge", "verify") == 0


@pytest.mark.parametrize("kind", ["close_idle", "close_at_reuse"])
def test_dying_connections_under_load(gateway, simulator, kind):
    """Many sessions over connections that keep dying just then: seen once if `sent`, never if nothing left."""
    # Or the breaker would open, and spare the connections.
    at(gateway, "hyperverge", enforce="observe")
    simulator.fault(kind, "hyperverge", "send", ms=0)
    rows, lock = [], threading.Lock()

    def run():
        session = gateway.connect()
        for _ in range(30):
            with lock:
                to = gateway.number("hyperverge")
            row = gateway.send("hyperverge", to, session)
            with lock:
                rows.append(row)
        session.close()

    threads = [threading.Thread(target=run) for _ in range(8)]
    [thread.start() for thread in threads]
    [thread.join(60) for thread in threads]
    assert len(rows) == 240
    seen = collections.Counter(simulator.keys("hyperverge", "send"))
    assert [key for key, n in seen.items() if n > 1] == []
    outcomes = {row["outcome"] for row in rows}
    assert "sent" in outcomes and outcomes <= {"sent", "unknown", "unreachable"}
    for row in rows:
        allowed = {"sent": (1,), "unknown": (0, 1), "unreachable": (0,)}[row["outcome"]]
        assert seen[str(row["verification_id"])] in allowed
    if kind == "close_at_reuse":
        assert "unknown" in outcomes, "no connection was ever used again: the test shows nothing"


@contextlib.contextmanager
def full_backlog():
    """A listener that takes no more connections: a SYN gets no answer."""
    with socket.socket() as listener, contextlib.ExitStack() as stack:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        for _ in range(8):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(address)
        with socket.socket() as probe:
            probe.settimeout(0.2)
            with pytest.raises(TimeoutError):
                probe.connect(address)
        yield address[1]


@contextlib.contextmanager
def hangs_up():
    """A listener that closes every connection at once, before any TLS."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(8)

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    listener.accept()[0].close()

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def nowhere(how, simulator, stack):
    """base_url of somewhere that no request ever leaves to."""
    match how:
        case "refused":
            return f"http://127.0.0.1:{free_port()}/hyperverge"
        case "refused over TLS":
            return f"https://127.0.0.1:{free_port()}/hyperverge"
        case "no such host":
            return "https://otp-vendor.invalid/hyperverge"
        case "unknown authority":
            return simulator.url("hyperverge", "https")
        case "no TLS there":
            return simulator.url("hyperverge", "http").replace("http:", "https:")
        case "hangs up":
            return f"https://127.0.0.1:{stack.enter_context(hangs_up())}/hyperverge"
        case "connect timeout":
            return f"http://127.0.0.1:{stack.enter_context(full_backlog())}/hyperverge"


@pytest.mark.parametrize(
    "how",
    ["refused", "refused over TLS", "no such host", "unknown authority", "no TLS there", "hangs up", "connect timeout"],
)
def test_nothing_left(gateway, simulator, how):
    to = gateway.number("hyperverge")
    open_flow = gateway.send("hyperverge", to)
    at(gateway, "hyperverge", connect_timeout="300ms", timeout="8s")
    with contextlib.ExitStack() as stack:
        at(gateway, "hyperverge", base_url=nowhere(how, simulator, stack))
        row = gateway.send("hyperverge")
        assert (row["outcome"], row["retryable"], row["status"]) == ("unreachable", True, "failed")
        assert "nothing was sent" in row["vendor_message"]
        checked = gateway.verify(open_flow["verification_id"], "123456")
        assert (checked["outcome"], checked["retryable"], checked["status"]) == ("unreachable", True, "pending")
        # Nobody compared the code: the try is given back. (To another host it is another account, where nobody has sent
        # anything: that leaves a stranger's part.)
        assert gateway.verification(open_flow["verification_id"])["check_count"] == 0
    assert simulator.count("hyperverge") == 1
    at(gateway, "hyperverge", base_url=simulator.url("hyperverge"))
    right = gateway.verify(open_flow["verification_id"], simulator.code("hyperverge", to))
    assert right["outcome"] == "approved"


def test_resend_that_may_have_voided_the_old_code(gateway, simulator):
    """REL-ID's resend is a cancel and a send. Where the cancel's answer is lost, no second code goes out on a guess."""
    to = gateway.number("relid")
    sent = gateway.send("relid", to)
    simulator.fault("close_after_read", "relid", "cancel", times=1)
    row = gateway.row("SELECT * FROM otp_resend(%s)", (sent["verification_id"],))
    assert row["outcome"] == "unknown"
    assert (simulator.count("relid", "cancel"), simulator.count("relid", "send")) == (1, 1)


def test_impatient_callers_send_once(gateway, simulator):
    """Cancelled, timed out, rolled back: the call goes on, once, and is on record."""
    simulator.fault("hold", "ideamart", "send")
    to = [gateway.number() for _ in range(3)]
    gateway.execute("SET statement_timeout = '200ms'")
    with pytest.raises(psycopg2.errors.QueryCanceled):
        gateway.send(to=to[0])
    gateway.execute("RESET statement_timeout")
    session = gateway.connect()
    pid = session.get_backend_pid()

    def cancelled():
        with pytest.raises(psycopg2.errors.QueryCanceled):
            gateway.send(to=to[1], session=session)

    thread = threading.Thread(target=cancelled)
    thread.start()
    simulator.held(2)
    gateway.execute("SELECT pg_cancel_backend(%s)", (pid,))
    thread.join(10)
    assert not thread.is_alive()
    dead = gateway.connect()

    def terminated():
        with pytest.raises(psycopg2.Error):
            gateway.send(to=to[2], session=dead)

    thread = threading.Thread(target=terminated)
    thread.start()
    simulator.held(3)
    gateway.execute("SELECT pg_terminate_backend(%s)", (dead.get_backend_pid(),))
    thread.join(10)
    assert not thread.is_alive()
    simulator.release()
    ids = gateway.execute("SELECT id FROM otp_gateway.attempt")
    assert [gateway.settled(id)["outcome"] for (id,) in ids] == ["sent"] * 3
    assert [simulator.count("ideamart", "send", number) for number in to] == [1, 1, 1]
    assert session.closed == 0
    session.close()


def test_one_statement_is_one_call(gateway, simulator):
    payload = json.dumps({"mobile": gateway.number()})
    rows = gateway.execute("SELECT (otp_send('ideamart', %s::jsonb)).*", (payload,))
    assert rows[0][3] == "sent"
    assert simulator.count("ideamart", "send") == 1
    # Two statements are two.
    gateway.execute("SELECT (otp_send('ideamart', %s::jsonb)).*", (payload,))
    assert simulator.count("ideamart", "send") == 2
