//! What came back, put together from the bytes alone.
//!
//! Pure: events or a whole body go in, an [`Answer`] comes out, which claims
//! nothing about its truth (that is `check`). It is strict where leniency
//! would let two readers of the same stream see two texts: duplicate keys,
//! text after a choice's end, events after `[DONE]`. Start at [`Assembly`].

mod calls;

use protocol::api::Ask;
use protocol::receipt::SignedReceipt;
use protocol::{Kind, json};
use serde_json::{Map, Value};

/// Everything a client knows about one answer once the connection is done.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Answer {
    /// The response's `id`, which is also the receipt's.
    pub id: Option<String>,
    /// The model's name as the response states it.
    pub model: Option<String>,
    /// One for each choice that was asked for.
    pub choices: Vec<Choice>,
    /// Token counts, where the response stated them.
    pub usage: Option<Usage>,
    /// The first receipt in the response, as it stood there.
    pub receipt: Option<String>,
    /// The checkpoints in the response, in order, and what had come when they did.
    pub checkpoints: Vec<Checkpoint>,
    /// A later copy of the receipt wasn't the same.
    pub receipts_differ: bool,
    /// The prompt's tokens, where `return_token_ids` asked for them.
    pub prompt_token_ids: Option<Vec<u32>>,
    /// The response came to its proper end: `[DONE]`, or a whole body.
    pub done: bool,
    /// What the server said in place of an answer, or of the rest of one.
    pub error: Option<ServerError>,
}

/// One completion of the prompt.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Choice {
    /// All its text, in the order it came: what a receipt hashes. Of calls it is how a model
    /// writes them.
    pub text: String,
    /// What it calls.
    pub calls: Vec<Call>,
    /// Its `finish_reason`, once it had one.
    pub finish: Option<String>,
    /// Its tokens, where `return_token_ids` asked for them.
    pub token_ids: Option<Vec<u32>>,
}

/// A receipt of the answer so far, from the middle of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The receipt, as it stood there.
    pub receipt: String,
    /// What there was of each choice, this chunk's part included.
    pub choices: Vec<Progress>,
}

/// How far a choice had come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of its text.
    pub text_bytes: usize,
    /// How many of its token ids, where they were asked for.
    pub token_ids: Option<usize>,
    /// Its `finish_reason`, once it had one.
    pub finish: Option<String>,
}

/// A function that an answer calls.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Call {
    /// Its id.
    pub id: String,
    /// The function's name.
    pub name: String,
    /// The arguments, a JSON text.
    pub arguments: String,
}

/// Token counts as the response states them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: u64,
    /// Tokens of all choices together.
    pub completion_tokens: u64,
}

/// The `error` object of a refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerError {
    /// The HTTP status, or 200 when the error came inside a stream.
    pub status: u16,
    /// What went wrong, for a person.
    pub message: String,
    /// What went wrong, for a program.
    pub code: Option<String>,
    /// Which parameter it's about.
    pub param: Option<String>,
}

/// A piece of text as it arrives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delta {
    /// Which choice it continues.
    pub choice: usize,
    /// The new text.
    pub text: String,
}

