// The clients of Node, for test_clients.py, as python_clients.py has those of Python.
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { createRequire } from "node:module";
import { setTimeout as sleep } from "node:timers/promises";

// Installed beside what cargo builds, not beside this file.
const require = createRequire(process.argv[4] + "/");
const version = (name) => JSON.parse(readFileSync(`${process.argv[4]}/node_modules/${name}/package.json`)).version;
const TIMEOUT = 1000;
const REFUSED = `SELECT * FROM otp.otp_send('sandbox', '{"mobile": 5}')`;

class NodePostgres {
  constructor(url) {
    this.pg = require("pg");
    this.url = url;
    this.pool = new this.pg.Pool({ connectionString: url, max: 4 });
    this.version = version("pg");
  }
  async send(provider, mobile, key, on = this.pool) {
    const pool = on;
    // docs
    const { rows: [sent] } = await pool.query(
      "SELECT * FROM otp.otp_send($1, $2, $3)", [provider, { mobile }, key]);
    // end
    return described(sent);
  }
  async verify(id, code, on = this.pool) {
    const pool = on;
    // docs
    const { rows: [checked] } = await pool.query(
      "SELECT outcome, attempts_left FROM otp.otp_verify($1::uuid, $2)", [id, String(code)]);
    // end
    return [checked.outcome, checked.attempts_left];
  }
  async transaction(end, work) {
    const client = await this.pool.connect();
    try {
      await client.query("BEGIN");
      return await work(client);
    } finally {
      await client.query(end);
      client.release();
    }
  }
  rolled_back(id, code) {
    return this.transaction("ROLLBACK", async (client) => (await this.verify(id, code, client))[0]);
  }
  enqueue(mobile, end) {
    return this.transaction(end, async (client) => {
      const { rows: [row] } = await client.query(
        "SELECT verification_id FROM otp.otp_enqueue('sandbox', $1)", [{ mobile }]);
      return row.verification_id;
    });
  }
  async wait(id) {
    return (await this.pool.query("SELECT outcome FROM otp_gateway.wait($1::uuid, '20s')", [id])).rows[0].outcome;
  }
  refused() {
    return this.pool.query(REFUSED);
  }
  // Its own time-out tells the server nothing.
  cancel(provider, mobile, key) {
    return this.pool.query({
      text: "SELECT * FROM otp.otp_send($1, $2, $3)", values: [provider, { mobile }, key], query_timeout: TIMEOUT });
  }
  late(provider, mobile, key) {
    return this.transaction("ROLLBACK", async (client) => {
      await client.query(`SET LOCAL statement_timeout = ${TIMEOUT}`);
      await this.send(provider, mobile, key, client);
    });
  }
  async listen() {
    const [{ Client }, url] = [this.pg, this.url];
    const notifications = (this.notifications = []);
    // docs
    const listener = new Client(url);
    await listener.connect();
    listener.on("notification", ({ payload }) => notifications.push(payload));
    const [{ channel }] = (await listener.query("SELECT otp_gateway.channel()")).rows;
    await listener.query(`LISTEN ${channel}`);
    // end
  }
  heard(seconds) {
    return heard(this.notifications, seconds);
  }
}

class PostgresJs {
  constructor(url) {
    this.sql = require("postgres")(url, { max: 4, onnotice: () => {} });
    this.version = version("postgres");
  }
  async send(provider, mobile, key, sql = this.sql) {
    // docs
    const [sent] = await sql`SELECT * FROM otp.otp_send(${provider}, ${sql.json({ mobile })}, ${key})`;
    // end
    return described(sent);
  }
  async verify(id, code, sql = this.sql) {
    // docs
    const [checked] = await sql`SELECT outcome, attempts_left FROM otp.otp_verify(${id}::uuid, ${code})`;
    // end
    return [checked.outcome, checked.attempts_left];
  }
  async transaction(end, work) {
    let value;
    const undone = new Error("undone");
    await this.sql.begin(async (sql) => {
      value = await work(sql);
      if (end !== "COMMIT") throw undone;
    }).catch((error) => {
      if (error !== undone) throw error;
    });
    return value;
  }
  rolled_back(id, code) {
    return this.transaction("ROLLBACK", async (sql) => (await this.verify(id, code, sql))[0]);
  }
  enqueue(mobile, end) {
    return this.transaction(end.toUpperCase(), async (sql) => {
      const [row] = await sql`SELECT verification_id FROM otp.otp_enqueue('sandbox', ${sql.json({ mobile })})`;
      return row.verification_id;
    });
  }
  async wait(id) {
    const [row] = await this.sql`SELECT outcome FROM otp_gateway.wait(${id}::uuid, '20s')`;
    return row.outcome;
  }
  refused() {
    return this.sql.unsafe(REFUSED);
  }
  async cancel(provider, mobile, key) {
    const sql = this.sql;
    const query = sql`SELECT * FROM otp.otp_send(${provider}, ${sql.json({ mobile })}, ${key})`.execute();
    const timer = setTimeout(() => query.cancel(), TIMEOUT);
    try {
      await query;
    } finally {
      clearTimeout(timer);
    }
  }
  late(provider, mobile, key) {
    return this.transaction("ROLLBACK", async (sql) => {
      await sql.unsafe(`SET LOCAL statement_timeout = ${TIMEOUT}`);
      await this.send(provider, mobile, key, sql);
    });
  }
  async listen() {
    const sql = this.sql;
    const notifications = (this.notifications = []);
    // docs
    const [{ channel }] = await sql`SELECT otp_gateway.channel()`;
    await sql.listen(channel, (payload) => notifications.push(payload));
    // end
  }
  heard(seconds) {
    return heard(this.notifications, seconds);
  }
}

async function heard(notifications, seconds) {
  for (const end = Date.now() + seconds * 1000; !notifications.length && Date.now() < end; ) await sleep(10);
  return notifications;
}

const described = (row) => Object.fromEntries(Object.entries(row).map(([name, value]) => [name, column(name, value)]));

function column(name, value) {
  if (value === null) return null;
  if (value instanceof Date) return ["Date", String(value.getTime())];
  // postgres.js leaves it as text, node-postgres makes an object of it.
  if (name === "retry_after") {
    if (typeof value === "string") return ["string", String(value.split(":").reduce((sum, part) => sum * 60 + Number(part), 0))];
    return [value.constructor.name, String((value.minutes ?? 0) * 60 + (value.seconds ?? 0) + (value.milliseconds ?? 0) / 1000)];
  }
  if (typeof value === "object") return ["Object", JSON.stringify(value)];
  return [typeof value, String(value)];
}

const client = new { "node-postgres": NodePostgres, "postgres.js": PostgresJs }[process.argv[2]](process.argv[3]);
for await (const line of createInterface({ input: process.stdin })) {
  const [operation, ...words] = line.split("\t");
  let answer;
  try {
    const value = operation === "version" ? client.version : await client[operation](...words);
    answer = { value: value ?? null };
  } catch (error) {
    const { code = null, detail = null, hint = null } = error;
    answer = { error: { class: error.constructor.name, message: error.message, sqlstate: code, detail, hint } };
  }
  console.log(JSON.stringify(answer));
}
process.exit();
