//! Grammars: what random draws under a mask write is always what the request asked for, and the
//! mask depends on nothing but the grammar and the tokens.

use proptest::prelude::*;
use protocol::api::{Limits, parse_chat};
use protocol::calls::CallReader;
use serde_json::{Value, json};

use super::*;

/// All bytes, a few texts, a special token that says nothing, and two ends.
fn vocabulary() -> Vocabulary {
    let mut words: Vec<Vec<u8>> = (0..=255u8).map(|byte| vec![byte]).collect();
    let texts = [
        "{\"",
        "\": ",
        "\", \"",
        "\"}",
        "}}",
        "true",
        "<tool",
        "_call>",
        "_call>\n{\"name\": \"",
        ">{",
        "é",
    ];
    words.extend(texts.map(|text| text.as_bytes().to_vec()));
    words.resize(words.len() + 3, Vec::new());
    let vocab = words.len() as u32;
    Vocabulary::of(&words, &[vocab - 2, vocab - 1])
}

fn ask(rest: &Value) -> Ask {
    let mut body = json!({ "model": "m", "messages": [{ "role": "user", "content": "hi" }] });
    for (name, value) in rest.as_object().unwrap() {
        body[name] = value.clone();
    }
    parse_chat(body.to_string().as_bytes(), &Limits::default()).unwrap()
}

fn grammar(rest: &Value) -> Result<Grammar, GrammarRefused> {
    let (ask, vocabulary) = (ask(rest), vocabulary());
    let matcher = source::compile(&ask, |grammar| vocabulary.matcher(grammar))?;
    Ok(Grammar::new(matcher, source::or_free(&ask), &vocabulary))
}

fn json_schema(schema: &Value) -> Value {
    let about = json!({ "name": "n", "schema": schema });
    json!({ "response_format": { "type": "json_schema", "json_schema": about } })
}

fn tool(name: &str, parameters: &Value) -> Value {
    json!({ "type": "function", "function": { "name": name, "parameters": parameters } })
}

/// A reproducible stream of numbers.
struct Random(u64);

impl Random {
    fn below(&mut self, count: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        ((self.0 >> 33) as usize) % count
    }
}

/// Draws from the masks, with a liking for what closes things; the tokens, and whether they ended.
fn walk(grammar: &Grammar, seed: u64, most: usize) -> (Vec<u32>, bool) {
    let mut random = Random(seed);
    let mut state = grammar.begin();
    let ends = state.vocabulary.ends.clone();
    let vocab = state.vocabulary.trie.tok_trie().vocab_size();
    let mut tokens = Vec::new();
    while tokens.len() < most {
        let mask = state.mask().unwrap();
        let mask = mask.unwrap_or_else(|| TokenMask::of(vocab, 0..vocab as u32));
        let closing = [ends[0], u32::from(b'"'), u32::from(b'}'), u32::from(b']')];
        let closing = closing.into_iter().find(|id| mask.allows(*id));
        let token = match closing {
            Some(id) if random.below(3) == 0 => id,
            _ => {
                let ids: Vec<u32> = mask.ids().collect();
                assert!(!ids.is_empty(), "a grammar always has a way on");
                ids[random.below(ids.len())]
            }
        };
        tokens.push(token);
        state.advance(token).unwrap();
        if ends.contains(&token) {
            return (tokens, true);
        }
    }
    (tokens, false)
}

fn text(grammar: &Grammar, tokens: &[u32]) -> String {
    let state = grammar.begin();
    let bytes: Vec<u8> = tokens
        .iter()
        .flat_map(|t| state.bytes(*t).to_vec())
        .collect();
    String::from_utf8(bytes).unwrap()
}

/// Of JSON Schema, what [`schemas`] draws.
fn validates(schema: &Value, value: &Value) -> bool {
    if let Some(choices) = schema["anyOf"].as_array() {
        return choices.iter().any(|schema| validates(schema, value));
    }
    if let Some(choices) = schema["enum"].as_array() {
        return choices.contains(value);
    }
    let limit = |name: &str, otherwise: u64| schema[name].as_u64().unwrap_or(otherwise) as usize;
    match schema["type"].as_str() {
        Some("null") => value.is_null(),
        Some("boolean") => value.is_boolean(),
        // JSON's -0 is an integer too.
        Some("integer") => value.as_f64().is_some_and(|number| {
            number.fract() == 0.0
                && schema["minimum"]
                    .as_f64()
                    .is_none_or(|least| number >= least)
                && schema["maximum"].as_f64().is_none_or(|most| number <= most)
        }),
        Some("string") => value
            .as_str()
            .is_some_and(|text| text.chars().count() <= limit("maxLength", u64::MAX)),
        Some("array") => value.as_array().is_some_and(|items| {
            items.len() >= limit("minItems", 0)
                && items.len() <= limit("maxItems", u64::MAX)
                && items.iter().all(|item| validates(&schema["items"], item))
        }),
        Some("object") => value.as_object().is_some_and(|members| {
            let properties = schema["properties"].as_object().unwrap();
            let required = schema["required"].as_array().unwrap();
            required
                .iter()
                .all(|name| members.contains_key(name.as_str().unwrap()))
                && members.iter().all(|(name, value)| {
                    properties
                        .get(name)
                        .is_some_and(|schema| validates(schema, value))
                })
        }),
        other => panic!("no schema has the type {other:?}"),
    }
}

