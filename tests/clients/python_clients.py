"""The clients of Python, for test_clients.py: `python_clients.py CLIENT DSN` does what it reads, a line each, and answers
each with a line of JSON. What stands between `# docs` and `# end` is what docs/clients.md shows."""

import asyncio
import contextlib
import datetime
import json
import sys
import threading
import uuid

TIMEOUT = 1.0
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
ENQUEUE = "SELECT verification_id FROM otp.otp_enqueue('sandbox', %s)"
WAIT = "SELECT outcome FROM otp_gateway.wait(%s::uuid, '20s')"
CHANNEL = "SELECT otp_gateway.channel()"
REFUSED = "SELECT * FROM otp.otp_send('sandbox', '{\"mobile\": 5}')"


class Psycopg:
    def __init__(self, dsn):
        import psycopg

        self.dsn, self.version = dsn, psycopg.__version__
        self.connection = self.connect()

    def connect(self):
        import psycopg

        return psycopg.connect(self.dsn, autocommit=True)

    def send(self, provider, mobile, key):
        from psycopg.types.json import Jsonb

        connection = self.connection
        # docs
        cursor = connection.execute(
            "SELECT * FROM otp.otp_send(%s, %s, %s)", (provider, Jsonb({"mobile": mobile}), key)
        )
        row = cursor.fetchone()
        # end
        return named(cursor, row)

    def verify(self, verification_id, code):
        connection = self.connection
        # docs
        outcome, left = connection.execute(
            "SELECT outcome, attempts_left FROM otp.otp_verify(%s::uuid, %s)", (verification_id, code)
        ).fetchone()
        # end
        return [outcome, left]

    def rolled_back(self, verification_id, code):
        with self.connection.transaction(force_rollback=True):
            return self.verify(verification_id, code)[0]

    def enqueue(self, mobile, end):
        with self.connection.transaction(force_rollback=end == "rollback"):
            return str(self.connection.execute(ENQUEUE, (json.dumps({"mobile": mobile}),)).fetchone()[0])

    def wait(self, verification_id):
        return self.connection.execute(WAIT, (verification_id,)).fetchone()[0]

    def refused(self):
        self.connection.execute(REFUSED)

    def cancel(self, provider, mobile, key):
        with canceling(self.connection.cancel_safe):
            self.send(provider, mobile, key)

    def late(self, provider, mobile, key):
        with self.connection.transaction():
            self.connection.execute(f"SET LOCAL statement_timeout = '{TIMEOUT}s'")
            self.send(provider, mobile, key)

    def listen(self):
        self.listener = listener = self.connect()
        # docs
        (channel,) = listener.execute("SELECT otp_gateway.channel()").fetchone()
        listener.execute(f"LISTEN {channel}")
        # end

    def heard(self, seconds):
        return [notification.payload for notification in self.listener.notifies(timeout=float(seconds), stop_after=1)]


class PsycopgBehindPgbouncer(Psycopg):
    def connect(self):
        import psycopg

        dsn = self.dsn
        # docs
        # Statements that the driver prepares by itself are in one server's session, and the next call may be in another.
        connection = psycopg.connect(dsn, autocommit=True, prepare_threshold=None)
        # end
        return connection


class PsycopgPipeline(Psycopg):
    def send(self, provider, mobile, key):
        from psycopg.types.json import Jsonb

        connection = self.connection
        # docs
        # An error ends the pipeline: what comes after it is not sent.
        with connection.pipeline():
            cursor = connection.execute(
                "SELECT * FROM otp.otp_send(%s, %s, %s)", (provider, Jsonb({"mobile": mobile}), key)
            )
            row = cursor.fetchone()
        # end
        return named(cursor, row)

    def verify(self, verification_id, code):
        with self.connection.pipeline():
            return super().verify(verification_id, code)

    def refused(self):
        with self.connection.pipeline():
            self.connection.execute(REFUSED)
            # Not reached by the server.
            self.connection.execute("SELECT * FROM otp.otp_send('sandbox', '{\"mobile\": \"0771999999\"}')")


class PsycopgPool(Psycopg):
    def connect(self):
        from psycopg_pool import ConnectionPool

        dsn = self.dsn
        # docs
        pool = ConnectionPool(dsn, kwargs={"autocommit": True}, min_size=1, max_size=4, open=True)
        with pool.connection() as connection:
            connection.execute("SELECT 1")
        # end
        import psycopg_pool

        self.version = psycopg_pool.__version__
        self.pools = [*getattr(self, "pools", []), pool]
        return pool.getconn()


