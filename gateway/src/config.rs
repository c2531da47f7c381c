//! The gateway's settings, and the rules that they must keep.
//!
//! Pure: [`GatewayConfig::check`] reports every fault at once, before anything
//! is bound. A bad setting stops the program, it never falls back to another.

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::num::{NonZeroU64, NonZeroUsize};

use protocol::Did;
use protocol::request_signature::normalize_authority;
use serde::Deserialize;

/// Where the gateway listens and whom it lets in.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GatewayConfig {
    /// Where clients ask. Port 0 takes any free one.
    pub http: SocketAddr,
    /// Where health and metrics are told. Port 0 takes any free one.
    pub admin: SocketAddr,
    /// The names that clients ask for, as `host` or `host:port`. None: the
    /// bound address and localhost, with the bound port.
    #[serde(default)]
    pub authorities: Vec<String>,
    /// Refuse unsigned requests on loopback too.
    #[serde(default)]
    pub require_signed: bool,
    /// Accept unsigned requests wherever they come from.
    #[serde(default)]
    pub allow_unsigned: bool,
    /// Who may ask. Naming somebody shuts everybody else out, the unsigned
    /// too unless `allow_unsigned` is said.
    #[serde(default)]
    pub allow_dids: BTreeSet<Did>,
    /// How much one client, and all of them, may ask for.
    #[serde(default)]
    pub limits: GatewayLimits,
    /// Limits of the listeners.
    #[serde(default)]
    pub transport: transport::Limits,
}

/// Bounds on requests, all of them per process.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GatewayLimits {
    /// The longest request body. Read into memory before anything else, and
    /// parsed whole: so it also bounds how long a bad one keeps us busy. A
    /// conversation of 128k tokens fits into the default.
    pub body_bytes_max: NonZeroUsize,
    /// Requests in flight, draining ones included; more are refused with 503.
    pub requests_max: NonZeroUsize,
    /// How long a request's body may take to arrive.
    pub body_ms_max: NonZeroU64,
    /// Events that a client may leave unread before its engine is held up.
    pub events_unread_max: NonZeroUsize,
    /// How long a client may leave those unread before it counts as gone.
    pub unread_s_max: NonZeroU64,
    /// How long one request may take in all before it is cancelled.
    pub request_s_max: NonZeroU64,
    /// How long a cancelled request has to hand over its receipt.
    pub cancel_s_max: NonZeroU64,
    /// The longest event of an engine's stream.
    pub event_bytes_max: NonZeroUsize,
    /// The longest reply of an engine that isn't a stream.
    pub reply_bytes_max: NonZeroUsize,
}

/// Who has to sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signatures {
    Required,
    Optional,
}

/// All that is wrong with a configuration.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigFaults(pub Vec<ConfigFault>);

/// One thing that is wrong with a configuration.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigFault {
    /// Unsigned requests are both forbidden and allowed.
    #[error("require_signed and allow_unsigned contradict each other")]
    SignedAndUnsigned,
    /// Signatures are required, but nobody's are accepted.
    #[error("signatures are required, but allow_dids names nobody who may ask")]
    NobodyMayAsk,
    /// The listeners would be one.
    #[error("http and admin are the same address, {0}")]
    SameAddress(SocketAddr),
    /// Not a host, or a host with a port.
    #[error("{0:?} isn't an authority: say host or host:port, in lower case, without a scheme")]
    Authority(String),
}

impl Default for GatewayLimits {
    fn default() -> Self {
        Self {
            body_bytes_max: size(1 << 20),
            requests_max: size(256),
            body_ms_max: time(30_000),
            events_unread_max: NonZeroUsize::new(64).expect("isn't zero"),
            unread_s_max: time(120),
            request_s_max: time(3600),
            cancel_s_max: time(10),
            event_bytes_max: size(4 << 20),
            reply_bytes_max: size(64 << 20),
        }
    }
}

fn size(value: usize) -> NonZeroUsize {
    NonZeroUsize::new(value).expect("default limits aren't zero")
}

fn time(value: u64) -> NonZeroU64 {
    NonZeroU64::new(value).expect("default limits aren't zero")
}

impl GatewayConfig {
    /// A configuration with every default, for these two addresses.
    pub fn new(http: SocketAddr, admin: SocketAddr) -> Self {
        Self {
            http,
            admin,
            authorities: Vec::new(),
            require_signed: false,
            allow_unsigned: false,
            allow_dids: BTreeSet::new(),
            limits: GatewayLimits::default(),
            transport: transport::Limits::default(),
        }
    }

    /// Every fault, not just the first.
    pub fn check(&self) -> Result<(), ConfigFaults> {
        let mut faults = Vec::new();
        if self.require_signed && self.allow_unsigned {
            faults.push(ConfigFault::SignedAndUnsigned);
        }
        if self.signatures() == Signatures::Required && self.allow_dids.is_empty() {
            faults.push(ConfigFault::NobodyMayAsk);
        }
        if self.http == self.admin && self.http.port() != 0 {
            faults.push(ConfigFault::SameAddress(self.http));
        }
        faults.extend(
            (self.authorities.iter())
                .filter(|authority| !is_authority(authority))
                .map(|authority| ConfigFault::Authority(authority.clone())),
        );
        match faults.is_empty() {
            true => Ok(()),
            false => Err(ConfigFaults(faults)),
        }
    }

