//! What is signed or sent: ids, digests, keys, request signatures, receipts,
//! credentials, admissions, verdicts, the request bodies and the model manifests.
//!
//! Pure: no clock, no I/O, no async and no randomness. Times, nonces and salts
//! come in as arguments, so that every signed byte can be tested as a vector.
//! The formats are normative in `docs/spec/`; start at [`receipt`] and
//! [`request_signature`].

#![forbid(unsafe_code)]

pub mod admission;
pub mod api;
pub mod calls;
pub mod credential;
pub mod did;
pub mod digest;
pub mod ids;
pub mod json;
pub mod jws;
pub mod key;
pub mod manifest;
pub mod receipt;
pub mod request_signature;
pub mod sampling;
pub mod time;
pub mod verdict;

pub use did::Did;
pub use digest::{Digest, ModelDigest};
pub use ids::{JobId, Kind, RequestId};
pub use key::SigningKey;
pub use time::UnixMs;
