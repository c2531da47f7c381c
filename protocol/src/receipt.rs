//! The receipt: a job's signed statement about one request.
//!
//! Normative in `docs/spec/receipt.md`. An engine builds one with
//! [`OpenReceipt`] and signs it; everyone else starts at
//! [`SignedReceipt::parse`] and [`SignedReceipt::verify`].

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::credential::VerifiedCredential;
use crate::did::Did;
use crate::digest::{Digest, ModelDigest, read_hex, write_hex};
use crate::ids::{JobId, RequestId};
use crate::jws::{JwsError, Unverified};
use crate::key::SigningKey;
use crate::sampling::Sampling;
use crate::time::UnixMs;

mod open;

pub use open::{Closing, OpenReceipt, Opening};

/// The JWS type of a receipt.
pub const TYP: &str = "countersign-receipt+jwt";

/// What the hashes of a receipt mean.
pub const DOMAIN: &str = "text/1";

/// Longest compact receipt that is read, in bytes.
pub const COMPACT_BYTES_MAX: usize = 256 * 1024;

/// The claims of a receipt. Fields are in the order in which they are signed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    /// The version of this format: 1.
    pub v: u32,
    /// What the hashes mean: [`DOMAIN`].
    pub domain: String,
    /// Random, so that nobody can guess an answer from a published hash.
    pub salt: Salt,
    /// The request.
    pub jti: RequestId,
    /// 0, or the number of a checkpoint.
    pub part: u32,
    /// The job.
    pub job: JobId,
    /// The job's gap-free counter, from 0.
    pub seq: u64,
    /// The digest of the job's previous receipt; absent in its first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prev: Option<Digest>,
    /// The job's key, which signs this.
    pub iss: Did,
    /// The client's key; absent if the request wasn't signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sub: Option<Did>,
    /// When the job began to read the request.
    pub from_ms: UnixMs,
    /// When it closed the output.
    pub to_ms: UnixMs,
    /// What came in.
    pub input: Input,
    /// What went out, one per choice.
    pub output: Vec<Output>,
    /// The model.
    pub model: ModelRef,
    /// The parameters in force; absent if the request was refused before they were known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampling: Option<Sampling>,
    /// The arithmetic.
    pub numerics: Numerics,
    /// The chain over hidden states, in exact profiles.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<Digest>,
    /// The digest of the job's credential.
    pub cred: Digest,
}

/// What a job read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// The request as the client signed it.
    pub request: RequestLine,
    /// Over the exact bytes of the body.
    pub body_sha256: Digest,
    /// Over the prompt's token ids.
    pub prompt_tokens_sha256: Digest,
    /// How many they are.
    pub prompt_tokens: u32,
}

/// Enough of a request for anyone to check the client's signature again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestLine {
    /// The method.
    pub method: String,
    /// The authority, in lower case and without the scheme's default port.
    pub authority: String,
    /// The path as on the wire.
    pub path: String,
    /// The query as on the wire, without its question mark; absent if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// The header fields that the signature covers, names in lower case.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// The member of Signature-Input, `label=(…);…`; absent if unsigned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature_input: Option<String>,
    /// The member of Signature, `label=:…:`; absent if unsigned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
}

/// One choice of what a job wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Output {
    /// Over the UTF-8 text that the client can concatenate from the stream.
    pub text_sha256: Digest,
    /// Over the token ids, the terminating one included.
    pub tokens_sha256: Digest,
    /// How many they are.
    pub tokens: u32,
    /// Why it ended.
    pub finish: Finish,
}

/// Why a choice ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finish {
    /// The model's end token, a stop token or a stop text.
    Stop,
    /// `max_tokens`, or the end of the context.
    Length,
    /// The client went away or cancelled.
    Cancelled,
    /// The request was refused after its signature was accepted.
    Refused,
    /// The job failed.
    Error,
    /// A time limit.
    Deadline,
    /// It hasn't ended: a checkpoint.
    Open,
}

/// A model, by name and by what it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelRef {
    /// Its name, for people.
    pub id: String,
    /// Its manifest's digest.
    pub digest: ModelDigest,
}

/// Which arithmetic computed the answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Numerics {
    /// The profile, such as `candle-cpu/1`.
    pub profile: String,
    /// The device, such as `cpu`.
    pub device: String,
    /// What else a replay needs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub detail: BTreeMap<String, String>,
}

/// 128 random bits; in JSON 32 lower-case hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Salt(pub [u8; 16]);

