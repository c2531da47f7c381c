//! Whether an answer may be believed: every rule of "the client accepts it
//! only if", each under a stable name.
//!
//! Pure: no clock, no file, no network. [`accept`] judges an answer that this
//! client asked for; [`verify`] judges a receipt from files alone. Both report
//! the first check that fails, in an order that names the cause rather than
//! its consequences.

pub mod audit;
mod calls;
mod checkpoint;
mod names;

use protocol::api::{self, Ask, Prompt};
use protocol::credential::{Chain, CredentialError, VerifiedCredential};
use protocol::jws::JwsError;
use protocol::receipt::{Finish, Receipt, ReceiptError, SignedReceipt, VerifiedReceipt};
use protocol::request_signature::{self, SKEW_S};
use protocol::{Did, Digest, ModelDigest, UnixMs};

pub use checkpoint::{Proven, proven};
pub use names::{Check, Rejection};

use crate::answer::{Answer, Choice};
use crate::reply::{Received, Sent};

/// What the gateway keeps for a request: `GET /v1/receipts/{id}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// The receipt; none if the engine signed no last one.
    pub receipt: Option<String>,
    /// The checkpoints, in order.
    pub checkpoints: Vec<String>,
    /// The credentials from the job to the gateway.
    pub chain: Chain,
}

/// What an answer must rest on to be believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// The gateway that the chain must end in.
    pub gateway: Did,
    /// The model that must have answered; none: any, because it's used for the first time.
    pub model: Option<ExpectedModel>,
}

/// What a model's name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpectedModel {
    /// The digest of its manifest.
    pub digest: ModelDigest,
    /// The arithmetic that may compute its answers.
    pub numerics: Vec<String>,
}

/// Finds the receipt in a response that came to its proper end.
pub fn complete<'a>(sent: &Sent, received: &'a Received) -> Result<&'a str, Rejection> {
    let answer = &received.answer;
    if let Some(error) = &answer.error {
        let code = error.code.as_ref().map(|code| format!(" ({code})"));
        let sentence = format!("{}{}", error.message, code.unwrap_or_default());
        return Err(Check::Refused.fails(sentence));
    }
    if let Some(fault) = &received.fault {
        return Err(fault.check().fails(fault.to_string()));
    }
    if !answer.done {
        return Err(Check::Truncated.fails("the stream ended before [DONE]"));
    }
    if let Some(open) = answer
        .choices
        .iter()
        .position(|choice| choice.finish.is_none())
    {
        return Err(Check::Truncated.fails(format!("choice {open} has no finish_reason")));
    }
    if answer.usage.is_none() && (sent.ask.include_usage || !sent.ask.stream) {
        return Err(Check::Truncated.fails("the token counts are missing"));
    }
    answer
        .receipt
        .as_deref()
        .ok_or_else(|| Check::NoReceipt.fails("the response has no receipt"))
}

/// Judges an answer: returns its receipt if every check holds.
pub fn accept(
    sent: &Sent,
    received: &Received,
    proof: &Proof,
    expected: &Expected,
) -> Result<VerifiedReceipt, Rejection> {
    let compact = complete(sent, received)?;
    let receipt = authentic(compact, &proof.chain, &expected.gateway)?;
    let claims = receipt.claims();
    if received.answer.receipts_differ {
        return Err(Check::Stored.fails("the response has two different receipts"));
    }
    if proof.receipt.as_deref() != Some(compact) {
        return Err(Check::Stored.fails("the gateway keeps another receipt for this id"));
    }
    about_request(sent, claims)?;
    about_answer(sent, &received.answer, claims)?;
    about_model(&sent.ask, expected, claims)?;
    sampling(&sent.ask, claims)?;
    trace(claims)?;
    checkpoint::all(sent, received, proof, &expected.gateway, claims)?;
    clock(sent.at, received.at, claims)?;
    Ok(receipt)
}

/// Judges a receipt by files alone: the chain, the request's body and the text
/// of each choice. What only the asking client can know (that it is its own
/// request, when it was sent) isn't checked.
pub fn verify(
    compact: &str,
    chain: &Chain,
    gateway: &Did,
    body: &[u8],
    texts: &[String],
) -> Result<VerifiedReceipt, Rejection> {
    let receipt = authentic(compact, chain, gateway)?;
    let claims = receipt.claims();
    body_read(&Digest::of(body), claims)?;
    request_signature(claims)?;
    texts_written(texts.iter().map(String::as_str), claims)?;
    endings(claims)?;
    let ask = parse_ask(&claims.input.request.path, body)
        .map_err(|why| Check::Sampling.fails(format!("what was asked for can't be read: {why}")))?;
    model_name(&ask, claims)?;
    sampling(&ask, claims)?;
    trace(claims)?;
    Ok(receipt)
}

