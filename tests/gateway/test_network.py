"""Promise: TLS is checked, mutual TLS and OAuth work, redirects and proxies are not followed, and whatever a network or a
vendor answers (too much, half of it, nonsense, an HTTP status alone) becomes an outcome of the common rules, is on
record, and harms no other call."""

import contextlib
import email.utils
import json
import os
import pathlib
import shutil
import socket
import ssl
import subprocess
import threading
import time
import warnings

import psycopg2
import pytest

from cluster import Cluster
from conftest import FLOWS, Gateway, Running
from test_at_most_once import at
from vendors import TABLE


@pytest.fixture
def gateway(quick_gateway):
    return quick_gateway


@pytest.fixture
def tls(simulator):
    """The simulator's certificates, where the server's user may read them."""
    source = pathlib.Path(simulator.at["tls_dir"])
    directory = pathlib.Path(simulator.directory.name) / "readable"
    directory.mkdir(exist_ok=True)
    directory.chmod(0o755)
    for file in source.iterdir():
        shutil.copy(file, directory)
        (directory / file.name).chmod(0o644)
    return directory


def flow(gateway, simulator, vendor):
    to = gateway.number(vendor)
    sent = gateway.send(vendor, to)
    assert sent["outcome"] == "sent", sent
    right = gateway.verify(sent["verification_id"], simulator.code(vendor, to), **FLOWS[vendor]["verify"])
    assert right["outcome"] == "approved", right


def test_https(gateway, simulator, tls):
    at(
        gateway,
        "ideamart",
        base_url=simulator.url("ideamart", "https"),
        allow_plain_http="false",
        ca_file=tls / "ca.pem",
    )
    flow(gateway, simulator, "ideamart")
    assert {entry["listener"] for entry in simulator.log()} == {"https"}
    # One TLS session for all.
    assert len({entry["connection"] for entry in simulator.log()}) == 1


def test_https_of_an_authority_that_nobody_named(gateway, simulator):
    at(gateway, "ideamart", base_url=simulator.url("ideamart", "https"))
    row = gateway.send()
    assert (row["outcome"], row["retryable"]) == ("unreachable", True)
    assert "certificate" in row["vendor_message"].lower() or "issuer" in row["vendor_message"].lower()
    assert simulator.count() == 0


def test_https_to_another_name(gateway, simulator, tls):
    """A certificate of another host is refused, whoever signed it."""
    url = simulator.url("ideamart", "https").replace("127.0.0.1", "127.0.0.2")
    at(gateway, "ideamart", base_url=url, ca_file=tls / "ca.pem")
    assert gateway.send()["outcome"] == "unreachable"
    assert simulator.count() == 0


