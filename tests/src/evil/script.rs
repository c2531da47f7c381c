//! The answer that an [`EvilGateway`](super::EvilGateway) gives, and what each
//! trick changes about it: in the request that the job reads, in the receipt
//! that it signs, or in the stream that the client gets.

use protocol::api::{self, Ask};
use protocol::receipt::{Closing, Finish, Numerics, OpenReceipt, Opening, Output, Receipt, Salt};
use protocol::request_signature::{LIFETIME_S_MAX, VerifiedSignature, sign};
use protocol::sampling::{Effective, Sampling, Seed, SeedBy, seed_from_nonce};
use protocol::{Digest, Kind, RequestId, SigningKey};
use serde_json::{Value, json};

use super::{PROFILE, Received, State, Trick, new_key};
use crate::ask::random;

/// What the job writes, token by token.
const SCRIPT: &[(u32, &str)] = &[
    (12, "The"),
    (34, " sky"),
    (56, " is"),
    (78, " blue"),
    (90, "."),
];
const PROMPT: &[u32] = &[1, 2, 3];
const END: u32 = 2;

/// The whole response to a signed request.
pub(super) fn answer(state: &mut State, request: &Received, own: &VerifiedSignature) -> Vec<u8> {
    let ask = match api::parse_chat(&request.body, &api::Limits::default()) {
        Ok(ask) => ask,
        Err(error) => return super::refusal(400, error.code(), &error.to_string()),
    };
    // Another client may have sent the same body in the same second.
    let others =
        (state.trick == Trick::OthersReceipt).then(|| signed_by(&new_key(), request, own, state));
    let signature = others.as_ref().unwrap_or(own);
    let receipt = receipt(state, &ask, signature);
    let id = receipt.jti.to_string();
    let key = match state.trick {
        Trick::UnknownJobKey => &new_key(),
        _ => &state.job_key,
    };
    let receipt = with_key(receipt, key);
    let signed = receipt.sign(key);
    let fresh = match state.trick {
        Trick::AlgNone => unsigned(signed.compact()),
        _ => signed.compact().to_owned(),
    };
    let sent = match (&state.last, state.trick) {
        (Some((old, _)), Trick::OldReceipt) => old.clone(),
        _ => fresh,
    };
    match (&state.last, state.trick) {
        (_, Trick::NoChain) => {}
        (Some((old, _)), Trick::OtherStored) => drop(state.kept.insert(id.clone(), old.clone())),
        _ => drop(state.kept.insert(id.clone(), sent.clone())),
    }
    state.seq += 1;
    state.last = Some((sent.clone(), signed.digest()));
    let checkpoint = checkpoint(state.trick, signed.unverified().clone()).sign(key);
    stream(state.trick, &ask, &id, [&sent, checkpoint.compact()])
}

/// What the job signs when half of the text is out.
fn checkpoint(trick: Trick, mut receipt: Receipt) -> Receipt {
    let (tokens, texts): (Vec<u32>, Vec<&str>) = SCRIPT[..SCRIPT.len() / 2].iter().copied().unzip();
    let text = match trick {
        Trick::OtherCheckpoint => "A sky".to_owned(),
        _ => texts.concat(),
    };
    receipt.part = 1;
    receipt.output[0] = Output {
        text_sha256: Digest::of(text.as_bytes()),
        tokens_sha256: Digest::of_tokens(&tokens),
        tokens: tokens.len() as u32,
        finish: Finish::Open,
    };
    receipt
}

/// The job's receipt, with what the trick changes about its claims.
fn receipt(state: &State, ask: &Ask, signature: &VerifiedSignature) -> Receipt {
    let shift = match state.trick {
        Trick::JobClock(shift) => shift,
        _ => 0,
    };
    let credential = state.credential();
    let mut open = OpenReceipt::begin(Opening {
        jti: RequestId::new(Kind::Chat, random()),
        job: state.job.clone(),
        iss: state.job_key.did(),
        sub: Some(signature.did),
        salt: Salt(random()),
        from_ms: state.now(shift),
        request: signature.line.clone(),
        body_sha256: signature.body_sha256,
        model: state.model.clone(),
        numerics: Numerics {
            profile: PROFILE.to_owned(),
            device: "cpu".to_owned(),
            detail: Default::default(),
        },
        cred: Digest::of(credential.as_bytes()),
    });
    open.prompt(PROMPT);
    open.sampling(sampling(state.trick, ask, signature));
    for &(token, text) in SCRIPT {
        open.absorb(0, token, text);
    }
    open.absorb(0, END, "");
    open.finish(0, Finish::Stop);
    let mut receipt = open.close(Closing {
        to_ms: state.now(shift),
        unfinished: Finish::Error,
        seq: state.seq,
        prev: state.last.as_ref().map(|(_, digest)| *digest),
        trace: (state.trick != Trick::NoTrace).then(|| Digest::of(b"hidden states")),
    });
    match state.trick {
        Trick::OtherNumerics => receipt.numerics.profile = "guesswork/1".to_owned(),
        Trick::OtherFinish => receipt.output[0].finish = Finish::Length,
        Trick::OtherBody => receipt.input.body_sha256 = Digest::of(b"another prompt"),
        _ => {}
    }
    receipt
}

