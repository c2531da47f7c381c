//! The signature base of RFC 9421: which components a signature may and must
//! cover, and the exact bytes that are signed.

use crate::admission;
use crate::receipt::RequestLine;
use crate::request_signature::{CONTENT_DIGEST, Member, SignatureError};

/// Longest signature base that is checked, in bytes.
pub(super) const BYTES_MAX: usize = 8192;

/// The fields that must be covered when present, beside our own.
const FIELDS: [&str; 4] = [
    CONTENT_DIGEST,
    "content-type",
    "content-encoding",
    "idempotency-key",
];

/// Our own fields begin so.
const OWN_PREFIX: &str = "countersign-";

/// Whether a field, by its lower-case name, may be covered, and so must be
/// when present. // spec 3.2
pub(super) fn is_coverable_field(name: &str) -> bool {
    FIELDS.contains(&name) || (name.starts_with(OWN_PREFIX) && name != admission::HEADER)
}

/// Whether a component may be covered. // spec 3.1
pub(super) fn is_coverable(name: &str) -> bool {
    matches!(name, "@method" | "@authority" | "@path" | "@query") || is_coverable_field(name)
}

/// The components that a signature of this request must cover, in the order
/// in which our own signer names them. // spec 3.2
pub(super) fn required(line: &RequestLine) -> Vec<String> {
    let derived = ["@method", "@authority", "@path"].into_iter();
    let query = line.query.is_some().then_some("@query");
    let mut names: Vec<String> = derived.chain(query).map(str::to_owned).collect();
    names.push(CONTENT_DIGEST.to_owned());
    names.extend(
        line.headers
            .keys()
            .filter(|name| *name != CONTENT_DIGEST)
            .cloned(),
    );
    names
}

/// The base, if the signature covers what it must and the values can be signed.
pub(super) fn checked(member: &Member, line: &RequestLine) -> Result<String, SignatureError> {
    if let Some(name) = required(line)
        .into_iter()
        .find(|name| !member.components.contains(name))
    {
        return Err(SignatureError::Uncovered(name));
    }
    for name in &member.components {
        let value = value(name, line).ok_or_else(|| SignatureError::FieldMissing(name.clone()))?;
        if !is_plain(&value) {
            return Err(SignatureError::FieldValue(name.clone()));
        }
    }
    let base = of(member, line);
    if base.len() > BYTES_MAX {
        return Err(SignatureError::TooLong {
            what: "the signature base",
            limit: BYTES_MAX,
        });
    }
    Ok(base)
}

/// The bytes that are signed. // spec 3.6
pub(super) fn of(member: &Member, line: &RequestLine) -> String {
    let mut base = String::new();
    for name in &member.components {
        let value = value(name, line).unwrap_or_default();
        base.push_str(&format!("\"{name}\": {value}\n"));
    }
    base.push_str("\"@signature-params\": ");
    base.push_str(member.params_text());
    base
}

/// A component's value. // spec 3.3, 3.4
fn value(name: &str, line: &RequestLine) -> Option<String> {
    match name {
        "@method" => Some(line.method.clone()),
        "@authority" => Some(line.authority.clone()),
        "@path" => Some(line.path.clone()),
        "@query" => Some(format!("?{}", line.query.as_deref().unwrap_or_default())),
        field => line.headers.get(field).cloned(),
    }
}

/// Whether a value is visible ASCII, spaces and tabs: no line can be smuggled in. // spec 3.5
fn is_plain(value: &str) -> bool {
    value
        .bytes()
        .all(|byte| matches!(byte, b'\t' | b' '..=b'~'))
}
