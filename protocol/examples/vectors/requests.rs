//! `request-signatures.json`: signed requests, ours and foreign, right and wrong.

use protocol::Digest;
use protocol::receipt::RequestLine;
use serde_json::{Value, json};

use super::forge::{base64, did, did_text, invalid, key, valid, with_s_plus_l, with_small_order_r};
use super::honest::{self, AUTHORITY, BODY, CLIENT, NOW_S, OTHER_CLIENT, PATH};

mod draft;
mod foreign;

use draft::Draft;

const ABOUT: &str = "docs/spec/request-signature.md: a server that answers for `authorities` gets \
    the request at `now_ms`. `query` is null if the target has no question mark. `error` is null, \
    or the code that the first failing rule gives. Of valid cases, `signed` says whether our tag \
    is there, and if so, `base` is the signature base, `did` the signer, and `request` what a \
    receipt keeps.";

pub fn file() -> String {
    let common = json!({
        "method": "POST",
        "authority": AUTHORITY,
        "path": PATH,
        "query": null,
        "body": BODY,
        "now_ms": NOW_S * 1000,
        "authorities": [AUTHORITY, "127.0.0.1:8080", "localhost"],
    });
    let cases = [
        valid_ones(),
        foreign::cases(),
        fields(),
        components(),
        parameters(),
        bindings(),
        signatures(),
    ];
    super::file(ABOUT, common, cases.concat())
}

fn valid_ones() -> Vec<Value> {
    let new = Draft::new;
    vec![
        new().valid("as our signer signs"),
        new().query("a=b&c=%20").covering("@query").valid("a query"),
        new().query("").covering("@query").valid("an empty query"),
        new().covering("@query").valid("no query, covered all the same"),
        new().body("").method("GET").path("/v1/models").valid("an empty body"),
        new().field("idempotency-key", "k").covering("idempotency-key").valid("an idempotency key"),
        new().field("content-encoding", "identity").covering("content-encoding").valid("a content encoding"),
        new().field("countersign-grant", "g").covering("countersign-grant").field("countersign-job", "j").covering("countersign-job").valid("our own fields"),
        new().field("countersign-admission", "x").valid("countersign-admission isn't the client's"),
        new().field("authorization", "Bearer x").field("user-agent", "x").valid("other fields, not covered"),
        new().field("content-type", "a/b").valid("a field of two lines"),
        new().sent_field("content-type", " \t application/json\t ").valid("white space around a value"),
        new().order(&["content-type", "@path", "content-digest", "@method", "@authority"]).valid("components in another order"),
        new().label("x-1.y_z*").valid("another label"),
        new().authority("LOCALHOST:8080").valid("the authority in upper case"),
        new().params("tag=\"countersign\";keyid=\"{did}\";nonce=\"{nonce}\";expires={expires};created={created}").valid("parameters in another order"),
        new().param("alg", "\"ed25519\"").valid("alg"),
        new().nonce("0123456789abcdef0123456789abcdef").valid("a nonce in hex"),
        new().nonce(&"a+/-_=".repeat(21)).valid("a long nonce"),
        new().now(NOW_S * 1000 - 30_000).valid("30 s before created"),
        new().now((NOW_S + 60) * 1000).valid("when it expires"),
        new().times(NOW_S, NOW_S + 300).valid("300 s"),
        new().digest(&format!("md5=:AAAA:, {}", draft::content_digest(BODY))).valid("another digest beside"),
        new().also("theirs=(\"date\");created=1;tag=\"other\"", "theirs=:AAAA:").valid("another's signature beside"),
        new().unsigned("no signature at all", &[]),
        new().unsigned("another's signature only", &[
            ("signature-input", "theirs=(\"@method\");created=1;keyid=\"k\";tag=\"other\""),
            ("signature", "theirs=:AAAA:"),
        ]),
        new().unsigned("a tag that is a token", &[("signature-input", "x=(\"@method\");tag=countersign")]),
    ]
}

