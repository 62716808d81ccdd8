"""What test_clients.py has found, as the table of docs/clients.md."""

HEAD = (
    "client",
    "version",
    "rolled back",
    "after COMMIT",
    "time-out, cancel",
    "22023 is",
    "values in it",
    "LISTEN",
    "uuid, interval, jsonb are",
)


def table(passed):
    rows = [HEAD, ["---"] * len(HEAD), *([name, *found] for name, found in passed.items())]
    return "".join(f"|{'|'.join(f' {cell} ' if cell != '---' else cell for cell in row)}|\n" for row in rows)
