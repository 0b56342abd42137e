// Opens docs/verify.html in a headless Chromium, fills it in as a person
// would, and checks what it shows.
//
//   node chromium.mjs [--page docs/verify.html] [--shots DIR]
//
// Chromium is /usr/bin/chromium or what CHROMIUM names (`apt-get install
// chromium`). Exit 1 if the page shows anything else than expected.
import { spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import { World, canonical } from "./make.mjs";

const root = fileURLToPath(new URL("../../../", import.meta.url));
const { values: flags } = parseArgs({ options: { page: { type: "string" }, shots: { type: "string" } } });
const address = pathToFileURL(resolve(flags.page ?? join(root, "docs", "verify.html"))).href;

const tally = { passed: 0, failed: 0 };
const print = (line) => process.stdout.write(`${line}\n`);

function expect(holds, message) {
  tally[holds ? "passed" : "failed"] += 1;
  if (!holds) print(`FAILED ${message}`);
}

/** Chromium driven over its debugging pipe: messages are JSON, each ended by a zero byte. */
class Browser {
  constructor(profile) {
    const binary = process.env.CHROMIUM ?? "/usr/bin/chromium";
    const quiet = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run", "--disable-extensions"];
    this.child = spawn(binary, [...quiet, "--remote-debugging-pipe", `--user-data-dir=${profile}`], {
      stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"],
    });
    this.exited = new Promise((done) => this.child.once("exit", done));
    this.waiting = new Map();
    this.listeners = [];
    this.requests = [];
    this.next = 1;
    this.child.once("error", (error) => this.fail(error));
    this.child.once("exit", (code) => this.fail(new Error(`Chromium ended with ${code}`)));
    let buffer = Buffer.alloc(0);
    this.child.stdio[4].on("data", (data) => {
      buffer = Buffer.concat([buffer, data]);
      for (let end = buffer.indexOf(0); end >= 0; end = buffer.indexOf(0)) {
        this.receive(JSON.parse(buffer.subarray(0, end).toString()));
        buffer = buffer.subarray(end + 1);
      }
    });
  }

  fail(error) {
    for (const { reject } of this.waiting.values()) reject(error);
    this.waiting.clear();
  }

  receive(message) {
    if (message.method === "Network.requestWillBeSent") this.requests.push(message.params.request.url);
    this.listeners = this.listeners.filter((listener) => !listener(message));
    const waiter = this.waiting.get(message.id);
    if (waiter === undefined) return;
    this.waiting.delete(message.id);
    if (message.error) waiter.reject(new Error(message.error.message));
    else waiter.resolve(message.result);
  }

  send(method, params = {}) {
    const id = this.next;
    this.next += 1;
    this.child.stdio[3].write(`${JSON.stringify({ id, method, params, ...(this.session && { sessionId: this.session }) })}\0`);
    return new Promise((resolve, reject) => this.waiting.set(id, { resolve, reject }));
  }

  /** Resolves at the next event of this name. */
  event(method) {
    return new Promise((resolve) => this.listeners.push((message) => message.method === method && (resolve(message.params), true)));
  }

  /** Opens a tab and makes it the one that `send` speaks to. */
  async open() {
    const { targetId } = await this.send("Target.createTarget", { url: "about:blank" });
    const { sessionId } = await this.send("Target.attachToTarget", { targetId, flatten: true });
    this.session = sessionId;
    for (const domain of ["Page", "Runtime", "Network", "DOM", "Log", "Accessibility"]) await this.send(`${domain}.enable`);
    this.problems = [];
    this.listeners.push(({ method, params }) => {
      if (method === "Log.entryAdded" && params.entry.level === "error") this.problems.push(params.entry.text);
      if (method === "Runtime.exceptionThrown") this.problems.push(params.exceptionDetails.exception?.description ?? params.exceptionDetails.text);
      return false;
    });
  }

  async goto(url) {
    const loaded = this.event("Page.loadEventFired");
    await this.send("Page.navigate", { url });
    await loaded;
  }

  /** Runs a function of this file in the page, with JSON arguments, and returns its JSON answer. */
  async run(inPage, ...args) {
    const expression = `(${inPage})(...${JSON.stringify(args)})`;
    const { result, exceptionDetails } = await this.send("Runtime.evaluate", { expression, awaitPromise: true, returnByValue: true });
    if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
    return result.value;
  }

  /** A real key, as from a keyboard. */
  async press(key, code = key, text) {
    await this.send("Input.dispatchKeyEvent", { type: text ? "keyDown" : "rawKeyDown", key, code, text, windowsVirtualKeyCode: { Tab: 9, Enter: 13, " ": 32 }[key] });
    await this.send("Input.dispatchKeyEvent", { type: "keyUp", key, code });
  }

  async close() {
    this.child.kill();
    await this.exited;
  }
}

// What runs in the page. Each function is sent as text and sees only the page.

/** Fills the form, submits it and resolves to what the page shows once it has judged. */
async function fillAndVerify(values) {
  const verdict = document.getElementById("verdict");
  document.querySelector("button[type=reset]").click();
  for (const [id, value] of Object.entries(values)) {
    if (id === "as") {
      document.querySelector(`input[name=as][value=${value}]`).checked = true;
      continue;
    }
    const field = document.getElementById(id);
    field.value = value;
    field.dispatchEvent(new Event("input", { bubbles: true }));
  }
  const judged = new Promise((resolve) => {
    const observer = new MutationObserver(() => {
      if (verdict.querySelector(".pass, .fail") === null) return;
      observer.disconnect();
      resolve();
    });
    observer.observe(verdict, { childList: true });
  });
  document.getElementById("verify").click();
  await judged;
  return {
    title: verdict.querySelector("h2").textContent,
    words: verdict.textContent,
    report: !document.getElementById("report").hidden,
    statuses: Array.from(document.querySelectorAll("#checks li"), (item) => `${item.dataset.check}:${item.className}`),
    entry: document.getElementById("entry").textContent,
    tag: document.getElementById("entry-tag").textContent,
    data: document.getElementById("data").textContent,
    sealed: document.getElementById("sealed").textContent,
    meaning: document.getElementById("meaning").textContent,
    elements: document.querySelectorAll("#report b, #report img, #report script").length,
  };
}

/** What of the report is wider than the window. */
function overflow() {
  return Array.from(document.querySelectorAll("body *"))
    .filter((element) => element.getBoundingClientRect().right > document.documentElement.clientWidth + 0.5)
    .map((element) => `${element.tagName}#${element.id}.${element.className}`);
}

/** The lowest contrast (WCAG 2.2) of any text shown, and where. */
function lowestContrast() {
  const parse = (color) => color.match(/[\d.]+/g).map(Number);
  const luminance = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const ground = (element) => {
    for (let at = element; at !== null; at = at.parentElement) {
      const color = parse(getComputedStyle(at).backgroundColor);
      if (color.length === 3 || color[3] > 0) return color;
    }
    return [255, 255, 255];
  };
  let lowest = { ratio: 21, where: "" };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (walker.currentNode.data.trim() === "" || element.closest("script, noscript, [hidden]") || element.getClientRects().length === 0) continue;
    const [light, dark] = [luminance(parse(getComputedStyle(element).color)), luminance(ground(element))].sort((a, b) => b - a);
    const ratio = (light + 0.05) / (dark + 0.05);
    if (ratio < lowest.ratio) lowest = { ratio, where: `${element.tagName}.${element.className}: ${walker.currentNode.data.trim().slice(0, 40)}` };
  }
  return lowest;
}

