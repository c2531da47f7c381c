//! Parameters that are accepted because they change nothing, and only with
//! values that change nothing.
//!
//! `user`, `metadata` and `store` may say anything of their type; they are
//! part of the body that is signed, and of nothing else.

use serde_json::Value;

use super::fields::Fields;
use crate::api::ApiError;

/// Of `/v1/chat/completions`.
pub(super) fn chat(fields: &mut Fields) -> Result<(), ApiError> {
    shared(fields)
}

/// Of `/v1/completions`.
pub(super) fn completion(fields: &mut Fields) -> Result<(), ApiError> {
    shared(fields)?;
    fields.only_if("echo", "false", |value| *value == false)?;
    fields.only_if("best_of", "1", |value| *value == 1)?;
    fields.only_if("suffix", "null", |_| false)
}

/// What our own answers hold, and SDKs send back with a message.
pub(super) fn assistant_message(fields: &mut Fields) -> Result<(), ApiError> {
    fields.only_if("refusal", "null", |_| false)?;
    fields.only_if("audio", "null", |_| false)?;
    fields.only_if("function_call", "null", |_| false)?;
    fields.only_if("annotations", "an empty array", is_empty_array)
}

fn shared(fields: &mut Fields) -> Result<(), ApiError> {
    fields.string("user")?;
    fields.boolean("store")?;
    match fields.take("metadata") {
        None | Some(Value::Object(_)) => Ok(()),
        Some(_) => Err(fields.refuse("metadata", "invalid_type", "must be an object")),
    }
}

fn is_empty_array(value: &Value) -> bool {
    value.as_array().is_some_and(Vec::is_empty)
}
