// Signs the OpenAI SDK's requests with http-message-signatures: node foreign_signer.mjs URL GATEWAY_DID KEY_FILE.
//
// The library makes the signature; a few lines here choose what it covers and add nonce and expiry, which
// the server insists on. The gateway must require signatures, and let that key ask.

import assert from "node:assert/strict";
import { createHash, createPrivateKey, createPublicKey, randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { createSigner, httpbis } from "http-message-signatures";
import OpenAI from "openai";

import { covers, didOf, verified } from "./receipt.mjs";

const [url, gateway, keyFile] = process.argv.slice(2);
const privateKey = createPrivateKey(readFileSync(keyFile));
const did = didOf(Buffer.from(createPublicKey(privateKey).export({ format: "jwk" }).x, "base64url"));
const key = createSigner(privateKey, "ed25519", did);
const WHEN_PRESENT = ["content-type", "content-encoding", "idempotency-key", "countersign-grant", "countersign-job"];

/** Signs a request as the specification asks, but for the changes. */
async function signed(target, init = {}, changes = {}) {
  const headers = Object.fromEntries(new Headers(init.headers));
  const body = init.body ?? "";
  headers["content-digest"] = `sha-256=:${createHash("sha256").update(body).digest("base64")}:`;
  const fields = ["@method", "@authority", "@path", "content-digest"];
  if (new URL(target).search) fields.push("@query");
  fields.push(...WHEN_PRESENT.filter((name) => name in headers));
  const message = await httpbis.signMessage(
    {
      key,
      fields,
      params: ["created", "expires", "keyid", "nonce", "tag"],
      paramValues: {
        expires: new Date(Date.now() + 60_000),
        nonce: randomBytes(24).toString("base64url"),
        tag: "countersign",
      },
      ...changes,
    },
    { method: init.method ?? "GET", url: String(target), headers },
  );
  return { ...init, headers: message.headers };
}

const client = new OpenAI({
  baseURL: `${url}/v1`,
  apiKey: "unused",
  maxRetries: 0,
  fetch: async (target, init) => fetch(target, await signed(target, init)),
});
const model = (await client.models.list()).data[0].id;
const ask = { model, messages: [{ role: "user", content: "Say hello." }], max_tokens: 8 };

async function signedRequestEarnsAReceiptOfItsOwn() {
  let id, receipt, finish;
  let text = "";
  for await (const chunk of await client.chat.completions.create({ ...ask, stream: true })) {
    id = chunk.id;
    text += chunk.choices[0].delta.content ?? "";
    finish = chunk.choices[0].finish_reason;
    receipt = chunk.receipt;
  }
  const where = `${url}/v1/receipts/${id}`;
  const kept = await (await fetch(where, await signed(where))).json();
  assert.equal(kept.receipt, receipt);
  const claims = await verified(receipt, kept.chain, gateway);
  covers(claims, [text], [finish]);
  assert.equal(claims.sub, did);
}

async function aNonceCountsOnce() {
  const target = `${url}/v1/chat/completions`;
  const once = await signed(target, {
    method: "POST",
    body: JSON.stringify(ask),
    headers: { "content-type": "application/json" },
  });
  assert.equal((await fetch(target, once)).status, 200);
  const again = await fetch(target, once);
  assert.equal(again.status, 401);
  assert.equal((await again.json()).error.code, "nonce_reused");
}

async function aChangedBodyIsRefused() {
  const target = `${url}/v1/chat/completions`;
  const init = await signed(target, {
    method: "POST",
    body: JSON.stringify(ask),
    headers: { "content-type": "application/json" },
  });
  const reply = await fetch(target, { ...init, body: JSON.stringify({ ...ask, max_tokens: 9 }) });
  assert.equal(reply.status, 401);
  assert.equal((await reply.json()).error.code, "content_digest_mismatch");
}

for (const check of [signedRequestEarnsAReceiptOfItsOwn, aNonceCountsOnce, aChangedBodyIsRefused]) {
  await check();
  console.log("ok", check.name);
}
