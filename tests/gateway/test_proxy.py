"""Promise: with the server option proxy every call of a provider goes that way and no other, over tunnels that are used
again; its credentials are the user mapping's, reach the proxy and nobody else, and are in no error, log or table. What the
proxy refuses never reached the vendor, and the outcome says so and names it. otp_gateway.allowed_hosts holds for the proxy's
address and for the vendor's host. Each call says which version of the gateway makes it."""

import pathlib
import ssl
import tomllib

import psycopg2
import pytest

from canaries import RUN
from cluster import free_port
from conftest import CREDENTIALS, FLOWS, credential_options, listed
from proxy import Proxy
from test_allowed_hosts import SETTING, allow
from test_allowed_hosts import shared_cluster as shared_cluster
from test_at_most_once import at
from test_network import Authority, flow, tls as tls

ROOT = pathlib.Path(__file__).resolve().parents[2]
VERSION = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]["version"]


@pytest.fixture
def gateway(quick_gateway):
    quick_gateway.create_provider(
        "elsewhere", "ideamart", base_url=f"http://127.0.0.9:{free_port()}", enforce="observe"
    )
    yield quick_gateway
    quick_gateway.drain()
    allow(quick_gateway, "")


@pytest.fixture(scope="module")
def authority(simulator_program):
    return Authority(pathlib.Path(simulator_program.directory.name) / "authority_of_proxy")


@pytest.fixture
def proxy():
    with Proxy() as proxy:
        yield proxy


@pytest.fixture
def paid():
    """One that wants credentials."""
    user, password = RUN.secret("proxyuser"), RUN.secret("proxypass")
    with Proxy(user, password) as proxy:
        proxy.user, proxy.password = user, password
        yield proxy


def through(gateway, simulator, proxy, scheme, tls, vendor="ideamart", user=None, password=None):
    """Has a vendor called through a proxy."""
    # Observed: so many refusals in a row would open the breaker.
    at(
        gateway,
        vendor,
        base_url=simulator.url(vendor, scheme),
        ca_file=tls / "ca.pem",
        proxy=proxy.url,
        enforce="observe",
    )
    if user:
        pay(gateway, vendor, user, password)


def pay(gateway, vendor, user, password):
    gateway.execute(
        f"ALTER USER MAPPING FOR PUBLIC SERVER {vendor} OPTIONS"
        f" (ADD proxy_user_file '{RUN.in_file(user)}', ADD proxy_password_file '{RUN.in_file(password)}')"
    )


@pytest.mark.parametrize("vendor", list(FLOWS))
def test_https_goes_through_a_tunnel(gateway, simulator, tls, paid, vendor):
    through(gateway, simulator, paid, "https", tls, vendor, paid.user, paid.password)
    flow(gateway, simulator, vendor)
    flow(gateway, simulator, vendor)
    host = simulator.url(vendor, "https").split("/")[2]
    # One tunnel, which is used again; the vendor is spoken to in TLS inside.
    assert [(method, target) for method, target, _ in paid.heads] == [("CONNECT", host)]
    assert {entry["listener"] for entry in simulator.log()} == {"https"}
    assert len({entry["connection"] for entry in simulator.log()}) == 1
    # The vendor hears nothing of the proxy, and the proxy nothing of the call.
    for entry in simulator.log():
        assert not [name for name in entry["headers"] if name.startswith("proxy-")]
        assert entry["headers"]["user-agent"] == f"otp_gateway/{VERSION}"
    ((_, _, headers),) = paid.heads
    assert set(headers) == {"host", "user-agent", "proxy-authorization"}
    assert headers["user-agent"] == f"otp_gateway/{VERSION}"


def test_plain_http_is_handed_on(gateway, simulator, tls, paid):
    through(gateway, simulator, paid, "http", tls, "ideamart", paid.user, paid.password)
    flow(gateway, simulator, "ideamart")
    base = simulator.url("ideamart")
    assert [(method, target) for method, target, _ in paid.heads] == [
        ("POST", f"{base}/subscription/otp/request"),
        ("POST", f"{base}/subscription/otp/verify"),
    ]
    assert all(headers["proxy-authorization"] == paid.wanted for _, _, headers in paid.heads)


