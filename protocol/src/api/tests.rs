//! Request bodies: what is read, and that everything else is refused by name.

use expect_test::{Expect, expect};
use proptest::prelude::*;
use serde_json::json;

use super::*;

const CHAT: &str = r#""model": "m", "messages": [{"role": "user", "content": "hi"}]"#;
const COMPLETION: &str = r#""model": "m", "prompt": "hi""#;

fn chat(rest: &str) -> Result<Ask, ApiError> {
    parse_chat(format!("{{{CHAT}{rest}}}").as_bytes(), &Limits::default())
}

fn completion(rest: &str) -> Result<Ask, ApiError> {
    parse_completion(
        format!("{{{COMPLETION}{rest}}}").as_bytes(),
        &Limits::default(),
    )
}

fn show<T: std::fmt::Debug>(result: Result<T, ApiError>) -> String {
    match result {
        Ok(_) => "accepted".to_owned(),
        Err(error) => {
            let param = error.param.as_deref().unwrap_or("-");
            format!("{} [{param}] {}", error.code, error.message)
        }
    }
}

fn check(rest: &str, expected: Expect) {
    expected.assert_eq(&show(chat(rest)));
}

#[test]
fn an_ordinary_chat_is_read() {
    let ask = chat(
        r#", "stream": true, "stream_options": {"include_usage": true}, "n": 2, "seed": -1,
        "max_completion_tokens": 9, "temperature": 0, "top_p": 0.5, "top_k": -1, "stop": "\n",
        "logprobs": true, "top_logprobs": 3, "logit_bias": {"7": -100}, "return_token_ids": true,
        "chat_template_kwargs": {"enable_thinking": false}"#,
    )
    .unwrap();
    let expected = Ask {
        model: "m".to_owned(),
        kind: Kind::Chat,
        prompt: Prompt::Messages(vec![Message::new(Role::User, "hi")]),
        n: 2,
        stream: true,
        include_usage: true,
        max_tokens: Some(9),
        sampling: SamplingAsk {
            temperature: Some(0.0),
            top_p: Some(0.5),
            top_k: Some(0),
            seed: Some(u64::MAX),
            stop: vec!["\n".to_owned()],
            logit_bias: BTreeMap::from([(7, -100.0)]),
            ..SamplingAsk::default()
        },
        logprobs: Some(3),
        return_token_ids: true,
        chat_template_kwargs: json!({ "enable_thinking": false })
            .as_object()
            .cloned()
            .unwrap(),
        tools: None,
        response_format: None,
    };
    assert_eq!(ask, expected);
}