/** Tries what the page's policy has to forbid; resolves to what got through. */
async function escapes() {
  const through = [];
  try {
    document.createElement("div").innerHTML = "<b>x</b>";
    through.push("innerHTML");
  } catch { /* as it should be */ }
  try {
    await fetch("data:text/plain,x");
    through.push("fetch");
  } catch { /* as it should be */ }
  const image = new Image();
  const blocked = new Promise((resolve) => {
    document.addEventListener("securitypolicyviolation", () => resolve(true), { once: true });
    image.addEventListener("load", () => resolve(false));
  });
  image.src = "data:image/gif;base64,R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw==";
  if (!(await blocked)) through.push("image");
  return through;
}

// -------------------------------------------------------------- scenes

const world = new World();
const sound = world.body(3);
const filled = {
  body: canonical(sound), manifest: JSON.stringify(world.manifest(), null, 2), pin: world.pin, at: "2026-03-01T00:00:00.000000Z",
};

async function shot(browser, name) {
  if (flags.shots === undefined) return;
  mkdirSync(flags.shots, { recursive: true });
  const { cssContentSize } = await browser.send("Page.getLayoutMetrics");
  const clip = { ...cssContentSize, x: 0, y: 0, scale: 1 };
  const { data } = await browser.send("Page.captureScreenshot", { format: "png", captureBeyondViewport: true, clip });
  writeFileSync(join(flags.shots, `${name}.png`), Buffer.from(data, "base64"));
}

