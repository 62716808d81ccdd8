"""Promise: `otp_gateway.payload_field` tells what a payload takes, for everybody, and the vendors' pages tell the same. What
it calls required makes a body that can be sent as it is.

A difference to a page is shown as a diff. `OTP_GOLDEN=write make gateway T=test_payload_field` writes the section "Fields" of
each page anew: read it."""

import difflib
import json
import os
import pathlib
import re

import psycopg2
import pytest

from conftest import FLOWS
from vendors import TABLE

PAGES = pathlib.Path(__file__).resolve().parents[2] / "docs/vendors"
SECTION = re.compile(r"^## Fields\n.*?(?=^## |\Z)", re.M | re.S)

INTRODUCTION = """\
As `SELECT * FROM otp_gateway.payload_field WHERE vendor = '{vendor}'` has them. Either name is taken. *Kept*:
known from the send, so that only a flow begun elsewhere gives it.

| field | vendor's name | required for | rule | example |
|---|---|---|---|---|
"""


def needed_for(rows):
    """Of one field: the operations, by how much they need it."""
    said = {"yes": [], "kept": [], "no": []}
    for operation, required in rows:
        how, instead, variant = re.fullmatch(r"(yes|kept|no)(?:, or (.+?))?(?: \((.+)\))?", required).groups()
        said[how].append(operation + (f" of {variant}" if variant else "") + (f" (or {instead})" if instead else ""))
    names = {"yes": "", "kept": "kept for ", "no": "optional in "}
    return "; ".join(name + ", ".join(said[how]) for how, name in names.items() if said[how])


def table(vendor, rows):
    """What the page of a vendor has."""
    lines = {}
    for operation, field, vendor_name, required, rule, example in rows:
        lines.setdefault((field, vendor_name, rule, json.dumps(example, ensure_ascii=False)), []).append(
            (operation, required)
        )
    text = INTRODUCTION.format(vendor=vendor)
    for (field, vendor_name, rule, example), of in lines.items():
        vendor_name = f"`{vendor_name}`" if vendor_name else "its members' own"
        cells = [f"`{field}`", vendor_name, needed_for(of), rule, f"`{example}`"]
        text += "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"
    return f"## Fields\n{text}"


@pytest.fixture
def rows(quick_gateway):
    rows = quick_gateway.execute(
        "SELECT vendor, operation, field, vendor_name, required, rule, example FROM otp_gateway.payload_field"
    )
    vendors = {}
    for vendor, *row in rows:
        vendors.setdefault(vendor, []).append(row)
    return vendors


def test_the_pages_say_the_same(quick_gateway, rows):
    wrappers = quick_gateway.execute("SELECT substr(fdwname, 5) FROM pg_foreign_data_wrapper WHERE fdwname ~ '^otp_'")
    # What a described vendor takes, each server says: otp_gateway.try shows it.
    assert {"route", "rest", *rows} == {name for (name,) in wrappers}, "every vendor that there is"
    differences = []
    for vendor, of in rows.items():
        page = PAGES / f"{vendor}.md"
        assert page.exists(), f"{page.name} is missing: a page for the vendor, with a section ## Fields"
        text, wanted = page.read_text(), table(vendor, of)
        section = SECTION.search(text)
        assert section, f"{page.name} has no section ## Fields"
        if os.environ.get("OTP_GOLDEN") == "write":
            rest = text[section.end() :]
            page.write_text(text[: section.start()] + wanted + ("\n" + rest if rest else ""))
            section = SECTION.search(page.read_text())
        there = section[0].strip().splitlines()
        differences += difflib.unified_diff(there, wanted.strip().splitlines(), page.name, "the view", lineterm="")
    assert not differences, "\n" + "\n".join(differences)


def test_the_page_of_a_described_vendor_says_the_same():
    """As its description, which stands on it: each field, its name at the vendor, and whether a send needs it."""
    page = (PAGES / "vonage.md").read_text()
    fields = json.loads(page.split("```json\n")[1].split("```")[0])["fields"]
    rows = re.findall(r"^\| `(\w+)` \| `(\w+)` \| (\w+)", SECTION.search(page)[0], re.M)
    assert rows == [
        (name, field.get("vendor_name", name), "send" if "required" in field else "optional")
        for name, field in fields.items()
    ]


@pytest.mark.parametrize("vendor", [name for name in FLOWS if TABLE[name].wrapper is None])
def test_what_is_required_is_a_body_to_paste(quick_gateway, vendor):
    """As the vendor's simulator takes it, for a number that is not that of the example."""
    [(body,)] = quick_gateway.execute(
        "SELECT jsonb_object_agg(field, example) FROM otp_gateway.payload_field"
        " WHERE vendor = %s AND operation = 'send' AND required LIKE 'yes%%'",
        (vendor,),
    )
    to = "user_id" if vendor == "relid" else "mobile"
    assert to in body
    body[to] = quick_gateway.number(vendor)
    row = quick_gateway.row("SELECT * FROM otp_send(%s, %s)", (vendor, json.dumps(body)))
    assert row["outcome"] == "sent", row


def test_an_error_names_the_rule_that_the_view_has(quick_gateway):
    [(rule,)] = quick_gateway.execute(
        "SELECT rule FROM otp_gateway.payload_field WHERE (vendor, operation, field) = ('hyperverge', 'send', 'mobile')"
    )
    with pytest.raises(psycopg2.Error) as refused:
        quick_gateway.send("hyperverge", mobile="12")
    assert rule in refused.value.diag.message_hint
