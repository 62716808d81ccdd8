"""Promise: a message says what to do next, in words that can be pasted. What a document leaves to be filled in (`<your
key>`, `...`) is no value; who acts in a SECURITY DEFINER function, what a missing preload or a dropped extension takes away,
and a file of credentials that others can read are said before they cost an evening. The server's log has a line when a
provider fails and works again, when it refuses its credentials, and when a worker begins and ends: one for each event."""

import json
import os
import pathlib
import re
import shutil
import tempfile

import psycopg2
import pytest

from cluster import Cluster
from conftest import CREDENTIALS, RUN, until

PLACEHOLDERS = ["<your key>", "<APP_KEY>", " <from HyperVerge> ", "<>", "...", "…", " ... "]
# What may look like one, and is a value.
VALUES = ["a<b>c", "<b", "b>", "....", "..", "<a> and <b>", "<#> is not one", "x...", "...x"]


def fails(gateway, statement, arguments=None, session=None):
    with pytest.raises(psycopg2.Error) as caught:
        gateway.execute(statement, arguments, session)
    return caught.value.pgcode, caught.value.diag.message_primary, caught.value.diag.message_hint or ""


# N11: placeholders


def assert_placeholder(failure, what):
    state, message, hint = failure
    assert state == "22023" and message.endswith(f"{what} is a placeholder, not a value"), message
    assert "put the value itself in its place" in hint.lower(), hint
    return hint


@pytest.mark.parametrize("value", PLACEHOLDERS)
def test_placeholders_are_no_values(quick_gateway, value):
    gateway = quick_gateway
    for option in ("base_url", "timeout", "ca_file", "allowed_prefixes", "send_limit"):
        failure = fails(gateway, f"CREATE SERVER s FOREIGN DATA WRAPPER otp_hyperverge OPTIONS ({option} '{value}')")
        assert_placeholder(failure, f"option {option}")
    assert_placeholder(
        fails(gateway, f"CREATE SERVER s FOREIGN DATA WRAPPER otp_route OPTIONS (providers '{value}')"),
        "option providers",
    )
    defaults = json.dumps({"template_id": value}, ensure_ascii=False)
    failure = fails(gateway, f"CREATE SERVER s FOREIGN DATA WRAPPER otp_hyperverge OPTIONS (defaults '{defaults}')")
    hint = assert_placeholder(failure, "option defaults: template_id")
    # With the rule.
    assert "template_id: " in hint
    for option in ("app_key", "app_key_file"):
        failure = fails(
            gateway,
            f"ALTER USER MAPPING FOR PUBLIC SERVER hyperverge OPTIONS (DROP app_key_file, ADD {option} '{value}')",
        )
        hint = assert_placeholder(failure, f"option {option}")
        assert "app_key_file" in hint or option != "app_key"
    for field in (
        {"mobile": value},
        {"template_id": value},
        {"extra": {"pid": value}},
        {"extra": {"a": [{"b": value}]}},
    ):
        payload = {"mobile": "8144094480", "template_id": "t", **field}
        failure = fails(gateway, "SELECT otp_send('hyperverge', %s::jsonb)", (json.dumps(payload),))
        assert_placeholder(failure, next(iter(field)))
    message = {"lng": "English", "subject": value, "message": "Your code is $$OTP$$", "label": {}}
    failure = fails(
        gateway,
        "SELECT otp_send('relid', %s::jsonb)",
        (
            json.dumps(
                {
                    "user_id": "asha",
                    "enterprise_id": "bank",
                    "expires_in": 120,
                    "msg": [message],
                    "notification_msg": {"subject": "Log-in", "message": "A code"},
                }
            ),
        ),
    )
    assert_placeholder(failure, "msg[0].subject")


