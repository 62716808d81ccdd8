"""A sign-in by code: FastAPI, with asyncpg or SQLAlchemy. PGHOST, PGUSER, PGDATABASE, ... name the database, OTP_PROVIDER the server,
SESSION_SECRET what signs the cookie."""

import math
import os
import secrets
from contextlib import asynccontextmanager

from fastapi import FastAPI, Header, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.middleware.sessions import SessionMiddleware

if os.environ.get("SQLALCHEMY"):
    from by_sqlalchemy import Database
else:
    from by_asyncpg import Database

PROVIDER = os.environ.get("OTP_PROVIDER", "sandbox")
# How long a request waits for the vendor, and how long its second look does.
TIMEOUTS = (float(os.environ.get("OTP_TIMEOUT", "5")), 10)
STATUS = {"sent": 202, "unknown": 202, "approved": 200, "invalid_code": 422, "blocked": 429, "rate_limited": 429}
GONE = {"expired", "already_used", "max_attempts_reached", "not_found", "canceled"}


@asynccontextmanager
async def lifespan(app):
    async with Database.connect() as app.state.database:
        yield


app = FastAPI(lifespan=lifespan)
secret = os.environ.get("SESSION_SECRET") or secrets.token_hex()
app.add_middleware(SessionMiddleware, secret_key=secret, same_site="strict")


class Number(BaseModel):
    mobile: str


class Code(BaseModel):
    code: str


def answer(row):
    """The outcome as HTTP: 429 has Retry-After."""
    outcome, wait = row["outcome"], row["retry_after"]
    body = {"outcome": outcome, "attempts_left": row["attempts_left"]}
    headers = {"Retry-After": str(math.ceil(wait.total_seconds()))} if wait else {}
    return JSONResponse(body, STATUS.get(outcome, 410 if outcome in GONE else 502), headers)


async def send(database, mobile, key):
    """None if the vendor has not answered. After a time-out the same key waits for the call that is under way and has
    its row: no second message leaves."""
    for timeout in TIMEOUTS:
        try:
            return await database.send(PROVIDER, mobile, key, timeout)
        except TimeoutError:
            continue
    return None


@app.post("/code")
async def request_code(number: Number, request: Request, idempotency_key: str = Header(min_length=8, max_length=64)):
    # The keys of one browser are not another's.
    browser = request.session.setdefault("browser", secrets.token_hex(16))
    try:
        row = await send(request.app.state.database, number.mobile, f"{browser} {idempotency_key}")
    except ValueError:
        return JSONResponse({"outcome": "invalid_request", "detail": "Please look at the number."}, 422)
    if row is None:
        return JSONResponse({"outcome": "unknown", "detail": "The code may be on its way."}, 504)
    # A send that was refused has no code, and does not take the place of the one before.
    if row["outcome"] in ("sent", "unknown"):
        request.session["verification"] = str(row["verification_id"])
        request.session["mobile"] = number.mobile
    return answer(row)


@app.post("/session")
async def enter_code(code: Code, request: Request):
    database, verification = request.app.state.database, request.session.get("verification")
    if verification is None:
        return JSONResponse({"outcome": "not_found"}, 410)
    row = await database.verify(verification, code.code)
    # By what is on record for this very number.
    if row["outcome"] == "approved" and await database.is_approved(verification, request.session["mobile"]):
        # A proof is good for one log-in.
        request.session.pop("verification")
        request.session["user"] = request.session.pop("mobile")
    return answer(row)


@app.get("/me")
async def me(request: Request):
    user = request.session.get("user")
    return {"mobile": user} if user else JSONResponse({"outcome": "not signed in"}, 401)