class Psycopg2(Psycopg):
    def __init__(self, dsn):
        import psycopg2

        self.dsn, self.version = dsn, psycopg2.__version__.split()[0]
        self.connection = self.connect()

    def connect(self):
        import psycopg2
        import psycopg2.extras

        psycopg2.extras.register_uuid()
        connection = psycopg2.connect(self.dsn)
        connection.autocommit = True
        return connection

    def send(self, provider, mobile, key):
        import psycopg2.extras

        cursor = self.connection.cursor()
        # docs
        cursor.execute("SELECT * FROM otp.otp_send(%s, %s::jsonb, %s)", (provider, json.dumps({"mobile": mobile}), key))
        row = cursor.fetchone()
        # end
        return named(cursor, row)

    def verify(self, verification_id, code):
        cursor = self.connection.cursor()
        # docs
        cursor.execute("SELECT outcome, attempts_left FROM otp.otp_verify(%s::uuid, %s)", (verification_id, code))
        outcome, left = cursor.fetchone()
        # end
        return [outcome, left]

    def in_transaction(self, end, work):
        cursor = self.connection.cursor()
        cursor.execute("BEGIN")
        try:
            return work(cursor)
        finally:
            cursor.execute(end)

    def rolled_back(self, verification_id, code):
        return self.in_transaction("ROLLBACK", lambda _: self.verify(verification_id, code)[0])

    def enqueue(self, mobile, end):
        return self.in_transaction(
            end, lambda cursor: str(self.one(ENQUEUE, (json.dumps({"mobile": mobile}),), cursor))
        )

    def one(self, statement, arguments, cursor=None):
        cursor = cursor or self.connection.cursor()
        cursor.execute(statement, arguments)
        return cursor.fetchone()[0]

    def wait(self, verification_id):
        return self.one(WAIT, (verification_id,))

    def refused(self):
        self.connection.cursor().execute(REFUSED)

    def cancel(self, provider, mobile, key):
        with canceling(self.connection.cancel):
            self.send(provider, mobile, key)

    def late(self, provider, mobile, key):
        def work(cursor):
            cursor.execute(f"SET LOCAL statement_timeout = '{TIMEOUT}s'")
            self.send(provider, mobile, key)

        self.in_transaction("ROLLBACK", work)

    def listen(self):
        self.listener = self.connect()
        self.listener.cursor().execute(f"LISTEN {self.one(CHANNEL, ())}")

    def heard(self, seconds):
        import select

        end = datetime.datetime.now() + datetime.timedelta(seconds=float(seconds))
        while not self.listener.notifies and (left := (end - datetime.datetime.now()).total_seconds()) > 0:
            select.select([self.listener], [], [], left)
            self.listener.poll()
        return [one.payload for one in self.listener.notifies]


class AsyncPsycopg:
    async def start(self, dsn):
        import psycopg

        self.dsn, self.version = dsn, psycopg.__version__
        self.connection = await psycopg.AsyncConnection.connect(dsn, autocommit=True)

    async def send(self, provider, mobile, key):
        from psycopg.types.json import Jsonb

        connection = self.connection
        # docs
        cursor = await connection.execute(
            "SELECT * FROM otp.otp_send(%s, %s, %s)", (provider, Jsonb({"mobile": mobile}), key)
        )
        row = await cursor.fetchone()
        # end
        return named(cursor, row)

    async def verify(self, verification_id, code):
        connection = self.connection
        # docs
        cursor = await connection.execute(
            "SELECT outcome, attempts_left FROM otp.otp_verify(%s::uuid, %s)", (verification_id, code)
        )
        outcome, left = await cursor.fetchone()
        # end
        return [outcome, left]

    async def one(self, statement, arguments):
        return (await (await self.connection.execute(statement, arguments)).fetchone())[0]

    async def rolled_back(self, verification_id, code):
        async with self.connection.transaction(force_rollback=True):
            return (await self.verify(verification_id, code))[0]

    async def enqueue(self, mobile, end):
        async with self.connection.transaction(force_rollback=end == "rollback"):
            return str(await self.one(ENQUEUE, (json.dumps({"mobile": mobile}),)))

    async def wait(self, verification_id):
        return await self.one(WAIT, (verification_id,))

    async def refused(self):
        await self.connection.execute(REFUSED)

    async def cancel(self, provider, mobile, key):
        await asyncio.wait_for(self.send(provider, mobile, key), TIMEOUT)

    async def late(self, provider, mobile, key):
        async with self.connection.transaction():
            await self.connection.execute(f"SET LOCAL statement_timeout = '{TIMEOUT}s'")
            await self.send(provider, mobile, key)

    async def listen(self):
        import psycopg

        self.listener = await psycopg.AsyncConnection.connect(self.dsn, autocommit=True)
        await self.listener.execute(f"LISTEN {await self.one(CHANNEL, ())}")

    async def heard(self, seconds):
        return [one.payload async for one in self.listener.notifies(timeout=float(seconds), stop_after=1)]