@pytest.mark.parametrize("value", VALUES)
def test_what_only_looks_like_one(quick_gateway, value):
    gateway = quick_gateway
    gateway.execute(
        "ALTER USER MAPPING FOR PUBLIC SERVER hyperverge OPTIONS (DROP app_key_file, ADD app_key %s)", (value,)
    )
    defaults = json.dumps({"template_id": value})
    gateway.execute("ALTER SERVER hyperverge OPTIONS (ADD defaults %s)", (defaults,))
    to = gateway.number("hyperverge")
    for payload in ({"mobile": to}, {"mobile": to, "template_id": value, "extra": {"pid": value}}):
        outcome = gateway.execute("SELECT outcome FROM otp_send('hyperverge', %s::jsonb)", (json.dumps(payload),))
        # What the simulator makes of it is its business; what counts is that it was asked.
        assert outcome[0][0] in ("sent", "invalid_request"), outcome


def test_a_password_of_that_form(quick_gateway):
    """In a file it may be anything."""
    path = RUN.in_file(f"<{RUN.secret('odd')}>")
    quick_gateway.execute(f"ALTER USER MAPPING FOR PUBLIC SERVER hyperverge OPTIONS (SET app_key_file '{path}')")
    assert quick_gateway.send("hyperverge")["outcome"] == "sent"


def test_a_wrong_code_is_a_row(quick_gateway):
    """What a person types is never an error."""
    id = quick_gateway.send("hyperverge")["verification_id"]
    assert quick_gateway.verify(id, "...")["outcome"] == "invalid_code"
    assert quick_gateway.verify(id, "<code>")["outcome"] == "invalid_code"


# N14: whose right it is


def test_the_owner_of_a_definer_function(gateway):
    app, owner = f"{gateway.database}_app", f"{gateway.database}_owner"
    gateway.execute(f"""
        CREATE ROLE {app} LOGIN; CREATE ROLE {owner}; GRANT CREATE ON SCHEMA public TO {owner};
        GRANT USAGE ON FOREIGN SERVER ideamart TO {app}; SET ROLE {owner};
        CREATE FUNCTION public.check_code(id uuid, code text) RETURNS text LANGUAGE sql SECURITY DEFINER AS
          'SELECT outcome FROM public.otp_verify(id, code)';
        RESET ROLE
    """)
    try:
        session = gateway.connect(user=app)
        id = gateway.send(session=session)["verification_id"]
        call = f"SELECT public.check_code('{id}', '123456')"
        state, message, hint = fails(gateway, call, None, session)
        assert (state, message) == ("42704", "otp_gateway: there is no verification of that id")
        assert f"In a SECURITY DEFINER function your role is its owner, {owner}." in hint
        grant = re.search(r"GRANT <[^>]*> TO [^.\s]+", hint)[0]
        gateway.execute(re.sub("<[^>]*>", app, grant))
        assert gateway.execute(call, None, session) == [("invalid_code",)]
        # Elsewhere not a word of it.
        for role in ("NONE", owner):
            gateway.execute(f"SET ROLE {role}")
            _, message, hint = fails(gateway, "SELECT otp_verify(gen_random_uuid(), '123456')")
            assert "there is no verification" in message and "SECURITY DEFINER" not in hint, hint
            gateway.execute("RESET ROLE")
        session.close()
    finally:
        gateway.execute(f"DROP OWNED BY {app}, {owner} CASCADE; DROP ROLE {app}, {owner}")


# N16: what is not there

# Until 15 everybody may create in public, which is another warning: test_hostile has that.
OURS_ALONE = "REVOKE CREATE ON SCHEMA public FROM PUBLIC"


@pytest.fixture(scope="module")
def bare_cluster():
    cluster = Cluster(preload=False).create()
    try:
        yield cluster.start()
    finally:
        cluster.remove()


def test_create_extension_without_the_preload(bare_cluster):
    for name in ("one", "two"):
        with bare_cluster.session() as admin:
            admin.cursor().execute(f"CREATE DATABASE {name}")
        with bare_cluster.session(name) as session, session.cursor() as cursor:
            cursor.execute(f"SET client_min_messages = warning; {OURS_ALONE}; CREATE EXTENSION otp_gateway")
            (notice,) = session.notices
            assert notice.startswith("WARNING:  otp_gateway: the library is not preloaded")
            assert "shared_preload_libraries = 'otp_gateway'" in notice
            # As before, a call is refused.
            with pytest.raises(psycopg2.errors.ObjectNotInPrerequisiteState, match="not preloaded"):
                cursor.execute("SELECT otp_gateway.find('s', '8144094480')")