/// Reads a body as the endpoint at `path` would.
pub fn parse_ask(path: &str, body: &[u8]) -> Result<Ask, String> {
    // The server's own limits decide; ours would only refuse what it accepts.
    let limits = api::Limits::default();
    match path {
        "/v1/chat/completions" => api::parse_chat(body, &limits),
        "/v1/completions" => api::parse_completion(body, &limits),
        _ => return Err(format!("{path} isn't an endpoint that gives receipts")),
    }
    .map_err(|error| error.to_string())
}

/// The receipt, if a job that the gateway vouches for signed it, within what its credential allows.
fn authentic(compact: &str, chain: &Chain, gateway: &Did) -> Result<VerifiedReceipt, Rejection> {
    let receipt = signed(compact, chain, gateway)?;
    if receipt.claims().part != 0 {
        return Err(Check::Receipt.fails("this is a checkpoint, not the receipt of a whole answer"));
    }
    Ok(receipt)
}

/// The same, also for a checkpoint.
fn signed(compact: &str, chain: &Chain, gateway: &Did) -> Result<VerifiedReceipt, Rejection> {
    let signed =
        SignedReceipt::parse(compact).map_err(|error| reject_receipt(&error, Check::Receipt))?;
    let credential = credential(chain, gateway)?;
    signed
        .verify(&credential)
        .map_err(|error| reject_receipt(&error, Check::Credential))
}

fn credential(chain: &Chain, gateway: &Did) -> Result<VerifiedCredential, Rejection> {
    chain.verify(gateway).map_err(|error| match error {
        CredentialError::Untrusted { trusted, found } => Check::GatewayKey.fails(format!(
            "the gateway's key is {found}, but {trusted} is the one that is trusted"
        )),
        other => Check::Chain.fails(other.to_string()),
    })
}

/// `parsing` errors keep their own name unless the error itself says more.
fn reject_receipt(error: &ReceiptError, otherwise: Check) -> Rejection {
    let check = match error {
        ReceiptError::Key
        | ReceiptError::Issuer
        | ReceiptError::Jws(JwsError::Signature | JwsError::Key { .. }) => Check::Signature,
        ReceiptError::Model => Check::Model,
        ReceiptError::Numerics => Check::Numerics,
        _ => otherwise,
    };
    check.fails(error.to_string())
}

/// That the receipt is about the request that this client signed and sent.
fn about_request(sent: &Sent, claims: &Receipt) -> Result<(), Rejection> {
    if claims.sub != sent.client {
        let name = |did: &Option<Did>| did.map_or("nobody".to_owned(), |did| did.to_string());
        return Err(Check::Subject.fails(format!(
            "the receipt is for {}, not for {}",
            name(&claims.sub),
            name(&sent.client)
        )));
    }
    let line = &claims.input.request;
    let signature = sent.signature.as_ref();
    let parts = [
        (
            "method",
            Some(line.method.as_str()),
            Some(sent.method.as_str()),
        ),
        ("authority", Some(&line.authority), Some(&sent.authority)),
        ("path", Some(&line.path), Some(&sent.path)),
        ("query", line.query.as_deref(), None),
        (
            "signature_input",
            line.signature_input.as_deref(),
            signature.map(|headers| headers.signature_input.as_str()),
        ),
        (
            "signature",
            line.signature.as_deref(),
            signature.map(|headers| headers.signature.as_str()),
        ),
    ];
    for (part, said, ours) in parts {
        if said != ours {
            return Err(Check::Request.fails(format!(
                "the receipt's {part} isn't that of the request that was sent"
            )));
        }
    }
    body_read(&sent.body_sha256(), claims)?;
    request_signature(claims)
}

fn body_read(ours: &Digest, claims: &Receipt) -> Result<(), Rejection> {
    if claims.input.body_sha256 != *ours {
        return Err(
            Check::Body.fails("the job read another request body than the one that was sent")
        );
    }
    Ok(())
}

/// That the signature which the receipt keeps is the client's, over everything that it must cover.
fn request_signature(claims: &Receipt) -> Result<(), Rejection> {
    let Some(client) = &claims.sub else {
        return Ok(());
    };
    let input = &claims.input;
    request_signature::recheck(&input.request, &input.body_sha256, client)
        .map(|_| ())
        .map_err(|error| {
            Check::Request.fails(format!("the request's signature in the receipt: {error}"))
        })
}

