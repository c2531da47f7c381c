//! Reads the members of a JSON object one by one, so that whatever is left at
//! the end is an unknown parameter.
//!
//! A member that is `null` counts as absent, as in the OpenAI API.

use serde_json::{Map, Value};

use crate::api::ApiError;
use crate::json::{self, Bounds, JsonError, JsonFault, shown};

/// Members of a body, known or not, at most.
const MEMBERS_MAX: usize = 128;

/// The members of one object that nobody has read yet.
pub(super) struct Fields {
    members: Map<String, Value>,
    /// Where the object is: empty at the top, else such as `messages[3]`.
    path: String,
}

/// Where a number may lie.
pub(super) struct Range {
    pub min: f64,
    pub max: f64,
    /// Whether `min` itself is outside.
    pub above_min: bool,
}

impl Fields {
    /// The members of a request's body, whose arrays have at most `items`.
    pub fn of_body(body: &[u8], items: &[(&str, usize)]) -> Result<Self, ApiError> {
        let bounds = Bounds {
            members: MEMBERS_MAX,
            items,
        };
        let value = json::parse_within(body, bounds).map_err(json_error)?;
        match value {
            Value::Object(members) => Ok(Fields {
                members,
                path: String::new(),
            }),
            _ => Err(ApiError {
                message: "The body must be a JSON object.".to_owned(),
                param: None,
                code: "invalid_type",
            }),
        }
    }

    /// The members of a value inside another.
    pub fn of_value(value: Value, path: String) -> Result<Self, ApiError> {
        match value {
            Value::Object(members) => Ok(Fields { members, path }),
            _ => Err(error(path, "invalid_type", "must be an object")),
        }
    }

    /// The path of a member.
    pub fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.path)
        }
    }

    /// An error about a member; `message` goes on after its path.
    pub fn refuse(&self, name: &str, code: &'static str, message: &str) -> ApiError {
        error(self.path_of(name), code, message)
    }

    /// Takes a member out.
    pub fn take(&mut self, name: &str) -> Option<Value> {
        self.members
            .shift_remove(name)
            .filter(|value| !value.is_null())
    }

    /// Refuses whatever nobody took.
    pub fn finish(self) -> Result<(), ApiError> {
        match self.members.keys().next() {
            None => Ok(()),
            Some(name) => Err(self.refuse(&shown(name), "unknown_parameter", "isn't known")),
        }
    }

    /// Makes an optional member a required one.
    pub fn required<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(&mut Self, &str) -> Result<Option<T>, ApiError>,
    ) -> Result<T, ApiError> {
        read(self, name)?
            .ok_or_else(|| self.refuse(name, "missing_required_parameter", "is missing"))
    }

    pub fn string(&mut self, name: &str) -> Result<Option<String>, ApiError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(self.refuse(name, "invalid_type", "must be a string")),
        }
    }

    pub fn boolean(&mut self, name: &str) -> Result<Option<bool>, ApiError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(flag)),
            Some(_) => Err(self.refuse(name, "invalid_type", "must be true or false")),
        }
    }

    pub fn object(&mut self, name: &str) -> Result<Option<Fields>, ApiError> {
        self.take(name)
            .map(|value| Fields::of_value(value, self.path_of(name)))
            .transpose()
    }

    pub fn array(&mut self, name: &str, most: usize) -> Result<Option<Vec<Value>>, ApiError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Array(items)) if items.len() <= most => Ok(Some(items)),
            Some(Value::Array(_)) => Err(self.refuse(
                name,
                "array_above_max_length",
                &format!("has more than {most} items"),
            )),
            Some(_) => Err(self.refuse(name, "invalid_type", "must be an array")),
        }
    }

    pub fn integer(&mut self, name: &str, min: i64, max: i64) -> Result<Option<i64>, ApiError> {
        let Some(value) = self.take(name) else {
            return Ok(None);
        };
        let between = format!("must be between {min} and {max}");
        match (value.as_i64(), value.is_u64()) {
            (Some(number), _) if number < min => {
                Err(self.refuse(name, "integer_below_min_value", &between))
            }
            (Some(number), _) if number <= max => Ok(Some(number)),
            (Some(_), _) | (None, true) => {
                Err(self.refuse(name, "integer_above_max_value", &between))
            }
            (None, false) => Err(self.refuse(name, "invalid_type", "must be an integer")),
        }
    }

    pub fn number(&mut self, name: &str, range: &Range) -> Result<Option<f64>, ApiError> {
        self.take(name)
            .map(|value| number(&value, self.path_of(name), range))
            .transpose()
    }

    pub fn token_ids(&mut self, name: &str, most: usize) -> Result<Option<Vec<u32>>, ApiError> {
        self.array(name, most)?
            .map(|items| token_ids(&items, &self.path_of(name)))
            .transpose()
    }

    /// Takes a member that may only have a value without effect.
    pub fn only_if(
        &mut self,
        name: &str,
        allowed: &str,
        without_effect: impl FnOnce(&Value) -> bool,
    ) -> Result<(), ApiError> {
        match self.take(name) {
            Some(value) if !without_effect(&value) => Err(self.refuse(
                name,
                "unsupported_value",
                &format!("isn't supported, but for {allowed}"),
            )),
            _ => Ok(()),
        }
    }
}

fn json_error(fault: JsonError) -> ApiError {
    match fault.fault {
        JsonFault::TooMany(most) if !fault.path.is_empty() => error(
            fault.path,
            "array_above_max_length",
            &format!("has more than {most} items"),
        ),
        _ => ApiError {
            message: format!("The body can't be read as JSON: {fault}."),
            code: fault.code(),
            param: (!fault.path.is_empty()).then_some(fault.path),
        },
    }
}

/// An error about the parameter at `path`.
pub(super) fn error(path: String, code: &'static str, message: &str) -> ApiError {
    ApiError {
        message: format!("The parameter {path} {message}."),
        param: Some(path),
        code,
    }
}

/// A finite number within a range. Minus zero is read as zero.
pub(super) fn number(value: &Value, path: String, range: &Range) -> Result<f64, ApiError> {
    let Some(number) = value.as_f64() else {
        return Err(error(path, "invalid_type", "must be a number"));
    };
    let Range { min, max, .. } = range;
    let message = match range.above_min {
        true => format!("must be above {min} and at most {max}"),
        false => format!("must be between {min} and {max}"),
    };
    if number < *min || (range.above_min && number == *min) {
        return Err(error(path, "decimal_below_min_value", &message));
    }
    if number > *max {
        return Err(error(path, "decimal_above_max_value", &message));
    }
    Ok(number + 0.0)
}

/// An array of token ids.
pub(super) fn token_ids(items: &[Value], path: &str) -> Result<Vec<u32>, ApiError> {
    let id = |(index, item): (usize, &Value)| {
        item.as_u64()
            .and_then(|id| u32::try_from(id).ok())
            .ok_or_else(|| {
                error(
                    format!("{path}[{index}]"),
                    "invalid_type",
                    "must be a token id",
                )
            })
    };
    items.iter().enumerate().map(id).collect()
}