    /// Whether unsigned requests are answered.
    pub fn accepts_unsigned(&self) -> bool {
        self.signatures() == Signatures::Optional
    }

    /// Unsigned requests are accepted on loopback, where nobody else can ask,
    /// and elsewhere only if it is said.
    pub(crate) fn signatures(&self) -> Signatures {
        let open = self.http.ip().is_loopback() && self.allow_dids.is_empty();
        match self.allow_unsigned || (open && !self.require_signed) {
            true => Signatures::Optional,
            false => Signatures::Required,
        }
    }

    /// The names that this gateway answers to, once it knows its port.
    pub(crate) fn authorities_at(&self, bound: SocketAddr) -> Vec<String> {
        if !self.authorities.is_empty() {
            let normal = |name: &String| normalize_authority(name, Some(80));
            return self.authorities.iter().map(normal).collect();
        }
        // A client leaves out the port that its scheme implies.
        let with_port = |host: String| match bound.port() {
            80 => host,
            port => format!("{host}:{port}"),
        };
        let host = match bound {
            SocketAddr::V4(v4) => v4.ip().to_string(),
            SocketAddr::V6(v6) => format!("[{}]", v6.ip()),
        };
        let mut names = vec![with_port(host), with_port("localhost".to_owned())];
        if bound.ip().is_unspecified() {
            names.push(with_port("127.0.0.1".to_owned()));
            names.push(with_port("[::1]".to_owned()));
        }
        names
    }
}

fn is_authority(text: &str) -> bool {
    let Ok(parsed) = text.parse::<http::uri::Authority>() else {
        return false;
    };
    let port_is_whole = match text.strip_prefix(parsed.host()) {
        Some("") => true,
        Some(port) => port.starts_with(':') && parsed.port_u16().is_some(),
        None => false,
    };
    port_is_whole && !text.bytes().any(|byte| byte.is_ascii_uppercase())
}

impl fmt::Display for ConfigFaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, fault) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str("; ")?;
            }
            write!(f, "{fault}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn did() -> Did {
        protocol::SigningKey::from_seed([7; 32]).did()
    }

    fn config(http: &str) -> GatewayConfig {
        GatewayConfig::new(http.parse().unwrap(), "127.0.0.1:0".parse().unwrap())
    }

    #[test]
    fn all_faults_are_told_together() {
        let mut bad = config("127.0.0.1:80");
        bad.admin = bad.http;
        bad.require_signed = true;
        bad.allow_unsigned = true;
        bad.authorities = [
            "a.example",
            "http://a",
            "a:b",
            "A.example",
            "",
            "u@h",
            "h:99999",
        ]
        .map(String::from)
        .to_vec();
        let text = bad.check().unwrap_err().to_string();
        assert_eq!(text.matches("; ").count(), 7, "{text}");
        assert!(!text.contains("\"a.example\""), "{text}");
    }

    #[test]
    fn who_has_to_sign() {
        let cases = [
            // address, require, allow unsigned, DIDs named → Required
            ("127.0.0.1:0", false, false, false, false),
            ("127.0.0.1:0", true, false, true, true),
            ("[::1]:0", false, false, true, true),
            ("127.0.0.1:0", false, true, true, false),
            ("0.0.0.0:0", false, false, true, true),
            ("0.0.0.0:0", false, true, false, false),
        ];
        for (http, require_signed, allow_unsigned, named, required) in cases {
            let mut config = config(http);
            config.require_signed = require_signed;
            config.allow_unsigned = allow_unsigned;
            config.allow_dids.extend(named.then(did));
            let said = config.signatures() == Signatures::Required;
            assert_eq!(said, required, "{config:?}");
            config.check().unwrap();
        }
    }

    #[test]
    fn any_key_is_nobody_in_particular() {
        let everybody = config("0.0.0.0:8080");
        assert_eq!(
            everybody.check(),
            Err(ConfigFaults(vec![ConfigFault::NobodyMayAsk]))
        );
    }

    #[test]
    fn answers_to_its_address_and_to_localhost() {
        let at = |text: &str| config(text).authorities_at(text.parse().unwrap());
        assert_eq!(at("127.0.0.1:8080"), ["127.0.0.1:8080", "localhost:8080"]);
        assert_eq!(at("[::1]:8080"), ["[::1]:8080", "localhost:8080"]);
        assert_eq!(at("127.0.0.1:80"), ["127.0.0.1", "localhost"]);
        assert!(at("0.0.0.0:8080").contains(&"127.0.0.1:8080".to_owned()));
        let mut named = config("0.0.0.0:8080");
        named.authorities = vec!["a.example:80".to_owned(), "b.example:81".to_owned()];
        assert_eq!(
            named.authorities_at(named.http),
            ["a.example", "b.example:81"]
        );
    }
}
