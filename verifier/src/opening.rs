//! Every check that needs no model: whether it is a receipt, whether the
//! transcript is its own, whether it promises what was asked for.
//!
//! Pure. What is left over is a [`Case`] to be replayed. Spec 4.1 to 4.3.
//! Start at [`open`].

use client::answer::Answer;
use client::check::{self, Check, audit};
use client::known::KnownGateways;
use client::save::{SavedAnswer, SavedSignature};
use client::{Rejection, reread};
use protocol::api::Ask;
use protocol::credential::Chain;
use protocol::manifest::Manifest;
use protocol::receipt::{Finish, Output, Receipt, SignedReceipt};
use protocol::sampling::{self, Sampling};
use protocol::verdict::{Fault, Word};
use protocol::{Did, Digest, UnixMs};

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
    same_request(&saved.signature, &claims).map_err(|says| client("request", says))?;
    if let Some(found) = unfinished(saved, &claims) {
        return Err(Judgement::of(vec![found]));
    }
    // The job accepted the body, or says that it did.
    let ask = check::parse_ask(path, &saved.request).map_err(|_| {
        let says = "the body isn't a request that may be answered";
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

/// That the client kept the request that the receipt states.
fn same_request(saved: &SavedSignature, claims: &Receipt) -> Result<(), String> {
    let line = &claims.input.request;
    let parts = [
        ("method", Some(&line.method), Some(&saved.method)),
        ("authority", Some(&line.authority), Some(&saved.authority)),
        ("path", Some(&line.path), Some(&saved.path)),
        ("query", line.query.as_ref(), saved.query.as_ref()),
        (
            "signature_input",
            line.signature_input.as_ref(),
            saved.signature_input.as_ref(),
        ),
        (
            "signature",
            line.signature.as_ref(),
            saved.signature.as_ref(),
        ),
    ];
    match parts.iter().find(|(_, said, kept)| said != kept) {
        Some((part, ..)) => Err(format!(
            "the receipt's {part} isn't that of the request that was kept"
        )),
        None => Ok(()),
    }
}

/// A receipt over nothing.
fn unfinished(saved: &SavedAnswer, claims: &Receipt) -> Option<Found> {
    let drawn: u64 = claims.output.iter().map(|o| u64::from(o.tokens)).sum();
    let any = |finish| claims.output.iter().any(|output| output.finish == finish);
    if any(Finish::Refused) {
        if drawn > 0 {
            let says = "a refused request has no tokens";
            return Some(Found::mismatch("ending", says));
        }
        if answered(saved, claims) {
            let says = "the job signed that it refused, and there is a whole answer";
            return Some(Found::unverifiable(Fault::Job, "refused", says));
        }
        let says = "the request was refused: there is nothing to compute again";
        return Some(Found::unverifiable(Fault::Client, "refused", says));
    }
    if claims.sampling.is_some() && (drawn > 0 || claims.part > 0) {
        return None;
    }
    if any(Finish::Error) || any(Finish::Deadline) {
        let says = "the job failed before it drew a token";
        return Some(Found::unverifiable(Fault::Job, "error", says));
    }
    if any(Finish::Cancelled) {
        let says = "the request was cancelled before a token was drawn";
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

/// Whether a whole answer was kept.
fn answered(saved: &SavedAnswer, claims: &Receipt) -> bool {
    let about = &saved.about;
    let ask = check::parse_ask(&claims.input.request.path, &saved.request);
    let came = ask.ok().and_then(|ask| {
        let content_type = about.content_type.as_deref();
        reread(&ask, about.status, content_type, &saved.response).ok()
    });
    about.status == 200 && came.is_some_and(|answer| whole(&answer))
}

/// Whether an answer came to its proper end.
fn whole(answer: &Answer) -> bool {
    answer.done && answer.error.is_none()
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
    let client = |check, says: &str| vec![Found::unverifiable(Fault::Client, check, says)];
    let answer = reread(ask, about.status, content_type, &saved.response)
        .map_err(|_| client("response", "the response isn't one that the API allows"))?;
    if !answer.choices.iter().map(|c| &c.text).eq(&saved.outputs) {
        let says = "the texts that were kept aren't those of the response";
        return Err(client("text", says));
    }
    if !whole(&answer) {
        return match &answer.id {
            Some(id) if id != claims.jti.as_str() => {
                Err(client("id", "the receipt is for another response"))
            }
            _ => Ok(answer),
        };
    }
    let found: Vec<Found> = audit::response(ask, &answer, claims)
        .iter()
        .map(|rejection| {
            // What came is quoted in the rejection, and has no place in a verdict.
            let says = "the response shows something else than the receipt says";
            Found::unverifiable(Fault::Client, rejection.check.name(), says)
        })
        .collect();
    if !found.is_empty() {
        return Err(found);
    }
    let ended = |output: &Output| matches!(output.finish, Finish::Stop | Finish::Length);
    match claims.output.iter().all(ended) {
        true => Ok(answer),
        false => {
            let says = "the answer is whole, and the receipt says that it was cut off";
            Err(vec![Found::mismatch("ending", says)])
        }
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
        .map(|rejection| match rejection.check {
            Check::Model => Found::mismatch("model", "another model answered than was asked for"),
            _ => Found::rejected(Word::Mismatch, None, rejection),
        })
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

/// What is wrong with the day that the chat template was told.
pub fn wrong_date(date: Option<&str>, asked: bool, from: UnixMs) -> Option<&'static str> {
    let today = from.as_secs() / 86_400;
    match date {
        None if asked => Some("the template asks for the date, and the receipt has none"),
        Some(_) if !asked => Some("nothing asks for the date that the receipt has"),
        // One day, since the job's day may be another one than UTC's.
        Some(date) if day(date).is_none_or(|day| day.abs_diff(today) > 1) => {
            Some("the template was told another day")
        }
        _ => None,
    }
}

/// `YYYY-MM-DD` in days since the epoch; none before it.
fn day(date: &str) -> Option<u64> {
    let mut parts = date.splitn(3, '-').map(|part| part.parse::<u64>().ok());
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    let valid = (1970..=9999).contains(&year) && (1..=12).contains(&month) && day <= 31;
    if !valid {
        return None;
    }
    // Years begin in March, so that a leap day is the last one.
    let (year, month) = match month {
        3.. => (year, month - 3),
        _ => (year - 1, month + 9),
    };
    let leaps = year / 4 - year / 100 + year / 400;
    (365 * year + leaps + (153 * month + 2) / 5 + day).checked_sub(719_469)
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
    #[test]
    fn a_template_is_told_the_day_of_the_request() {
        let from = UnixMs::from_secs(1_709_164_800); // 2024-02-29
        for (date, asked, right) in [
            (None, false, true),
            (None, true, false),
            (Some("2024-02-29"), false, false),
            (Some("2024-02-29"), true, true),
            (Some("2024-02-28"), true, true),
            (Some("2024-03-01"), true, true),
            (Some("2024-03-02"), true, false),
            (Some("2024-02-27"), true, false),
            (Some("yesterday"), true, false),
        ] {
            assert_eq!(wrong_date(date, asked, from).is_none(), right, "{date:?}");
        }
    }
}
