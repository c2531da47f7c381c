//! The model's chat template: a conversation becomes a prompt.
//!
//! Jinja by `minijinja`, with what Hugging Face's renderer adds: Python's
//! string methods, `raise_exception`, `strftime_now`, `tojson` without HTML
//! escapes, and `{% generation %}` marks. The day is an argument, because it
//! changes the prompt. Start at [`ChatTemplate::render`].

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde};
use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior, context};
use protocol::api::{Function, Message, Role};
use protocol::calls::BEGIN;
use serde_json::Map;

mod date;

/// A compiled chat template.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    asks_for_date: bool,
    knows_tools: bool,
    bos_token: String,
    eos_token: String,
}

/// Why a conversation can't be rendered: the client's fault, all of them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// The template refuses the conversation, in its own words.
    #[error("the model's chat template refuses this: {0}")]
    Refused(String),
    /// An entry of `chat_template_kwargs` that the template may not be given.
    #[error("`chat_template_kwargs` must not contain `{0}`")]
    Reserved(String),
    /// The template fails on it.
    #[error("the model's chat template can't render this: {0}")]
    Render(String),
}

/// What a template said in `raise_exception`.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Raised(String);

const NAME: &str = "chat";

/// What the renderer itself passes in.
const RESERVED: [&str; 7] = [
    "messages",
    "tools",
    "documents",
    "bos_token",
    "eos_token",
    "raise_exception",
    "strftime_now",
];

impl ChatTemplate {
    /// Compiles a template. The two tokens are given as their text.
    pub(crate) fn compile(source: &str, bos: String, eos: String) -> Result<ChatTemplate, Error> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build();
        environment.set_syntax(syntax?);
        environment.set_undefined_behavior(UndefinedBehavior::Lenient);
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_filter("tojson", to_json);
        environment.add_function(
            "raise_exception",
            |message: String| -> Result<String, Error> {
                let error = Error::new(ErrorKind::InvalidOperation, message.clone());
                Err(error.with_source(Raised(message)))
            },
        );
        environment.add_template_owned(NAME, without_generation_marks(source))?;
        let asks_for_date = source.contains("strftime_now");
        Ok(ChatTemplate {
            environment,
            asks_for_date,
            knows_tools: source.contains("tools") && source.contains(BEGIN),
            bos_token: bos,
            eos_token: eos,
        })
    }

    /// Whether the template asks for the day, which is then an input.
    pub fn asks_for_date(&self) -> bool {
        self.asks_for_date
    }

    /// Whether the template itself tells a model of tools, with calls in the form that grammars
    /// have.
    pub fn knows_tools(&self) -> bool {
        self.knows_tools
    }

    /// The prompt for `messages`, ready for the assistant's turn. `today` is `YYYY-MM-DD`; a
    /// template that asks for the day without being told fails.
    pub fn render(
        &self,
        messages: &[Message],
        kwargs: &Map<String, serde_json::Value>,
        today: Option<&str>,
    ) -> Result<String, TemplateError> {
        self.render_with(messages, &[], kwargs, today)
    }

    /// The same, for a model that may call these functions.
    pub fn render_with(
        &self,
        messages: &[Message],
        functions: &[Function],
        kwargs: &Map<String, serde_json::Value>,
        today: Option<&str>,
    ) -> Result<String, TemplateError> {
        if let Some(name) = kwargs.keys().find(|name| RESERVED.contains(&name.as_str())) {
            return Err(TemplateError::Reserved(name.clone()));
        }
        let messages: Vec<minijinja::Value> = messages.iter().map(message_value).collect();
        let tools: Vec<minijinja::Value> = functions
            .iter()
            .map(|function| minijinja::Value::from(Serde(&function.source)))
            .collect();
        // Templates ask whether there are any in more than one way.
        let tools = match tools.is_empty() {
            true => context! {},
            false => context! { tools },
        };
        let today = today.map(str::to_owned);
        let ours = context! {
            messages,
            bos_token => self.bos_token.as_str(),
            eos_token => self.eos_token.as_str(),
            strftime_now => minijinja::Value::from_function(move |format: &str| {
                let day = today.as_deref().and_then(date::Day::parse);
                let text = day.and_then(|day| day.format(format));
                text.ok_or_else(|| Error::new(ErrorKind::InvalidOperation, "no such date"))
            }),
        };
        let asked = minijinja::Value::from(Serde(kwargs));
        let defaults = context! { add_generation_prompt => true };
        let template = self
            .environment
            .get_template(NAME)
            .expect("compiled when the environment was made");
        template
            .render(context! { ..ours, ..tools, ..asked, ..defaults })
            .map_err(explain)
    }
}

