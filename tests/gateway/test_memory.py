"""Promise: when a call has ended, the memory of the worker that made it, shared memory included, holds no code, number,
Aadhaar number or token of it any more, however it ended: nothing to find in a core file or in swap. Credentials and OAuth
tokens stay, for the next call; so does, until the connection is used again or closed, what a vendor's last answer over TLS
said, in the buffer that rustls decrypts into (of the five, iServeU's names the number)."""

import json
import re

import pytest

from canaries import RUN, Canaries, digits, search
from conftest import FLOWS, Running, until
from simulator import VENDORS

WORKER = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'otp_gateway worker' AND datname = current_database()"
# What Postgres shows of a statement, literals and all, is in shared memory, and the session's own.
UNSEEN = "SET track_activities = off"


class Memory:
    """Of the gateway's worker, searched for what the test has made so far."""

    def __init__(self, gateway, directory):
        self.gateway, self.directory = gateway, directory
        self.before = {*RUN.texts, *RUN.numbers}

    def copy(self):
        """Every mapping that can be read, each as a file."""
        [(pid,)] = self.gateway.execute(WORKER)
        try:
            memory = open(f"/proc/{pid}/mem", "rb", 0)
        except PermissionError:
            pytest.skip("this machine lets nobody read the memory of another process")
        for file in self.directory.iterdir():
            file.unlink()
        with memory, open(f"/proc/{pid}/maps") as maps:
            for line in maps:
                begin, end, readable, name = re.match(r"(\w+)-(\w+) (.)\S+ \S+ \S+ \S+ *(.*)", line).groups()
                if readable == "r" and not name.startswith(("[vvar", "[vsyscall")):
                    memory.seek(int(begin, 16))
                    left = int(end, 16) - int(begin, 16)
                    with open(self.directory / f"{begin} {name.replace('/', '_')}", "wb") as file:
                        while left and (part := memory.read(min(left, 1 << 20))):
                            left -= len(part)
                            # Most of shared memory has never been used: holes.
                            file.write(part) if part.count(0) < len(part) else file.seek(len(part), 1)

    def hits(self):
        canaries = Canaries()
        canaries.texts = {value: canary for value, canary in RUN.texts.items() if value not in self.before}
        canaries.numbers = {value: canary for value, canary in RUN.numbers.items() if value not in self.before}
        assert canaries.texts or canaries.numbers
        control = canaries.text(self.gateway.control)
        self.copy()
        hits = search(self.directory, canaries)
        self.found = [hit for hit in hits if control not in hit]
        assert len(self.found) < len(hits), "the search is blind: it does not find the provider's name"
        return self.found

    def check_clean(self):
        """The caller may have its row a moment before the worker is done."""
        try:
            until(lambda: self.hits() == [], "the memory is clean", 10)
        except AssertionError:
            assert self.found == []
            raise


@pytest.fixture
def gateway(quick_gateway):
    quick_gateway.execute(UNSEEN)
    # Its worker is to be there, and to know this name: not a secret, but as easily found.
    quick_gateway.control = f"control{digits(12)}"
    quick_gateway.create_provider(quick_gateway.control, "ideamart")
    quick_gateway.send(quick_gateway.control, vendor="ideamart")
    return quick_gateway


@pytest.fixture
def memory(gateway, tmp_path):
    return Memory(gateway, tmp_path)


def play(gateway, simulator, vendor, provider):
    """A wrong code, a resend, the right code; and one that is given up."""
    to = gateway.number(vendor)
    longer = {"hyperverge": {"otp_length": 9}, "relid": {"controls": {"otp": {"otp_spec": "LN-9", "attempts": 3}}}}.get(
        vendor, {}
    )
    id = gateway.send(provider, to, vendor=vendor, **longer)["verification_id"]
    more = FLOWS[vendor]["verify"]
    assert gateway.verify(id, digits(9), **more)["outcome"] == "invalid_code"
    gateway.execute("SELECT otp_resend(%s)", (id,))
    assert gateway.verify(id, simulator.code(vendor, to), **more)["outcome"] == "approved"
    left = gateway.send(provider, vendor=vendor)["verification_id"]
    if vendor == "relid":
        gateway.execute("SELECT otp_cancel(%s)", (left,))


