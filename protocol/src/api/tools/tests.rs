//! Tools and response formats: what is read, what is refused, and the digest of it all.

use expect_test::{Expect, expect};

use super::*;
use crate::api::{Message, Prompt, parse_chat};

const TOOL: &str = r#"{"type": "function", "function": {"name": "f", "description": "d", "strict": true, "parameters": {"type": "object"}}}"#;
const BARE: &str = r#"{"type": "function", "function": {"name": "g-2"}}"#;

fn chat(rest: &str) -> Result<Ask, ApiError> {
    let body =
        format!(r#"{{"model": "m", "messages": [{{"role": "user", "content": "hi"}}]{rest}}}"#);
    parse_chat(body.as_bytes(), &Limits::default())
}

fn refused(rest: &str, expected: Expect) {
    let error = chat(rest).unwrap_err();
    let param = error.param.unwrap_or_default();
    expected.assert_eq(&format!("{} [{param}] {}", error.code, error.message));
}

#[test]
fn tools_are_read() {
    let ask = chat(&format!(r#", "tools": [{TOOL}, {BARE}]"#)).unwrap();
    assert_eq!(ask.grammar().as_deref(), Some("tools/llguidance-1.9"));
    let tools = ask.tools.unwrap();
    assert_eq!((tools.choice, tools.parallel), (ToolChoice::Auto, true));
    assert_eq!(tools.functions[0].name, "f");
    assert!(tools.functions[0].parameters.is_some());
    assert_eq!(tools.functions[1].name, "g-2");
    assert!(tools.functions[1].parameters.is_none());
    let choice = |choice: &str| {
        let ask = chat(&format!(
            r#", "tools": [{TOOL}], "tool_choice": {choice}, "parallel_tool_calls": false"#
        ));
        ask.unwrap()
            .tools
            .map(|tools| (tools.choice, tools.parallel))
    };
    assert_eq!(choice(r#""none""#), None);
    assert_eq!(choice(r#""required""#), Some((ToolChoice::Required, false)));
    assert_eq!(
        choice(r#"{"type": "function", "function": {"name": "f"}}"#),
        Some((ToolChoice::Named("f".into()), false))
    );
    assert_eq!(
        chat(r#", "tools": [], "tool_choice": "auto""#)
            .unwrap()
            .grammar(),
        None
    );
}

#[test]
fn formats_are_read() {
    let grammar = |rest: &str| chat(rest).unwrap().grammar();
    assert_eq!(grammar(r#", "response_format": {"type": "text"}"#), None);
    assert_eq!(
        grammar(r#", "response_format": {"type": "json_object"}"#).as_deref(),
        Some("json_object/llguidance-1.9")
    );
    let schema = r#", "response_format": {"type": "json_schema", "json_schema": {"name": "n", "strict": true, "schema": {}}}"#;
    assert_eq!(
        grammar(schema).as_deref(),
        Some("json_schema/llguidance-1.9")
    );
    assert_eq!(
        grammar(&format!(r#"{schema}, "tools": [{BARE}]"#)).as_deref(),
        Some("tools+json_schema/llguidance-1.9")
    );
}

#[test]
fn what_is_not_a_tool_is_refused() {
    refused(
        r#", "tools": [{"type": "custom", "custom": {"name": "f"}}]"#,
        expect![[
            r#"unsupported_value [tools[0].type] The parameter tools[0].type must be function, not "custom"."#
        ]],
    );
    refused(
        &format!(r#", "tools": [{BARE}, {BARE}]"#),
        expect![
            "invalid_value [tools[1].function.name] The parameter tools[1].function.name is there twice."
        ],
    );
    refused(
        r#", "tools": [{"type": "function", "function": {"name": "a b"}}]"#,
        expect![
            "invalid_value [tools[0].function.name] The parameter tools[0].function.name must be 1 to 64 letters, digits, underscores and dashes."
        ],
    );
    refused(
        r#", "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "array"}}}]"#,
        expect![
            "invalid_value [tools[0].function.parameters] The parameter tools[0].function.parameters must be a schema whose type is object."
        ],
    );
    refused(
        r#", "tools": [{"type": "function", "function": {"name": "f", "speed": 1}}]"#,
        expect![
            "unknown_parameter [tools[0].function.speed] The parameter tools[0].function.speed isn't known."
        ],
    );
    refused(
        &format!(
            r#", "tools": [{BARE}], "tool_choice": {{"type": "function", "function": {{"name": "h"}}}}"#
        ),
        expect![
            "invalid_value [tool_choice.function.name] The parameter tool_choice.function.name isn't one of the tools."
        ],
    );
    refused(
        r#", "tool_choice": "required""#,
        expect![
            "invalid_value [tool_choice] The parameter tool_choice can't be required where there are no tools."
        ],
    );
    let many = vec![BARE; 129].join(",");
    refused(
        &format!(r#", "tools": [{many}]"#),
        expect!["array_above_max_length [tools] The parameter tools has more than 128 items."],
    );
}

#[test]
fn what_is_not_a_format_is_refused() {
    refused(
        r#", "response_format": {"type": "yaml"}"#,
        expect![[
            r#"unsupported_value [response_format.type] The parameter response_format.type must be text, json_object or json_schema, not "yaml"."#
        ]],
    );
    refused(
        r#", "response_format": {"type": "json_schema", "json_schema": {"name": "n"}}"#,
        expect![
            "missing_required_parameter [response_format.json_schema.schema] The parameter response_format.json_schema.schema is missing."
        ],
    );
    refused(
        r#", "response_format": {"type": "json_object", "schema": {}}"#,
        expect![
            "unknown_parameter [response_format.schema] The parameter response_format.schema isn't known."
        ],
    );
    refused(
        r#", "response_format": {"type": "json_object"}, "ignore_eos": true"#,
        expect![
            "invalid_value [ignore_eos] The parameter ignore_eos can't be set where tools or response_format say how the answer ends."
        ],
    );
}

#[test]
fn calls_and_their_answers_are_messages() {
    let messages = |id: &str| {
        let body = format!(
            r#"{{"model": "m", "messages": [{{"role": "assistant", "content": null, "tool_calls": [
                {{"id": "call_1", "type": "function", "function": {{"name": "f", "arguments": "{{}}"}}}}]}},
                {{"role": "tool", "tool_call_id": "{id}", "content": "4"}}]}}"#
        );
        parse_chat(body.as_bytes(), &Limits::default()).map(|ask| ask.prompt)
    };
    let Ok(Prompt::Messages(read)) = messages("call_1") else {
        panic!("a call and its answer are two messages")
    };
    let [call, answer]: &[Message; 2] = read.as_slice().try_into().unwrap();
    assert_eq!(
        (call.content.as_str(), call.tool_calls[0].arguments.as_str()),
        ("", "{}")
    );
    assert_eq!(
        (answer.content.as_str(), answer.tool_call_id.as_deref()),
        ("4", Some("call_1"))
    );
    assert_eq!(
        messages("call_2").unwrap_err().message,
        "The parameter messages[1].tool_call_id isn't the id of a call before it."
    );
}

#[test]
fn the_digest_is_of_the_parts_that_decide_the_grammar() {
    // From Python: sha256(b"countersign/grammar/1\n" + the text in grammar.md, 2.2)
    let digest = |rest: &str| chat(rest).unwrap().grammar_sha256().map(|d| d.to_string());
    assert_eq!(digest(""), None);
    let text = format!(
        "countersign/grammar/1\n{{\"parallel_tool_calls\":true,\"tool_choice\":\"auto\",\"tools\":[{}]}}",
        r#"{"type":"function","function":{"name":"g-2"}}"#
    );
    let want = Some(Digest::of(text.as_bytes()).to_string());
    assert_eq!(digest(&format!(r#", "tools": [{BARE}]"#)), want);
    let explicit = r#", "tool_choice": "auto", "parallel_tool_calls": true, "temperature": 0.5"#;
    assert_eq!(digest(&format!(r#"{explicit}, "tools": [{BARE}]"#)), want);
    assert_ne!(digest(&format!(r#", "tools": [{TOOL}]"#)), want);
    assert_ne!(
        digest(&format!(
            r#", "tools": [{BARE}], "tool_choice": "required""#
        )),
        want
    );
}
