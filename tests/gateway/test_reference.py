"""Promise: docs/reference.md is whole and true: each function with its arguments, each setting with its default, each view,
column of the result, outcome, status and SQLSTATE that there is, and none that there is not. And no document names a
function, view, column, type, wrapper or setting of ours that is not there."""

import pathlib
import re

import pytest

from test_documents_play import ROOT, documents

PAGE = (ROOT / "docs/reference.md").read_text()
NAME = re.compile(r"\b(otp_gateway(?:_internal)?)\.([a-z_]+)(?:\.([a-z_]+))?")
# Files beside the data, and what is installed.
FILES = {"so", "control", "key", "key_id", "key_file", "collector"}


def table(heading):
    """The first cells under that heading, up to the next one: what stands in backticks there."""
    (found,) = re.findall(rf"^#+ {heading}\n(.*?)(?=^#|\Z)", PAGE, re.M | re.S)
    return [name for row in re.findall(r"^\| (`.*?) \|", found, re.M) for name in re.findall(r"`([^`]+)`", row)]


@pytest.fixture
def rows(gateway):
    return lambda statement: [tuple(row) for row in gateway.execute(statement)]


def test_functions(rows):
    there = rows("""
        SELECT CASE WHEN pronamespace = 'otp_gateway'::regnamespace THEN 'otp_gateway.' ELSE '' END || proname
          || '(' || pg_get_function_arguments(oid) || ')'
        FROM pg_proc AS p JOIN pg_depend AS d ON d.objid = p.oid AND d.classid = 'pg_proc'::regclass AND d.deptype = 'e'
        WHERE d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'otp_gateway')
        AND pronamespace <> 'otp_gateway_internal'::regnamespace
    """)
    # Without output columns, the types of defaults, and the spelling of an interval.
    plain = lambda text: re.sub(
        r"(?:, )?OUT .*\)|::\w+|'\d\d:(?:\d\d:?)+'|'\d+ ?\w+'", lambda hit: ")" if "OUT" in hit[0] else "", text
    )
    assert sorted(map(plain, table("Functions"))) == sorted(plain(text) for (text,) in there)


def test_settings(rows):
    there = dict(rows("SELECT name, boot_val FROM pg_settings WHERE name LIKE 'otp\\_gateway.%'"))
    assert set(table("Settings")) == set(there)
    shown = dict(re.findall(r"^\| `(otp_gateway\.\w+)` \| `?([^`|:]*)", PAGE, re.M))
    in_units = dict(
        rows("""
        SELECT name, boot_val || coalesce(unit, '') FROM pg_settings WHERE name LIKE 'otp\\_gateway.%'
    """)
    )
    for name, value in in_units.items():
        number = re.match(r"-?\d+", shown[name])
        if number and value[-1].isalpha():
            assert rows(f"SELECT interval '{shown[name]}' = interval '{value}'") == [(True,)], (
                name,
                shown[name],
                value,
            )
        elif number or value in ("on", "off"):
            assert shown[name] == value, (name, shown[name], value)


def test_views_and_the_result(rows):
    there = rows(
        "SELECT 'otp_gateway.' || relname FROM pg_class WHERE relnamespace = 'otp_gateway'::regnamespace AND relkind = 'v'"
    )
    assert set(table("Views")) == {name for (name,) in there}
    result = rows("""
        SELECT attname::text, format_type(atttypid, atttypmod) FROM pg_attribute
        WHERE attrelid = 'otp_gateway.result'::regclass AND attnum > 0 ORDER BY attnum
    """)
    assert table("The row") == [name for name, _ in result]
    types = dict(re.findall(r"^\| `(\w+)`(?:, `\w+`)? \| (\w+) \|", PAGE, re.M))
    plain = {"timestamp with time zone": "timestamptz"}
    assert [types[name] for name, _ in result if name in types] == [
        plain.get(of, of) for name, of in result if name in types
    ]


