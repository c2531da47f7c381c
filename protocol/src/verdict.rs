//! The verdict: an auditor's signed statement about one receipt, with its evidence.
//!
//! Normative in `docs/spec/verdict.md`. The verifier fills in [`Verdict`] and
//! signs it; everyone else starts at [`SignedVerdict::parse`] and
//! [`SignedVerdict::verify`].

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::did::Did;
use crate::digest::Digest;
use crate::jws::{JwsError, Unverified};
use crate::key::SigningKey;
use crate::time::UnixMs;

/// The JWS type of a verdict.
pub const TYP: &str = "countersign-verdict+jwt";

/// Longest compact verdict that is read, in bytes.
pub const COMPACT_BYTES_MAX: usize = 64 * 1024;

/// The claims of a verdict. Fields are in the order in which they are signed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verdict {
    /// The version of this format: 1.
    pub v: u32,
    /// The auditor's key, which signs this.
    pub iss: Did,
    /// The digest of the compact receipt that is judged.
    pub receipt: Digest,
    /// When it was judged.
    pub at_ms: UnixMs,
    /// What was found, in one word.
    pub verdict: Word,
    /// Whose fault it is that nothing can be said; there exactly if `verdict` is `unverifiable`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<Fault>,
    /// How it was judged; there exactly if `replay` is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lane: Option<Lane>,
    /// What was computed again, if anything was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay: Option<Replay>,
    /// What is wrong, the gravest first; empty for `match` and `tolerated`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<Finding>,
}

/// A verdict in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Word {
    /// Everything that the receipt states was computed again and is so.
    Match,
    /// It differs by no more than two honest machines of these profiles do.
    Tolerated,
    /// The receipt states what isn't so.
    Mismatch,
    /// It can't be said; `fault` tells why not.
    Unverifiable,
    /// It isn't a receipt that its job was allowed to sign.
    Malformed,
}

/// Whose fault it is that a receipt can't be judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// What was handed in isn't what the receipt is about, or there was nothing to compute.
    Client,
    /// The job failed, and said so.
    Job,
    /// It kept no transcript, or used arithmetic that it hadn't declared.
    Provider,
    /// It gave no credential for the receipt.
    Gateway,
    /// It lacks the model, the arithmetic or the memory for this one.
    Auditor,
}

/// How closely a replay is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lane {
    /// Bit for bit: the same numerics profile.
    Exact,
    /// Statistically: another one.
    Tolerant,
}

/// What was computed again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Replay {
    /// The numerics profile of the replay.
    pub profile: String,
    /// The verifier and its version.
    pub verifier: String,
    /// One for each choice of the receipt.
    pub choices: Vec<Replayed>,
}

/// One choice, computed again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Replayed {
    /// Where the token ids came from that the model was given.
    pub ids: Ids,
    /// Positions at which a token was drawn again.
    pub tokens: u32,
    /// How many of them gave another token than the receipt's.
    pub differing: u32,
}

/// Where a replay has an answer's token ids from. Receipts hold only their hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ids {
    /// From the response, which shows them; they have the receipt's hash.
    Response,
    /// From the text, in the tokenizer's own spelling; they have the receipt's hash.
    Text,
    /// From nowhere: each was drawn again, one after the other, and the hash compared at the end.
    Drawn,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Finding {
    /// The check that failed, by its stable name.
    pub check: String,
    /// What was found, in a sentence without anything of prompt or answer.
    pub says: String,
    /// The choice that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub choice: Option<u8>,
    /// The token's index in prompt and output together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<u32>,
    /// What the receipt stands for: a token id, a digest, a count, a word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claimed: Option<String>,
    /// What it should be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<String>,
    /// By how much the claimed token lost, where it took part in the draw.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub margin: Option<f64>,
    /// The rule of sampling that left the claimed token out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub excluded: Option<String>,
}

/// A verdict as received: its form is right, nothing else is known.
#[derive(Debug, Clone)]
pub struct SignedVerdict {
    jws: Unverified,
    claims: Verdict,
}

/// A verdict that this auditor signed. Only [`SignedVerdict::verify`] makes one.
#[derive(Debug, Clone)]
pub struct VerifiedVerdict(SignedVerdict);

