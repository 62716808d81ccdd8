"""Promise: the server reads a file only for who may have it read: an option that names one holds while the owner of the
provider, who says where its content goes, may read files; and a credential that cannot be sent is refused where it is
written, and is nobody's failure but its author's."""

import contextlib

import psycopg2
import pytest

from canaries import RUN
from conftest import CREDENTIALS, credential_options

PLAIN = "plain_owner"


@pytest.fixture
def gateway(quick_gateway):
    gateway = quick_gateway
    gateway.execute(
        f"DO $$ BEGIN CREATE ROLE {PLAIN}; EXCEPTION WHEN duplicate_object THEN NULL; END $$;"
        f"GRANT USAGE ON FOREIGN DATA WRAPPER otp_ideamart, otp_relid, otp_hyperverge TO {PLAIN}"
    )
    try:
        yield gateway
    finally:
        gateway.drain()
        gateway.execute(f"DROP OWNED BY {PLAIN} CASCADE; REVOKE pg_read_server_files FROM {PLAIN}")


@contextlib.contextmanager
def refused(state, *words):
    with pytest.raises(psycopg2.Error) as error:
        yield
    text = f"{error.value.diag.message_primary} {error.value.diag.message_hint}"
    assert error.value.pgcode == state, text
    for word in words:
        assert word in text, text
    for secret in (*CREDENTIALS["ideamart"].values(), *map(str, credential_options("ideamart").values())):
        assert secret not in text


def owned_by(gateway, server, role):
    gateway.execute(f"ALTER SERVER {server} OWNER TO {role}")


def test_a_credential_of_a_file_holds_while_the_owner_may_read_files(gateway, simulator):
    first = gateway.send()
    owned_by(gateway, "ideamart", PLAIN)
    for call in (gateway.send, gateway.enqueue, lambda: gateway.verify(first["verification_id"], "123456")):
        with refused("42501", "application_id_file", "owner of foreign server ideamart", "pg_read_server_files"):
            call()
    gateway.execute(f"GRANT pg_read_server_files TO {PLAIN}")
    assert gateway.send()["outcome"] == "sent"
    gateway.execute(f"REVOKE pg_read_server_files FROM {PLAIN}")
    with refused("42501"):
        gateway.send()
    # What stands in the user mapping itself is the owner's to see anyway.
    gateway.execute(
        "ALTER USER MAPPING FOR PUBLIC SERVER ideamart OPTIONS (DROP application_id_file, DROP password_file, ADD application_id 'a', ADD password 'b')"
    )
    gateway.send()
    assert simulator.count("ideamart") == 3


def test_what_is_queued_meets_it_too(gateway, simulator):
    gateway.full()
    queued = gateway.enqueue("narrow", vendor="ideamart")["verification_id"]
    owned_by(gateway, "narrow", PLAIN)
    simulator.clear_faults()
    simulator.release()
    row = gateway.wait(queued)
    assert row["status"] == "failed" and "application_id_file" in row["vendor_message"]
    assert simulator.count("ideamart", "send") == 1


def test_an_owner_who_points_it_elsewhere_is_sent_nothing(gateway, simulator):
    """R17: the superuser's file, the owner's base_url."""
    owned_by(gateway, "ideamart", PLAIN)
    gateway.execute(
        f"SET ROLE {PLAIN}; ALTER SERVER ideamart OPTIONS (SET base_url '{simulator.url('hyperverge')}'); RESET ROLE"
    )
    with refused("42501"):
        gateway.send()
    assert simulator.count() == 0


@pytest.mark.parametrize(
    "options",
    ["ca_file '/etc/ssl/certs/ca-certificates.crt'", "client_cert_file '/etc/passwd', client_key_file '/etc/passwd'"],
)
def test_files_of_the_server_hold_alike(gateway, simulator, options):
    gateway.execute(
        "ALTER USER MAPPING FOR PUBLIC SERVER ideamart OPTIONS (DROP application_id_file, DROP password_file, ADD application_id 'a', ADD password 'b')"
    )
    gateway.execute(f"ALTER SERVER ideamart OPTIONS ({options})")
    owned_by(gateway, "ideamart", PLAIN)
    for call in (gateway.send, gateway.enqueue):
        with refused("42501", options.split()[0], "OWNER TO"):
            call()
    assert simulator.count() == 0


# As SQL writes them.
UNSENDABLE = ["E'x\\ny'", "E'x\\ty'", "E'x\\ry'", "E'\\x7f'", "'schlüssel'", "' x'", "'x '", "E'x\\u00a0'"]


@pytest.mark.parametrize("value", UNSENDABLE)
def test_what_no_header_can_hold_is_refused_when_it_is_written(gateway, value):
    for vendor, options in [
        ("hyperverge", "app_id {}, app_key 'k'"),
        ("hyperverge", "app_id 'i', app_key {}"),
        ("iserveu", "client_id {}, client_secret 's'"),
        ("relid", "access_token {}"),
    ]:
        name = (
            next(word for word in options.split() if not word.startswith(("'", "{")))
            if "{}," in options
            else options.split()[-2]
        )
        with refused("22023", f"option {name}", "HTTP header"):
            gateway.execute(f"CREATE USER MAPPING FOR {PLAIN} SERVER {vendor} OPTIONS ({options.format(value)})")
    # Where it stands in the body, or is encoded, anything goes.
    gateway.execute(
        f"CREATE USER MAPPING FOR {PLAIN} SERVER ideamart OPTIONS (application_id {value}, password {value})"
    )
    gateway.execute(f"CREATE USER MAPPING FOR {PLAIN} SERVER relid OPTIONS (username {value}, password {value})")


def test_a_file_that_no_header_can_hold(gateway, simulator):
    path = RUN.in_file("two\nlines")
    gateway.execute(f"ALTER USER MAPPING FOR PUBLIC SERVER hyperverge OPTIONS (SET app_id_file '{path}')")
    for _ in range(8):
        with refused("55000", "the file of user mapping option app_id_file", "HTTP header"):
            gateway.send("hyperverge")
    # It is no fault of the provider's: whoever has better credentials sends.
    gateway.execute(
        f"ALTER USER MAPPING FOR PUBLIC SERVER hyperverge OPTIONS (SET app_id_file '{credential_options('hyperverge')['app_id_file']}')"
    )
    assert gateway.send("hyperverge")["outcome"] == "sent"


def test_one_that_was_written_past_the_validator(gateway, simulator):
    """By an older version, say."""
    gateway.execute(
        "UPDATE pg_user_mapping SET umoptions = ARRAY[E'app_id=x\\ny', 'app_key=k']"
        " WHERE umserver = (SELECT oid FROM pg_foreign_server WHERE srvname = 'hyperverge')"
    )
    with refused("55000", "user mapping option app_id", "HTTP header"):
        gateway.send("hyperverge")
    assert simulator.count() == 0
