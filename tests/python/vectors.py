"""The vectors in protocol/vectors, read by libraries that aren't ours.

An ordinary library knows signatures, not our rules; so of the invalid cases only those count here whose
signature is wrong or missing. Where it is right, hashes and seeds are computed again from the specification.
"""

import hashlib
import json
import pathlib
import struct
import warnings

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from http_message_signatures import HTTPMessageVerifier, HTTPSignatureKeyResolver, InvalidSignature, algorithms
from joserfc.errors import JoseError

from receipt import claims_of, did_of, digest, public_bytes, verified

warnings.simplefilter("ignore")  # joserfc calls `EdDSA` old-fashioned
FOLDER = pathlib.Path(__file__).parents[2] / "protocol/vectors"
# Wrong for any library, whatever it makes of the claims.
UNSIGNED = {"jws_form", "jws_alg", "jws_signature", "jws_signature_length"}
# OpenSSL's Ed25519 accepts this; protocol/vectors/README.md says who can make one.
LENIENT = "R of small order"


def cases(name: str) -> list[dict]:
    """The cases of a file, each with the members that all of them share."""
    file = json.loads((FOLDER / f"{name}.json").read_text())
    return [file["common"] | case for case in file["cases"]]


def keys():
    for key in json.loads((FOLDER / "keys.json").read_text())["keys"]:
        secret = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(key["seed"]))
        assert did_of(secret.public_key().public_bytes_raw()) == key["did"], key["name"]
    for case in cases("dids"):
        if case["error"] is None:
            assert public_bytes(case["did"]).hex() == case["key"], case["name"]
            assert did_of(bytes.fromhex(case["key"])) == case["did"], case["name"]


def receipts():
    counted = {"valid": 0, "invalid": 0}
    for case in cases("receipts"):
        if case["error"] is None:
            claims = verified(case["receipt"], case["chain"], case["gateway"])
            if "output" in case:
                assert claims["input"]["prompt_tokens_sha256"] == tokens_hash(case["prompt_tokens"])
                told = [(o["text_sha256"], o["tokens_sha256"], o["tokens"]) for o in claims["output"]]
                ours = [(digest(o["text"].encode()), tokens_hash(o["tokens"]), len(o["tokens"])) for o in case["output"]]
                assert told == ours, case["name"]
            counted["valid"] += 1
        elif (case["error"] in UNSIGNED or "changed after signing" in case["name"]) and case["name"] != LENIENT:
            refused(case["receipt"], case["chain"][0], case["name"])
            counted["invalid"] += 1
    assert counted["valid"] >= 10 and counted["invalid"] >= 60, counted


def credentials():
    for case in cases("credentials"):
        if case["error"] is None:
            claims_of(case["chain"][0], case["gateway"], "countersign-credential+jwt")
        elif case["error"] == "jws_signature":
            try:
                claims_of(case["chain"][0], case["gateway"], "countersign-credential+jwt")
            except JoseError:
                continue
            raise AssertionError(f"accepted: {case['name']}")


def seeds():
    for case in cases("seeds"):
        body = hashlib.sha256(case["body"].encode()).digest()
        hashed = hashlib.sha256(b"countersign/seed/1\n" + case["nonce"].encode() + body).digest()
        assert str(struct.unpack("<Q", hashed[:8])[0]) == case["seed"], case["name"]


def request_signatures():
    counted = {"valid": 0, "invalid": 0}
    for case in cases("request-signatures"):
        message = Message(case)
        if case["error"] is None and case["signed"]:
            # Without the body: the library refuses a digest that it doesn't know, beside the one that it does.
            (result,) = VERIFIER.verify(message, expect_tag="countersign")
            assert result.parameters["keyid"] == case["did"]
            if "base" in case:
                lines = [f"{name}: {value}" for name, value in result.covered_components.items()]
                assert "\n".join(lines) == case["base"], case["name"]
            counted["valid"] += 1
        elif case["error"] in ("signature_invalid", "content_digest_mismatch") and case["name"] != LENIENT:
            try:
                VERIFIER.verify(message, expect_tag="countersign", body=case["body"].encode())
            except InvalidSignature:
                counted["invalid"] += 1
                continue
            raise AssertionError(f"accepted: {case['name']}")
    assert counted["valid"] >= 20 and counted["invalid"] >= 15, counted


class Message:
    """A request as the library wants it."""

    def __init__(self, case: dict):
        query = "" if case["query"] is None else f"?{case['query']}"
        self.method = case["method"]
        self.url = f"http://{case['authority']}{case['path']}{query}"
        self.headers = Lines(case["headers"])


class Lines(list):
    """Header lines, in order."""

    def items(self):
        return [(name, value) for name, value in self]


class Dids(HTTPSignatureKeyResolver):
    """The key is in its name."""

    def resolve_public_key(self, key_id: str):
        return Ed25519PublicKey.from_public_bytes(public_bytes(key_id))


class Timeless(HTTPMessageVerifier):
    """The vectors' clock stands still."""

    def validate_created_and_expires(self, sig_input, max_age=None):
        pass


VERIFIER = Timeless(signature_algorithm=algorithms.ED25519, key_resolver=Dids())


def tokens_hash(tokens: list[int]) -> str:
    return digest(b"".join(struct.pack("<I", token) for token in tokens))


def refused(compact: str, credential: str, name: str) -> None:
    """Neither library takes it for the job's statement."""
    job = jwt.decode(credential, options={"verify_signature": False})["sub"]
    key = Ed25519PublicKey.from_public_bytes(public_bytes(job))
    attempts = [
        (lambda: claims_of(compact, job, "countersign-receipt+jwt"), (JoseError, ValueError)),
        (lambda: jwt.decode(compact, key, algorithms=["EdDSA"]), jwt.InvalidTokenError),
    ]
    for attempt, error in attempts:
        try:
            attempt()
        except error:
            continue
        raise AssertionError(f"accepted: {name}")


for check in (keys, receipts, credentials, seeds, request_signatures):
    check()
    print("ok", check.__name__)