def test_create_extension_with_it(cluster):
    with cluster.database(extension=False) as name, cluster.session(name) as session:
        session.cursor().execute(f"{OURS_ALONE}; CREATE EXTENSION otp_gateway")
        assert session.notices == []


DROPS = {
    "the extension": "DROP EXTENSION otp_gateway CASCADE",
    "within a block": "DO $$ BEGIN DROP EXTENSION otp_gateway CASCADE; END $$",
    "its schema": "DROP SCHEMA otp CASCADE",
}


@pytest.mark.parametrize("how", DROPS)
def test_triggers_that_go_with_the_extension(cluster, how):
    with cluster.database(extension=False) as name, cluster.session(name) as session, session.cursor() as cursor:
        cursor.execute("""
            CREATE SCHEMA otp; CREATE EXTENSION otp_gateway SCHEMA otp; CREATE SERVER s FOREIGN DATA WRAPPER otp_sandbox;
            CREATE TABLE public.customer (phone text); CREATE TABLE otp.lead (phone text); CREATE SCHEMA shop;
            CREATE TABLE shop."Order" (phone text, other text);
        """)
        for table in ("public.customer", "otp.lead", 'shop."Order"'):
            cursor.execute(f"""CREATE TRIGGER send_code AFTER INSERT ON {table} FOR EACH ROW
                EXECUTE FUNCTION otp_gateway.send_after_commit('s', '{{"mobile": "phone"}}')""")
        cursor.execute(f"""CREATE TRIGGER too AFTER INSERT ON public.customer FOR EACH ROW
            EXECUTE FUNCTION otp_gateway.send_after_commit('s', '{{"mobile": "phone"}}')""")
        session.notices.clear()
        cursor.execute(DROPS[how])
        warnings = [notice for notice in session.notices if notice.startswith("WARNING")]
        # A table that goes, too, has no rows to send for.
        tables = 'public.customer, shop."Order"' if how == "its schema" else 'otp.lead, public.customer, shop."Order"'
        assert len(warnings) == 1 and tables + ":" in warnings[0], session.notices
        assert "no code is sent for" in warnings[0] and "HINT" in warnings[0]


def test_other_triggers_and_tables_are_dropped_as_ever(cluster):
    with cluster.database() as name, cluster.session(name) as session, session.cursor() as cursor:
        cursor.execute("""
            CREATE SERVER s FOREIGN DATA WRAPPER otp_sandbox;
            CREATE TABLE a (phone text); CREATE TABLE b (phone text);
            CREATE TRIGGER send_code AFTER INSERT ON a FOR EACH ROW
                EXECUTE FUNCTION otp_gateway.send_after_commit('s', '{"mobile": "phone"}');
            CREATE TRIGGER send_code AFTER INSERT ON b FOR EACH ROW
                EXECUTE FUNCTION otp_gateway.send_after_commit('s', '{"mobile": "phone"}');
        """)
        session.notices.clear()
        cursor.execute("DROP TRIGGER send_code ON a")
        cursor.execute("DROP TABLE b")
        # In vain; and then without any.
        with pytest.raises(psycopg2.Error):
            cursor.execute("CREATE TABLE c (phone text); DROP EXTENSION otp_gateway")
        cursor.execute("DROP EXTENSION otp_gateway CASCADE")
        assert [notice for notice in session.notices if notice.startswith("WARNING")] == []


# section 10: messages that led nowhere