fn fields() -> Vec<Value> {
    let new = Draft::new;
    let form = "signature_input_form";
    vec![
        new()
            .raw_input("{label}=(\"@method\"")
            .invalid("the list isn't closed", form),
        new()
            .raw_input("{label}=\"@method\";tag=\"countersign\"")
            .invalid("an item instead of a list", form),
        new()
            .raw_input("{input}, Upper=()")
            .invalid("a label in upper case", form),
        new()
            .raw_input("{input},")
            .invalid("a comma at the end", form),
        new()
            .also("b=(\"@method\");tag=\"countersign\"", "b=:AAAA:")
            .invalid("two signatures with our tag", "signature_several"),
        new()
            .raw_input(&format!("{{input}}, x=\"{}\"", "a".repeat(8192)))
            .invalid("Signature-Input is too long", "signature_too_long"),
        new()
            .raw_signature("")
            .invalid("Signature is empty", "signature_form"),
        new()
            .raw_signature("other=:{signature}:")
            .invalid("Signature has another label", "signature_form"),
        new()
            .raw_signature("{label}=\"{signature}\"")
            .invalid("Signature is a string", "signature_form"),
        new()
            .raw_signature("{label}=:{signature}:;x=1")
            .invalid("Signature has parameters", "signature_form"),
        new()
            .raw_signature("{label}=:AAAA:")
            .invalid("Signature is too short", "signature_form"),
        new()
            .raw_signature("{label}=:{signature}")
            .invalid("Signature isn't closed", "signature_form"),
        new()
            .without("signature")
            .invalid("Signature is missing", "signature_form"),
    ]
}

fn components() -> Vec<Value> {
    let new = Draft::new;
    let uncovered = "signature_uncovered";
    let mut cases = vec![
        new()
            .uncovering("@method")
            .invalid("@method isn't covered", uncovered),
        new()
            .uncovering("@authority")
            .invalid("@authority isn't covered", uncovered),
        new()
            .uncovering("@path")
            .invalid("@path isn't covered", uncovered),
        new()
            .query("a=b")
            .invalid("@query isn't covered", uncovered),
        new()
            .query("")
            .invalid("an empty @query isn't covered", uncovered),
        new()
            .uncovering("content-digest")
            .invalid("content-digest isn't covered", uncovered),
        new().body("").uncovering("content-digest").invalid(
            "content-digest isn't covered, with an empty body",
            uncovered,
        ),
        new()
            .uncovering("content-type")
            .invalid("content-type isn't covered", uncovered),
        new().order(&[]).invalid("nothing is covered", uncovered),
        new()
            .without("content-type")
            .invalid("a covered field is missing", "signature_field_missing"),
        new()
            .without("content-digest")
            .invalid("Content-Digest is missing", "signature_field_missing"),
        new()
            .covering("@method")
            .invalid("a component twice", "signature_component_twice"),
        new()
            .field("content-type", "a\u{7f}")
            .invalid("a control character in a value", "signature_field_value"),
        new()
            .path("/v1/é")
            .invalid("a path that isn't ASCII", "signature_field_value"),
        new()
            .path(&format!("/{}", "a".repeat(8192)))
            .invalid("the base is too long", "signature_too_long"),
    ];
    for name in [
        "content-encoding",
        "idempotency-key",
        "countersign-grant",
        "countersign-job",
        "countersign-other",
    ] {
        cases.push(
            new()
                .field(name, "x")
                .invalid(&format!("{name} isn't covered"), uncovered),
        );
    }
    for name in [
        "@target-uri",
        "@scheme",
        "@request-target",
        "@query-param",
        "@status",
        "@signature-params",
        "authorization",
        "date",
        "content-length",
        "Content-Type",
        "countersign-admission",
    ] {
        let draft = new().field(&name.to_lowercase(), "x").covering(name);
        cases.push(draft.invalid(&format!("{name} is covered"), "signature_component"));
    }
    for item in [
        "\"content-type\";sf",
        "\"content-digest\";key=\"sha-256\"",
        "\"content-type\";bs",
        "\"@method\";req",
        "method",
        "7",
    ] {
        cases.push(
            new()
                .covering_item(item)
                .invalid(&format!("{item} is covered"), "signature_component"),
        );
    }
    cases
}