class Asyncpg:
    async def start(self, dsn):
        import asyncpg

        self.dsn, self.version = dsn, asyncpg.__version__

        # docs
        # jsonb as dict; in the pool's init each connection is told.
        async def init(connection):
            await connection.set_type_codec("jsonb", encoder=json.dumps, decoder=json.loads, schema="pg_catalog")

        pool = await asyncpg.create_pool(dsn, init=init, min_size=1, max_size=4)
        # end
        self.pool = pool

    async def send(self, provider, mobile, key, on=None, timeout=60):
        connection = on or self.pool
        # docs
        row = await connection.fetchrow(
            "SELECT * FROM otp.otp_send($1, $2, $3)", provider, {"mobile": mobile}, key, timeout=timeout
        )
        # end
        return {name: described(value) for name, value in row.items()}

    async def verify(self, verification_id, code, on=None):
        connection = on or self.pool
        # docs
        outcome, left = await connection.fetchrow(
            "SELECT outcome, attempts_left FROM otp.otp_verify($1::uuid, $2)", verification_id, code
        )
        # end
        return [outcome, left]

    async def uncast(self, verification_id):
        await self.pool.fetchrow("SELECT * FROM otp.otp_verify($1, '000000')", uuid.UUID(verification_id))

    async def rolled_back(self, verification_id, code):
        async with self.pool.acquire() as connection:
            transaction = connection.transaction()
            await transaction.start()
            outcome, _ = await self.verify(verification_id, code, connection)
            await transaction.rollback()
            return outcome

    async def enqueue(self, mobile, end):
        async with self.pool.acquire() as connection:
            transaction = connection.transaction()
            await transaction.start()
            statement = ENQUEUE.replace("%s", "$1")
            verification_id = await connection.fetchval(statement, {"mobile": mobile})
            await (transaction.rollback() if end == "rollback" else transaction.commit())
            return str(verification_id)

    async def wait(self, verification_id):
        return await self.pool.fetchval(
            "SELECT outcome FROM otp_gateway.wait($1::uuid, $2)", verification_id, datetime.timedelta(seconds=20)
        )

    async def refused(self):
        await self.pool.fetchrow(REFUSED)

    async def cancel(self, provider, mobile, key):
        await self.send(provider, mobile, key, timeout=TIMEOUT)

    async def late(self, provider, mobile, key):
        async with self.pool.acquire() as connection, connection.transaction():
            await connection.execute(f"SET LOCAL statement_timeout = '{TIMEOUT}s'")
            await self.send(provider, mobile, key, connection)

    async def listen(self):
        import asyncpg

        self.notifications = asyncio.Queue()
        self.listener = listener = await asyncpg.connect(self.dsn)
        notifications = self.notifications
        # docs
        channel = await listener.fetchval("SELECT otp_gateway.channel()")
        await listener.add_listener(channel, lambda *heard: notifications.put_nowait(heard[-1]))
        # end

    async def heard(self, seconds):
        return [await asyncio.wait_for(self.notifications.get(), float(seconds))]