/// Why a text isn't a verdict.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerdictError {
    /// Its JWS.
    #[error(transparent)]
    Jws(#[from] JwsError),
    /// Another version than 1.
    #[error("verdict version {0} isn't known")]
    Version(u32),
    /// `kid` and `iss` differ.
    #[error("signed by another key than its issuer")]
    Issuer,
    /// A fault without `unverifiable`, or the other way round.
    #[error("`fault` is there exactly if the verdict is `unverifiable`")]
    Fault,
    /// A lane without a replay, or a word that needs one.
    #[error("`lane` and `replay` don't fit the verdict")]
    Lane,
    /// A judgement without evidence, or `match` with a finding.
    #[error("`findings` don't fit the verdict")]
    Findings,
    /// Signed by somebody else.
    #[error("judged by {found}, not by {auditor}")]
    Auditor {
        /// The auditor whose word is wanted.
        auditor: Did,
        /// The key that signed.
        found: Did,
    },
}

impl VerdictError {
    /// The stable name of this error.
    pub fn code(&self) -> &'static str {
        match self {
            VerdictError::Jws(error) => error.code(),
            VerdictError::Version(_) => "verdict_version",
            VerdictError::Issuer => "verdict_issuer",
            VerdictError::Fault => "verdict_fault",
            VerdictError::Lane => "verdict_lane",
            VerdictError::Findings => "verdict_findings",
            VerdictError::Auditor { .. } => "verdict_auditor",
        }
    }
}

impl Verdict {
    /// Signs with the auditor's key.
    ///
    /// # Panics
    ///
    /// If `iss` isn't the key's DID, or the claims contradict each other.
    pub fn sign(self, key: &SigningKey) -> SignedVerdict {
        assert_eq!(self.iss, key.did(), "a verdict is signed by its issuer");
        self.check().expect("a verdict's claims fit each other");
        SignedVerdict {
            jws: Unverified::sign(key, TYP, &self),
            claims: self,
        }
    }

    /// What must hold of the claims by themselves. // spec 3
    fn check(&self) -> Result<(), VerdictError> {
        if self.fault.is_some() != (self.verdict == Word::Unverifiable) {
            return Err(VerdictError::Fault);
        }
        let lane_fits = match self.verdict {
            Word::Match => self.lane == Some(Lane::Exact),
            Word::Tolerated => self.lane == Some(Lane::Tolerant),
            _ => true,
        };
        if !lane_fits || self.lane.is_some() != self.replay.is_some() {
            return Err(VerdictError::Lane);
        }
        let clean = matches!(self.verdict, Word::Match | Word::Tolerated);
        if self.findings.is_empty() != clean {
            return Err(VerdictError::Findings);
        }
        Ok(())
    }
}

impl SignedVerdict {
    /// Checks the form and the claims by themselves.
    pub fn parse(compact: &str) -> Result<Self, VerdictError> {
        let jws = Unverified::parse(compact, TYP, COMPACT_BYTES_MAX)?;
        let version = jws.version()?;
        if version != 1 {
            return Err(VerdictError::Version(version));
        }
        let claims: Verdict = jws.claims()?;
        if jws.kid() != claims.iss {
            return Err(VerdictError::Issuer);
        }
        claims.check()?;
        Ok(SignedVerdict { jws, claims })
    }

    /// The claims, which nobody has proved yet.
    pub fn unverified(&self) -> &Verdict {
        &self.claims
    }

    /// The compact text, as received.
    pub fn compact(&self) -> &str {
        self.jws.compact()
    }

    /// Checks that this auditor signed it.
    pub fn verify(self, auditor: &Did) -> Result<VerifiedVerdict, VerdictError> {
        if self.claims.iss != *auditor {
            return Err(VerdictError::Auditor {
                auditor: *auditor,
                found: self.claims.iss,
            });
        }
        self.jws.verify(auditor)?;
        Ok(VerifiedVerdict(self))
    }
}

impl VerifiedVerdict {
    /// The claims.
    pub fn claims(&self) -> &Verdict {
        &self.0.claims
    }

    /// The compact text.
    pub fn compact(&self) -> &str {
        self.0.compact()
    }
}

impl Word {
    /// The word in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Word::Match => "match",
            Word::Tolerated => "tolerated",
            Word::Mismatch => "mismatch",
            Word::Unverifiable => "unverifiable",
            Word::Malformed => "malformed",
        }
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fault::Client => "client",
            Fault::Job => "job",
            Fault::Provider => "provider",
            Fault::Gateway => "gateway",
            Fault::Auditor => "auditor",
        })
    }
}
