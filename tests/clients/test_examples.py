"""Promise: each folder of examples is an application that works: what its README has one type, in a database that has the
extension and the sandbox, passes its own tests, as often as one likes to make the database anew; it is small, and its community's formatter finds
nothing to do."""

import re
import shutil
import socket
import subprocess
import threading
import time
import urllib.parse
import urllib.request

import pytest

from cluster import BINDIR, Cluster, free_port
from conftest import PLACE, ROOT

EXAMPLES = ("plpgsql", "postgrest", "pgtap")
SCHEMA = """
CREATE SCHEMA otp;
CREATE EXTENSION otp_gateway SCHEMA otp;
CREATE SERVER sandbox FOREIGN DATA WRAPPER otp_sandbox;
"""
VENDOR = """
CREATE SERVER vendor FOREIGN DATA WRAPPER otp_ideamart
  OPTIONS (base_url '{url}', allow_plain_http 'true', resend_after '0s', timeout '60s');
CREATE USER MAPPING FOR PUBLIC SERVER vendor OPTIONS (application_id 'APP_001100', password 'secret');
GRANT USAGE ON FOREIGN SERVER vendor TO registration_app;
"""


def command(example):
    """The one in its README."""
    (found,) = re.findall(
        r"^```sh\n(psql .*?)^```", (ROOT / "examples" / example / "README.md").read_text(), re.M | re.S
    )
    return found.replace("\\\n", " ")


@pytest.fixture(scope="module")
def cluster():
    cluster = Cluster().create()
    try:
        yield cluster.start()
    finally:
        cluster.remove()


@pytest.mark.parametrize("example", EXAMPLES)
def test_example(example, cluster):
    with cluster.database(extension=False) as database, cluster.session(database) as admin:
        admin.cursor().execute(SCHEMA)
        if example == "pgtap" and not has_pgtap(admin):
            pytest.skip("pgTAP is not there: a Postgres that is not Debian's brings its own")
        # An application's own tests run more than once.
        for _ in range(2 if example == "pgtap" else 1):
            run = played(command(example), cluster, database)
            said = run.stdout + run.stderr
            assert run.returncode == 0, said
            assert "ERROR" not in said and not re.search(r"^not ok|^# Looks like", said, re.M), said
            assert f"{example}: passed" in said or re.search(r"^ok \d+", said, re.M), said


def has_pgtap(session):
    with session.cursor() as cursor:
        cursor.execute("SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'pgtap')")
        return cursor.fetchone()[0]


def played(words, cluster, database):
    where = {
        "PGHOST": str(cluster.directory),
        "PGPORT": str(cluster.port),
        "PGUSER": "postgres",
        "PGDATABASE": database,
    }
    return subprocess.run(
        ["bash", "-c", words],
        cwd=ROOT,
        env={"PATH": f"{BINDIR}:/usr/bin:/bin", **where},
        text=True,
        capture_output=True,
    )


def test_fastapi(place):
    at = {"PGHOST": "127.0.0.1", "PGPORT": str(place.cluster.port), "PGUSER": "app", "PGDATABASE": "postgres"}
    run = subprocess.run(
        [
            PLACE / "fastapi/bin/python",
            "-m",
            "pytest",
            "-p",
            "no:cacheprovider",
            "-q",
            "--rootdir",
            ".",
            "-c",
            "/dev/null",
            ".",
        ],
        cwd=ROOT / "examples/fastapi",
        env={"PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1", "SIMULATOR": place.simulator.at["control"], **at},
        text=True,
        capture_output=True,
    )
    assert run.returncode == 0 and "skipped" not in run.stdout, run.stdout + run.stderr


def test_fastapi_as_its_readme_has_it(place):
    readme = (ROOT / "examples/fastapi/README.md").read_text()
    start, ask = re.findall(r"^```sh\n(.*?)^```", readme, re.M | re.S)
    port = str(free_port())
    at = {"PGHOST": "127.0.0.1", "PGPORT": str(place.cluster.port), "PGUSER": "app", "PGDATABASE": "postgres"}
    environment = {"PATH": f"{PLACE / 'fastapi/bin'}:/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1", **at}
    # What is installed is in PLACE.
    words = start.splitlines()[-1]
    assert words.startswith("uvicorn ")
    with subprocess.Popen(
        [*words.split(), "--port", port], cwd=ROOT, env=environment, stderr=subprocess.DEVNULL
    ) as server:
        try:
            answers(port)
            jar = place.cluster.dump() / "jar"
            ask = ask.replace("/tmp/jar", str(jar)).replace(":8000", f":{port}").replace("curl", "curl -s")
            said = subprocess.check_output(["bash", "-c", ask], text=True, env=environment)
            assert re.findall(r'"(?:outcome|mobile)":"([^"]+)"', said) == ["sent", "approved", "077 123 0601"], said
        finally:
            server.terminate()


