//! The claims of a receipt, in the order in which they are written.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::did::Did;
use crate::digest::{Digest, ModelDigest, read_hex, write_hex};
use crate::ids::{JobId, RequestId};
use crate::sampling::Sampling;
use crate::time::UnixMs;

/// The claims of a receipt. Fields are in the order in which they are signed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    /// The version of this format: 1.
    pub v: u32,
    /// What the hashes mean: [`super::DOMAIN`].
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
    /// The profile, such as `exact/1`.
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

impl RequestLine {
    /// The line of a request that nobody signed.
    pub fn unsigned(method: &str, authority: &str, path: &str, query: Option<&str>) -> Self {
        RequestLine {
            method: method.to_owned(),
            authority: authority.to_owned(),
            path: path.to_owned(),
            query: query.map(str::to_owned),
            headers: Default::default(),
            signature_input: None,
            signature: None,
        }
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
