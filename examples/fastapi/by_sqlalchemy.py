"""The same by SQLAlchemy 2, whose driver is asyncpg, too: SQLALCHEMY=1 takes it."""

import asyncio
from contextlib import asynccontextmanager

from sqlalchemy import bindparam, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine

SEND = text("SELECT * FROM otp.otp_send(:provider, :payload, :key)").bindparams(bindparam("payload", type_=JSONB))
VERIFY = text("SELECT * FROM otp.otp_verify(CAST(:id AS uuid), :code)")
APPROVED = text("SELECT otp_gateway.is_approved(CAST(:id AS uuid), :mobile) AS holds")


class Database:
    def __init__(self, engine):
        self.engine = engine

    @classmethod
    @asynccontextmanager
    async def connect(cls):
        # hide_parameters: else the text of each exception has the number and the code.
        engine = create_async_engine("postgresql+asyncpg://", hide_parameters=True, pool_size=12, max_overflow=0)
        try:
            yield cls(engine)
        finally:
            await engine.dispose()

    async def row(self, statement, **values):
        async with self.engine.begin() as connection:
            return (await connection.execute(statement, values)).mappings().one()

    async def send(self, provider, mobile, key, timeout):
        try:
            async with asyncio.timeout(timeout):
                return await self.row(SEND, provider=provider, payload={"mobile": mobile}, key=key)
        except DBAPIError as error:
            if error.orig.sqlstate != "22023":
                raise
            raise ValueError("no number") from error

    async def verify(self, verification, code):
        return await self.row(VERIFY, id=verification, code=code)

    async def is_approved(self, verification, mobile):
        return (await self.row(APPROVED, id=verification, mobile=mobile))["holds"]
