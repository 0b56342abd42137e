// Reads docs/verify.html as the tests need it: its blocks, its content
// security policy, and its verification core as functions.
//
//   node page.mjs --write docs/verify.html    renews the hashes in the policy
import { createHash } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const POLICY = /(<meta http-equiv="Content-Security-Policy" content=")([^"]*)(">)/;
const NAMES = [
  "verifyReceipt", "parseJson", "canonical", "canonicalText", "ed25519Problem", "decodePoint", "addPoints", "combine",
  "BASE_POINT", "L", "P", "powP", "rootFromProof", "fromBase64", "microseconds", "platformVerify", "Rejected", "UsageError", "LIMITS", "RECEIPT_CHECKS",
];

/** The texts of all blocks of an element, as a browser hashes them. */
function blocks(html, tag) {
  return Array.from(html.matchAll(new RegExp(`<${tag}(?: id="[a-z]+")?>([\\s\\S]*?)</${tag}>`, "g")), ([, text]) => text);
}

function hashes(texts) {
  return texts.map((text) => `'sha256-${createHash("sha256").update(text).digest("base64")}'`).join(" ");
}

/** The policy that the page has to carry: its own blocks by hash, and nothing else. */
export function policyFor(html) {
  return [
    "default-src 'none'",
    `script-src ${hashes(blocks(html, "script"))}`,
    `style-src ${hashes(blocks(html, "style"))}`,
    "base-uri 'none'",
    "form-action 'none'",
    "require-trusted-types-for 'script'",
    "trusted-types 'none'",
  ].join("; ");
}

/** The policy that the page carries. */
export function policyOf(html) {
  return POLICY.exec(html)?.[2] ?? null;
}

/** The functions of the page's `<script id="verifier">`, run as they stand. */
export function verifierOf(html) {
  const script = /<script id="verifier">([\s\S]*?)<\/script>/.exec(html);
  if (script === null) throw new Error("the page has no <script id=\"verifier\">");
  return new Function(`${script[1]}\nreturn { ${NAMES.join(", ")} };`)();
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [flag, path] = process.argv.slice(2);
  if (flag !== "--write" || path === undefined) {
    process.stderr.write("usage: node page.mjs --write PAGE\n");
    process.exit(2);
  }
  const html = readFileSync(path, "utf8");
  writeFileSync(path, html.replace(POLICY, (_, before, __, after) => before + policyFor(html) + after));
}