def test_without_a_proxy_the_version_is_said_too(gateway, simulator):
    for vendor in FLOWS:
        flow(gateway, simulator, vendor)
    assert {entry["headers"]["user-agent"] for entry in simulator.log()} == {f"otp_gateway/{VERSION}"}


def test_oauth_goes_the_same_way(gateway, simulator, tls, proxy):
    credentials = {"client_id": RUN.secret("client"), "client_secret": "otp-secret"}
    token_url = simulator.url("relid", "https") + "/oauth/token"
    gateway.create_provider(
        "relid_oauth",
        "relid",
        credentials | {"client_id": "otp-app-proxy"},
        base_url=simulator.url("relid", "https"),
        token_url=token_url,
        ca_file=tls / "ca.pem",
        proxy=proxy.url,
    )
    assert gateway.send("relid_oauth", vendor="relid")["outcome"] == "sent"
    assert (simulator.count("relid", "token"), simulator.count("relid", "send")) == (1, 1)
    assert len(proxy.asked("CONNECT")) == 1 and {entry["listener"] for entry in simulator.log()} == {"https"}


def test_a_proxy_that_is_spoken_to_in_tls(gateway, simulator, tls, authority):
    """Its certificate is verified like the vendor's."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate = authority.certificate("proxy")
    context.load_cert_chain(certificate, certificate.with_suffix(".key"))
    both = tls / "both.pem"
    both.write_text((tls / "ca.pem").read_text() + authority.ca.read_text())
    both.chmod(0o644)
    with Proxy(tls=context) as proxy:
        through(gateway, simulator, proxy, "https", tls)
        refused(gateway, simulator, proxy, "unreachable", "no connection to proxy", "certificate")
        at(gateway, "ideamart", ca_file=both)
        assert gateway.send()["outcome"] == "sent"
        assert len(proxy.asked("CONNECT")) == 1


# What the proxy does not do


def refused(gateway, simulator, proxy, outcome, *words, retryable=True):
    before = simulator.count()
    row = gateway.send()
    assert (row["outcome"], row["retryable"]) == (outcome, retryable), row
    for word in (*words, proxy.url):
        assert word in row["vendor_message"], row["vendor_message"]
    for secret in [getattr(proxy, "user", None), getattr(proxy, "password", None)]:
        assert secret is None or secret not in row["vendor_message"]
    assert simulator.count() == before
    assert gateway.attempts(row["verification_id"]) == [("send", outcome)]
    return row


@pytest.mark.parametrize("scheme", ["https", "http"])
@pytest.mark.parametrize("given", ["none", "wrong"])
def test_wrong_credentials(gateway, simulator, tls, paid, scheme, given):
    through(gateway, simulator, paid, scheme, tls)
    if given == "wrong":
        pay(gateway, "ideamart", paid.user, paid.password + "x")
    # Not `unreachable`, which is tried again: an account is locked by that.
    refused(gateway, simulator, paid, "auth_failed", "proxy_user", "vendor was not reached", retryable=False)
    assert len(paid.heads) == 1
    # Put right, it works at once.
    if given == "wrong":
        gateway.execute(
            f"ALTER USER MAPPING FOR PUBLIC SERVER ideamart OPTIONS (SET proxy_password_file '{RUN.in_file(paid.password)}')"
        )
    else:
        pay(gateway, "ideamart", paid.user, paid.password)
    assert gateway.send()["outcome"] == "sent"


def test_wrong_credentials_on_the_way_to_a_token(gateway, simulator, tls, paid):
    gateway.create_provider(
        "relid_oauth",
        "relid",
        {"client_id": "otp-app-unpaid", "client_secret": "otp-secret"},
        base_url=simulator.url("relid", "https"),
        token_url=simulator.url("relid", "https") + "/oauth/token",
        ca_file=tls / "ca.pem",
        proxy=paid.url,
    )
    row = gateway.send("relid_oauth", vendor="relid")
    assert row["outcome"] == "auth_failed" and "proxy_user" in row["vendor_message"] and simulator.count() == 0


INSTEAD = [
    ("refuses", b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", "the proxy made none"),
    ("cannot", b"HTTP/1.1 502 Bad Gateway\r\n\r\n", "the proxy made none"),
    ("talks nonsense", b"SSH-2.0-OpenSSH_9.2\r\n", "the proxy made none"),
    ("redirects", b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n", "the proxy made none"),
    ("hangs up", "hang up", "the proxy hung up"),
    ("hangs", "hang", "connect_timeout"),
]


@pytest.mark.parametrize("instead, words", [case[1:] for case in INSTEAD], ids=[case[0] for case in INSTEAD])
def test_no_tunnel(gateway, simulator, tls, proxy, instead, words):
    """Nothing of the call has left: it may be made again."""
    through(gateway, simulator, proxy, "https", tls)
    at(gateway, "ideamart", timeout="1s")
    proxy.instead = instead
    refused(gateway, simulator, proxy, "unreachable", "base_url through proxy", words, "nothing was sent")
    assert len(proxy.asked("CONNECT")) == 1
    proxy.instead = None
    assert gateway.send()["outcome"] == "sent"


def test_the_vendor_is_not_there(gateway, simulator, tls, proxy):
    through(gateway, simulator, proxy, "https", tls)
    at(gateway, "ideamart", base_url=f"https://127.0.0.1:{free_port()}")
    refused(gateway, simulator, proxy, "unreachable", "the proxy made none")


@pytest.mark.parametrize("scheme", ["https", "http"])
def test_the_proxy_is_not_there(gateway, simulator, tls, proxy, scheme):
    through(gateway, simulator, proxy, scheme, tls)
    proxy.__exit__()
    refused(gateway, simulator, proxy, "unreachable", "no connection to proxy", "refused", "nothing was sent")


def test_what_was_handed_on_and_not_answered_is_unknown(gateway, simulator, tls, proxy):
    """Of plain HTTP the proxy has the whole call: nobody can tell what became of it."""
    through(gateway, simulator, proxy, "http", tls)
    at(gateway, "ideamart", timeout="700ms")
    for instead in ("hang", "hang up", b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n"):
        proxy.instead = instead
        row = gateway.send()
        assert (row["outcome"], row["retryable"]) == ("unknown", False), row


def test_the_vendors_certificate_is_checked_inside_the_tunnel(gateway, simulator, tls, proxy):
    through(gateway, simulator, proxy, "https", tls)
    gateway.execute("ALTER SERVER ideamart OPTIONS (DROP ca_file)")
    row = refused(gateway, simulator, proxy, "unreachable", "base_url through proxy")
    assert "certificate" in row["vendor_message"].lower() or "issuer" in row["vendor_message"].lower()


def test_a_tunnel_of_one_account_is_not_another_ones_way_out(gateway, simulator, tls, paid):
    """Two roles, two mappings: the second has no credentials for the proxy."""
    through(gateway, simulator, paid, "https", tls, "ideamart", paid.user, paid.password)
    assert gateway.send()["outcome"] == "sent"
    gateway.execute(
        f"CREATE USER MAPPING FOR postgres SERVER ideamart OPTIONS ({listed(credential_options('ideamart'))})"
    )
    refused(gateway, simulator, paid, "auth_failed", "proxy_user", retryable=False)
    assert len(paid.asked("CONNECT")) == 2


def test_no_secret_of_the_proxy_is_left_anywhere(gateway, simulator, tls, paid):
    """Not in what a vendor echoes either; the run's own search sees to files, tables and the log."""
    through(gateway, simulator, paid, "https", tls, "ideamart", paid.user, paid.password)
    pair = paid.wanted.removeprefix("Basic ")
    echo = {"statusCode": "E1601", "statusDetail": f"{paid.user} {paid.password} {pair}", "x": [paid.password, pair]}
    simulator.fault("reply", "ideamart", "send", times=1, body=echo)
    row = gateway.send()
    recorded = gateway.row("SELECT * FROM otp_gateway.attempt WHERE id = %s", (row["attempt_id"],))
    for secret in (paid.user, paid.password, pair):
        assert secret not in str(recorded) and secret not in row["vendor_message"]
    (settings,) = gateway.execute("SELECT string_agg(value, ' ') FROM otp_gateway.provider WHERE provider = 'ideamart'")
    assert "proxy_user_file, proxy_password_file" in settings[0] and paid.url in settings[0]


