//! Makes signed texts from parts, right or wrong.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use curve25519_dalek::EdwardsPoint;
use curve25519_dalek::constants::{ED25519_BASEPOINT_TABLE, EIGHT_TORSION};
use curve25519_dalek::scalar::Scalar;
use protocol::{Did, SigningKey};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha512};

pub fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed([seed; 32])
}

pub fn did(seed: u8) -> Did {
    key(seed).did()
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn base64url(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

pub fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// The text of a did:key for any bytes.
pub fn did_text(codec: [u8; 2], key: &[u8]) -> String {
    format!(
        "did:key:z{}",
        bs58::encode([&codec[..], key].concat()).into_string()
    )
}

/// The header that a key's statement has.
pub fn header(typ: &str, seed: u8) -> Value {
    json!({ "alg": "EdDSA", "typ": typ, "kid": did(seed) })
}

/// A JWS of any header and claims, with this key's signature.
pub fn jws(header: &Value, claims: &Value, seed: u8) -> String {
    jws_of_text(&header.to_string(), claims.to_string().as_bytes(), seed)
}

pub fn jws_of_text(header: &str, claims: &[u8], seed: u8) -> String {
    jws_of_parts(&base64url(header.as_bytes()), &base64url(claims), seed)
}

pub fn jws_of_parts(header: &str, claims: &str, seed: u8) -> String {
    let signed = format!("{header}.{claims}");
    let signature = key(seed).sign(signed.as_bytes());
    format!("{signed}.{}", base64url(&signature))
}

/// Another signature for the same JWS.
pub fn with_signature(compact: &str, signature: &[u8]) -> String {
    let (signed, _) = compact.rsplit_once('.').expect("three parts");
    format!("{signed}.{}", base64url(signature))
}

/// The claims of a JWS.
pub fn claims_of(compact: &str) -> Value {
    let claims = compact.split('.').nth(1).expect("three parts");
    let bytes = URL_SAFE_NO_PAD.decode(claims).expect("base64url");
    serde_json::from_slice(&bytes).expect("JSON")
}

/// Sets the member at a path such as `input/request/method`, or removes it.
pub fn set(claims: &Value, path: &str, value: Option<Value>) -> Value {
    let mut changed = claims.clone();
    let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
    let pointer = if parent.is_empty() {
        String::new()
    } else {
        format!("/{parent}")
    };
    let parent = changed
        .pointer_mut(&pointer)
        .expect("the path's parent is there");
    match (parent, value) {
        (Value::Object(members), Some(value)) => {
            members.insert(name.to_owned(), value);
        }
        (Value::Object(members), None) => {
            members.shift_remove(name).expect("the member is there");
        }
        _ => unreachable!("paths lead through objects"),
    }
    changed
}

/// The same signature with S + L for S: it satisfies the same equation.
pub fn with_s_plus_l(signature: &[u8; 64]) -> [u8; 64] {
    const L: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde,
        0x14, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let mut changed = *signature;
    let mut carry = 0;
    for (byte, add) in changed[32..].iter_mut().zip(L) {
        let sum = u16::from(*byte) + u16::from(add) + carry;
        (*byte, carry) = (sum.to_le_bytes()[0], sum >> 8);
    }
    assert_eq!(carry, 0, "S + L fits 256 bits");
    changed
}

/// A signature with R = 0 that satisfies the equation: only a check of R's order refuses it.
pub fn with_small_order_r(message: &[u8], seed: u8) -> [u8; 64] {
    equation(message, seed, Scalar::ZERO, EIGHT_TORSION[0])
}

/// A signature with a point of order 8 added to R: it satisfies the equation
/// times the cofactor, and only that.
pub fn with_torsion_in_r(message: &[u8], seed: u8) -> [u8; 64] {
    equation(message, seed, Scalar::from(12_345_u64), EIGHT_TORSION[1])
}

fn equation(message: &[u8], seed: u8, r: Scalar, torsion: EdwardsPoint) -> [u8; 64] {
    let secret = ed25519_dalek::SigningKey::from_bytes(&[seed; 32]);
    let point = (&r * ED25519_BASEPOINT_TABLE + torsion)
        .compress()
        .to_bytes();
    let mut hash = Sha512::new();
    hash.update(point);
    hash.update(secret.verifying_key().as_bytes());
    hash.update(message);
    let k = Scalar::from_bytes_mod_order_wide(&hash.finalize().into());
    let s = r + k * secret.to_scalar();
    let mut signature = [0; 64];
    signature[..32].copy_from_slice(&point);
    signature[32..].copy_from_slice(s.as_bytes());
    signature
}

/// A valid case: its members with `error: null`.
pub fn valid(name: impl Into<String>, members: Value) -> Value {
    case(name.into(), Value::Null, members)
}

/// An invalid case: its members with the code that it gives.
pub fn invalid(name: impl Into<String>, code: &str, members: Value) -> Value {
    case(name.into(), json!(code), members)
}

fn case(name: String, error: Value, members: Value) -> Value {
    let mut case = json!({ "name": name, "error": error });
    case.as_object_mut()
        .expect("just made as one")
        .extend(members.as_object().cloned().expect("members are an object"));
    case
}
