//! Tools for models whose chat template doesn't know them: described in a
//! system message, with calls and their answers as texts.
//!
//! Normative in `docs/spec/grammar.md`, 5. Start at [`told`].

use protocol::api::{Message, Role, Tools};
use protocol::calls::CallText;
use protocol::json::canonical;

/// The conversation as such a template takes it.
pub(crate) fn told(messages: &[Message], tools: Option<&Tools>) -> Vec<Message> {
    let mut told: Vec<Message> = Vec::with_capacity(messages.len() + 1);
    let mut after_tool = false;
    for message in messages {
        let content = said(message);
        let tool = message.role == Role::Tool;
        match told.last_mut() {
            // The answers to several calls are one turn.
            Some(last) if tool && after_tool => {
                last.content.push('\n');
                last.content.push_str(&content);
            }
            _ if tool => told.push(Message::new(Role::User, content)),
            _ => told.push(Message::new(message.role, content)),
        }
        after_tool = tool;
    }
    if let Some(tools) = tools {
        let text = described(tools);
        match told.first_mut() {
            Some(first) if first.role == Role::System => {
                first.content = [&first.content, "\n\n", &text].concat();
            }
            _ => told.insert(0, Message::new(Role::System, text)),
        }
    }
    told
}

fn said(message: &Message) -> String {
    if message.role == Role::Tool {
        return ["<tool_response>\n", &message.content, "\n</tool_response>"].concat();
    }
    let calls = message.tool_calls.iter();
    let calls = CallText::of("", calls.map(|c| (c.name.as_str(), c.arguments.as_str())));
    match message.content.is_empty() || calls.is_empty() {
        true => [message.content.as_str(), &calls].concat(),
        false => [&message.content, "\n", &calls].concat(),
    }
}

fn described(tools: &Tools) -> String {
    let mut text = BEFORE.to_owned();
    for function in &tools.functions {
        text.push_str(&canonical(&function.source));
        text.push('\n');
    }
    text + AFTER
}

const BEFORE: &str = "You can call functions to answer the user. These are the functions:\n";

const AFTER: &str = "\
To call one, answer with nothing but this, with its name and its arguments:
<tool_call>
{\"name\": \"NAME\", \"arguments\": {\"KEY\": \"VALUE\"}}
</tool_call>";

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use protocol::api::{Limits, Prompt, parse_chat};

    use super::*;

    #[test]
    fn tools_are_told_in_text() {
        let body = r#"{"model": "m", "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "2+2, 3+3?"},
            {"role": "assistant", "content": "Well.", "tool_calls": [
                {"id": "a", "type": "function", "function": {"name": "add", "arguments": "{\"x\": 2}"}},
                {"id": "b", "type": "function", "function": {"name": "add", "arguments": "{\"x\": 3}"}}]},
            {"role": "tool", "tool_call_id": "a", "content": "4"},
            {"role": "tool", "tool_call_id": "b", "content": "6"},
            {"role": "assistant", "content": "4 and 6."}],
            "tools": [{"type": "function", "function": {"name": "add"}}]}"#;
        let ask = parse_chat(body.as_bytes(), &Limits::default()).unwrap();
        let Prompt::Messages(messages) = &ask.prompt else {
            panic!("a chat has messages")
        };
        let text: Vec<String> = told(messages, ask.tools.as_ref())
            .iter()
            .map(|message| format!("[{}] {}\n", message.role.as_str(), message.content))
            .collect();
        expect![[r#"
            [system] Be brief.

            You can call functions to answer the user. These are the functions:
            {"type":"function","function":{"name":"add"}}
            To call one, answer with nothing but this, with its name and its arguments:
            <tool_call>
            {"name": "NAME", "arguments": {"KEY": "VALUE"}}
            </tool_call>
            [user] 2+2, 3+3?
            [assistant] Well.
            <tool_call>
            {"name": "add", "arguments": {"x": 2}}
            </tool_call>
            <tool_call>
            {"name": "add", "arguments": {"x": 3}}
            </tool_call>
            [user] <tool_response>
            4
            </tool_response>
            <tool_response>
            6
            </tool_response>
            [assistant] 4 and 6.
        "#]]
        .assert_eq(&text.concat());
        // Without a system message there is one, and without tools none.
        let alone = [Message::new(Role::User, "hi")];
        assert_eq!(told(&alone, ask.tools.as_ref())[0].role, Role::System);
        assert_eq!(told(&alone, None), alone);
    }
}
