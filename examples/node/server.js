// A sign-in by code: node-postgres. PGHOST, PGUSER, PGDATABASE, ... name the database, LISTEN_HOST and LISTEN_PORT Postgres
// itself where those are a pooler's, OTP_PROVIDER the server. Sessions are kept in this process.
import { randomUUID } from "node:crypto";
import { EventEmitter } from "node:events";
import { readFileSync, realpathSync } from "node:fs";
import { createServer } from "node:http";
import { fileURLToPath } from "node:url";
import pg from "pg";

const PROVIDER = process.env.OTP_PROVIDER ?? "sandbox";
const PAGE = readFileSync(new URL("index.html", import.meta.url));
const ROW = "status, outcome, attempts_left, ceil(extract(epoch FROM retry_after))::int AS retry_after";
const STATUS = { approved: 200, invalid_code: 422, blocked: 429, rate_limited: 429 };
const GONE = ["expired", "already_used", "max_attempts_reached", "not_found", "canceled"];

const pool = new pg.Pool({ max: 8 });
const sessions = new Map();
const changes = new EventEmitter().setMaxListeners(0);

// One connection of its own for the process: a pool would take it back, PgBouncer would give it away.
let listener;
async function listen() {
  const host = process.env.LISTEN_HOST ?? process.env.PGHOST;
  const client = new pg.Client({ host, port: process.env.LISTEN_PORT ?? process.env.PGPORT });
  listener = client;
  client.on("error", () => {});
  client.on("end", () => setTimeout(listen, 1000).unref());
  client.on("notification", ({ payload }) => changes.emit(JSON.parse(payload).id));
  try {
    await client.connect();
    // Of what this role began: nobody else is told the channel's name.
    const [{ channel }] = (await client.query("SELECT otp_gateway.channel()")).rows;
    await client.query(`LISTEN ${channel}`);
    // What was announced meanwhile is lost: all look.
    for (const id of changes.eventNames()) changes.emit(id);
  } catch {
    await client.end();
  }
}

function session(request, response) {
  const sid = /\bsid=([\w-]{36})/.exec(request.headers.cookie ?? "")?.[1];
  if (sessions.has(sid)) return sessions.get(sid);
  const fresh = randomUUID();
  response.setHeader("Set-Cookie", `sid=${fresh}; HttpOnly; SameSite=Strict; Path=/`);
  return sessions.set(fresh, {}).get(fresh);
}

function answer(response, status, body) {
  if (status === 429 && body.retry_after) response.setHeader("Retry-After", body.retry_after);
  response.writeHead(status, { "Content-Type": "application/json" }).end(JSON.stringify(body));
}

// Recorded at once, sent by the server's worker: no connection waits for the vendor. What became of it: /events.
async function requestCode(user, { mobile }, response) {
  try {
    const enqueue = "SELECT verification_id AS id FROM otp.otp_enqueue($1, $2)";
    const [{ id }] = (await pool.query(enqueue, [PROVIDER, { mobile }])).rows;
    user.asked = { id, mobile };
    answer(response, 202, { outcome: null });
  } catch (error) {
    if (error.code !== "22023") throw error;
    answer(response, 422, { outcome: "invalid_request" });
  }
}

async function enterCode(user, { code }, response) {
  const { id, mobile } = user.sent ?? {};
  if (!id) return answer(response, 410, { outcome: "not_found" });
  const [row] = (await pool.query(`SELECT ${ROW} FROM otp.otp_verify($1::uuid, $2)`, [id, String(code)])).rows;
  // By what is on record for this very number.
  const [proof] = (await pool.query("SELECT otp_gateway.is_approved($1::uuid, $2) AS holds", [id, mobile])).rows;
  if (proof.holds) {
    user.mobile = mobile;
    delete user.sent;
    return answer(response, 200, { ...row, outcome: "approved" });
  }
  answer(response, STATUS[row.outcome] ?? (GONE.includes(row.outcome) ? 410 : 502), row);
}

// A notification is a hint to look: what is told is what is on record.
function events(user, request, response) {
  const { asked } = user;
  if (!asked) return answer(response, 404, {});
  response.writeHead(200, { "Content-Type": "text/event-stream", "Cache-Control": "no-store" });
  const look = async () => {
    const [row] = (await pool.query(`SELECT ${ROW} FROM otp_gateway.wait($1::uuid, '0s')`, [asked.id])).rows;
    // A send that was refused has no code, and does not take the place of the one before.
    if (row.outcome === "sent" || row.outcome === "unknown") user.sent = asked;
    response.write(`data: ${JSON.stringify(row)}\n\n`);
  };
  const told = () => look().catch(() => response.destroy());
  changes.on(asked.id, told);
  request.on("close", () => changes.off(asked.id, told));
  told();
}

async function body(request) {
  let text = "";
  for await (const part of request) if ((text += part).length > 10_000) throw new Error("too long");
  return JSON.parse(text);
}

export const server = createServer(async (request, response) => {
  try {
    const user = session(request, response);
    switch (`${request.method} ${request.url}`) {
      case "GET /":
        return response.writeHead(200, { "Content-Type": "text/html; charset=utf-8" }).end(PAGE);
      case "POST /code":
        return await requestCode(user, await body(request), response);
      case "GET /events":
        return events(user, request, response);
      case "POST /session":
        return await enterCode(user, await body(request), response);
      case "GET /me":
        return answer(response, user.mobile ? 200 : 401, { mobile: user.mobile ?? null });
      default:
        return answer(response, 404, {});
    }
  } catch (error) {
    // Not its text: that of JSON.parse has what was typed.
    console.error(error.code ?? error.name);
    if (error instanceof SyntaxError) return answer(response, 400, {});
    answer(response, 502, { outcome: "provider_error" });
  }
});

await listen();
export const close = () => Promise.all([listener.removeAllListeners("end").end(), pool.end()]);
const port = process.env.PORT ?? 3000;
// Started, and not imported by a test.
if (realpathSync(process.argv[1]) === fileURLToPath(import.meta.url))
  server.listen(port, "127.0.0.1", () => console.log(`http://127.0.0.1:${port}/`));
