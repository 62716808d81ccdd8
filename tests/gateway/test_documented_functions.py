"""Promise: whoever copies a SECURITY DEFINER function out of the documents, the demo or an example, with the table
that goes with it, has copied no hole: an application's role, with the rights that the text gives it, makes no customer active
without the code that was sent to that customer, at the number that the customer has then. Each attack is shown to work on a careless function first."""

import contextlib
import pathlib
import collections
import re
import threading

import psycopg2
import pytest

from conftest import Gateway

ROOT = pathlib.Path(__file__).resolve().parents[2]
TABLE, TRIGGER = r"CREATE TABLE", r"CREATE (?:OR REPLACE )?(?:CONSTRAINT )?TRIGGER"
FUNCTION = r"CREATE (?:OR REPLACE )?FUNCTION"


def documents():
    return [
        path for places in ("*.md", "docs/**/*.md", "demo/**/*.sql", "examples/**/*.sql") for path in ROOT.glob(places)
    ]


def statements(text):
    """A script's, without comments and psql's own; a dollar-quoted body may hold semicolons."""
    text = re.sub(r"^\\.*$|--.*$", "", text, flags=re.M)
    return [one.strip() for one in re.findall(r"((?:\$(\w*)\$.*?\$\2\$|[^;])+);", text, re.S) for one in [one[0]]]


def sections(path):
    """Under each heading, the SQL."""
    text = path.read_text()
    if path.suffix == ".sql":
        return re.split(r"^\\echo '###.*$", text, flags=re.M)
    parts = re.split(r"^#{2,} .*$", text, flags=re.M)
    return ["\n".join(re.findall(r"^```sql\n(.*?)^```", part, re.S | re.M)) for part in parts]


def documented():
    """Each section with a SECURITY DEFINER function in it: where it stands, and what it makes."""
    found = {}
    for path in documents():
        for section in sections(path):
            made = [one for one in statements(section) if re.match(f"{TABLE}|{TRIGGER}|{FUNCTION}", one)]
            for function in made:
                if "SECURITY DEFINER" in function:
                    name = re.match(rf"{FUNCTION} ([\w.]+)", function)[1]
                    found[f"{path.name} {name}"] = made
    return found


DOCUMENTED = documented()
# Those that make somebody active; the others only show what is on record.
VERIFYING = [where for where, made in DOCUMENTED.items() if any("public.customer" in one for one in made)]


def test_they_are_found():
    """By another way of looking: no SECURITY DEFINER in the texts that is not among those that are attacked."""
    written = collections.Counter()
    for path in documents():
        written[path.name] += len(re.findall(rf"{FUNCTION}[^;]*?SECURITY DEFINER", path.read_text()))
    for name, count in written.items():
        assert count == sum(where.startswith(f"{name} ") for where in DOCUMENTED), name
    assert "sign_up.sql public.verify_customer" in VERIFYING
    # Whoever calls otp_verify with another's rights is attacked.
    calls = {where for where, made in DOCUMENTED.items() if "otp_verify" in "".join(made)}
    # An application of its own has its attacks in its own tests (tests/clients/test_examples.py).
    attacked = {
        where
        for path in ROOT.glob("examples/*/*.sql")
        if "-- Attacks" in (path.parent / "test.sql").read_text()
        for where in DOCUMENTED
        if where.startswith(f"{path.name} ")
    }
    assert calls <= {*VERIFYING} | attacked


@pytest.mark.parametrize("where", DOCUMENTED)
def test_every_function_pins_its_path(where):
    """pg_temp is named, and last: unnamed it is looked in first."""
    for function in DOCUMENTED[where]:
        if "SECURITY DEFINER" in function:
            assert re.search(r"SET search_path (?:=|TO) pg_catalog, pg_temp\b(?!,)", function)


def test_every_call_is_qualified():
    """An unqualified name means what search_path says: the SQL that people copy has none of ours."""
    for path in documents():
        for section in sections(path):
            assert re.findall(r"(?<![\w.])otp_(?:send|enqueue|verify|resend|cancel)\(", section) == [], path.name


