"""Promise: a sign-up table takes an ORM as it is. With the roles and rights of examples/sign_up.sql, Django's create() and
save(), which name all columns of a table, work on psycopg2 and on psycopg 3, also with an object that is older than its
row; and still nobody but verify_customer makes a phone verified."""

import hashlib
import json
import pathlib
import re
import subprocess
import sys

import psycopg2
import pytest

from cluster import Cluster
from test_documented_functions import documents, statements

ROOT = pathlib.Path(__file__).resolve().parents[2]
SIGN_UP = ROOT / "examples/sign_up.sql"
# Django 5.2 is the long-term version; asgiref, sqlparse and typing_extensions are what it and psycopg need.
PACKAGES = [
    "Django==5.2.19",
    "asgiref==3.9.1",
    "sqlparse==0.5.3",
    "psycopg==3.2.13",
    "psycopg-binary==3.2.13",
    "typing_extensions==4.15.0",
]
RIGHT, WRONG = "000000", "123456"

# Runs what it is told, a line each, and answers with a line of JSON.
CONSOLE = """
import json, sys
import django
from django.conf import settings
where = json.loads(sys.argv[1])
if where.pop("driver") == "psycopg2":
    sys.modules["psycopg"] = None
settings.configure(
    DATABASES={"default": {"ENGINE": "django.db.backends.postgresql", **where}}, INSTALLED_APPS=["sign_up"], USE_TZ=True,
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
)
django.setup()
from django.db import connection, transaction
from sign_up.models import Customer, VerifiedPhone
driver = connection.Database.__name__
names = dict(globals())
for line in sys.stdin:
    try:
        code = json.loads(line)
        try:
            answer = {"value": eval(code, names)}
        except SyntaxError:
            exec(code, names)
            answer = {"value": None}
    except Exception as error:
        answer = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(answer, default=str), flush=True)
"""


@pytest.fixture(scope="session")
def django():
    """A Python that has it: in a place of its own, beside what cargo builds."""
    place = ROOT / "target" / f"orm-{hashlib.sha256(repr(PACKAGES).encode()).hexdigest()[:8]}"
    python = place / "bin/python"
    if (
        subprocess.run([python, "-c", "import django, psycopg"], stderr=subprocess.DEVNULL).returncode
        if python.exists()
        else True
    ):
        # Debian's psycopg2 is seen from there.
        subprocess.run([sys.executable, "-m", "venv", "--clear", "--system-site-packages", place], check=True)
        subprocess.run(
            [place / "bin/pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", *PACKAGES], check=True
        )
    return python


@pytest.fixture(scope="module")
def cluster():
    """Roles are the cluster's: the example has its own."""
    cluster = Cluster().create()
    try:
        cluster.start()
        with cluster.session() as admin, admin.cursor() as cursor:
            cursor.execute("CREATE SCHEMA otp; CREATE EXTENSION otp_gateway SCHEMA otp")
            cursor.execute("CREATE SERVER sandbox FOREIGN DATA WRAPPER otp_sandbox OPTIONS (resend_after '0s')")
        # Postgres logs a statement that fails, psycopg2's with the number in it, unless the role is quiet.
        for file in (SIGN_UP, SIGN_UP, ROOT / "contrib/quiet_role.sql"):
            said = cluster.psql("postgres", "-v", "ON_ERROR_STOP=1", "-v", "role=registration_app", "-f", file)
            assert "ERROR" not in said, said
        yield cluster
    finally:
        cluster.remove()