def answers(port):
    end = time.monotonic() + 30
    while True:
        try:
            with socket.create_connection(("127.0.0.1", int(port))):
                return
        except OSError:
            assert time.monotonic() < end, "the server does not answer"
            time.sleep(0.05)


def test_node_says_where_it_is(place, tmp_path):
    """In whatever folder it lies."""
    folder = tmp_path / "a folder of mine"
    shutil.copytree(ROOT / "examples/node", folder)
    (folder / "node_modules").symlink_to(PLACE / "sign-in/node_modules")
    (tmp_path / "link").symlink_to(folder)
    at = {"PGHOST": "127.0.0.1", "PGPORT": str(place.cluster.port), "PGUSER": "app", "PGDATABASE": "postgres"}
    port = str(free_port())
    with subprocess.Popen(
        ["node", "server.js"],
        cwd=tmp_path / "link",
        env={"PATH": "/usr/bin:/bin", "PORT": port, **at},
        text=True,
        stdout=subprocess.PIPE,
    ) as server:
        try:
            end = threading.Timer(30, server.kill)
            end.start()
            url = server.stdout.readline().strip()
            end.cancel()
            assert url == f"http://127.0.0.1:{port}/"
            assert "<h1>Sign in</h1>" in urllib.request.urlopen(url, timeout=10).read().decode()
        finally:
            server.terminate()


def test_node(place, tmp_path):
    # Node looks for packages beside the file.
    shutil.copytree(ROOT / "examples/node", tmp_path, dirs_exist_ok=True)
    (tmp_path / "node_modules").symlink_to(PLACE / "sign-in/node_modules")
    at = {"PGHOST": "127.0.0.1", "PGPORT": str(place.cluster.port), "PGUSER": "app", "PGDATABASE": "postgres"}
    # Requests by PgBouncer, LISTEN by Postgres itself.
    at |= {"LISTEN_PORT": at["PGPORT"], "PGPORT": str(place.bouncer("transaction"))}
    run = subprocess.run(
        ["node", "--test"],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", **at},
        text=True,
        capture_output=True,
        timeout=120,
    )
    assert run.returncode == 0 and re.search(r"^(?:#|ℹ) pass 5$", run.stdout, re.M), run.stdout + run.stderr


def test_django(cluster):
    """Its tests, by a role with CREATEDB; and what its README has one type, by one that has what the README says."""
    with cluster.session() as admin, admin.cursor() as cursor:
        cursor.execute("CREATE DATABASE template_otp IS_TEMPLATE true")
        cursor.execute("CREATE ROLE shop LOGIN")
    for database in ("template_otp", "postgres"):
        with cluster.session(database) as admin, admin.cursor() as cursor:
            cursor.execute(SCHEMA + "GRANT USAGE ON SCHEMA otp TO shop; GRANT USAGE ON FOREIGN SERVER sandbox TO shop")
            cursor.execute("GRANT CREATE ON SCHEMA public TO shop")
    at = {"PGHOST": str(cluster.directory), "PGPORT": str(cluster.port), "PGUSER": "shop", "PGDATABASE": "postgres"}
    how = {
        "cwd": ROOT / "examples/django",
        "env": {"PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1", **at},
        "text": True,
    }
    manage = [PLACE / "django/bin/python", "manage.py"]
    for what in (["makemigrations", "--check"], ["check", "--fail-level", "WARNING"], ["migrate"]):
        run = subprocess.run([*manage, *what], capture_output=True, **how)
        assert run.returncode == 0, run.stdout + run.stderr
    port = str(free_port())
    with subprocess.Popen(
        [*manage, "runserver", "--noreload", port], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, **how
    ) as server:
        try:
            signed_up(f"http://127.0.0.1:{port}/")
        finally:
            server.terminate()
    with cluster.session() as admin, admin.cursor() as cursor:
        cursor.execute("ALTER ROLE shop CREATEDB")
    run = subprocess.run([*manage, "test"], capture_output=True, **how)
    assert run.returncode == 0 and re.search(r"^Ran 1[0-9] tests.*\n\nOK$", run.stderr, re.M), run.stdout + run.stderr