def test_a_mapping_that_is_missing(quick_gateway):
    """The hint is SQL, but for the values."""
    for vendor in ("hyperverge", "relid"):
        quick_gateway.execute(f"DROP USER MAPPING FOR PUBLIC SERVER {vendor}")
        _, message, hint = fails(quick_gateway, f"SELECT otp_verify('{vendor}', '1', '{{}}')")
        assert "no user mapping with credentials" in message
        statement = re.search(r"CREATE USER MAPPING .*?\)(?=[;.])", hint)[0]
        assert f"FOR PUBLIC SERVER {vendor} OPTIONS (" in statement
        # As it stands it is refused: its values are to be put in.
        first = re.search(r"OPTIONS \((\w+)", statement)[1]
        assert_placeholder(fails(quick_gateway, statement), f"option {first}")
        quick_gateway.execute(statement.replace("...", "x"))
        assert "<name>_file" in hint


def test_a_provider_that_is_not_there(quick_gateway):
    """The one that was meant; else how one is made, of every vendor."""
    _, _, hint = fails(quick_gateway, "SELECT otp_send('hyperverg', '{}')")
    assert 'Perhaps you meant "hyperverge".' in hint
    _, _, hint = fails(quick_gateway, "SELECT otp_send('nobody_at_all', '{}')")
    assert "Perhaps" not in hint and "otp_hyperverge" in hint and "otp_relid" in hint
    # One that the role may not use is no help.
    role = f"{quick_gateway.database}_app"
    quick_gateway.execute(f"CREATE ROLE {role} LOGIN")
    try:
        with quick_gateway.cluster.session(quick_gateway.database, user=role) as session:
            _, _, hint = fails(quick_gateway, "SELECT otp_send('hyperverg', '{}')", None, session)
            assert "Perhaps" not in hint
    finally:
        quick_gateway.execute(f"DROP ROLE {role}")


def test_a_number_of_another_country(quick_gateway):
    state, message, hint = fails(quick_gateway, "SELECT otp_gateway.forget('hyperverge', '+94 77 123 4567')")
    assert (
        state == "22023" and 'is a number of another country or kind than provider "hyperverge" sends to' in message
    ), message
    state, message, hint = fails(quick_gateway, "SELECT otp_gateway.forget('hyperverge', '12345')")
    assert state == "22023" and 'is nothing that provider "hyperverge" sends to' in message, message


def test_the_country_goes_into_the_number(quick_gateway):
    for field in ("countryCode", "country_code", "isdCode"):
        _, message, hint = fails(
            quick_gateway,
            "SELECT otp_send('ideamart', %s::jsonb)",
            (json.dumps({"mobile": "0771234567", field: "94"}),),
        )
        assert f"has no field {field}" in message and "put it into mobile" in hint, hint


# a file of credentials that others can read


def warnings_of(session):
    found = [notice for notice in session.notices if notice.startswith("WARNING")]
    session.notices.clear()
    return found


def test_a_file_that_others_can_read(gateway, tmp_path_factory):
    """It works. Who sets the option is told, and the log once, however many calls read it from however many sessions."""
    directory = pathlib.Path(tempfile.mkdtemp(prefix="otp_gateway_", dir="/tmp"))
    path = directory / "key"
    path.write_text(pathlib.Path(RUN.in_file(CREDENTIALS["hyperverge"]["app_key"])).read_text())
    try:
        path.chmod(0o644)
        directory.chmod(0o755)
        gateway.execute(f"ALTER USER MAPPING FOR PUBLIC SERVER hyperverge OPTIONS (SET app_key_file '{path}')")
        (warning,) = warnings_of(gateway.session)
        assert "the file of option app_key_file can be read by every user of the server's machine" in warning
        assert f"chown postgres {path} && chmod 600 {path}" in warning or os.geteuid()
        before = len(gateway.cluster.log())
        for _ in range(3):
            assert gateway.send("hyperverge")["outcome"] == "sent"
        with gateway.cluster.session(gateway.database) as another:
            for _ in range(2):
                assert gateway.send("hyperverge", session=another)["outcome"] == "sent"
            # Who calls can do nothing about it.
            assert warnings_of(another) == warnings_of(gateway.session) == []
        line = 'LOG:  otp_gateway: provider "hyperverge": the file of option app_key_file can be read by every user'
        assert gateway.cluster.log()[before:].count(line) == 1
    finally:
        shutil.rmtree(directory)


