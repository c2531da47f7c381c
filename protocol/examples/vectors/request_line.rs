//! `request-lines.json`: what a receipt keeps of a request, right and wrong.

use protocol::Digest;
use protocol::receipt::RequestLine;
use serde_json::{Value, json};

use super::forge::{base64, did, invalid, key, valid};
use super::honest::{self, BODY, CLIENT, OTHER_CLIENT};

const ABOUT: &str = "docs/spec/request-signature.md, 6.2: check that `client` signed `request`, \
    with a body whose SHA-256 is `body_sha256`. `error` is null, or the code that the first \
    failing rule gives.";

pub fn file() -> String {
    let common = json!({
        "client": did(CLIENT),
        "body_sha256": Digest::of(BODY.as_bytes()),
    });
    super::file(ABOUT, common, cases())
}

fn cases() -> Vec<Value> {
    let honest = honest::client_line;
    let changed = |name: &str, code: &str, change: &dyn Fn(&mut RequestLine)| {
        let mut line = honest();
        change(&mut line);
        invalid(name, code, json!({ "request": line }))
    };
    let input = |name: &str, code: &str, from: &str, to: &str| {
        changed(name, code, &|line| {
            let text = line.signature_input.take().expect("the line is signed");
            assert!(text.contains(from), "{from}");
            line.signature_input = Some(text.replacen(from, to, 1));
        })
    };
    let signature = |name: &str, code: &str, text: String| {
        changed(name, code, &|line| line.signature = Some(text.clone()))
    };
    let header = |name: &str, code: &str, field: &str, value: &str| {
        changed(name, code, &|line| {
            line.headers.insert(field.to_owned(), value.to_owned());
        })
    };
    let text = honest().signature.expect("the line is signed");
    let other = base64(&key(CLIENT).sign(b"another message"));
    let digest = format!("sha-256=:{}:", base64(Digest::of(b"{}").as_bytes()));
    vec![
        valid("a client's request", json!({ "request": honest() })),
        invalid(
            "another client",
            "signature_client",
            json!({ "request": honest(), "client": did(OTHER_CLIENT) }),
        ),
        invalid(
            "another body",
            "content_digest_mismatch",
            json!({ "request": honest(), "body_sha256": "0".repeat(64) }),
        ),
        invalid(
            "an unsigned request",
            "signature_input_form",
            json!({ "request": honest::unsigned_line() }),
        ),
        changed("no signature", "signature_form", &|line| {
            line.signature = None
        }),
        changed("no signature_input", "signature_input_form", &|line| {
            line.signature_input = None
        }),
        input(
            "a space in signature_input",
            "signature_input_form",
            ";created",
            "; created",
        ),
        input(
            "a space after signature_input",
            "signature_input_form",
            "tag=\"countersign\"",
            "tag=\"countersign\" ",
        ),
        input(
            "another member in signature_input",
            "signature_input_form",
            "countersign=(",
            "a=1, countersign=(",
        ),
        input(
            "without our tag",
            "signature_input_form",
            ";tag=\"countersign\"",
            "",
        ),
        input(
            "another label",
            "signature_form",
            "countersign=(",
            "other=(",
        ),
        input(
            "another nonce",
            "signature_invalid",
            "nonce=\"B",
            "nonce=\"C",
        ),
        input(
            "another lifetime",
            "signature_lifetime",
            "expires=1767225660",
            "expires=1767225901",
        ),
        input(
            "an uncovered field",
            "signature_uncovered",
            " \"content-type\"",
            "",
        ),
        input(
            "a component that can't be covered",
            "signature_component",
            "\"content-type\"",
            "\"date\"",
        ),
        signature(
            "a space after the signature",
            "signature_form",
            format!("{text} "),
        ),
        signature(
            "the signature without padding",
            "signature_form",
            text.replace("==:", ":"),
        ),
        signature(
            "another member in the signature",
            "signature_form",
            format!("a=1, {text}"),
        ),
        signature(
            "another message's signature",
            "signature_invalid",
            format!("countersign=:{other}:"),
        ),
        header(
            "another content type",
            "signature_invalid",
            "content-type",
            "text/plain",
        ),
        header(
            "another digest",
            "content_digest_mismatch",
            "content-digest",
            &digest,
        ),
        header(
            "a field that isn't covered",
            "signature_uncovered",
            "idempotency-key",
            "k",
        ),
        header(
            "a field that can't be covered",
            "signature_uncovered",
            "authorization",
            "Bearer x",
        ),
        changed(
            "a covered field missing",
            "signature_field_missing",
            &|line| {
                line.headers.remove("content-type");
            },
        ),
        changed("another method", "signature_invalid", &|line| {
            line.method = "GET".to_owned()
        }),
        changed("another authority", "signature_invalid", &|line| {
            line.authority = "127.0.0.1:8080".to_owned()
        }),
        changed(
            "the authority in upper case",
            "signature_invalid",
            &|line| line.authority = "LOCALHOST:8080".to_owned(),
        ),
        changed("another path", "signature_invalid", &|line| {
            line.path.push('/')
        }),
        changed("a query", "signature_uncovered", &|line| {
            line.query = Some(String::new())
        }),
    ]
}
