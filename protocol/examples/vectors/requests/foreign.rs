//! Requests that other implementations signed: PyPI `http-message-signatures`
//! 3.0.0 and npm `http-message-signatures` 1.0.6, with the client's key.

use serde_json::{Value, json};

use super::super::forge::{did, valid};
use super::super::honest::CLIENT;

const BODY: &str = r#"{"model":"m","messages":[{"role":"user","content":"hi"}]}"#;
const DIGEST: &str = "sha-256=:eY1GY5SR1sGPF3nd/KfaS2cvI6TLV9Zu6uSNm4zLYHU=:";
const NO_BODY: &str = "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:";

const PYTHON_PARAMS: &str = r#"created=1767225600;keyid="did:key:z6MkvRXNYcE7MMduynWTgeKbDaT1iijDSC8pZqXZc8rHPrf2";alg="ed25519";expires=1767225900;nonce="0123456789abcdef0123456789abcdef";tag="countersign""#;
const NODE_PARAMS: &str = r#"keyid="did:key:z6MkvRXNYcE7MMduynWTgeKbDaT1iijDSC8pZqXZc8rHPrf2";alg="ed25519";created=1767225600;expires=1767225900;nonce="CQkJCQkJCQkJCQkJCQkJCQkJ";tag="countersign""#;

pub fn cases() -> Vec<Value> {
    let python = |components: &str| format!("pyhms=({components});{PYTHON_PARAMS}");
    let node = |components: &str| format!("sig1=({components});{NODE_PARAMS}");
    let json_utf8 = "application/json; charset=utf-8";
    vec![
        case(
            "Python",
            "127.0.0.1:8080",
            None,
            &[
                ("content-type", "application/json"),
                ("idempotency-key", "abc"),
                ("content-digest", DIGEST),
                (
                    "signature-input",
                    &python(
                        r#""@method" "@authority" "@path" "content-type" "idempotency-key" "content-digest""#,
                    ),
                ),
                (
                    "signature",
                    "pyhms=:bR/ZdqCdKagVV/5x8jrrnpwrMXJkOYlzvOBBN43ZnO5ZdIWEnMZKrIgtrEb4VmhkIdeklFfcLfQo8p2dq5lzDw==:",
                ),
            ],
        ),
        case(
            "Python, with a query",
            "LocalHost",
            Some("a=%20b&c"),
            &[
                ("content-type", "application/json"),
                ("idempotency-key", "abc"),
                ("content-digest", DIGEST),
                (
                    "signature-input",
                    &python(
                        r#""@method" "@authority" "@path" "content-type" "idempotency-key" "@query" "content-digest""#,
                    ),
                ),
                (
                    "signature",
                    "pyhms=:P4KN2jk/RtH6PFoEPnQsqwxxyZ8gSLj22NyqhtgrcYQ54afTHbnFottKAJqwOzhWZj6T7COWj9UOk7znVxrdDQ==:",
                ),
            ],
        ),
        case(
            "Node",
            "127.0.0.1:8080",
            None,
            &[
                ("content-type", json_utf8),
                ("content-digest", DIGEST),
                (
                    "signature-input",
                    &node(r#""@method" "@authority" "@path" "content-digest" "content-type""#),
                ),
                (
                    "signature",
                    "sig1=:SgdwINN6yG+FO/6ODiQbu0vl1O4whGAGAAST2RziHcNaN+jDlESgxQtrcgl/YR/Lqc/DXYfFQbMRq9j3BhVGBA==:",
                ),
            ],
        ),
        case(
            "Node, with a query",
            "LocalHost",
            Some("a=%20b&c"),
            &[
                ("content-type", json_utf8),
                ("content-digest", DIGEST),
                (
                    "signature-input",
                    &node(
                        r#""@method" "@authority" "@path" "content-digest" "content-type" "@query""#,
                    ),
                ),
                (
                    "signature",
                    "sig1=:xSnqyIqpoVSAjsLQM9CZQugO9VeXlGeWTpS3hwdWMiC7mHM8ytxrarfh7RZ7TEll47IxEFTnBkNRnoyh9ka/AA==:",
                ),
            ],
        ),
        empty(&node(r#""@method" "@authority" "@path" "content-digest""#)),
    ]
}

fn case(name: &str, authority: &str, query: Option<&str>, headers: &[(&str, &str)]) -> Value {
    let members = json!({
        "authority": authority,
        "query": query,
        "body": BODY,
        "headers": headers,
        "signed": true,
        "did": did(CLIENT),
    });
    valid(format!("signed by another implementation: {name}"), members)
}

fn empty(input: &str) -> Value {
    let headers = [
        ("content-digest", NO_BODY),
        ("signature-input", input),
        (
            "signature",
            "sig1=:965wyZliBoINEJLnmQM5G3zwVSOXSWJhzV4Co6IvqWfz6FrAGlW90X5hmL8uM5R3WmB6VdMoBhKxEDNUpB7pBQ==:",
        ),
    ];
    let mut case = case("Node, without a body", "localhost", None, &headers);
    case["method"] = json!("GET");
    case["path"] = json!("/v1/models");
    case["body"] = json!("");
    case
}