@contextlib.contextmanager
def tls_server(certificate, oldest=ssl.TLSVersion.TLSv1_2, newest=ssl.TLSVersion.TLSv1_3):
    """Speaks TLS of any version, with any certificate; notes what it hears once a handshake is done, and hangs up."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_suffix(".key"))
    # Left to itself, Python speaks nothing old.
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version, context.maximum_version = oldest, newest
    heard = []

    def serve(listener):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with (
                    contextlib.suppress(OSError),
                    connection,
                    context.wrap_socket(connection, server_side=True) as inside,
                ):
                    heard.append(inside.recv(4))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        yield f"https://127.0.0.1:{listener.getsockname()[1]}", heard
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(10)


class Authority:
    """A certificate authority of the test's own, and the certificates that it writes."""

    def __init__(self, directory):
        self.directory = directory
        directory.mkdir()
        directory.chmod(0o755)
        (directory / "index").touch()
        (directory / "ca.cnf").write_text(
            f"[ca]\ndefault_ca = own\n[own]\ndatabase = {directory}/index\nnew_certs_dir = {directory}\n"
            "unique_subject = no\nrand_serial = yes\ndefault_md = sha256\npolicy = any\n[any]\ncommonName = supplied\n"
        )
        self.ca = self.request("ca", "-x509", suffix="pem")

    def self_signed(self, name):
        extensions = ("-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE")
        return self.request(name, "-x509", *extensions, suffix="pem")

    def certificate(self, name, subject_name="IP:127.0.0.1", days=(-1, 30)):
        begins, ends = (time.strftime("%Y%m%d%H%M%SZ", time.gmtime(time.time() + 86400 * day)) for day in days)
        request = self.request(name, suffix="csr")
        extensions = request.with_suffix(".ext")
        extensions.write_text(f"subjectAltName={subject_name}\n")
        self.openssl(
            "ca",
            "-batch",
            "-notext",
            "-config",
            self.directory / "ca.cnf",
            "-cert",
            self.ca,
            "-keyfile",
            self.ca.with_suffix(".key"),
            "-in",
            request,
            "-out",
            request.with_suffix(".pem"),
            "-extfile",
            extensions,
            "-startdate",
            begins,
            "-enddate",
            ends,
        )
        return request.with_suffix(".pem")

    def request(self, name, *arguments, suffix):
        file = self.directory / f"{name}.{suffix}"
        self.openssl(
            "req",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-subj",
            f"/CN={name}",
            "-keyout",
            file.with_suffix(".key"),
            "-out",
            file,
            *arguments,
        )
        file.chmod(0o644)
        return file

    def openssl(self, *arguments):
        subprocess.run(["openssl", *map(str, arguments)], check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


@pytest.fixture(scope="module")
def authority(simulator_program):
    return Authority(pathlib.Path(simulator_program.directory.name) / "authority")


def handshakes(gateway, url, heard, ca_file):
    """Whether a send came through to TLS, and what was said of it."""
    at(gateway, "ideamart", base_url=url, ca_file=ca_file)
    row = gateway.send()
    assert row["outcome"] == ("unknown" if heard else "unreachable"), (row, heard)
    assert heard in ([], [b"POST"])
    return bool(heard), row["vendor_message"]


VERSIONS = [
    (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1, False),
    (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_2, True),
    (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2, True),
    (ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_3, True),
]


@pytest.mark.parametrize(
    "oldest, newest, expected", VERSIONS, ids=[newest.name + oldest.name for oldest, newest, _ in VERSIONS]
)
def test_tls_1_2_at_least(gateway, authority, oldest, newest, expected):
    with tls_server(authority.certificate("vendor"), oldest, newest) as (url, heard):
        came_through, why = handshakes(gateway, url, heard, authority.ca)
    assert came_through == expected
    assert expected or "ProtocolVersion" in why, why


CERTIFICATES = [
    ("good", lambda authority: authority.certificate("good"), None),
    ("expired", lambda authority: authority.certificate("expired", days=(-30, -1)), "expired"),
    ("not yet valid", lambda authority: authority.certificate("early", days=(1, 30)), "not valid yet"),
    (
        "of another host",
        lambda authority: authority.certificate("other", "IP:127.0.0.2,DNS:localhost"),
        "not valid for name",
    ),
    (
        "of a name that looks like it",
        lambda authority: authority.certificate("alike", "DNS:127.0.0.1"),
        "not valid for name",
    ),
    ("self-signed", lambda authority: authority.self_signed("self"), "UnknownIssuer"),
    (
        "of another authority",
        lambda authority: Authority(authority.directory / "other").certificate("foreign"),
        "BadSignature",
    ),
]


@pytest.mark.parametrize("what, make, why", CERTIFICATES, ids=[what for what, _, _ in CERTIFICATES])
def test_certificate_is_verified(gateway, authority, what, make, why):
    with tls_server(make(authority)) as (url, heard):
        came_through, said = handshakes(gateway, url, heard, authority.ca)
    assert came_through == (why is None)
    assert why is None or why in said, said


def test_verification_cannot_be_turned_off(gateway):
    options = [
        "verify",
        "ssl_verify",
        "verify_peer",
        "verify_host",
        "insecure",
        "skip_verify",
        "sslmode",
        "tls_min_version",
        "accept_invalid_certs",
        "danger_accept_invalid_certs",
    ]
    for option in options:
        for value in ("false", "0", "off", "true", "disable"):
            with pytest.raises(psycopg2.errors.FdwInvalidOptionName):
                gateway.execute(f"ALTER SERVER ideamart OPTIONS (ADD {option} '{value}')")
    settings = gateway.execute("SELECT name FROM pg_settings WHERE name LIKE 'otp\\_gateway.%'")
    assert not any(word in name for (name,) in settings for word in ("tls", "ssl", "verify", "insecure", "certificate"))


def test_mutual_tls(gateway, simulator, tls):
    url = simulator.url("relid", "mtls")
    at(gateway, "relid", base_url=url, ca_file=tls / "ca.pem")
    # In TLS 1.3 the client has done its part before it is refused.
    assert gateway.send("relid")["outcome"] in ("unreachable", "unknown")
    assert simulator.count() == 0
    gateway.execute(
        f"ALTER SERVER relid OPTIONS (ADD client_cert_file '{tls}/client.pem', ADD client_key_file '{tls}/client.key')"
    )
    flow(gateway, simulator, "relid")
    assert {entry["listener"] for entry in simulator.log()} == {"mtls"}


@pytest.mark.parametrize("file", ["ca.pem", "client.pem", "client.key"])
@pytest.mark.parametrize("what", ["missing", "nonsense"])
def test_broken_certificate_file(gateway, simulator, tls, file, what):
    at(gateway, "relid", base_url=simulator.url("relid", "mtls"), ca_file=tls / "ca.pem")
    gateway.execute(
        f"ALTER SERVER relid OPTIONS (ADD client_cert_file '{tls}/client.pem', ADD client_key_file '{tls}/client.key')"
    )
    flow(gateway, simulator, "relid")
    if what == "missing":
        (tls / file).unlink()
    else:
        (tls / file).write_text("nonsense")
        os.utime(tls / file, (1, 1))
    row = gateway.send("relid")
    assert row["outcome"] == "unreachable"
    assert file in row["vendor_message"], row["vendor_message"]
    # Put right, it works, without a restart.
    shutil.copy(pathlib.Path(simulator.at["tls_dir"]) / file, tls / file)
    (tls / file).chmod(0o644)
    flow(gateway, simulator, "relid")


# OAuth


@pytest.fixture
def oauth(gateway, simulator):
    def provider(name="relid_oauth", **credentials):
        # Of its own for each test: the worker keeps tokens.
        credentials = {"client_id": f"otp-app-{os.urandom(4).hex()}", "client_secret": "otp-secret", **credentials}
        gateway.create_provider(name, "relid", credentials, token_url=simulator.url("relid") + "/oauth/token")

    return provider


def sends(gateway, count, provider="relid_oauth"):
    rows, lock = [], threading.Lock()
    numbers = [gateway.number("relid") for _ in range(count)]

    def run(to):
        session = gateway.connect()
        row = gateway.send(provider, to, session, vendor="relid")
        with lock:
            rows.append(row)
        session.close()

    threads = [threading.Thread(target=run, args=(to,)) for to in numbers]
    [thread.start() for thread in threads]
    [thread.join(30) for thread in threads]
    return [row["outcome"] for row in rows]


def test_one_token_for_many_calls(gateway, simulator, oauth):
    oauth()
    simulator.fault("latency", "relid", "token", ms=200)
    assert sends(gateway, 12) == ["sent"] * 12
    assert sends(gateway, 3) == ["sent"] * 3
    assert (simulator.count("relid", "token"), simulator.count("relid", "send")) == (1, 15)
    (token,) = simulator.log("relid", "token")
    assert (token["complaint"], token["method"], token["body"]) == (
        None,
        "POST",
        "grant_type=client_credentials&scope=all",
    )
    assert token["headers"]["authorization"].startswith("Basic ")
    authorizations = {entry["headers"]["authorization"] for entry in simulator.log("relid", "send")}
    assert len(authorizations) == 1 and authorizations.pop().startswith("Bearer simulated-")


@pytest.mark.parametrize("how", ["expired", "revoked"])
def test_refused_token_is_renewed_once(gateway, simulator, oauth, how):
    oauth()
    to = gateway.number("relid")
    sent = gateway.send("relid_oauth", to, vendor="relid")
    if how == "expired":
        simulator.advance(301)
        sent = None
    else:
        simulator.ask("POST", "/revoke")
    before = simulator.count("relid", "send")
    row = gateway.send("relid_oauth", vendor="relid")
    assert row["outcome"] == "sent"
    assert gateway.attempts(row["verification_id"]) == [("send", "sent")]
    assert simulator.count("relid", "token") == 2
    # The call that met the 401 was not processed; it is repeated once.
    assert [entry["status"] for entry in simulator.log("relid", "send")[before:]] == [401, 200]
    if sent:
        right = gateway.verify(sent["verification_id"], simulator.code("relid", to))
        assert right["outcome"] == "approved"
    assert simulator.count("relid", "token") == 2


def test_token_that_is_always_refused(gateway, simulator, oauth):
    oauth()
    assert gateway.send("relid_oauth", vendor="relid")["outcome"] == "sent"
    simulator.fault("status", "relid", "send", status=401)
    row = gateway.send("relid_oauth", vendor="relid")
    assert (row["outcome"], row["retryable"]) == ("auth_failed", False)
    assert (simulator.count("relid", "send"), simulator.count("relid", "token")) == (3, 2)


def test_many_refused_at_once_renew_once(gateway, simulator, oauth):
    oauth()
    assert sends(gateway, 1) == ["sent"]
    simulator.ask("POST", "/revoke")
    assert sends(gateway, 10) == ["sent"] * 10
    assert simulator.count("relid", "token") == 2


def test_wrong_client_secret(gateway, simulator, oauth):
    oauth(client_secret="wrong-one")
    row = gateway.send("relid_oauth", vendor="relid")
    assert (row["outcome"], row["retryable"]) == ("auth_failed", False)
    assert "client_secret" in row["vendor_message"] and "wrong-one" not in row["vendor_message"]
    assert simulator.count("relid", "send") == 0


@pytest.mark.parametrize(
    "kind, outcome",
    [
        ("close_after_read", "unreachable"),
        ("never", "unreachable"),
        ("html", "provider_error"),
        ("status", "provider_error"),
        ("redirect", "provider_error"),
        ("huge", "provider_error"),
    ],
)
def test_no_token_no_call(gateway, simulator, oauth, kind, outcome):
    oauth()
    at(gateway, "relid_oauth", timeout="700ms")
    simulator.fault(kind, "relid", "token", times=1)
    row = gateway.send("relid_oauth", vendor="relid")
    assert (row["outcome"], row["retryable"]) == (outcome, True)
    assert (simulator.count("relid", "send"), simulator.count("redirected")) == (0, 0)
    assert gateway.send("relid_oauth", vendor="relid")["outcome"] == "sent"


@pytest.mark.parametrize("life, fetches", [("9223372036854775807", 1), (10**18, 1), (None, 1), (0, 2)])
def test_how_long_a_token_lives(gateway, simulator, oauth, life, fetches):
    """However long its server says: what never ends is no fault."""
    oauth()
    simulator.fault("reply", "relid", "token", times=1, body={"access_token": "a-token", "expires_in": life})
    assert sends(gateway, 1) + sends(gateway, 1) == ["sent", "sent"]
    assert simulator.count("relid", "token") == fetches


@pytest.mark.parametrize(
    "status, answer",
    [
        (401, lambda token: {"error": "invalid_token", "error_description": f"Invalid access token: {token}"}),
        (403, lambda token: f"<html>Authorization: Bearer {token} is not known</html>"),
        (
            200,
            lambda token: {
                "response_code": 1,
                "error_code": 7014,
                "error_message": f"not with {token}",
                token: [token],
            },
        ),
    ],
)
def test_an_access_token_that_is_echoed(gateway, simulator, oauth, status, answer):
    """It is the account's, as the password is: the record has it nowhere."""
    oauth()
    token = f"token-{os.urandom(8).hex()}"
    simulator.fault("reply", "relid", "token", times=1, body={"access_token": token, "expires_in": 300})
    simulator.fault("reply", "relid", "send", times=1, status=status, body=answer(token))
    row = gateway.send("relid_oauth", vendor="relid")
    ((attempt,),) = gateway.execute("SELECT a::text FROM otp_gateway.attempt AS a")
    assert "[redacted]" in attempt and token not in attempt + str(row["vendor_message"])


def test_a_token_url_is_called_as_it_is_written(gateway, simulator, oauth):
    """Also with a slash at its end, where many servers have none without."""
    oauth()
    gateway.execute(f"ALTER SERVER relid_oauth OPTIONS (SET token_url '{simulator.url('relid')}/oauth/token/')")
    row = gateway.send("relid_oauth", vendor="relid")
    assert row["outcome"] == "provider_error" and "from token_url" in row["vendor_message"]
    gateway.execute(f"ALTER SERVER relid_oauth OPTIONS (SET token_url '{simulator.url('relid')}/oauth/token')")
    assert gateway.send("relid_oauth", vendor="relid")["outcome"] == "sent"


def test_nobody_waits_longer_than_their_timeout_for_anothers_token(gateway, simulator, oauth):
    """Two providers of one account, of which one has more patience: the other one's calls do not wait along with it."""
    credentials = {"client_id": f"otp-app-{os.urandom(4).hex()}"}
    oauth("patient", **credentials)
    oauth("hurried", **credentials)
    gateway.execute("ALTER SERVER patient OPTIONS (ADD timeout '60s')")
    gateway.execute("ALTER SERVER hurried OPTIONS (ADD timeout '1s')")
    simulator.fault("hold", "relid", "token")
    body = json.dumps(FLOWS["relid"]["send"](gateway.number("relid")))
    patient = Running(gateway.connect(), "SELECT * FROM otp_send('patient', %s::jsonb)", (body,))
    simulator.held(1)
    began = time.monotonic()
    row = gateway.send("hurried", vendor="relid")
    assert row["outcome"] == "unreachable" and time.monotonic() - began < 10
    assert "no access token from token_url (another call was still fetching it" in row["vendor_message"]
    simulator.clear_faults()
    simulator.release()
    assert patient.row()["outcome"] == "sent"


def test_access_token(gateway, simulator):
    gateway.create_provider("relid_token", "relid", {"access_token": "configured"})
    assert gateway.send("relid_token", vendor="relid")["outcome"] == "sent"
    assert simulator.log("relid", "send")[0]["headers"]["authorization"] == "Bearer configured"
    gateway.create_provider("relid_wrong", "relid", {"access_token": "wrong"})
    assert gateway.send("relid_wrong", vendor="relid")["outcome"] == "auth_failed"
    assert simulator.count("relid", "send") == 2


# Elsewhere


@pytest.mark.parametrize(
    "status, outcome",
    # The vendor may have done its work, and point to the result; or nothing yet, and the request is to go elsewhere.
    [(301, "unknown"), (302, "unknown"), (303, "unknown"), (307, "provider_error"), (308, "provider_error")],
)
def test_redirect_is_not_followed(gateway, simulator, status, outcome):
    simulator.fault("redirect", status=status, location=simulator.at["http"] + "/redirected")
    for vendor in FLOWS:
        row = gateway.send(vendor)
        assert row["outcome"] == outcome
        assert "base_url" in row["vendor_message"] and str(status) in row["vendor_message"]
    assert simulator.count("redirected") == 0
    assert simulator.count() == len(FLOWS)


def test_proxy_of_the_environment_is_ignored(simulator, monkeypatch):
    """A proxy would read numbers, codes and credentials."""
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        proxy.settimeout(0)
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            for spelled in (name, name.lower()):
                monkeypatch.setenv(spelled, f"http://127.0.0.1:{proxy.getsockname()[1]}")
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        cluster = Cluster().create()
        try:
            cluster.start()
            for name in ("NO_PROXY", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
                monkeypatch.delenv(name, raising=False)
            environment = pathlib.Path(f"/proc/{cluster.postmaster_pid()}/environ").read_bytes()
            assert b"HTTP_PROXY=http://127.0.0.1" in environment
            with cluster.session() as session:
                session.cursor().execute("CREATE EXTENSION otp_gateway")
            with Gateway(cluster, "postgres", simulator) as gateway:
                gateway.create_providers()
                flow(gateway, simulator, "ideamart")
            with pytest.raises(BlockingIOError):
                proxy.accept()
        finally:
            cluster.remove()


# Answers that are none


UNREADABLE = [
    ("huge", "longer than 1 MiB"),
    ("truncated", "connection"),
    ("truncated_json", "not JSON"),
    ("wrong_type", "documented form"),
    ("not_utf8", "UTF-8"),
    ("deep", "deeper"),
    ("html", "not JSON"),
    ("drip", "timeout"),
    ("never", "timeout"),
]


@pytest.mark.parametrize("kind, why", UNREADABLE, ids=[kind for kind, _ in UNREADABLE])
@pytest.mark.parametrize("vendor", list(FLOWS))
def test_unreadable_answer(gateway, simulator, vendor, kind, why):
    at(gateway, vendor, timeout="900ms" if kind in ("drip", "never") else "10s")
    simulator.fault(kind, vendor, "send", times=1)
    began = time.monotonic()
    row = gateway.send(vendor)
    assert (row["outcome"], row["status"], row["retryable"]) == ("unknown", "unknown", False)
    if TABLE[vendor].wrapper == "rest":
        why = why.replace("documented form", "no line of the description")
    assert why in row["vendor_message"], row["vendor_message"]
    assert time.monotonic() - began < 5
    (recorded,) = gateway.execute("SELECT outcome::text, vendor_message FROM otp_gateway.attempt")
    assert recorded == ("unknown", row["vendor_message"])
    assert gateway.send(vendor)["outcome"] == "sent"


STATUSES = [
    # HTTP status, body, headers, outcome, retryable, retry_after in seconds
    (500, "", {}, "unknown", False, None),
    (502, "<html>Bad gateway</html>", {}, "unknown", False, None),
    (504, "", {}, "unknown", False, None),
    (503, "", {}, "provider_error", True, None),
    (503, "", {"Retry-After": "30"}, "provider_error", True, 30),
    (401, "", {}, "auth_failed", False, None),
    (403, "<html>Forbidden</html>", {}, "auth_failed", False, None),
    (404, "", {}, "refused", False, None),
    (404, "<html>Not found</html>", {}, "unknown", False, None),
    (503, "upstream connect error or disconnect/reset before headers", {}, "unknown", False, None),
    (503, "<html>Busy</html>", {"Retry-After": "30"}, "provider_error", True, 30),
    (429, "", {"Retry-After": "7"}, "rate_limited", True, 7),
    (429, "", {}, "rate_limited", True, None),
    (429, "", {"Retry-After": "soon"}, "rate_limited", True, None),
    (429, "", {"Retry-After": "99999999999999999999"}, "rate_limited", True, None),
    (200, "", {}, "unknown", False, None),
    (204, "", {}, "unknown", False, None),
]


@pytest.mark.parametrize("status, body, headers, outcome, retryable, seconds", STATUSES)
def test_bare_status(gateway, simulator, status, body, headers, outcome, retryable, seconds):
    simulator.fault("status", status=status, body=body, headers=headers)
    for vendor in FLOWS:
        row = gateway.send(vendor)
        assert (row["outcome"], row["retryable"]) == (outcome, retryable), (vendor, row)
        assert (row["retry_after"] and row["retry_after"].total_seconds()) == seconds, (vendor, row["retry_after"])
        recorded = gateway.row(
            "SELECT http_status, outcome::text FROM otp_gateway.attempt WHERE id = %s", (row["attempt_id"],)
        )
        assert recorded == {"http_status": status, "outcome": outcome}
    assert simulator.count() == len(FLOWS)


def test_retry_after_as_a_date(gateway, simulator):
    """RFC 9110 has two forms of Retry-After."""
    simulator.fault(
        "status", status=429, headers={"Retry-After": email.utils.formatdate(time.time() + 60, usegmt=True)}
    )
    assert 50 <= gateway.send()["retry_after"].total_seconds() <= 61


def test_failing_verify_is_not_retryable(gateway, simulator):
    to = gateway.number("hyperverge")
    sent = gateway.send("hyperverge", to)
    simulator.fault("status", "hyperverge", "verify", status=503, times=1)
    row = gateway.verify(sent["verification_id"], simulator.code("hyperverge", to))
    assert (row["outcome"], row["retryable"], row["status"]) == ("provider_error", False, "pending")
    assert row["attempts_left"] == sent["attempts_left"]


# What is hard to record


@pytest.mark.parametrize(
    "body",
    [
        '{"statusCode":"S1000","statusDetail":"nul \\u0000 here","referenceNo":"r-1","a\\u0000b":{"c":["\\u0000"]}}',
        '{"statusCode":"S1000","statusDetail":"lone","referenceNo":"r-2","x":"\\ud83d\\ude00 \\u0001 \\uffff"}',
        '{"statusCode":"S1000","statusDetail":"ok","referenceNo":"r-3","twice":1,"twice":2}',
        '{"statusCode":"S1000","statusDetail":"ok","referenceNo":"r-4","big":123456789012345678901234567890.125}',
        '{"statusCode":"S1000","statusDetail":"%s","referenceNo":"r-5"}' % ("w" * 500_000),
        '{"statusCode":"S1000","statusDetail":"ok","referenceNo":"r-6","%s":1}' % ("k" * 300_000),
    ],
    ids=["NUL", "other escapes", "doubled member", "large number", "long words", "long name"],
)
def test_answer_that_is_hard_to_record(gateway, simulator, body):
    simulator.fault("reply", "ideamart", "send", times=1, body=body)
    row = gateway.send()
    assert (row["outcome"], row["reference"]) == ("sent", json.loads(body)["referenceNo"])
    recorded = gateway.settled(row["attempt_id"])
    assert (recorded["outcome"], recorded["response"]["statusCode"]) == ("sent", "S1000")
    assert gateway.send()["outcome"] == "sent"


@pytest.mark.parametrize(
    "reference", ["r" * 100_000, "r\\u0000s", "", "\\n"], ids=["huge", "NUL", "empty", "line break"]
)
def test_reference_that_cannot_be_kept(gateway, simulator, reference):
    simulator.fault(
        "reply",
        "ideamart",
        "send",
        times=1,
        body='{"statusCode":"S1000","statusDetail":"ok","referenceNo":"%s"}' % reference,
    )
    row = gateway.send()
    assert row["outcome"] in ("sent", "unknown") and row["reference"] is None
    assert gateway.settled(row["attempt_id"])["outcome"] == row["outcome"]
    assert gateway.send()["outcome"] == "sent"


@pytest.mark.parametrize("number", ["1e400", "1e200000", "-1e308", "1E-400", "0.1e-20000"])
def test_number_beyond_all_bounds(gateway, simulator, number):
    """The call was made: its caller gets a row, whatever is in the answer."""
    body = '{"statusCode":"S1000","statusDetail":"ok","referenceNo":"r-1","n":%s}' % number
    simulator.fault("reply", "ideamart", "send", times=1, body=body)
    row = gateway.send()
    assert row["outcome"] in ("sent", "unknown")
    assert gateway.settled(row["attempt_id"])["outcome"] == row["outcome"]
    assert gateway.send()["outcome"] == "sent"


# max_in_flight


def test_max_in_flight(gateway, simulator):
    at(gateway, "ideamart", max_in_flight=3)
    simulator.fault("hold", "ideamart", "send")
    rows, threads = [], []

    def run(to):
        session = gateway.connect()
        rows.append(gateway.send(to=to, session=session))
        session.close()

    for _ in range(9):
        threads.append(threading.Thread(target=run, args=(gateway.number(),)))
        threads[-1].start()
    # All are on record, and no more than three have left.
    end = time.monotonic() + 10
    while gateway.execute("SELECT count(*) FROM otp_gateway.attempt") != [(9,)]:
        assert time.monotonic() < end
        time.sleep(0.01)
    seen = 0
    while seen < 9:
        seen += 3
        assert simulator.held(3) == 3
        assert simulator.count("ideamart", "send") == seen
        # Another provider's calls have places of their own.
        assert gateway.send("hyperverge")["outcome"] == "sent"
        assert simulator.count("ideamart", "send") == seen
        simulator.release()
        if seen < 9:
            assert simulator.count("ideamart", "send", atleast=seen + 3, wait=5000) == seen + 3
    [thread.join(15) for thread in threads]
    assert [row["outcome"] for row in rows] == ["sent"] * 9


def test_no_place_within_timeout(gateway, simulator):
    at(gateway, "ideamart", max_in_flight=1, timeout="1500ms")
    simulator.fault("hold", "ideamart", "send", times=1)
    first = []
    session = gateway.connect()
    thread = threading.Thread(target=lambda: first.append(gateway.send(session=session)))
    thread.start()
    simulator.held(1)
    at(gateway, "ideamart", timeout="300ms")
    row = gateway.send()
    assert (row["outcome"], row["retryable"]) == ("unreachable", True)
    assert "max_in_flight" in row["vendor_message"]
    assert simulator.count("ideamart", "send") == 1
    simulator.release()
    thread.join(10)
    session.close()
    assert first[0]["outcome"] == "sent"
    assert gateway.send()["outcome"] == "sent"


def test_timeout_is_of_the_whole_call(gateway, simulator):
    """Waiting for a place is part of it."""
    at(gateway, "ideamart", max_in_flight=1, timeout="1s")
    simulator.fault("never", "ideamart", "send")
    session = gateway.connect()
    thread = threading.Thread(target=lambda: gateway.send(session=session))
    thread.start()
    assert simulator.count("ideamart", "send", atleast=1, wait=5000) == 1
    began = time.monotonic()
    row = gateway.send()
    took = time.monotonic() - began
    thread.join(10)
    session.close()
    assert row["outcome"] in ("unknown", "unreachable")
    assert took < 1.4, f"{took:.2f} s"


def test_a_reference_is_kept_whatever_digits_stand_in_it(gateway, simulator):
    """765386439745 has a valid Aadhaar check digit; in a random reference such digits stand by chance."""
    reference = "765386439745ab765386439745"
    simulator.fault(
        "reply", "ideamart", "send", body={"statusCode": "S1000", "statusDetail": "ok", "referenceNo": reference}
    )
    assert gateway.send()["reference"] == reference