async function looks(browser, scene) {
  for (const scheme of ["light", "dark"]) {
    await browser.send("Emulation.setEmulatedMedia", { features: [{ name: "prefers-color-scheme", value: scheme }] });
    const { ratio, where } = await browser.run(lowestContrast);
    expect(ratio >= 4.5, `${scene}, ${scheme}: contrast ${ratio.toFixed(2)} at ${where}`);
    for (const [size, width] of [["wide", 1100], ["mobile", 360]]) {
      await browser.send("Emulation.setDeviceMetricsOverride", { width, height: 900, deviceScaleFactor: 1, mobile: size === "mobile" });
      const wider = await browser.run(overflow);
      expect(wider.length === 0, `${scene}, ${size}: wider than the window: ${wider.slice(0, 4).join(" ")}`);
      await shot(browser, `${scene}-${scheme}-${size}`);
    }
  }
}

async function scenes(browser, directory) {
  await browser.goto(address);
  await looks(browser, "empty");

  let shown = await browser.run(fillAndVerify, filled);
  expect(shown.title === "✓ Verified: included", `a sound receipt is shown as ${shown.title}`);
  expect(shown.words.includes("Entry 3") && shown.words.includes("signer's claim"), "the verdict names the entry and whose claim the time is");
  expect(shown.statuses.length === 17 && shown.statuses.filter((status) => status.endsWith(":pass")).length === 16, `checks of a sound receipt: ${shown.statuses}`);
  expect(shown.statuses.at(-1) === "policy:not_judged", "the policy is shown as not judged");
  expect(shown.tag === "verified" && shown.entry.includes("store.version.transitioned") && shown.data.includes("READY_FOR_DISTRIBUTION"), "the entry is shown");
  expect(shown.sealed.includes("person3@example.com") && shown.sealed.includes("Not opened here"), "openings are shown, and what stays sealed");
  expect(shown.sealed.includes("<b>bold</b>") && shown.sealed.includes("\\u{202e}") && shown.elements === 0, "data is shown as text, with its direction marks visible");
  expect(shown.meaning.includes("does not") || shown.meaning.includes("Not shown"), "what was not proven is said");
  expect(shown.meaning.includes("serial 3, issued 2026-02-01T00:00:00.000000Z"), "how far revocations are known is said");
  await looks(browser, "success");

  shown = await browser.run(fillAndVerify, { ...filled, body: filled.body.replace("READY_FOR_DISTRIBUTION", "REJECTED") });
  expect(shown.title === "✗ Not verified: signature", `a changed entry is shown as ${shown.title}`);
  expect(shown.statuses[10] === "signature:fail" && shown.statuses[11] === "proof:not_reached", `checks of a changed entry: ${shown.statuses}`);
  expect(shown.tag.includes("not verified"), "a changed entry is marked as not verified");
  await looks(browser, "failure");

  const { at, ...now } = filled;
  shown = await browser.run(fillAndVerify, { ...now, at: "2030-01-01T00:00:00.000000Z" });
  expect(shown.title === "✗ Not verified: stale" && shown.statuses[14] === "inclusion:pass", `a stale receipt: ${shown.title}, ${shown.statuses}`);
  await looks(browser, "stale");
  shown = await browser.run(fillAndVerify, { ...now, as: "evidence" });
  expect(shown.title === "✓ Verified: included", `read as evidence: ${shown.title}`);
  shown = await browser.run(fillAndVerify, { ...now, pin: "" });
  expect(shown.title === "✗ Not verified: unpinned", `without a pin: ${shown.title}`);
  shown = await browser.run(fillAndVerify, { ...filled, pin: world.root.id });
  expect(shown.title === "Please mend the input" && !shown.report, `a pin without its instance: ${shown.title}`);
  shown = await browser.run(fillAndVerify, { ...filled, body: "" });
  expect(shown.title === "✗ Not verified: json" && shown.tag === "unreadable", `an empty body: ${shown.title}`);
  shown = await browser.run(fillAndVerify, { ...filled, ledger: world.own });
  expect(shown.title === "✗ Not verified: ledger", `another ledger: ${shown.title}`);

  await fileScene(browser, directory);
  await keyboardScene(browser);
  const through = await browser.run(escapes);
  expect(through.length === 0, `the page's policy let through: ${through}`);
}

