"""Signs the OpenAI SDK's requests with http-message-signatures: python foreign_signer.py URL GATEWAY_DID KEY_FILE.

The library makes the signature; a few lines here choose what it covers and add nonce and expiry, which
the server insists on. The gateway must require signatures, and let that key ask.
"""

import datetime
import json
import pathlib
import secrets
import sys

import httpx2
import openai
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from http_message_signatures import HTTPMessageSigner, MappingKeyResolver, algorithms
from http_message_signatures.httpx2 import adapt_message

from receipt import covers, did_of, verified

URL, GATEWAY, KEY_FILE = sys.argv[1:]
KEY = load_pem_private_key(pathlib.Path(KEY_FILE).read_bytes(), password=None)
DID = did_of(KEY.public_key().public_bytes_raw())
SIGNER = HTTPMessageSigner(
    signature_algorithm=algorithms.ED25519, key_resolver=MappingKeyResolver(public_keys={}, private_keys={DID: KEY})
)
WHEN_PRESENT = ("content-type", "content-encoding", "idempotency-key", "countersign-grant", "countersign-job")


def sign(request: httpx2.Request, **changes) -> None:
    """Signs a request as the specification asks, but for the changes."""
    now = datetime.datetime.now(datetime.timezone.utc)
    covered = ["@method", "@authority", "@path"]
    covered += ["@query"] if request.url.query else []
    covered += [name for name in WHEN_PRESENT if name in request.headers]
    options = {
        "key_id": DID,
        "created": now,
        "expires": now + datetime.timedelta(seconds=60),
        "nonce": secrets.token_urlsafe(24),
        "tag": "countersign",
        "covered_component_ids": covered,
        "body": request.read(),
    }
    SIGNER.sign(adapt_message(request), **options | changes)


http = httpx2.Client(event_hooks={"request": [sign]})
client = openai.OpenAI(base_url=f"{URL}/v1", api_key="unused", max_retries=0, http_client=http)
MODEL = httpx2.get(f"{URL}/v1/models").json()["data"][0]["id"]
ASK = {"model": MODEL, "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 8}


def signed_request_earns_a_receipt_of_its_own():
    chunks = list(client.chat.completions.create(**ASK, stream=True))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    kept = http.get(f"{URL}/v1/receipts/{chunks[0].id}").raise_for_status().json()
    assert kept["receipt"] == chunks[-1].receipt
    claims = verified(kept["receipt"], kept["chain"], GATEWAY)
    covers(claims, [text], [chunks[-1].choices[0].finish_reason])
    assert claims["sub"] == DID
    assert claims["sampling"]["seed_by"] == "nonce"


def receipts_are_their_owners():
    answer = client.chat.completions.create(**ASK)
    unsigned = httpx2.get(f"{URL}/v1/receipts/{answer.id}")
    assert unsigned.status_code in (401, 404), unsigned.status_code


def each_omission_is_refused_by_name():
    body = json.dumps(ASK).encode()
    now = datetime.datetime.now(datetime.timezone.utc)
    hour = datetime.timedelta(hours=1)
    all_but_path = ["@method", "@authority", "content-type"]
    cases = {
        "signature_parameter_missing": {"nonce": None},
        "signature_nonce": {"nonce": "short"},
        "signature_uncovered": {"covered_component_ids": all_but_path},
        "signature_lifetime": {"expires": now + hour},
        "signature_clock": {"created": now - hour, "expires": now - hour + datetime.timedelta(seconds=60)},
    }
    for code, change in cases.items():
        request = httpx2.Request(
            "POST", f"{URL}/v1/chat/completions", content=body, headers={"content-type": "application/json"}
        )
        sign(request, **change)
        refused(request, code)
    # Without our tag it counts as unsigned.
    for tag in (None, "another"):
        request = httpx2.Request(
            "POST", f"{URL}/v1/chat/completions", content=body, headers={"content-type": "application/json"}
        )
        sign(request, tag=tag)
        refused(request, None)


def a_nonce_counts_once():
    request = httpx2.Request(
        "POST",
        f"{URL}/v1/chat/completions",
        content=json.dumps(ASK).encode(),
        headers={"content-type": "application/json"},
    )
    sign(request)
    with httpx2.Client() as plain:
        assert plain.send(request).status_code == 200
        refused(request, "nonce_reused")


def refused(request: httpx2.Request, code: str | None) -> None:
    """The gateway answers 401, and says why."""
    with httpx2.Client() as plain:
        reply = plain.send(request)
    error = reply.json()["error"]
    assert reply.status_code == 401, (code, reply.status_code, error)
    assert code is None or error["code"] == code, (code, error)


for check in (
    signed_request_earns_a_receipt_of_its_own,
    receipts_are_their_owners,
    each_omission_is_refused_by_name,
    a_nonce_counts_once,
):
    check()
    print("ok", check.__name__, flush=True)
