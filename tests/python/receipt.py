"""Checks receipts and credentials with ordinary JOSE libraries, and nothing of ours.

Every signature is verified twice, by joserfc and by PyJWT. Start at `verified`.
"""

import base64
import hashlib
import json

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from joserfc import jws
from joserfc.jwk import OKPKey

BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


def public_bytes(did: str) -> bytes:
    """The Ed25519 key that a did:key names."""
    prefix = "did:key:z"
    assert did.startswith(prefix), did
    number = 0
    for character in did[len(prefix) :]:
        number = number * 58 + BASE58.index(character)
    key = number.to_bytes(34, "big")
    assert key[:2] == b"\xed\x01", "not an Ed25519 key"
    return key[2:]


def did_of(key: bytes) -> str:
    """The did:key of an Ed25519 key."""
    number = int.from_bytes(b"\xed\x01" + key, "big")
    text = ""
    while number:
        number, digit = divmod(number, 58)
        text = BASE58[digit] + text
    return "did:key:z" + text


def claims_of(compact: str, did: str, typ: str) -> dict:
    """The claims, if `did` signed them as a statement of this type."""
    public = public_bytes(did)
    x = base64.urlsafe_b64encode(public).rstrip(b"=").decode()
    key = OKPKey.import_key({"kty": "OKP", "crv": "Ed25519", "x": x})
    read = jws.deserialize_compact(compact, key, algorithms=["EdDSA", "Ed25519"])
    assert read.headers() == {"alg": read.headers()["alg"], "typ": typ, "kid": did}, read.headers()
    claims = json.loads(read.payload)
    # PyJWT doesn't know the newer name.
    if read.headers()["alg"] == "EdDSA":
        again = jwt.decode(compact, Ed25519PublicKey.from_public_bytes(public), algorithms=["EdDSA"])
        assert claims == again, "two libraries read two statements"
    return claims


def verified(compact: str, chain: list[str], gateway: str) -> dict:
    """The receipt's claims, if the chain ties its key to the gateway's."""
    (credential,) = chain
    vouched = claims_of(credential, gateway, "countersign-credential+jwt")
    claims = claims_of(compact, vouched["sub"], "countersign-receipt+jwt")
    assert claims["iss"] == vouched["sub"]
    assert claims["job"] == vouched["job"]
    assert claims["model"] == vouched["model"]
    assert claims["numerics"]["profile"] == vouched["numerics"]
    assert claims["cred"] == digest(credential.encode())
    assert vouched["nbf_ms"] <= claims["from_ms"] <= claims["to_ms"] < vouched["exp_ms"]
    assert claims["input"]["request"]["authority"] in vouched["authorities"]
    return claims


def covers(claims: dict, texts: list[str], finishes: list[str]) -> None:
    """The receipt is over exactly these answers."""
    assert [output["text_sha256"] for output in claims["output"]] == [digest(text.encode()) for text in texts]
    assert [output["finish"] for output in claims["output"]] == finishes


def digest(data: bytes) -> str:
    """Lower-case hexadecimal SHA-256."""
    return hashlib.sha256(data).hexdigest()
