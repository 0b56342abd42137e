// An OpenID provider for the tests: npm's oidc-provider, certified by the OpenID Foundation, with one client.
//
//   node provider.mjs
//
// Prints its issuer, then reads one line: the address that people are sent back to. Whoever signs in is the person whose
// name they type; `ana` has a verified address, `eve` one that is not.
import { createServer } from "node:http";
import { createInterface } from "node:readline";
import Provider from "oidc-provider";

let handle = (_, response) => response.writeHead(503).end();
const server = createServer((request, response) => handle(request, response));
await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
const issuer = `http://127.0.0.1:${server.address().port}`;
process.stdout.write(`${issuer}\n`);

const lines = createInterface({ input: process.stdin });
const [redirect] = await new Promise((read) => lines.once("line", (line) => read([line])));
const provider = new Provider(issuer, {
  clients: [{ client_id: "statusledger", client_secret: "the-client-s-secret", redirect_uris: [redirect] }],
  claims: { openid: ["sub"], email: ["email", "email_verified"], profile: ["name"] },
  pkce: { required: () => true },
  findAccount: (_, id) => ({
    accountId: id,
    claims: () => ({ sub: id, name: `${id} at the provider`, email: `${id}@example.com`, email_verified: id === "ana" }),
  }),
});
handle = provider.callback();
process.stdout.write("ready\n");
// Ends with whoever started it.
lines.once("close", () => process.exit(0));
