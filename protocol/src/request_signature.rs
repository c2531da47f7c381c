//! A client's signature over its HTTP request: RFC 9421 with Ed25519, and
//! which parts it must cover, how fresh it must be, for whom it is.
//!
//! Normative in `docs/spec/request-signature.md`. Start at [`sign`],
//! [`verify`] and, for those who hold a receipt alone, [`recheck`]. That a
//! nonce is used only once is the caller's to keep.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::did::Did;
use crate::digest::Digest;
use crate::key::SigningKey;
use crate::receipt::RequestLine;
use crate::time::UnixMs;

mod base;
mod error;
mod member;

pub use error::SignatureError;
use member::Member;

/// The `tag` of our signatures.
pub const TAG: &str = "countersign";

/// The label of the signatures that [`sign`] makes.
pub const LABEL: &str = "countersign";

/// Longest time between `created` and `expires`, in seconds.
pub const LIFETIME_S_MAX: u64 = 300;

/// How far `created` may lie in the future, in seconds.
pub const SKEW_S: u64 = 30;

/// The field with the body's digest, which every signature covers.
pub const CONTENT_DIGEST: &str = "content-digest";

/// What a signature covers of a request, beside its body.
#[derive(Debug, Clone, Copy)]
pub struct RequestHead<'a> {
    /// The method, as on the wire.
    pub method: &'a str,
    /// The Host field or `:authority`, without the scheme's default port
    /// ([`normalize_authority`]); its letter case doesn't matter.
    pub authority: &'a str,
    /// The path, as on the wire.
    pub path: &'a str,
    /// The query, as on the wire, without its question mark; `Some("")` if
    /// there is a question mark and nothing after it.
    pub query: Option<&'a str>,
    /// Every header field line, in order: its name in lower case, its value.
    pub headers: &'a [(&'a str, &'a str)],
}

/// The three fields that [`sign`] adds to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignatureHeaders {
    /// The value of `content-digest`.
    pub content_digest: String,
    /// The value of `signature-input`.
    pub signature_input: String,
    /// The value of `signature`.
    pub signature: String,
    /// What an honest receipt keeps of the request: its `input.request`.
    pub line: RequestLine,
}

impl SignatureHeaders {
    /// The fields to add to the request: names in lower case, values.
    pub fn fields(&self) -> [(&'static str, &str); 3] {
        [
            ("content-digest", &self.content_digest),
            ("signature-input", &self.signature_input),
            ("signature", &self.signature),
        ]
    }
}

/// What a server asks of a signature beside its form.
#[derive(Debug, Clone, Copy)]
pub struct Policy<'a> {
    /// The authorities that the server answers for, normalised.
    pub authorities: &'a [String],
}

/// A client's single-use value: 22 to 128 characters of base64 or base64url.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Nonce(String);

impl Nonce {
    /// The nonce as signed.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The bytes of its text: what [`crate::sampling::seed_from_nonce`] takes.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A signature that holds: who signed what, and until when its nonce counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedSignature {
    /// The client.
    pub did: Did,
    /// When it signed.
    pub created_s: u64,
    /// Until when the signature, and so the nonce, counts.
    pub expires_s: u64,
    /// Single-use, for this client.
    pub nonce: Nonce,
    /// The digest of the body.
    pub body_sha256: Digest,
    /// What a receipt keeps, so that anyone can check the signature again.
    pub line: RequestLine,
}

/// Signs a request. `head.headers` are those that the request already has;
/// the ones that must be covered are. `nonce` is 128 fresh random bits.
pub fn sign(
    key: &SigningKey,
    head: &RequestHead<'_>,
    body: &[u8],
    created_s: u64,
    expires_s: u64,
    nonce: [u8; 16],
) -> SignatureHeaders {
    let mut line = line_of(head);
    let content_digest = content_digest(&Digest::of(body));
    line.headers
        .insert(CONTENT_DIGEST.to_owned(), content_digest.clone());
    let member = Member::ours(&line, created_s, expires_s, nonce, key.did());
    let signature = key.sign(base::of(&member, &line).as_bytes());
    let signature = member::signature_text(LABEL, &signature);
    line.signature_input = Some(member.text.clone());
    line.signature = Some(signature.clone());
    SignatureHeaders {
        content_digest,
        signature_input: member.text,
        signature,
        line,
    }
}

