//! What a request asks of the form of its answer: tools that the model may
//! call, and a format for its text.
//!
//! The parts that decide the grammar are kept as they came, since a receipt
//! states their digest. Normative in `docs/spec/grammar.md`, 2.

use serde_json::{Map, Value, json};

use super::fields::{self, Fields};
use crate::api::{ApiError, Ask, Limits};
use crate::digest::{Digest, Hasher};
use crate::json::{canonical, shown};

/// What reads the grammars, as receipts name it.
pub const GRAMMAR_ENGINE: &str = "llguidance-1.9";

/// Goes before the parts of a request where they are hashed.
const GRAMMAR_DOMAIN: &[u8] = b"countersign/grammar/1\n";

/// The tools of a request, where the model may call any.
#[derive(Debug, Clone, PartialEq)]
pub struct Tools {
    /// The functions, in the request's order; their names differ.
    pub functions: Vec<Function>,
    /// Which of them the answer must call.
    pub choice: ToolChoice,
    /// Whether the answer may have several calls.
    pub parallel: bool,
    /// `tools` as it came.
    source: Value,
}

/// A function that the model may call.
#[derive(Debug, Clone, PartialEq)]
pub struct Function {
    /// 1 to 64 letters, digits, underscores and dashes.
    pub name: String,
    /// The schema of its arguments, whose type is `object`; none: it takes none.
    pub parameters: Option<Map<String, Value>>,
    /// The tool as it came, for the chat template.
    pub source: Value,
}

/// Whether the model must call. `none` isn't here: such a request has no [`Tools`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToolChoice {
    /// It may, or may say something.
    Auto,
    /// It must call one or more.
    Required,
    /// It must call this one, once.
    Named(String),
}

/// What the text of the answer must be, where it isn't any text.
#[derive(Debug, Clone, PartialEq)]
pub struct ResponseFormat {
    /// The schema; none: any JSON object.
    pub schema: Option<Map<String, Value>>,
    /// `response_format` as it came.
    source: Value,
}

impl Ask {
    /// The kind of this request's grammar and its engine, as `sampling.grammar` states them; none:
    /// any text will do. Spec grammar 2.1.
    pub fn grammar(&self) -> Option<String> {
        let format = self.response_format.as_ref().map(|f| match f.schema {
            Some(_) => "json_schema",
            None => "json_object",
        });
        let kind = match (&self.tools, format) {
            (None, None) => return None,
            (None, Some(format)) => format.to_owned(),
            (Some(_), None) => "tools".to_owned(),
            (Some(_), Some(format)) => format!("tools+{format}"),
        };
        Some(format!("{kind}/{GRAMMAR_ENGINE}"))
    }

    /// The digest of all parts of this request that decide its grammar. Spec grammar 2.2.
    pub fn grammar_sha256(&self) -> Option<Digest> {
        self.grammar()?;
        let mut parts = Map::new();
        if let Some(tools) = &self.tools {
            parts.insert("parallel_tool_calls".into(), tools.parallel.into());
        }
        if let Some(format) = &self.response_format {
            parts.insert("response_format".into(), format.source.clone());
        }
        if let Some(tools) = &self.tools {
            parts.insert("tool_choice".into(), tools.choice.canonical());
            parts.insert("tools".into(), tools.source.clone());
        }
        let mut hasher = Hasher::new();
        hasher.update(GRAMMAR_DOMAIN);
        hasher.update(canonical(&Value::Object(parts)).as_bytes());
        Some(hasher.finish())
    }
}

impl ToolChoice {
    fn canonical(&self) -> Value {
        match self {
            ToolChoice::Auto => "auto".into(),
            ToolChoice::Required => "required".into(),
            ToolChoice::Named(name) => {
                json!({ "type": "function", "function": { "name": name } })
            }
        }
    }
}

/// The members `tools`, `tool_choice` and `parallel_tool_calls`.
pub(super) fn tools(fields: &mut Fields, limits: &Limits) -> Result<Option<Tools>, ApiError> {
    let items = fields.array("tools", limits.tools)?.unwrap_or_default();
    let parallel = fields.boolean("parallel_tool_calls")?.unwrap_or(true);
    let choice = fields.take("tool_choice");
    let source = Value::Array(items.clone());
    let mut functions: Vec<Function> = Vec::with_capacity(items.len());
    for (index, item) in items.into_iter().enumerate() {
        let function = function(item, format!("tools[{index}]"))?;
        if functions.iter().any(|other| other.name == function.name) {
            let path = format!("tools[{index}].function.name");
            return Err(fields::error(path, "invalid_value", "is there twice"));
        }
        functions.push(function);
    }
    let Some(choice) = tool_choice(fields, choice, &functions)? else {
        return Ok(None);
    };
    Ok((!functions.is_empty()).then_some(Tools {
        functions,
        choice,
        parallel,
        source,
    }))
}