/// That the receipt is about the answer that came.
fn about_answer(sent: &Sent, answer: &Answer, claims: &Receipt) -> Result<(), Rejection> {
    same_id(answer, claims)?;
    texts_written(texts_of(answer), claims)?;
    tokens(&sent.ask, answer, claims)?;
    endings(claims)?;
    same_finish(answer, claims)?;
    same_usage(answer, claims)
}

fn same_id(answer: &Answer, claims: &Receipt) -> Result<(), Rejection> {
    if answer.id.as_deref() != Some(claims.jti.as_str()) {
        return Err(Check::Id.fails(format!(
            "the receipt is for {}, the response is {}",
            claims.jti,
            answer.id.as_deref().unwrap_or("without an id")
        )));
    }
    Ok(())
}

fn texts_of(answer: &Answer) -> impl ExactSizeIterator<Item = &str> {
    answer.choices.iter().map(|choice| choice.text.as_str())
}

/// What a response calls an end: OpenAI has a word of its own for one after a call.
fn finish_word(finish: Finish, choice: &Choice) -> &'static str {
    match finish {
        Finish::Stop if !choice.calls.is_empty() => "tool_calls",
        finish => finish.as_str(),
    }
}

fn same_finish(answer: &Answer, claims: &Receipt) -> Result<(), Rejection> {
    for (number, (choice, output)) in answer.choices.iter().zip(&claims.output).enumerate() {
        let came = choice.finish.as_deref().unwrap_or("none");
        if finish_word(output.finish, choice) != came {
            return Err(Check::Finish.fails(format!(
                "choice {number} ended with {:?}, the receipt says {:?}",
                came,
                output.finish.as_str()
            )));
        }
        calls::have_ids(number, choice, claims)?;
    }
    Ok(())
}

fn same_usage(answer: &Answer, claims: &Receipt) -> Result<(), Rejection> {
    let Some(usage) = answer.usage else {
        return Ok(());
    };
    let written: u64 = claims
        .output
        .iter()
        .map(|output| u64::from(output.tokens))
        .sum();
    let read = u64::from(claims.input.prompt_tokens);
    if (usage.prompt_tokens, usage.completion_tokens) != (read, written) {
        return Err(Check::Usage.fails(format!(
            "the response counts {} and {} tokens, the receipt {read} and {written}",
            usage.prompt_tokens, usage.completion_tokens
        )));
    }
    Ok(())
}

/// That every choice ended by itself or at its limit, and that the count of its tokens says so too.
fn endings(claims: &Receipt) -> Result<(), Rejection> {
    let limits = (claims.sampling.as_ref()).map_or((0, u32::MAX), |sampling| {
        // A grammar may have no way on before that.
        let least = match sampling.grammar {
            Some(_) => 0,
            None => sampling.min_tokens,
        };
        (least, sampling.max_tokens)
    });
    for (number, output) in claims.output.iter().enumerate() {
        if output.tokens == 0 && output.tokens_sha256 != Digest::of_tokens(&[]) {
            return Err(Check::Finish.fails(format!(
                "choice {number} has no token, but the hash isn't that of none"
            )));
        }
        let (least, most) = match output.finish {
            Finish::Stop => limits,
            Finish::Length => (limits.1, limits.1),
            unfinished => {
                return Err(Check::Finish.fails(format!(
                    "choice {number} isn't a finished answer: the receipt says {:?}",
                    unfinished.as_str()
                )));
            }
        };
        if output.tokens < least || output.tokens > most {
            return Err(Check::Finish.fails(format!(
                "choice {number} ended with {:?} after {} tokens, where {least} to {most} are possible",
                output.finish.as_str(),
                output.tokens
            )));
        }
    }
    Ok(())
}

fn texts_written<'a>(
    texts: impl ExactSizeIterator<Item = &'a str>,
    claims: &Receipt,
) -> Result<(), Rejection> {
    if texts.len() != claims.output.len() {
        return Err(Check::Text.fails(format!(
            "there are {} texts, the receipt is about {}",
            texts.len(),
            claims.output.len()
        )));
    }
    for (number, (text, output)) in texts.zip(&claims.output).enumerate() {
        if Digest::of(text.as_bytes()) != output.text_sha256 {
            return Err(Check::Text.fails(format!(
                "the text of choice {number} isn't the one that the job signed"
            )));
        }
    }
    Ok(())
}