fn parameters() -> Vec<Value> {
    let new = Draft::new;
    let value = "signature_parameter_value";
    let mut cases: Vec<Value> = ["created", "expires", "nonce", "keyid"]
        .iter()
        .map(|name| {
            let draft = new().without_param(name);
            draft.invalid(&format!("{name} is missing"), "signature_parameter_missing")
        })
        .collect();
    let x25519 = did_text([0xec, 1], did(CLIENT).as_bytes());
    let zero = did_text([0xed, 1], &[0; 32]);
    cases.extend([
        new()
            .param("created", "\"1767225600\"")
            .invalid("created is a string", value),
        new()
            .param("created", "1767225600.0")
            .invalid("created is a decimal", value),
        new()
            .param("created", "@1767225600")
            .invalid("created is a date", value),
        new()
            .param("created", "-1")
            .invalid("created is negative", value),
        new()
            .param("expires", "?1")
            .invalid("expires is a boolean", value),
        new()
            .param("nonce", "BwcHBwcHBwcHBwcHBwcHBw")
            .invalid("nonce is a token", value),
        new()
            .param("nonce", ":BwcHBwcHBwcHBwcHBwcHBw==:")
            .invalid("nonce is a byte sequence", value),
        new()
            .param("keyid", "key")
            .invalid("keyid is a token", value),
        new()
            .param("alg", "ed25519")
            .invalid("alg is a token", value),
        new()
            .param("scope", "\"all\"")
            .invalid("an unknown parameter", "signature_parameter_unknown"),
        new()
            .param("alg", "\"rsa-pss-sha512\"")
            .invalid("alg of RSA", "signature_algorithm"),
        new()
            .param("alg", "\"hmac-sha256\"")
            .invalid("alg of HMAC", "signature_algorithm"),
        new()
            .param("alg", "\"none\"")
            .invalid("alg none", "signature_algorithm"),
        new()
            .param("alg", "\"Ed25519\"")
            .invalid("alg in another case", "signature_algorithm"),
        new()
            .param("keyid", "\"test-key\"")
            .invalid("keyid isn't a DID", "signature_keyid"),
        new()
            .param("keyid", &format!("\"{x25519}\""))
            .invalid("keyid of an X25519 key", "signature_keyid"),
        new()
            .param("keyid", &format!("\"{zero}\""))
            .invalid("keyid of small order", "signature_keyid"),
        new().nonce("").invalid("an empty nonce", "signature_nonce"),
        new()
            .nonce(&"a".repeat(21))
            .invalid("a nonce of 21 characters", "signature_nonce"),
        new()
            .nonce(&"a".repeat(129))
            .invalid("a nonce of 129 characters", "signature_nonce"),
        new()
            .nonce("0123456789 0123456789 0123")
            .invalid("a nonce with spaces", "signature_nonce"),
    ]);
    cases
}

fn bindings() -> Vec<Value> {
    let new = Draft::new;
    let (lifetime, clock) = ("signature_lifetime", "signature_clock");
    let digest = draft::content_digest(BODY);
    let (mismatch, form) = ("content_digest_mismatch", "content_digest_form");
    vec![
        new()
            .authority("example.com")
            .invalid("another server's authority", "signature_authority"),
        new()
            .authority("localhost:8081")
            .invalid("another port", "signature_authority"),
        new()
            .authority("")
            .invalid("no authority", "signature_authority"),
        new()
            .times(NOW_S, NOW_S)
            .invalid("expires when created", lifetime),
        new()
            .times(NOW_S, NOW_S - 1)
            .invalid("expires before created", lifetime),
        new().times(NOW_S, NOW_S + 301).invalid("301 s", lifetime),
        new()
            .now(NOW_S * 1000 - 30_001)
            .invalid("a millisecond too early", clock),
        new()
            .now((NOW_S + 60) * 1000 + 1)
            .invalid("a millisecond too late", clock),
        new()
            .now((NOW_S - 300) * 1000)
            .invalid("the server's clock is 5 minutes behind", clock),
        new()
            .now((NOW_S + 360) * 1000)
            .invalid("the server's clock is 5 minutes ahead", clock),
        new().times(0, 60).invalid("created in 1970", clock),
        new().sent_body("{}").invalid("another body", mismatch),
        new()
            .sent_body(&BODY.replace("16}", "16} "))
            .invalid("a space after the body", mismatch),
        new().sent_body("").invalid("no body", mismatch),
        new()
            .digest(&draft::content_digest("{}"))
            .invalid("another body's digest", mismatch),
        new().digest("").invalid("Content-Digest is empty", form),
        new()
            .digest(&digest.replace("sha-256", "sha-512"))
            .invalid("sha-512 only", form),
        new()
            .digest(&digest.replace(":", "\""))
            .invalid("the digest is a string", form),
        new()
            .digest("sha-256=:AAAA:")
            .invalid("the digest is too short", form),
        new()
            .digest(&format!("SHA-256=:{}:", &digest[9..]))
            .invalid("the legacy spelling", form),
    ]
}

