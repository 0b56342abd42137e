// A headless Chromium over its debugging pipe: messages are JSON, each ended by a zero byte.
import { spawn } from "node:child_process";

export class Chromium {
  constructor(profile) {
    const binary = process.env.CHROMIUM ?? "/usr/bin/chromium";
    const flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run", "--disable-extensions"];
    this.child = spawn(binary, [...flags, "--remote-debugging-pipe", `--user-data-dir=${profile}`], {
      stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"],
    });
    this.exited = new Promise((done) => this.child.once("exit", done));
    this.waiting = new Map();
    this.listeners = new Set();
    this.next = 1;
    const fail = (error) => {
      for (const { reject } of this.waiting.values()) reject(error);
      this.waiting.clear();
    };
    this.child.once("error", fail);
    this.child.once("exit", (code) => fail(new Error(`Chromium ended with ${code}`)));
    let buffer = Buffer.alloc(0);
    this.child.stdio[4].on("data", (data) => {
      buffer = Buffer.concat([buffer, data]);
      for (let end = buffer.indexOf(0); end >= 0; end = buffer.indexOf(0)) {
        const message = JSON.parse(buffer.subarray(0, end).toString());
        buffer = buffer.subarray(end + 1);
        for (const listener of this.listeners) listener(message);
        const waiter = this.waiting.get(message.id);
        if (waiter === undefined) continue;
        this.waiting.delete(message.id);
        if (message.error) waiter.reject(new Error(message.error.message));
        else waiter.resolve(message.result);
      }
    });
  }

  send(method, params = {}, sessionId = undefined) {
    const id = this.next++;
    this.child.stdio[3].write(`${JSON.stringify({ id, method, params, sessionId })}\0`);
    return new Promise((resolve, reject) => this.waiting.set(id, { resolve, reject }));
  }

  /** A tab with cookies of its own and a virtual authenticator in it. */
  async person(authenticator = {}) {
    const { browserContextId } = await this.send("Target.createBrowserContext");
    const { targetId } = await this.send("Target.createTarget", { url: "about:blank", browserContextId });
    const { sessionId } = await this.send("Target.attachToTarget", { targetId, flatten: true });
    const tab = new Tab(this, sessionId);
    for (const domain of ["Page", "Runtime", "Log", "Network"]) await tab.send(`${domain}.enable`);
    await tab.send("WebAuthn.enable");
    const { authenticatorId } = await tab.send("WebAuthn.addVirtualAuthenticator", {
      options: {
        protocol: "ctap2", transport: "internal", hasResidentKey: true, hasUserVerification: true,
        isUserVerified: true, automaticPresenceSimulation: true, ...authenticator,
      },
    });
    tab.authenticator = authenticatorId;
    return tab;
  }

  async close() {
    this.child.kill();
    await this.exited;
  }
}

export class Tab {
  constructor(chromium, session) {
    this.chromium = chromium;
    this.session = session;
    this.problems = [];
    chromium.listeners.add(({ sessionId, method, params }) => {
      if (sessionId !== session) return;
      if (method === "Runtime.exceptionThrown") this.problems.push(params.exceptionDetails.exception?.description ?? params.exceptionDetails.text);
      if (method === "Log.entryAdded" && /Content Security Policy/.test(params.entry.text)) this.problems.push(params.entry.text);
    });
  }

  send(method, params = {}) {
    return this.chromium.send(method, params, this.session);
  }

  event(name) {
    return new Promise((resolve) => {
      const listener = ({ sessionId, method, params }) => {
        if (sessionId !== this.session || method !== name) return;
        this.chromium.listeners.delete(listener);
        resolve(params);
      };
      this.chromium.listeners.add(listener);
    });
  }

  async goto(url) {
    const loaded = this.event("Page.loadEventFired");
    const { errorText } = await this.send("Page.navigate", { url });
    if (errorText) throw new Error(`${url}: ${errorText}`);
    await loaded;
  }

  /** Runs a function in the page, with JSON arguments, and returns its JSON answer. */
  async run(inPage, ...args) {
    const expression = `(${inPage})(...${JSON.stringify(args)})`;
    const { result, exceptionDetails } = await this.send("Runtime.evaluate", { expression, awaitPromise: true, returnByValue: true, userGesture: true });
    if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
    return result.value;
  }

  /** Waits until a function in the page gives something; a page that is being left gives nothing yet. */
  async until(what, inPage, ...args) {
    for (const end = Date.now() + 20_000; Date.now() < end; ) {
      const found = await this.run(inPage, ...args).catch(() => null);
      if (found) return found;
      await new Promise((soon) => setTimeout(soon, 25));
    }
    throw new Error(`waited in vain: ${what}; the page says: ${await this.run(() => `${location} ${document.body.innerText}`)}`);
  }

  /** Presses a button by its words, as somebody would who sees it. */
  async press(words) {
    await this.until(`a button “${words}”`, (words) => {
      const button = [...document.querySelectorAll("button, a.way")].find((b) => !b.hidden && !b.disabled && (b.textContent === words || b.getAttribute("aria-label") === words));
      button?.click();
      return button !== undefined;
    }, words);
  }

  told(words) {
    return this.until(`“${words}”`, (words) => document.getElementById("told").textContent.includes(words), words);
  }

  at(path) {
    return this.until(`the page ${path}`, (path) => location.pathname === path && document.readyState === "complete", path);
  }
}
