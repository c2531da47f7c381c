//! A true answer, broken in one place at a time.

use protocol::credential::Credential;
use protocol::receipt::{self, Input, ModelRef, Numerics, Output, RequestLine, Salt};
use protocol::request_signature::{Policy, RequestHead, SignatureHeaders};
use protocol::sampling::{Effective, Sampling, Seed, SeedBy, seed_from_nonce};
use protocol::{JobId, RequestId, SigningKey, jws};

use super::*;
use crate::answer::{Checkpoint, Choice, Progress, ServerError, Usage};
use crate::known::{FirstUse, KnownGateways};
use crate::reply::Fault;
use crate::trust::{Accepted, Trust};

mod honest;

use honest::*;

/// Breaks an honest answer, and expects this check to fail and to say this.
#[track_caller]
fn check(break_it: impl FnOnce(&mut Parts), expected: Check, says: &str) {
    let mut parts = honest();
    break_it(&mut parts);
    match parts.judge() {
        Ok(_) => panic!("accepted, though {expected} should fail"),
        Err(rejection) => {
            assert_eq!(rejection.check, expected, "{rejection}");
            assert!(rejection.sentence.contains(says), "{rejection}");
        }
    }
}

fn sampling(parts: &mut Parts) -> &mut Sampling {
    parts.claims.sampling.as_mut().unwrap()
}

#[test]
fn an_honest_answer_is_accepted() {
    let accepted = honest().judge().unwrap();
    assert_eq!(accepted.gateway, key(GATEWAY).did());
    assert_eq!(accepted.first_uses, []);
    assert_eq!(accepted.receipt.claims().seq, 0);
}

#[test]
fn a_refusal_says_what_the_server_said() {
    let refuse = |p: &mut Parts| {
        p.answer.error = Some(ServerError {
            status: 401,
            message: "expired 240 s before the server's time".into(),
            code: Some("signature_clock".into()),
            param: None,
        });
        p.answer.done = false;
    };
    check(
        refuse,
        Check::Refused,
        "expired 240 s before the server's time (signature_clock)",
    );
}

#[test]
fn a_response_must_come_to_its_end() {
    check(|p| p.answer.done = false, Check::Truncated, "[DONE]");
    check(
        |p| p.answer.choices[0].finish = None,
        Check::Truncated,
        "finish_reason",
    );
    check(|p| p.answer.usage = None, Check::Truncated, "token counts");
    check(
        |p| p.fault = Some(Fault::Broken("reset".into())),
        Check::Truncated,
        "reset",
    );
    check(
        |p| p.fault = Some(Fault::Stalled(std::time::Duration::from_secs(9))),
        Check::Truncated,
        "9 s",
    );
    check(
        |p| p.fault = Some(Fault::Malformed("duplicate key".into())),
        Check::Response,
        "duplicate key",
    );
    check(
        |p| p.fault = Some(Fault::TooLarge(5)),
        Check::Response,
        "5 bytes",
    );
}

#[test]
fn usage_may_be_absent_where_it_was_not_asked_for() {
    let mut parts = honest();
    parts.sent.ask.include_usage = false;
    parts.answer.usage = None;
    parts.judge().unwrap();
}

#[test]
fn there_must_be_a_receipt_and_a_chain() {
    let parts = honest();
    let mut received = Received {
        status: 200,
        content_type: None,
        body: vec![],
        answer: parts.answer,
        fault: None,
        at: UnixMs(parts.received_ms),
    };
    let judged = |received: &Received| {
        parts
            .trust
            .judge(&parts.sent, received, Err("it answered 404"))
    };
    assert_eq!(judged(&received).unwrap_err().check, Check::NoReceipt);
    received.answer.receipt = Some("a.b.c".into());
    let rejection = judged(&received).unwrap_err();
    assert_eq!(
        (rejection.check, rejection.sentence.as_str()),
        (Check::NoChain, "it answered 404")
    );
}