fn signatures() -> Vec<Value> {
    let new = Draft::new;
    let code = "signature_invalid";
    let draft = new();
    let base = draft.base();
    let signature = key(CLIENT).sign(base.as_bytes());
    let signed_with =
        |signature: &[u8]| new().raw_signature(&format!("{{label}}=:{}:", base64(signature)));
    vec![
        signed_with(&key(OTHER_CLIENT).sign(base.as_bytes()))
            .invalid("another key's signature", code),
        signed_with(&with_s_plus_l(&signature)).invalid("malleable: S + L", code),
        signed_with(&with_small_order_r(base.as_bytes(), CLIENT)).invalid("R of small order", code),
        signed_with(&[0; 64]).invalid("zeros", code),
        signed_with(&key(CLIENT).sign(format!("{base}\n").as_bytes()))
            .invalid("a line feed after the base", code),
        new()
            .param("keyid", &format!("\"{}\"", did(OTHER_CLIENT)))
            .invalid("another client's keyid", code),
        new().sent_method("GET").invalid("another method", code),
        new()
            .sent_authority("127.0.0.1:8080")
            .invalid("another of the server's authorities", code),
        new()
            .sent_path("/v1/completions")
            .invalid("another path", code),
        new()
            .sent_path("/v1/chat/completions/")
            .invalid("a slash after the path", code),
        new()
            .sent_path("/v1/chat/completion%73")
            .invalid("the path in another encoding", code),
        new()
            .query("a=b")
            .covering("@query")
            .sent_query("a=c")
            .invalid("another query", code),
        new()
            .query("a=b")
            .covering("@query")
            .sent_query("b=a")
            .invalid("the query in another order", code),
        new()
            .sent_field("content-type", "text/plain")
            .invalid("another content type", code),
        new()
            .raw_input("{input}")
            .change_input(";created=1767225600", ";created=1767225601")
            .invalid("another created", code),
        new()
            .change_input(";expires=1767225660", ";expires=1767225661")
            .invalid("another expires", code),
        new()
            .change_input("nonce=\"B", "nonce=\"C")
            .invalid("another nonce", code),
        new()
            .change_input("(\"@method\" \"@authority\"", "(\"@authority\" \"@method\"")
            .invalid("components in another order than signed", code),
    ]
}

/// What a receipt keeps of a request, whose signer is right.
pub fn kept(draft: &Draft) -> RequestLine {
    let mut line = honest::unsigned_line();
    draft.keep(&mut line);
    line
}

/// The members of a valid case.
fn facts(draft: &Draft) -> Value {
    json!({
        "signed": true,
        "did": did(CLIENT),
        "base": draft.base(),
        "body_sha256": Digest::of(draft.body.as_bytes()),
        "request": kept(draft),
    })
}

fn valid_case(name: &str, members: Value) -> Value {
    valid(name, members)
}

fn invalid_case(name: &str, code: &str, members: Value) -> Value {
    invalid(name, code, members)
}
