"""Promise: other databases and tools can take the views as they are: every column is of a type that each Postgres has, under
postgres_fdw's IMPORT FOREIGN SCHEMA and in what ORMs read of a table."""

from conftest import Gateway

VIEWS = ("verification", "attempt", "provider")


def test_columns_are_of_plain_types(gateway):
    columns = gateway.execute(
        "SELECT table_name, column_name, data_type, domain_name FROM information_schema.columns"
        " WHERE table_schema = 'otp_gateway' AND table_name = ANY (%s)",
        (list(VIEWS),),
    )
    assert {view for view, *_ in columns} == set(VIEWS)
    assert [column for column in columns if column[3] is not None] == []
    types = {f"{view}.{name}": of for view, name, of, _ in columns}
    assert {types[name] for name in ("verification.status", "attempt.operation", "attempt.outcome")} == {"text"}
    # What find returns, and what each function does, an application reads in the same way.
    assert (
        gateway.execute(
            "SELECT p.oid::regprocedure::text, t.typname FROM pg_proc AS p CROSS JOIN unnest(p.proargtypes) AS a (type)"
            " JOIN pg_type AS t ON t.oid = a.type WHERE p.probin LIKE '%otp\\_gateway%' AND t.typtype <> 'b'"
            " UNION ALL SELECT 'otp_gateway.result', t.typname FROM pg_attribute AS a JOIN pg_type AS t ON t.oid = a.atttypid"
            " WHERE a.attrelid = 'otp_gateway.result'::regclass AND a.attnum > 0 AND t.typtype <> 'b'"
        )
        == []
    )


def test_import_foreign_schema(cluster, gateway, simulator):
    sent = gateway.send()
    with cluster.database(extension=False) as name, Gateway(cluster, name, simulator) as elsewhere:
        elsewhere.execute("CREATE EXTENSION postgres_fdw; CREATE SCHEMA record")
        elsewhere.execute(
            "CREATE SERVER codes FOREIGN DATA WRAPPER postgres_fdw"
            f" OPTIONS (host '{cluster.directory}', port '{cluster.port}', dbname '{gateway.database}')"
        )
        elsewhere.execute("CREATE USER MAPPING FOR CURRENT_USER SERVER codes OPTIONS (user 'postgres')")
        elsewhere.execute(
            f"IMPORT FOREIGN SCHEMA otp_gateway LIMIT TO ({', '.join(VIEWS)}) FROM SERVER codes INTO record"
        )
        id = sent["verification_id"]
        assert elsewhere.execute("SELECT status FROM record.verification WHERE id = %s", (id,)) == [("pending",)]
        assert elsewhere.execute(
            "SELECT operation, outcome FROM record.attempt WHERE verification_id = %s AND outcome = 'sent'", (id,)
        ) == [("send", "sent")]
        assert elsewhere.execute(
            "SELECT value FROM record.provider WHERE provider = 'ideamart' AND setting = 'breaker'"
        ) == [("closed",)]
