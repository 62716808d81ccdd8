"""The vendor simulator (tests/simulator) as a test sees it: started, asked, told to misbehave."""

import json
import os
import pathlib
import subprocess
import tempfile
import urllib.error
import urllib.parse
import urllib.request

from vendors import VENDORS as VENDORS

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = pathlib.Path(os.environ.get("OTP_SIMULATOR", ROOT / "target/release/simulator"))


def fields(entry):
    """The body of a request as it stands in the log, be it JSON or a form."""
    if not isinstance(entry["body"], str):
        return entry["body"]
    pairs = urllib.parse.parse_qsl(entry["body"], keep_blank_values=True, strict_parsing=True)
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


class Simulator:
    def __init__(self, *arguments):
        self.directory = tempfile.TemporaryDirectory(prefix="otp_simulator_", dir="/tmp")
        os.chmod(self.directory.name, 0o755)
        ready = pathlib.Path(self.directory.name) / "ready.json"
        ports = [word for name in ("http", "https", "mtls", "control") for word in (f"--{name}", "127.0.0.1:0")]
        self.process = subprocess.Popen(
            [BINARY, *ports, "--tls-dir", f"{self.directory.name}/tls", "--ready-file", str(ready), *arguments],
            stdout=subprocess.PIPE,
            text=True,
        )
        # It prints its addresses when it listens; the ready file is written before.
        for _ in self.process.stdout:
            if ready.exists():
                break
        self.at = json.loads(ready.read_text())

    def stop(self):
        self.process.terminate()
        self.process.wait()
        self.process.stdout.close()
        self.directory.cleanup()

    def url(self, vendor, scheme="http"):
        """What a provider's base_url is."""
        return f"{self.at[scheme]}/{vendor}"

    def ask(self, method, path, body=None, **query):
        url = f"{self.at['control']}{path}"
        if query:
            url += "?" + urllib.parse.urlencode({name: value for name, value in query.items() if value is not None})
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data=data, method=method)
        try:
            with urllib.request.urlopen(request, timeout=70) as answer:
                text = answer.read()
        except urllib.error.HTTPError as error:
            raise AssertionError(f"simulator refused {method} {path}: {error.read().decode()}") from None
        return json.loads(text) if text else None

    def code(self, vendor, recipient, wait=5000, atleast=None):
        """The code that a recipient got: waits for it."""
        return self.ask("GET", f"/inbox/{vendor}/{urllib.parse.quote(recipient)}", wait=wait, atleast=atleast)["code"]

    def wrong(self, vendor, recipient):
        """A code of the same form that is not the right one."""
        right = self.code(vendor, recipient)
        return right[:-1] + ("1" if right[-1] != "1" else "2")

    def count(self, vendor=None, operation=None, recipient=None, atleast=None, wait=None):
        return self.ask(
            "GET", "/count", vendor=vendor, operation=operation, recipient=recipient, atleast=atleast, wait=wait
        )["count"]

    def log(self, vendor=None, operation=None):
        return self.ask("GET", "/log", vendor=vendor, operation=operation)

    def keys(self, vendor=None, operation=None):
        return self.ask("GET", "/keys", vendor=vendor, operation=operation)

    def fault(self, kind, vendor="*", operation="*", **how):
        self.ask("POST", "/fault", {"kind": kind, "vendor": vendor, "operation": operation, **how})

    def clear_faults(self):
        self.ask("DELETE", "/fault")

    def held(self, atleast, wait=10000):
        """Waits until so many requests are held back."""
        held = self.ask("GET", "/held", atleast=atleast, wait=wait)["held"]
        assert held >= atleast, f"only {held} of {atleast} requests arrived"
        return held

    def release(self):
        self.ask("POST", "/release")

    def advance(self, seconds):
        self.ask("POST", "/clock", {"advance_seconds": seconds})

    def reset(self):
        self.ask("POST", "/reset")