/// Why a response isn't one that the API allows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// An event or a body isn't strict JSON.
    #[error("the response isn't strict JSON: {0}")]
    Json(json::JsonError),
    /// A field is missing, or has another type than the API gives it.
    #[error("the response's `{0}` is missing or malformed")]
    Field(&'static str),
    /// A choice that wasn't asked for.
    #[error("the response has a choice {0}, which wasn't asked for")]
    Choice(u64),
    /// Text for a choice that had ended.
    #[error("the response goes on after the end of choice {0}")]
    AfterFinish(usize),
    /// Something after `[DONE]`, or after an error.
    #[error("the response goes on after its end")]
    AfterEnd,
    /// Calls that weren't asked for, or in another form than the API's.
    #[error("the tool calls of choice {0} are malformed")]
    Calls(usize),
    /// The id or the model changed on the way.
    #[error("the response changes its `{0}` on the way")]
    Changed(&'static str),
}

/// An answer while it's still coming in.
#[derive(Debug)]
pub struct Assembly {
    kind: Kind,
    /// Whether tools were offered.
    may_call: bool,
    answer: Answer,
}

impl Assembly {
    /// An empty answer to a request; with tools, it may call them.
    pub fn for_ask(ask: &Ask) -> Assembly {
        Assembly {
            may_call: ask.tools.is_some(),
            ..Assembly::new(ask.kind, usize::from(ask.n))
        }
    }

    /// An empty answer with `n` choices.
    pub fn new(kind: Kind, n: usize) -> Assembly {
        Assembly {
            kind,
            may_call: false,
            answer: Answer {
                choices: vec![Choice::default(); n],
                ..Answer::default()
            },
        }
    }

    /// Takes the data of one event of a stream; returns the text that it adds.
    pub fn event(&mut self, data: &str) -> Result<Vec<Delta>, AnswerError> {
        if self.answer.done || self.answer.error.is_some() {
            return Err(AnswerError::AfterEnd);
        }
        if data == "[DONE]" {
            self.answer.done = true;
            return Ok(Vec::new());
        }
        self.object(data.as_bytes(), 200, true)
    }

    /// Takes a whole body that isn't a stream; returns its text.
    pub fn body(&mut self, status: u16, body: &[u8]) -> Result<Vec<Delta>, AnswerError> {
        let deltas = self.object(body, status, false)?;
        self.answer.done = self.answer.error.is_none();
        Ok(deltas)
    }

    /// Takes an error for an answer, where the body was none.
    pub fn refuse(&mut self, error: ServerError) {
        self.answer.error = Some(error);
    }

    /// What has come in so far.
    pub fn answer(&self) -> &Answer {
        &self.answer
    }

    /// What came in, all in all.
    pub fn into_answer(self) -> Answer {
        self.answer
    }

    fn object(
        &mut self,
        text: &[u8],
        status: u16,
        stream: bool,
    ) -> Result<Vec<Delta>, AnswerError> {
        let value = json::parse(text).map_err(AnswerError::Json)?;
        let object = value.as_object().ok_or(AnswerError::Field("object"))?;
        let receipt = string(object, "receipt")?;
        if let Some(error) = object.get("error") {
            self.answer.error = Some(server_error(error, status)?);
            self.take_receipt(receipt);
            return Ok(Vec::new());
        }
        if status != 200 {
            return Err(AnswerError::Field("error"));
        }
        same(&mut self.answer.id, string(object, "id")?, "id")?;
        same(&mut self.answer.model, string(object, "model")?, "model")?;
        if let Some(ids) = token_ids(object, "prompt_token_ids")? {
            self.answer.prompt_token_ids = Some(ids);
        }
        if let Some(usage) = present(object, "usage") {
            self.answer.usage = Some(read_usage(usage)?);
        }
        let choices = match object.get("choices") {
            Some(Value::Array(choices)) => choices,
            _ => return Err(AnswerError::Field("choices")),
        };
        let mut deltas = Vec::new();
        for choice in choices {
            let choice = choice.as_object().ok_or(AnswerError::Field("choices"))?;
            if let Some(delta) = self.choice(choice, stream)? {
                deltas.push(delta);
            }
        }
        self.take_receipt(receipt);
        Ok(deltas)
    }

    fn choice(
        &mut self,
        choice: &Map<String, Value>,
        stream: bool,
    ) -> Result<Option<Delta>, AnswerError> {
        let number = match choice.get("index") {
            Some(index) => index.as_u64().ok_or(AnswerError::Field("index"))?,
            None => return Err(AnswerError::Field("index")),
        };
        let index = usize::try_from(number).map_err(|_| AnswerError::Choice(number))?;
        let so_far = self
            .answer
            .choices
            .get_mut(index)
            .ok_or(AnswerError::Choice(number))?;
        if so_far.finish.is_some() {
            return Err(AnswerError::AfterFinish(index));
        }
        let holder = match (self.kind, stream) {
            (Kind::Completion, _) => Some(choice),
            (Kind::Chat, true) => present(choice, "delta")
                .map(as_object("delta"))
                .transpose()?,
            (Kind::Chat, false) => present(choice, "message")
                .map(as_object("message"))
                .transpose()?,
        };
        let field = match self.kind {
            Kind::Chat => "content",
            Kind::Completion => "text",
        };
        let text = match holder {
            Some(holder) => string(holder, field)?.unwrap_or_default(),
            None => "",
        };
        let mut text = text.to_owned();
        if let Some(found) = holder.and_then(|holder| present(holder, "tool_calls")) {
            let more = calls::take(&mut so_far.calls, found, stream)
                .filter(|_| self.may_call && self.kind == Kind::Chat)
                .ok_or(AnswerError::Calls(index))?;
            text.push_str(&more);
        }
        so_far.text.push_str(&text);
        if let Some(mut ids) = token_ids(choice, "token_ids")? {
            so_far.token_ids.get_or_insert_default().append(&mut ids);
        }
        if let Some(ids) = token_ids(choice, "prompt_token_ids")? {
            self.answer.prompt_token_ids = Some(ids);
        }
        so_far.finish = string(choice, "finish_reason")?.map(str::to_owned);
        if so_far.finish.is_some() && self.may_call {
            let end = calls::end(so_far).ok_or(AnswerError::Calls(index))?;
            so_far.text.push_str(end);
            text.push_str(end);
        }
        Ok((!text.is_empty()).then_some(Delta {
            choice: index,
            text,
        }))
    }

    /// Keeps a receipt, once everything beside it is taken: it states that too. What can't
    /// be read isn't a checkpoint, and fails as the receipt.
    fn take_receipt(&mut self, receipt: Option<&str>) {
        let Some(receipt) = receipt else { return };
        let parsed = SignedReceipt::parse(receipt);
        if parsed.is_ok_and(|receipt| receipt.unverified().part > 0) {
            let choices = self.answer.choices.iter().map(Choice::progress).collect();
            let receipt = receipt.to_owned();
            self.answer
                .checkpoints
                .push(Checkpoint { receipt, choices });
            return;
        }
        match &self.answer.receipt {
            Some(first) => self.answer.receipts_differ |= first != receipt,
            None => self.answer.receipt = Some(receipt.to_owned()),
        }
    }
}

impl Choice {
    fn progress(&self) -> Progress {
        Progress {
            text_bytes: self.text.len(),
            token_ids: self.token_ids.as_ref().map(Vec::len),
            finish: self.finish.clone(),
        }
    }
}

/// A field's value, unless it's absent or null.
fn present<'a>(object: &'a Map<String, Value>, field: &'static str) -> Option<&'a Value> {
    object.get(field).filter(|value| !value.is_null())
}

fn string<'a>(
    object: &'a Map<String, Value>,
    field: &'static str,
) -> Result<Option<&'a str>, AnswerError> {
    present(object, field)
        .map(|value| value.as_str().ok_or(AnswerError::Field(field)))
        .transpose()
}

