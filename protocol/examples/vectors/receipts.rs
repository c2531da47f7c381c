//! `receipts.json`: the cases, and the valid ones.

use protocol::api::SamplingAsk;
use protocol::receipt::{Closing, Finish, OpenReceipt, Receipt, TYP};
use protocol::sampling::{Effective, Sampling, Seed, SeedBy};
use protocol::{Digest, UnixMs};
use serde_json::{Value, json};

use super::forge::{did, header, jws, jws_of_text, key, set, valid};
use super::honest::{self, BODY, CLIENT, GATEWAY, JOB};
use super::{receipt_claims, receipt_context, receipt_form};

const ABOUT: &str = "docs/spec/receipt.md. Read chain and receipt as section 9 says, trusting \
    `gateway`. If `request` isn't null, the reader is the one that sent `request` and `body` as \
    `client` (null: unsigned), and checks 9.4. If the receipt has a `sub`, check 9.6. `error` is \
    null, or the code that the first failing rule gives. Of valid cases, `prompt_tokens` and \
    `output` are what the hashes are over.";

pub fn file() -> String {
    let common = json!({
        "gateway": did(GATEWAY),
        "chain": honest::chain(),
        "client": did(CLIENT),
        "request": honest::client_line(),
        "body": BODY,
    });
    let cases = [
        valid_ones(),
        receipt_form::cases(),
        receipt_claims::cases(),
        receipt_context::cases(),
    ];
    super::file(ABOUT, common, cases.concat())
}

/// A receipt over a call.
fn calls(claims: &Value) -> Value {
    let text = protocol::calls::call_text("add", "{}");
    let mut claims = set(claims, "domain", Some(json!("text+calls/1")));
    for (path, value) in [
        ("sampling/grammar", json!("tools/llguidance-1.9")),
        ("sampling/grammar_sha256", json!("0".repeat(64))),
        ("output/0/text_sha256", json!(Digest::of(text.as_bytes()))),
    ] {
        claims = set(&claims, path, Some(value));
    }
    let header = json!({ "alg": "EdDSA", "typ": TYP, "kid": did(JOB) });
    json!({
        "receipt": jws(&header, &claims, JOB),
        "prompt_tokens": honest::PROMPT_TOKENS,
        "output": [{ "text": text, "tokens": honest::OUTPUT_TOKENS }],
    })
}

fn valid_ones() -> Vec<Value> {
    let whole = json!({
        "receipt": signed(honest::receipt()),
        "prompt_tokens": honest::PROMPT_TOKENS,
        "output": [{ "text": honest::OUTPUT_TEXT, "tokens": honest::OUTPUT_TOKENS }],
    });
    let claims = honest::claims();
    let alg = json!({ "alg": "Ed25519", "typ": TYP, "kid": did(JOB) });
    let order = json!({ "kid": did(JOB), "typ": TYP, "alg": "EdDSA" });
    let mut reversed: Vec<_> = claims.as_object().into_iter().flatten().collect();
    reversed.reverse();
    let reversed: serde_json::Map<_, _> = reversed
        .into_iter()
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    let spaced = serde_json::to_string_pretty(&reversed).expect("claims are plain data");
    vec![
        valid("a whole answer", whole),
        valid("an answer that may call", calls(&claims)),
        valid("alg Ed25519", json!({ "receipt": jws(&alg, &claims, JOB) })),
        valid(
            "header in another order",
            json!({ "receipt": jws(&order, &claims, JOB) }),
        ),
        valid(
            "claims in another order, with white space",
            json!({ "receipt": jws_of_text(&header(TYP, JOB).to_string(), spaced.as_bytes(), JOB) }),
        ),
        valid(
            "an unsigned request",
            json!({
                "receipt": signed(honest::receipt_for(None, honest::unsigned_line())),
                "client": null,
                "request": honest::unsigned_line(),
            }),
        ),
        valid(
            "read by someone else",
            json!({ "receipt": signed(honest::receipt()), "request": null }),
        ),
        valid(
            "a job's first receipt",
            json!({ "receipt": signed(first()) }),
        ),
        valid("two choices", two_choices()),
        valid("refused before it was understood", refused()),
        valid("cancelled after two tokens", cancelled()),
        valid("a checkpoint", checkpoint()),
        valid(
            "an exact profile's trace",
            json!({ "receipt": signed(traced()) }),
        ),
        valid(
            "every sampling parameter",
            json!({ "receipt": signed(all_parameters()) }),
        ),
        valid(
            "the last millisecond of its credential",
            json!({ "receipt": signed(Receipt {
                to_ms: UnixMs(honest::credential().exp_ms.0 - 1),
                ..honest::receipt()
            }) }),
        ),
    ]
}