#[test]
fn a_receipt_must_be_readable() {
    check(
        |p| p.receipt = Some("not a receipt".into()),
        Check::Receipt,
        "",
    );
    check(
        |p| p.typ = "countersign-credential+jwt",
        Check::Receipt,
        "type",
    );
    check(
        |p| p.claims.domain = "text/2".into(),
        Check::Receipt,
        "text/2",
    );
    check(
        |p| {
            p.claims.part = 1;
            p.claims.output[0].finish = Finish::Open;
        },
        Check::Receipt,
        "checkpoint",
    );
}

#[test]
fn the_chain_must_hold() {
    check(|p| p.chain = Some(Chain(vec![])), Check::Chain, "");
    check(
        |p| p.chain = Some(Chain(vec!["a.b.c".into()])),
        Check::Chain,
        "",
    );
    check(|p| p.credential_key = STRANGER, Check::Chain, "");
}

#[test]
fn another_gateway_key_is_named() {
    let other = |p: &mut Parts| {
        p.credential.iss = key(STRANGER).did();
        p.credential_key = STRANGER;
    };
    check(other, Check::GatewayKey, &key(STRANGER).did().to_string());
}

#[test]
fn the_job_must_have_signed() {
    check(|p| p.receipt_key = STRANGER, Check::Signature, "");
    check(
        |p| {
            p.receipt_key = STRANGER;
            p.claims.iss = key(STRANGER).did();
        },
        Check::Signature,
        "",
    );
    let flip = |p: &mut Parts| {
        let (receipt, chain) = p.seal();
        // The signature's last character has unused bits: flip one before it.
        let at = receipt.len() - 5;
        let other = if &receipt[at..=at] == "A" { "B" } else { "A" };
        p.receipt = Some(format!("{}{other}{}", &receipt[..at], &receipt[at + 1..]));
        p.chain = Some(chain);
    };
    check(flip, Check::Signature, "");
}

#[test]
fn a_job_stays_within_its_credential() {
    check(
        |p| p.claims.cred = digest(5),
        Check::Credential,
        "credential",
    );
    check(
        |p| p.claims.job = JobId::new([1; 16]),
        Check::Credential,
        "job",
    );
    check(
        |p| p.credential.exp_ms = p.claims.to_ms,
        Check::Credential,
        "valid",
    );
    check(
        |p| p.credential.authorities = vec!["other:1".into()],
        Check::Credential,
        "authority",
    );
    check(|p| p.claims.model = model(2), Check::Model, "");
    check(
        |p| p.claims.numerics.profile = "other/1".into(),
        Check::Numerics,
        "",
    );
}

#[test]
fn one_request_has_one_receipt() {
    check(|p| p.answer.receipts_differ = true, Check::Stored, "two");
    check(
        |p| p.stored = Some("a.b.c".into()),
        Check::Stored,
        "gateway keeps",
    );
}

#[test]
fn anothers_receipt_for_the_same_body_is_noticed() {
    let swap = |p: &mut Parts| {
        let (_, line, nonce) = sign(STRANGER, PATH, BODY, 7);
        p.claims.sub = Some(key(STRANGER).did());
        sampling(p).seed = seed_from_nonce(&nonce, &Digest::of(BODY.as_bytes()));
        p.claims.input.request = line;
    };
    check(swap, Check::Subject, &key(STRANGER).did().to_string());
    let unsigned = |p: &mut Parts| {
        p.claims.sub = None;
        let line = &mut p.claims.input.request;
        (line.signature, line.signature_input) = (None, None);
        line.headers.clear();
    };
    check(unsigned, Check::Subject, "nobody");
}

#[test]
fn ones_own_receipt_for_another_request_is_noticed() {
    let earlier = |p: &mut Parts| p.claims.input.request = sign(CLIENT, PATH, BODY, 8).1;
    check(earlier, Check::Request, "signature_input");
    check(
        |p| p.claims.input.request.method = "PUT".into(),
        Check::Request,
        "method",
    );
    check(
        |p| p.claims.input.request.path = "/v1/completions".into(),
        Check::Request,
        "path",
    );
    check(
        |p| p.claims.input.request.query = Some("a=1".into()),
        Check::Request,
        "query",
    );
    let authority = |p: &mut Parts| {
        p.credential.authorities.push("localhost:8080".into());
        p.claims.input.request.authority = "localhost:8080".into();
    };
    check(authority, Check::Request, "authority");
    let signature = |p: &mut Parts| {
        p.claims.input.request.signature = sign(CLIENT, PATH, BODY, 8).1.signature;
    };
    check(signature, Check::Request, "signature");
    let header = |p: &mut Parts| {
        p.claims
            .input
            .request
            .headers
            .insert("content-type".into(), "text/plain".into());
    };
    check(header, Check::Request, "signature");
}