fn as_object(field: &'static str) -> impl Fn(&Value) -> Result<&Map<String, Value>, AnswerError> {
    move |value| value.as_object().ok_or(AnswerError::Field(field))
}

fn token_ids(
    object: &Map<String, Value>,
    field: &'static str,
) -> Result<Option<Vec<u32>>, AnswerError> {
    let Some(value) = present(object, field) else {
        return Ok(None);
    };
    let ids = value.as_array().ok_or(AnswerError::Field(field))?;
    ids.iter()
        .map(|id| id.as_u64().and_then(|id| u32::try_from(id).ok()))
        .collect::<Option<Vec<u32>>>()
        .map(Some)
        .ok_or(AnswerError::Field(field))
}

fn read_usage(usage: &Value) -> Result<Usage, AnswerError> {
    let count = |field| {
        usage
            .get(field)
            .and_then(Value::as_u64)
            .ok_or(AnswerError::Field("usage"))
    };
    Ok(Usage {
        prompt_tokens: count("prompt_tokens")?,
        completion_tokens: count("completion_tokens")?,
    })
}

fn server_error(error: &Value, status: u16) -> Result<ServerError, AnswerError> {
    let error = error.as_object().ok_or(AnswerError::Field("error"))?;
    Ok(ServerError {
        status,
        message: string(error, "message")?
            .ok_or(AnswerError::Field("error"))?
            .to_owned(),
        code: string(error, "code")?.map(str::to_owned),
        param: string(error, "param")?.map(str::to_owned),
    })
}

fn same(
    known: &mut Option<String>,
    said: Option<&str>,
    field: &'static str,
) -> Result<(), AnswerError> {
    let said = said.ok_or(AnswerError::Field(field))?;
    match known {
        Some(known) if known != said => Err(AnswerError::Changed(field)),
        Some(_) => Ok(()),
        None => {
            *known = Some(said.to_owned());
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests;
