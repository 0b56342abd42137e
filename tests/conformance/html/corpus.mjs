// The page's own corpus: receipts made by make.mjs, sound and broken, each
// with the check that it has to fail (null: none). `open` marks what the
// formats leave open: there a refusal counts, whatever its name.
//
//   node corpus.mjs DIR     writes it as DIR/index.jsonl and files
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { World, canonical, endorse, makeKey, noteLine, sha256, signJson, treeProof, without } from "./make.mjs";

const AT = "2026-03-01T00:00:00.000000Z";

/** Nested arrays: `n` levels around nothing. */
const nested = (n) => "[".repeat(n) + "]".repeat(n);

/** A copy of a base64 string with one bit of its bytes changed. */
function flip(base64, byte = 0) {
  const bytes = Buffer.from(base64, "base64");
  bytes[byte] ^= 1;
  return bytes.toString("base64");
}

/** All cases as `{name, failed_check, body, manifest, options, open}`. */
export function cases() {
  const world = new World();
  const sound = world.body(3);
  const keys = world.manifest();
  const text = canonical(sound);
  const all = [];
  const add = (name, failed_check, { body = sound, manifest = keys, open = false, ...options } = {}) =>
    all.push({ name, failed_check, body, manifest, open, options: { pin: world.pin, at: AT, ...options } });
  /** A body whose text is edited without signing anything again. */
  const edited = (name, failed_check, from, to, options) => {
    if (!text.includes(from)) throw new Error(`${name}: nothing to edit`);
    add(name, failed_check, { body: text.replace(from, () => to), ...options });
  };
  soundCases(world, sound, add);
  jsonCases(world, text, add, edited);
  memberCases(world, sound, add, edited);
  manifestCases(world, sound, keys, add);
  contextCases(world, sound, add);
  signatureCases(world, sound, add, edited);
  proofCases(world, sound, add);
  openingCases(world, sound, add);
  return all;
}

