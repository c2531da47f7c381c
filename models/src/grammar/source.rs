//! From what a request says to a grammar for llguidance. `docs/spec/grammar.md`, 3.

use llguidance::Matcher;
use llguidance::api::TopLevelGrammar;
use protocol::api::{Ask, Function, ToolChoice, Tools};
use protocol::calls::{BETWEEN, CALLS_MAX, HEAD, MIDDLE, TAIL};
use protocol::json::canonical;
use serde_json::{Map, Value, json};

/// A schema that can't be a grammar: the client's fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the schema {param} can't be used: {why}")]
pub struct GrammarRefused {
    /// The parameter, as a path such as `tools[0].function.parameters`.
    pub param: String,
    /// What is wrong with it.
    pub why: String,
}

type Schema = Map<String, Value>;

/// Whether the answer may also be any text that doesn't look like a call.
pub(super) fn or_free(ask: &Ask) -> bool {
    let auto = |tools: &Tools| tools.choice == ToolChoice::Auto;
    ask.tools.as_ref().is_some_and(auto) && ask.response_format.is_none()
}

/// The grammar of a request that has one; `matcher` reads it.
pub(super) fn compile(
    ask: &Ask,
    matcher: impl Fn(TopLevelGrammar) -> Result<Matcher, String>,
) -> Result<Matcher, GrammarRefused> {
    let schemas = schemas(ask);
    check(&schemas)?;
    let grammar = match (&ask.tools, &ask.response_format) {
        (Some(tools), _) => TopLevelGrammar::from_lark(calls(tools, text_schema(ask))),
        (None, Some(_)) => {
            TopLevelGrammar::from_json_schema(written(&text_schema(ask).unwrap_or_default()))
        }
        (None, None) => unreachable!("the request has a grammar"),
    };
    matcher(grammar).map_err(|whole| {
        // Which of several is it?
        let blamed = schemas.iter().find_map(|(param, schema)| {
            let alone = TopLevelGrammar::from_json_schema(written(schema));
            matcher(alone).err().map(|why| (param.clone(), why))
        });
        let (param, why) = blamed.unwrap_or_else(|| {
            let param = if ask.tools.is_some() {
                "tools"
            } else {
                "response_format"
            };
            (param.to_owned(), whole)
        });
        refused(&param, sentence(&why))
    })
}

/// What the text must be, where it must be JSON.
fn text_schema(ask: &Ask) -> Option<Schema> {
    let any_object = || object(json!({ "type": "object" }));
    let format = ask.response_format.as_ref()?;
    Some(format.schema.clone().unwrap_or_else(any_object))
}

fn schemas(ask: &Ask) -> Vec<(String, Schema)> {
    let mut schemas = Vec::new();
    let format = ask.response_format.as_ref();
    if let Some(schema) = format.and_then(|format| format.schema.clone()) {
        schemas.push(("response_format.json_schema.schema".to_owned(), schema));
    }
    let functions = ask.tools.iter().flat_map(|tools| &tools.functions);
    for (index, function) in functions.enumerate() {
        if let Some(parameters) = &function.parameters {
            let param = format!("tools[{index}].function.parameters");
            schemas.push((param, parameters.clone()));
        }
    }
    schemas
}

/// What would cost too much, or would change how schemas are read.
fn check(schemas: &[(String, Schema)]) -> Result<(), GrammarRefused> {
    let mut bytes = 0;
    for (param, schema) in schemas {
        let schema = Value::Object(schema.clone());
        bytes += canonical(&schema).len();
        if bytes > SCHEMA_BYTES_MAX {
            let why = format!("the request's schemas have more than {SCHEMA_BYTES_MAX} bytes");
            return Err(refused(param, why));
        }
        numbers(&schema).map_err(|why| refused(param, why))?;
    }
    Ok(())
}

fn numbers(schema: &Value) -> Result<(), String> {
    match schema {
        Value::Array(items) => items.iter().try_for_each(numbers),
        Value::Object(members) => members.iter().try_for_each(|(name, value)| {
            if name == OPTIONS {
                return Err(format!("{OPTIONS} isn't a keyword"));
            }
            let counts = COUNTS.contains(&name.as_str());
            match value.as_f64() {
                Some(count) if counts && count > COUNT_MAX => {
                    Err(format!("{name} is above {COUNT_MAX}"))
                }
                _ => numbers(value),
            }
        }),
        _ => Ok(()),
    }
}

/// The calls, or a text by this schema where the model may choose.
fn calls(tools: &Tools, text: Option<Schema>) -> String {
    let functions: Vec<&Function> = match &tools.choice {
        ToolChoice::Named(name) => tools.functions.iter().filter(|f| f.name == *name).collect(),
        _ => tools.functions.iter().collect(),
    };
    let one = !tools.parallel || matches!(tools.choice, ToolChoice::Named(_));
    let more = match one {
        true => String::new(),
        false => format!(" ({} call){{0,{}}}", literal(BETWEEN), CALLS_MAX - 1),
    };
    let text = text.filter(|_| tools.choice == ToolChoice::Auto);
    let start = if text.is_some() {
        "text | calls"
    } else {
        "calls"
    };
    let names: Vec<String> = (0..functions.len())
        .map(|at| format!("call_{at}"))
        .collect();
    let mut lark = format!(
        "start: {start}\ncalls: call{more}\ncall: {}\n",
        names.join(" | ")
    );
    for (name, function) in names.iter().zip(functions) {
        let nothing = || object(json!({ "type": "object", "additionalProperties": false }));
        let parameters = function.parameters.clone().unwrap_or_else(nothing);
        let head = literal(&[HEAD, &function.name, MIDDLE].concat());
        let (schema, tail) = (written(&parameters), literal(TAIL));
        lark.push_str(&format!("{name}: {head} %json {schema} {tail}\n"));
    }
    if let Some(text) = text {
        lark.push_str(&format!("text: %json {}\n", written(&text)));
    }
    lark
}

/// A schema with how its JSON is written: in one way, so that no white space goes on for ever.
fn written(schema: &Schema) -> Value {
    let mut schema = schema.clone();
    let options = json!({
        "whitespace_flexible": false,
        "item_separator": ", ",
        "key_separator": ": ",
    });
    schema.insert(OPTIONS.to_owned(), options);
    Value::Object(schema)
}

fn literal(text: &str) -> String {
    Value::from(text).to_string()
}

fn object(value: Value) -> Schema {
    match value {
        Value::Object(members) => members,
        _ => unreachable!("written as an object"),
    }
}

fn refused(param: &str, why: String) -> GrammarRefused {
    GrammarRefused {
        param: param.to_owned(),
        why,
    }
}

/// What llguidance says, in one line that isn't too long.
fn sentence(why: &str) -> String {
    let why = why.trim_end_matches("<non-verbose/>");
    let words: Vec<&str> = why.split_whitespace().collect();
    words.join(" ").chars().take(WHY_CHARS_MAX).collect()
}

/// llguidance's own keyword.
const OPTIONS: &str = "x-guidance";

/// Keywords that make a grammar as large as they say.
const COUNTS: [&str; 6] = [
    "minItems",
    "maxItems",
    "minLength",
    "maxLength",
    "minProperties",
    "maxProperties",
];

const COUNT_MAX: f64 = 10_000.0;

const SCHEMA_BYTES_MAX: usize = 128 << 10;

const WHY_CHARS_MAX: usize = 300;