pub fn signed(receipt: Receipt) -> String {
    receipt.sign(&key(JOB)).compact().to_owned()
}

fn begun() -> OpenReceipt {
    OpenReceipt::begin(honest::opening(Some(did(CLIENT)), honest::client_line()))
}

fn first() -> Receipt {
    Receipt {
        seq: 0,
        prev: None,
        ..honest::receipt()
    }
}

fn two_choices() -> Value {
    let mut open = begun();
    open.prompt(&honest::PROMPT_TOKENS);
    open.sampling(honest::sampling(2));
    open.absorb(0, 10, "a");
    open.absorb(1, 20, "");
    open.absorb(1, 21, "bc");
    open.finish(1, Finish::Length);
    json!({
        "receipt": signed(open.close(honest::closing())),
        "prompt_tokens": honest::PROMPT_TOKENS,
        "output": [{ "text": "a", "tokens": [10] }, { "text": "bc", "tokens": [20, 21] }],
    })
}

fn refused() -> Value {
    let closing = Closing {
        unfinished: Finish::Refused,
        ..honest::closing()
    };
    json!({
        "receipt": signed(begun().close(closing)),
        "prompt_tokens": [],
        "output": [{ "text": "", "tokens": [] }],
    })
}

fn cancelled() -> Value {
    let mut open = begun();
    open.prompt(&honest::PROMPT_TOKENS);
    open.sampling(honest::sampling(1));
    // The second token's text is half a character, which nobody was sent.
    open.absorb(0, 10, "a");
    open.absorb(0, 130, "");
    let closing = Closing {
        unfinished: Finish::Cancelled,
        ..honest::closing()
    };
    json!({
        "receipt": signed(open.close(closing)),
        "prompt_tokens": honest::PROMPT_TOKENS,
        "output": [{ "text": "a", "tokens": [10, 130] }],
    })
}

fn checkpoint() -> Value {
    let mut receipt = honest::receipt();
    receipt.part = 1;
    receipt.output[0].finish = Finish::Open;
    json!({ "receipt": signed(receipt) })
}

fn traced() -> Receipt {
    Receipt {
        trace: Some(Digest::of(b"a chain of hidden states")),
        ..honest::receipt()
    }
}

fn all_parameters() -> Receipt {
    let ask = SamplingAsk {
        temperature: Some(0.7),
        top_p: Some(0.9),
        top_k: Some(40),
        min_p: Some(0.05),
        seed: Some(u64::MAX),
        stop: vec!["\n\n".to_owned(), "é".to_owned()],
        stop_token_ids: vec![0, 49151],
        min_tokens: Some(1),
        ignore_eos: true,
        repetition_penalty: Some(1.1),
        presence_penalty: Some(0.5),
        frequency_penalty: Some(-0.5),
        logit_bias: [(5, -100.0), (49151, 1.5)].into(),
    };
    let effective = Effective {
        max_tokens: 16,
        seed: Seed(u64::MAX),
        seed_by: SeedBy::Client,
        template_date: Some("2026-01-01".to_owned()),
    };
    Receipt {
        sampling: Some(Sampling::in_force(&ask, 1, effective)),
        ..honest::receipt()
    }
}