#[test]
fn another_body_is_noticed() {
    check(
        |p| p.claims.input.body_sha256 = digest(1),
        Check::Body,
        "body",
    );
}

#[test]
fn another_id_is_noticed() {
    check(
        |p| p.answer.id = Some("chatcmpl-1".into()),
        Check::Id,
        "chatcmpl-1",
    );
}

#[test]
fn one_changed_character_is_noticed() {
    check(
        |p| p.answer.choices[0].text = "Hallo".into(),
        Check::Text,
        "choice 0",
    );
    check(
        |p| p.answer.choices[0].text.push(' '),
        Check::Text,
        "choice 0",
    );
    check(
        |p| p.answer.choices.push(p.answer.choices[0].clone()),
        Check::Text,
        "2 texts",
    );
}

#[test]
fn other_tokens_are_noticed() {
    check(
        |p| p.answer.choices[0].token_ids = Some(vec![5, 7, 2]),
        Check::Tokens,
        "choice 0",
    );
    check(
        |p| p.answer.prompt_token_ids = Some(vec![1]),
        Check::Tokens,
        "prompt",
    );
    check(
        |p| p.sent.ask.prompt = Prompt::Tokens(vec![4, 3, 2, 1]),
        Check::Tokens,
        "prompt",
    );
    check(
        |p| {
            p.sent.ask.return_token_ids = true;
            p.answer.choices[0].token_ids = None;
        },
        Check::Tokens,
        "without",
    );
}

#[test]
fn another_end_is_noticed() {
    check(
        |p| p.answer.choices[0].finish = Some("length".into()),
        Check::Finish,
        "length",
    );
    check(
        |p| p.claims.output[0].finish = Finish::Length,
        Check::Finish,
        "length",
    );
    let cancelled = |p: &mut Parts| {
        p.claims.output[0].finish = Finish::Cancelled;
        p.answer.choices[0].finish = Some("cancelled".into());
    };
    check(cancelled, Check::Finish, "cancelled");
}

#[test]
fn other_counts_are_noticed() {
    let usage = |p: &mut Parts| p.answer.usage.as_mut().unwrap().completion_tokens = 2;
    check(usage, Check::Usage, "4 and 2");
    let usage = |p: &mut Parts| p.answer.usage.as_mut().unwrap().prompt_tokens = 400;
    check(usage, Check::Usage, "400");
}

#[test]
fn another_model_is_noticed_even_under_the_same_name() {
    let honest_about_it = |p: &mut Parts| {
        p.claims.model = model(2);
        p.credential.model = model(2);
    };
    check(honest_about_it, Check::Model, &digest(2).to_string());
    let renamed = |p: &mut Parts| {
        p.claims.model.id = "large".into();
        p.credential.model.id = "large".into();
    };
    check(renamed, Check::Model, "large");
    let other_numerics = |p: &mut Parts| {
        p.claims.numerics.profile = "fast/1".into();
        p.credential.numerics = "fast/1".into();
    };
    check(other_numerics, Check::Numerics, "fast/1");
}

#[test]
fn other_sampling_is_noticed() {
    check(|p| p.claims.sampling = None, Check::Sampling, "");
    check(
        |p| sampling(p).temperature = 0.0,
        Check::Sampling,
        "temperature",
    );
    check(|p| sampling(p).top_p = 0.9, Check::Sampling, "top_p");
    check(
        |p| sampling(p).max_tokens = 8,
        Check::Sampling,
        "max_tokens",
    );
    check(
        |p| sampling(p).stop = vec!["x".into()],
        Check::Sampling,
        "stop",
    );
    check(|p| sampling(p).seed = Seed(1), Check::Sampling, "seed");
    check(
        |p| sampling(p).seed_by = SeedBy::Server,
        Check::Sampling,
        "seed",
    );
    check(
        |p| sampling(p).version = "other/1".into(),
        Check::Sampling,
        "version",
    );
}