fn sampling(trick: Trick, ask: &Ask, signature: &VerifiedSignature) -> Sampling {
    let (seed, seed_by) = match ask.sampling.seed {
        Some(seed) => (Seed(seed), SeedBy::Client),
        None => (
            seed_from_nonce(signature.nonce.as_bytes(), &signature.body_sha256),
            SeedBy::Nonce,
        ),
    };
    let effective = Effective {
        max_tokens: ask.max_tokens.unwrap_or(100),
        seed,
        seed_by,
        template_date: None,
    };
    let mut sampling = Sampling::in_force(&ask.sampling, ask.n, effective);
    match trick {
        Trick::OtherTemperature => sampling.temperature += 0.5,
        Trick::ChosenSeed => sampling.seed = Seed(sampling.seed.0 ^ 1),
        _ => {}
    }
    sampling
}

/// The event stream, with what the trick changes about it.
fn stream(trick: Trick, ask: &Ask, id: &str, [receipt, checkpoint]: [&str; 2]) -> Vec<u8> {
    let chunk = |choices: Value| json!({"id": id, "object": "chat.completion.chunk", "created": 0, "model": ask.model, "choices": choices});
    let delta = |delta: Value, finish: Value| {
        chunk(json!([{"index": 0, "delta": delta, "finish_reason": finish}]))
    };
    let with_receipt = |mut event: Value| {
        if trick != Trick::NoReceipt {
            event["receipt"] = receipt.into();
        }
        event
    };
    let mut texts: Vec<String> = SCRIPT.iter().map(|(_, text)| (*text).to_owned()).collect();
    match trick {
        Trick::FlipCharacter => texts[1] = " shy".to_owned(),
        Trick::DropText => drop(texts.pop()),
        Trick::Break | Trick::BreakStated => texts.truncate(SCRIPT.len() / 2),
        _ => {}
    }
    let mut events = vec![delta(
        json!({"role": "assistant", "content": ""}),
        Value::Null,
    )];
    events.extend(
        texts
            .iter()
            .map(|text| delta(json!({"content": text}), Value::Null)),
    );
    if matches!(trick, Trick::BreakStated | Trick::OtherCheckpoint) {
        // The role chunk, and half of the text.
        events[SCRIPT.len() / 2]["receipt"] = checkpoint.into();
    }
    if matches!(trick, Trick::Break | Trick::BreakStated) {
        return chunked(&events, false);
    }
    if trick != Trick::DropLastChunk {
        events.push(with_receipt(delta(json!({}), "stop".into())));
    }
    if trick == Trick::MoreText {
        events.push(delta(json!({"content": " Buy gold!"}), Value::Null));
    }
    if ask.include_usage && trick != Trick::DropLastChunk {
        let written = SCRIPT.len() + 1 + usize::from(trick == Trick::OtherUsage);
        let mut usage = chunk(json!([]));
        usage["usage"] = json!({
            "prompt_tokens": PROMPT.len(),
            "completion_tokens": written,
            "total_tokens": PROMPT.len() + written,
        });
        events.push(with_receipt(usage));
    }
    chunked(&events, true)
}

/// The response's bytes, each event a chunk; whole or broken off.
fn chunked(events: &[Value], whole: bool) -> Vec<u8> {
    let mut bytes =
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
            .to_owned();
    let mut push = |data: &str| {
        let event = format!("data: {data}\n\n");
        bytes += &format!("{:x}\r\n{event}\r\n", event.len());
    };
    for event in events {
        push(&event.to_string());
    }
    if whole {
        push("[DONE]");
        bytes += "0\r\n\r\n";
    }
    bytes.into_bytes()
}

/// The signature of another client over the same request.
fn signed_by(
    key: &SigningKey,
    request: &Received,
    own: &VerifiedSignature,
    state: &State,
) -> VerifiedSignature {
    let plain = ["signature", "signature-input", "content-digest"];
    let kept: Vec<_> = request
        .headers
        .iter()
        .filter(|(name, _)| !plain.contains(&name.as_str()))
        .cloned()
        .collect();
    let mut theirs = Received {
        method: request.method.clone(),
        path: request.path.clone(),
        headers: kept,
        body: request.body.clone(),
    };
    let refs = theirs.header_refs();
    let expires = own.created_s + LIFETIME_S_MAX;
    let fields = sign(
        key,
        &theirs.head(&refs),
        &theirs.body,
        own.created_s,
        expires,
        random(),
    );
    let fields = fields
        .fields()
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
    theirs.headers.extend(fields);
    state.signature(&theirs).expect("their signature holds")
}

/// A job that signs with another key says so in its claims.
fn with_key(mut receipt: Receipt, key: &SigningKey) -> Receipt {
    receipt.iss = key.did();
    receipt
}

/// The same claims under `alg: none`.
fn unsigned(compact: &str) -> String {
    let claims = compact.split('.').nth(1).expect("three parts");
    // {"alg":"none","typ":"countersign-receipt+jwt"}
    format!("eyJhbGciOiJub25lIiwidHlwIjoiY291bnRlcnNpZ24tcmVjZWlwdCtqd3QifQ.{claims}.")
}