class Console:
    def __init__(self, python, cluster, driver, folder):
        app = folder / "sign_up"
        app.mkdir()
        (app / "__init__.py").touch()
        (app / "models.py").write_text((ROOT / "examples/sign_up_models.py").read_text())
        (folder / "console.py").write_text(CONSOLE)
        where = {
            "driver": driver,
            "HOST": str(cluster.directory),
            "PORT": cluster.port,
            "NAME": "postgres",
            "USER": "registration_app",
        }
        self.process = subprocess.Popen(
            [python, "console.py", json.dumps(where)],
            cwd=folder,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.cluster = cluster

    def __call__(self, code):
        self.process.stdin.write(json.dumps(code) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        if "error" in answer:
            raise AssertionError(answer["error"])
        return answer["value"]

    def fails(self, code, what):
        with pytest.raises(AssertionError, match=what):
            self(code)

    def admin(self, statement):
        """As the superuser, beside Django."""
        with self.cluster.session() as session, session.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else None

    def close(self):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


@pytest.fixture(params=["psycopg2", "psycopg"])
def console(request, django, cluster, tmp_path):
    console = Console(django, cluster, request.param, tmp_path)
    try:
        assert console("driver") == request.param
        console.admin("TRUNCATE public.customer CASCADE")
        yield console
    finally:
        console.close()


def signed_up(console, phone="0771230001"):
    console(f"c = Customer.objects.create(phone='{phone}')")
    assert console("c.code_sent()")[0] == "sent"


def test_sign_up(console):
    """create, save, refresh, wait, a wrong code, the right one."""
    assert console("[f.column for f in Customer._meta.concrete_fields]") == ["id", "phone", "verification_id"]
    ((before,),) = console.admin("SELECT count(*)::int FROM otp_gateway.verification")
    console("c = Customer.objects.create(phone='0771230001')")
    assert console("c.verification_id") is None
    # An object that knows nothing of it, saved whole.
    console("c.save()")
    console("c.refresh_from_db()")
    assert console("c.verification_id") is not None
    console("c.save()")
    assert console("c.code_sent()[0]") == "sent"
    assert console("c.is_verified()") is False
    assert console(f"c.verify('{WRONG}')[0]") == "invalid_code"
    assert console("(c.is_verified(), Customer.verified().count())") == [False, 0]
    assert console(f"c.verify('{RIGHT}')[0]") == "approved"
    assert console("(c.is_verified(), [one.pk == c.pk for one in Customer.verified()])") == [True, [True]]
    # Saved as it was, and a double click.
    console("c.save()")
    assert console("c.is_verified()") is True
    # Who is verified has no other code approved: nobody compares it.
    for code in (RIGHT, WRONG, "hello", ""):
        assert console(f"c.verify('{code}')") == ["already_used", 0, None], code
    assert console("c.send_code_again()") == ["verified", None]
    # However often it was saved, one code was sent.
    assert console.admin("SELECT count(*)::int FROM otp_gateway.verification") == [(before + 1,)]


def test_within_a_transaction(console):
    """As under ATOMIC_REQUESTS: what is rolled back was never signed up; a wrong code in it counts."""
    before = console.admin("SELECT count(*) FROM otp_gateway.verification")
    console("""
with transaction.atomic():
    Customer.objects.create(phone='0771230002')
    transaction.set_rollback(True)
""")
    assert console("Customer.objects.count()") == 0
    assert console.admin("SELECT count(*) FROM otp_gateway.verification") == before
    console("""
with transaction.atomic():
    c = Customer.objects.create(phone='0771230003')
    c.save()
""")
    assert console("c.code_sent()[0]") == "sent"
    console(f"""
with transaction.atomic():
    c.verify('{WRONG}')
    transaction.set_rollback(True)
""")
    assert console.admin(
        "SELECT check_count FROM otp_gateway_internal.verification_record JOIN public.customer ON verification_id = verification_record.id"
    ) == [(1,)]


def test_another_phone(console):
    """It is verified no more, and gets a code of its own; the old one's is of no use."""
    signed_up(console)
    assert console(f"c.verify('{RIGHT}')[0]") == "approved"
    console("c.phone = '0771230009'; c.save()")
    assert console("(c.is_verified(), Customer.verified().count())") == [False, 0]
    assert console("c.code_sent()[0]") == "sent"
    assert console(f"c.verify('{WRONG}')[0]") == "invalid_code"
    assert console(f"c.verify('{RIGHT}')[0]") == "approved"
    assert console("c.is_verified()") is True


def test_send_again_and_an_object_that_is_older(console):
    """Saved with the id that it has read before, it does not take the new code's place."""
    signed_up(console)
    console("c.refresh_from_db()")
    console.admin(
        "UPDATE otp_gateway_internal.verification_record SET status = 'expired', sealed = NULL WHERE status = 'pending'"
    )
    assert console(f"c.verify('{RIGHT}')[0]") == "expired"
    assert console("c.send_code_again()") == ["queued", None]
    now = console.admin("SELECT verification_id::text FROM public.customer")
    assert console("str(c.verification_id)") != now[0][0]
    console("c.save()")
    assert console.admin("SELECT verification_id::text FROM public.customer") == now
    assert console("c.code_sent()[0]") == "sent"
    assert console(f"c.verify('{RIGHT}')[0]") == "approved"
    # Verified: nothing more is sent.
    assert console("c.send_code_again()") == ["verified", None]
    assert console.admin("SELECT verification_id::text FROM public.customer") == now


def test_a_rollback_of_ones_own(console):
    """What was approved is written by the retry; the one after that is told that it is done."""
    signed_up(console)
    console(f"""
with transaction.atomic():
    undone = c.verify('{RIGHT}')
    transaction.set_rollback(True)
""")
    assert console("(undone[0], c.is_verified())") == ["approved", False]
    assert console(f"(c.verify('{RIGHT}')[0], c.is_verified())") == ["approved", True]
    assert console(f"c.verify('{WRONG}')[0]") == "already_used"
    # By then its approval is old: it is written all the same.
    console.admin(
        "UPDATE otp_gateway_internal.verification_record SET approved_at = approved_at - interval '11 minutes'"
    )
    assert console(f"c.verify('{RIGHT}')[0]") == "already_used"


def test_a_number_that_is_locked(console):
    """No message is bought whose code could not be given; one that was bought says that it has no tries."""
    # The limits are the number's, for longer than a test.
    number = {"psycopg2": "771230021", "psycopg": "771230023"}[console("driver")]
    signed_up(console, f"0{number}")
    for left in (4, 3, 2, 1, 0):
        assert console(f"c.verify('{WRONG}')") == ["invalid_code", left, None]
    assert console(f"c.verify('{RIGHT}')[:2]") == ["max_attempts_reached", 0]
    sent = console.admin("SELECT count(*) FROM otp_gateway.attempt")
    outcome, wait = console("c.send_code_again()")
    assert (outcome, "0:09:" in wait) == ("max_attempts_reached", True)
    assert console.admin("SELECT count(*) FROM otp_gateway.attempt") == sent
    # The same phone signs up once more.
    console(f"d = Customer.objects.create(phone='+94{number}')")
    assert console("d.code_sent()") == ["sent", 0, None]
    outcome, left, wait = console(f"d.verify('{RIGHT}')")
    assert (outcome, left, "0:09:" in wait) == ("blocked", 0, True)
    # After its time the flow is over, and there is a new one.
    console.admin(
        "UPDATE otp_gateway_internal.verification_record SET expires_at = now() WHERE status = 'max_attempts_reached'"
    )
    assert console("c.send_code_again()") == ["queued", None]


def test_a_code_that_is_still_queued(console):
    """Neither is the user sent round in a circle nor does a second message leave."""
    console.admin("ALTER SERVER sandbox OPTIONS (ADD paused 'true')")
    try:
        console("c = Customer.objects.create(phone='0771230022')")
        assert console("c.code_sent(seconds=0)")[0] is None
        assert console(f"c.verify('{RIGHT}')[0]") == "queued"
        before = console.admin("SELECT verification_id FROM public.customer")
        assert console("c.send_code_again()") == ["queued", None]
        assert console.admin("SELECT verification_id FROM public.customer") == before
    finally:
        console.admin("ALTER SERVER sandbox OPTIONS (DROP paused)")
    assert console("c.code_sent()[0]") == "sent"
    assert console(f"c.verify('{RIGHT}')[0]") == "approved"
    assert console("Customer(pk=4711).send_code_again()") == ["not_found", None]


def test_a_row_that_brings_an_id_of_its_own(console):
    """By a model's default, say: nothing is sent, and the button mends it."""
    console("import uuid; c = Customer.objects.create(phone='0771230024', verification_id=uuid.uuid4())")
    for call in ("code_sent()", f"verify('{RIGHT}')"):
        console.fails(f"c.{call}", "no verification of that id")
    assert console("c.send_code_again()") == ["queued", None]
    assert console("c.code_sent()[0]") == "sent"
    assert console(f"c.verify('{RIGHT}')[0]") == "approved"


def test_nobody_else_verifies(console):
    """Each way that the application's role has to say that a phone is verified, or to take somebody else's proof."""
    signed_up(console)
    denied = "permission denied for table verified_phone"
    console.fails(
        "VerifiedPhone.objects.create(customer=c, phone=c.phone, verification_id=c.pk, verified_at='2026-01-01T00:00Z')",
        denied,
    )
    assert console(f"c.verify('{RIGHT}')[0]") == "approved"
    console.fails("VerifiedPhone.objects.update(phone='0771230008')", denied)
    console.fails("VerifiedPhone.objects.all()[0].save()", denied)
    console.fails("VerifiedPhone.objects.filter(pk=c.pk)._raw_delete('default')", denied)
    # Another customer with the same phone, and the same verification: once it is taken, it proves nothing more.
    console("c.refresh_from_db(); mine = c.verification_id")
    console.fails("Customer.objects.create(phone=c.phone, verification_id=mine)", "customer_verification_id_key")
    console("import uuid; Customer.objects.filter(pk=c.pk).update(verification_id=uuid.uuid4())")
    console("d = Customer.objects.create(phone=c.phone, verification_id=mine)")
    console.fails(f"d.verify('{RIGHT}')", "verified_phone_verification_id_key")
    assert console("d.is_verified()") is False
    # A row cannot move to where a proof is.
    console("id = c.pk")
    console.fails("Customer.objects.filter(pk=c.pk).update(id=4711)", "foreign key")
    console("c.delete()")
    assert console("VerifiedPhone.objects.count()") == 0
    console("Customer.objects.filter(pk=d.pk).update(id=id); d = Customer.objects.get(pk=id)")
    assert console("d.is_verified()") is False


def test_nobody_but_the_application_asks(console):
    """Other roles of the database may not try codes."""
    signed_up(console)
    with console.cluster.session() as admin, admin.cursor() as cursor:
        cursor.execute("CREATE ROLE passer_by LOGIN")
        try:
            with console.cluster.session(user="passer_by") as session, session.cursor() as other:
                for call in ("verify_customer(1, '000000')", "send_code_again(1)"):
                    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
                        other.execute(f"SELECT public.{call}")
        finally:
            cursor.execute("DROP ROLE passer_by")


def test_the_views_of_the_page(console):
    """Played as they stand in docs/sign-up.md: the form, a wrong code, "send again" while it is open, the right code."""
    (views,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs/sign-up.md").read_text(), re.S | re.M)
    console(views)
    console(
        "from types import SimpleNamespace\n"
        "session = {}\n"
        "redirect = lambda *to: to\n"
        "render = lambda request, page, context=None, status=200: context or page\n"
        "get = lambda: SimpleNamespace(method='GET', session=session)\n"
        "post = lambda **form: SimpleNamespace(method='POST', POST=form, session=session)\n"
    )
    assert console("sign_up(get())") == "sign_up.html"
    for wrong in ("phone='abc'", r"phone='\0'", ""):
        assert console(f"sign_up(post({wrong}))") == {"error": "Please look at the number."}
    (_, pk), (_, second) = (
        console("sign_up(post(phone='0771230009'))"),
        console("sign_up(post(phone=' (077) 123-0010'))"),
    )
    assert pk != second
    # In two tabs: each form's code is its own customer's.
    for customer in (pk, second):
        assert console(f"code(get(), {customer})") == {"outcome": "sent", "attempts_left": 5, "retry_after": None}
    for left in (4, 3):
        wrong = {"outcome": "invalid_code", "attempts_left": left, "retry_after": None}
        assert console(f"code(post(code='{WRONG}'), {pk})") == wrong
    sent_again = {"outcome": "sent", "attempts_left": None, "retry_after": None}
    assert console(f"code(post(again='1'), {pk})") == sent_again
    for nothing in ("post()", r"post(code='\0')"):
        assert console(f"code({nothing}, {pk})")["outcome"] == "invalid_code"
    assert console(f"code(post(code='{RIGHT}'), {pk})") == ["welcome"]
    # A reload, a second click, a late "again".
    for late in ("get()", f"post(code='{WRONG}')", "post(again='1')"):
        assert console(f"code({late}, {pk})") == ["welcome"]
    assert console(f"[Customer.objects.get(pk=pk).is_verified() for pk in ({pk}, {second})]") == [True, False]
    assert console(f"code(post(code='{RIGHT}'), {second})") == ["welcome"]
    # Nobody else's, and nobody's.
    console("Customer(pk=4712, phone='0771230011').save()")
    for other in (4712, 4713):
        console.fails(f"code(get(), {other})", "Http404")
        console.fails(f"code(post(code='{RIGHT}'), {other})", "Http404")


def test_documents_have_the_same():
    """A document that shows these tables and functions shows them as the example has them."""
    example = made(SIGN_UP.read_text())
    for path in documents():
        text = (
            "\n".join(re.findall(r"^```sql\n(.*?)^```", path.read_text(), re.S | re.M))
            if path.suffix == ".md"
            else path.read_text()
        )
        if "public.verified_phone" in text:
            shown = made(text)
            assert {name: shown[name] for name in shown if name in example} == {
                name: example[name] for name in shown if name in example
            }, path


def made(text):
    """What a script makes, by kind and name; the provider is each document's own."""
    found = {}
    for statement in statements(text):
        # The example can be played twice.
        statement = re.sub(
            r"^CREATE (?:OR REPLACE )?(TABLE|TRIGGER|FUNCTION) (?:IF NOT EXISTS )?", r"CREATE \1 ", statement
        )
        if name := re.match(r"CREATE (?:TABLE|TRIGGER|FUNCTION) [\w.]+", statement):
            found[name[0]] = re.sub(
                r"send_after_commit\(\s*'\w+'", "send_after_commit('<provider>'", " ".join(statement.split())
            )
    return found


def test_the_driver_knows_the_row(console):
    """A row that is selected whole is an object with its columns, once the driver was told of the type's name."""
    console("connection.ensure_connection()")
    if console("driver") == "psycopg":
        console("from psycopg.types.composite import CompositeInfo, register_composite")
        console(
            "register_composite(CompositeInfo.fetch(connection.connection, 'otp_gateway.result'), connection.connection)"
        )
    else:
        console("from psycopg2.extras import register_composite")
        console("register_composite('otp_gateway.result', connection.connection)")
    console("cursor = connection.cursor()")
    console("""cursor.execute("SELECT otp.otp_send('sandbox', %s)", ['{"mobile": "0771231277"}'])""")
    console("row = cursor.fetchone()[0]")
    assert console("(row.outcome, row.status, row.retryable, row.attempts_left > 0)") == [
        "sent",
        "pending",
        False,
        True,
    ]


# An application's own tests, as docs/testing-your-application.md says of Django's.
DJANGO_TESTS = """
from django.db import DatabaseError, transaction
from django.test import TestCase, TransactionTestCase
from sign_up.models import Customer

class Wrapped(TestCase):
    def test_no_code_leaves(self):
        with self.assertRaisesMessage(DatabaseError, "nothing is sent before its COMMIT"), transaction.atomic():
            Customer.objects.create(phone="0771230031").code_sent()

class Committed(TransactionTestCase):
    def test_sign_up(self):
        customer = Customer.objects.create(phone="0771230032")
        self.assertEqual(customer.code_sent()[0], "sent")
        self.assertEqual(customer.verify("000000")[0], "approved")
"""


def test_djangos_own_tests(django, cluster, tmp_path):
    """In a test database of Django's, made from a template that has the extension and the tables."""
    app = tmp_path / "sign_up"
    app.mkdir()
    (app / "__init__.py").touch()
    (app / "models.py").write_text((ROOT / "examples/sign_up_models.py").read_text())
    (app / "tests.py").write_text(DJANGO_TESTS)
    where = {"HOST": str(cluster.directory), "PORT": cluster.port, "NAME": "shop", "USER": "registration_app"}
    where |= {"ENGINE": "django.db.backends.postgresql", "TEST": {"TEMPLATE": "template_otp"}}
    (tmp_path / "settings.py").write_text(
        f"DATABASES = {{'default': {where!r}}}\nINSTALLED_APPS = ['sign_up']\nUSE_TZ = True\nSECRET_KEY = 'x'\n"
        "DEFAULT_AUTO_FIELD = 'django.db.models.BigAutoField'\n"
    )
    said = cluster.psql("postgres", "-v", "ON_ERROR_STOP=1", "-c", "CREATE DATABASE template_otp IS_TEMPLATE true")
    said += cluster.psql("postgres", "-v", "ON_ERROR_STOP=1", "-c", "ALTER ROLE registration_app CREATEDB")
    said += cluster.psql(
        "template_otp",
        "-v",
        "ON_ERROR_STOP=1",
        "-c",
        "CREATE SCHEMA otp",
        "-c",
        "CREATE EXTENSION otp_gateway SCHEMA otp",
        "-c",
        "CREATE SERVER sandbox FOREIGN DATA WRAPPER otp_sandbox",
    )
    said += cluster.psql("template_otp", "-v", "ON_ERROR_STOP=1", "-f", SIGN_UP)
    assert "ERROR" not in said, said
    run = subprocess.run(
        [django, "-m", "django", "test", "--settings=settings"],
        cwd=tmp_path,
        text=True,
        capture_output=True,
        env={"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin:/bin"},
    )
    assert run.returncode == 0 and "Ran 2 tests" in run.stderr, run.stderr