#[test]
fn an_ordinary_completion_is_read() {
    let ask = completion("").unwrap();
    assert_eq!(ask.kind, Kind::Completion);
    assert_eq!(ask.prompt, Prompt::Text("hi".to_owned()));
    assert_eq!((ask.max_tokens, ask.n, ask.logprobs), (Some(16), 1, None));
    let ask = completion(r#", "max_tokens": 3, "logprobs": 0"#).unwrap();
    assert_eq!((ask.max_tokens, ask.logprobs), (Some(3), Some(0)));
    assert_eq!(chat("").unwrap().max_tokens, None);
}

#[test]
fn prompts_are_one_text_or_one_list_of_tokens() {
    let prompt = |prompt: &str| {
        let body = format!(r#"{{"model": "m", "prompt": {prompt}}}"#);
        parse_completion(body.as_bytes(), &Limits::default()).map(|ask| ask.prompt)
    };
    assert_eq!(prompt("[1, 2]"), Ok(Prompt::Tokens(vec![1, 2])));
    assert_eq!(prompt("[[1, 2]]"), Ok(Prompt::Tokens(vec![1, 2])));
    assert_eq!(prompt(r#"["a"]"#), Ok(Prompt::Text("a".to_owned())));
    let check = |text: &str, expected: Expect| expected.assert_eq(&show(prompt(text)));
    check(
        r#"["a", "b"]"#,
        expect![
            "unsupported_value [prompt] The parameter prompt has several prompts; send one request for each."
        ],
    );
    check(
        "[[1], [2]]",
        expect![
            "unsupported_value [prompt] The parameter prompt has several prompts; send one request for each."
        ],
    );
    check(
        "[]",
        expect!["invalid_value [prompt] The parameter prompt is empty."],
    );
    check(
        "[[]]",
        expect!["invalid_value [prompt[0]] The parameter prompt[0] is empty."],
    );
    check(
        r#""""#,
        expect!["invalid_value [prompt] The parameter prompt is empty."],
    );
    check(
        "5",
        expect![
            "invalid_type [prompt] The parameter prompt must be a string or an array of token ids."
        ],
    );
    check(
        "[-1]",
        expect!["invalid_type [prompt[0]] The parameter prompt[0] must be a token id."],
    );
    check(
        "[1, 1.5]",
        expect!["invalid_type [prompt[1]] The parameter prompt[1] must be a token id."],
    );
    check(
        "[4294967296]",
        expect!["invalid_type [prompt[0]] The parameter prompt[0] must be a token id."],
    );
    check(
        "[[[1]]]",
        expect!["invalid_type [prompt[0][0]] The parameter prompt[0][0] must be a token id."],
    );
    check(
        "[true]",
        expect![
            "invalid_type [prompt[0]] The parameter prompt[0] must be a string or an array of token ids."
        ],
    );
    check(
        "null",
        expect!["missing_required_parameter [prompt] The parameter prompt is missing."],
    );
}

#[test]
fn messages_are_read_strictly() {
    let messages = |messages: &str| {
        let body = format!(r#"{{"model": "m", "messages": {messages}}}"#);
        parse_chat(body.as_bytes(), &Limits::default()).map(|ask| ask.prompt)
    };
    let parts = r#"[{"role": "developer", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": "c", "refusal": null, "tool_calls": [], "annotations": []}]"#;
    let message = |role, content: &str| Message::new(role, content);
    assert_eq!(
        messages(parts),
        Ok(Prompt::Messages(vec![
            message(Role::System, "a\nb"),
            message(Role::Assistant, "c"),
        ]))
    );
    let check = |text: &str, expected: Expect| expected.assert_eq(&show(messages(text)));
    check(
        "[]",
        expect!["invalid_value [messages] The parameter messages is empty."],
    );
    check(
        "{}",
        expect!["invalid_type [messages] The parameter messages must be an array."],
    );
    check(
        "[5]",
        expect!["invalid_type [messages[0]] The parameter messages[0] must be an object."],
    );
    check(
        r#"[{"content": "a"}]"#,
        expect![
            "missing_required_parameter [messages[0].role] The parameter messages[0].role is missing."
        ],
    );
    check(
        r#"[{"role": "robot", "content": "a"}]"#,
        expect![[
            r#"invalid_value [messages[0].role] The parameter messages[0].role must be system, developer, user, assistant or tool, not "robot"."#
        ]],
    );
    check(
        r#"[{"role": "user"}]"#,
        expect![
            "missing_required_parameter [messages[0].content] The parameter messages[0].content is missing."
        ],
    );
    check(
        r#"[{"role": "user", "content": 5}]"#,
        expect![
            "invalid_type [messages[0].content] The parameter messages[0].content must be a string or an array of text parts."
        ],
    );
    check(
        r#"[{"role": "user", "content": "a", "name": "b"}]"#,
        expect!["unknown_parameter [messages[0].name] The parameter messages[0].name isn't known."],
    );
    check(
        r#"[{"role": "user", "content": "a", "tool_calls": []}]"#,
        expect![
            "unknown_parameter [messages[0].tool_calls] The parameter messages[0].tool_calls isn't known."
        ],
    );
    check(
        r#"[{"role": "assistant", "content": "a", "tool_calls": [1]}]"#,
        expect![
            "invalid_type [messages[0].tool_calls[0]] The parameter messages[0].tool_calls[0] must be an object."
        ],
    );
    check(
        r#"[{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]"#,
        expect![[
            r#"unsupported_value [messages[0].content[0].type] The parameter messages[0].content[0].type must be text, not "image_url"."#
        ]],
    );
    let many = format!(
        "[{}]",
        vec![r#"{"role":"user","content":"a"}"#; 4097].join(",")
    );
    check(
        &many,
        expect![
            "array_above_max_length [messages] The parameter messages has more than 4096 items."
        ],
    );
}

#[test]
fn numbers_keep_within_their_ranges() {
    check(
        r#", "n": 1000000000"#,
        expect!["integer_above_max_value [n] The parameter n must be between 1 and 8."],
    );
    check(
        r#", "n": 18446744073709551615"#,
        expect!["integer_above_max_value [n] The parameter n must be between 1 and 8."],
    );
    check(
        r#", "n": 0"#,
        expect!["integer_below_min_value [n] The parameter n must be between 1 and 8."],
    );
    check(
        r#", "n": 1.0"#,
        expect!["invalid_type [n] The parameter n must be an integer."],
    );
    check(
        r#", "n": "1""#,
        expect!["invalid_type [n] The parameter n must be an integer."],
    );
    check(
        r#", "max_tokens": -1"#,
        expect![
            "integer_below_min_value [max_tokens] The parameter max_tokens must be between 1 and 4294967295."
        ],
    );
    check(
        r#", "max_tokens": 5, "max_completion_tokens": 6"#,
        expect![
            "invalid_value [max_tokens] The parameter max_tokens contradicts max_completion_tokens."
        ],
    );
    check(
        r#", "temperature": 2.1"#,
        expect![
            "decimal_above_max_value [temperature] The parameter temperature must be between 0 and 2."
        ],
    );
    check(
        r#", "temperature": -0.1"#,
        expect![
            "decimal_below_min_value [temperature] The parameter temperature must be between 0 and 2."
        ],
    );
    check(
        r#", "temperature": "hot""#,
        expect!["invalid_type [temperature] The parameter temperature must be a number."],
    );
    check(
        r#", "temperature": NaN"#,
        expect![
            "json_syntax [temperature] The body can't be read as JSON: unexpected character at byte 79."
        ],
    );
    check(
        r#", "temperature": 1e400"#,
        expect![
            "json_number [temperature] The body can't be read as JSON: number out of range at byte 79."
        ],
    );
    check(
        r#", "top_p": 0"#,
        expect![
            "decimal_below_min_value [top_p] The parameter top_p must be above 0 and at most 1."
        ],
    );
    check(
        r#", "top_p": 1.01"#,
        expect![
            "decimal_above_max_value [top_p] The parameter top_p must be above 0 and at most 1."
        ],
    );
    check(
        r#", "top_k": -2"#,
        expect![
            "integer_below_min_value [top_k] The parameter top_k must be between -1 and 4294967295."
        ],
    );
    check(
        r#", "min_p": 1.5"#,
        expect!["decimal_above_max_value [min_p] The parameter min_p must be between 0 and 1."],
    );
    check(
        r#", "repetition_penalty": 0"#,
        expect![
            "decimal_below_min_value [repetition_penalty] The parameter repetition_penalty must be between 0.01 and 2."
        ],
    );
    check(
        r#", "presence_penalty": -3"#,
        expect![
            "decimal_below_min_value [presence_penalty] The parameter presence_penalty must be between -2 and 2."
        ],
    );
    check(
        r#", "frequency_penalty": 3"#,
        expect![
            "decimal_above_max_value [frequency_penalty] The parameter frequency_penalty must be between -2 and 2."
        ],
    );
    check(
        r#", "max_tokens": 5, "min_tokens": 6"#,
        expect![
            "integer_above_max_value [min_tokens] The parameter min_tokens must be between 0 and 5."
        ],
    );
    check(
        r#", "seed": 1.5"#,
        expect!["invalid_type [seed] The parameter seed must be a 64-bit integer."],
    );
    check(
        r#", "seed": 18446744073709551616"#,
        expect![
            "json_number [seed] The body can't be read as JSON: number out of range at byte 72."
        ],
    );
    check(
        r#", "logit_bias": {"5": 101}"#,
        expect![
            "decimal_above_max_value [logit_bias.5] The parameter logit_bias.5 must be between -100 and 100."
        ],
    );
    check(
        r#", "logit_bias": {"05": 1}"#,
        expect!["invalid_value [logit_bias.05] The parameter logit_bias.05 isn't a token id."],
    );
}

#[test]
fn stop_texts_are_bounded() {
    assert_eq!(
        chat(r#", "stop": ["a", "b"]"#).unwrap().sampling.stop,
        ["a", "b"]
    );
    check(
        r#", "stop": """#,
        expect!["invalid_value [stop] The parameter stop has an empty text."],
    );
    check(
        r#", "stop": [1]"#,
        expect!["invalid_type [stop] The parameter stop must be a string or an array of strings."],
    );
    let many = format!(r#", "stop": [{}]"#, vec![r#""a""#; 17].join(","));
    check(
        &many,
        expect!["array_above_max_length [stop] The parameter stop has 17 texts; at most 16."],
    );
    let long = format!(r#", "stop": "{}""#, "a".repeat(257));
    check(
        &long,
        expect![
            "string_above_max_length [stop] The parameter stop has a text longer than 256 bytes."
        ],
    );
}

#[test]
fn log_probabilities_are_asked_for_in_two_ways() {
    assert_eq!(chat(r#", "logprobs": true"#).unwrap().logprobs, Some(0));
    assert_eq!(chat(r#", "logprobs": false"#).unwrap().logprobs, None);
    check(
        r#", "top_logprobs": 2"#,
        expect![
            "invalid_value [top_logprobs] The parameter top_logprobs is only for requests with logprobs set to true."
        ],
    );
    check(
        r#", "logprobs": true, "top_logprobs": 21"#,
        expect![
            "integer_above_max_value [top_logprobs] The parameter top_logprobs must be between 0 and 20."
        ],
    );
    check(
        r#", "logprobs": 2"#,
        expect!["invalid_type [logprobs] The parameter logprobs must be true or false."],
    );
    let completions = completion(r#", "logprobs": true"#);
    expect!["invalid_type [logprobs] The parameter logprobs must be an integer."]
        .assert_eq(&show(completions));
}

#[test]
fn stream_options_are_for_streams() {
    check(
        r#", "stream_options": {"include_usage": true}"#,
        expect![
            "invalid_value [stream_options] The parameter stream_options is only for requests with stream set to true."
        ],
    );
    check(
        r#", "stream": true, "stream_options": {"include_usage": 1}"#,
        expect![
            "invalid_type [stream_options.include_usage] The parameter stream_options.include_usage must be true or false."
        ],
    );
    check(
        r#", "stream": true, "stream_options": {"else": true}"#,
        expect![
            "unknown_parameter [stream_options.else] The parameter stream_options.else isn't known."
        ],
    );
}

#[test]
fn what_changes_nothing_is_accepted() {
    let plain = chat("").unwrap();
    for rest in [
        r#", "user": "u", "metadata": {"a": "b"}, "store": true"#,
        r#", "response_format": {"type": "text"}, "tools": [], "tool_choice": "none""#,
        r#", "parallel_tool_calls": true"#,
        r#", "temperature": null, "stop": null, "stream_options": null, "tools": null"#,
    ] {
        assert_eq!(chat(rest).as_ref(), Ok(&plain), "{rest}");
    }
    let plain = completion("").unwrap();
    let rest = r#", "user": "u", "echo": false, "best_of": 1, "suffix": null"#;
    assert_eq!(completion(rest), Ok(plain));
}

#[test]
fn what_isnt_known_or_done_is_named() {
    check(
        r#", "chat_template": "{{ x }}""#,
        expect!["unknown_parameter [chat_template] The parameter chat_template isn't known."],
    );
    check(
        r#", "chat_template_kwargs": {"messages": []}"#,
        expect![
            "unknown_parameter [chat_template_kwargs.messages] The parameter chat_template_kwargs.messages can't be set."
        ],
    );
    check(
        r#", "temprature": 1"#,
        expect!["unknown_parameter [temprature] The parameter temprature isn't known."],
    );
    check(
        r#", "prompt": "a""#,
        expect!["unknown_parameter [prompt] The parameter prompt isn't known."],
    );
    check(
        r#", "tools": [{}]"#,
        expect![
            "missing_required_parameter [tools[0].type] The parameter tools[0].type is missing."
        ],
    );
    check(
        r#", "user": 5"#,
        expect!["invalid_type [user] The parameter user must be a string."],
    );
    for rest in [
        r#", "echo": true"#,
        r#", "best_of": 2"#,
        r#", "suffix": "a""#,
        r#", "messages": []"#,
    ] {
        assert!(completion(rest).is_err(), "{rest}");
    }
    let long = format!(r#", "{}": 1"#, "x".repeat(100_000));
    assert!(chat(&long).unwrap_err().message.len() < 200);
}

#[test]
fn what_is_no_object_is_refused() {
    let check = |body: &[u8], expected: Expect| {
        expected.assert_eq(&show(parse_chat(body, &Limits::default())));
    };
    check(
        b"",
        expect!["json_end [-] The body can't be read as JSON: unexpected end of JSON at byte 0."],
    );
    check(
        b"[]",
        expect!["invalid_type [-] The body must be a JSON object."],
    );
    check(
        b"{}",
        expect!["missing_required_parameter [messages] The parameter messages is missing."],
    );
    check(
        br#"{"messages": [{"role": "user", "content": "a"}]}"#,
        expect!["missing_required_parameter [model] The parameter model is missing."],
    );
    check(
        br#"{"model": "a", "model": "b"}"#,
        expect![[
            r#"json_duplicate_key [-] The body can't be read as JSON: duplicate key "model" at byte 15."#
        ]],
    );
    check(
        b"{\"model\": \"\xff\"}",
        expect!["json_utf8 [-] The body can't be read as JSON: invalid UTF-8 at byte 11."],
    );
    check(
        br#"{"model": "\ud800"}"#,
        expect![
            "json_surrogate [model] The body can't be read as JSON: lone surrogate at byte 11."
        ],
    );
}

#[test]
fn what_is_far_too_large_is_refused_early() {
    // What follows isn't read: it isn't even JSON.
    let many = format!(r#"{{"messages": [{}"#, "{},".repeat(4097));
    expect!["array_above_max_length [messages] The parameter messages has more than 4096 items."]
        .assert_eq(&show(parse_chat(many.as_bytes(), &Limits::default())));
    let members: String = (0..129)
        .map(|number| format!(r#""{number}": 1, "#))
        .collect();
    expect!["json_too_many [-] The body can't be read as JSON: more than 128 members or items at byte 1171."]
        .assert_eq(&show(parse_chat(format!("{{{members}").as_bytes(), &Limits::default())));
}

#[test]
fn texts_are_tokenized_and_back() {
    let body = br#"{"model": "m", "prompt": "", "add_special_tokens": false}"#;
    let expected = TokenizeAsk {
        model: Some("m".to_owned()),
        prompt: String::new(),
        add_special_tokens: false,
    };
    assert_eq!(parse_tokenize(body), Ok(expected));
    assert!(
        parse_tokenize(br#"{"prompt": "a"}"#)
            .unwrap()
            .add_special_tokens
    );
    let tokens = parse_detokenize(br#"{"tokens": [1, 4294967295]}"#).map(|ask| ask.tokens);
    assert_eq!(tokens, Ok(vec![1, u32::MAX]));
    expect!["invalid_type [tokens[0]] The parameter tokens[0] must be a token id."]
        .assert_eq(&show(parse_detokenize(br#"{"tokens": ["a"]}"#)));
    expect!["unknown_parameter [messages] The parameter messages isn't known."]
        .assert_eq(&show(parse_tokenize(br#"{"prompt": "a", "messages": []}"#)));
}

proptest! {
    #[test]
    fn arbitrary_bodies_never_panic(
        name in "[a-z_]{1,12}",
        value in r#"(-?[0-9]{1,20}(\.[0-9]{1,3})?|null|true|"[a-z]{0,3}"|\[[0-9,]{0,6}\]|\{\})"#,
    ) {
        let _ = chat(&format!(r#", "{name}": {value}"#));
        let _ = completion(&format!(r#", "{name}": {value}"#));
        let _ = parse_tokenize(format!(r#"{{"{name}": {value}}}"#).as_bytes());
        let _ = parse_detokenize(format!(r#"{{"{name}": {value}}}"#).as_bytes());
    }

    #[test]
    fn every_known_name_takes_any_value_without_panic(
        name in prop::sample::select(vec![
            "n", "seed", "stop", "top_k", "top_p", "max_tokens", "min_tokens", "logit_bias", "logprobs",
            "top_logprobs", "temperature", "stream_options", "stop_token_ids", "metadata", "tools",
        ]),
        value in r#"(-?[0-9]{1,20}(\.[0-9]{1,3})?|"[0-9a-z]{0,3}"|\[[0-9]{1,9}\]|\{"[0-9]{0,3}": 1\})"#,
    ) {
        let _ = chat(&format!(r#", "{name}": {value}"#));
        let _ = completion(&format!(r#", "{name}": {value}"#));
    }

    #[test]
    fn numbers_within_their_ranges_are_kept(
        temperature in 0.0..=2.0,
        top_p in 0.001..=1.0,
        seed: i64,
        n in 1..=8_u8,
        tokens in 1..=u32::MAX,
    ) {
        let rest = json!({
            "temperature": temperature, "top_p": top_p, "seed": seed, "n": n, "max_tokens": tokens,
        });
        let rest = rest.to_string();
        let ask = chat(&format!(",{}", &rest[1..rest.len() - 1])).unwrap();
        prop_assert_eq!(ask.sampling.temperature, Some(temperature));
        prop_assert_eq!(ask.sampling.top_p, Some(top_p));
        prop_assert_eq!(ask.sampling.seed, Some(seed.cast_unsigned()));
        prop_assert_eq!((ask.n, ask.max_tokens), (n, Some(tokens)));
    }
}
