//! How tokens are drawn, and when to stop.

use std::collections::BTreeMap;

use serde_json::Value;

use super::fields::{self, Fields, Range};
use super::narrow;
use crate::api::{ApiError, Limits, SamplingAsk};
use crate::json::shown;

/// All sampling parameters.
pub(super) fn read(
    fields: &mut Fields,
    limits: &Limits,
    max_tokens: Option<u32>,
) -> Result<SamplingAsk, ApiError> {
    let most_tokens = i64::from(max_tokens.unwrap_or(u32::MAX));
    Ok(SamplingAsk {
        temperature: fields.number("temperature", &between(0.0, 2.0))?,
        top_p: fields.number("top_p", &above(0.0, 1.0))?,
        top_k: top_k(fields)?,
        min_p: fields.number("min_p", &between(0.0, 1.0))?,
        seed: seed(fields)?,
        stop: stop(fields, limits)?,
        stop_token_ids: fields
            .token_ids("stop_token_ids", limits.stop_token_ids)?
            .unwrap_or_default(),
        min_tokens: fields.integer("min_tokens", 0, most_tokens)?.map(narrow),
        ignore_eos: fields.boolean("ignore_eos")?.unwrap_or(false),
        repetition_penalty: fields.number("repetition_penalty", &between(0.01, 2.0))?,
        presence_penalty: fields.number("presence_penalty", &between(-2.0, 2.0))?,
        frequency_penalty: fields.number("frequency_penalty", &between(-2.0, 2.0))?,
        logit_bias: logit_bias(fields, limits)?,
    })
}

fn between(min: f64, max: f64) -> Range {
    Range {
        min,
        max,
        above_min: false,
    }
}

fn above(min: f64, max: f64) -> Range {
    Range {
        min,
        max,
        above_min: true,
    }
}

/// -1 is how some clients say "off".
fn top_k(fields: &mut Fields) -> Result<Option<u32>, ApiError> {
    let top_k = fields.integer("top_k", -1, u32::MAX.into())?;
    Ok(top_k.map(|k| narrow(k.max(0))))
}

fn seed(fields: &mut Fields) -> Result<Option<u64>, ApiError> {
    let Some(value) = fields.take("seed") else {
        return Ok(None);
    };
    value
        .as_u64()
        .or_else(|| value.as_i64().map(i64::cast_unsigned))
        .map(Some)
        .ok_or_else(|| fields.refuse("seed", "invalid_type", "must be a 64-bit integer"))
}

fn stop(fields: &mut Fields, limits: &Limits) -> Result<Vec<String>, ApiError> {
    let texts = match fields.take("stop") {
        None => return Ok(Vec::new()),
        Some(Value::Array(texts)) => texts,
        Some(text) => vec![text],
    };
    if texts.len() > limits.stop {
        let message = format!("has {} texts; at most {}", texts.len(), limits.stop);
        return Err(fields.refuse("stop", "array_above_max_length", &message));
    }
    let text = |text: Value| match text {
        Value::String(text) if text.is_empty() => {
            Err(fields.refuse("stop", "invalid_value", "has an empty text"))
        }
        Value::String(text) if text.len() <= limits.stop_bytes => Ok(text),
        Value::String(_) => {
            let message = format!("has a text longer than {} bytes", limits.stop_bytes);
            Err(fields.refuse("stop", "string_above_max_length", &message))
        }
        _ => {
            let message = "must be a string or an array of strings";
            Err(fields.refuse("stop", "invalid_type", message))
        }
    };
    texts.into_iter().map(text).collect()
}

fn logit_bias(fields: &mut Fields, limits: &Limits) -> Result<BTreeMap<u32, f64>, ApiError> {
    let path = fields.path_of("logit_bias");
    let members = match fields.take("logit_bias") {
        None => return Ok(BTreeMap::new()),
        Some(Value::Object(members)) => members,
        Some(_) => return Err(fields::error(path, "invalid_type", "must be an object")),
    };
    if members.len() > limits.logit_bias {
        let message = format!(
            "has {} tokens; at most {}",
            members.len(),
            limits.logit_bias
        );
        return Err(fields::error(path, "array_above_max_length", &message));
    }
    let bias = |(name, value): (&String, &Value)| {
        let path = format!("{path}.{}", shown(name));
        let token: Option<u32> = name.parse().ok();
        match token.filter(|token| token.to_string() == *name) {
            Some(token) => Ok((token, fields::number(value, path, &between(-100.0, 100.0))?)),
            None => Err(fields::error(path, "invalid_value", "isn't a token id")),
        }
    };
    members.iter().map(bias).collect()
}
