// Makes keys, ledgers, key manifests and receipts after the formats, with
// node:crypto and without any code of the page.
import { createHash, generateKeyPairSync, randomBytes, randomUUID, sign } from "node:crypto";

export const sha256 = (...parts) => {
  const hash = createHash("sha256");
  for (const part of parts) hash.update(part);
  return hash.digest();
};

/** RFC 8785 of plain JavaScript values with integers only. */
export function canonical(value) {
  if (Array.isArray(value)) return `[${value.map(canonical).join(",")}]`;
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  return `{${Object.keys(value).sort().map((name) => `${JSON.stringify(name)}:${canonical(value[name])}`).join(",")}}`;
}

export const signJson = (key, kind, value) =>
  sign(null, Buffer.from(`statusledger/v1/${kind}\n${canonical(value)}`), key.private).toString("base64");

/** A copy of an object without some members. */
export const without = (object, ...names) =>
  Object.fromEntries(Object.entries(object).filter(([name]) => !names.includes(name)));

/** A key pair with its row in a key manifest; `changes` go into the row. */
export function makeKey(purpose, changes = {}) {
  const pair = generateKeyPairSync("ed25519");
  const raw = Buffer.from(pair.publicKey.export({ format: "jwk" }).x, "base64url");
  const row = {
    key_id: sha256(raw).toString("hex"), public_key: raw.toString("base64"), purpose,
    not_before: "2026-01-01T00:00:00.000000Z", not_after: null, verify_until: null, revoked_at: null, ...changes,
  };
  return { private: pair.privateKey, raw, row, id: row.key_id };
}

/** Writes into a root's row that `endorser` introduced it. */
export function endorse(instance, root, endorser) {
  const { key_id, not_before, public_key, purpose } = root.row;
  root.row.endorsed_by = endorser.id;
  root.row.endorsement = signJson(endorser, "endorsement", { instance, key_id, not_before, public_key, purpose });
  return root;
}

const node = (left, right) => sha256(Buffer.of(1), left, right);

/** The largest power of two below n. */
const split = (n) => 2 ** Math.floor(Math.log2(n - 1));

/** The RFC 6962 root of some leaf hashes. */
export function treeRoot(leaves) {
  if (leaves.length === 0) return sha256(Buffer.alloc(0));
  if (leaves.length === 1) return leaves[0];
  const k = split(leaves.length);
  return node(treeRoot(leaves.slice(0, k)), treeRoot(leaves.slice(k)));
}

/** The RFC 6962 inclusion proof of a leaf, from its sibling up. */
export function treeProof(index, leaves) {
  if (leaves.length === 1) return [];
  const k = split(leaves.length);
  return index < k
    ? [...treeProof(index, leaves.slice(0, k)), treeRoot(leaves.slice(k))]
    : [...treeProof(index - k, leaves.slice(k)), treeRoot(leaves.slice(0, k))];
}

/** A signature line of a signed note by a log key. */
export function noteLine(name, key, text, signer = key) {
  const id = sha256(Buffer.from(`${name}\n`), Buffer.of(1), key.raw).subarray(0, 4);
  return `\u2014 ${name} ${Buffer.concat([id, sign(null, Buffer.from(text), signer.private)]).toString("base64")}\n`;
}

/** One instance with a root, a receipt key, a checkpoint key and a ledger of some entries. */
export class World {
  constructor(count = 7, instance = "status.example.com") {
    this.instance = instance;
    this.ledger = randomUUID();
    this.own = randomUUID();
    this.destination = randomUUID();
    const root = makeKey("root");
    this.root = endorse(instance, root, root);
    this.receiptKey = makeKey("receipt");
    this.checkpointKey = makeKey("checkpoint");
    this.entries = [];
    this.leaves = [];
    this.openings = [];
    for (let seq = 0; seq < count; seq += 1) this.append();
  }

  get pin() {
    return `${this.root.id}@${this.instance}`;
  }

  /** Appends an entry; `change` may edit it before it is hashed. */
  append(change = () => {}) {
    const seq = this.entries.length;
    const person = { email: `person${seq}@example.com`, name: "Zoë \ud83d\ude80 <b>bold</b> \u202egnp.exe" };
    const salt = randomBytes(32);
    const entry = {
      v: 1, ledger: this.ledger, seq, prev: seq === 0 ? "0".repeat(64) : this.leaves[seq - 1].toString("hex"),
      timestamp: `2026-02-0${1 + (seq % 9)}T10:00:00.00000${seq % 10}Z`, nonce: randomBytes(16).toString("base64"),
      type: "store.version.transitioned",
      data: {
        app: "Example", from: "IN_REVIEW", to: "READY_FOR_DISTRIBUTION", version: `1.${seq}.0`,
        sealed: {
          reviewer: sha256(Buffer.of(2), salt, canonical(person)).toString("hex"),
          address: sha256(Buffer.of(2), randomBytes(32), canonical("192.0.2.7")).toString("hex"),
        },
      },
    };
    change(entry);
    this.entries.push(entry);
    this.leaves.push(sha256(Buffer.of(0), canonical(entry)));
    this.openings.push({ reviewer: { salt: salt.toString("base64"), value: person } });
    return seq;
  }

  /** The text and signature lines of a checkpoint. */
  checkpoint({ size = this.leaves.length, origin = `${this.instance}/${this.ledger}`, root, key = this.checkpointKey } = {}) {
    const hash = root ?? treeRoot(this.leaves.slice(0, size));
    const text = `${origin}\n${size}\n${hash.toString("base64")}\n`;
    return `${text}\n${noteLine(origin, key, text)}`;
  }

  /** A proof of inclusion with its checkpoint. */
  proof(seq, { size = this.leaves.length, index = seq, hashes, checkpoint } = {}) {
    const lines = (hashes ?? treeProof(seq, this.leaves.slice(0, size))).map((hash) => `${hash.toString("base64")}\n`);
    return `c2sp.org/tlog-proof@v1\nindex ${index}\n${lines.join("")}\n${checkpoint ?? this.checkpoint({ size })}`;
  }

  /** A receipt body; `changes` go into the receipt before it is signed. */
  body(seq, { changes = {}, key = this.receiptKey, openings = this.openings[seq], proof = this.proof(seq), kind = "receipt" } = {}) {
    const body = {
      ...this.entries[seq],
      receipt: {
        v: 1, instance: this.instance, id: `rcpt_${randomUUID()}`, destination: this.destination, number: seq + 1,
        issued_at: "2026-02-10T12:00:00.000000Z", key_id: key.id, ...changes,
      },
    };
    body.receipt.signature = signJson(key, kind, body);
    body.receipt.proof = proof;
    if (openings) body.openings = openings;
    return body;
  }

  /** The key manifest; `changes` go into it before `signer` signs it. */
  manifest({ keys = [this.root, this.receiptKey, this.checkpointKey], changes = {}, signer = this.root, kind = "manifest" } = {}) {
    const manifest = {
      v: 1, instance: this.instance, ledger: this.own, serial: 3, issued_at: "2026-02-01T00:00:00.000000Z",
      expires: "2026-05-01T00:00:00.000000Z", keys: keys.map((key) => key.row), key_id: signer.id, ...changes,
    };
    return { ...manifest, signature: signJson(signer, kind, manifest) };
  }
}
