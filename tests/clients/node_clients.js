// The clients of Node, for test_clients.py, as python_clients.py has those of Python.
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { createRequire } from "node:module";
import { setTimeout as sleep } from "node:timers/promises";
import { inspect } from "node:util";

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
      const [row] = await this.query("SELECT verification_id FROM otp.otp_enqueue('sandbox', $1)", [{ mobile }], client);
      return row.verification_id;
    });
  }
  async wait(id) {
    return (await this.query("SELECT outcome FROM otp_gateway.wait($1::uuid, '20s')", [id]))[0].outcome;
  }
  refused() {
    return this.query(REFUSED, []);
  }
  async query(text, values, on = this.pool) {
    return (await on.query(text, values)).rows;
  }
  // Its own time-out tells the server nothing.
  cancel(provider, mobile, key) {
    return this.pool.query({
      text: "SELECT * FROM otp.otp_send($1, $2, $3)", values: [provider, { mobile }, key], query_timeout: TIMEOUT });
  }
  late(provider, mobile, key) {
    return this.transaction("ROLLBACK", async (client) => {
      await this.query(`SET LOCAL statement_timeout = ${TIMEOUT}`, [], client);
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
  transaction(end, work) {
    return undoing(end, (body) => this.sql.begin(body), work);
  }
  rolled_back(id, code) {
    return this.transaction("ROLLBACK", async (sql) => (await this.verify(id, code, sql))[0]);
  }
  enqueue(mobile, end) {
    return this.transaction(end, async (sql) => {
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

// It has its own query and its own transaction, listens by the driver's means, and times out by the server's.
class Orm extends NodePostgres {
  cancel(provider, mobile, key) {
    return this.late(provider, mobile, key);
  }
}

class Sequelize extends Orm {
  constructor(url) {
    super(url);
    this.sequelize = new (require("sequelize").Sequelize)(url, { logging: false, pool: { max: 4 } });
    this.version = version("sequelize");
  }
  async send(provider, mobile, key, transaction) {
    const { sequelize } = this;
    // docs
    const [sent] = await sequelize.query("SELECT * FROM otp.otp_send($1, $2, $3)", {
      bind: [provider, { mobile }, key], type: "SELECT", transaction });
    // end
    return described(sent);
  }
  async verify(id, code, transaction) {
    const { sequelize } = this;
    // docs
    const [checked] = await sequelize.query("SELECT outcome, attempts_left FROM otp.otp_verify($1::uuid, $2)", {
      bind: [id, String(code)], type: "SELECT", transaction });
    // end
    return [checked.outcome, checked.attempts_left];
  }
  query(text, bind, transaction) {
    return this.sequelize.query(text, { bind, type: "SELECT", transaction });
  }
  async transaction(end, work) {
    const transaction = await this.sequelize.transaction();
    try {
      return await work(transaction);
    } finally {
      await transaction[end.toLowerCase()]();
    }
  }
  async saved(mobile) {
    const [{ DataTypes }, { sequelize }] = [require("sequelize"), this];
    // docs
    const Customer = sequelize.define("customer", {
      phone: DataTypes.TEXT,
      name: DataTypes.TEXT,
      verification_id: DataTypes.UUID, // the trigger's: reload() after a change of the phone
    }, { tableName: "customer", timestamps: false });
    // end
    const customer = await Customer.create({ phone: mobile });
    return saves(customer, mobile, () => customer.save(), () => customer.reload());
  }
}

class TypeOrm extends Orm {
  constructor(url) {
    super(url);
    require("reflect-metadata");
    const { DataSource, EntitySchema } = require("typeorm");
    // docs
    const Customer = new EntitySchema({
      name: "customer",
      columns: {
        id: { type: "bigint", primary: true, generated: "identity" },
        phone: { type: "text" },
        name: { type: "text", nullable: true },
        verification_id: { type: "uuid", nullable: true }, // the trigger's: what save() writes there changes nothing
      },
    });
    // end
    this.source = new DataSource({ type: "postgres", url, poolSize: 4, entities: [Customer] });
    this.Customer = Customer;
    this.version = version("typeorm");
  }
  start() {
    return this.source.initialize();
  }
  async send(provider, mobile, key, on) {
    const manager = on ?? this.source;
    // docs
    const [sent] = await manager.query("SELECT * FROM otp.otp_send($1, $2, $3)", [provider, { mobile }, key]);
    // end
    return described(sent);
  }
  async verify(id, code, on) {
    const manager = on ?? this.source;
    // docs
    const [checked] = await manager.query(
      "SELECT outcome, attempts_left FROM otp.otp_verify($1::uuid, $2)", [id, String(code)]);
    // end
    return [checked.outcome, checked.attempts_left];
  }
  query(text, values, on) {
    return (on ?? this.source).query(text, values);
  }
  transaction(end, work) {
    return undoing(end, (body) => this.source.transaction(body), work);
  }
  async saved(mobile) {
    const customers = this.source.getRepository(this.Customer);
    const customer = await customers.save({ phone: mobile });
    const read = async () => Object.assign(customer, await customers.findOneBy({ id: customer.id }));
    await read();
    return saves(customer, mobile, () => customers.save(customer), read);
  }
}

class Drizzle extends Orm {
  constructor(url) {
    super(url);
    this.db = require("drizzle-orm/node-postgres").drizzle({ client: this.pool });
    this.sql = require("drizzle-orm").sql;
    this.version = version("drizzle-orm");
  }
  async send(provider, mobile, key, on) {
    const [db, { sql }] = [on ?? this.db, this];
    // docs
    const { rows: [sent] } = await db.execute(sql`SELECT * FROM otp.otp_send(${provider}, ${{ mobile }}, ${key})`);
    // end
    return described(sent);
  }
  async verify(id, code, on) {
    const [db, { sql }] = [on ?? this.db, this];
    // docs
    const { rows: [checked] } = await db.execute(
      sql`SELECT outcome, attempts_left FROM otp.otp_verify(${id}::uuid, ${code})`);
    // end
    return [checked.outcome, checked.attempts_left];
  }
  async query(text, values, on) {
    const { sql } = this;
    const parts = text.split(/\$\d+/).map((part) => sql.raw(part));
    const chunks = parts.flatMap((part, at) => (at < values.length ? [part, sql`${values[at]}`] : [part]));
    return (await (on ?? this.db).execute(sql.join(chunks))).rows;
  }
  transaction(end, work) {
    return undoing(end, (body) => this.db.transaction(body), work);
  }
  async saved(mobile) {
    const { bigint, pgTable, text, uuid } = require("drizzle-orm/pg-core");
    const { eq } = require("drizzle-orm");
    const customers = pgTable("customer", {
      id: bigint({ mode: "number" }).primaryKey().generatedByDefaultAsIdentity(),
      phone: text(), name: text(), verification_id: uuid(),
    });
    const [customer] = await this.db.insert(customers).values({ phone: mobile }).returning();
    // Names the columns that it is given: here all of them.
    const save = () => this.db.update(customers).set(customer).where(eq(customers.id, customer.id));
    const read = async () => Object.assign(customer, (await this.db.select().from(customers).where(eq(customers.id, customer.id)))[0]);
    return saves(customer, mobile, save, read);
  }
}

// An object, saved whole: the row's verification after it was made, given a name, given another phone, and saved as it was
// before that with the new phone.
async function saves(customer, mobile, save, read) {
  const old = customer.verification_id;
  const ids = [customer.verification_id];
  customer.name = "Nimal";
  await save();
  await read();
  ids.push(customer.verification_id);
  customer.phone = mobile.slice(0, -1) + "0";
  await save();
  await read();
  ids.push(customer.verification_id);
  customer.verification_id = old;
  await save();
  customer.verification_id = null;
  await save();
  return [Number(customer.id), ...ids];
}

// A transaction of an ORM's, which is undone by an exception.
async function undoing(end, transaction, work) {
  let value;
  const undone = new Error("undone");
  await transaction(async (on) => {
    value = await work(on);
    if (end.toUpperCase() !== "COMMIT") throw undone;
  }).catch((error) => {
    if (error !== undone) throw error;
  });
  return value;
}

async function heard(notifications, seconds) {
  for (const end = Date.now() + seconds * 1000; !notifications.length && Date.now() < end; ) await sleep(10);
  return notifications;
}

const described = (row) => Object.fromEntries(Object.entries(row).map(([name, value]) => [name, column(name, value)]));

function column(name, value) {
  if (value === null) return null;
  if (value instanceof Date) return ["Date", String(value.getTime())];
  // Drizzle leaves a time as it came.
  if (name === "expires_at") return ["string", String(new Date(value).getTime())];
  // postgres.js leaves it as text, node-postgres makes an object of it.
  if (name === "retry_after") {
    if (typeof value === "string") return ["string", String(value.split(":").reduce((sum, part) => sum * 60 + Number(part), 0))];
    return [value.constructor.name, String((value.minutes ?? 0) * 60 + (value.seconds ?? 0) + (value.milliseconds ?? 0) / 1000)];
  }
  if (typeof value === "object") return ["Object", JSON.stringify(value)];
  return [typeof value, String(value)];
}

const CLIENTS = {
  "node-postgres": NodePostgres, "postgres.js": PostgresJs, sequelize: Sequelize, typeorm: TypeOrm, drizzle: Drizzle,
};
const client = new CLIENTS[process.argv[2]](process.argv[3]);
await client.start?.();
for await (const line of createInterface({ input: process.stdin })) {
  const [operation, ...words] = line.split("\t");
  let answer;
  try {
    const value = operation === "version" ? client.version : await client[operation](...words);
    answer = { value: value ?? null };
  } catch (error) {
    // ORMs raise their own, and keep the driver's.
    let driver = error;
    while (driver.code === undefined && (driver.original ?? driver.driverError ?? driver.cause))
      driver = driver.original ?? driver.driverError ?? driver.cause;
    const { code = null, detail = null, hint = null } = driver;
    answer = { error: { class: error.constructor.name, message: error.message, sqlstate: code, detail, hint, printed: inspect(error) } };
  }
  console.log(JSON.stringify(answer));
}
process.exit();
