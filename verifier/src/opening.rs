//! Every check that needs no model: whether it is a receipt, whether the
//! transcript is its own, whether it promises what was asked for.
//!
//! Pure. What is left over is a [`Case`] to be replayed. Spec 4.1 to 4.3.
//! Start at [`open`].

use client::answer::Answer;
use client::check::{self, Check, audit};
use client::known::KnownGateways;
use client::save::SavedAnswer;
use client::{Rejection, reread};
use protocol::api::Ask;
use protocol::credential::Chain;
use protocol::manifest::Manifest;
use protocol::receipt::{Finish, Receipt, SignedReceipt};
use protocol::sampling::{self, Sampling};
use protocol::verdict::{Fault, Word};
use protocol::{Did, Digest};

use crate::judgement::{Found, Judgement};

/// Whom and what to believe.
#[derive(Debug, Clone, Default)]
pub struct Trust {
    /// The gateway's key, if it was given.
    pub gateway: Option<Did>,
    /// Keys that were used before.
    pub known: KnownGateways,
    /// The models that may be served.
    pub whitelist: Vec<Manifest>,
}

/// A receipt that only a replay can refute.
#[derive(Debug, Clone)]
pub struct Case<'a> {
    pub claims: Receipt,
    pub sampling: Sampling,
    pub ask: Ask,
    pub manifest: &'a Manifest,
    /// What came. It may have broken off before its end.
    pub answer: Answer,
    /// What the job had signed on the way, in order.
    pub checkpoints: Vec<Receipt>,
}

/// Judges as far as it goes without a model.
pub fn open<'a>(
    saved: &SavedAnswer,
    compact: &str,
    trust: &'a Trust,
) -> Result<Box<Case<'a>>, Judgement> {
    let claims = authentic(saved, compact, trust)?;
    let path = &claims.input.request.path;
    let client =
        |check, says: String| Judgement::of(vec![Found::unverifiable(Fault::Client, check, says)]);
    audit::body(&saved.request, &claims)
        .map_err(|rejection| client(rejection.check.name(), rejection.sentence))?;
    if let Some(found) = unfinished(&claims) {
        return Err(Judgement::of(vec![found]));
    }
    // The job accepted the body, or says that it did.
    let ask = check::parse_ask(path, &saved.request).map_err(|why| {
        let says = format!("the body isn't a request that may be answered: {why}");
        Judgement::of(vec![Found::mismatch("sampling", says)])
    })?;
    let answer = own_answer(saved, &ask, &claims).map_err(Judgement::of)?;
    let checkpoints = checkpoints(saved, compact, &claims, trust).map_err(Judgement::of)?;
    let promise = promise(&ask, &claims, trust);
    let (manifest, sampling) = match (promise, claims.sampling.clone()) {
        (Ok(manifest), Some(sampling)) => (manifest, sampling),
        (Err(found), _) => return Err(Judgement::of(found)),
        (Ok(_), None) => unreachable!("`unfinished` and `promise` want the sampling"),
    };
    Ok(Box::new(Case {
        claims,
        sampling,
        ask,
        manifest,
        answer,
        checkpoints,
    }))
}

/// Spec 4.1.
fn authentic(saved: &SavedAnswer, compact: &str, trust: &Trust) -> Result<Receipt, Judgement> {
    let wrong = |found| Judgement::of(vec![found]);
    let signed = SignedReceipt::parse(compact)
        .map_err(|error| wrong(Found::malformed("receipt", error.to_string())))?;
    let Some(chain) = &saved.chain else {
        let says = "there is no credential chain beside the receipt";
        let found = Found::unverifiable(Fault::Gateway, "no_chain", says);
        return Err(wrong(found));
    };
    let authority = &signed.unverified().input.request.authority;
    let Some(gateway) = trust.gateway.or_else(|| trust.known.gateway(authority)) else {
        let says = format!("no gateway key is known for {authority:?}: give one with --trust");
        let found = Found::unverifiable(Fault::Auditor, "no_gateway_key", says);
        return Err(wrong(found));
    };
    audit::authentic(compact, &Chain(chain.clone()), &gateway)
        .map(|receipt| receipt.claims().clone())
        .map_err(|rejection| wrong(Found::rejected(Word::Malformed, None, &rejection)))
}

/// A receipt over nothing.
fn unfinished(claims: &Receipt) -> Option<Found> {
    let drawn: u64 = claims.output.iter().map(|o| u64::from(o.tokens)).sum();
    let any = |finish| claims.output.iter().any(|output| output.finish == finish);
    if claims.sampling.is_some() && (drawn > 0 || any(Finish::Cancelled) || claims.part > 0) {
        return None;
    }
    if any(Finish::Refused) {
        let says = "the request was refused: there is nothing to compute again";
        return Some(Found::unverifiable(Fault::Client, "refused", says));
    }
    if any(Finish::Error) || any(Finish::Deadline) {
        let says = "the job failed before it drew a token";
        return Some(Found::unverifiable(Fault::Job, "error", says));
    }
    if claims.sampling.is_none() && any(Finish::Cancelled) {
        let says = "the request was cancelled before it was understood";
        return Some(Found::unverifiable(Fault::Client, "refused", says));
    }
    match claims.sampling {
        Some(_) => None,
        None => Some(Found::mismatch(
            "sampling",
            "the receipt doesn't say how tokens were drawn",
        )),
    }
}

