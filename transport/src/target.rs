//! What a request was sent to: authority, path and query, as signatures
//! cover them.
//!
//! One answer for HTTP/1.1 (`Host`, or an absolute target) and HTTP/2
//! (`:authority`). Two different answers in one request are an error.

use http::header::HOST;
use http::uri::Authority;
use http::{HeaderMap, Request, Uri, request};

/// The target of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestTarget<'a> {
    /// Host and port, as RFC 9421 has `@authority`: lower case, without the
    /// scheme's default port.
    pub authority: String,
    /// The path, byte for byte as on the wire.
    pub path: &'a str,
    /// The query after the `?`, byte for byte as on the wire. `Some("")` when
    /// the target ends in `?`.
    pub query: Option<&'a str>,
}

impl<'a> RequestTarget<'a> {
    /// The target of a request that a listener gave us.
    pub fn of<B>(request: &'a Request<B>) -> Result<Self, TargetError> {
        Self::from_head(request.uri(), request.headers())
    }

    /// The same of a request that was taken apart.
    pub fn of_parts(parts: &'a request::Parts) -> Result<Self, TargetError> {
        Self::from_head(&parts.uri, &parts.headers)
    }

    fn from_head(uri: &'a Uri, headers: &HeaderMap) -> Result<Self, TargetError> {
        let mut hosts = headers.get_all(HOST).iter();
        let host = match (hosts.next(), hosts.next()) {
            (_, Some(_)) => return Err(TargetError::SeveralHosts),
            (None, None) => None,
            (Some(host), None) => {
                let host = host.to_str().ok().and_then(|host| host.parse().ok());
                Some(normal(&host.ok_or(TargetError::Malformed)?)?)
            }
        };
        let authority = uri.authority().map(normal).transpose()?;
        let authority = match (host, authority) {
            (Some(host), Some(authority)) if host != authority => {
                return Err(TargetError::Disagree);
            }
            (Some(same), _) | (None, Some(same)) => same,
            (None, None) => return Err(TargetError::Missing),
        };
        Ok(Self {
            authority,
            path: uri.path(),
            query: uri.query(),
        })
    }
}

/// Our listeners are cleartext, so the default port is 80.
fn normal(authority: &Authority) -> Result<String, TargetError> {
    let host = authority.host();
    if authority.as_str().contains('@') || host.is_empty() {
        return Err(TargetError::Malformed);
    }
    let host = host.to_ascii_lowercase();
    let Some(port) = authority.as_str()[host.len()..].strip_prefix(':') else {
        return Ok(host);
    };
    if !port.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(TargetError::Malformed);
    }
    match (port, authority.port_u16()) {
        ("", _) | (_, Some(80)) => Ok(host),
        (_, Some(port)) => Ok(format!("{host}:{port}")),
        (_, None) => Err(TargetError::Malformed),
    }
}

/// Why a request's authority can't be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Neither a `Host` header nor an authority in the target.
    #[error("the request names no authority")]
    Missing,
    /// More than one `Host` header.
    #[error("the request has several Host headers")]
    SeveralHosts,
    /// Not a host with an optional port.
    #[error("the request's authority is malformed")]
    Malformed,
    /// `Host` and the target's authority differ.
    #[error("the Host header and the target's authority differ")]
    Disagree,
}