/// A message with the members that it has.
fn message_value(message: &Message) -> minijinja::Value {
    let said = context! { role => message.role.as_str(), content => message.content.as_str() };
    let calls: Vec<minijinja::Value> = message
        .tool_calls
        .iter()
        .map(|call| {
            // Templates write arguments with `tojson`, so they take the object.
            let arguments = serde_json::from_str::<Map<String, serde_json::Value>>(&call.arguments);
            let arguments = match &arguments {
                Ok(object) => minijinja::Value::from(Serde(object)),
                Err(_) => call.arguments.as_str().into(),
            };
            context! {
                id => call.id.as_str(),
                r#type => "function",
                function => context! { name => call.name.as_str(), arguments },
            }
        })
        .collect();
    match (message.role, calls.is_empty()) {
        (Role::Tool, _) => context! { tool_call_id => message.tool_call_id.as_deref(), ..said },
        (_, true) => said,
        (_, false) => context! { tool_calls => calls, ..said },
    }
}

/// Hugging Face's training marks render nothing; `if` keeps their white-space control.
fn without_generation_marks(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let Some(length) = rest[start..].find("%}") else {
            break;
        };
        let inside = &rest[start + 2..start + length];
        out.push_str(&rest[..start + 2]);
        let word = inside.trim_matches(['-', '+', ' ', '\t', '\r', '\n']);
        out.push_str(&match word {
            "generation" => inside.replace(word, "if true"),
            "endgeneration" => inside.replace(word, "endif"),
            _ => inside.to_owned(),
        });
        out.push_str("%}");
        rest = &rest[start + length + 2..];
    }
    out + rest
}

/// `tojson` as Python's `json.dumps(…, ensure_ascii=False)` writes it.
fn to_json(value: minijinja::Value, args: Kwargs) -> Result<String, Error> {
    let indent: Option<usize> = args.get("indent")?;
    args.assert_all_used()?;
    json_text(&value, indent)
        .map_err(|e| Error::new(ErrorKind::InvalidOperation, "not JSON").with_source(e))
}

fn json_text(value: &minijinja::Value, indent: Option<usize>) -> Result<String, serde_json::Error> {
    use serde::Serialize as _;
    let mut out = Vec::new();
    match indent {
        Some(width) => {
            let indent = " ".repeat(width);
            let form = serde_json::ser::PrettyFormatter::with_indent(indent.as_bytes());
            value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, form))?;
        }
        None => value.serialize(&mut serde_json::Serializer::with_formatter(
            &mut out, Spaced,
        ))?,
    }
    Ok(String::from_utf8(out).expect("serde_json writes UTF-8"))
}

/// Python's separators: `, ` and `: `.
struct Spaced;

impl serde_json::ser::Formatter for Spaced {
    fn begin_array_value<W: ?Sized + std::io::Write>(
        &mut self,
        out: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        out.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_key<W: ?Sized + std::io::Write>(
        &mut self,
        out: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        out.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_value<W: ?Sized + std::io::Write>(
        &mut self,
        out: &mut W,
    ) -> std::io::Result<()> {
        out.write_all(b": ")
    }
}

fn explain(error: Error) -> TemplateError {
    let mut cause: Option<&dyn std::error::Error> = Some(&error);
    while let Some(error) = cause {
        if let Some(Raised(message)) = error.downcast_ref() {
            return TemplateError::Refused(message.clone());
        }
        cause = error.source();
    }
    TemplateError::Render(error.to_string())
}

#[cfg(test)]
mod tests;
