//! What a replay means for a receipt: pure. Spec 4.4.

use client::answer::Answer;
use models::{Rule, Standing, Trace};
use protocol::receipt::{Finish, Output, Receipt};
use protocol::verdict::{Fault, Word};

use crate::judgement::Found;
use crate::replay::{Differing, Mark, Outcome, Stop};

/// What is wrong with one choice, given what computing it again gave.
pub fn choice(number: usize, prompt: u32, claim: &Output, outcome: &Outcome) -> Vec<Found> {
    if let Some(stop) = outcome.stop {
        // Where ids are known, a wrong one before the stop is still wrong.
        let first = outcome.first.filter(|_| outcome.known);
        let found = first.map(|first| token(prompt, &first));
        let found = found.into_iter().chain([stopped(stop)]);
        return found.map(|found| found.of_choice(number)).collect();
    }
    let mut found = Vec::new();
    let same_ids = outcome.tokens_sha256 == claim.tokens_sha256 && outcome.count == claim.tokens;
    // Where ids were drawn, the hash decides, whatever the text looked like.
    if let Some(first) = outcome.first.filter(|_| !same_ids || outcome.known) {
        found.push(token(prompt, &first));
    } else if !same_ids {
        let says = "the ids that model, sampling and seed give aren't those of the receipt";
        let tokens = Found::mismatch("tokens", says);
        found.push(match outcome.count == claim.tokens {
            true => tokens.instead_of(claim.tokens_sha256, outcome.tokens_sha256),
            false => tokens.instead_of(claim.tokens, outcome.count),
        });
    }
    // A token that the grammar forbids is the last that can be judged.
    let strays = outcome.known && outcome.count < claim.tokens;
    found.extend(finish(claim, outcome).filter(|_| !strays));
    if outcome.text_sha256 != claim.text_sha256 && found.is_empty() {
        let says = "the tokens say another text";
        let text = Found::mismatch("output_text", says);
        found.push(text.instead_of(claim.text_sha256, outcome.text_sha256));
    }
    found
        .into_iter()
        .map(|found| found.of_choice(number))
        .collect()
}

fn token(prompt: u32, first: &Differing) -> Found {
    let says = match first.claimed {
        Some(_) => "model, sampling and seed give another token here",
        None => "the text ends or goes on here otherwise than model, sampling and seed do",
    };
    let mut token = Found::mismatch("token", says);
    token.finding.position = Some(prompt + first.index);
    token.finding.claimed = first.claimed.map(|id| id.to_string());
    token.finding.expected = Some(first.expected.to_string());
    match first.standing {
        Some(Standing::Lost { by }) => token.finding.margin = short(by),
        Some(Standing::Excluded(rule)) => token.finding.excluded = Some(name(rule).to_owned()),
        Some(Standing::Drawn) | None => {}
    }
    token
}

/// Six decimals: every JSON reader gives them back as they are. None for what JSON
/// can't say. // spec 2.4
fn short(number: f64) -> Option<f64> {
    let short = (number * 1e6).round() / 1e6;
    short.is_finite().then_some(short)
}

/// The rule that left a token out. docs/spec/sampling.md, 8.2.
fn name(rule: Rule) -> &'static str {
    match rule {
        Rule::Vocabulary => "vocabulary",
        Rule::Mask => "grammar",
        Rule::MinTokens => "min_tokens",
        Rule::TopK => "top_k",
        Rule::MinP => "min_p",
        Rule::TopP => "top_p",
    }
}

fn stopped(stop: Stop) -> Found {
    match stop {
        Stop::NotFinite { position } => {
            let says = "the model gives nothing here that a token can be drawn from";
            let mut found = Found::mismatch("not_finite", says);
            found.finding.position = u32::try_from(position).ok();
            found
        }
        Stop::Impossible => Found::mismatch("tokens", "an id is none of this model's"),
        Stop::Grammar => Found::unverifiable(
            Fault::Auditor,
            "no_grammar",
            "its grammar costs more here than this auditor spends on one",
        ),
        Stop::NoMemory => Found::unverifiable(
            Fault::Auditor,
            "no_memory",
            "it needs more KV cache than this auditor has: --kv-tokens gives more",
        ),
    }
}

/// Whether it ends where, and as, its receipt says. docs/spec/text.md, 2.
fn finish(claim: &Output, outcome: &Outcome) -> Option<Found> {
    let finished = matches!(claim.finish, Finish::Stop | Finish::Length);
    let (expected, tokens) = match outcome.end {
        Some((finish, tokens)) => (finish, tokens),
        None if finished => (Finish::Open, outcome.count),
        None => return None,
    };
    if expected == claim.finish && tokens == claim.tokens {
        return None;
    }
    let says = match (expected, tokens == claim.tokens) {
        (Finish::Open, _) => "the answer doesn't end here",
        (_, true) => "the answer ends otherwise",
        (_, false) => "the answer ends elsewhere",
    };
    Some(Found::mismatch("finish", says).instead_of(
        format_args!("{} after {}", claim.finish, claim.tokens),
        format_args!("{expected} after {tokens}"),
    ))
}

