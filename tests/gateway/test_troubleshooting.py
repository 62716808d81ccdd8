"""Promise: whatever message of ours somebody has before them, docs/troubleshooting.md has an entry for it, and no entry for
what nothing says any more. The messages are taken from the source: every error, every line of the log, every reason that
`vendor_message` gives for a call that was not made or not answered. `...` stands for what differs.

A message that is new fails this test: `OTP_GOLDEN=write make gateway T=test_troubleshooting` puts it into the page's last
section, with its hint for a remedy, and takes out what is gone: sort it in, and say what to do."""

import os
import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/troubleshooting.md"
OTHERS = "## Not sorted in yet\n"

# Who makes a message, and which of its arguments is the message; the one after it is the hint, if there is one.
ERRORS = (
    r"(?:Error|Self)::(?:invalid_parameter|invalid_option_name|undefined_object|insufficient_privilege|not_in_prerequisite_state"
    r"|read_only_transaction|configuration_limit|program_limit|trigger_protocol_violated|invalid_transaction_state"
    r"|lock_not_available|not_supported|internal)"
)
MAKERS = {
    rf"{ERRORS}|ParseError::new|refused|refuse|about|let what = format!": 0,
    r"(?:pgrx::)?(?:log|warning|error|notice)!": 0,
    r"Invalid::new|(?:Invalid|Self)::of_fields": 1,
    r"(?:pgrx::)?ereport!": 2,
    r"set_detail|set_hint": 0,
}
CALL = re.compile("|".join(rf"\b(?P<m{at}x{number}>{names})\s*\(" for number, (names, at) in enumerate(MAKERS.items())))
# Where every sentence is one: what `vendor_message` says of calls that were not made, or not answered.
ALL_OF = [
    ROOT / name
    for name in (
        "crates/http_client/src/exchange.rs",
        "crates/http_client/src/oauth.rs",
        "crates/http_client/src/post.rs",
        "crates/http_client/src/connection_pools.rs",
        "crates/http_client/src/option_file.rs",
        "crates/http_client/src/allowed_hosts.rs",
        "crates/dialect/src/oauth.rs",
        "crates/dialect/src/response.rs",
        "src/worker/admission.rs",
        "src/worker/limit_check.rs",
        "src/worker/queued_decision.rs",
        "src/worker/recovery.rs",
        "src/store/replica.rs",
    )
]
LITERAL = re.compile(r'(?<![\w#])r?"((?:[^"\\]|\\.)*)"', re.S)


def sources():
    for path in sorted([*ROOT.glob("src/**/*.rs"), *ROOT.glob("crates/*/src/**/*.rs")]):
        # Tests of a file stand at its end.
        yield path, re.sub(r"(?m)(^|\s)//[^\n]*", r"\1", path.read_text().partition("#[cfg(test)]")[0])


def arguments(text, start):
    """Of a call whose bracket has been opened there: each argument's text."""
    depth, begin, at, found = 1, start, start, []
    while depth:
        literal = LITERAL.match(text, at) or re.compile(r"'(?:\\.|[^\\'])'").match(text, at)
        if literal:
            at = literal.end()
            continue
        depth += (text[at] in "([{") - (text[at] in ")]}")
        if (text[at] == "," and depth == 1) or depth == 0:
            found.append(text[begin:at])
            begin = at + 1
        at += 1
    return found


def said(argument):
    """The literals in it, as a person sees them."""
    return [plain(literal) for literal in LITERAL.findall(argument)]


def plain(text):
    """A message with `...` for what differs, and without what stands before each."""
    text = re.sub(r"\\\n\s*", "", text).replace('\\"', '"').replace("\\n", " ").replace("\\\\", "\\")
    text = re.sub(r"(?<!\{)\{[^{}]*\}(?!\})|%s", "...", text).replace("{{", "{").replace("}}", "}")
    text = re.sub(r"^otp_gateway: ", "", text)
    return re.sub(r"\s+", " ", re.sub(r"\.\.\.(?:\s*\.\.\.)+", "...", text)).strip()


