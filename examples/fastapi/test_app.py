"""The application's own tests, against the sandbox; one against a vendor that does not answer (tests/simulator), where
SIMULATOR names its control port."""

import json
import os
import random
import secrets
import threading
import traceback
import urllib.request

import app as application
import by_asyncpg
import by_sqlalchemy
import pytest
from fastapi.testclient import TestClient


@pytest.fixture(params=[by_asyncpg, by_sqlalchemy], ids=lambda by: by.__name__)
def browser(request, monkeypatch):
    monkeypatch.setattr(application, "Database", request.param.Database)
    with TestClient(application.app) as client:
        yield client


def number():
    return f"077{random.randrange(10**7):07}"


def send(browser, mobile, key=None):
    return browser.post("/code", json={"mobile": mobile}, headers={"Idempotency-Key": key or secrets.token_hex(8)})


def enter(browser, code):
    return browser.post("/session", json={"code": code})


def test_sign_in(browser):
    mobile = number()
    assert enter(browser, "000000").status_code == 410
    assert send(browser, mobile).status_code == 202
    wrong = enter(browser, "123456")
    assert (wrong.status_code, wrong.json()) == (422, {"outcome": "invalid_code", "attempts_left": 4})
    assert browser.get("/me").status_code == 401
    assert enter(browser, " 000-000 ").status_code == 200
    assert browser.get("/me").json() == {"mobile": mobile}
    # The proof was for one log-in.
    assert enter(browser, "000000").status_code == 410


def test_the_second_click(browser, monkeypatch):
    """429 with Retry-After, and the code that the person holds is still the right one."""
    monkeypatch.setattr(application, "PROVIDER", "patient")
    mobile = number()
    assert send(browser, mobile).status_code == 202
    again = send(browser, mobile)
    assert again.status_code == 429 and 0 < int(again.headers["Retry-After"]) <= 30
    assert enter(browser, "000000").status_code == 200


def test_one_request_twice(browser, monkeypatch):
    """The same key is the same send, blocked or not."""
    monkeypatch.setattr(application, "PROVIDER", "patient")
    mobile, key = number(), secrets.token_hex(8)
    assert [send(browser, mobile, key).status_code for _ in range(2)] == [202, 202]


def test_a_number_that_is_none(browser):
    assert send(browser, "abc").status_code == 422


def test_no_exception_has_what_was_typed(browser, monkeypatch):
    """SQLAlchemy puts the parameters into its exceptions, unless it is told to hide them."""
    monkeypatch.setattr(application, "PROVIDER", "nobody's")
    with pytest.raises(Exception, match="nobody's") as raised:
        send(browser, mobile := number())
    assert mobile not in "".join(traceback.format_exception(raised.value))


@pytest.mark.skipif("SIMULATOR" not in os.environ, reason="make examples starts the simulator")
def test_a_vendor_that_does_not_answer(browser, monkeypatch):
    """The time-out of the client; its second look has the row of the one call, once the vendor has answered."""
    monkeypatch.setattr(application, "PROVIDER", "vendor")
    monkeypatch.setattr(application, "TIMEOUTS", (1, 30))
    mobile = number()
    simulator("/fault", {"kind": "hold", "vendor": "ideamart", "operation": "send", "times": 1})
    looks = []
    ask = application.Database.send

    async def counted(database, provider, mobile, key, timeout):
        looks.append(timeout)
        # The vendor answers while the second look waits.
        if len(looks) == 2:
            threading.Timer(0.5, simulator, ["/release", {}]).start()
        return await ask(database, provider, mobile, key, timeout)

    monkeypatch.setattr(application.Database, "send", counted)
    assert send(browser, mobile).status_code == 202
    assert looks == [1, 30]
    assert simulator(f"/count?vendor=ideamart&operation=send&recipient={mobile}") == {"count": 1}


def simulator(path, body=None):
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(os.environ["SIMULATOR"] + path, data=data)) as response:
        text = response.read()
    return json.loads(text) if text else None