@pytest.mark.parametrize("vendor", VENDORS)
def test_flows(gateway, simulator, memory, vendor):
    for _ in range(5):
        play(gateway, simulator, vendor, vendor)
    memory.check_clean()


@pytest.mark.parametrize("vendor", ["hyperverge", "paytm", "relid", "ideamart"])
def test_tls(gateway, simulator, memory, vendor):
    ca = f"{simulator.directory.name}/tls/ca.pem"
    gateway.create_provider("encrypted", vendor, base_url=simulator.url(vendor, "https"), ca_file=ca)
    for _ in range(5):
        play(gateway, simulator, vendor, "encrypted")
    memory.check_clean()


def test_oauth(gateway, simulator, memory):
    gateway.create_provider(
        "oauth",
        "relid",
        {"client_id": "otp-app-memory", "client_secret": "otp-secret"},
        token_url=simulator.url("relid") + "/oauth/token",
    )
    for _ in range(5):
        play(gateway, simulator, "relid", "oauth")
    assert simulator.count("relid", "token") == 1
    memory.check_clean()


def test_queued(gateway, simulator, memory):
    for _ in range(10):
        for vendor in VENDORS:
            gateway.enqueue(vendor)
    gateway.settle()
    assert {simulator.count(vendor, "send") >= 10 for vendor in VENDORS} == {True}
    memory.check_clean()


def test_vendors_that_echo(gateway, simulator, memory):
    """Numbers and codes in every member of an answer and in its words."""
    for vendor in VENDORS:
        for operation in ("send", "verify"):
            to, typed = gateway.number(vendor), digits(9)
            echo = f"{to} {to.removeprefix('0')} {typed}"
            body = {
                "statusCode": "E1850",
                "statusDetail": echo,
                "status": "failure",
                "error": {"message": echo, "type": to},
                "body": {
                    "resultInfo": {"resultStatus": "F", "resultCode": "403", "resultMsg": echo},
                    "also": [typed, to],
                },
                "response_code": 1,
                "error_code": 7,
                "otp": typed,
                "x": [echo, {to: to}],
            }
            if operation == "send":
                simulator.fault("reply", vendor, "send", times=1, body=body)
            id = gateway.send(vendor, to)["verification_id"]
            if operation == "verify":
                simulator.fault("reply", vendor, "verify", times=1, body=body)
                gateway.verify(id, typed, **FLOWS[vendor]["verify"])
    memory.check_clean()


FAULTS = (
    "close_before_read",
    "close_after_read",
    "reset",
    "status",
    "html",
    "redirect",
    "truncated",
    "truncated_json",
    "wrong_type",
    "not_utf8",
    "huge",
    "deep",
)


def test_vendors_that_fail(gateway, simulator, memory):
    for kind in FAULTS:
        simulator.fault(kind, operation="send")
        for vendor in VENDORS:
            assert gateway.send(vendor)["outcome"] != "sent"
        simulator.clear_faults()
    memory.check_clean()


def test_a_call_under_way_is_found_and_then_it_is_not(gateway, simulator, memory):
    """The search can find them: while the vendor has not answered, number and token are there; so for one given up."""
    session = gateway.connect()
    gateway.execute(UNSEEN, session=session)
    for statement in (
        "SELECT * FROM otp_send('paytm', %s::jsonb)",
        "SET statement_timeout = '300ms'; SELECT * FROM otp_send('paytm', %s::jsonb)",
    ):
        body = FLOWS["paytm"]["send"](to := gateway.number("paytm"))
        simulator.fault("hold", "paytm", "send", times=1)
        call = Running(session, statement, (json.dumps(body),))
        simulator.held(1)
        if "timeout" in statement:
            call.wait()
        hits = memory.hits()
        for value in (to, body["token"]):
            assert any(f":{value}" in hit for hit in hits), f"not found: {value}"
        simulator.release()
        call.wait()
        memory.check_clean()