/// Checks a request's signature, all but the single use of its nonce.
/// `Ok(None)` if no signature has our tag: the request is unsigned.
pub fn verify(
    head: &RequestHead<'_>,
    body: &[u8],
    now: UnixMs,
    policy: &Policy<'_>,
) -> Result<Option<VerifiedSignature>, SignatureError> {
    let Some(inputs) = combined(head, "signature-input") else {
        return Ok(None);
    };
    let Some(member) = Member::find(&inputs)? else {
        return Ok(None);
    };
    let signatures = combined(head, "signature").unwrap_or_default();
    let signature = member::find_signature(&signatures, &member.label)?;
    let mut line = line_of(head);
    let base = base::checked(&member, &line)?;
    if !policy.authorities.contains(&line.authority) {
        return Err(SignatureError::Authority(line.authority));
    }
    member.check_lifetime()?;
    member.check_clock(now)?;
    let body_sha256 = Digest::of(body);
    check_content_digest(&line, &body_sha256)?;
    if !member.keyid.verify(base.as_bytes(), &signature) {
        return Err(SignatureError::Signature);
    }
    line.signature = Some(member::signature_text(&member.label, &signature));
    line.signature_input = Some(member.text.clone());
    Ok(Some(member.verified(line, body_sha256)))
}

/// Checks the signature that a receipt keeps, with nothing but the receipt:
/// everything that [`verify`] checks but the clock and the server's authorities.
pub fn recheck(
    line: &RequestLine,
    body_sha256: &Digest,
    client: &Did,
) -> Result<VerifiedSignature, SignatureError> {
    let input = line.signature_input.as_deref().unwrap_or_default();
    let member = Member::find(input)?.ok_or(SignatureError::InputForm)?;
    // One spelling only: what a verifier writes into a receipt. // spec 6.2
    if member.text != input {
        return Err(SignatureError::InputForm);
    }
    let text = line.signature.as_deref().unwrap_or_default();
    let signature = member::find_signature(text, &member.label)?;
    if member::signature_text(&member.label, &signature) != text {
        return Err(SignatureError::SignatureForm {
            label: member.label,
        });
    }
    if member.keyid != *client {
        return Err(SignatureError::Client {
            expected: *client,
            found: member.keyid,
        });
    }
    let base = base::checked(&member, line)?;
    member.check_lifetime()?;
    check_content_digest(line, body_sha256)?;
    if !client.verify(base.as_bytes(), &signature) {
        return Err(SignatureError::Signature);
    }
    Ok(member.verified(line.clone(), *body_sha256))
}

/// The authority as it is signed: in lower case, and without `default_port`
/// (80 where the scheme is http, 443 where it is https).
pub fn normalize_authority(authority: &str, default_port: Option<u16>) -> String {
    let authority = authority.to_ascii_lowercase();
    let port = default_port.map(|port| format!(":{port}"));
    match port.and_then(|port| authority.strip_suffix(&port).map(str::to_owned)) {
        Some(host) if !host.is_empty() => host,
        _ => authority,
    }
}

/// The value of Content-Digest for a body with this digest.
pub fn content_digest(body: &Digest) -> String {
    format!("sha-256=:{}:", STANDARD.encode(body.as_bytes()))
}

/// The request's line with the fields that a signature must cover. // spec 3.2
fn line_of(head: &RequestHead<'_>) -> RequestLine {
    let mut line = RequestLine::unsigned(
        head.method,
        &normalize_authority(head.authority, None),
        head.path,
        head.query,
    );
    for (name, _) in head.headers {
        if base::is_coverable_field(name)
            && !line.headers.contains_key(*name)
            && let Some(value) = combined(head, name)
        {
            line.headers.insert((*name).to_owned(), value);
        }
    }
    line
}

/// The value of a field: its lines, trimmed and joined. // spec 3.4
fn combined(head: &RequestHead<'_>, name: &str) -> Option<String> {
    let lines: Vec<&str> = head
        .headers
        .iter()
        .filter(|(found, _)| *found == name)
        .map(|(_, value)| value.trim_matches([' ', '\t']))
        .collect();
    (!lines.is_empty()).then(|| lines.join(", "))
}

/// Whether the covered Content-Digest is this digest. // spec 2.1, 2.2
fn check_content_digest(line: &RequestLine, body_sha256: &Digest) -> Result<(), SignatureError> {
    let stated = line
        .headers
        .get(CONTENT_DIGEST)
        .and_then(|field| sfv::Parser::new(field).parse::<sfv::Dictionary>().ok())
        .and_then(|field| match field.get("sha-256") {
            Some(sfv::ListEntry::Item(item)) => item
                .bare_item
                .as_byte_sequence()
                .and_then(|bytes| bytes.try_into().ok())
                .map(Digest::from_bytes),
            _ => None,
        })
        .ok_or(SignatureError::ContentDigestForm)?;
    if stated != *body_sha256 {
        return Err(SignatureError::ContentDigest);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