class Sqlalchemy(Psycopg):
    driver = "psycopg"

    def __init__(self, dsn):
        import sqlalchemy

        self.dsn, self.version = dsn, sqlalchemy.__version__
        url = dsn.replace("postgresql:", f"postgresql+{self.driver}:")
        # docs
        # hide_parameters: else the text of each exception has the number and the code.
        engine = sqlalchemy.create_engine(url, hide_parameters=True)
        # end
        self.engine = engine
        self.connection = engine.connect().execution_options(isolation_level="AUTOCOMMIT")

    def send(self, provider, mobile, key, connection=None):
        from sqlalchemy import bindparam, text
        from sqlalchemy.dialects.postgresql import JSONB

        connection = connection or self.connection
        # docs
        send = text("SELECT * FROM otp.otp_send(:provider, :payload, :key)").bindparams(
            bindparam("payload", type_=JSONB)
        )
        row = (
            connection.execute(send, {"provider": provider, "payload": {"mobile": mobile}, "key": key}).mappings().one()
        )
        # end
        return {name: described(value) for name, value in row.items()}

    def verify(self, verification_id, code, connection=None):
        from sqlalchemy import text

        connection = connection or self.connection
        # docs
        verify = text("SELECT outcome, attempts_left FROM otp.otp_verify(CAST(:id AS uuid), :code)")
        outcome, left = connection.execute(verify, {"id": verification_id, "code": code}).one()
        # end
        return [outcome, left]

    def one(self, statement, value, connection=None):
        return (connection or self.connection).exec_driver_sql(statement, (value,)).scalar_one()

    def rolled_back(self, verification_id, code):
        with self.engine.connect() as connection, connection.begin() as transaction:
            outcome, _ = self.verify(verification_id, code, connection)
            transaction.rollback()
            return outcome

    def enqueue(self, mobile, end):
        with self.engine.connect() as connection, connection.begin() as transaction:
            verification_id = str(self.one(ENQUEUE, json.dumps({"mobile": mobile}), connection))
            transaction.rollback() if end == "rollback" else transaction.commit()
            return verification_id

    def wait(self, verification_id):
        return self.one(WAIT, verification_id)

    def refused(self):
        self.connection.exec_driver_sql(REFUSED)

    # SQLAlchemy has no way of its own: the server's.
    def late(self, provider, mobile, key):
        with self.engine.begin() as connection:
            connection.exec_driver_sql(f"SET LOCAL statement_timeout = '{TIMEOUT}s'")
            self.send(provider, mobile, key, connection)

    cancel = late

    def listen(self):
        engine = self.engine
        # docs
        # A connection of its own, which the pool never gives away again, and the driver's own means.
        mine = engine.raw_connection()
        listener = mine.driver_connection
        mine.detach()
        # end
        self.mine, self.listener = mine, listener
        listener.autocommit = True
        self.listener.execute(f"LISTEN {listener.execute(CHANNEL).fetchone()[0]}")

    def saved(self, mobile):
        """The id that a mapped object has after it was created, changed, and given another phone."""
        from sqlalchemy import FetchedValue
        from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

        class Base(DeclarativeBase):
            pass

        # docs
        class Customer(Base):
            __tablename__ = "customer"
            id: Mapped[int] = mapped_column(primary_key=True)
            phone: Mapped[str]
            name: Mapped[str | None]
            # The trigger's: read back after it.
            verification_id: Mapped[uuid.UUID | None] = mapped_column(
                server_default=FetchedValue(), server_onupdate=FetchedValue()
            )

        # end

        ids = []
        with Session(self.engine, expire_on_commit=False) as session:
            customer = Customer(phone=mobile)
            session.add(customer)
            for name, phone in ((None, mobile), ("Nimal", mobile), ("Nimal", mobile[:-1] + "0")):
                customer.name, customer.phone = name, phone
                session.commit()
                ids.append(str(customer.verification_id))
            # As an object that is older than its row would.
            for old in (uuid.UUID(ids[0]), None):
                customer.verification_id = old
                session.commit()
            return [customer.id, *ids]


