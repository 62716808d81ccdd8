"""Promise: there is no way round what the record keeps for itself. Settings that print plans print none of the record's own
statements; what a function that acts as its owner has asked is not its caller's to ask again; a session that saw the
extension dropped and made anew goes on with the new one; and a role of any name is put down under a name that can be read.
"""

import contextlib
import json

import psycopg2
import pytest

PRINTS = ("debug_print_parse", "debug_print_rewritten", "debug_print_plan")


@contextlib.contextmanager
def as_role(gateway, provider):
    """A session of a role of its own that may send through the provider."""
    role = f"{gateway.database}_app"
    gateway.execute(f"CREATE ROLE {role} LOGIN; GRANT USAGE ON FOREIGN SERVER {provider} TO {role}")
    try:
        with contextlib.closing(gateway.connect(user=role)) as session:
            yield session
    finally:
        gateway.execute(f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}")


def printed(value):
    """Bytes as a printed plan has them, whose lines break also within numbers."""
    return "".join(str(byte - 256 if byte > 127 else byte) for byte in bytes(value))


def test_no_plan_of_the_records_own_statements_is_printed(gateway):
    number = gateway.number()
    body = json.dumps({"mobile": number})
    with as_role(gateway, "ideamart") as session:
        gateway.execute("SET client_min_messages = log; SET plan_cache_mode = force_custom_plan", session=session)
        for setting in PRINTS:
            gateway.execute(f"SET {setting} = on", session=session)
        session.notices = []
        gateway.execute("SELECT otp_enqueue('ideamart', %s, 'key')", (body,), session)
        gateway.execute("SELECT id FROM otp_gateway.find('ideamart', %s)", (number,), session)
        said = "".join("".join(session.notices).split())
        secrets = "recipient_key, sealed, idempotency_key, payload_hash"
        row = gateway.row(f"SELECT {secrets} FROM otp_gateway_internal.verification_record")
        found = [name for name, value in row.items() if value is not None and printed(value) in said]
        assert ":commandType" in said, "nothing was printed at all"
        assert found == []
        # The settings are the session's again.
        assert gateway.execute("SHOW debug_print_plan", session=session) == [("on",)]
        session.notices = []
        gateway.execute("SELECT 4711", session=session)
        assert ":commandType" in " ".join(session.notices)


def test_a_call_that_a_definer_made_is_not_repeated_for_its_caller(gateway):
    with as_role(gateway, "ideamart") as session:
        sent = gateway.send()
        gateway.execute("CREATE SCHEMA service; GRANT USAGE ON SCHEMA service TO PUBLIC")
        # STABLE: its statements have the snapshot of the one that calls it.
        gateway.execute(
            "CREATE FUNCTION service.check_code(id uuid, code text) RETURNS text LANGUAGE sql STABLE SECURITY DEFINER"
            " SET search_path = pg_catalog, pg_temp AS 'SELECT outcome FROM public.otp_verify(id, code)'"
        )
        arguments = (sent["verification_id"], "000000") * 2
        with pytest.raises(psycopg2.errors.UndefinedObject, match="no verification of that id"):
            gateway.execute("SELECT service.check_code(%s, %s), otp_verify(%s, %s)", arguments, session)


def test_a_session_that_outlives_the_extension(gateway):
    """By its own hands, and by another's."""
    with as_role(gateway, "ideamart") as session:
        gateway.enqueue()
        gateway.enqueue(session=session)
        gateway.settle()
        gateway.execute("DROP EXTENSION otp_gateway CASCADE")
        gateway.execute("CREATE EXTENSION otp_gateway")
        gateway.create_provider("ideamart")
        gateway.execute("GRANT USAGE ON FOREIGN SERVER ideamart TO PUBLIC")
        for who in (None, session):
            row = gateway.enqueue(session=who)
            assert gateway.wait(row["verification_id"], session=who)["outcome"] == "sent"


def test_a_role_whose_name_is_no_utf8_here(cluster, gateway):
    """Made in a database of another encoding: each of its letters grows to three bytes."""
    other, name, role = f"{gateway.database}_latin1", "\u00e9" * 63, None
    gateway.execute(f"CREATE DATABASE {other} TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'")
    try:
        with cluster.session(other) as session:
            session.set_client_encoding("LATIN1")
            gateway.execute(f'CREATE ROLE "{name}" SUPERUSER', session=session)
            ((role,),) = gateway.execute("SELECT oid FROM pg_roles WHERE rolname = %s", (name,), session)
        gateway.execute(
            "CREATE FUNCTION public.send_as(body jsonb) RETURNS uuid LANGUAGE sql SECURITY DEFINER"
            " AS $$ SELECT verification_id FROM public.otp_send('ideamart', body) $$"
        )
        gateway.execute("UPDATE pg_proc SET proowner = %s WHERE proname = 'send_as'", (role,))
        ((id,),) = gateway.execute("SELECT public.send_as(%s)", (json.dumps({"mobile": gateway.number()}),))
        row = gateway.row("SELECT created_by::text FROM otp_gateway.verification WHERE id = %s", (id,))
        # As text that a restored dump takes, and no longer than a name.
        assert row["created_by"] == "\ufffd" * 21
    finally:
        gateway.execute("DROP FUNCTION IF EXISTS public.send_as")
        gateway.execute(f"DROP DATABASE IF EXISTS {other} WITH (FORCE)")
        gateway.execute("DELETE FROM pg_authid WHERE oid = %s", (role,))