def test_what_is_granted_one_by_one(cluster, simulator):
    """The documented list of functions is enough, for whom EXECUTE was taken away."""
    page = (ROOT / "docs/privileges.md").read_text()
    (listed,) = re.findall(r"grant\s+what\s+a\s+role\s+needs,\s+one\s+by\s+one: (.*?);\s+never", page, re.S)
    names = {name.removeprefix("otp_gateway.") for name in re.findall(r"`([\w.]+)`", listed)} - {"otp_gateway"}
    with cluster.database(extension=False) as name, Gateway(cluster, name, simulator) as gateway:
        app = f"{name}_app"
        gateway.keeps_numbers = True
        gateway.execute(f"""
            CREATE SCHEMA otp; CREATE EXTENSION otp_gateway SCHEMA otp; CREATE ROLE {app} LOGIN;
            REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA otp, otp_gateway FROM PUBLIC;
            GRANT USAGE ON SCHEMA otp TO {app}; GRANT CREATE ON SCHEMA public TO {app};
            CREATE SERVER s FOREIGN DATA WRAPPER otp_sandbox OPTIONS (resend_after '0s');
            GRANT USAGE ON FOREIGN SERVER s TO {app}
        """)
        granted = gateway.execute(
            """
            SELECT oid::regprocedure::text FROM pg_proc WHERE proname = ANY (%s)
            AND pronamespace IN ('otp'::regnamespace, 'otp_gateway'::regnamespace)
        """,
            (sorted(names),),
        )
        # Two are otp_verify, and two are find.
        assert len(granted) == len(names) + 2
        with contextlib.closing(gateway.connect(user=app)) as session:
            with pytest.raises(psycopg2.errors.InsufficientPrivilege):
                gateway.execute("SELECT otp.otp_send('s', '{\"mobile\": \"0771231231\"}')", session=session)
            for (function,) in granted:
                gateway.execute(f"GRANT EXECUTE ON FUNCTION {function} TO {app}")
            gateway.execute("SET search_path = otp", session=session)
            id = gateway.row("SELECT * FROM otp_send('s', '{\"mobile\": \"0771231231\"}')", session=session)[
                "verification_id"
            ]
            assert gateway.row("SELECT * FROM otp_resend(%s)", (id,), session)["outcome"] == "sent"
            assert gateway.verify(id, "1", session)["outcome"] == "invalid_code"
            assert gateway.verify_at("s", "000000", session, mobile="0771231231")["outcome"] == "approved"
            later = gateway.row("SELECT * FROM otp_enqueue('s', '{\"mobile\": \"0771231232\"}')", session=session)[
                "verification_id"
            ]
            assert gateway.wait(later, session=session)["outcome"] == "sent"
            assert gateway.row("SELECT * FROM otp_cancel(%s)", (later,), session)["outcome"] == "canceled"
            assert len(gateway.execute("SELECT * FROM otp_gateway.find('s', '0771231231')", session=session)) > 0
            assert gateway.execute("SELECT count(*)::int > 5 FROM otp_gateway.provider", session=session) == [(True,)]
            gateway.execute(
                """
                CREATE TABLE public.t (phone text);
                CREATE TRIGGER t AFTER INSERT ON public.t FOR EACH ROW
                    EXECUTE FUNCTION otp_gateway.send_after_commit('s', '{"mobile": "phone"}');
                INSERT INTO public.t VALUES (%s); DROP TABLE public.t
            """,
                (gateway.number(),),
                session,
            )
        gateway.execute(f"DROP OWNED BY {app}; DROP ROLE {app}")


# As the README had it up to 0.3.0, and as people write it.
CARELESS = """
    CREATE FUNCTION public.verify_customer(customer_id bigint, code text) RETURNS text LANGUAGE sql SECURITY DEFINER {} AS $$
      WITH checked AS (
        SELECT v.outcome FROM customer AS c, otp_verify(c.verification_id, code) AS v WHERE c.id = customer_id
      ), updated AS (
        UPDATE customer SET verified_phone = phone, active = true
        WHERE id = customer_id AND EXISTS (SELECT FROM checked WHERE outcome = 'approved')
      )
      SELECT outcome FROM checked
    $$
"""
PINNED_WITHOUT_PG_TEMP = CARELESS.format("SET search_path = pg_catalog, public, otp")
NOT_PINNED = CARELESS.format("")
# As the README had it up to 0.4.0: what it checks is not what it changes.
RACED = (
    PINNED_WITHOUT_PG_TEMP.replace("public, otp", "pg_temp")
    .replace("otp_verify", "otp.otp_verify")
    .replace("customer AS c", "public.customer AS c")
    .replace("UPDATE customer", "UPDATE public.customer")
)


