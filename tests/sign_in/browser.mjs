// Passkeys in a real browser: a Chromium with virtual authenticators against the program itself.
//
//   node browser.mjs STATUSLEDGER DIRECTORY
//
// Chromium is /usr/bin/chromium or what CHROMIUM names. Exit 1 at the first thing that is not as it should be.
import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { createHash, createPrivateKey, sign } from "node:crypto";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { promisify } from "node:util";
import { Chromium } from "./chromium.mjs";

const [program, directory] = process.argv.slice(2);
const data = join(directory, "data");
mkdirSync(data);
const config = join(directory, "statusledger.toml");
writeFileSync(config, "[access]\nsign_in_requests_per_minute = 1000\nsign_ins_per_identity_per_minute = 100\n");
const environment = { ...process.env, STATUSLEDGER_CONFIG: config };

const served = spawn(program, ["up", "--data-dir", data, "--port", "0"], { env: environment, stdio: ["ignore", "pipe", "inherit"] });
const told = {};
for await (const line of createInterface({ input: served.stdout })) {
  const [, what, words] = /^ {2}(address|sign in|token) +(\S+)/.exec(line) ?? [];
  if (what) told[what] = words;
  if (what === "token") break;
}
const home = told.address.replace("127.0.0.1", "localhost");
const token = readFileSync(join(data, "bootstrap-token"), "utf8").trim();

async function api(method, path, body) {
  const answer = await fetch(`${told.address}${path}`, {
    method, headers: { authorization: `Bearer ${token}`, ...(body && { "content-type": "application/json" }) }, body: body && JSON.stringify(body),
  });
  assert.ok(answer.ok, `${method} ${path}: ${answer.status}`);
  return answer.json();
}
const entries = async (workspace, type) => (await api("GET", `/v1/workspaces/${workspace}/entries?limit=1000&type=${type}`)).items;
async function eventually(what, look) {
  for (const end = Date.now() + 20_000; Date.now() < end; ) {
    const found = await look();
    if (found) return found;
    await new Promise((soon) => setTimeout(soon, 50));
  }
  throw new Error(`waited in vain: ${what}`);
}
const failed = (reason) =>
  eventually(`a failed sign-in for ${reason}`, async () =>
    (await entries(instance, "audit.session.sign_in_failed")).find((e) => e.data.reason === reason));

