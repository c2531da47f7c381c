//! The client's side: signs requests, streams answers, and believes one only
//! if its receipt holds.
//!
//! [`Client`] asks, [`check`] judges (pure, every rule by name), [`Trust`] and
//! [`known`] say whose keys and which models count, [`save`] keeps the
//! evidence. Nothing here serves, and no model is linked.

#![forbid(unsafe_code)]

pub mod answer;
mod ask;
mod base_url;
pub mod check;
mod client;
mod clock;
pub mod keyfile;
pub mod known;
mod reply;
pub mod save;
mod trust;

pub use ask::ChatAsk;
pub use base_url::{BaseUrl, BaseUrlError};
pub use check::{Check, Rejection};
pub use client::{Client, ClientError};
pub use reply::{Fault, Received, Reply, ReplyLimits, Sent, reread};
pub use transport::Http;
pub use trust::{Accepted, Trust};