@pytest.mark.parametrize("rights", [(0o755, 0o640), (0o755, 0o600), (0o711, 0o600), (0o750, 0o644), (0o700, 0o644)])
def test_a_file_that_others_cannot_read(quick_gateway, rights):
    """A group's is its administrator's business, and what lies in a directory that lets nobody in is nobody's to read."""
    directory = pathlib.Path(tempfile.mkdtemp(prefix="otp_gateway_", dir="/tmp"))
    path = directory / "inner" / "key"
    path.parent.mkdir()
    path.write_text("x")
    try:
        path.chmod(rights[1])
        directory.chmod(rights[0])
        if os.geteuid() == 0:
            for one in (directory, path.parent, path):
                shutil.chown(one, "postgres", "postgres")
        quick_gateway.execute(f"ALTER USER MAPPING FOR PUBLIC SERVER hyperverge OPTIONS (SET app_key_file '{path}')")
        assert warnings_of(quick_gateway.session) == []
    finally:
        shutil.rmtree(directory)


def test_a_private_key_that_others_can_read(quick_gateway):
    """The client's key of mutual TLS is a credential, too; its certificate is not."""
    directory = pathlib.Path(tempfile.mkdtemp(prefix="otp_gateway_", dir="/tmp"))
    key = directory / "key"
    key.write_text("no key")
    try:
        directory.chmod(0o755)
        key.chmod(0o644)
        quick_gateway.execute(
            f"ALTER SERVER hyperverge OPTIONS (ADD client_cert_file '{key}', ADD client_key_file '{key}')"
        )
        (warning,) = warnings_of(quick_gateway.session)
        assert "option client_key_file can be read" in warning
    finally:
        shutil.rmtree(directory)


@pytest.mark.parametrize(
    "vendor, payload, where",
    [
        (
            "hyperverge",
            "{}",
            "Put template_id, mobile into the payload, or template_id into the server option defaults.",
        ),
        (
            "hyperverge",
            '{"mobile": "+91 98765 43210"}',
            "Put template_id into the payload, or into the server option defaults.",
        ),
        ("ideamart", "{}", "Put mobile into the payload."),
    ],
)
def test_what_is_missing_has_a_place(quick_gateway, vendor, payload, where):
    state, message, hint = fails(quick_gateway, f"SELECT otp_send('{vendor}', '{payload}')")
    assert state == "22023" and "is missing" in message and hint.endswith(where), hint


# N5: the log of what happens to a provider, and to a worker


def lines_of(log, *words):
    return [line for line in log.splitlines() if all(word in line for word in words)]


def test_a_breaker_opens_and_closes(gateway, simulator):
    """Once each, however many calls meet it, by number and outcome; and nothing of whom they were about."""
    to = [gateway.number("hyperverge") for _ in range(8)]
    simulator.fault("status", "hyperverge", "send", times=50, status=503)
    before = len(gateway.cluster.log())
    log = lambda *words: lines_of(gateway.cluster.log()[before:], *words)
    outcomes = [gateway.send("hyperverge", number)["outcome"] for number in to[:7]]
    assert outcomes == ["provider_error"] * 5 + ["blocked"] * 2, outcomes
    (line,) = log('provider "hyperverge"')
    assert "LOG:" in line and "failed 5 times in a row, the last time with provider_error (HTTP 503)" in line, line
    assert "nothing is sent to it for 5s" in line or "nothing is sent to it for 4" in line, line
    # The probe fails: it is open as before.
    simulator.fault("status", "hyperverge", "send", times=50, status=503)
    until(lambda: gateway.send("hyperverge", to[7])["outcome"] == "provider_error", "a probe goes", 20)
    assert len(log('provider "hyperverge"')) == 1
    simulator.clear_faults()
    until(lambda: gateway.send("hyperverge", to[7])["outcome"] == "sent", "it works again", 30)
    assert gateway.send("hyperverge", to[6])["outcome"] == "sent"
    opened, closed = log('provider "hyperverge"')
    assert "LOG:" in closed and "answers again" in closed, closed
    for number in to:
        assert number[-10:] not in opened + closed


