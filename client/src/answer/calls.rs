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