/// The job's receipts of the answer so far, each about this request.
fn checkpoints(
    saved: &SavedAnswer,
    judged: &str,
    claims: &Receipt,
    trust: &Trust,
) -> Result<Vec<Receipt>, Vec<Found>> {
    let others = saved.checkpoints.iter().map(|compact| compact.trim_ascii());
    let mut found = Vec::new();
    for compact in others.filter(|compact| *compact != judged) {
        let Ok(checkpoint) = authentic(saved, compact, trust) else {
            let says = "a checkpoint isn't one that this job was allowed to sign";
            return Err(vec![Found::unverifiable(Fault::Client, "checkpoint", says)]);
        };
        if checkpoint.jti != claims.jti || checkpoint.part == 0 {
            let says = "a checkpoint isn't one of this request";
            return Err(vec![Found::unverifiable(Fault::Client, "checkpoint", says)]);
        }
        let about = |receipt: &Receipt| {
            let Receipt {
                input,
                model,
                sampling,
                numerics,
                ..
            } = receipt.clone();
            (input, model, sampling, numerics)
        };
        if about(&checkpoint) != about(claims) {
            let says = "the job signed another request, model or sampling in a checkpoint";
            return Err(vec![Found::mismatch("checkpoint", says)]);
        }
        found.push(checkpoint);
    }
    Ok(found)
}

/// The response, if it is the receipt's, or broke off. Spec 4.2.
fn own_answer(saved: &SavedAnswer, ask: &Ask, claims: &Receipt) -> Result<Answer, Vec<Found>> {
    let about = &saved.about;
    let content_type = about.content_type.as_deref();
    let answer = match reread(ask, about.status, content_type, &saved.response) {
        Ok(answer) if answer.done && answer.error.is_none() => answer,
        Ok(part) => return Ok(part),
        Err(fault) => {
            let found = Found::unverifiable(Fault::Client, "response", fault.to_string());
            return Err(vec![found]);
        }
    };
    let found: Vec<Found> = audit::response(ask, &answer, claims)
        .iter()
        .map(|rejection| Found::rejected(Word::Unverifiable, Some(Fault::Client), rejection))
        .collect();
    match found.is_empty() {
        true => Ok(answer),
        false => Err(found),
    }
}

/// The whitelisted model that answered, if all is as it was asked for. Spec 4.3.
fn promise<'a>(ask: &Ask, claims: &Receipt, trust: &'a Trust) -> Result<&'a Manifest, Vec<Found>> {
    // What another sampler or grammar engine states, this one can't call wrong.
    if let Some(found) = claims.sampling.as_ref().and_then(|s| other_lane(ask, s)) {
        return Err(vec![found]);
    }
    let mut found: Vec<Found> = audit::promise(ask, claims)
        .iter()
        .map(|rejection| Found::rejected(Word::Mismatch, None, rejection))
        .collect();
    if let Err(Rejection { sentence, .. }) = audit::counts(claims) {
        found.push(Found::mismatch("ending", sentence));
    }
    let named = |manifest: &&Manifest| manifest.identity.id == claims.model.id;
    let Some(manifest) = trust.whitelist.iter().find(named) else {
        let says = "the auditor's whitelist has no model of this name";
        let unknown = Found::unverifiable(Fault::Auditor, "unknown_model", says);
        found.push(unknown.instead_of(&claims.model.id, "a whitelisted model"));
        return Err(found);
    };
    if manifest.digest() != claims.model.digest {
        let says = "the whitelist has other weights for this name";
        found.push(
            Found::mismatch(Check::Model.name(), says)
                .instead_of(claims.model.digest, manifest.digest()),
        );
    }
    if !manifest.numerics.contains(&claims.numerics.profile) {
        let says = "the whitelist doesn't allow this numerics profile for the model";
        found.push(
            Found::unverifiable(Fault::Provider, "numerics_profile", says)
                .instead_of(&claims.numerics.profile, manifest.numerics.join(" or ")),
        );
    }
    let context = u64::from(manifest.identity.context_tokens);
    for (number, output) in claims.output.iter().enumerate() {
        let length = u64::from(claims.input.prompt_tokens) + u64::from(output.tokens);
        if length > context {
            let says = "prompt and answer are longer than the model's context";
            let ending = Found::mismatch("ending", says).of_choice(number);
            found.push(ending.instead_of(length, context));
        }
    }
    match found.is_empty() {
        true => Ok(manifest),
        false => Err(found),
    }
}

/// Whether the tokens were drawn by what this auditor doesn't have.
fn other_lane(ask: &Ask, sampling: &Sampling) -> Option<Found> {
    let says = if sampling.version != sampling::VERSION {
        "the sampler isn't one that this auditor has"
    } else if other_engine(ask.grammar().as_deref(), sampling.grammar.as_deref()) {
        "what read the grammar isn't what this auditor has"
    } else {
        return None;
    };
    Some(Found::unverifiable(Fault::Auditor, "no_lane", says))
}

/// Whether a grammar is of the kind asked for, and read by something else. grammar.md, 2.1.
fn other_engine(asked: Option<&str>, said: Option<&str>) -> bool {
    match (
        asked.map(|s| s.split_once('/')),
        said.map(|s| s.split_once('/')),
    ) {
        (Some(Some((kind, ours))), Some(Some((claimed, theirs)))) => {
            kind == claimed && ours != theirs
        }
        _ => false,
    }
}

/// The digest that names a receipt, however it reads.
pub fn receipt_digest(compact: &str) -> Digest {
    Digest::of(compact.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_grammar_engine_is_another_lane_and_another_kind_a_broken_promise() {
        let ours = Some("json_object/llguidance-1.9");
        assert!(other_engine(ours, Some("json_object/llguidance-2.0")));
        assert!(!other_engine(ours, Some("tools/llguidance-2.0")));
        assert!(!other_engine(ours, ours));
        assert!(!other_engine(None, ours) && !other_engine(ours, None));
    }
}