def test_credentials_that_are_refused(gateway, simulator):
    """Once, and not for each call; and for another account again."""
    for name in ("first", "second"):
        gateway.create_provider(name, "hyperverge")
    simulator.fault("status", "hyperverge", "send", times=50, status=401)
    before = len(gateway.cluster.log())
    for name in ("first", "second", "first"):
        for _ in range(2):
            assert gateway.send(name, vendor="hyperverge")["outcome"] == "auth_failed"
    log = gateway.cluster.log()[before:]
    for name in ("first", "second"):
        (line,) = lines_of(log, f'provider "{name}"', "auth_failed")
        assert "LOG:" in line and "refuses the credentials of its user mapping: auth_failed (HTTP 401)" in line, line
    assert CREDENTIALS["hyperverge"]["app_key"] not in log


@pytest.mark.parametrize(
    "vendor, status, body, said",
    [
        (
            "ideamart",
            200,
            {"version": "1.0", "statusCode": "E1303", "statusDetail": "x"},
            "auth_failed (HTTP 200, vendor code E1303)",
        ),
        (
            "relid",
            200,
            {"response_code": 1, "error_code": 7019, "error_message": "x"},
            "auth_failed (HTTP 200, vendor code 7019)",
        ),
        ("msg91", 418, {"type": "error", "message": "IP not whitelisted"}, "auth_failed (HTTP 418)"),
    ],
)
def test_an_address_that_is_not_on_the_vendor_s_list(gateway, simulator, vendor, status, body, said):
    """Where the vendor's code may mean that, the line says so: the credentials may be as they should."""
    simulator.fault("reply", vendor, "send", body=body, status=status)
    before = len(gateway.cluster.log())
    assert gateway.send(vendor)["outcome"] == "auth_failed"
    (line,) = lines_of(gateway.cluster.log()[before:], f'provider "{vendor}"')
    assert "or this machine's address is not on the vendor's list: " + said in line, line


def test_a_worker_begins_and_ends(own_cluster):
    """It is said of a database that has the extension, and why it ends."""
    own_cluster.configure({"otp_gateway.worker_idle_timeout": "0"})
    own_cluster.reload()
    log = lambda *words: lines_of(own_cluster.log(), "LOG:  otp_gateway: the worker of database", *words)
    with own_cluster.session() as admin:
        admin.cursor().execute("CREATE DATABASE shop; ")
        admin.cursor().execute("CREATE DATABASE other")
    for name in ("shop", "other"):
        with own_cluster.session(name) as session, session.cursor() as cursor:
            cursor.execute("CREATE EXTENSION otp_gateway; CREATE SERVER s FOREIGN DATA WRAPPER otp_sandbox")
            cursor.execute("""SELECT outcome FROM otp_send('s', '{"mobile": "+94770000001"}')""")
            assert cursor.fetchone() == ("sent",)
    assert len(log('"shop" has begun')) == len(log('"other" has begun')) == 1 and log("ends") == []
    with own_cluster.session("other") as session:
        session.cursor().execute("DROP EXTENSION otp_gateway CASCADE")
    until(lambda: log('"other" ends: the extension'), "it ends with the extension")
    own_cluster.restart()
    assert len(log('"shop" ends: the server stops')) == 1
    until(lambda: len(log('"shop" has begun')) == 2, "the next one begins")
    with own_cluster.session() as admin:
        admin.cursor().execute("ALTER DATABASE shop RENAME TO store")
    assert len(log('"shop" ends: somebody wants the database')) == 1
    assert log('"postgres"') == log('"template1"') == []