#[test]
fn checkpoints_are_about_what_had_come() {
    let with = |change: &dyn Fn(&mut Receipt)| {
        let mut parts = honest();
        let mut claims = parts.checkpoint();
        change(&mut claims);
        parts.checkpoints = vec![claims];
        parts
    };
    with(&|_| ()).judge().unwrap();
    let proven = with(&|_| ()).proven().unwrap().unwrap();
    assert_eq!(proven.texts, ["Hel"]);
    assert_eq!(proven.receipt.claims().output[0].tokens, 1);
    assert!(honest().proven().is_none());

    let fails = |change: &dyn Fn(&mut Receipt), says: &str| {
        let rejection = with(change).judge().unwrap_err();
        assert_eq!(rejection.check, Check::Checkpoint);
        assert!(rejection.sentence.contains(says), "{rejection}");
        with(change).proven().unwrap().unwrap_err();
    };
    fails(&|c| c.output[0].text_sha256 = digest(1), "text");
    fails(&|c| c.output[0].tokens_sha256 = digest(1), "tokens");
    fails(&|c| c.sub = Some(key(STRANGER).did()), "subject");
    fails(&|c| c.input.body_sha256 = digest(1), "body");
    fails(
        &|c| c.jti = RequestId::new(protocol::Kind::Chat, [1; 16]),
        "id",
    );
    fails(&|c| c.model = model(2), "model");
    fails(
        &|c| c.sampling.as_mut().unwrap().top_p = 0.5,
        "another request",
    );
    let mut forged = with(&|_| ());
    forged.kept = false;
    let rejection = forged.judge().unwrap_err();
    assert!(
        rejection.sentence.contains("doesn't keep it"),
        "{rejection}"
    );
    let rejection = with(&|c| c.part = 2).judge().unwrap_err();
    assert!(
        rejection.sentence.contains("its number is 2"),
        "{rejection}"
    );
    let mut parts = with(&|_| ());
    parts.receipt_key = STRANGER;
    parts.proven().unwrap().unwrap_err();
}

#[test]
fn exact_tokens_are_bound_to_their_hidden_states() {
    check(|p| p.claims.trace = None, Check::Trace, "no trace");
    let mut parts = honest();
    parts.claims.trace = None;
    parts.claims.numerics.profile = "other/1".into();
    parts.credential.numerics = "other/1".into();
    let known = parts.trust.whitelist.get_mut("small").unwrap();
    known.numerics = vec!["other/1".into()];
    parts.judge().unwrap();
}

#[test]
fn a_shifted_clock_is_noticed() {
    let shift = |by: i64| {
        move |p: &mut Parts| {
            let at = |ms: UnixMs| UnixMs(ms.0.saturating_add_signed(by * 1000));
            p.claims.from_ms = at(p.claims.from_ms);
            p.claims.to_ms = at(p.claims.to_ms);
        }
    };
    check(shift(-300), Check::Clock, "299 s before");
    check(shift(300), Check::Clock, "299 s after");
    for fine in [-29, 29] {
        let mut parts = honest();
        shift(fine)(&mut parts);
        parts.judge().unwrap();
    }
}

#[test]
fn a_first_use_is_told_and_a_change_after_it_fails() {
    let mut first = honest();
    first.trust = Trust::default();
    let uses = first.judge().unwrap().first_uses;
    assert!(matches!(&uses[0], FirstUse::Gateway { authority, gateway }
        if authority == AUTHORITY && *gateway == key(GATEWAY).did()));
    assert!(
        matches!(&uses[1], FirstUse::Model { model: name, known, .. }
        if name == "small" && known.digest == model(1).digest)
    );

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("known-gateways.toml");
    KnownGateways::remember(&path, &uses).unwrap();
    let known = KnownGateways::load(&path).unwrap();
    let remembering = move |p: &mut Parts| {
        p.trust = Trust {
            known: known.clone(),
            ..Trust::default()
        }
    };

    let mut again = honest();
    remembering(&mut again);
    assert_eq!(again.judge().unwrap().first_uses, []);
    check(
        |p| {
            remembering(p);
            p.credential.iss = key(STRANGER).did();
            p.credential_key = STRANGER;
        },
        Check::GatewayKey,
        "trusted",
    );
    check(
        |p| {
            remembering(p);
            p.claims.model = model(2);
            p.credential.model = model(2);
        },
        Check::Model,
        "small",
    );
    check(
        |p| {
            remembering(p);
            p.claims.numerics.profile = "fast/1".into();
            p.credential.numerics = "fast/1".into();
        },
        Check::Numerics,
        "fast/1",
    );
}