fn schemas() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(json!({ "type": "null" })),
        Just(json!({ "type": "boolean" })),
        (-50i64..50, 0i64..1000).prop_map(
            |(least, more)| json!({ "type": "integer", "minimum": least, "maximum": least + more })
        ),
        (0u8..6).prop_map(|most| json!({ "type": "string", "maxLength": most })),
        prop::collection::vec("[a-z\"\\\\é]{0,4}", 1..4).prop_map(|texts| json!({ "enum": texts })),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            (inner.clone(), 0u8..2, 0u8..3).prop_map(|(items, least, more)| {
                json!({ "type": "array", "items": items, "minItems": least, "maxItems": least + more })
            }),
            prop::collection::vec(inner.clone(), 1..3).prop_map(|any| json!({ "anyOf": any })),
            prop::collection::btree_map("[a-z_\" ]{0,5}", (inner, any::<bool>()), 0..4)
                .prop_map(|members| object(&members)),
        ]
    })
}

fn object(members: &std::collections::BTreeMap<String, (Value, bool)>) -> Value {
    let properties: serde_json::Map<String, Value> = members
        .iter()
        .map(|(name, (schema, _))| (name.clone(), schema.clone()))
        .collect();
    let required: Vec<&String> = members
        .iter()
        .filter_map(|(name, (_, required))| required.then_some(name))
        .collect();
    json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_drawn_validates(schema in schemas(), seed: u64) {
        let grammar = grammar(&json_schema(&schema)).unwrap();
        for seed in seed..seed.saturating_add(3) {
            let (tokens, ended) = walk(&grammar, seed, 600);
            prop_assert!(ended, "a finite schema ends");
            let text = text(&grammar, &tokens);
            let value = protocol::json::parse(text.as_bytes()).unwrap();
            prop_assert!(validates(&schema, &value), "{} isn't {}", text, schema);
        }
    }

    #[test]
    fn any_position_can_be_checked_alone(schema in schemas(), seed: u64, auto: bool) {
        let schema = object(&[("a".to_owned(), (schema, true))].into());
        let asked = match auto {
            true => json!({ "tools": [tool("f", &schema), tool("g", &schema)] }),
            false => json_schema(&schema),
        };
        let grammar = grammar(&asked).unwrap();
        let (tokens, _) = walk(&grammar, seed, 60);
        let mut state = grammar.begin();
        let mut fork = grammar.begin();
        for (at, &token) in tokens.iter().enumerate() {
            // Asked at every position, asked here alone, and never asked before in a fork.
            let mask = state.mask().unwrap();
            prop_assert_eq!(&mask, &grammar.state_after(&tokens[..at]).unwrap().mask().unwrap());
            prop_assert_eq!(&mask, &fork.clone().mask().unwrap());
            prop_assert_eq!(&mask, &state.mask().unwrap());
            state.advance(token).unwrap();
            fork.advance(token).unwrap();
        }
    }
}

