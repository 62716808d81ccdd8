"""What the sign-in asks of the database, by asyncpg."""

import json
from contextlib import asynccontextmanager

import asyncpg


async def init(connection):
    await connection.set_type_codec("jsonb", encoder=json.dumps, decoder=json.loads, schema="pg_catalog")


class Database:
    def __init__(self, pool):
        self.pool = pool

    @classmethod
    @asynccontextmanager
    async def connect(cls):
        # A connection is held until the vendor has answered: as many as calls a second times its seconds.
        async with asyncpg.create_pool(init=init, min_size=1, max_size=12) as pool:
            yield cls(pool)

    async def send(self, provider, mobile, key, timeout):
        statement = "SELECT * FROM otp.otp_send($1, $2, $3)"
        try:
            return await self.pool.fetchrow(statement, provider, {"mobile": mobile}, key, timeout=timeout)
        except asyncpg.InvalidParameterValueError as error:
            raise ValueError("no number") from error

    async def verify(self, verification, code):
        return await self.pool.fetchrow("SELECT * FROM otp.otp_verify($1::uuid, $2)", verification, code)

    async def is_approved(self, verification, mobile):
        return await self.pool.fetchval("SELECT otp_gateway.is_approved($1::uuid, $2)", verification, mobile)
