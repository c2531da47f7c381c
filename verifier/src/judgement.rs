//! What was found about one receipt, and the one word for it.

use client::Rejection;
use protocol::verdict::{Fault, Finding, Replay, Word};

/// One thing that is wrong, and what it means. Spec 4.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    pub finding: Finding,
    pub word: Word,
    pub fault: Option<Fault>,
}

/// Everything that was found about one receipt.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Judgement {
    pub found: Vec<Found>,
    pub replay: Option<Replay>,
}

impl Found {
    pub fn new(word: Word, check: &str, says: impl Into<String>) -> Self {
        let finding = Finding {
            check: check.to_owned(),
            says: says.into(),
            choice: None,
            position: None,
            claimed: None,
            expected: None,
            margin: None,
            excluded: None,
        };
        Found {
            finding,
            word,
            fault: None,
        }
    }

    pub fn mismatch(check: &str, says: impl Into<String>) -> Self {
        Found::new(Word::Mismatch, check, says)
    }

    pub fn malformed(check: &str, says: impl Into<String>) -> Self {
        Found::new(Word::Malformed, check, says)
    }

    pub fn unverifiable(fault: Fault, check: &str, says: impl Into<String>) -> Self {
        Found {
            fault: Some(fault),
            ..Found::new(Word::Unverifiable, check, says)
        }
    }

    /// A client's check that failed, with what that means here.
    pub fn rejected(word: Word, fault: Option<Fault>, rejection: &Rejection) -> Self {
        Found {
            fault,
            ..Found::new(word, rejection.check.name(), rejection.sentence.as_str())
        }
    }

    pub fn of_choice(mut self, choice: usize) -> Self {
        self.finding.choice = u8::try_from(choice).ok();
        self
    }

    pub fn instead_of(mut self, claimed: impl ToString, expected: impl ToString) -> Self {
        self.finding.claimed = Some(claimed.to_string());
        self.finding.expected = Some(expected.to_string());
        self
    }

    /// The gravest is the smallest.
    fn gravity(&self) -> (u8, usize) {
        let word = match self.word {
            Word::Malformed => 0,
            Word::Mismatch => 1,
            Word::Unverifiable => 2,
            Word::Match | Word::Tolerated => 3,
        };
        let check = ORDER
            .iter()
            .position(|name| *name == self.finding.check)
            .unwrap_or(ORDER.len());
        (word, check)
    }
}

/// Causes before their consequences.
const ORDER: [&str; 9] = [
    "model",
    "sampling",
    "prompt",
    "token",
    "not_finite",
    "finish",
    "trace",
    "tokens",
    "output_text",
];

impl Judgement {
    /// With these findings, and without a replay.
    pub fn of(found: Vec<Found>) -> Self {
        Judgement {
            found,
            replay: None,
        }
    }

    /// The word, whose fault it is, and the findings that call for it or less.
    pub fn conclude(mut self) -> (Word, Option<Fault>, Option<Replay>, Vec<Finding>) {
        self.found.sort_by_key(Found::gravity);
        let (word, fault) = match self.found.first() {
            Some(gravest) => (gravest.word, gravest.fault),
            None => (Word::Match, None),
        };
        let findings = self.found.into_iter().map(|found| found.finding).collect();
        (word, fault, self.replay, findings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(found: &[Found], word: Word, fault: Option<Fault>, names: &[&str]) {
        let judgement = Judgement::of(found.to_vec());
        let (said, whose, _, findings) = judgement.conclude();
        assert_eq!((said, whose), (word, fault));
        let found: Vec<_> = findings.iter().map(|f| f.check.as_str()).collect();
        assert_eq!(found, names);
    }

    #[test]
    fn the_gravest_finding_decides() {
        let unverifiable = Found::unverifiable(Fault::Auditor, "no_weights", "");
        let token = Found::mismatch("token", "");
        let trace = Found::mismatch("trace", "");
        let malformed = Found::malformed("trace_missing", "");
        check(&[], Word::Match, None, &[]);
        check(
            std::slice::from_ref(&unverifiable),
            Word::Unverifiable,
            Some(Fault::Auditor),
            &["no_weights"],
        );
        check(
            &[trace, unverifiable, token],
            Word::Mismatch,
            None,
            &["token", "trace", "no_weights"],
        );
        check(&[malformed], Word::Malformed, None, &["trace_missing"]);
    }
}
