//! What to complete: a conversation, a text or token ids.

use serde_json::{Map, Value};

use super::fields::{self, Fields};
use super::without_effect;
use crate::api::{ApiError, Limits, Message, Prompt, Role, ToolCall};
use crate::json::shown;

/// What a template gets from us, and no request may name.
const RESERVED_KWARGS: [&str; 11] = [
    "add_generation_prompt",
    "bos_token",
    "chat_template",
    "continue_final_message",
    "documents",
    "eos_token",
    "messages",
    "raise_exception",
    "strftime_now",
    "tokenize",
    "tools",
];

/// The member `messages`.
pub(super) fn messages(fields: &mut Fields, limits: &Limits) -> Result<Vec<Message>, ApiError> {
    let items = fields.required("messages", |fields, name| {
        fields.array(name, limits.messages)
    })?;
    if items.is_empty() {
        return Err(fields.refuse("messages", "invalid_value", "is empty"));
    }
    let mut messages: Vec<Message> = Vec::with_capacity(items.len());
    for (index, item) in items.into_iter().enumerate() {
        let message = message(item, format!("messages[{index}]"), limits)?;
        if let Some(id) = &message.tool_call_id {
            let mut calls = messages.iter().flat_map(|message| &message.tool_calls);
            if calls.all(|call| call.id != *id) {
                let path = format!("messages[{index}].tool_call_id");
                let message = "isn't the id of a call before it";
                return Err(fields::error(path, "invalid_value", message));
            }
        }
        messages.push(message);
    }
    Ok(messages)
}

fn message(item: Value, path: String, limits: &Limits) -> Result<Message, ApiError> {
    let mut fields = Fields::of_value(item, path)?;
    let name = fields.required("role", Fields::string)?;
    let role = match name.as_str() {
        "system" | "developer" => Role::System,
        "user" => Role::User,
        "assistant" => Role::Assistant,
        "tool" => Role::Tool,
        other => {
            return Err(fields.refuse(
                "role",
                "invalid_value",
                &format!(
                    "must be system, developer, user, assistant or tool, not {:?}",
                    shown(other)
                ),
            ));
        }
    };
    let mut message = Message::new(role, "");
    if role == Role::Assistant {
        without_effect::assistant_message(&mut fields)?;
        message.tool_calls = tool_calls(&mut fields, limits)?;
    }
    if role == Role::Tool {
        message.tool_call_id = Some(fields.required("tool_call_id", Fields::string)?);
    }
    // A message that calls needn't say anything.
    message.content = match fields.take("content") {
        None if !message.tool_calls.is_empty() => String::new(),
        given => content(&fields, given)?,
    };
    fields.finish()?;
    Ok(message)
}

fn tool_calls(fields: &mut Fields, limits: &Limits) -> Result<Vec<ToolCall>, ApiError> {
    let path = fields.path_of("tool_calls");
    let items = fields.array("tool_calls", limits.tools)?;
    let mut calls = Vec::new();
    for (index, item) in items.unwrap_or_default().into_iter().enumerate() {
        let mut fields = Fields::of_value(item, format!("{path}[{index}]"))?;
        let kind = fields.required("type", Fields::string)?;
        if kind != "function" {
            let message = format!("must be function, not {:?}", shown(&kind));
            return Err(fields.refuse("type", "unsupported_value", &message));
        }
        let mut function = fields.required("function", Fields::object)?;
        calls.push(ToolCall {
            id: fields.required("id", Fields::string)?,
            name: function.required("name", Fields::string)?,
            arguments: function.required("arguments", Fields::string)?,
        });
        function.finish()?;
        fields.finish()?;
    }
    Ok(calls)
}

fn content(fields: &Fields, given: Option<Value>) -> Result<String, ApiError> {
    let path = fields.path_of("content");
    let missing = || fields.refuse("content", "missing_required_parameter", "is missing");
    match given.ok_or_else(missing)? {
        Value::String(text) => Ok(text),
        Value::Array(parts) => {
            let texts: Result<Vec<String>, ApiError> = parts
                .into_iter()
                .enumerate()
                .map(|(index, part)| text_part(part, format!("{path}[{index}]")))
                .collect();
            Ok(texts?.join("\n"))
        }
        _ => Err(fields::error(
            path,
            "invalid_type",
            "must be a string or an array of text parts",
        )),
    }
}

fn text_part(part: Value, path: String) -> Result<String, ApiError> {
    let mut fields = Fields::of_value(part, path)?;
    let kind = fields.required("type", Fields::string)?;
    if kind != "text" {
        return Err(fields.refuse(
            "type",
            "unsupported_value",
            &format!("must be text, not {:?}", shown(&kind)),
        ));
    }
    let text = fields.required("text", Fields::string)?;
    fields.finish()?;
    Ok(text)
}

/// The member `chat_template_kwargs`.
pub(super) fn template_kwargs(fields: &mut Fields) -> Result<Map<String, Value>, ApiError> {
    let path = fields.path_of("chat_template_kwargs");
    match fields.take("chat_template_kwargs") {
        None => Ok(Map::new()),
        Some(Value::Object(kwargs)) => match RESERVED_KWARGS
            .iter()
            .find(|name| kwargs.contains_key(**name))
        {
            None => Ok(kwargs),
            Some(name) => Err(fields::error(
                format!("{path}.{name}"),
                "unknown_parameter",
                "can't be set",
            )),
        },
        Some(_) => Err(fields::error(path, "invalid_type", "must be an object")),
    }
}

/// The member `prompt` of a completion: one text or one array of token ids,
/// alone or as the only item of an array.
pub(super) fn one(fields: &mut Fields) -> Result<Prompt, ApiError> {
    let path = fields.path_of("prompt");
    let wrong = |path| {
        let message = "must be a string or an array of token ids";
        fields::error(path, "invalid_type", message)
    };
    match fields.required("prompt", |fields, name| Ok(fields.take(name)))? {
        Value::Array(items) if !items.iter().all(Value::is_number) => {
            let [item] = <[Value; 1]>::try_from(items).map_err(|_| {
                let message = "has several prompts; send one request for each";
                fields::error(path.clone(), "unsupported_value", message)
            })?;
            let path = format!("{path}[0]");
            match item {
                Value::String(_) => text_or_tokens(item, path),
                Value::Array(_) => text_or_tokens(item, path),
                _ => Err(wrong(path)),
            }
        }
        prompt @ (Value::String(_) | Value::Array(_)) => text_or_tokens(prompt, path),
        _ => Err(wrong(path)),
    }
}

fn text_or_tokens(value: Value, path: String) -> Result<Prompt, ApiError> {
    let prompt = match value {
        Value::Array(items) => Prompt::Tokens(fields::token_ids(&items, &path)?),
        Value::String(text) => Prompt::Text(text),
        _ => unreachable!("the caller passes strings and arrays"),
    };
    match &prompt {
        Prompt::Text(text) if text.is_empty() => {}
        Prompt::Tokens(tokens) if tokens.is_empty() => {}
        _ => return Ok(prompt),
    }
    Err(fields::error(path, "invalid_value", "is empty"))
}