/** A chosen file counts byte for byte: a byte order mark, which a text field would keep out of sight, is found. */
async function fileScene(browser, directory) {
  const choose = async (id, name, content) => {
    const path = join(directory, name);
    writeFileSync(path, content);
    const { root: document } = await browser.send("DOM.getDocument");
    const { nodeId } = await browser.send("DOM.querySelector", { nodeId: document.nodeId, selector: id });
    const taken = browser.run((status) => new Promise((resolve) => {
      new MutationObserver((_, observer) => { observer.disconnect(); resolve(); }).observe(document.querySelector(status), { childList: true });
    }), id.replace("-file", "-from"));
    await browser.send("DOM.setFileInputFiles", { nodeId, files: [path] });
    await taken;
  };
  const verify = () => browser.run(async (values) => {
    for (const [id, value] of Object.entries(values)) document.getElementById(id).value = value;
    const verdict = document.getElementById("verdict");
    document.getElementById("verify").click();
    await new Promise((resolve) => {
      new MutationObserver((_, observer) => {
        if (verdict.querySelector(".pass, .fail")) { observer.disconnect(); resolve(); }
      }).observe(verdict, { childList: true });
    });
    return verdict.querySelector("h2").textContent;
  }, { pin: filled.pin, at: filled.at });
  await browser.run(() => document.querySelector("button[type=reset]").click());
  await choose("#body-file", "receipt.json", filled.body);
  await choose("#manifest-file", "keys.json", filled.manifest);
  const label = await browser.run(() => document.getElementById("body-from").textContent);
  expect(label.includes("receipt.json") && label.includes("bytes"), `the chosen file is named: ${label}`);
  let title = await verify();
  expect(title === "✓ Verified: included", `from files: ${title}`);
  await choose("#body-file", "marked.json", `\ufeff${filled.body}`);
  title = await verify();
  expect(title === "✗ Not verified: json", `from a file with a byte order mark: ${title}`);
}

/** Everything is reached and done with the keyboard, and every control has a name. */
async function keyboardScene(browser) {
  await browser.goto(address);
  const reached = [];
  for (let i = 0; i < 9; i += 1) {
    await browser.press("Tab");
    reached.push(await browser.run(() => document.activeElement.id || document.activeElement.tagName.toLowerCase()));
  }
  const order = ["body", "body-file", "manifest", "manifest-file", "pin", "summary", "verify"];
  expect(order.every((id, i) => reached[i] === id), `the tabulator reaches ${reached.join(", ")}`);
  const { nodes } = await browser.send("Accessibility.getFullAXTree");
  const controls = nodes.filter(({ role, ignored }) => !ignored && ["textbox", "button", "radio"].includes(role?.value));
  const nameless = controls.filter(({ name }) => !name?.value);
  expect(controls.length >= 6 && nameless.length === 0, `${nameless.length} of ${controls.length} controls have no name`);
  await browser.run((values) => {
    for (const [id, value] of Object.entries(values)) document.getElementById(id).value = value;
    document.getElementById("pin").focus();
    globalThis.judged = new Promise((resolve) => {
      const verdict = document.getElementById("verdict");
      new MutationObserver(() => verdict.querySelector(".pass, .fail") && resolve()).observe(verdict, { childList: true });
    });
  }, filled);
  await browser.press("Enter", "Enter", "\r");
  const title = await browser.run(async () => {
    await globalThis.judged;
    return document.querySelector("#verdict h2").textContent;
  });
  expect(title === "✓ Verified: included", `by the Enter key: ${title}`);
}

const profile = mkdtempSync(join(tmpdir(), "verify-html-chromium-"));
const browser = new Browser(profile);
try {
  await browser.open();
  await scenes(browser, profile);
  const outside = browser.requests.filter((url) => !url.startsWith("file:") && !url.startsWith("data:") && !url.startsWith("about:"));
  expect(outside.length === 0, `the page asked for ${outside}`);
  const problems = browser.problems.filter((text) => !text.includes("Content Security Policy") && !text.includes("TrustedHTML"));
  expect(problems.length === 0, `the browser reports: ${problems.join(" | ")}`);
} finally {
  await browser.close();
  rmSync(profile, { recursive: true, force: true, maxRetries: 5 });
}
print(`${tally.passed} passed, ${tally.failed} failed`);
process.exitCode = tally.failed === 0 ? 0 : 1;