class Django(Psycopg):
    def __init__(self, dsn):
        import urllib.parse

        import django
        from django.conf import settings

        at = urllib.parse.urlparse(dsn)
        where = {"HOST": at.hostname, "PORT": at.port, "NAME": at.path[1:], "USER": at.username}
        settings.configure(DATABASES={"default": {"ENGINE": "django.db.backends.postgresql", **where}}, USE_TZ=True)
        django.setup()
        self.dsn, self.version = dsn, django.get_version()

    def send(self, provider, mobile, key):
        from django.db import connection

        # docs
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT * FROM otp.otp_send(%s, %s::jsonb, %s)", [provider, json.dumps({"mobile": mobile}), key]
            )
            row = cursor.fetchone()
            # end
            return named(cursor, row)

    def verify(self, verification_id, code):
        from django.db import connection

        # docs
        with connection.cursor() as cursor:
            cursor.execute("SELECT outcome, attempts_left FROM otp.otp_verify(%s::uuid, %s)", [verification_id, code])
            outcome, left = cursor.fetchone()
        # end
        return [outcome, left]

    def one(self, statement, value):
        from django.db import connection

        with connection.cursor() as cursor:
            cursor.execute(statement, [value])
            return cursor.fetchone()[0]

    def rolled_back(self, verification_id, code):
        from django.db import transaction

        with transaction.atomic():
            outcome, _ = self.verify(verification_id, code)
            transaction.set_rollback(True)
            return outcome

    def enqueue(self, mobile, end):
        from django.db import transaction

        with transaction.atomic():
            verification_id = str(self.one(ENQUEUE, json.dumps({"mobile": mobile})))
            transaction.set_rollback(end == "rollback")
            return verification_id

    def wait(self, verification_id):
        return self.one(WAIT, verification_id)

    def refused(self):
        from django.db import connection

        connection.cursor().execute(REFUSED)

    def saved(self, mobile):
        """save() of a model that knows nothing of the trigger, and of an object that is older than its row."""
        from django.db import models

        class Customer(models.Model):
            phone = models.TextField()
            name = models.TextField(null=True)
            verification_id = models.UUIDField(null=True)

            class Meta:
                app_label, db_table, managed = "clients", "customer", False

        customer, ids = Customer.objects.create(phone=mobile), []
        for name, phone in ((None, mobile), ("Nimal", mobile), ("Nimal", mobile[:-1] + "0")):
            customer.name, customer.phone = name, phone
            customer.save()
            customer.refresh_from_db()
            ids.append(str(customer.verification_id))
        for old in (ids[0], None):
            customer.verification_id = old
            customer.save()
        return [customer.pk, *ids]

    # Django has no way of its own: the server's.
    def late(self, provider, mobile, key):
        from django.db import connection, transaction

        with transaction.atomic():
            connection.cursor().execute(f"SET LOCAL statement_timeout = '{TIMEOUT}s'")
            self.send(provider, mobile, key)

    cancel = late


@contextlib.contextmanager
def canceling(cancel):
    """What is called meanwhile is cancelled after a while."""
    timer = threading.Timer(TIMEOUT, cancel)
    timer.start()
    try:
        yield
    finally:
        # Until the server has done with it: Postgres signals a process twice, and the second could cancel what comes next.
        timer.join()


def named(cursor, row):
    return {column[0]: described(value) for column, value in zip(cursor.description, row, strict=True)}


def described(value):
    """What the driver made of it, and as text that says the same for all drivers."""
    match value:
        case None:
            return None
        case bool():
            text = str(value).lower()
        case datetime.datetime():
            text = str((value - EPOCH) // datetime.timedelta(milliseconds=1))
        case datetime.timedelta():
            text = str(value.total_seconds())
        case dict():
            text = json.dumps(value)
        case str() | int() | uuid.UUID():
            text = str(value)
    return [type(value).__name__, text]


def error(exception):
    """What a program can learn from it."""
    found = {
        "class": type(exception).__name__,
        "message": str(exception),
        "sqlstate": None,
        "detail": None,
        "hint": None,
    }
    # SQLAlchemy and Django raise their own, and keep the driver's.
    while exception is not None:
        if diag := getattr(exception, "diag", None):
            return found | {"sqlstate": diag.sqlstate, "detail": diag.message_detail, "hint": diag.message_hint}
        if hasattr(exception, "sqlstate") and hasattr(exception, "detail"):
            return found | {"sqlstate": exception.sqlstate, "detail": exception.detail, "hint": exception.hint}
        exception = exception.__cause__
    return found


CLIENTS = {
    "psycopg": Psycopg,
    "psycopg-async": AsyncPsycopg,
    "psycopg-pipeline": PsycopgPipeline,
    "psycopg-pool": PsycopgPool,
    "psycopg2": Psycopg2,
    "asyncpg": Asyncpg,
    "sqlalchemy": Sqlalchemy,
    "django": Django,
    "pgbouncer": PsycopgBehindPgbouncer,
}


def main(name, dsn):
    loop = asyncio.new_event_loop()
    kind = CLIENTS[name]
    if hasattr(kind, "start"):
        client = kind()
        loop.run_until_complete(client.start(dsn))
    else:
        client = kind(dsn)
    for line in sys.stdin:
        operation, *arguments = line.rstrip("\n").split("\t")
        try:
            value = client.version if operation == "version" else getattr(client, operation)(*arguments)
            answer = {"value": loop.run_until_complete(value) if asyncio.iscoroutine(value) else value}
        except Exception as exception:
            answer = {"error": error(exception)}
        print(json.dumps(answer, default=str), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
