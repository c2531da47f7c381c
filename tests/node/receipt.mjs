// Checks receipts and credentials with jose, and nothing of ours. Start at `verified`.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { compactVerify, importJWK } from "jose";

const BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";

/** The Ed25519 key that a did:key names. */
export function publicBytes(did) {
  assert.ok(did.startsWith("did:key:z"), did);
  let number = 0n;
  for (const character of did.slice(9)) {
    const digit = BASE58.indexOf(character);
    assert.notEqual(digit, -1, "not base58");
    number = number * 58n + BigInt(digit);
  }
  const bytes = Buffer.from(number.toString(16).padStart(68, "0"), "hex");
  assert.equal(bytes.length, 34, "not an Ed25519 key");
  assert.equal(bytes.readUInt16BE(0), 0xed01, "not an Ed25519 key");
  return bytes.subarray(2);
}

/** The did:key of an Ed25519 key. */
export function didOf(key) {
  let number = BigInt(`0xed01${Buffer.from(key).toString("hex")}`);
  let text = "";
  for (; number > 0n; number /= 58n) text = BASE58[Number(number % 58n)] + text;
  return `did:key:z${text}`;
}

/** The claims, if `did` signed them as a statement of this type. */
export async function claimsOf(compact, did, typ) {
  const x = publicBytes(did).toString("base64url");
  const key = await importJWK({ kty: "OKP", crv: "Ed25519", x }, "EdDSA");
  const { payload, protectedHeader } = await compactVerify(compact, key, { algorithms: ["EdDSA", "Ed25519"] });
  assert.deepEqual(protectedHeader, { alg: protectedHeader.alg, typ, kid: did });
  return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(payload));
}

/** The receipt's claims, if the chain ties its key to the gateway's. */
export async function verified(compact, chain, gateway) {
  assert.equal(chain.length, 1);
  const vouched = await claimsOf(chain[0], gateway, "countersign-credential+jwt");
  const claims = await claimsOf(compact, vouched.sub, "countersign-receipt+jwt");
  assert.equal(claims.iss, vouched.sub);
  assert.equal(claims.job, vouched.job);
  assert.deepEqual(claims.model, vouched.model);
  assert.equal(claims.numerics.profile, vouched.numerics);
  assert.equal(claims.cred, digest(chain[0]));
  assert.ok(vouched.nbf_ms <= claims.from_ms && claims.from_ms <= claims.to_ms && claims.to_ms < vouched.exp_ms);
  assert.ok(vouched.authorities.includes(claims.input.request.authority));
  return claims;
}

/** The receipt is over exactly these answers. */
export function covers(claims, texts, finishes) {
  assert.deepEqual(claims.output.map((output) => output.text_sha256), texts.map(digest));
  assert.deepEqual(claims.output.map((output) => output.finish), finishes);
}

/** Lower-case hexadecimal SHA-256. */
export function digest(data) {
  return createHash("sha256").update(data).digest("hex");
}
