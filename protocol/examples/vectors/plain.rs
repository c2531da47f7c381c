//! What isn't signed: JSON texts, DIDs, seeds and manifests.

use protocol::Digest;
use protocol::manifest::Manifest;
use protocol::sampling::seed_from_nonce;
use serde_json::{Value, json};

use super::forge::{did, did_text, hex, invalid, valid};
use super::receipt_form::second_encoding;

pub const JSON: &str = "docs/spec/receipt.md, section 2. `hex` is the bytes of a text. `error` is \
    null, or the code that the first failing rule gives.";

pub const DIDS: &str = "docs/spec/receipt.md, 3.1 and 3.2. `key` is the public key in hex, of \
    valid cases.";

pub const SEEDS: &str = "docs/spec/receipt.md, 4.8: `seed` is that of `nonce` and `body`.";

pub const MANIFESTS: &str = "docs/spec/receipt.md, section 7: `digest` is that of the manifest \
    `toml`, of valid cases.";

pub fn json_texts() -> Vec<Value> {
    let text = |name: &str, code: &str, bytes: &[u8]| {
        let members = json!({ "hex": hex(bytes) });
        match code {
            "" => valid(name, members),
            code => invalid(name, code, members),
        }
    };
    let nested = |depth: usize| [vec![b'['; depth], vec![b']'; depth]].concat();
    vec![
        text("an object", "", br#"{"a":[1,-2.5e3,"x",true,false,null]}"#),
        text("white space everywhere", "", b" \t\r\n[ 1 , 2 ] \n"),
        text("a number alone", "", b"0"),
        text("escapes", "", br#""\"\\\/\b\f\n\r\t\u00e9\ud83d\ude42""#),
        text("the largest integer", "", b"18446744073709551615"),
        text("the smallest integer", "", b"-9223372036854775808"),
        text("the largest double", "", b"1.7976931348623157e308"),
        text("too small to matter", "", b"1e-400"),
        text("64 levels", "", &nested(64)),
        text("names that differ in case", "", br#"{"a":1,"A":2}"#),
        text("empty", "json_end", b""),
        text("white space only", "json_end", b" \n"),
        text("cut in an object", "json_end", br#"{"a":1"#),
        text("cut in a text", "json_end", br#"{"a":"b"#),
        text("cut in an escape", "json_end", br#""\u00"#),
        text("cut in a number", "json_end", b"-"),
        text("a byte-order mark", "json_syntax", b"\xef\xbb\xbf{}"),
        text("NaN", "json_syntax", br#"{"a":NaN}"#),
        text("Infinity", "json_syntax", b"[Infinity]"),
        text("a comma at the end", "json_syntax", b"[1,]"),
        text("a name without quotes", "json_syntax", b"{a:1}"),
        text("single quotes", "json_syntax", b"['a']"),
        text("a comment", "json_syntax", b"// x\n1"),
        text("a plus sign", "json_syntax", b"[+1]"),
        text("no digit before the point", "json_syntax", b"[.5]"),
        text("no digit after the point", "json_syntax", b"[1.]"),
        text("hex number", "json_syntax", b"[0x10]"),
        text("leading zeros", "json_syntax", b"[01]"),
        text("a line feed in a text", "json_syntax", b"\"a\nb\""),
        text("a zero byte in a text", "json_syntax", b"\"a\0b\""),
        text("a vertical tab as white space", "json_syntax", b"[\x0b1]"),
        text("TRUE", "json_syntax", b"[TRUE]"),
        text("two values", "json_trailing", b"{}{}"),
        text("text after the value", "json_trailing", b"{} x"),
        text("a zero byte after the value", "json_trailing", b"{}\0"),
        text("an escape that isn't one", "json_escape", br#""\x41""#),
        text("a digit that isn't one", "json_escape", br#""\u00g0""#),
        text("a first half alone", "json_surrogate", br#""\ud83d""#),
        text("a second half alone", "json_surrogate", br#""\ude42""#),
        text("two first halves", "json_surrogate", br#""\ud83d\ud83d""#),
        text(
            "a duplicate key",
            "json_duplicate_key",
            br#"{"a":1,"b":2,"a":1}"#,
        ),
        text(
            "a duplicate key inside",
            "json_duplicate_key",
            br#"[{"x":{"a":1,"a":2}}]"#,
        ),
        text(
            "a duplicate key, escaped",
            "json_duplicate_key",
            br#"{"a":1,"\u0061":2}"#,
        ),
        text(
            "an integer too large",
            "json_number",
            b"18446744073709551616",
        ),
        text(
            "an integer too small",
            "json_number",
            b"-9223372036854775809",
        ),
        text("1e400", "json_number", b"1e400"),
        text("-1e400", "json_number", br#"{"a":-1e400}"#),
        text("a byte that is no UTF-8", "json_utf8", b"\"\xff\""),
        text("an overlong encoding", "json_utf8", b"\"\xc0\x80\""),
        text("a surrogate in UTF-8", "json_utf8", b"\"\xed\xa0\x80\""),
        text("UTF-8 cut short", "json_utf8", b"\"\xf0\x9f\x99\""),
        text("65 levels", "json_depth", &nested(65)),
    ]
}

pub fn dids() -> Vec<Value> {
    let text = |name: &str, code: &str, did: String| invalid(name, code, json!({ "did": did }));
    let key = |name: &str, code: &str, key: &[u8]| text(name, code, did_text([0xed, 1], key));
    let honest = did(3);
    let bytes = honest.as_bytes();
    let mut two = [0; 32];
    two[0] = 2;
    let small_orders = [
        "0100000000000000000000000000000000000000000000000000000000000000",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0000000000000000000000000000000000000000000000000000000000000080",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    ];
    let mut cases = vec![
        valid("a key", json!({ "did": honest, "key": hex(bytes) })),
        valid(
            "another key",
            json!({ "did": did(4), "key": hex(did(4).as_bytes()) }),
        ),
        text("empty", "did_form", String::new()),
        text(
            "another method",
            "did_form",
            honest.to_string().replace("did:key", "did:web"),
        ),
        text(
            "no multibase prefix",
            "did_form",
            honest.to_string().replace(":z6", ":6"),
        ),
        text("a fragment", "did_form", format!("{honest}#key-1")),
        text("a query", "did_form", format!("{honest}?a")),
        text(
            "a zero byte in front",
            "did_form",
            honest.to_string().replace(":z6", ":z16"),
        ),
        text(
            "a character that base58 hasn't",
            "did_form",
            format!("{}0", &honest.to_string()[..55]),
        ),
        text("an X25519 key", "did_form", did_text([0xec, 1], bytes)),
        text(
            "a key without its codec",
            "did_form",
            did_text([0x12, 0x20], bytes),
        ),
        key("31 bytes", "did_form", &bytes[..31]),
        key("33 bytes", "did_form", &[&bytes[..], &[0]].concat()),
        key("no point", "did_point", &two),
        key(
            "a second encoding of a point",
            "did_point",
            &second_encoding(),
        ),
    ];
    cases.extend(small_orders.iter().enumerate().map(|(index, digits)| {
        let bytes: Vec<u8> = (0..64)
            .step_by(2)
            .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hex"))
            .collect();
        key(
            &format!("small order, {}", index + 1),
            "did_small_order",
            &bytes,
        )
    }));
    cases
}

pub fn seeds() -> Vec<Value> {
    let seed = |name: &str, nonce: &str, body: &str| {
        let seed = seed_from_nonce(nonce.as_bytes(), &Digest::of(body.as_bytes()));
        valid(name, json!({ "nonce": nonce, "body": body, "seed": seed }))
    };
    vec![
        seed("an empty body", "BwcHBwcHBwcHBwcHBwcHBw", ""),
        seed("a body", "BwcHBwcHBwcHBwcHBwcHBw", "{}"),
        seed("another nonce", "0123456789abcdef0123456789abcdef", "{}"),
        seed("padding in the nonce", "CQkJCQkJCQkJCQkJCQkJCQ==", "é"),
    ]
}

pub fn manifests() -> Vec<Value> {
    let toml = concat!(
        "numerics = [\"candle-cpu/1\"]\n\n[identity]\nid = \"smollm2-135m-instruct\"\n",
        "architecture = \"llama\"\nformat = \"gguf\"\nweights_sha256 = ",
        "\"b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53\"\n",
        "weights_bytes = 98362432\ncontext_tokens = 8192\n",
    );
    let digest = |name: &str, toml: &str| {
        let manifest = Manifest::parse(toml).expect("the case is valid");
        valid(name, json!({ "toml": toml, "digest": manifest.digest() }))
    };
    let wrong = |name: &str, code: &str, from: &str, to: &str| {
        invalid(name, code, json!({ "toml": toml.replacen(from, to, 1) }))
    };
    let source = "\n[[source]]\nkind = \"hub\"\nrepo = \"a/b\"\nfile = \"c.gguf\"\n";
    vec![
        digest("a model", toml),
        digest(
            "sources and profiles don't count",
            &format!("{toml}{source}").replace("/1\"]", "/1\", \"exact/1\"]"),
        ),
        digest("another context", &toml.replace("8192", "2048")),
        digest(
            "escapes",
            &toml.replace("\"llama\"", r#""l\"\\\u0001\t\u007fé""#),
        ),
        wrong(
            "an unknown member",
            "manifest_form",
            "[identity]",
            "[identity]\nextra = 1",
        ),
        wrong(
            "no digest",
            "manifest_form",
            "weights_sha256",
            "weights_sha1",
        ),
        wrong(
            "the digest in upper case",
            "manifest_form",
            "b179c",
            "B179C",
        ),
        wrong("no weights", "manifest_value", "98362432", "0"),
        wrong("no context", "manifest_value", "8192", "0"),
        wrong("no profile", "manifest_value", "\"candle-cpu/1\"", ""),
        wrong(
            "a space in the id",
            "manifest_value",
            "smollm2-",
            "smollm2 ",
        ),
        digest(
            "a chat template",
            &toml.replace("8192\n", "8192\nchat_template = \"{{ x }}\\n\"\n"),
        ),
        wrong(
            "an empty chat template",
            "manifest_value",
            "8192\n",
            "8192\nchat_template = \"\"\n",
        ),
    ]
}