fn tokens(ask: &Ask, answer: &Answer, claims: &Receipt) -> Result<(), Rejection> {
    let prompt = match &ask.prompt {
        Prompt::Tokens(ids) => Some(ids),
        _ => answer.prompt_token_ids.as_ref(),
    };
    if let Some(ids) = prompt
        && !same_tokens(
            ids,
            claims.input.prompt_tokens,
            &claims.input.prompt_tokens_sha256,
        )
    {
        return Err(Check::Tokens.fails("the prompt's token ids aren't those of the receipt"));
    }
    for (number, (choice, output)) in answer.choices.iter().zip(&claims.output).enumerate() {
        match &choice.token_ids {
            Some(ids) if !same_tokens(ids, output.tokens, &output.tokens_sha256) => {
                return Err(Check::Tokens.fails(format!(
                    "the token ids of choice {number} aren't those of the receipt"
                )));
            }
            None if ask.return_token_ids => {
                return Err(
                    Check::Tokens.fails(format!("choice {number} came without its token ids"))
                );
            }
            _ => {}
        }
    }
    Ok(())
}

fn same_tokens(ids: &[u32], count: u32, sha256: &Digest) -> bool {
    ids.len() as u64 == u64::from(count) && Digest::of_tokens(ids) == *sha256
}

fn model_name(ask: &Ask, claims: &Receipt) -> Result<(), Rejection> {
    if claims.model.id != ask.model {
        return Err(Check::Model.fails(format!(
            "{} answered, {} was asked for",
            claims.model.id, ask.model
        )));
    }
    Ok(())
}

fn about_model(ask: &Ask, expected: &Expected, claims: &Receipt) -> Result<(), Rejection> {
    model_name(ask, claims)?;
    let Some(model) = &expected.model else {
        return Ok(());
    };
    if claims.model.digest != model.digest {
        return Err(Check::Model.fails(format!(
            "{} stands for {}, but {} answered",
            ask.model, model.digest, claims.model.digest
        )));
    }
    if !model.numerics.contains(&claims.numerics.profile) {
        return Err(Check::Numerics.fails(format!(
            "the answer was computed as {}, not as {}",
            claims.numerics.profile,
            model.numerics.join(" or ")
        )));
    }
    Ok(())
}

/// That the parameters in force are those that were asked for. The seed of a
/// signed request that names none comes from its nonce.
fn sampling(ask: &Ask, claims: &Receipt) -> Result<(), Rejection> {
    let Some(sampling) = &claims.sampling else {
        return Err(Check::Sampling.fails("the receipt doesn't say how tokens were drawn"));
    };
    let input = &claims.input;
    let nonce = match &claims.sub {
        Some(client) => request_signature::recheck(&input.request, &input.body_sha256, client)
            .map(|signature| Some(signature.nonce))
            .map_err(|error| Check::Request.fails(error.to_string()))?,
        None => None,
    };
    let signed = nonce
        .as_ref()
        .map(|nonce| (nonce.as_bytes(), &input.body_sha256));
    sampling
        .honours(ask, signed)
        .map_err(|parameter| Check::Sampling.fails(format!("{parameter} isn't what was asked for")))
}

/// That tokens of an exact profile are bound to the hidden states they come from: without
/// that, a replay could tell less than the profile promises.
fn trace(claims: &Receipt) -> Result<(), Rejection> {
    let exact = claims.numerics.profile.starts_with(EXACT);
    let drawn = claims.output.iter().any(|output| output.tokens > 0);
    if exact && drawn && claims.trace.is_none() {
        return Err(Check::Trace.fails(format!(
            "the answer was computed as {}, but the receipt has no trace",
            claims.numerics.profile
        )));
    }
    Ok(())
}

fn clock(sent: UnixMs, received: UnixMs, claims: &Receipt) -> Result<(), Rejection> {
    let skew = SKEW_S * 1000;
    if claims.from_ms.plus_ms(skew) < sent {
        return Err(Check::Clock.fails(format!(
            "the job says that it began {} s before the request was sent",
            (sent.0 - claims.from_ms.0) / 1000
        )));
    }
    if claims.to_ms > received.plus_ms(skew) {
        return Err(Check::Clock.fails(format!(
            "the job says that it ended {} s after the answer had come",
            (claims.to_ms.0 - received.0) / 1000
        )));
    }
    Ok(())
}

/// What the names of exact profiles begin with.
const EXACT: &str = "exact/";

#[cfg(test)]
mod tests;
