"""Promise: the golden files in tests/regress hold psql's output as a person sees it; each sql file says what it promises.

A difference is shown as a diff. If it is meant, `OTP_GOLDEN=write make gateway` writes the files anew: read them."""

import difflib
import os
import pathlib
import re

import pytest

REGRESS = pathlib.Path(__file__).resolve().parents[1] / "regress"


@pytest.mark.parametrize("name", sorted(file.stem for file in (REGRESS / "sql").glob("*.sql")))
def test_golden_file(cluster, database, name):
    output = cluster.psql(database, "-a", "-q", "-f", str(REGRESS / "sql" / f"{name}.sql"))
    # psql prefixes errors with the file's path; VERBOSITY verbose ends them with a line of Postgres' own source.
    output = re.sub(r"^psql:\S+:\d+: ", "", output, flags=re.M)
    output = re.sub(r"^LOCATION:.*\n", "", output, flags=re.M)
    # From 18 on psql says of what kind they are.
    output = re.sub(r"^ +List of (relations|views)$", "List of relations", output, flags=re.M)
    expected = REGRESS / "expected" / f"{name}.out"
    if os.environ.get("OTP_GOLDEN") == "write":
        expected.write_text(output)
    wanted = expected.read_text() if expected.exists() else ""
    diff = "\n".join(difflib.unified_diff(wanted.splitlines(), output.splitlines(), "expected", "now", lineterm=""))
    assert not diff, f"\n{diff}"