# Frames that others are put into, what is told apart and not said, a hint that stands by itself.
NO_MESSAGES = {
    "test number ...",
    "option providers ...",
    "otp_gateway.key_file ...",
    "idempotency_key ...",
    "...; nothing was sent",
    "...; nothing is sent",
    "application/x-www-form-urlencoded",
    "grant_type=client_credentials&scope=all",
    "failed to create underlying connection",
    "unexpected end of file",
    "a ... of otp_type ...",
    "Call at the publisher; or, to take over here, DROP SUBSCRIPTION first.",
}


def is_message(text, words=2):
    """One that says something: not a name, not a frame for other messages, no SQL."""
    rest = re.sub(r"\.\.\.|[^A-Za-z ]", " ", text).split()
    # A name in capitals is a variable's, at build time.
    if text in NO_MESSAGES or text.isupper():
        return False
    return len(rest) >= words and not re.match(r"SELECT|INSERT|UPDATE|DELETE|WITH|/|<|HTTP/", text)


def messages():
    """Each message, with its hint if it has one, and where it is made."""
    found = {}
    for path, text in sources():
        where = str(path.relative_to(ROOT))
        for call in CALL.finditer(text):
            if text[: call.start()].rstrip().endswith("fn"):
                continue
            number = int(next(name for name, there in call.groupdict().items() if there)[1:].partition("x")[0])
            given = arguments(text, call.end())
            if len(given) <= number:
                continue
            hints = said(given[number + 1]) if len(given) > number + 1 else []
            for message in said(given[number]):
                if is_message(message):
                    found.setdefault(message, (hints[0] if hints else None, where))
        for named in re.finditer(r'let what =\s*"((?:[^"\\]|\\.)*)";', text):
            found.setdefault(plain(named[1]), (None, where))
        if path in ALL_OF:
            for message in said(text):
                if is_message(message, 4) and not any(message == hint for hint, _ in found.values()):
                    found.setdefault(message, (None, where))
    for script in sorted(ROOT.glob("sql/install/*.sql"))[-1:]:
        for raised in re.finditer(r"MESSAGE = (?:pg_catalog\.format\()?((?:\s*'(?:[^']|'')*')+)", script.read_text()):
            text = "".join(re.findall(r"'((?:[^']|'')*)'", raised[1])).replace("''", "'")
            found.setdefault(plain(text), (None, str(script.relative_to(ROOT))))
    return found


def entries(text):
    """The page's: what stands in backticks in the first cell of a row."""
    rows = re.findall(r"^\| (`[^|]*`) \|", text, re.M)
    return [entry for row in rows for entry in re.findall(r"`([^`]+)`", row)]


def test_they_are_found():
    """By another way of looking: some of each kind are among them."""
    found = messages()
    assert len(found) > 200
    for message in (
        "the library is not preloaded",
        'provider "..." does not exist',
        "no answer within timeout",
        "... is missing: ... needs it",
        "the HTTP client's thread has died",
        "no user mapping with credentials for server ... and this role",
        "send_limit: the recipient has had as many messages as it allows; nothing was sent",
    ):
        assert message in found, message


def test_each_message_has_an_entry():
    found, text = messages(), PAGE.read_text()
    missing = [message for message in found if message not in entries(text)]
    if os.environ.get("OTP_GOLDEN") == "write":
        stale = {entry for entry in entries(text) if entry not in found}
        # A row whose every message is gone.
        gone = lambda line: line.startswith("| `") and set(entries(line)) and set(entries(line)) <= stale
        text = "".join(line for line in text.splitlines(True) if not gone(line))
        if missing and OTHERS not in text:
            text += f"\n{OTHERS}\n| message | what to do |\n|---|---|\n"
        text += "".join(f"| `{message}` | {found[message][0] or ''} |\n" for message in missing)
        PAGE.write_text(text)
        return
    assert not missing, "no entry for:\n" + "\n".join(f"{message}   ({found[message][1]})" for message in missing)


def test_each_entry_is_of_a_message():
    found = messages()
    assert [entry for entry in entries(PAGE.read_text()) if entry not in found] == []


def test_each_entry_says_what_to_do():
    for row in re.findall(r"^\| `.*$", PAGE.read_text(), re.M):
        assert len(row.rstrip(" |").rpartition("|")[2].strip()) > 5, row