/// A receipt as received: its form is right, nothing else is known.
#[derive(Debug, Clone)]
pub struct SignedReceipt {
    jws: Unverified,
    claims: Receipt,
}

/// A receipt that the job of a verified credential signed.
/// Only [`SignedReceipt::verify`] makes one.
#[derive(Debug, Clone)]
pub struct VerifiedReceipt(SignedReceipt);

/// Why a receipt isn't what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    /// Its JWS.
    #[error(transparent)]
    Jws(#[from] JwsError),
    /// Another version than 1.
    #[error("receipt version {0} isn't known")]
    Version(u32),
    /// Another domain than [`DOMAIN`].
    #[error("receipt domain {0:?} isn't known")]
    Domain(String),
    /// `kid` and `iss` differ.
    #[error("signed by another key than its issuer")]
    Issuer,
    /// `prev` is there in the first receipt, or absent in a later one.
    #[error("prev must be there exactly when seq isn't 0")]
    Sequence,
    /// It ends before it begins.
    #[error("to_ms is before from_ms")]
    Times,
    /// `sub` without a signature, or a signature without `sub`.
    #[error("sub must be there exactly when the request's signature is")]
    Subject,
    /// No choice, or another number of choices than `sampling` says.
    #[error("the outputs aren't those of the choices asked for")]
    Choices,
    /// `finish` and `part` contradict each other.
    #[error("a finish must be open exactly when part isn't 0")]
    Part,
    /// Another key than the credential's.
    #[error("not signed by the credential's job key")]
    Key,
    /// Another job than the credential's.
    #[error("the credential is another job's")]
    Job,
    /// Another model than the credential's.
    #[error("the credential is for another model")]
    Model,
    /// Another numerics profile than the credential's.
    #[error("the credential is for another numerics profile")]
    Numerics,
    /// Another credential.
    #[error("cred isn't this credential's digest")]
    Credential,
    /// The credential wasn't valid from `from_ms` to `to_ms`.
    #[error("the credential wasn't valid when the job answered")]
    Validity,
    /// The credential doesn't list the request's authority.
    #[error("the credential doesn't list the request's authority")]
    Authority,
    /// Another client's.
    #[error("the receipt is another client's")]
    Client,
    /// Of another request, or of this one changed.
    #[error("the receipt is for another request")]
    Request,
    /// Over another body.
    #[error("the receipt is over another body")]
    Body,
}

impl ReceiptError {
    /// The stable name of this error.
    pub fn code(&self) -> &'static str {
        match self {
            ReceiptError::Jws(error) => error.code(),
            ReceiptError::Version(_) => "receipt_version",
            ReceiptError::Domain(_) => "receipt_domain",
            ReceiptError::Issuer => "receipt_issuer",
            ReceiptError::Sequence => "receipt_sequence",
            ReceiptError::Times => "receipt_times",
            ReceiptError::Subject => "receipt_subject",
            ReceiptError::Choices => "receipt_choices",
            ReceiptError::Part => "receipt_part",
            ReceiptError::Key => "receipt_key",
            ReceiptError::Job => "receipt_job",
            ReceiptError::Model => "receipt_model",
            ReceiptError::Numerics => "receipt_numerics",
            ReceiptError::Credential => "receipt_credential",
            ReceiptError::Validity => "receipt_validity",
            ReceiptError::Authority => "receipt_authority",
            ReceiptError::Client => "receipt_client",
            ReceiptError::Request => "receipt_request",
            ReceiptError::Body => "receipt_body",
        }
    }
}

impl Receipt {
    /// Signs with the job's key.
    ///
    /// # Panics
    ///
    /// If `iss` isn't the key's DID.
    pub fn sign(self, key: &SigningKey) -> SignedReceipt {
        assert_eq!(self.iss, key.did(), "a receipt is signed by its issuer");
        SignedReceipt {
            jws: Unverified::sign(key, TYP, &self),
            claims: self,
        }
    }