#[test]
fn an_unsigned_answer_can_be_accepted_too() {
    let mut parts = honest();
    (parts.sent.client, parts.sent.signature) = (None, None);
    parts.claims.sub = None;
    let line = &mut parts.claims.input.request;
    (line.signature, line.signature_input) = (None, None);
    line.headers.clear();
    sampling(&mut parts).seed_by = SeedBy::Server;
    parts.judge().unwrap();
}

/// The same, for a receipt that lies in a file.
#[track_caller]
fn check_files(break_it: impl FnOnce(&mut Parts), body: &str, text: &str, expected: Option<Check>) {
    let mut parts = honest();
    break_it(&mut parts);
    let (receipt, chain) = parts.seal();
    let gateway = key(GATEWAY).did();
    let verified = verify(
        &receipt,
        &chain,
        &gateway,
        body.as_bytes(),
        &[text.to_owned()],
    );
    assert_eq!(verified.err().map(|rejection| rejection.check), expected);
}

#[test]
fn files_verify_without_the_client() {
    check_files(|_| {}, BODY, "Hello", None);
    check_files(|_| {}, BODY, "Hello\n", Some(Check::Text));
    check_files(
        |_| {},
        &BODY.replace("hi", "ho"),
        "Hello",
        Some(Check::Body),
    );
    check_files(
        |p| p.receipt_key = STRANGER,
        BODY,
        "Hello",
        Some(Check::Signature),
    );
    check_files(
        |p| sampling(p).top_k = 1,
        BODY,
        "Hello",
        Some(Check::Sampling),
    );
    let stolen = |p: &mut Parts| p.claims.sub = Some(key(STRANGER).did());
    check_files(stolen, BODY, "Hello", Some(Check::Request));
    let stranger = |p: &mut Parts| {
        p.credential.iss = key(STRANGER).did();
        p.credential_key = STRANGER;
    };
    check_files(stranger, BODY, "Hello", Some(Check::GatewayKey));
    let cut = |p: &mut Parts| {
        p.claims.output[0].finish = Finish::Cancelled;
        p.claims.output[0].text_sha256 = Digest::of(b"Hel");
    };
    check_files(cut, BODY, "Hel", Some(Check::Finish));
    let other = |p: &mut Parts| {
        p.claims.model.id = "other".into();
        p.credential.model.id = "other".into();
    };
    check_files(other, BODY, "Hello", Some(Check::Model));
}

#[test]
fn an_answer_is_as_long_as_its_ending_says() {
    let short = |p: &mut Parts| {
        p.claims.output[0].finish = Finish::Length;
        p.claims.output[0].tokens = sampling(p).max_tokens - 1;
    };
    check_files(short, BODY, "Hello", Some(Check::Finish));
    let long = |p: &mut Parts| p.claims.output[0].tokens = sampling(p).max_tokens + 1;
    check_files(long, BODY, "Hello", Some(Check::Finish));
    let full = |p: &mut Parts| {
        p.claims.output[0].finish = Finish::Length;
        p.claims.output[0].tokens = sampling(p).max_tokens;
    };
    check_files(full, BODY, "Hello", None);
}

#[test]
fn check_names_are_stable() {
    let names: Vec<&str> = Check::ALL.iter().map(|check| check.name()).collect();
    assert_eq!(
        names.join(" "),
        "refused response truncated no_receipt receipt no_chain chain gateway_key signature credential \
         stored subject request body id text tokens finish usage model numerics sampling trace checkpoint clock"
    );
}
