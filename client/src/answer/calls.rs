//! The calls of a choice, as they come.
//!
//! Their text is what a receipt hashes. It must read back as these calls and
//! nothing else: otherwise the same hash could stand for two answers.

use protocol::calls::{BEGIN, BETWEEN, CallReader, HEAD, MIDDLE, Piece, TAIL};
use serde_json::Value;

use super::{Call, Choice};

/// Takes `tool_calls`, of a chunk or a whole answer; the text that they add, or none if they
/// aren't what the API has.
pub(super) fn take(calls: &mut Vec<Call>, found: &Value, stream: bool) -> Option<String> {
    let mut text = String::new();
    for (at, found) in found.as_array()?.iter().enumerate() {
        let index = match stream {
            true => usize::try_from(found.get("index")?.as_u64()?).ok()?,
            false => at,
        };
        let function = found.get("function")?;
        let arguments = match function.get("arguments") {
            Some(arguments) => arguments.as_str()?,
            None => "",
        };
        if index == calls.len() {
            let id = found.get("id")?.as_str()?.to_owned();
            let name = function.get("name")?.as_str()?.to_owned();
            if found.get("type")? != "function" {
                return None;
            }
            if index > 0 {
                text.extend([TAIL, BETWEEN]);
            }
            text.extend([HEAD, &name, MIDDLE]);
            calls.push(Call {
                id,
                name,
                arguments: String::new(),
            });
        } else if index + 1 != calls.len() {
            return None;
        }
        text.push_str(arguments);
        calls.last_mut()?.arguments.push_str(arguments);
    }
    Some(text)
}

/// What ends the text of a choice; none if its text doesn't say its calls.
pub(super) fn end(choice: &Choice) -> Option<&'static str> {
    if choice.calls.is_empty() {
        return (!choice.text.starts_with(BEGIN)).then_some("");
    }
    let mut read: Vec<(String, String)> = Vec::new();
    for piece in CallReader::default().push(&choice.text) {
        match piece {
            Piece::Content(_) => return None,
            Piece::Call { name } => read.push((name, String::new())),
            Piece::Arguments(text) => read.last_mut()?.1.push_str(&text),
        }
    }
    let said = choice.calls.iter();
    let said = said.map(|call| (call.name.as_str(), call.arguments.as_str()));
    let read = read
        .iter()
        .map(|(name, text)| (name.as_str(), text.as_str()));
    said.eq(read).then_some(TAIL)
}

#[cfg(test)]
mod tests {
    use protocol::api::{Ask, Limits, parse_chat};
    use serde_json::json;

    use crate::answer::{Answer, AnswerError, Assembly};

    fn ask() -> Ask {
        let body = r#"{"model": "m", "messages": [{"role": "user", "content": "hi"}],
            "tools": [{"type": "function", "function": {"name": "f"}}]}"#;
        parse_chat(body.as_bytes(), &Limits::default()).unwrap()
    }

    fn stream(deltas: &[serde_json::Value], finish: &str) -> Result<Answer, AnswerError> {
        let mut assembly = Assembly::for_ask(&ask());
        let end = json!([{ "index": 0, "delta": {}, "finish_reason": finish }]);
        let choices = deltas
            .iter()
            .map(|delta| json!([{ "index": 0, "delta": delta }]));
        for choices in choices.chain([end]) {
            let event = json!({ "id": "a", "model": "m", "choices": choices });
            assembly.event(&event.to_string())?;
        }
        assembly.event("[DONE]")?;
        Ok(assembly.into_answer())
    }

    fn call(index: u8, name: &str) -> serde_json::Value {
        let function = json!({ "name": name, "arguments": "" });
        json!({ "tool_calls": [{ "index": index, "id": format!("call_{index}"), "type": "function", "function": function }] })
    }

    fn arguments(index: u8, text: &str) -> serde_json::Value {
        json!({ "tool_calls": [{ "index": index, "function": { "arguments": text } }] })
    }

    const TWO: &str = "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 1}}\n</tool_call>\n\
        <tool_call>\n{\"name\": \"g\", \"arguments\": {}}\n</tool_call>";

    #[test]
    fn calls_add_up_to_the_text_that_is_hashed() {
        let deltas = [
            json!({ "role": "assistant", "content": null }),
            call(0, "f"),
            arguments(0, "{\"a\""),
            arguments(0, ": 1}"),
            call(1, "g"),
            arguments(1, "{}"),
        ];
        let answer = stream(&deltas, "tool_calls").unwrap();
        let choice = &answer.choices[0];
        assert_eq!(choice.text, TWO);
        assert_eq!(
            (
                choice.calls[0].name.as_str(),
                choice.calls[0].arguments.as_str()
            ),
            ("f", "{\"a\": 1}")
        );
        assert_eq!(choice.calls[1].id, "call_1");
        // A whole body says the same.
        let calls = choice.calls.iter().map(|call| {
            let function = json!({ "name": call.name, "arguments": call.arguments });
            json!({ "id": call.id, "type": "function", "function": function })
        });
        let calls: Vec<_> = calls.collect();
        let message = json!({ "role": "assistant", "content": null, "tool_calls": calls });
        let body = json!({ "id": "a", "model": "m", "choices": [
            { "index": 0, "message": message, "finish_reason": "tool_calls" }] });
        let mut whole = Assembly::for_ask(&ask());
        whole.body(200, body.to_string().as_bytes()).unwrap();
        assert_eq!(whole.into_answer().choices, answer.choices);
        // Cut in its arguments, a call is hashed as if it ended there.
        let cut = stream(&[call(0, "f"), arguments(0, "{\"a")], "length").unwrap();
        assert_eq!(
            cut.choices[0].text,
            "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a}\n</tool_call>"
        );
    }

    #[test]
    fn no_text_stands_for_two_answers() {
        let one_as_two = r#"{"a": 1}}
</tool_call>
<tool_call>
{"name": "g", "arguments": {}"#;
        for deltas in [
            vec![json!({ "content": TWO })],
            vec![call(0, "f"), arguments(0, one_as_two)],
            vec![call(0, "f\", \"arguments\": {}"), arguments(0, "{}")],
            vec![json!({ "content": "x" }), call(0, "f"), arguments(0, "{}")],
            vec![call(1, "f"), arguments(1, "{}")],
            vec![call(0, "f"), call(1, "g"), arguments(0, "{}")],
        ] {
            let refused = stream(&deltas, "tool_calls").unwrap_err();
            assert_eq!(refused, AnswerError::Calls(0), "{deltas:?}");
        }
        let mut unasked = Assembly::new(protocol::Kind::Chat, 1);
        let choices = json!([{ "index": 0, "delta": call(0, "f") }]);
        let event = json!({ "id": "a", "model": "m", "choices": choices });
        assert_eq!(
            unasked.event(&event.to_string()),
            Err(AnswerError::Calls(0))
        );
    }
}