    /// What must hold of the claims by themselves. // spec 4.10
    fn check(&self) -> Result<(), ReceiptError> {
        if self.domain != DOMAIN {
            return Err(ReceiptError::Domain(self.domain.clone()));
        }
        if self.prev.is_some() != (self.seq > 0) {
            return Err(ReceiptError::Sequence);
        }
        if self.to_ms < self.from_ms {
            return Err(ReceiptError::Times);
        }
        let request = &self.input.request;
        let signed = self.sub.is_some();
        if request.signature_input.is_some() != signed
            || request.signature.is_some() != signed
            || (!signed && !request.headers.is_empty())
        {
            return Err(ReceiptError::Subject);
        }
        let choices = self.sampling.as_ref().map_or(1, |sampling| sampling.n);
        if choices == 0 || self.output.len() != usize::from(choices) {
            return Err(ReceiptError::Choices);
        }
        let open = self.output.iter().any(|o| o.finish == Finish::Open);
        if open != (self.part > 0) {
            return Err(ReceiptError::Part);
        }
        Ok(())
    }
}

impl SignedReceipt {
    /// Checks the form and the claims by themselves.
    pub fn parse(compact: &str) -> Result<Self, ReceiptError> {
        let jws = Unverified::parse(compact, TYP, COMPACT_BYTES_MAX)?;
        let version = jws.version()?;
        if version != 1 {
            return Err(ReceiptError::Version(version));
        }
        let claims: Receipt = jws.claims()?;
        if jws.kid() != claims.iss {
            return Err(ReceiptError::Issuer);
        }
        claims.check()?;
        Ok(SignedReceipt { jws, claims })
    }

    /// The claims, which nobody has proved yet.
    pub fn unverified(&self) -> &Receipt {
        &self.claims
    }

    /// The compact text, as received.
    pub fn compact(&self) -> &str {
        self.jws.compact()
    }

    /// SHA-256 of the compact text: what `prev` and the ledger name it by.
    pub fn digest(&self) -> Digest {
        Digest::of(self.compact().as_bytes())
    }

    /// Checks that the credential's job signed this, within what the credential allows. // spec 9.3
    pub fn verify(self, credential: &VerifiedCredential) -> Result<VerifiedReceipt, ReceiptError> {
        let claims = &self.claims;
        let allowed = credential.claims();
        if claims.iss != allowed.sub {
            return Err(ReceiptError::Key);
        }
        self.jws.verify(&allowed.sub)?;
        if claims.job != allowed.job {
            return Err(ReceiptError::Job);
        }
        if claims.model != allowed.model {
            return Err(ReceiptError::Model);
        }
        if claims.numerics.profile != allowed.numerics {
            return Err(ReceiptError::Numerics);
        }
        if claims.cred != credential.digest() {
            return Err(ReceiptError::Credential);
        }
        if claims.from_ms < allowed.nbf_ms || claims.to_ms >= allowed.exp_ms {
            return Err(ReceiptError::Validity);
        }
        if !allowed
            .authorities
            .contains(&claims.input.request.authority)
        {
            return Err(ReceiptError::Authority);
        }
        Ok(VerifiedReceipt(self))
    }
}

impl VerifiedReceipt {
    /// The claims.
    pub fn claims(&self) -> &Receipt {
        &self.0.claims
    }

    /// Checks that this client, if one, sent this request and this body. // spec 9.4
    pub fn is_for(
        &self,
        client: Option<&Did>,
        request: &RequestLine,
        body_sha256: &Digest,
    ) -> Result<(), ReceiptError> {
        let claims = self.claims();
        if claims.sub.as_ref() != client {
            return Err(ReceiptError::Client);
        }
        if claims.input.request != *request {
            return Err(ReceiptError::Request);
        }
        if claims.input.body_sha256 != *body_sha256 {
            return Err(ReceiptError::Body);
        }
        Ok(())
    }

    /// The compact text.
    pub fn compact(&self) -> &str {
        self.0.compact()
    }

    /// SHA-256 of the compact text.
    pub fn digest(&self) -> Digest {
        self.0.digest()
    }
}

impl fmt::Display for Finish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Finish {
    /// The name in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Finish::Stop => "stop",
            Finish::Length => "length",
            Finish::Cancelled => "cancelled",
            Finish::Refused => "refused",
            Finish::Error => "error",
            Finish::Deadline => "deadline",
            Finish::Open => "open",
        }
    }
}

impl fmt::Display for Salt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl FromStr for Salt {
    type Err = SaltError;

    fn from_str(text: &str) -> Result<Self, SaltError> {
        read_hex(text).map(Salt).ok_or(SaltError)
    }
}

/// Why a text isn't a salt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a salt is 32 lower-case hexadecimal digits")]
pub struct SaltError;

impl SaltError {
    /// The stable name of this error.
    pub fn code(&self) -> &'static str {
        "salt_form"
    }
}

impl Serialize for Salt {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Salt {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}
