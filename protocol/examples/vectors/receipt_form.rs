//! Receipts whose JWS isn't one, or isn't ours.

use protocol::{Did, receipt::TYP};
use serde_json::{Value, json};

use super::forge::{
    base64, base64url, did, did_text, header, hex, invalid, jws, jws_of_parts, jws_of_text, key,
    set, with_s_plus_l, with_signature, with_small_order_r, with_torsion_in_r,
};
use super::honest::{self, JOB, OTHER_JOB};

pub fn cases() -> Vec<Value> {
    [parts(), headers(), claims_json(), signatures()].concat()
}

fn wrong(name: &str, code: &str, receipt: impl Into<String>) -> Value {
    invalid(name, code, json!({ "receipt": receipt.into() }))
}

fn honest_jws() -> String {
    honest::receipt().sign(&key(JOB)).compact().to_owned()
}

fn parts() -> Vec<Value> {
    let whole = honest_jws();
    let split: Vec<&str> = whole.split('.').collect();
    let (h, c, s) = (split[0], split[1], split[2]);
    let claims = honest::claims().to_string();
    let spare_bits = {
        // The last of 86 characters holds 2 bits of the signature and 4 zeros.
        let (start, last) = s.split_at(s.len() - 1);
        let next = char::from(last.as_bytes()[0] + 1);
        format!("{h}.{c}.{start}{next}")
    };
    vec![
        wrong("empty", "jws_form", ""),
        wrong("two parts", "jws_form", format!("{h}.{c}")),
        wrong("four parts", "jws_form", format!("{whole}.")),
        wrong(
            "JSON serialization",
            "jws_form",
            json!({ "protected": h, "payload": c, "signature": s }).to_string(),
        ),
        wrong(
            "padding in the header",
            "jws_base64",
            jws_of_parts(&padded(h), c, JOB),
        ),
        wrong(
            "padding in the claims",
            "jws_base64",
            jws_of_parts(h, &padded(&base64url(format!("{claims} ").as_bytes())), JOB),
        ),
        wrong(
            "padding in the signature",
            "jws_base64",
            format!("{whole}=="),
        ),
        wrong("spare bits in the signature", "jws_base64", spare_bits),
        wrong(
            "the other alphabet",
            "jws_base64",
            jws_of_parts(
                h,
                base64(format!("{claims}   ~~~???").as_bytes()).trim_end_matches('='),
                JOB,
            ),
        ),
        wrong("a line feed at the end", "jws_base64", format!("{whole}\n")),
        wrong("a space in front", "jws_base64", format!(" {whole}")),
        wrong("no claims", "json_end", jws_of_parts(h, "", JOB)),
    ]
}

fn padded(part: &str) -> String {
    format!("{part}{}", "=".repeat((4 - part.len() % 4) % 4))
}