# Where calls may go


def test_names_are_the_proxys_to_look_up(gateway, simulator, tls, proxy, shared_cluster):
    """Many networks resolve nothing of the outside: there is no look-up here."""
    through(gateway, simulator, proxy, "http", tls)
    proxy.names["vendor.example"] = "127.0.0.1"
    at(gateway, "ideamart", base_url=simulator.url("ideamart").replace("127.0.0.1", "vendor.example"))
    assert gateway.send()["outcome"] == "sent"


def test_allowed_hosts_holds_for_the_proxys_address(gateway, simulator, tls, proxy, shared_cluster):
    shared_cluster.names.say(proxy="127.0.0.1", vendor="127.0.0.1")
    through(gateway, simulator, proxy, "http", tls)
    proxy.names["vendor.example"] = "127.0.0.1"
    at(gateway, "ideamart", base_url=simulator.url("ideamart").replace("127.0.0.1", "vendor.example"))
    named = proxy.url.replace("127.0.0.1", "proxy.example")
    for url, hosts, says in [
        (proxy.url, "vendor.example", ["no connection to proxy", "127.0.0.1: list the address"]),
        (named, "vendor.example", ["no connection to proxy", "proxy.example: list the host"]),
        # A name opens no way into the network of one's own: that is the network's to do.
        (named, "vendor.example, proxy.example", ["proxy.example", "list its network too"]),
        (proxy.url, "vendor.example, 127.0.0.1", None),
        (named, "vendor.example, 127.0.0.0/29", None),
        # And the vendor's, whose address nobody here sees.
        (proxy.url, "127.0.0.0/29", ["no connection to base_url", "vendor.example: list the host by its name"]),
        (proxy.url, "127.0.0.0/29, other.example", ["no connection to base_url", "list the host by its name"]),
        (proxy.url, "127.0.0.0/29, *.example", None),
    ]:
        at(gateway, "ideamart", proxy=url)
        allow(gateway, hosts)
        before, heads = simulator.count(), len(proxy.heads)
        row = gateway.send()
        if says is None:
            assert row["outcome"] == "sent", (hosts, row)
            continue
        assert row["outcome"] == "unreachable" and SETTING in row["vendor_message"], (hosts, row)
        assert all(words in row["vendor_message"] for words in says), (hosts, row["vendor_message"])
        assert (simulator.count(), len(proxy.heads)) == (before, heads)


