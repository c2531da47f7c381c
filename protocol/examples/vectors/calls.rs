//! Grammars and calls: what a request asks of its answer, and how calls are text.

use protocol::api::{Limits, parse_chat};
use protocol::calls::{self, CallReader, CallText, Piece};
use protocol::{Digest, RequestId};
use serde_json::{Value, json};

use super::forge::{invalid, valid};

pub const GRAMMARS: &str = "docs/spec/grammar.md, section 2: `grammar` and `grammar_sha256` are \
    what the chat request `body` gives; null: it asks for none. `error` is null, or the code of \
    the error that refuses it.";

pub const CALLS: &str = "docs/spec/grammar.md, section 4: what a model `said` in choice `choice` \
    of the request `jti` is `content` and `calls`; `text_sha256` is over `text`, as a receipt has it.";

const TOOL: &str = r#"{"type":"function","function":{"name":"add","description":"\u00e9\u001f/","parameters":{"type":"object","properties":{"x":{"maximum":1.50e0,"minimum":-0.0}},"required":["x"]}}}"#;

pub fn grammars() -> Vec<Value> {
    let body = |rest: &str| {
        format!(r#"{{"model":"m","messages":[{{"role":"user","content":"hi"}}]{rest}}}"#)
    };
    let good = |name: &str, rest: &str| {
        let body = body(rest);
        let ask = parse_chat(body.as_bytes(), &Limits::default()).expect("the case is valid");
        let members = json!({
            "body": body,
            "grammar": ask.grammar(),
            "grammar_sha256": ask.grammar_sha256(),
        });
        valid(name, members)
    };
    let bad =
        |name: &str, code: &str, rest: &str| invalid(name, code, json!({ "body": body(rest) }));
    vec![
        good("nothing", ""),
        good("text", r#","response_format":{"type":"text"},"tools":[]"#),
        good(
            "any object",
            r#","response_format": {"type": "json_object"}"#,
        ),
        good(
            "a schema",
            r#","response_format":{"json_schema":{"schema":{"b":1e21,"a":[1.0,null]},"name":"n"},"type":"json_schema"}"#,
        ),
        good("tools", &format!(r#", "tools" : [ {TOOL} ]"#)),
        good(
            "tools, with what is the default",
            &format!(r#","parallel_tool_calls":true,"tools":[{TOOL}],"tool_choice":"auto""#),
        ),
        good(
            "one call of one tool",
            &format!(
                r#","tools":[{TOOL}],"parallel_tool_calls":false,"tool_choice":{{"function":{{"name":"add"}},"type":"function"}}"#
            ),
        ),
        good(
            "tools and an object",
            &format!(r#","tools":[{TOOL}],"response_format":{{"type":"json_object"}}"#),
        ),
        good(
            "no call",
            &format!(r#","tools":[{TOOL}],"tool_choice":"none""#),
        ),
        bad(
            "the same tool twice",
            "invalid_value",
            &format!(r#","tools":[{TOOL},{TOOL}]"#),
        ),
        bad(
            "a tool that isn't there",
            "invalid_value",
            r#","tools":[],"tool_choice":{"type":"function","function":{"name":"add"}}"#,
        ),
        bad(
            "no tools to require",
            "invalid_value",
            r#","tool_choice":"required""#,
        ),
        bad(
            "a member that nobody knows",
            "unknown_parameter",
            r#","tools":[{"type":"function","function":{"name":"add"},"x":1}]"#,
        ),
    ]
}

pub fn calls() -> Vec<Value> {
    let jti = format!("chatcmpl-{}", "0123456789abcdef".repeat(2));
    let request: RequestId = jti.parse().expect("it is one");
    let first = "<tool_call>\n{\"name\": \"add\", \"arguments\": {\"x\": \"}\\\"\"}}\n</tool_call>";
    let both = [first, "\n", &first.replace("add", "sub")].concat();
    let case = |name: &str, choice: u8, said: &str| {
        let mut reader = CallReader::default();
        let mut pieces = reader.push(said);
        pieces.extend(reader.finish());
        let mut content = String::new();
        let mut found: Vec<(String, String)> = Vec::new();
        for piece in pieces {
            match piece {
                Piece::Content(text) => content.push_str(&text),
                Piece::Call { name } => found.push((name, String::new())),
                Piece::Arguments(text) => {
                    if let Some(call) = found.last_mut() {
                        call.1.push_str(&text);
                    }
                }
            }
        }
        let text = CallText::of(
            &content,
            found.iter().map(|(n, a)| (n.as_str(), a.as_str())),
        );
        let shown: Vec<Value> = (0u8..)
            .zip(&found)
            .map(|(index, (name, arguments))| {
                json!({ "id": calls::id(&request, choice, index), "name": name, "arguments": arguments })
            })
            .collect();
        let members = json!({
            "jti": jti, "choice": choice, "said": said, "content": content, "calls": shown,
            "text_sha256": Digest::of(text.as_bytes()), "text": text,
        });
        valid(name, members)
    };
    vec![
        case("content", 0, "It is <tool_call>"),
        case("nothing", 0, ""),
        case("the beginning of the mark", 0, "<tool_c"),
        case("a call", 0, first),
        case("two calls, in the second choice", 1, &both),
        case("cut in its name", 0, &first[..24]),
        case("cut before its arguments", 0, &first[..first.len() - 27]),
        case("cut in its arguments", 0, &first[..first.len() - 18]),
        case("cut after its arguments", 0, &first[..first.len() - 10]),
        case("cut in the second", 0, &both[..both.len() - 19]),
    ]
}