fn headers() -> Vec<Value> {
    let claims = honest::claims();
    let honest = header(TYP, JOB);
    let with = |name: &str, value: Value| jws(&set(&honest, name, Some(value)), &claims, JOB);
    let without = |name: &str| jws(&set(&honest, name, None), &claims, JOB);
    let text = |header: &str| jws_of_text(header, claims.to_string().as_bytes(), JOB);
    let kid = did(JOB);
    let identity = did_text([0xed, 1], &{
        let mut key = [0; 32];
        key[0] = 1;
        key
    });
    vec![
        wrong(
            "alg none with a signature",
            "jws_alg",
            with("alg", json!("none")),
        ),
        wrong(
            "alg none without a signature",
            "jws_alg",
            with_signature(&with("alg", json!("none")), b""),
        ),
        wrong("HS256 with the public key", "jws_alg", hs256()),
        wrong("alg ES256", "jws_alg", with("alg", json!("ES256"))),
        wrong("alg in lower case", "jws_alg", with("alg", json!("eddsa"))),
        wrong("alg missing", "jws_header_fields", without("alg")),
        wrong(
            "alg isn't text",
            "jws_header_fields",
            with("alg", json!(["EdDSA"])),
        ),
        wrong("typ missing", "jws_header_fields", without("typ")),
        wrong("typ JWT", "jws_typ", with("typ", json!("JWT"))),
        wrong(
            "typ in upper case",
            "jws_typ",
            with("typ", json!(TYP.to_uppercase())),
        ),
        wrong(
            "typ with its prefix",
            "jws_typ",
            with("typ", json!(format!("application/{TYP}"))),
        ),
        wrong(
            "typ of an admission",
            "jws_typ",
            with("typ", json!("countersign-admission+jwt")),
        ),
        wrong(
            "a credential",
            "jws_typ",
            honest::signed_credential().compact(),
        ),
        wrong("kid missing", "jws_header_fields", without("kid")),
        wrong(
            "extra field crit",
            "jws_header_fields",
            with("crit", json!([])),
        ),
        wrong(
            "extra field b64",
            "jws_header_fields",
            with("b64", json!(true)),
        ),
        wrong(
            "extra field jwk",
            "jws_header_fields",
            with(
                "jwk",
                json!({ "kty": "OKP", "crv": "Ed25519", "x": base64url(kid.as_bytes()) }),
            ),
        ),
        wrong(
            "extra field jku",
            "jws_header_fields",
            with("jku", json!("https://example.com/keys")),
        ),
        wrong(
            "the header is an array",
            "jws_header_fields",
            text(r#"["alg","typ","kid"]"#),
        ),
        wrong("the header isn't JSON", "json_syntax", text("alg")),
        wrong(
            "alg twice",
            "json_duplicate_key",
            text(&format!(
                r#"{{"alg":"EdDSA","alg":"EdDSA","typ":"{TYP}","kid":"{kid}"}}"#
            )),
        ),
        wrong(
            "kid twice, once escaped",
            "json_duplicate_key",
            text(&format!(
                r#"{{"alg":"EdDSA","kid":"{kid}","typ":"{TYP}","k\u0069d":"{kid}"}}"#
            )),
        ),
        wrong("kid isn't a DID", "did_form", with("kid", json!("1"))),
        wrong(
            "kid in hex",
            "did_form",
            with("kid", json!(hex(kid.as_bytes()))),
        ),
        wrong(
            "kid is a did:web",
            "did_form",
            with("kid", json!("did:web:example.com")),
        ),
        wrong(
            "kid with a fragment",
            "did_form",
            with("kid", json!(format!("{kid}#{}", &kid.to_string()[8..]))),
        ),
        wrong(
            "kid of an X25519 key",
            "did_form",
            with("kid", json!(did_text([0xec, 1], kid.as_bytes()))),
        ),
        wrong(
            "kid of small order",
            "did_small_order",
            with("kid", json!(identity)),
        ),
        wrong(
            "kid that is no point",
            "did_point",
            with("kid", json!(did_text([0xed, 1], &no_point()))),
        ),
        wrong(
            "kid in a second encoding",
            "did_point",
            with("kid", json!(did_text([0xed, 1], &second_encoding()))),
        ),
    ]
}

/// y = 2, which is on no point.
fn no_point() -> [u8; 32] {
    let mut key = [0; 32];
    key[0] = 2;
    key
}

/// A y above the field's prime that decodes to a point of full order.
pub fn second_encoding() -> [u8; 32] {
    (0xed..=0xff)
        .map(|low| {
            let mut key = [0xff; 32];
            (key[0], key[31]) = (low, 0x7f);
            key
        })
        .find(|key| {
            let decoded = ed25519_dalek::VerifyingKey::from_bytes(key);
            decoded.is_ok_and(|point| !point.is_weak()) && Did::from_bytes(*key).is_err()
        })
        .expect("there is one")
}

/// What a library takes for valid that lets the header choose the algorithm.
fn hs256() -> String {
    let header = set(&header(TYP, JOB), "alg", Some(json!("HS256")));
    let signed = format!(
        "{}.{}",
        base64url(header.to_string().as_bytes()),
        base64url(honest::claims().to_string().as_bytes())
    );
    let mac = hmac_sha256(did(JOB).as_bytes(), signed.as_bytes());
    format!("{signed}.{}", base64url(&mac))
}

/// RFC 2104, for keys of 32 bytes.
fn hmac_sha256(key: &[u8; 32], message: &[u8]) -> [u8; 32] {
    let pad = |byte: u8| {
        let mut block = [byte; 64];
        block.iter_mut().zip(key).for_each(|(b, k)| *b ^= k);
        block
    };
    let inner = protocol::Digest::of(&[&pad(0x36)[..], message].concat());
    *protocol::Digest::of(&[&pad(0x5c)[..], inner.as_bytes()].concat()).as_bytes()
}

fn claims_json() -> Vec<Value> {
    let header = header(TYP, JOB).to_string();
    let claims = honest::claims().to_string();
    let text = |claims: &str| jws_of_text(&header, claims.as_bytes(), JOB);
    let invalid_utf8 = {
        let mut bytes = claims.clone().into_bytes();
        let at = claims.find("smollm2").expect("the model's id is there");
        bytes[at] = 0xff;
        jws_of_text(&header, &bytes, JOB)
    };
    let instead = |from: &str, to: &str| {
        assert!(claims.contains(from), "{from}");
        text(&claims.replacen(from, to, 1))
    };
    vec![
        wrong(
            "a duplicate claim, equal",
            "json_duplicate_key",
            instead("{\"v\":1,", "{\"v\":1,\"v\":1,"),
        ),
        wrong(
            "a duplicate claim, other",
            "json_duplicate_key",
            instead(
                "\"finish\":\"stop\"",
                "\"finish\":\"stop\",\"finish\":\"error\"",
            ),
        ),
        wrong(
            "a duplicate claim, escaped",
            "json_duplicate_key",
            instead("{\"v\":1,", "{\"v\":1,\"\\u0076\":1,"),
        ),
        wrong(
            "claims cut short",
            "json_end",
            text(&claims[..claims.len() - 1]),
        ),
        wrong(
            "text after the claims",
            "json_trailing",
            text(&format!("{claims}{{}}")),
        ),
        wrong(
            "a byte-order mark",
            "json_syntax",
            text(&format!("\u{feff}{claims}")),
        ),
        wrong("a comment", "json_syntax", text(&format!("/**/{claims}"))),
        wrong("invalid UTF-8", "json_utf8", invalid_utf8),
        wrong(
            "a lone surrogate",
            "json_surrogate",
            instead("\"local", "\"\\ud800local"),
        ),
        wrong(
            "NaN",
            "json_syntax",
            instead("\"temperature\":1.0", "\"temperature\":NaN"),
        ),
        wrong(
            "1e400",
            "json_number",
            instead("\"temperature\":1.0", "\"temperature\":1e400"),
        ),
        wrong(
            "65 levels",
            "json_depth",
            text(&format!("{}{}", "[".repeat(65), "]".repeat(65))),
        ),
        wrong("the claims are an array", "jws_claims", text("[]")),
    ]
}

fn signatures() -> Vec<Value> {
    let whole = honest_jws();
    let (message, _) = whole.rsplit_once('.').expect("three parts");
    let message = message.as_bytes();
    let signature = key(JOB).sign(message);
    let another = key(JOB).sign(b"another message");
    let (mut high_s, mut flipped) = (signature, signature);
    high_s[63] |= 0xe0;
    flipped[0] ^= 1;
    let with = |signature: &[u8]| with_signature(&whole, signature);
    vec![
        wrong(
            "another key's signature",
            "jws_signature",
            with(&key(OTHER_JOB).sign(message)),
        ),
        wrong(
            "the signature of another message",
            "jws_signature",
            with(&another),
        ),
        wrong("one bit flipped", "jws_signature", with(&flipped)),
        wrong("zeros", "jws_signature", with(&[0; 64])),
        wrong(
            "malleable: S + L",
            "jws_signature",
            with(&with_s_plus_l(&signature)),
        ),
        wrong("S with high bits", "jws_signature", with(&high_s)),
        wrong(
            "R of small order",
            "jws_signature",
            with(&with_small_order_r(message, JOB)),
        ),
        wrong(
            "R with torsion",
            "jws_signature",
            with(&with_torsion_in_r(message, JOB)),
        ),
        wrong("63 bytes", "jws_signature_length", with(&signature[..63])),
        wrong(
            "65 bytes",
            "jws_signature_length",
            with(&[&signature[..], &[0]].concat()),
        ),
        wrong("no signature", "jws_signature_length", with(b"")),
    ]
}
