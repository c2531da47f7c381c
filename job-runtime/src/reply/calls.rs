//! The calls in what a choice says, as OpenAI shows them.

use protocol::RequestId;
use protocol::calls::{self, CallReader, Piece};
use protocol::receipt::Finish;
use serde::Serialize;

/// Reads one choice's text as content and calls.
#[derive(Debug, Default)]
pub(super) struct Calls {
    reader: CallReader,
    count: u8,
}

/// What more there is of a choice.
#[derive(Debug, PartialEq)]
pub(super) enum Part {
    Content(String),
    Call(CallDelta),
}

/// A call, or more of its arguments.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct CallDelta {
    index: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    r#type: Option<&'static str>,
    function: FunctionDelta,
}

#[derive(Debug, PartialEq, Serialize)]
struct FunctionDelta {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    arguments: String,
}

/// A call of a whole answer.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Call {
    id: String,
    r#type: &'static str,
    function: Function,
}

#[derive(Debug, PartialEq, Serialize)]
struct Function {
    name: String,
    arguments: String,
}

impl Calls {
    /// What more text adds, and the end if this is the last.
    pub(super) fn read(
        &mut self,
        request: &RequestId,
        choice: u8,
        text: &str,
        ended: bool,
    ) -> Vec<Part> {
        let mut pieces = self.reader.push(text);
        if ended {
            pieces.extend(self.reader.finish());
        }
        let part = |piece| match piece {
            Piece::Content(text) => Part::Content(text),
            Piece::Call { name } => {
                self.count += 1;
                let index = self.count - 1;
                Part::Call(CallDelta {
                    index,
                    id: Some(calls::id(request, choice, index)),
                    r#type: Some(TYPE),
                    function: FunctionDelta {
                        name: Some(name),
                        arguments: String::new(),
                    },
                })
            }
            Piece::Arguments(arguments) => Part::Call(CallDelta {
                index: self.count.saturating_sub(1),
                id: None,
                r#type: None,
                function: FunctionDelta {
                    name: None,
                    arguments,
                },
            }),
        };
        pieces.into_iter().map(part).collect()
    }

    /// How a choice with these calls ended, as clients know it.
    pub(super) fn finish_reason(&self, finish: Finish) -> &'static str {
        match finish {
            Finish::Stop if self.count > 0 => FINISH_REASON,
            finish => super::finish_reason(finish),
        }
    }

    /// A whole choice's content and calls.
    pub(super) fn whole(
        request: &RequestId,
        choice: u8,
        text: &str,
    ) -> (Option<String>, Vec<Call>) {
        let (mut content, mut found) = (String::new(), Vec::<Call>::new());
        for part in Calls::default().read(request, choice, text, true) {
            match part {
                Part::Content(text) => content.push_str(&text),
                Part::Call(delta) => match (delta.id, delta.function.name) {
                    (Some(id), Some(name)) => found.push(Call {
                        id,
                        r#type: TYPE,
                        function: Function {
                            name,
                            arguments: String::new(),
                        },
                    }),
                    _ => {
                        if let Some(last) = found.last_mut() {
                            last.function.arguments.push_str(&delta.function.arguments);
                        }
                    }
                },
            }
        }
        let silent = content.is_empty() && !found.is_empty();
        ((!silent).then_some(content), found)
    }
}

/// What OpenAI calls the end of an answer that calls.
pub(super) const FINISH_REASON: &str = "tool_calls";

const TYPE: &str = "function";
