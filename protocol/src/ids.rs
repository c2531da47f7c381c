//! The ids of requests and jobs: a prefix that says the kind, then 128 random
//! bits as lower-case hexadecimal digits. No other spelling is read.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::digest::{read_hex, write_hex};

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `/v1/chat/completions`
    Chat,
    /// `/v1/completions`
    Completion,
}

impl Kind {
    const fn prefix(self) -> &'static str {
        match self {
            Kind::Chat => "chatcmpl-",
            Kind::Completion => "cmpl-",
        }
    }
}

/// Names one request: the response's `id`, its `x-request-id` and the receipt's `jti`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RequestId(String);

impl RequestId {
    /// The id of a request of this kind, from 128 random bits.
    pub fn new(kind: Kind, random: [u8; 16]) -> Self {
        RequestId(format!("{}{}", kind.prefix(), Hex(&random)))
    }

    /// What the request asks for.
    pub fn kind(&self) -> Kind {
        if self.0.starts_with(Kind::Chat.prefix()) {
            Kind::Chat
        } else {
            Kind::Completion
        }
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Names one job.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(String);

impl JobId {
    const PREFIX: &'static str = "job-";

    /// A job's id, from 128 random bits.
    pub fn new(random: [u8; 16]) -> Self {
        JobId(format!("{}{}", Self::PREFIX, Hex(&random)))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Why a string isn't an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Not `chatcmpl-` or `cmpl-` and 32 digits.
    #[error("a request id is `chatcmpl-` or `cmpl-` and 32 lower-case hexadecimal digits")]
    Request,
    /// Not `job-` and 32 digits.
    #[error("a job id is `job-` and 32 lower-case hexadecimal digits")]
    Job,
}

impl IdError {
    /// The stable name of this error.
    pub fn code(&self) -> &'static str {
        match self {
            IdError::Request => "request_id_form",
            IdError::Job => "job_id_form",
        }
    }
}

impl FromStr for RequestId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        [Kind::Chat, Kind::Completion]
            .iter()
            .find_map(|kind| text.strip_prefix(kind.prefix()))
            .and_then(read_hex::<16>)
            .map(|_| RequestId(text.to_owned()))
            .ok_or(IdError::Request)
    }
}

impl FromStr for JobId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        text.strip_prefix(Self::PREFIX)
            .and_then(read_hex::<16>)
            .map(|_| JobId(text.to_owned()))
            .ok_or(IdError::Job)
    }
}

macro_rules! textual {
    ($id:ty) => {
        impl fmt::Display for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Serialize for $id {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $id {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?
                    .parse()
                    .map_err(serde::de::Error::custom)
            }
        }
    };
}

textual!(RequestId);
textual!(JobId);

struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_id_says_its_kind() {
        let id = RequestId::new(Kind::Chat, [0xab; 16]);
        assert_eq!(id.as_str(), "chatcmpl-abababababababababababababababab");
        assert_eq!(id.kind(), Kind::Chat);
        let id = RequestId::new(Kind::Completion, [1; 16]);
        assert_eq!(id.as_str(), "cmpl-01010101010101010101010101010101");
        assert_eq!(id.kind(), Kind::Completion);
        assert_eq!(
            JobId::new([0; 16]).as_str(),
            "job-00000000000000000000000000000000"
        );
    }

    #[test]
    fn other_spellings_are_refused() {
        let digits = "ab".repeat(16);
        assert!(format!("cmpl-{digits}").parse::<RequestId>().is_ok());
        for text in [
            digits.clone(),
            format!("cmpl-{}", digits.to_uppercase()),
            format!("cmpl-{digits}a"),
            format!("chatcmpl-cmpl-{digits}"),
            format!("job-{digits}"),
            format!(" cmpl-{digits}"),
        ] {
            assert_eq!(text.parse::<RequestId>(), Err(IdError::Request), "{text}");
        }
        assert_eq!(format!("cmpl-{digits}").parse::<JobId>(), Err(IdError::Job));
    }

    proptest! {
        #[test]
        fn round_trips(random: [u8; 16]) {
            for kind in [Kind::Chat, Kind::Completion] {
                let id = RequestId::new(kind, random);
                prop_assert_eq!(id.as_str().parse::<RequestId>(), Ok(id.clone()));
            }
            let job = JobId::new(random);
            prop_assert_eq!(job.as_str().parse::<JobId>(), Ok(job.clone()));
        }

        #[test]
        fn arbitrary_text_never_panics(text: String) {
            let _ = text.parse::<RequestId>();
            let _ = text.parse::<JobId>();
        }
    }
}