@pytest.mark.parametrize("heading, domain", [("Outcomes", "outcome"), ("Statuses", "status")])
def test_words(rows, heading, domain):
    ((check,),) = rows(f"""
        SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE contypid = 'otp_gateway_internal.{domain}'::regtype
    """)
    assert set(table(heading)) == set(re.findall(r"'(\w+)'", check))


def test_sqlstates():
    """Each one that src/error.rs has, by Postgres' names for them, and that of a cancel, has a line; and no other."""
    named = {
        "INVALID_PARAMETER_VALUE": "22023",
        "FDW_INVALID_OPTION_NAME": "HV00D",
        "UNDEFINED_OBJECT": "42704",
        "INSUFFICIENT_PRIVILEGE": "42501",
        "PROGRAM_LIMIT_EXCEEDED": "54000",
        "OBJECT_NOT_IN_PREREQUISITE_STATE": "55000",
        "LOCK_NOT_AVAILABLE": "55P03",
        "INVALID_TRANSACTION_STATE": "25000",
        "READ_ONLY_SQL_TRANSACTION": "25006",
        "E_R_I_E_TRIGGER_PROTOCOL_VIOLATED": "39P01",
        "FEATURE_NOT_SUPPORTED": "0A000",
        "CONFIGURATION_LIMIT_EXCEEDED": "53400",
        "INTERNAL_ERROR": "XX000",
    }
    raised = set(re.findall(r"Self::\w+ => PgSqlErrorCode::ERRCODE_(\w+)", (ROOT / "src/error.rs").read_text()))
    lines = re.findall(
        r"^\| ([0-9A-Z]{5}) \|", PAGE[PAGE.index("\n## Errors\n") :].partition("\n## The payload\n")[0], re.M
    )
    assert sorted(lines) == sorted([*(named.get(name, f"what is {name}?") for name in raised), "57014"])


def test_every_name_in_a_document(rows):
    there = set(
        rows("""
        SELECT nspname::text, relname::text FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = relnamespace WHERE nspname LIKE 'otp%'
        UNION SELECT nspname, proname FROM pg_proc JOIN pg_namespace AS n ON n.oid = pronamespace WHERE nspname LIKE 'otp%'
        UNION SELECT nspname, typname FROM pg_type JOIN pg_namespace AS n ON n.oid = typnamespace WHERE nspname LIKE 'otp%'
        UNION SELECT split_part(name, '.', 1), split_part(name, '.', 2) FROM pg_settings WHERE name LIKE 'otp\\_gateway.%'
    """)
    )
    columns = set(
        rows("""
        SELECT nspname::text, relname::text, attname::text FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = attrelid
        JOIN pg_namespace AS n ON n.oid = relnamespace WHERE nspname LIKE 'otp%' AND NOT attisdropped
    """)
    )
    ours = {
        name
        for (name,) in rows("""
        SELECT fdwname::text FROM pg_foreign_data_wrapper UNION SELECT proname FROM pg_proc WHERE proname LIKE 'otp\\_%'
        UNION SELECT field FROM otp_gateway.payload_field
    """)
    }
    wrong = []
    for path in documents():
        # The changelog has the names of before as well.
        text = "" if path.name == "CHANGELOG.md" else path.read_text()
        for hit in NAME.finditer(text):
            if hit[2] in FILES or text[hit.end() : hit.end() + 1] in "_*":
                continue
            known = (hit[1], hit[2]) in there and (not hit[3] or (hit[1], hit[2], hit[3]) in columns)
            wrong += [] if known else [f"{path.relative_to(ROOT)}: {hit[0]}"]
        # A vendor's page has the vendor's own words; otp_x stands for any name.
        for hit in re.finditer(r"`(otp_[a-z]+)\b(?![._/])", text if path.parent.name != "vendors" else ""):
            wrong += [] if hit[1] in ours | {"otp_gateway", "otp_x"} else [f"{path.relative_to(ROOT)}: {hit[1]}"]
    assert not wrong, "\n".join(sorted(set(wrong)))
