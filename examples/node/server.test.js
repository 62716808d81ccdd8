// The application's own tests, against the sandbox; `patient` is a sandbox that asks for 30 s between two sends.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";

process.env.OTP_PROVIDER = "patient";
const { default: pg } = await import("pg");
const { server, close } = await import("./server.js");
let origin;

before(
  () =>
    new Promise((ready) =>
      server.listen(0, "127.0.0.1", () => {
        origin = `http://127.0.0.1:${server.address().port}`;
        ready();
      }),
    ),
);
after(async () => {
  server.close();
  server.closeAllConnections();
  await close();
});

const number = () => `077${String(Math.floor(Math.random() * 1e7)).padStart(7, "0")}`;

class Browser {
  async fetch(path, body) {
    const headers = this.cookie ? { cookie: this.cookie } : {};
    const options = body ? { method: "POST", body: JSON.stringify(body), headers } : { headers };
    const response = await fetch(origin + path, options);
    this.cookie = response.headers.get("set-cookie")?.split(";")[0] ?? this.cookie;
    return response;
  }
  async status(path, body) {
    const response = await this.fetch(path, body);
    return [response.status, await response.json()];
  }
  // The first event that says how the send ended.
  async told() {
    let text = "";
    for await (const part of (await this.fetch("/events")).body) {
      text += Buffer.from(part);
      const rows = [...text.matchAll(/^data: (.*)\n\n/gm)].map(([, data]) => JSON.parse(data));
      const ended = rows.find(({ outcome }) => outcome !== null);
      if (ended) return ended;
    }
  }
}

test("a sign-in", async () => {
  const [browser, mobile] = [new Browser(), number()];
  assert.equal((await browser.fetch("/")).status, 200);
  assert.deepEqual(await browser.status("/session", { code: "000000" }), [410, { outcome: "not_found" }]);
  assert.equal((await browser.status("/code", { mobile }))[0], 202);
  assert.equal((await browser.told()).outcome, "sent");
  const [status, { outcome, attempts_left }] = await browser.status("/session", { code: "123456" });
  assert.deepEqual([status, outcome, attempts_left], [422, "invalid_code", 4]);
  assert.equal((await browser.status("/me"))[0], 401);
  assert.equal((await browser.status("/session", { code: "000-000" }))[0], 200);
  assert.deepEqual(await browser.status("/me"), [200, { mobile }]);
  assert.equal((await new Browser().status("/me"))[0], 401);
});

test("the second click is told how long to wait, and the first code is still the right one", async () => {
  const [browser, mobile] = [new Browser(), number()];
  for (const wanted of ["sent", "blocked"]) {
    await browser.status("/code", { mobile });
    const { outcome, retry_after } = await browser.told();
    assert.equal(outcome, wanted);
    if (wanted === "blocked") assert.ok(retry_after > 0 && retry_after <= 30);
  }
  assert.equal((await browser.status("/session", { code: "000000" }))[0], 200);
});

test("too many wrong codes of a number: 429 with Retry-After, or 410", async () => {
  const [browser, mobile] = [new Browser(), number()];
  await browser.status("/code", { mobile });
  await browser.told();
  const seen = [];
  for (let tries = 0; tries < 6; tries++) {
    const response = await browser.fetch("/session", { code: "123456" });
    seen.push(response.status);
    assert.equal(response.status === 429, response.headers.has("retry-after"));
  }
  assert.deepEqual(seen.slice(0, 4), [422, 422, 422, 422]);
  assert.ok([410, 429].includes(seen.at(-1)), seen);
});

test("the listener comes back", async () => {
  const direct = new pg.Client({ port: process.env.LISTEN_PORT ?? process.env.PGPORT });
  await direct.connect();
  const pids = async () =>
    (
      await direct.query(
        "SELECT pid FROM pg_stat_activity WHERE query LIKE 'LISTEN otp_gateway%' AND usename = current_user AND datname = current_database()",
      )
    ).rows.map(({ pid }) => pid);
  const before = await pids();
  assert.ok(before.length);
  await direct.query("SELECT pg_terminate_backend(pid) FROM unnest($1::int[]) AS pid", [before]);
  let now;
  for (const end = Date.now() + 15_000; Date.now() < end;) {
    now = (await pids()).filter((pid) => !before.includes(pid));
    if (now.length) break;
  }
  assert.equal(now.length, 1);
  await direct.end();
});

test("a number that is none", async () => {
  assert.deepEqual(await new Browser().status("/code", { mobile: "abc" }), [422, { outcome: "invalid_request" }]);
  const broken = await fetch(origin + "/code", { method: "POST", body: "077" + "x" });
  assert.equal(broken.status, 400);
});
