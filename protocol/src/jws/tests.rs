//! Compact JWS: round trips, and that no changed byte passes. Each rule's own
//! vectors are in `protocol/vectors/receipts.json`.

use proptest::prelude::*;

use super::*;

const TYP: &str = "test+jwt";

fn key() -> SigningKey {
    SigningKey::from_seed([5; 32])
}

fn read(compact: &str) -> Result<Value, JwsError> {
    let jws = Unverified::parse(compact, TYP, 1000)?;
    jws.verify(&key().did())?;
    jws.claims()
}

#[test]
fn what_is_signed_is_read() {
    let claims = json!({ "v": 1, "text": "é", "list": [1.5, true] });
    assert_eq!(read(&sign(&key(), TYP, &claims)), Ok(claims));
}

#[test]
fn the_header_says_exactly_three_things() {
    let compact = sign(&key(), TYP, &json!({}));
    let header = decode("header", compact.split('.').next().unwrap()).unwrap();
    let did = key().did();
    assert_eq!(
        String::from_utf8(header).unwrap(),
        format!(r#"{{"alg":"EdDSA","typ":"test+jwt","kid":"{did}"}}"#)
    );
}

#[test]
fn another_key_or_type_is_refused() {
    let other = SigningKey::from_seed([6; 32]);
    let error = read(&sign(&other, TYP, &json!({}))).unwrap_err();
    assert_eq!(error.code(), "jws_key");
    let error = read(&sign(&key(), "other+jwt", &json!({}))).unwrap_err();
    assert_eq!(error.code(), "jws_typ");
}

#[test]
fn length_is_bounded() {
    let compact = sign(&key(), TYP, &json!({ "text": "x".repeat(1000) }));
    assert_eq!(read(&compact).unwrap_err().code(), "jws_too_long");
}

proptest! {
    #[test]
    fn round_trips(seed: [u8; 32], text: String, number in -INTEGER_MAX_I64..=INTEGER_MAX_I64) {
        let key = SigningKey::from_seed(seed);
        let claims = json!({ "text": text, "number": number });
        let jws = Unverified::parse(&sign(&key, TYP, &claims), TYP, 100_000).unwrap();
        prop_assert_eq!(jws.verify(&key.did()), Ok(()));
        prop_assert_eq!(jws.claims::<Value>().unwrap(), claims);
    }

    #[test]
    fn no_changed_character_passes(at: prop::sample::Index, with in "[A-Za-z0-9_.=+/-]") {
        let mut compact = sign(&key(), TYP, &json!({ "v": 1, "text": "some text" }));
        let at = at.index(compact.len());
        prop_assume!(compact[at..=at] != with);
        compact.replace_range(at..=at, &with);
        prop_assert!(read(&compact).is_err());
    }

    #[test]
    fn arbitrary_text_never_panics(text in "[A-Za-z0-9_-]{0,40}(\\.[A-Za-z0-9_=-]{0,40}){0,4}") {
        prop_assert!(read(&text).is_err());
    }
}

const INTEGER_MAX_I64: i64 = INTEGER_MAX as i64;