function soundCases(world, sound, add) {
  add("sound", null);
  for (let size = 1; size <= world.leaves.length; size += 1) {
    for (let seq = 0; seq < size; seq += 1) {
      add(`sound-${seq}-of-${size}`, null, { body: world.body(seq, { proof: world.proof(seq, { size }) }) });
    }
  }
  const backwards = Object.fromEntries(Object.entries(sound).reverse());
  add("sound-pretty-and-reordered", null, { body: JSON.stringify(backwards, null, 2) });
  add("sound-escaped", null, {
    body: canonical(sound).replace(/[\u0080-\uffff/]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0").toUpperCase()}`),
  });
  add("sound-white-space-around", null, { body: `\r\n\t ${canonical(sound)} \n` });
  add("sound-without-openings", null, { body: without(sound, "openings") });
  add("sound-as-asked-for", null, { ledger: world.ledger, destination: world.destination });
  add("sound-later-proof", null, { body: { ...sound, receipt: { ...sound.receipt, proof: world.proof(3, { size: 5 }) } } });
  const odd = world.append((entry) => {
    Object.assign(entry.data, { constructor: { toString: 1 }, "\ud83d\ude00": 1, "\ufb33": 2, "\r": -9007199254740991 });
    delete entry.data.sealed;
  });
  add("sound-odd-names", null, { body: world.body(odd, { openings: null }) });
  const proto = world.append((entry) => {
    entry.data = Object.fromEntries([["sealed", {}], ["__proto__", { polluted: true }]]);
  });
  add("sound-member-named-proto", null, { body: canonical(world.body(proto, { openings: null })) });
}

function jsonCases(world, text, add, edited) {
  const bytes = Buffer.from(text);
  add("empty", "json", { body: "" });
  add("only-white-space", "json", { body: " \n" });
  add("cut-short", "json", { body: text.slice(0, -1) });
  add("byte-order-mark", "json", { body: `\ufeff${text}` });
  add("trailing-document", "json", { body: `${text}{}` });
  add("trailing-nul", "json", { body: `${text}\0` });
  add("utf-16", "json", { body: Buffer.from(text, "utf16le") });
  add("invalid-utf-8", "json", { body: Buffer.concat([bytes.subarray(0, -1), Buffer.from(',"x":"\xff"}', "latin1")]) });
  add("utf-8-surrogate", "json", { body: Buffer.concat([bytes.subarray(0, -1), Buffer.from(',"x":"\xed\xa0\x80"}', "latin1")]) });
  add("overlong-utf-8", "json", { body: Buffer.concat([bytes.subarray(0, -1), Buffer.from(',"x":"\xc0\x80"}', "latin1")]) });
  for (const [name, number] of Object.entries({
    "fraction": "1.0", "exponent": "1e2", "big-exponent": "1E400", "minus-zero": "-0", "too-big": "9007199254740992",
    "too-small": "-9007199254740992", "leading-zero": "01", "plus": "+1", "hexadecimal": "0x1", "bare-minus": "-",
    "dot": "1.", "infinity": "Infinity", "nan": "NaN", "many-digits": "1".repeat(400), "zero-fraction": "0.0",
  })) {
    edited(`number-${name}`, "json", '"v":1', `"v":${number}`);
    edited(`number-${name}-in-data`, "json", '"from":', `"a":[{"b":${number}}],"from":`);
  }
  edited("duplicate-top", "json", '"v":1', '"v":1,"v":1');
  edited("duplicate-escaped", "json", '"seq":3', '"seq":3,"\\u0073eq":3');
  edited("duplicate-in-data", "json", '"from":', '"from":"A","from":');
  edited("duplicate-in-receipt", "json", '"number":', '"number":1,"number":');
  edited("duplicate-in-opening", "json", '"salt":', '"salt":"","salt":');
  for (const [name, string] of Object.entries({
    "lone-high": "\\ud800", "lone-low": "\\udc00", "swapped": "\\udc00\\ud800", "high-twice": "\\ud83d\\ud83d\\ude00",
    "unknown-escape": "\\x41", "short-escape": "\\u12", "bad-escape": "\\u12g4", "control": "\u0001", "line-feed": "\n",
    "line-continued": "\\\n",
  })) {
    edited(`string-${name}`, "json", '"from":"', `"from":"${string}`);
    edited(`name-${name}`, "json", '"from":', `"a${string}":1,"from":`);
  }
  for (const [name, from, to] of [
    ["comment", '"v":1', '"v":1/**/'], ["trailing-comma", '"v":1}', '"v":1,}'], ["single-quotes", '"v":1', "'v':1"],
    ["no-break-space", '"v":1', '"v":\u00a01'], ["form-feed", '"v":1', '"v":\f1'], ["true-cased", '"v":1', '"v":True'],
    ["array-hole", '"v":1', '"v":[1,,2]'], ["array-comma", '"v":1', '"v":[1,]'], ["no-colon", '"v":1', '"v" 1'],
  ]) edited(`syntax-${name}`, "json", from, to);
  edited("levels-33", "json", '"from":', `"deep":${nested(31)},"from":`);
  edited("levels-10000", "json", '"from":', `"deep":${nested(10000)},"from":`);
  add("levels-only-brackets", "json", { body: "[".repeat(1000000) });
  add("levels-only-braces", "json", { body: '{"a":'.repeat(1000000) });
  add("over-8-mib", "json", { body: text + " ".repeat(8 * 1024 * 1024 + 1 - bytes.length) });
  add("exactly-8-mib", null, { body: text + " ".repeat(8 * 1024 * 1024 - bytes.length) });
  add("long-string", "members", { body: `{"receipt":"${"x".repeat(8 * 1024 * 1024 - 14)}"}` });
  add("long-number", "json", { body: `{"a":${"9".repeat(8 * 1024 * 1024 - 6)}}` });
  add("many-members", "members", { body: `{"receipt":{${Array.from({ length: 400000 }, (_, i) => `"m${i}":0`).join(",")}}}` });
  const deep = world.append((entry) => {
    delete entry.data.sealed;
    entry.data.deep = JSON.parse(nested(30));
  });
  add("levels-32", null, { body: world.body(deep, { openings: null }) });
}

function memberCases(world, sound, add, edited) {
  for (const [name, body] of [["array", "[]"], ["string", '"x"'], ["number", "1"], ["null", "null"], ["object", "{}"]]) {
    add(`top-${name}`, "members", { body });
  }
  for (const member of Object.keys(sound)) {
    if (member === "openings") continue;
    add(`lacks-${member}`, "members", { body: without(sound, member) });
    add(`null-${member}`, "members", { body: { ...sound, [member]: null } });
  }
  for (const member of Object.keys(sound.receipt)) {
    add(`receipt-lacks-${member}`, "members", { body: { ...sound, receipt: without(sound.receipt, member) } });
    add(`receipt-null-${member}`, "members", { body: { ...sound, receipt: { ...sound.receipt, [member]: null } } });
  }
  add("extra-member", "members", { body: { ...sound, extra: 1 } });
  add("receipt-extra-member", "members", { body: { ...sound, receipt: { ...sound.receipt, extra: 1 } } });
  const values = {
    v: [0, 2, "1", true], seq: [-1, "3", [3]], ledger: [world.ledger.toUpperCase(), world.ledger.replaceAll("-", ""), ""],
    prev: [sound.prev.toUpperCase(), sound.prev.slice(1), 0], type: ["", "A.b", "a..b", ".a", "a.", "a-b", "a\n"],
    timestamp: [
      "2026-02-30T00:00:00.000000Z", "2026-02-29T00:00:00.000000Z", "2026-13-01T00:00:00.000000Z", "2026-01-01T24:00:00.000000Z",
      "2026-01-01T00:60:00.000000Z", "2026-12-31T23:59:60.000000Z", "2026-01-01T00:00:00Z", "2026-01-01T00:00:00.000Z",
      "2026-01-01T00:00:00.000000+00:00", "2026-01-01 00:00:00.000000Z", "2026-01-01T00:00:00.000000z", "2026-01-01T00:00:00.0000000Z",
    ],
    nonce: [
      Buffer.alloc(15).toString("base64"), Buffer.alloc(17).toString("base64"), "AAAAAAAAAAAAAAAAAAAAAA", "AAAAAAAAAAAAAAAAAAAAAB==",
      " AAAAAAAAAAAAAAAAAAAAAA==", "AAAAAAAAAAAAAAAAAAAAA-==", "AAAAAAAAAAAAAAAAAAAAAA==\n", "",
    ],
    data: [[], "x", 1, { sealed: [] }, { sealed: { A: "0".repeat(64) } }, { sealed: { a: "0" } }, { sealed: { "": "0".repeat(64) } }, { sealed: null }],
  };
  for (const [member, wrong] of Object.entries(values)) {
    wrong.forEach((value, i) => add(`bad-${member}-${i}`, "members", { body: { ...sound, [member]: value } }));
  }
  const inReceipt = {
    v: [2], instance: ["Status.example.com", "", "a/b", "a".repeat(254)], number: [0, -1, "1"],
    id: [sound.receipt.id.slice(5), sound.receipt.id.toUpperCase(), "rcpt_"], destination: [1], proof: [1, []],
    issued_at: ["2026-02-10T12:00:00Z"], key_id: [world.receiptKey.id.toUpperCase(), ""],
    signature: ["", flip(sound.receipt.signature).slice(4), `${sound.receipt.signature}AAAA`, sound.receipt.signature.replace(/=+$/, "")],
  };
  for (const [member, wrong] of Object.entries(inReceipt)) {
    wrong.forEach((value, i) => add(`bad-receipt-${member}-${i}`, "members", { body: { ...sound, receipt: { ...sound.receipt, [member]: value } }, open: member === "signature" }));
  }
  add("leap-day", "signature", { body: { ...sound, timestamp: "2028-02-29T00:00:00.000000Z" } });
  add("first-entry-with-prev", "members", { body: { ...world.body(0), prev: "1".repeat(64) }, open: true });
  edited("members-before-manifest", "members", '"v":1}', '"v":2}', { manifest: "" });
  const full = world.append((entry) => {
    delete entry.data.sealed;
    entry.data.long = "";
    entry.data.long = "x".repeat(65535 - canonical(entry).length);
  });
  add("entry-65535-bytes", null, { body: world.body(full, { openings: null }) });
  const over = world.append((entry) => {
    delete entry.data.sealed;
    entry.data.long = "";
    entry.data.long = "x".repeat(65536 - canonical(entry).length);
  });
  add("entry-65536-bytes", "json", { body: world.body(over, { openings: null }), open: true });
}

function manifestCases(world, sound, keys, add) {
  const { root, receiptKey, checkpointKey, instance } = world;
  const three = [root, receiptKey, checkpointKey];
  const reject = (name, manifest, options) => add(`manifest-${name}`, "manifest", { manifest, ...options });
  const accept = (name, manifest, options) => add(`manifest-${name}`, null, { manifest, ...options });
  /** A key like `key` with another row, under the same private key. */
  const like = (key, changes) => ({ ...key, row: { ...key.row, ...changes } });
  reject("empty", "");
  reject("null", "null");
  reject("duplicate-member", canonical(keys).replace('"v":1', '"v":1,"v":1'));
  reject("fraction", canonical(keys).replace('"v":1', '"v":1.0'));
  reject("over-1-mib", canonical(keys) + " ".repeat(1024 * 1024));
  for (const member of Object.keys(keys)) reject(`lacks-${member}`, without(keys, member));
  for (const [name, changes] of Object.entries({
    "version-2": { v: 2 }, "serial-0": { serial: 0 }, "extra": { extra: 1 }, "keys-object": { keys: {} }, "no-keys": { keys: [] },
    "expires-101-days": { expires: "2026-05-13T00:00:00.000000Z" }, "expires-100-days-and-a-bit": { expires: "2026-05-12T00:00:00.000001Z" },
    "expired-at-birth": { expires: "2026-01-31T23:59:59.999999Z" }, "bad-instance": { instance: "A" }, "bad-ledger": { ledger: "x" },
    "issued-before-its-signer": { issued_at: "2025-12-31T23:59:59.999999Z", expires: "2026-03-31T00:00:00.000000Z" },
  })) reject(name, world.manifest({ changes }));
  accept("expires-100-days", world.manifest({ changes: { expires: "2026-05-12T00:00:00.000000Z" } }));
  reject("signature-flipped", { ...keys, signature: flip(keys.signature) });
  reject("changed-after", { ...keys, serial: 4 });
  reject("signed-as-receipt", world.manifest({ kind: "receipt" }));
  reject("signed-by-receipt-key", world.manifest({ signer: receiptKey }));
  reject("key-twice", world.manifest({ keys: [...three, receiptKey] }));
  reject("pin-absent", keys, { pin: `${"0".repeat(64)}@${instance}` });
  reject("pin-is-a-receipt-key", keys, { pin: `${receiptKey.id}@${instance}` });
  for (const [name, changes] of Object.entries({
    "id-of-another": { key_id: makeKey("receipt").id }, "purpose-unknown": { purpose: "export" }, "short-key": { public_key: "AAAA" },
    "endorsed-receipt-key": { endorsed_by: root.id, endorsement: root.row.endorsement },
    "current-with-verify-until": { verify_until: "2026-09-01T00:00:00.000000Z" },
    "retired-without-verify-until": { not_after: "2026-03-01T00:00:00.000000Z" },
  })) reject(name, world.manifest({ keys: [root, like(receiptKey, changes), checkpointKey] }));
  accept("retired-with-verify-until", world.manifest({
    keys: [root, like(receiptKey, { not_after: "2026-03-01T00:00:00.000000Z", verify_until: "2026-05-30T00:00:00.000000Z" }), checkpointKey],
  }));
  const P = (1n << 255n) - 19n;
  const encode = (n) => Buffer.from(n.toString(16).padStart(64, "0"), "hex").reverse();
  for (const [name, raw] of Object.entries({
    "identity": encode(1n), "order-2": encode(P - 1n), "order-4": encode(0n), "non-canonical-y": encode(P + 1n),
    "non-canonical-sign": encode(1n | (1n << 255n)), "y-of-p-plus-3": encode(P + 3n), "no-point": encode(2n),
    "order-8": Buffer.from("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a", "hex"),
  })) {
    const weak = { row: { ...makeKey("receipt").row, public_key: raw.toString("base64"), key_id: sha256(raw).toString("hex") } };
    reject(`key-${name}`, world.manifest({ keys: [...three, weak] }));
  }
  rootCases({ world, keys, three, reject, accept, like });
  const many = Array.from({ length: 1021 }, () => makeKey("receipt"));
  accept("1024-keys", world.manifest({ keys: [...three, ...many] }));
  reject("1025-keys", world.manifest({ keys: [...three, ...many, makeKey("receipt")] }));
}

function rootCases({ world, three, reject, accept, like }) {
  const { root, receiptKey, checkpointKey, instance } = world;
  const second = endorse(instance, makeKey("root", { not_before: "2026-01-15T00:00:00.000000Z" }), root);
  const third = endorse(instance, makeKey("root", { not_before: "2026-01-20T00:00:00.000000Z" }), second);
  const chain = [root, second, third, receiptKey, checkpointKey];
  const pinOf = (key) => ({ pin: `${key.id}@${instance}` });
  accept("by-second-root", world.manifest({ keys: chain, signer: second }));
  accept("by-third-root", world.manifest({ keys: chain, signer: third }));
  accept("pin-second-by-third", world.manifest({ keys: chain, signer: third }), pinOf(second));
  reject("pin-second-by-first", world.manifest({ keys: chain, signer: root }), pinOf(second));
  reject("by-retired-root", world.manifest({ keys: [like(root, { not_after: "2026-02-01T00:00:00.000000Z" }), ...chain.slice(1)] }));
  reject("by-revoked-root", world.manifest({ keys: [like(root, { revoked_at: "2026-02-01T00:00:00.000000Z" }), receiptKey, checkpointKey] }));
  const revoked = like(root, { revoked_at: "2026-02-01T00:00:00.000000Z" });
  reject("endorsed-by-revoked", world.manifest({ keys: [revoked, ...chain.slice(1)], signer: second }));
  accept("pinned-though-endorsed-by-revoked", world.manifest({ keys: [revoked, ...chain.slice(1)], signer: second }), pinOf(second));
  reject("middle-revoked", world.manifest({
    keys: [root, like(second, { revoked_at: "2026-02-01T00:00:00.000000Z" }), third, receiptKey, checkpointKey], signer: third,
  }));
  const retired = like(root, { not_after: "2026-01-14T23:59:59.999999Z" });
  reject("endorsed-after-window", world.manifest({ keys: [retired, ...chain.slice(1)], signer: second }));
  accept("endorsed-at-end-of-window", world.manifest({
    keys: [like(root, { not_after: "2026-01-15T00:00:00.000000Z" }), ...chain.slice(1)], signer: second,
  }));
  reject("endorser-stands-after", world.manifest({ keys: [second, root, receiptKey, checkpointKey], signer: second }));
  reject("root-with-verify-until", world.manifest({
    keys: [like(root, { not_after: "2026-01-20T00:00:00.000000Z", verify_until: "2026-04-20T00:00:00.000000Z" }), ...chain.slice(1)], signer: third,
  }));
  const forged = like(second, { endorsement: flip(second.row.endorsement) });
  reject("endorsement-flipped", world.manifest({ keys: [root, forged, receiptKey, checkpointKey], signer: second }));
  const selfMade = endorse(instance, makeKey("root"), root);
  selfMade.row.endorsement = endorse(instance, makeKey("root"), selfMade).row.endorsement;
  reject("endorsement-by-another", world.manifest({ keys: [...three, selfMade], signer: selfMade }));
  const own = makeKey("root");
  endorse(instance, own, own);
  reject("second-endorses-itself", world.manifest({ keys: [...three, own], signer: own }));
  reject("second-endorses-itself-and-is-pinned", world.manifest({ keys: [...three, own], signer: own }), { ...pinOf(own), open: true });
  const [a, b] = [makeKey("root"), makeKey("root")];
  endorse(instance, a, b);
  endorse(instance, b, a);
  reject("endorsement-loop", world.manifest({ keys: [a, b, receiptKey, checkpointKey], signer: b }));
  const byReceipt = endorse(instance, makeKey("root"), receiptKey);
  reject("endorsed-by-receipt-key", world.manifest({ keys: [...three, byReceipt], signer: byReceipt }));
  const elsewhere = endorse("other.example.com", makeKey("root"), root);
  reject("endorsed-for-another-instance", world.manifest({ keys: [...three, elsewhere], signer: elsewhere }));
  const moved = like(second, { not_before: "2026-01-14T00:00:00.000000Z" });
  reject("endorsed-with-another-start", world.manifest({ keys: [root, moved, receiptKey, checkpointKey], signer: moved }));
  reject("endorsed-without-endorsement", world.manifest({ keys: [root, { ...second, row: without(second.row, "endorsement") }, receiptKey, checkpointKey] }));
}

function contextCases(world, sound, add) {
  const { root, receiptKey, checkpointKey, instance } = world;
  const keysWith = (changes) => world.manifest({ keys: [root, { ...receiptKey, row: { ...receiptKey.row, ...changes } }, checkpointKey] });
  const other = "other.example.com";
  add("pin-of-another-instance", "instance", { pin: `${root.id}@${other}` });
  add("receipt-of-another-instance", "instance", { body: world.body(3, { changes: { instance: other } }) });
  add("another-ledger-asked-for", "ledger", { ledger: world.own });
  add("another-destination-asked-for", "destination", { destination: world.own });
  add("ledger-before-destination", "ledger", { ledger: world.own, destination: world.own });
  add("key-not-in-manifest", "key_unknown", { body: world.body(3, { key: makeKey("receipt") }) });
  add("key-is-a-checkpoint-key", "key_unknown", { body: world.body(3, { key: checkpointKey }) });
  add("key-is-a-root", "key_unknown", { body: world.body(3, { key: root }) });
  const revoked = keysWith({ revoked_at: "2026-02-20T00:00:00.000000Z" });
  add("key-revoked", "key_revoked", { manifest: revoked });
  add("key-revoked-and-changed", "key_revoked", { manifest: revoked, body: { ...sound, seq: 4 } });
  add("key-revoked-as-evidence", "key_revoked", { manifest: revoked, as: "evidence" });
  const window = keysWith({ not_before: "2026-02-10T12:00:00.000000Z", not_after: "2026-02-10T12:00:00.000000Z", verify_until: "2026-05-11T12:00:00.000000Z" });
  add("key-window-of-one-moment", null, { manifest: window });
  add("key-window-before", "key_window", { manifest: window, body: world.body(3, { changes: { issued_at: "2026-02-10T11:59:59.999999Z" } }) });
  add("key-window-after", "key_window", { manifest: window, body: world.body(3, { changes: { issued_at: "2026-02-10T12:00:00.000001Z" } }) });
  const late = world.manifest({
    keys: [root, { ...receiptKey, row: { ...receiptKey.row, not_after: "2026-02-10T12:00:00.000000Z", verify_until: "2026-05-11T12:00:00.000000Z" } }, checkpointKey],
    changes: { issued_at: "2026-05-01T00:00:00.000000Z", expires: "2026-08-01T00:00:00.000000Z" },
  });
  add("verify-until-reached", null, { manifest: late, at: "2026-05-11T12:00:00.000000Z" });
  add("verify-until-past", "stale", { manifest: late, at: "2026-05-11T12:00:00.000001Z" });
  add("verify-until-past-as-evidence", null, { manifest: late, at: "2026-05-11T12:00:00.000001Z", as: "evidence" });
  add("manifest-expires-now", null, { at: "2026-05-01T00:00:00.000000Z" });
  add("manifest-expired", "stale", { at: "2026-05-01T00:00:00.000001Z" });
  add("manifest-expired-and-changed", "stale", { at: "2027-01-01T00:00:00.000000Z", body: { ...sound, type: "other" } });
  add("manifest-expired-as-evidence", null, { at: "2027-01-01T00:00:00.000000Z", as: "evidence" });
  add("no-pin", "unpinned", { pin: undefined });
  for (const [name, pin] of Object.entries({
    "no-instance": root.id, "empty-instance": `${root.id}@`, "uppercase": `${root.id.toUpperCase()}@${instance}`, "twice": `${root.id}@${instance}@x`,
  })) add(`pin-${name}`, "usage", { pin });
  add("at-without-fraction", "usage", { at: "2026-03-01T00:00:00Z" });
}

function signatureCases(world, sound, add, edited) {
  const swap = (bytes) => ({ ...sound, receipt: { ...sound.receipt, signature: bytes.toString("base64") } });
  const signature = Buffer.from(sound.receipt.signature, "base64");
  add("signature-flipped-r", "signature", { body: swap(Buffer.from(flip(sound.receipt.signature, 3), "base64")) });
  add("signature-flipped-s", "signature", { body: swap(Buffer.from(flip(sound.receipt.signature, 40), "base64")) });
  const L = 2n ** 252n + 27742317777372353535851937790883648493n;
  const s = BigInt(`0x${Buffer.from(signature.subarray(32)).reverse().toString("hex")}`) + L;
  const malleable = Buffer.from(s.toString(16).padStart(64, "0"), "hex").reverse();
  add("signature-s-plus-l", "signature", { body: swap(Buffer.concat([signature.subarray(0, 32), malleable])) });
  for (const [name, r] of Object.entries({
    "identity": `01${"00".repeat(31)}`, "order-2": `ec${"ff".repeat(30)}7f`, "non-canonical": `ee${"ff".repeat(30)}7f`, "zero": "00".repeat(32),
  })) add(`signature-r-${name}`, "signature", { body: swap(Buffer.concat([Buffer.from(r, "hex"), signature.subarray(32)])) });
  add("signature-of-kind-export", "signature", { body: world.body(3, { kind: "export" }) });
  add("signature-by-another-key", "signature", {
    body: { ...sound, receipt: { ...sound.receipt, signature: signJson(makeKey("receipt"), "receipt", without(sound, "openings")) } },
  });
  edited("entry-data-changed", "signature", "READY_FOR_DISTRIBUTION", "READY_FOR_DISTRIBUTIOM");
  edited("entry-seq-changed", "signature", '"seq":3', '"seq":4');
  edited("receipt-number-changed", "signature", '"number":4', '"number":5');
  edited("sealed-hash-changed", "signature", '"sealed":{"address":"', `"sealed":{"other":"${"0".repeat(64)}","address":"`);
}

function proofCases(world, sound, add) {
  const size = world.leaves.length;
  const checkpoint = world.checkpoint({ size });
  const withProof = (proof) => ({ body: { ...sound, receipt: { ...sound.receipt, proof } } });
  const proof = world.proof(3);
  const hashes = treeProof(3, world.leaves);
  const cosigned = noteLine("witness.example.net", makeKey("checkpoint"), "x");
  for (const [name, text] of Object.entries({
    "empty": "", "no-header": proof.slice(proof.indexOf("\n") + 1), "version-2": proof.replace("@v1", "@v2"),
    "extra-line": proof.replace("index", "extra AAAA\nindex"), "index-padded": proof.replace("index 3", "index 03"),
    "index-negative": proof.replace("index 3", "index -3"), "crlf": proof.replaceAll("\n", "\r\n"), "tab": proof.replace("index ", "index\t"),
    "hash-short": proof.replace("\n\n", "\nAAAA\n\n"), "hash-unpadded": proof.replace("=\n", "\n"), "64-hashes": world.proof(3, { hashes: Array(64).fill(hashes[0]) }),
    "no-checkpoint": proof.slice(0, proof.indexOf("\n\n") + 2), "extension-line": proof.replace("\n\n\u2014", "\nextension\n\n\u2014"),
    "size-padded": proof.replace(`\n${size}\n`, `\n0${size}\n`), "size-over-64-bits": proof.replace(`\n${size}\n`, "\n18446744073709551616\n"),
    "no-signature": proof.slice(0, proof.indexOf("\u2014")), "no-last-line-feed": proof.slice(0, -1), "more-line-feeds": `${proof}\n`,
    "hyphen-for-dash": proof.replace("\u2014", "-"), "two-spaces": proof.replace("\u2014 ", "\u2014  "), "signature-not-base64": `${proof}\u2014 x !!!!\n`,
    "name-with-plus": `${proof}${cosigned.replace("witness", "wit+ness")}`, "name-with-space": `${proof}${cosigned.replace("witness", "wit\u3000ness")}`,
    "name-with-control": `${proof}${cosigned.replace("witness", "wit\u0001ness")}`, "65-lines": proof + cosigned.repeat(64), "empty-signature": `${proof}\u2014 x AAAAAA==\n`, "many-line-feeds": proof + "\n".repeat(1000000),
  })) add(`proof-${name}`, "proof", withProof(text));
  add("proof-index-of-another", "proof", { ...withProof(world.proof(3, { index: 2 })), open: true });
  add("proof-64-lines", null, withProof(proof + cosigned.repeat(63)));
  add("proof-repeated-line", null, withProof(proof + proof.slice(proof.indexOf("\u2014"))));

  const other = new World(8);
  const origins = { "other-ledger": `${world.instance}/${other.ledger}`, "other-instance": `other.example.com/${world.ledger}`, "longer": `${world.instance}/${world.ledger}/` };
  for (const [name, origin] of Object.entries(origins)) {
    add(`origin-${name}`, "origin", withProof(world.proof(3, { checkpoint: world.checkpoint({ origin }) })));
  }
  const origin = `${world.instance}/${world.ledger}`;
  const text = checkpoint.slice(0, checkpoint.indexOf("\n\n") + 1);
  const signedBy = (...lines) => withProof(world.proof(3, { checkpoint: `${text}\n${lines.join("")}` }));
  const good = noteLine(origin, world.checkpointKey, text);
  const bad = noteLine(origin, world.checkpointKey, `${text}x`);
  const stranger = noteLine(origin, makeKey("checkpoint"), text);
  add("checkpoint-by-stranger", "checkpoint_signature", signedBy(stranger));
  add("checkpoint-by-stranger-too", null, signedBy(stranger, good));
  add("checkpoint-by-receipt-key", "checkpoint_signature", signedBy(noteLine(origin, world.receiptKey, text)));
  add("checkpoint-under-another-name", "checkpoint_signature", signedBy(noteLine("x", world.checkpointKey, text)));
  const renamed = (line) => line.replace(` ${origin} `, " x ");
  add("checkpoint-known-id-under-another-name", "checkpoint_signature", signedBy(renamed(good)));
  add("checkpoint-bad-known-id-under-another-name", null, signedBy(good, renamed(bad)));
  add("checkpoint-bad-line", "checkpoint_signature", signedBy(bad));
  add("checkpoint-good-and-bad-line", "checkpoint_signature", signedBy(good, bad));
  add("checkpoint-known-id-short", "checkpoint_signature", signedBy(good, `\u2014 ${origin} ${Buffer.from(good.split(" ")[2], "base64").subarray(0, 67).toString("base64")}\n`));
  add("checkpoint-root-changed", "checkpoint_signature", withProof(proof.replace(text, text.replace(`\n${size}\n`, `\n${size + 1}\n`))));
  const { root, receiptKey, checkpointKey } = world;
  const revoked = { ...checkpointKey, row: { ...checkpointKey.row, revoked_at: "2026-02-20T00:00:00.000000Z" } };
  add("checkpoint-key-revoked", "checkpoint_signature", { manifest: world.manifest({ keys: [root, receiptKey, revoked] }) });
  const old = { ...checkpointKey, row: { ...checkpointKey.row, not_after: "2026-01-02T00:00:00.000000Z", verify_until: "2026-04-02T00:00:00.000000Z" } };
  add("checkpoint-key-retired", null, { manifest: world.manifest({ keys: [root, receiptKey, old] }), at: "2026-04-20T00:00:00.000000Z" });

  const broken = {
    "missing-hash": hashes.slice(0, -1), "extra-hash": [...hashes, hashes[0]], "no-hash": [], "reordered": [hashes[1], hashes[0], ...hashes.slice(2)],
    "changed-hash": [sha256("x"), ...hashes.slice(1)], "63-hashes": Array(63).fill(hashes[0]),
  };
  for (const [name, list] of Object.entries(broken)) add(`inclusion-${name}`, "inclusion", withProof(world.proof(3, { hashes: list })));
  add("inclusion-size-not-reached", "inclusion", withProof(world.proof(3, { hashes: [], checkpoint: world.checkpoint({ size: 3 }) })));
  add("inclusion-empty-tree", "inclusion", withProof(world.proof(3, { hashes: [], checkpoint: world.checkpoint({ size: 0 }) })));
  add("inclusion-other-size", "inclusion", withProof(world.proof(3, { checkpoint: world.checkpoint({ size: size - 1 }) })));
  add("inclusion-size-beyond-2-53", "inclusion", withProof(world.proof(3, {
    checkpoint: (() => { const big = `${origin}\n9007199254740993\n${Buffer.alloc(32).toString("base64")}\n`; return `${big}\n${noteLine(origin, checkpointKey, big)}`; })(),
  })));
  const rewritten = new World(0);
  Object.assign(rewritten, { ledger: world.ledger, checkpointKey });
  for (const entry of world.entries) rewritten.append((copy) => Object.assign(copy, entry, { nonce: Buffer.alloc(16, 1).toString("base64") }));
  add("inclusion-in-a-rewritten-ledger", "inclusion", withProof(rewritten.proof(3)));
}

function openingCases(world, sound, add) {
  const opening = sound.openings.reviewer;
  const withOpenings = (openings, options) => ({ body: { ...sound, openings }, ...options });
  add("opening-value-changed", "openings", withOpenings({ reviewer: { ...opening, value: { ...opening.value, email: "x" } } }));
  add("opening-salt-changed", "openings", withOpenings({ reviewer: { ...opening, salt: flip(opening.salt) } }));
  add("opening-for-another-name", "openings", withOpenings({ address: opening }));
  add("opening-not-sealed", "openings", withOpenings({ nobody: opening }, { open: true }));
  add("openings-empty", "members", withOpenings({}));
  add("openings-null", "members", withOpenings(null));
  add("openings-array", "members", withOpenings([opening]));
  add("opening-extra-member", "members", withOpenings({ reviewer: { ...opening, extra: 1 } }));
  add("opening-without-salt", "members", withOpenings({ reviewer: without(opening, "salt") }));
  add("opening-without-value", "members", withOpenings({ reviewer: without(opening, "value") }));
  add("opening-short-salt", "members", withOpenings({ reviewer: { ...opening, salt: "AAAA" } }));
  for (const [depth, failed_check] of [[24, null], [25, "json"]]) {
    const salt = Buffer.alloc(32, depth);
    const value = JSON.parse(nested(depth));
    const seq = world.append((entry) => { entry.data.sealed = { deep: sha256(Buffer.of(2), salt, canonical(value)).toString("hex") }; });
    add(`opening-of-${depth}-levels`, failed_check, { body: world.body(seq, { openings: { deep: { salt: salt.toString("base64"), value } } }), open: failed_check !== null });
  }
}

/** Writes the corpus into a directory, in the shape of an index of command lines. */
export function writeCorpus(directory) {
  mkdirSync(directory, { recursive: true });
  const bytesOf = (document) => (Buffer.isBuffer(document) || typeof document === "string" ? document : canonical(document));
  const lines = cases().map(({ name, failed_check, body, manifest, options, open }) => {
    writeFileSync(join(directory, `${name}.body.json`), bytesOf(body));
    writeFileSync(join(directory, `${name}.keys.json`), bytesOf(manifest));
    const flags = Object.entries(options).filter(([, value]) => value !== undefined).flatMap(([flag, value]) => [`--${flag}`, value]);
    const usage = failed_check === "usage";
    return JSON.stringify({
      name, args: [`${name}.body.json`, "--keys", `${name}.keys.json`, ...flags], exit: usage ? 2 : failed_check === null ? 0 : 1,
      failed_check: usage ? null : failed_check, verdict: failed_check === null ? "included" : null, ...(open && { open }),
    });
  });
  writeFileSync(join(directory, "index.jsonl"), `${lines.join("\n")}\n`);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  if (process.argv.length !== 3) {
    process.stderr.write("usage: node corpus.mjs DIR\n");
    process.exit(2);
  }
  writeCorpus(process.argv[2]);
}