const chromium = new Chromium(join(directory, "profile"));
let instance;
let step = "start";
try {
  step = "the first owner comes by the link that `up` printed";
  const owner = await chromium.person();
  await owner.goto(told["sign in"]);
  await owner.press("Sign in");
  await owner.at("/account");
  const session = await owner.until("the session", () => fetch("/v1/session").then((r) => r.ok && r.json()));
  const workspaces = await owner.run(() => fetch("/v1/workspaces").then((r) => r.json()));
  instance = workspaces.items[0].id;
  await owner.goto(told["sign in"]);
  await owner.press("Sign in");
  await owner.until("the refusal", () => document.querySelector("[role=alert]")?.textContent.includes("used already"));

  step = "they add a passkey, which the service keeps sealed";
  await owner.goto(`${home}/account`);
  await owner.until("the form", () => !document.getElementById("account").hidden);
  const add = async (tab, name) => {
    await tab.run((name) => { document.getElementById("name").value = name; }, name);
    await tab.press("Add a passkey");
  };
  await add(owner, "<b>A key</b>");
  await owner.told("The passkey was added.");
  assert.match(await owner.run(() => document.getElementById("passkeys").textContent), /<b>A key<\/b>, last used: never/);
  assert.equal(await owner.run(() => document.querySelectorAll("#passkeys b").length), 0);
  const { credentials } = await owner.send("WebAuthn.getCredentials", { authenticatorId: owner.authenticator });
  assert.equal(credentials.length, 1);
  assert.ok(credentials[0].isResidentCredential);
  // A second one in the same authenticator is refused by it.
  await add(owner, "again");
  await owner.until("a word about it", () => document.getElementById("told").textContent !== "");
  assert.equal((await owner.run(() => fetch("/v1/passkeys").then((r) => r.json()))).items.length, 1);

  step = "they make an API key, which the command line takes";
  const make = async (tab, name, scopes) => {
    await tab.run((name, scopes) => {
      document.getElementById("key-name").value = name;
      document.getElementById("key-scopes").value = scopes;
    }, name, scopes);
    await tab.press("Make the key");
  };
  assert.match(await owner.run(() => document.getElementById("workspaces").textContent), /, as owner \(ws_/);
  await make(owner, "laptop", "members:read  audit:read");
  const shell = await owner.until("the key", () => !document.getElementById("made-key").hidden && document.getElementById("key-shell").textContent);
  const laptop = await owner.run(() => document.getElementById("key-text").textContent);
  assert.match(laptop, /^sl_audit:read\.members:read_/);
  assert.ok(!shell.includes(laptop), "it is in no line for a shell to remember");
  const [, address, place] = /^export STATUSLEDGER_URL='(.*)' STATUSLEDGER_WORKSPACE='(.*)'\nread -rs STATUSLEDGER_TOKEN/.exec(shell);
  assert.equal(address, home);
  const { stdout: members } = await promisify(execFile)(program, ["members", "list", "--json"], {
    env: { ...environment, STATUSLEDGER_URL: address, STATUSLEDGER_WORKSPACE: place, STATUSLEDGER_TOKEN: laptop },
  });
  assert.deepEqual(JSON.parse(members).members.map((m) => m.user), [session.user]);
  const [keyMade] = (await entries(instance, "audit.key.created")).slice(-1);
  assert.deepEqual([keyMade.data.actor.id, keyMade.data.surface], [session.user, "dashboard"]);
  await make(owner, "laptop", "everything");
  await owner.told("everything");
  assert.ok(await owner.run(() => document.getElementById("made-key").hidden && document.getElementById("key-text").textContent === ""));

  step = "they sign out and in again with it, without a name";
  await owner.press("Sign out");
  await owner.at("/sign-in");
  assert.equal(await owner.run(() => fetch("/v1/session").then((r) => r.status)), 401);
  await owner.press("Continue with a passkey");
  await owner.at("/account");
  const again = await owner.until("the session", () => fetch("/v1/session").then((r) => r.ok && r.json()));
  assert.equal(again.user, session.user);
  assert.notEqual(again.session, session.session);
  assert.equal(again.passkey, true);
  const [signedIn] = (await entries(instance, "audit.session.signed_in")).slice(-1);
  assert.equal(signedIn.data.details.method, "passkey");
  assert.ok(signedIn.data.targets.some((t) => t.type === "passkey"));

  step = "an answer is taken once, in the browser that asked";
  const answers = await owner.run(async () => {
    const post = (path, body) => fetch(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) });
    const begun = await (await post("/sign-in/passkey/challenge", {})).json();
    const credential = await get(begun.options);
    const first = await (await post("/sign-in/passkey/challenge", {})).json();
    const stale = await post("/sign-in/passkey", { state: begun.state, credential });
    const wrong = await post("/sign-in/passkey", { state: first.state, credential });
    const second = await (await post("/sign-in/passkey/challenge", {})).json();
    const good = await get(second.options);
    const done = await post("/sign-in/passkey", { state: second.state, credential: good });
    const repeated = await post("/sign-in/passkey", { state: second.state, credential: good });
    return { stale: stale.status, wrong: wrong.status, done: done.status, repeated: repeated.status };
  });
  assert.deepEqual(answers, { stale: 403, wrong: 403, done: 200, repeated: 403 });
  await failed("other_browser");
  await failed("passkey");

  step = "a copy of the authenticator is found out by its counter";
  const [original] = (await owner.send("WebAuthn.getCredentials", { authenticatorId: owner.authenticator })).credentials;
  const thief = await chromium.person();
  await thief.send("WebAuthn.addCredential", { authenticatorId: thief.authenticator, credential: { ...original, signCount: 0 } });
  await thief.goto(`${home}/sign-in`);
  await thief.press("Continue with a passkey");
  await thief.told("The passkey's answer does not hold.");
  assert.equal(await thief.run(() => fetch("/v1/session").then((r) => r.status)), 401);

  step = "an answer signed by the right key, about something else, signs nobody in";
  // The authenticator's key in our hands: what the browser would never send.
  const key = createPrivateKey({ key: Buffer.from(original.privateKey, "base64"), format: "der", type: "pkcs8" });
  const sha256 = (data) => createHash("sha256").update(data).digest();
  const attacker = await chromium.person();
  await attacker.goto(`${home}/sign-in`);
  const USER_PRESENT = 1;
  const USER_VERIFIED = 4;
  let count = original.signCount + 100;
  const forged = async ({ flags = USER_PRESENT | USER_VERIFIED, origin = home, type = "webauthn.get", rp = "localhost", user = original.userHandle }) => {
    const begun = await attacker.run(() => ask("POST", "/sign-in/passkey/challenge", {}));
    const client = Buffer.from(JSON.stringify({ type, challenge: begun.options.publicKey.challenge, origin, crossOrigin: false }));
    const counter = Buffer.alloc(4);
    counter.writeUInt32BE((count += 1));
    const data = Buffer.concat([sha256(rp), Buffer.from([flags]), counter]);
    const signature = sign("sha256", Buffer.concat([data, sha256(client)]), key);
    const id = Buffer.from(original.credentialId, "base64").toString("base64url");
    const credential = {
      id, rawId: id, type: "public-key", extensions: {},
      response: {
        authenticatorData: data.toString("base64url"), clientDataJSON: client.toString("base64url"),
        signature: signature.toString("base64url"), userHandle: Buffer.from(user, "base64").toString("base64url"),
      },
    };
    return attacker.run(async (body) => {
      const answer = await fetch("/sign-in/passkey", { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) });
      return answer.ok ? "signed in" : (await answer.json()).type.split("/").pop();
    }, { state: begun.state, credential });
  };
  for (const [wrong, answer] of [
    [{ flags: USER_PRESENT }, "passkey"],
    [{ flags: USER_VERIFIED }, "passkey"],
    [{ origin: "https://evil.example" }, "passkey"],
    [{ origin: home.replace("localhost", "localhost.evil.example") }, "passkey"],
    [{ type: "webauthn.create" }, "passkey"],
    [{ rp: "evil.example" }, "passkey"],
    [{ user: Buffer.alloc(16, 7).toString("base64") }, "unknown-passkey"],
    [{}, "signed in"],
  ]) assert.equal(await forged(wrong), answer, JSON.stringify(wrong));

  step = "a passkey that nobody here has";
  const stranger = await chromium.person();
  await stranger.send("WebAuthn.addCredential", {
    authenticatorId: stranger.authenticator,
    credential: { ...original, credentialId: Buffer.alloc(32, 7).toString("base64"), signCount: 1 },
  });
  await stranger.goto(`${home}/sign-in`);
  await stranger.press("Continue with a passkey");
  await stranger.told("not known here");
  await failed("unknown_passkey");

  step = "somebody new comes by an invitation, with nothing but a passkey";
  const team = await api("POST", "/v1/workspaces", { name: "team & <co>" });
  const invited = await api("POST", `/v1/workspaces/${team.id}/invitations`, { email: "ben@example.com", role: "viewer" });
  const ben = await chromium.person();
  await ben.goto(`${home}/invite/${invited.token}`);
  assert.match(await ben.run(() => document.querySelector("main").innerText), /team & <co> as viewer/);
  await ben.run(() => { document.getElementById("name").value = "Ben"; });
  await ben.press("Create a passkey and accept");
  await ben.at("/account");
  const bens = await ben.until("the session", () => fetch("/v1/session").then((r) => r.ok && r.json()));
  assert.deepEqual([bens.name, bens.email, bens.passkey], ["Ben", null, true]);
  assert.deepEqual((await ben.run(() => fetch("/v1/workspaces").then((r) => r.json()))).items.map((w) => [w.name, w.role]), [["team & <co>", "viewer"]]);
  await ben.until("the list", () => document.getElementById("workspaces").textContent.startsWith("team & <co>, as viewer"));
  assert.ok(await ben.run(() => document.getElementById("make-key").hidden));
  assert.equal((await entries(team.id, "audit.member.joined")).length, 1);
  await ben.goto(`${home}/invite/${invited.token}`);
  await ben.until("that it is used", () => document.querySelector("[role=alert]")?.textContent.includes("was used"));

  step = "somebody known accepts one while signed in, and one while signing in";
  for (const [name, button] of [["second", "Accept, as who you are signed in"], ["third", "Continue with a passkey"]]) {
    const workspace = await api("POST", "/v1/workspaces", { name });
    const made = await api("POST", `/v1/workspaces/${workspace.id}/invitations`, { email: "ben@example.com", role: "viewer" });
    await ben.goto(`${home}/invite/${made.token}`);
    await ben.press(button);
    await ben.at("/account");
    const members = await api("GET", `/v1/workspaces/${workspace.id}/members`);
    assert.deepEqual(members.items.map((m) => m.user), [bens.user]);
  }

  step = "they see their sessions and end another";
  const link = async () =>
    (await promisify(execFile)(program, ["sign-in-link", "--data-dir", data, "--user", bens.user], { env: environment })).stdout.trim();
  const elsewhere = await chromium.person();
  await elsewhere.goto(await link());
  await elsewhere.press("Sign in");
  await elsewhere.at("/account");
  const other = await elsewhere.until("the session", () => fetch("/v1/session").then((r) => r.ok && r.json()));
  await ben.goto(`${home}/account`);
  await ben.until("two sessions", () => document.querySelectorAll("#sessions li").length === 2);
  await ben.run(() => document.querySelector("#sessions button").click());
  await ben.until("one session", () => document.querySelectorAll("#sessions li").length === 1);
  assert.equal(await elsewhere.run(() => fetch("/v1/session").then((r) => r.status)), 401);
  const revoked = await entries(instance, "audit.session.revoked");
  assert.ok(revoked.some((e) => e.data.targets.some((t) => t.id === other.session)));

  step = "their last passkey stays";
  await ben.run(() => document.querySelector("#passkeys button").click());
  await ben.told("It is your last way to sign in");
  assert.equal((await entries(instance, "audit.passkey.removed")).length, 0);

  step = "with another one they remove it, and it signs nobody in any more";
  await elsewhere.goto(await link());
  await elsewhere.press("Sign in");
  await elsewhere.at("/account");
  await elsewhere.until("the form", () => !document.getElementById("account").hidden);
  await add(elsewhere, "Another");
  await elsewhere.told("The passkey was added.");
  await ben.goto(`${home}/account`);
  await ben.until("two passkeys", () => document.querySelectorAll("#passkeys li").length === 2);
  await ben.run(() => document.querySelector("#passkeys button").click());
  // Their session began with it, and ends with it.
  await ben.at("/sign-in");
  await elsewhere.goto(`${home}/account`);
  await elsewhere.until("one passkey", () => document.querySelectorAll("#passkeys li").length === 1);
  await ben.press("Continue with a passkey");
  await ben.told("not known here");
  assert.equal((await entries(instance, "audit.passkey.removed")).length, 1);
  assert.equal((await entries(instance, "audit.passkey.added")).length, 2);

  step = "pages with buttons and fields that have names, and no script but the one";
  for (const tab of [owner, ben, thief, stranger, elsewhere]) assert.deepEqual(tab.problems, []);
  await owner.goto(`${home}/account`);
  await owner.until("the page", () => !document.getElementById("account").hidden);
  const nameless = await owner.run(() => [...document.querySelectorAll("button, a, input, select")]
    .filter((e) => !((!e.matches("select") && e.textContent.trim()) || e.getAttribute("aria-label") || e.labels?.length)).length);
  assert.equal(nameless, 0);
  assert.ok(await owner.run(() => document.documentElement.lang === "en" && document.title !== ""));

  process.stdout.write("passkeys work in a browser\n");
} catch (error) {
  process.stderr.write(`sign-in: ${step}: ${error.stack}\n`);
  process.exitCode = 1;
} finally {
  await chromium.close();
  const ended = new Promise((done) => served.once("exit", done));
  served.kill("SIGTERM");
  await ended;
}