def signed_up(url):
    """As a browser does it, with cookies and the form's token."""
    browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
    end = time.monotonic() + 30
    while True:
        try:
            page = browser.open(url, timeout=10).read().decode()
            break
        except OSError:
            assert time.monotonic() < end, f"{url} does not answer"
            time.sleep(0.05)
    for field, typed, said in (
        ("phone", "0773700001", "We have sent you a code."), ("code", "123456", "Tries left: 4"), ("code", "000000", "Your number is 0773700001."),
    ):  # fmt: skip
        (token,) = set(re.findall(r'name="csrfmiddlewaretoken" value="(\w+)"', page))
        form = urllib.parse.urlencode({"csrfmiddlewaretoken": token, field: typed}).encode()
        answer = browser.open(url, form, timeout=30)
        url, page = answer.url, answer.read().decode()
        assert said in page, page


def test_spring(place, tmp_path):
    with place.cluster.database(extension=False) as database, place.cluster.session(database) as admin:
        tables = (ROOT / "examples/sign_up.sql").read_text().replace("BEGIN;", "", 1).replace("COMMIT;", "")
        admin.cursor().execute(SCHEMA + tables + VENDOR.format(url=place.simulator.url("ideamart")))
        at = {"JDBC_URL": f"jdbc:postgresql://127.0.0.1:{place.cluster.port}/{database}?user=registration_app"}

        def run(*words, **how):
            return subprocess.run(
                ["./run.sh", tmp_path, *words],
                cwd=ROOT / "examples/spring",
                env={"PATH": "/usr/bin:/bin", "SIMULATOR": place.simulator.at["control"], **at},
                text=True,
                capture_output=True,
                **how,
            )

        tested = run("org.junit.runner.JUnitCore", "signup.SignUpTest")
        assert tested.returncode == 0 and re.search(r"^OK \(9 tests\)$", tested.stdout, re.M), (
            tested.stdout + tested.stderr
        )
        typed = run("signup.Application", place.number(), input="123456\n000000\n")
        assert typed.stdout == "sent\nThe code: invalid_code\nThe code: approved\n", typed.stderr
        at.clear()
        assert "JDBC_URL: names the database" in run("signup.Application", place.number()).stderr


@pytest.mark.parametrize("example", (*EXAMPLES, "fastapi", "node", "django", "spring"))
def test_size(example):
    """A README of a screen, and at most 150 lines of its own code."""
    folder = ROOT / "examples" / example
    assert len((folder / "README.md").read_text().splitlines()) <= 40
    paths = [
        path
        for path in folder.rglob("*")
        if path.suffix in (".sql", ".py", ".js", ".java", ".sh") and "est" not in str(path.relative_to(folder))
    ]
    # What makemigrations writes is nobody's own.
    paths = [path for path in paths if path.name != "0001_initial.py"]
    code = [line.strip() for path in paths for line in path.read_text().splitlines()]
    assert (
        len(
            [
                line
                for line in code
                if line and not line.startswith(("--", "#", "//", "/**", "import java", "import org", "import com"))
            ]
        )
        <= 150
    )


RUFF = [PLACE / "django/bin/ruff", "format", "--check", "--no-cache"]
PRETTIER = [PLACE / "node/node_modules/.bin/prettier", "--check"]
# The newest that runs on Debian 12's Java.
GOOGLE = ["java", "-jar", PLACE / "node/node_modules/google-java-format/lib/google-java-format-1.25.2-all-deps.jar"]
FORMATTERS = {
    "python": (RUFF, ["*.py", "fastapi", "django"]),
    "node": (PRETTIER, ["node/*.js", "node/index.html", "node/package.json"]),
    "java": ([*GOOGLE, "--dry-run", "--set-exit-if-changed"], ["spring/src/*/java/*/*.java"]),
}


@pytest.mark.parametrize("formatter, patterns", FORMATTERS.values(), ids=FORMATTERS)
def test_format(formatter, patterns):
    """There is none for SQL that people agree on."""
    paths = [path for pattern in patterns for path in sorted((ROOT / "examples").glob(pattern))]
    assert len(paths) >= len(patterns)
    run = subprocess.run([*formatter, *paths], cwd=ROOT / "examples", text=True, capture_output=True)
    assert run.returncode == 0, run.stdout + run.stderr
