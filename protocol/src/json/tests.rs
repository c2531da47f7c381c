//! Strict JSON: what is refused and where, and that the rest is read as by everyone.

use expect_test::{Expect, expect};
use proptest::prelude::*;
use serde_json::json;

use super::*;

fn check(text: impl AsRef<[u8]>, expected: Expect) {
    let shown = match parse(text.as_ref()) {
        Ok(value) => value.to_string(),
        Err(error) => format!("{} at {} in {:?}", error.code(), error.offset, error.path),
    };
    expected.assert_eq(&shown);
}

#[test]
fn ordinary_values_are_read() {
    check(
        " {\"a\" : [1, -2, 3.5e-1, true, false, null]}\r\n\t",
        expect![[r#"{"a":[1,-2,0.35,true,false,null]}"#]],
    );
    check("{}", expect!["{}"]);
    check("[ ]", expect!["[]"]);
    check("18446744073709551615", expect!["18446744073709551615"]);
    check("-9223372036854775808", expect!["-9223372036854775808"]);
    check("1e-400", expect!["0.0"]);
    check("-0", expect!["-0.0"]);
    check(
        r#""\u00e9\ud83d\ude00\"\\\/\b\f\n\r\t""#,
        expect![[r#""é😀\"\\/\b\f\n\r\t""#]],
    );
}

#[test]
fn texts_that_end_too_soon() {
    check("", expect![[r#"json_end at 0 in """#]]);
    check("  ", expect![[r#"json_end at 2 in """#]]);
    check("[1, 2", expect![[r#"json_end at 5 in """#]]);
    check(r#"{"a"#, expect![[r#"json_end at 3 in """#]]);
    check(r#"{"a":tr"#, expect![[r#"json_end at 7 in "a""#]]);
    check("\"\\u00", expect![[r#"json_end at 5 in """#]]);
    check("1.", expect![[r#"json_end at 2 in """#]]);
    check("-", expect![[r#"json_end at 1 in """#]]);
}

#[test]
fn other_syntaxes() {
    check("\u{feff}{}", expect![[r#"json_syntax at 0 in """#]]);
    check(
        r#"{"temperature": NaN}"#,
        expect![[r#"json_syntax at 16 in "temperature""#]],
    );
    check("[-Infinity]", expect![[r#"json_syntax at 2 in "[0]""#]]);
    check("[1,]", expect![[r#"json_syntax at 3 in "[1]""#]]);
    check("{a: 1}", expect![[r#"json_syntax at 1 in """#]]);
    check("{'a': 1}", expect![[r#"json_syntax at 1 in """#]]);
    check(r#"{"a" 1}"#, expect![[r#"json_syntax at 5 in """#]]);
    check("[+1]", expect![[r#"json_syntax at 1 in "[0]""#]]);
    check("[.5]", expect![[r#"json_syntax at 1 in "[0]""#]]);
    check("[1e]", expect![[r#"json_syntax at 3 in "[0]""#]]);
    check("/* */ 1", expect![[r#"json_syntax at 0 in """#]]);
    check("\"a\nb\"", expect![[r#"json_syntax at 2 in """#]]);
    check("01", expect![[r#"json_trailing at 1 in """#]]);
    check("{} {}", expect![[r#"json_trailing at 3 in """#]]);
    check("{}\0", expect![[r#"json_trailing at 2 in """#]]);
}

#[test]
fn texts_that_are_no_text() {
    check(b"[\"a\", \"\xff\"]", expect![[r#"json_utf8 at 7 in """#]]);
    // A surrogate in UTF-8's clothes.
    check(b"\"\xed\xa0\x80\"", expect![[r#"json_utf8 at 1 in """#]]);
    check(
        r#"["\ud800"]"#,
        expect![[r#"json_surrogate at 2 in "[0]""#]],
    );
    check(
        r#"["\ude00"]"#,
        expect![[r#"json_surrogate at 2 in "[0]""#]],
    );
    check(
        r#"["\ud83d\u0041"]"#,
        expect![[r#"json_surrogate at 2 in "[0]""#]],
    );
    check(
        r#"["\ud83dx"]"#,
        expect![[r#"json_surrogate at 2 in "[0]""#]],
    );
    check(r#"["\x41"]"#, expect![[r#"json_escape at 3 in "[0]""#]]);
    check(r#"["\u00g0"]"#, expect![[r#"json_escape at 6 in "[0]""#]]);
}

#[test]
fn duplicate_keys_are_named() {
    check(
        r#"{"a": 1, "b": 2, "a": 1}"#,
        expect![[r#"json_duplicate_key at 17 in """#]],
    );
    check(
        r#"{"a": [{"b": 1, "\u0062": 2}]}"#,
        expect![[r#"json_duplicate_key at 16 in "a[0]""#]],
    );
    let error = parse(br#"{"ab": 1, "ab": 2}"#).unwrap_err();
    assert_eq!(error.to_string(), r#"duplicate key "ab" at byte 10"#);
}

#[test]
fn numbers_out_of_range() {
    check(
        r#"{"top_p": 1e400}"#,
        expect![[r#"json_number at 10 in "top_p""#]],
    );
    check("[-1e999]", expect![[r#"json_number at 1 in "[0]""#]]);
    check(
        "18446744073709551616",
        expect![[r#"json_number at 0 in """#]],
    );
    check(
        "-9223372036854775809",
        expect![[r#"json_number at 0 in """#]],
    );
}

#[test]
fn depth_is_bounded() {
    let nested = |depth| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert!(parse(nested(DEPTH_MAX).as_bytes()).is_ok());
    let error = parse(nested(DEPTH_MAX + 1).as_bytes()).unwrap_err();
    assert_eq!((error.code(), error.offset), ("json_depth", DEPTH_MAX));
    assert_eq!(parse(&[b'['; 1_000_000]).unwrap_err().code(), "json_depth");
}

#[test]
fn paths_lead_to_the_fault() {
    check(
        r#"{"messages": [{"role": "user"}, {"content": ["\ud800"]}]}"#,
        expect![[r#"json_surrogate at 46 in "messages[1].content[0]""#]],
    );
    let long = format!(r#"{{"{}": NaN}}"#, "k".repeat(10_000));
    assert!(parse(long.as_bytes()).unwrap_err().path.len() < 100);
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(|number| json!(number)),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(any::<String>(), inner, 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn what_serde_writes_is_read_the_same(value in any_value()) {
        prop_assert_eq!(&parse(value.to_string().as_bytes()).unwrap(), &value);
        let spaced = serde_json::to_vec_pretty(&value).unwrap();
        prop_assert_eq!(parse(&spaced).unwrap(), value);
    }

    #[test]
    fn what_is_read_is_json(text in r#"[\[\]{}:,"\\u0-9a-f.eE+\- tn]{0,24}"#) {
        if parse(text.as_bytes()).is_ok() {
            prop_assert!(serde_json::from_str::<Value>(&text).is_ok());
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
        let _ = parse(&bytes);
    }

    #[test]
    fn a_cut_text_is_refused(value in any_value(), cut: prop::sample::Index) {
        let text = json!([value]).to_string();
        prop_assert!(parse(&text.as_bytes()[..cut.index(text.len())]).is_err());
    }
}