# The table that the careless functions are about.
TABLE_OF_ITS_OWN = [
    """CREATE TABLE public.customer (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, phone text NOT NULL, verification_id uuid UNIQUE,
        verified_phone text, active boolean NOT NULL DEFAULT false,
        CONSTRAINT active_only_if_verified CHECK (NOT active OR verified_phone IS NOT DISTINCT FROM phone))""",
    """CREATE TRIGGER send_code BEFORE INSERT OR UPDATE ON public.customer FOR EACH ROW
        EXECUTE FUNCTION otp_gateway.send_after_commit('ideamart', '{"mobile": "phone"}', 'verification_id')""",
]
# What is verified stands in the row; the application may write two of its columns.
IN_THE_ROW = {
    "granted": "INSERT (phone), UPDATE (phone, active), SELECT ON public.customer",
    "forged": "UPDATE public.customer SET verified_phone = phone, active = true",
    "is_active": "SELECT active FROM public.customer WHERE id = %s",
}
# It stands in a table of its own; the application may write the whole row.
BESIDE_IT = {
    "granted": "SELECT, INSERT, UPDATE, DELETE ON public.customer",
    "forged": "INSERT INTO public.verified_phone SELECT id, phone, gen_random_uuid() FROM public.customer",
    "is_active": "SELECT count(*) > 0 FROM public.verified_phone AS p JOIN public.customer AS c"
    " ON c.id = p.customer_id AND c.phone = p.phone WHERE c.id = %s",
}


class Bank:
    """A database with the extension as the README installs it, a registration table, and the application's role."""

    def __init__(self, gateway, made):
        self.gateway, self.app, self.owner = gateway, f"{gateway.database}_app", f"{gateway.database}_owner"
        self.execute = gateway.execute
        self.execute("CREATE SCHEMA otp; CREATE EXTENSION otp_gateway SCHEMA otp; SET search_path = public, otp")
        gateway.create_provider("ideamart")
        # What the README says: an owner who is a member of the role that inserts, which has these rights and no more.
        self.execute(f"""
            CREATE ROLE {self.app} LOGIN; CREATE ROLE {self.owner} IN ROLE {self.app};
            GRANT USAGE ON SCHEMA otp TO {self.app}; GRANT USAGE ON FOREIGN SERVER ideamart TO {self.app};
            GRANT CREATE ON SCHEMA public TO {self.owner}; SET ROLE {self.owner}
        """)
        self.design = (
            BESIDE_IT
            if any(re.match(rf"{TABLE} (?:IF NOT EXISTS )?public.verified_phone", one) for one in made)
            else IN_THE_ROW
        )
        for statement in made:
            self.execute(statement.replace("'sandbox'", "'ideamart'"))
        if self.design is BESIDE_IT:
            self.execute(f"GRANT SELECT ON public.verified_phone TO {self.app}")
        self.execute(f"GRANT {self.design['granted']} TO {self.app}; RESET ROLE")
        self.session = gateway.connect(user=self.app)
        self.victim = self.register(gateway.number())

    def register(self, phone):
        """A customer's id, once the code is sent."""
        ((id, verification),) = self.as_app(
            "INSERT INTO public.customer (phone) VALUES (%s) RETURNING id, verification_id", (phone,)
        )
        assert self.gateway.wait(verification)["outcome"] == "sent"
        return id

    def as_app(self, statement, arguments=None):
        return self.execute(statement, arguments, self.session)

    def attempt(self, statement, arguments=None):
        """What comes of it is seen in the table."""
        with contextlib.suppress(psycopg2.Error):
            self.as_app(statement, arguments)

    def call(self, customer, code):
        """Each function of the text, with arguments by their types."""
        values = {"bigint": customer, "integer": customer, "text": code, "interval": "10 minutes"}
        values["uuid"] = self.execute("SELECT verification_id FROM public.customer WHERE id = %s", (customer,))[0][0]
        for name, types in self.execute(
            "SELECT oid::regproc::text, proargtypes::regtype[]::text[] FROM pg_proc"
            " WHERE prosecdef AND pronamespace = 'public'::regnamespace AND prorettype <> 'trigger'::regtype"
        ):
            arguments = ", ".join(f"%s::pg_catalog.{'int8' if type == 'bigint' else type}" for type in types)
            self.attempt(f"SELECT public.{name.removeprefix('public.')}({arguments})", [values[type] for type in types])

    def is_active(self):
        return self.execute(self.design["is_active"], (self.victim,)) == [(True,)]

    def close(self):
        self.session.close()
        self.execute(f"DROP OWNED BY {self.app}, {self.owner} CASCADE; DROP ROLE {self.app}, {self.owner}")


