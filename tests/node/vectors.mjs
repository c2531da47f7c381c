// The vectors in protocol/vectors, read by libraries that aren't ours.
//
// An ordinary library knows signatures, not our rules; so of the invalid cases only those count here whose
// signature is wrong or missing.

import assert from "node:assert/strict";
import { createPublicKey } from "node:crypto";
import { readFileSync } from "node:fs";
import { createVerifier, httpbis } from "http-message-signatures";
import { decodeJwt } from "jose";

import { claimsOf, didOf, digest, publicBytes, verified } from "./receipt.mjs";

// Wrong for any library, whatever it makes of the claims.
const UNSIGNED = ["jws_form", "jws_alg", "jws_signature", "jws_signature_length"];
// OpenSSL's Ed25519 accepts this; protocol/vectors/README.md says who can make one.
const LENIENT = "R of small order";

/** The cases of a file, each with the members that all of them share. */
function cases(name) {
  const file = JSON.parse(readFileSync(new URL(`../../protocol/vectors/${name}.json`, import.meta.url), "utf8"));
  return file.cases.map((each) => ({ ...file.common, ...each }));
}

async function keys() {
  for (const each of cases("dids").filter(({ error }) => error === null)) {
    assert.equal(publicBytes(each.did).toString("hex"), each.key, each.name);
    assert.equal(didOf(Buffer.from(each.key, "hex")), each.did, each.name);
  }
}

async function receipts() {
  const counted = { valid: 0, invalid: 0 };
  for (const each of cases("receipts")) {
    if (each.error === null) {
      const claims = await verified(each.receipt, each.chain, each.gateway);
      each.output?.forEach(({ text, tokens }, choice) => {
        assert.equal(claims.output[choice].text_sha256, digest(text), each.name);
        assert.equal(claims.output[choice].tokens_sha256, tokensHash(tokens), each.name);
      });
      counted.valid += 1;
    } else if ((UNSIGNED.includes(each.error) || each.name.includes("changed after signing")) && each.name !== LENIENT) {
      const job = decodeJwt(each.chain[0]).sub;
      await assert.rejects(claimsOf(each.receipt, job, "countersign-receipt+jwt"), undefined, each.name);
      counted.invalid += 1;
    }
  }
  assert.ok(counted.valid >= 10 && counted.invalid >= 60, JSON.stringify(counted));
}

async function credentials() {
  for (const each of cases("credentials")) {
    const read = () => claimsOf(each.chain[0], each.gateway, "countersign-credential+jwt");
    if (each.error === null) await read();
    if (each.error === "jws_signature") await assert.rejects(read, undefined, each.name);
  }
}

async function requestSignatures() {
  const counted = { valid: 0, invalid: 0 };
  for (const each of cases("request-signatures")) {
    if (each.error === null && each.signed) {
      assert.equal(await holds(each), true, each.name);
      counted.valid += 1;
    } else if (each.error === "signature_invalid" && each.name !== LENIENT) {
      assert.notEqual(await holds(each).catch(() => false), true, each.name);
      counted.invalid += 1;
    }
  }
  assert.ok(counted.valid >= 20 && counted.invalid >= 10, JSON.stringify(counted));
}

/** Whether the library takes the request's signature for good. */
async function holds({ method, authority, path, query, headers }) {
  const lines = {};
  for (const [name, value] of headers) lines[name] = [...(lines[name] ?? []), value];
  return httpbis.verifyMessage(
    {
      // The vectors' clock stands still.
      tolerance: Number.MAX_SAFE_INTEGER / 2,
      keyLookup: async ({ keyid, tag }) => {
        if (tag !== "countersign") return null;
        const x = publicBytes(keyid).toString("base64url");
        const key = createPublicKey({ format: "jwk", key: { kty: "OKP", crv: "Ed25519", x } });
        return { id: keyid, algs: ["ed25519"], verify: createVerifier(key, "ed25519") };
      },
    },
    { method, url: `http://${authority}${path}${query === null ? "" : `?${query}`}`, headers: lines },
  );
}

function tokensHash(tokens) {
  const bytes = Buffer.alloc(tokens.length * 4);
  tokens.forEach((token, at) => bytes.writeUInt32LE(token, at * 4));
  return digest(bytes);
}

for (const check of [keys, receipts, credentials, requestSignatures]) {
  await check();
  console.log("ok", check.name);
}
