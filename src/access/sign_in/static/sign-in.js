// The pages of the sign-in: passkeys, and what is one's own. Everything that comes from the service is set as text.
"use strict";

const $ = (id) => document.getElementById(id);
const tell = (text) => { $("told").textContent = text; };

// WebAuthn speaks in buffers, JSON in base64url.
const bytes = (text) =>
  Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), (c) => c.charCodeAt(0));
const text = (buffer) =>
  btoa(String.fromCharCode(...new Uint8Array(buffer))).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");

let csrf = null;

async function ask(method, path, body) {
  const headers = {};
  if (body !== undefined) headers["content-type"] = "application/json";
  if (csrf !== null) headers["x-csrf-token"] = csrf;
  const answer = await fetch(path, {
    method, headers, credentials: "same-origin", redirect: "error",
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  if (answer.status === 204) return null;
  const value = await answer.json();
  if (!answer.ok) {
    const problem = new Error(value.detail || value.title);
    problem.status = answer.status;
    throw problem;
  }
  return value;
}

// Who is signed in; asking for it gets the token that changes need.
async function session() {
  const current = await ask("GET", "/v1/session");
  csrf = current.csrf_token;
  return current;
}

async function create(options) {
  const publicKey = { ...options.publicKey, challenge: bytes(options.publicKey.challenge) };
  publicKey.user = { ...publicKey.user, id: bytes(publicKey.user.id) };
  publicKey.excludeCredentials = (publicKey.excludeCredentials || []).map((c) => ({ ...c, id: bytes(c.id) }));
  const made = await navigator.credentials.create({ publicKey });
  return {
    id: made.id,
    rawId: text(made.rawId),
    type: made.type,
    extensions: made.getClientExtensionResults(),
    response: {
      attestationObject: text(made.response.attestationObject),
      clientDataJSON: text(made.response.clientDataJSON),
      transports: made.response.getTransports ? made.response.getTransports() : [],
    },
  };
}

async function get(options) {
  const publicKey = { ...options.publicKey, challenge: bytes(options.publicKey.challenge) };
  publicKey.allowCredentials = (publicKey.allowCredentials || []).map((c) => ({ ...c, id: bytes(c.id) }));
  const got = await navigator.credentials.get({ publicKey });
  return {
    id: got.id,
    rawId: text(got.rawId),
    type: got.type,
    extensions: got.getClientExtensionResults(),
    response: {
      authenticatorData: text(got.response.authenticatorData),
      clientDataJSON: text(got.response.clientDataJSON),
      signature: text(got.response.signature),
      userHandle: got.response.userHandle ? text(got.response.userHandle) : null,
    },
  };
}

// Runs what a button does, once at a time, and says what went wrong.
async function act(button, work) {
  button.disabled = true;
  tell("");
  try {
    await work();
  } catch (e) {
    // The session may have ended with what was done: the passkey that it began with is gone.
    if (e.status === 401 && $("account")) location.assign("/sign-in");
    else tell(e.name === "NotAllowedError" ? "Nothing was confirmed." : e.message);
  } finally {
    button.disabled = false;
  }
}

async function signIn(invitation) {
  const begun = await ask("POST", "/sign-in/passkey/challenge", {});
  const credential = await get(begun.options);
  const done = await ask("POST", "/sign-in/passkey", { state: begun.state, credential, invitation });
  location.assign(done.next);
}

async function comeInvited(invitation, name) {
  const begun = await ask("POST", "/sign-in/invited/challenge", { invitation, name });
  const credential = await create(begun.options);
  const done = await ask("POST", "/sign-in/invited", { state: begun.state, credential });
  location.assign(done.next);
}

async function addPasskey(name) {
  const begun = await ask("POST", "/v1/passkeys/challenge", {});
  const credential = await create(begun.options);
  await ask("POST", "/v1/passkeys", { state: begun.state, name, credential });
  await account();
  tell("The passkey was added.");
}

function list(id, items) {
  $(id).replaceChildren(...items.map(({ words, label, remove }) => {
    const item = document.createElement("li");
    const span = document.createElement("span");
    span.textContent = words;
    item.append(span);
    if (remove) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = label;
      button.setAttribute("aria-label", `${label}: ${words}`);
      button.addEventListener("click", () => act(button, async () => {
        await remove();
        await account();
      }));
      item.append(button);
    }
    return item;
  }));
}

const when = (time) => (time ? new Date(time).toLocaleString() : "never");

// All pages of a list.
async function all(path) {
  const items = [];
  let cursor = null;
  do {
    const page = await ask("GET", cursor === null ? path : `${path}?cursor=${encodeURIComponent(cursor)}`);
    items.push(...page.items);
    cursor = page.next ?? null;
  } while (cursor !== null);
  return items;
}

function workspaces(items) {
  list("workspaces", items.map((w) => ({ words: `${w.name}, as ${w.role} (${w.id})` })));
  // Who may make keys; what is asked for beyond one's role is refused with words.
  const own = items.filter((w) => w.role === "owner" || w.role === "admin");
  const select = $("key-workspace");
  const chosen = select.value;
  select.replaceChildren(...own.map((w) => {
    const option = document.createElement("option");
    option.value = w.id;
    option.textContent = w.name;
    option.selected = w.id === chosen;
    return option;
  }));
  $("make-key").hidden = own.length === 0;
}

async function makeKey({ workspace, name, scopes, days }) {
  const made = await ask("POST", `/v1/workspaces/${workspace.value}/keys`, {
    name: name.value,
    scopes: scopes.value.split(/[\s,]+/).filter(Boolean),
    expires_at: new Date(Date.now() + days.value * 86_400_000).toISOString(),
  });
  $("key-text").textContent = made.token;
  // The key itself is read, and so in no shell's history.
  $("key-shell").textContent = [
    `export STATUSLEDGER_URL='${location.origin}' STATUSLEDGER_WORKSPACE='${workspace.value}'`,
    "read -rs STATUSLEDGER_TOKEN && export STATUSLEDGER_TOKEN",
    "statusledger workspaces list",
  ].join("\n");
  $("made-key").hidden = false;
  $("key-text").focus();
}

async function account() {
  const current = await session();
  const [sessions, passkeys, parts] =
    await Promise.all([ask("GET", "/v1/sessions"), ask("GET", "/v1/passkeys"), all("/v1/workspaces")]);
  $("who").textContent = [current.name, current.email, current.user].filter(Boolean).join(" · ");
  list("passkeys", passkeys.items.map((p) => ({
    words: `${p.name}, last used: ${when(p.last_used_at)}`,
    label: "Remove",
    remove: () => ask("DELETE", `/v1/passkeys/${p.id}`),
  })));
  if ($("identities")) {
    const identities = await ask("GET", "/v1/identities");
    list("identities", identities.items.map((i) => ({
      words: `${i.provider}, since ${when(i.created_at)}`,
      label: "Disconnect",
      remove: () => ask("DELETE", `/v1/identities/${i.provider}/${i.id}`),
    })));
  }
  workspaces(parts);
  list("sessions", sessions.items.map((s) => ({
    words: `${s.current ? "This one: " : ""}${s.method}, ${s.ip || "?"}, ${s.user_agent || "?"}, last seen ${when(s.last_seen_at)}`,
    label: "End",
    remove: s.current ? null : () => ask("DELETE", `/v1/sessions/${s.id}`),
  })));
  $("account").hidden = false;
}

for (const button of document.querySelectorAll("[data-sign-in]")) {
  button.hidden = !window.PublicKeyCredential;
  button.addEventListener("click", () => act(button, () => signIn(button.dataset.invitation)));
}
for (const button of document.querySelectorAll("[data-accept]")) {
  button.hidden = false;
  button.addEventListener("click", () => act(button, async () => {
    await session();
    await ask("POST", "/v1/invitations/accept", { token: button.dataset.accept });
    location.assign("/account");
  }));
}
for (const form of document.querySelectorAll("[data-invited]")) {
  const button = form.querySelector("button");
  button.disabled = !window.PublicKeyCredential;
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    act(button, () => comeInvited(form.dataset.invited, form.elements.name.value));
  });
}
for (const button of document.querySelectorAll("[data-connect]")) {
  button.addEventListener("click", () => act(button, async () => {
    const begun = await ask("POST", button.dataset.connect, {});
    location.assign(begun.location);
  }));
}
if ($("account")) {
  $("add-passkey").addEventListener("submit", (event) => {
    event.preventDefault();
    const form = event.target;
    act(form.querySelector("button"), async () => {
      await addPasskey(form.elements.name.value);
      form.reset();
    });
  });
  $("make-key").addEventListener("submit", (event) => {
    event.preventDefault();
    const form = event.target;
    $("made-key").hidden = true;
    $("key-text").textContent = "";
    act(form.querySelector("button"), () => makeKey(form.elements));
  });
  $("sign-out").addEventListener("click", () => act($("sign-out"), async () => {
    await ask("DELETE", "/v1/session");
    location.assign("/sign-in");
  }));
  account().catch((e) => {
    if (e.status === 401) location.assign("/sign-in");
    else tell(e.message);
  });
}