@contextlib.contextmanager
def bank(cluster, simulator, made):
    with cluster.database(extension=False) as name, Gateway(cluster, name, simulator) as gateway:
        gateway.keeps_numbers = True
        bank = Bank(gateway, made)
        try:
            yield bank
        finally:
            bank.close()


def temporary_table(bank):
    """Of the same name and columns, which acts with the rights of whoever reads or writes it."""
    columns = bank.execute(
        "SELECT string_agg(quote_ident(attname) || ' ' || format_type(atttypid, atttypmod), ', ') FROM pg_attribute"
        " WHERE attrelid = 'public.customer'::regclass AND attnum > 0 AND NOT attisdropped"
    )[0][0]
    bank.as_app(f"CREATE TEMP TABLE customer ({columns}); GRANT ALL ON customer TO PUBLIC")
    bank.as_app(f"""
        CREATE FUNCTION pg_temp.ev() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN
          {bank.design["forged"]}; RETURN false; END $$;
        CREATE FUNCTION pg_temp.ev_row() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
          {bank.design["forged"]}; RETURN NEW; END $$
    """)


# The attacks: each with the careless function that it is known to work on.


def by_policy(bank):
    """R7: a policy on the temporary table runs as the function's owner. No code is needed at all."""
    temporary_table(bank)
    bank.as_app("""
        INSERT INTO pg_temp.customer (id) SELECT id FROM public.customer;
        ALTER TABLE pg_temp.customer ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
        CREATE POLICY p ON pg_temp.customer USING (pg_temp.ev())
    """)
    bank.call(bank.victim, "0")


def by_trigger(bank):
    """R7: so does a trigger on it; with one's own customer's code, approved once."""
    phone = bank.gateway.number()
    own = bank.register(phone)
    temporary_table(bank)
    bank.as_app("""
        INSERT INTO pg_temp.customer (id, phone, verification_id) SELECT id, phone, verification_id FROM public.customer;
        CREATE TRIGGER t BEFORE INSERT OR UPDATE ON pg_temp.customer FOR EACH ROW EXECUTE FUNCTION pg_temp.ev_row()
    """)
    bank.call(own, bank.gateway.simulator.code("ideamart", phone))


def by_own_approval(bank):
    """The row that is looked at is the attacker's, the row that is changed is the victim's: own code, other id."""
    phone = bank.gateway.number()
    own = bank.register(phone)
    bank.as_app("CREATE SCHEMA evil; GRANT USAGE ON SCHEMA evil TO PUBLIC")
    bank.as_app(f"""
        CREATE TABLE evil.customer AS SELECT * FROM public.customer; GRANT ALL ON evil.customer TO PUBLIC;
        CREATE FUNCTION evil.ev_row() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
          {bank.design["forged"]}; RETURN NEW; END $$;
        CREATE TRIGGER t BEFORE UPDATE ON evil.customer FOR EACH ROW EXECUTE FUNCTION evil.ev_row();
        SET search_path = evil, public, otp, pg_catalog
    """)
    bank.call(own, bank.gateway.simulator.code("ideamart", phone))


def by_operator(bank):
    """Operators and functions that the caller's search_path finds first: `outcome = 'approved'` is true of anything."""
    bank.as_app("CREATE SCHEMA evil; GRANT USAGE ON SCHEMA evil TO PUBLIC")
    bank.as_app("""
        CREATE FUNCTION evil.yes(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT true';
        CREATE OPERATOR evil.= (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.yes);
        CREATE DOMAIN evil.text AS pg_catalog.text; CREATE DOMAIN pg_temp.text AS pg_catalog.text;
        CREATE DOMAIN pg_temp.uuid AS pg_catalog.uuid; CREATE DOMAIN pg_temp.bigint AS pg_catalog.int8;
        CREATE OPERATOR pg_temp.= (LEFTARG = pg_catalog.text, RIGHTARG = pg_catalog.text, FUNCTION = evil.yes);
        SET search_path = evil, public, otp, pg_catalog
    """)
    bank.call(bank.victim, "0")