def test_an_address_behind_the_proxy_needs_an_entry_of_its_own(gateway, simulator, tls, proxy):
    """Nobody reaches by way of an allowed proxy what they could not reach without it."""
    through(gateway, simulator, proxy, "https", tls)
    url = simulator.url("ideamart", "https")
    for host in ("127.0.0.2", "0x7f000002", "0x7f.2"):
        at(gateway, "ideamart", base_url=url.replace("127.0.0.1", host))
        allow(gateway, "127.0.0.1")
        row = gateway.send()
        assert row["outcome"] == "unreachable" and "127.0.0.2: list the address" in row["vendor_message"], row
    assert proxy.heads == [] and simulator.count() == 0


# What is written


OPTIONS = [
    ({"proxy": "proxy.example:3128"}, "22023", ["proxy", "no URL"]),
    ({"proxy": "socks5://proxy.example:1080"}, "22023", ["proxy", "http://"]),
    ({"proxy": "http://me:secret@proxy.example:3128"}, "22023", ["proxy", "user mapping"]),
    ({"proxy": "http://proxy.example:3128/path"}, "22023", ["proxy", "host and port alone"]),
    ({"proxy": "http://proxy.example:3128/?x"}, "22023", ["proxy"]),
    ({"proxy": "http://:3128"}, "22023", ["proxy", "host"]),
    ({"proxy": "http://proxy.example:0x50"}, "22023", ["proxy", "port"]),
    ({"proxy": ""}, "22023", ["proxy"]),
    ({"proxi": "http://proxy.example"}, "HV00D", ["proxi", '"proxy"', "Valid options"]),
    ({"proxy_user": "u"}, "HV00D", ["proxy_user", "user mapping"]),
    ({"proxy_password_file": "/x"}, "HV00D", ["proxy_password_file", "user mapping"]),
]
MAPPINGS = [
    ({"proxy": "http://proxy.example"}, "HV00D", ["proxy", "belongs on the server"]),
    ({"proxy_user": "u"}, "22023", ["proxy_user and proxy_password go together"]),
    ({"proxy_password_file": "/x"}, "22023", ["proxy_user and proxy_password go together"]),
    ({"proxy_user": "a:b", "proxy_password": "p"}, "22023", ["option proxy_user", "colon"]),
    ({"proxy_user": "u", "proxy_password": "p\nq"}, "22023", ["option proxy_password", "control"]),
    ({"proxy_user": "u", "proxy_password": ""}, "22023", ["proxy_password is empty"]),
    ({"proxy_user": "u", "proxy_password": "p", "proxy_password_file": "/x"}, "22023", ["given twice"]),
    ({"proxi_user": "u"}, "HV00D", ["proxi_user", '"proxy_user"']),
]