/// Whether what came of a response that broke off is of the answer that the receipt is
/// true of. Spec 4.2.
pub fn partial(answer: &Answer, part: u32, outcomes: &[Outcome]) -> Vec<Found> {
    let wrong = |check, says| Found::unverifiable(Fault::Client, check, says);
    let mut found = Vec::new();
    for (number, (came, outcome)) in answer.choices.iter().zip(outcomes).enumerate() {
        // A checkpoint may be behind what came.
        let text = outcome.text.starts_with(&came.text)
            || (part > 0 && came.text.starts_with(&outcome.text));
        // A call that broke off is written otherwise.
        if !text && came.calls.is_empty() {
            let says = "what came isn't the beginning of the text";
            found.push(wrong("text", says).of_choice(number));
        }
        let ids = came.token_ids.as_deref().unwrap_or_default();
        let ids = outcome.ids.starts_with(ids) || (part > 0 && ids.starts_with(&outcome.ids));
        if !ids {
            let says = "the ids that came aren't the first ones";
            found.push(wrong("tokens", says).of_choice(number));
        }
    }
    found
}

/// What is wrong with the trace of all choices. It covers the receipt's ids, so that
/// it says nothing where a replay drew others.
pub fn trace(claims: &Receipt, outcomes: &[Outcome]) -> Option<Found> {
    let traces: Vec<Trace> = outcomes.iter().map(|o| o.trace.clone()).collect();
    let expected = Trace::claim(&traces);
    let same_ids = claims
        .output
        .iter()
        .zip(outcomes)
        .all(|(claim, outcome)| outcome.tokens_sha256 == claim.tokens_sha256);
    if !same_ids || outcomes.iter().any(|outcome| outcome.stop.is_some()) {
        return None;
    }
    match (claims.trace, expected) {
        (Some(claimed), Some(expected)) if claimed != expected => {
            let right = outcomes.iter().all(|outcome| outcome.differing == 0);
            let says = match right {
                true => {
                    "every token is the one drawn, but the hidden states behind them are others"
                }
                false => "the hidden states behind the tokens aren't this model's for this prompt",
            };
            Some(Found::mismatch("trace", says).instead_of(claimed, expected))
        }
        (None, Some(_)) => Some(Found::new(
            Word::Malformed,
            "trace_missing",
            "the profile has traces, and the receipt none",
        )),
        (Some(_), None) => Some(Found::mismatch(
            "trace",
            "there is a trace, and no token that it could be of",
        )),
        _ => None,
    }
}

/// The first checkpoint that isn't so: it tells how far the answer was true. Spec 4.4.
pub fn checkpoints(checkpoints: &[Receipt], outcomes: &[Outcome]) -> Option<Found> {
    // What wasn't computed to its end has no marks to compare with.
    if outcomes.iter().any(|outcome| outcome.stop.is_some()) {
        return None;
    }
    checkpoints
        .iter()
        .find_map(|checkpoint| one_checkpoint(checkpoint, outcomes))
}

fn one_checkpoint(checkpoint: &Receipt, outcomes: &[Outcome]) -> Option<Found> {
    let name = |what: &str| format!("{what} of checkpoint {}", checkpoint.part);
    let mut traces = Vec::new();
    for (number, (claim, outcome)) in checkpoint.output.iter().zip(outcomes).enumerate() {
        let at = |mark: &&Mark| mark.tokens == claim.tokens;
        let Some(mark) = outcome.marks.iter().find(at) else {
            let says = name("the answer doesn't reach the count of tokens");
            let found = Found::mismatch("checkpoint", says).of_choice(number);
            return Some(found.instead_of(claim.tokens, outcome.count));
        };
        if mark.tokens_sha256 != claim.tokens_sha256 {
            let says = name("the ids aren't those");
            let found = Found::mismatch("checkpoint", says).of_choice(number);
            return Some(found.instead_of(claim.tokens_sha256, mark.tokens_sha256));
        }
        // What goes on, or was ended from outside, hasn't ended by itself.
        let ended = matches!(claim.finish, Finish::Stop | Finish::Length);
        if mark.end != ended.then_some(claim.finish) {
            let says = name("the answer stands otherwise there: it is the finish");
            let found = Found::mismatch("checkpoint", says).of_choice(number);
            let expected = mark.end.unwrap_or(Finish::Open);
            return Some(found.instead_of(claim.finish, expected));
        }
        if mark.text_sha256 != claim.text_sha256 {
            let says = name("the tokens say another text than that");
            let found = Found::mismatch("checkpoint", says).of_choice(number);
            return Some(found.instead_of(claim.text_sha256, mark.text_sha256));
        }
        traces.push(mark.trace.clone());
    }
    match (checkpoint.trace, Trace::claim(&traces)) {
        (claimed, expected) if claimed == expected => None,
        (Some(claimed), Some(expected)) => {
            let says = name("the hidden states behind the tokens aren't those");
            Some(Found::mismatch("checkpoint", says).instead_of(claimed, expected))
        }
        _ => Some(Found::mismatch("checkpoint", name("the trace isn't that"))),
    }
}

#[cfg(test)]
mod tests;