def by_function(bank):
    """Names of ours in the caller's schemas, with the same arguments and with fewer."""
    bank.as_app("CREATE SCHEMA evil; GRANT USAGE ON SCHEMA evil TO PUBLIC")
    for schema in ("evil", "pg_temp"):
        for arguments in ("uuid, text", "uuid, text, jsonb", "uuid, text, jsonb DEFAULT '{}'", "text, text"):
            bank.attempt(f"""
                CREATE FUNCTION {schema}.otp_verify({arguments}, OUT outcome text, OUT status text) LANGUAGE sql AS
                $$ SELECT 'approved'::pg_catalog.text, 'approved'::pg_catalog.text $$
            """)
    bank.as_app("CREATE FUNCTION evil.is_approved(uuid, text) RETURNS boolean LANGUAGE sql AS 'SELECT true'")
    bank.as_app("SET search_path = evil, public, otp, pg_catalog")
    bank.call(bank.victim, "0")


def by_overload(bank):
    """R9: whoever may CREATE in public, as everybody might up to Postgres 14, puts names of ours there."""
    bank.execute(f"GRANT CREATE ON SCHEMA public TO {bank.app}")
    for arguments in ("uuid, text", "text, text"):
        bank.as_app(f"""
            CREATE FUNCTION public.otp_verify({arguments}, OUT outcome text, OUT status text) LANGUAGE sql AS
            $$ SELECT 'approved'::pg_catalog.text, 'approved'::pg_catalog.text $$
        """)
    bank.call(bank.victim, "0")


def by_changing_the_number(bank):
    """One's own number, one's own code, and the victim's number by the time that the vendor has answered."""
    phone, simulator = bank.gateway.number(), bank.gateway.simulator
    own = bank.register(phone)
    simulator.fault("hold", "ideamart", "verify", times=1)
    calling = threading.Thread(target=bank.call, args=(own, simulator.code("ideamart", phone)))
    calling.start()
    simulator.held(1)
    with contextlib.closing(bank.gateway.connect(user=bank.app)) as second:
        bank.execute("UPDATE public.customer SET phone = %s WHERE id = %s", (bank.gateway.number(), own), second)
    simulator.release()
    calling.join()
    bank.victim = own


ATTACKS = {
    by_policy: PINNED_WITHOUT_PG_TEMP,
    by_trigger: PINNED_WITHOUT_PG_TEMP,
    by_own_approval: NOT_PINNED,
    by_operator: NOT_PINNED,
    by_function: NOT_PINNED,
    by_overload: PINNED_WITHOUT_PG_TEMP,
    by_changing_the_number: RACED,
}
attacks = pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)


def schemas_of_its_own(bank):
    """For the attacks that need one: an application that makes its own tables."""
    bank.execute(f"GRANT CREATE ON DATABASE {bank.gateway.database} TO {bank.app}")


@attacks
def test_the_attack_works(cluster, simulator, attack):
    """The control: on a table with a careless function."""
    with bank(cluster, simulator, [*TABLE_OF_ITS_OWN, ATTACKS[attack]]) as careless:
        schemas_of_its_own(careless)
        attack(careless)
        assert careless.is_active()


@attacks
@pytest.mark.parametrize("where", VERIFYING)
def test_nobody_becomes_active(cluster, simulator, where, attack):
    with bank(cluster, simulator, DOCUMENTED[where]) as careful:
        schemas_of_its_own(careful)
        attack(careful)
        assert not careful.is_active()


@pytest.mark.parametrize("where", VERIFYING)
def test_the_right_code_makes_active(cluster, simulator, where):
    """What it is for: with a wrong code, and by hand, nobody, with the right one the customer."""
    with bank(cluster, simulator, DOCUMENTED[where]) as careful:
        ((phone,),) = careful.execute("SELECT phone FROM public.customer WHERE id = %s", (careful.victim,))
        with pytest.raises((psycopg2.errors.CheckViolation, psycopg2.errors.InsufficientPrivilege)):
            by_hand = (
                "UPDATE public.customer SET active = true" if careful.design is IN_THE_ROW else careful.design["forged"]
            )
            careful.as_app(by_hand)
        careful.call(careful.victim, simulator.wrong("ideamart", phone))
        assert not careful.is_active()
        careful.call(careful.victim, simulator.code("ideamart", phone))
        assert careful.is_active()
        assert simulator.count("ideamart", "send", phone) == 1