def says(gateway, state, words, statement):
    with pytest.raises(psycopg2.Error) as caught:
        gateway.execute(statement)
    text = f"{caught.value.diag.message_primary} {caught.value.diag.message_hint}"
    assert caught.value.pgcode == state and all(word in text for word in words), text
    assert "secret" not in text.replace("client_secret", "")


@pytest.mark.parametrize("given, state, words", OPTIONS)
def test_server_options(gateway, given, state, words):
    says(gateway, state, words, f"CREATE SERVER refused FOREIGN DATA WRAPPER otp_ideamart OPTIONS ({listed(given)})")


@pytest.mark.parametrize("given, state, words", MAPPINGS)
def test_user_mapping_options(gateway, given, state, words):
    given = {"application_id": "a", "password": "b", **given}
    says(gateway, state, words, f"CREATE USER MAPPING FOR postgres SERVER ideamart OPTIONS ({listed(given)})")


def test_every_vendor_takes_them(gateway):
    for vendor in CREDENTIALS:
        given = {**credential_options(vendor), "proxy_user": "u", "proxy_password": "p"}
        gateway.execute(f"CREATE USER MAPPING FOR postgres SERVER {vendor} OPTIONS ({listed(given)})")
        gateway.execute(f"ALTER SERVER {vendor} OPTIONS (ADD proxy 'HTTPS://proxy.example/')")
    gateway.execute(
        "CREATE USER MAPPING FOR postgres SERVER elsewhere OPTIONS (application_id 'a', password 'b', proxy_user 'u', proxy_password 'p')"
    )
    says(
        gateway,
        "22023",
        ["no option proxy", "ALTER SERVER elsewhere"],
        "SELECT otp_send('elsewhere', '{\"mobile\": \"0771234567\"}')",
    )
    gateway.execute("DROP USER MAPPING FOR postgres SERVER elsewhere")


def test_a_file_that_no_proxy_can_be_sent(gateway, proxy):
    at(gateway, "ideamart", proxy=proxy.url)
    pay(gateway, "ideamart", "a:b", "p")
    says(
        gateway,
        "55000",
        ["the file of user mapping option proxy_user_file", "colon"],
        "SELECT otp_send('ideamart', '{\"mobile\": \"0771234567\"}')",
    )
