//! What an audit found, for people and programs.

use std::path::{Path, PathBuf};

use protocol::Did;
use protocol::verdict::{SignedVerdict, Verdict, Word};
use serde::Serialize;

/// Everything that an audit found.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The version of this format: 1.
    pub v: u32,
    /// Who judged.
    pub auditor: Did,
    /// The verifier and its version.
    pub verifier: String,
    /// How many of each word there are, in this order: match, tolerated, mismatch,
    /// unverifiable, malformed, and folders that aren't saved answers.
    pub counts: Counts,
    /// Folders that weren't looked at, since their names say that they are unfinished.
    pub skipped: usize,
    /// Tokens of prompts and answers that were judged by replay.
    pub tokens: u64,
    /// How long it took.
    pub seconds: f64,
    /// One for each folder, by name.
    pub answers: Vec<Entry>,
}

/// How many of each word.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// `match`
    #[serde(rename = "match")]
    pub matching: usize,
    /// `tolerated`
    pub tolerated: usize,
    /// `mismatch`
    pub mismatch: usize,
    /// `unverifiable`
    pub unverifiable: usize,
    /// `malformed`
    pub malformed: usize,
    /// Not a saved answer with a receipt: nothing to sign a verdict about.
    pub unreadable: usize,
}

/// One folder.
#[derive(Debug, Clone, Serialize)]
pub struct Entry {
    /// Where it lies.
    pub folder: PathBuf,
    /// The request, if the receipt names one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// The model that answered, as the receipt has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The signed verdict, a compact JWS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signed: Option<String>,
    /// What it says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// The texts of tokens that findings name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub quotes: Vec<Quote>,
    /// Why there is no verdict.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unreadable: Option<String>,
}

/// What a token says. Not in the verdict itself, which others may read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Quote {
    /// The token's id.
    pub token: u32,
    /// Its text.
    pub text: String,
}

impl Entry {
    /// A folder without a receipt to judge.
    pub(crate) fn unreadable(folder: &Path, why: String) -> Self {
        Entry {
            folder: folder.to_owned(),
            request: None,
            model: None,
            signed: None,
            verdict: None,
            quotes: Vec::new(),
            unreadable: Some(why),
        }
    }

    pub(crate) fn judged(folder: &Path, verdict: &SignedVerdict, quotes: Vec<Quote>) -> Self {
        Entry {
            signed: Some(verdict.compact().to_owned()),
            verdict: Some(verdict.unverified().clone()),
            quotes,
            unreadable: None,
            ..Entry::unreadable(folder, String::new())
        }
    }

    /// The verdict's word; none without a verdict.
    pub fn word(&self) -> Option<Word> {
        self.verdict.as_ref().map(|verdict| verdict.verdict)
    }
}

impl Counts {
    pub(crate) fn of(answers: &[Entry]) -> Self {
        let mut counts = Counts::default();
        for entry in answers {
            *match entry.word() {
                Some(Word::Match) => &mut counts.matching,
                Some(Word::Tolerated) => &mut counts.tolerated,
                Some(Word::Mismatch) => &mut counts.mismatch,
                Some(Word::Unverifiable) => &mut counts.unverifiable,
                Some(Word::Malformed) => &mut counts.malformed,
                None => &mut counts.unreadable,
            } += 1;
        }
        counts
    }

    /// All folders.
    pub fn all(&self) -> usize {
        self.matching
            + self.tolerated
            + self.mismatch
            + self.unverifiable
            + self.malformed
            + self.unreadable
    }
}