#[test]
fn calls_are_written_in_their_form() {
    let parameters = json!({
        "type": "object",
        "properties": { "x": { "type": "integer" }, "deep": { "$ref": "#/$defs/d" } },
        "required": ["x"], "additionalProperties": false,
        "$defs": { "d": { "type": "array", "items": { "enum": ["}", "\n"] }, "maxItems": 2 } }
    });
    let tools =
        json!([tool("add", &parameters), { "type": "function", "function": { "name": "now" } }]);
    let check = |choice: Value, parallel: bool, may: &dyn Fn(&[&str]) -> bool| {
        let asked =
            json!({ "tools": tools, "tool_choice": choice, "parallel_tool_calls": parallel });
        let grammar = grammar(&asked).unwrap();
        for seed in 0..20 {
            let (tokens, ended) = walk(&grammar, seed, 3000);
            assert!(ended);
            let text = text(&grammar, &tokens);
            let mut names = Vec::new();
            let mut reader = CallReader::default();
            let pieces = reader.push(&text);
            assert_eq!(reader.finish(), [], "{text:?}");
            let mut arguments = Vec::<String>::new();
            for piece in pieces {
                match piece {
                    protocol::calls::Piece::Call { name } => {
                        names.push(name);
                        arguments.push(String::new());
                    }
                    protocol::calls::Piece::Arguments(text) => {
                        arguments.last_mut().unwrap().push_str(&text)
                    }
                    protocol::calls::Piece::Content(text) => panic!("{text:?} isn't a call"),
                }
            }
            for (name, arguments) in names.iter().zip(&arguments) {
                let value: Value = serde_json::from_str(arguments).unwrap();
                assert_eq!(
                    value["x"].is_i64() || value["x"].is_f64() || value["x"].is_u64(),
                    name == "add",
                    "{arguments}"
                );
            }
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            assert!(may(&names), "{names:?}");
        }
    };
    check(json!("required"), true, &|names| {
        (1..=16).contains(&names.len())
    });
    check(json!("required"), false, &|names| names.len() == 1);
    let now = json!({ "type": "function", "function": { "name": "now" } });
    check(now, true, &|names| names == ["now"]);
}

#[test]
fn with_auto_a_text_is_free_until_it_is_a_call() {
    let grammar = grammar(&json!({ "tools": [tool("f", &json!({ "type": "object" }))] })).unwrap();
    let id = |text: &str| {
        let state = grammar.begin();
        let count = state.vocabulary.trie.tok_trie().vocab_size() as u32;
        (0..count)
            .find(|id| state.bytes(*id) == text.as_bytes())
            .unwrap()
    };
    let mask = |texts: &[&str]| {
        let tokens: Vec<u32> = texts.iter().map(|text| id(text)).collect();
        grammar.state_after(&tokens).unwrap().mask().unwrap()
    };
    // Anything, but for what would be a wrong call.
    let begin = mask(&[]).unwrap();
    assert_eq!(begin.count(), begin.vocab());
    assert_eq!(mask(&["h"]), None, "free for good");
    assert_eq!(mask(&["<tool", "x"]), None);
    let half = mask(&["<tool", "_", "c", "a", "l", "l"]).unwrap();
    assert!(
        !half.allows(id(">{")),
        "it would be a call without its line feed"
    );
    assert!(
        half.allows(id(">"))
            && half.allows(id("x"))
            && half.allows(*grammar.vocabulary.ends.first().unwrap())
    );
    let marked = mask(&["<tool", "_call>"]).unwrap();
    assert_eq!(marked.ids().collect::<Vec<_>>(), [id("\n")]);
    let within = mask(&["<tool", "_call>\n{\"name\": \""]).unwrap();
    assert_eq!(within.ids().collect::<Vec<_>>(), [id("f")]);
    // What isn't allowed is named.
    let wrong = [id("<tool"), id("_call>"), id("x")];
    assert_eq!(
        grammar.state_after(&wrong).unwrap_err(),
        GrammarError::Token(id("x"))
    );
    let early = [id("<tool"), id("_call>"), grammar.vocabulary.ends[0]];
    assert!(grammar.state_after(&early).is_err());
}

#[test]
fn what_is_no_grammar_is_refused_with_its_reason() {
    let check = |schema: Value, want: &str| {
        let error = grammar(&json_schema(&schema)).unwrap_err();
        assert_eq!(error.param, "response_format.json_schema.schema");
        assert!(error.to_string().contains(want), "{error}");
    };
    check(json!({ "type": "text" }), "text");
    check(
        json!({ "uniqueItems": true, "type": "array" }),
        "uniqueItems",
    );
    check(json!({ "$ref": "#/nowhere" }), "nowhere");
    check(json!({ "type": "string", "pattern": "(" }), "(");
    check(json!({ "x-guidance": {} }), "x-guidance");
    check(
        json!({ "type": "string", "maxLength": 10_001 }),
        "maxLength",
    );
    check(json!({ "type": "integer", "minimum": 3, "maximum": 2 }), "");
    let wide: Vec<String> = (0..20_000).map(|n| format!("value number {n}")).collect();
    check(json!({ "enum": wide }), "131072 bytes");
    let tools = json!({ "tools": [tool("f", &json!({ "type": "object" })),
        tool("g", &json!({ "type": "object", "dependencies": {} }))] });
    assert_eq!(
        grammar(&tools).unwrap_err().param,
        "tools[1].function.parameters"
    );
}