fn function(item: Value, path: String) -> Result<Function, ApiError> {
    let source = item.clone();
    let mut fields = Fields::of_value(item, path)?;
    function_type(&mut fields)?;
    let mut about = fields.required("function", Fields::object)?;
    let name = about.required("name", name)?;
    about.string("description")?;
    // Arguments are always as the schema says.
    about.boolean("strict")?;
    let parameters = schema(&mut about, "parameters")?;
    if let Some(parameters) = &parameters
        && parameters.get("type") != Some(&Value::from("object"))
    {
        let message = "must be a schema whose type is object";
        return Err(about.refuse("parameters", "invalid_value", message));
    }
    about.finish()?;
    fields.finish()?;
    Ok(Function {
        name,
        parameters,
        source,
    })
}

/// None: no tool may be called.
fn tool_choice(
    fields: &Fields,
    choice: Option<Value>,
    functions: &[Function],
) -> Result<Option<ToolChoice>, ApiError> {
    let choice = match choice {
        None => ToolChoice::Auto,
        Some(Value::String(word)) => match word.as_str() {
            "none" => return Ok(None),
            "auto" => ToolChoice::Auto,
            "required" => ToolChoice::Required,
            other => {
                let message = format!(
                    "must be none, auto, required or a function, not {:?}",
                    shown(other)
                );
                return Err(fields.refuse("tool_choice", "invalid_value", &message));
            }
        },
        Some(value) => {
            let mut named = Fields::of_value(value, fields.path_of("tool_choice"))?;
            function_type(&mut named)?;
            let mut function = named.required("function", Fields::object)?;
            let name = function.required("name", Fields::string)?;
            if functions.iter().all(|function| function.name != name) {
                return Err(function.refuse("name", "invalid_value", "isn't one of the tools"));
            }
            function.finish()?;
            named.finish()?;
            ToolChoice::Named(name)
        }
    };
    if choice == ToolChoice::Required && functions.is_empty() {
        let message = "can't be required where there are no tools";
        return Err(fields.refuse("tool_choice", "invalid_value", message));
    }
    Ok(Some(choice))
}

fn function_type(fields: &mut Fields) -> Result<(), ApiError> {
    let kind = fields.required("type", Fields::string)?;
    if kind != "function" {
        let message = format!("must be function, not {:?}", shown(&kind));
        return Err(fields.refuse("type", "unsupported_value", &message));
    }
    Ok(())
}

/// The member `response_format`.
pub(super) fn response_format(fields: &mut Fields) -> Result<Option<ResponseFormat>, ApiError> {
    let Some(source) = fields.take("response_format") else {
        return Ok(None);
    };
    let path = fields.path_of("response_format");
    let mut format = Fields::of_value(source.clone(), path)?;
    let kind = format.required("type", Fields::string)?;
    let schema = match kind.as_str() {
        "text" => {
            format.finish()?;
            return Ok(None);
        }
        "json_object" => None,
        "json_schema" => {
            let mut about = format.required("json_schema", Fields::object)?;
            about.required("name", name)?;
            about.string("description")?;
            // The answer is always as the schema says.
            about.boolean("strict")?;
            let schema = about.required("schema", schema)?;
            about.finish()?;
            Some(schema)
        }
        other => {
            let message = format!(
                "must be text, json_object or json_schema, not {:?}",
                shown(other)
            );
            return Err(format.refuse("type", "unsupported_value", &message));
        }
    };
    format.finish()?;
    Ok(Some(ResponseFormat { schema, source }))
}

fn name(fields: &mut Fields, member: &str) -> Result<Option<String>, ApiError> {
    let Some(name) = fields.string(member)? else {
        return Ok(None);
    };
    let ok = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.chars().all(ok) {
        let message = "must be 1 to 64 letters, digits, underscores and dashes";
        return Err(fields.refuse(member, "invalid_value", message));
    }
    Ok(Some(name))
}

fn schema(fields: &mut Fields, member: &str) -> Result<Option<Map<String, Value>>, ApiError> {
    let schema = match fields.take(member) {
        None => return Ok(None),
        Some(Value::Object(schema)) => schema,
        Some(_) => return Err(fields.refuse(member, "invalid_type", "must be a schema object")),
    };
    Ok(Some(schema))
}

const NAME_BYTES_MAX: usize = 64;

#[cfg(test)]
mod tests;
