//! The address of a gateway, as a person types it.
//!
//! Only what a signature depends on is kept: the authority, in the one
//! spelling that both sides sign (lower case, without the default port).

use std::fmt;
use std::str::FromStr;

/// `http://HOST[:PORT]`, with or without `/v1` behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseUrl {
    authority: String,
    address: http::uri::Authority,
}

/// Why an address can't be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BaseUrlError {
    /// Not `http://`.
    #[error("a gateway's address starts with http:// (https isn't spoken yet)")]
    Scheme,
    /// No host, a bad port, or a user name in it.
    #[error("a gateway's address looks like http://HOST:PORT")]
    Authority,
    /// A path other than `/` or `/v1`, or a query.
    #[error("a gateway's address ends after HOST:PORT or /v1")]
    Path,
}

impl BaseUrl {
    /// What `@authority` is in signatures, and what known gateways are listed by.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// What to connect to.
    pub(crate) fn to_authority(&self) -> http::uri::Authority {
        self.address.clone()
    }
}

impl FromStr for BaseUrl {
    type Err = BaseUrlError;

    fn from_str(text: &str) -> Result<Self, BaseUrlError> {
        let uri: http::Uri = text.trim().parse().map_err(|_| BaseUrlError::Authority)?;
        if uri.scheme_str() != Some("http") {
            return Err(BaseUrlError::Scheme);
        }
        if uri.query().is_some() || !matches!(uri.path(), "" | "/" | "/v1" | "/v1/") {
            return Err(BaseUrlError::Path);
        }
        let written = uri.authority().ok_or(BaseUrlError::Authority)?;
        let port = match written.as_str().strip_prefix(written.host()) {
            Some("" | ":") => 80,
            Some(_) => written.port_u16().ok_or(BaseUrlError::Authority)?,
            // What stands before the host is a user name.
            None => return Err(BaseUrlError::Authority),
        };
        let name = written.host().to_ascii_lowercase();
        if name.is_empty() || port == 0 {
            return Err(BaseUrlError::Authority);
        }
        let authority = match port {
            80 => name,
            _ => format!("{name}:{port}"),
        };
        Ok(BaseUrl {
            address: authority.parse().map_err(|_| BaseUrlError::Authority)?,
            authority,
        })
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.authority)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_authority_has_one_spelling() {
        for (typed, authority) in [
            ("http://127.0.0.1:8080", "127.0.0.1:8080"),
            ("http://LocalHost:8080/", "localhost:8080"),
            ("http://localhost:8080/v1", "localhost:8080"),
            ("http://example.org:80/v1/", "example.org"),
            ("http://example.org:", "example.org"),
            ("http://[::1]:8080", "[::1]:8080"),
            (" http://example.org\n", "example.org"),
        ] {
            let url: BaseUrl = typed.parse().unwrap_or_else(|e| panic!("{typed}: {e}"));
            assert_eq!(url.authority(), authority, "{typed:?}");
        }
    }

    #[test]
    fn other_addresses_are_refused() {
        for (typed, why) in [
            ("https://example.org", BaseUrlError::Scheme),
            ("example.org:8080", BaseUrlError::Scheme),
            ("", BaseUrlError::Authority),
            ("http://", BaseUrlError::Authority),
            ("http://me@example.org", BaseUrlError::Authority),
            ("http://me:secret@example.org:1", BaseUrlError::Authority),
            ("http://example.org:0", BaseUrlError::Authority),
            ("http://example.org:99999", BaseUrlError::Authority),
            ("http://example.org:x", BaseUrlError::Authority),
            ("http://example.org/api", BaseUrlError::Path),
            ("http://example.org/v1?key=1", BaseUrlError::Path),
        ] {
            assert_eq!(typed.parse::<BaseUrl>(), Err(why), "{typed:?}");
        }
    }
}
