"""Promise: the page of examples/node does in a browser what its README says: number, code, tries left, signed in, and a
countdown where one has to wait. A real Chromium, driven by WebDriver."""

import base64
import json
import os
import shutil
import subprocess
import time
import urllib.request

import pytest

from conftest import PLACE, ROOT, free_port

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"


class Browser:
    def __init__(self, port):
        self.at = f"http://127.0.0.1:{port}"
        switches = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--window-size=480,640",
        ]
        wanted = {"alwaysMatch": {"browserName": "chrome", "goog:chromeOptions": {"args": switches}}}
        self.session = f"/session/{self.ask('POST', '/session', {'capabilities': wanted})['sessionId']}"

    def ask(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(urllib.request.Request(self.at + path, data, method=method), timeout=60) as answer:
            return json.loads(answer.read())["value"]

    def __call__(self, what, body=None):
        return self.ask("GET" if body is None else "POST", self.session + what, body)

    def element(self, selector):
        return f"/element/{self('/element', {'using': 'css selector', 'value': selector})[ELEMENT]}"

    def enter(self, form, text):
        field = self.element(f"#{form} input")
        self(f"{field}/clear", {})
        self(f"{field}/value", {"text": text})
        self(f"{self.element(f'#{form} button')}/click", {})

    def says(self, words):
        """What the page tells, once it tells that."""
        end = time.monotonic() + 20
        while words not in (said := self(f"{self.element('#said')}/text")):
            assert time.monotonic() < end, said
            time.sleep(0.02)
        return said

    def close(self):
        self.ask("DELETE", self.session)


@pytest.fixture
def page(place, tmp_path):
    """The application, through PgBouncer, at a provider that asks for 30 s between two sends."""
    shutil.copytree(ROOT / "examples/node", tmp_path, dirs_exist_ok=True)
    (tmp_path / "node_modules").symlink_to(PLACE / "sign-in/node_modules")
    port = str(free_port())
    at = {
        "PGHOST": "127.0.0.1",
        "PGPORT": str(place.bouncer("transaction")),
        "PGUSER": "app",
        "PGDATABASE": "postgres",
        "LISTEN_PORT": str(place.cluster.port),
        "OTP_PROVIDER": "patient",
        "PORT": port,
    }
    server = subprocess.Popen(["node", "server.js"], cwd=tmp_path, env={"PATH": "/usr/bin:/bin", **at})
    try:
        answers(f"http://127.0.0.1:{port}/")
        yield f"http://127.0.0.1:{port}/"
    finally:
        server.terminate()
        server.wait()


@pytest.fixture
def browser():
    port = free_port()
    driver = subprocess.Popen(["chromedriver", f"--port={port}", "--log-level=SEVERE"], stdout=subprocess.DEVNULL)
    try:
        answers(f"http://127.0.0.1:{port}/status")
        browser = Browser(port)
        yield browser
        browser.close()
    finally:
        driver.terminate()
        driver.wait()


def answers(url):
    end = time.monotonic() + 30
    while True:
        try:
            return urllib.request.urlopen(url, timeout=10).close()
        except OSError:
            assert time.monotonic() < end, f"{url} does not answer"
            time.sleep(0.05)


def test_sign_in(place, page, browser):
    mobile = place.number()
    browser("/url", {"url": page})
    browser.enter("number", "abc")
    browser.says("Please look at the number.")
    browser.enter("number", mobile)
    browser.says("We have sent a code to your number.")
    # A second click: the countdown runs, and the first code is still the right one.
    browser.enter("number", mobile)
    first = browser.says("Please try again in")
    while (later := browser.says("Please try again in")) == first:
        time.sleep(0.05)
    assert int(first.split()[-2]) > int(later.split()[-2]) > 0
    browser.enter("code", "123456")
    browser.says("That is not the code. Tries left: 4")
    if picture := os.environ.get("SCREENSHOT"):
        with open(picture, "wb") as file:
            file.write(base64.b64decode(browser("/screenshot")))
    browser.enter("code", "000 000")
    browser.says("You are signed in.")
    # It is the browser's session, as the server knows it.
    browser("/url", {"url": page + "me"})
    assert mobile in browser(f"{browser.element('body')}/text")
