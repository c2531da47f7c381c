//! An answer as server-sent events, in OpenAI's order: roles, deltas, finish
//! chunks (the last one with the receipt), usage, `[DONE]`.
//!
//! What is ready together leaves as one frame. An answer that was cut ends
//! with an error event that carries the receipt, and without `[DONE]`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use axum::body::{Body, Bytes};
use bytes::BytesMut;
use futures_util::stream;
use protocol::api::Kind;
use protocol::receipt::{Finish, SignedReceipt};
use serde::Serialize;
use tokio::time::{Instant, timeout_at};
use transport::sse;

use super::calls::Calls;
use super::{Envelope, Form, UsageObject, chat, completion, finish_reason};
use crate::mailbox::{AnswerReader, Delta, End, News};
use crate::problem;

/// The body of a streamed answer. Dropping it cancels the request.
pub(crate) fn body(form: Form, reader: AnswerReader) -> Body {
    let begin = Some(State {
        form,
        reader,
        events: Events::default(),
        stage: Stage::Beginning,
    });
    Body::from_stream(stream::unfold(begin, |state| async {
        let mut state = state?;
        let frame = state.frame().await;
        let next = match state.stage {
            Stage::Ended => None,
            _ => Some(state),
        };
        Some((Ok::<Bytes, std::convert::Infallible>(frame), next))
    }))
}

struct State {
    form: Form,
    reader: AnswerReader,
    events: Events,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Beginning,
    Running,
    Ended,
}

impl State {
    /// Waits for the next events and writes them as one frame.
    async fn frame(&mut self) -> Bytes {
        let form = &self.form;
        if self.stage == Stage::Beginning {
            self.stage = Stage::Running;
            if form.kind == Kind::Chat {
                self.events.roles(form);
                return self.events.take();
            }
        }
        let silence = Instant::now() + KEEP_ALIVE;
        // A token may have nothing to show yet.
        while self.events.bytes.is_empty() {
            let Ok(news) = timeout_at(silence, self.reader.next()).await else {
                return sse::PING;
            };
            if self.events.news(form, &news) {
                self.stage = Stage::Ended;
            }
        }
        self.events.take()
    }
}

/// Events that are ready to leave.
#[derive(Debug, Default)]
struct Events {
    bytes: BytesMut,
    /// Choices that had a chunk, by number: the first one shows the prompt's ids.
    begun: BTreeSet<u8>,
    /// Of choices that may call.
    calls: BTreeMap<u8, Calls>,
}

/// A choice in a chunk.
#[derive(Serialize)]
#[serde(untagged)]
enum Piece<'a> {
    Chat(chat::ChunkChoice<'a>),
    Completion(completion::Choice<'a>),
}

impl Events {
    fn take(&mut self) -> Bytes {
        self.bytes.split().freeze()
    }

    fn roles(&mut self, form: &Form) {
        for index in 0..form.n {
            self.chunk(form, index, Piece::Chat(chat::role(form, index)), None);
        }
    }

    /// Writes what is new; true when nothing follows.
    fn news(&mut self, form: &Form, news: &News) -> bool {
        let whole = news.end.as_ref().filter(|end| end.cut.is_none());
        let receipt = whole.map(|end| &end.receipt);
        let last = news.deltas.iter().rposition(|delta| delta.finish.is_some());
        for (at, delta) in news.deltas.iter().enumerate() {
            let receipt = receipt.filter(|_| last == Some(at));
            self.delta(form, delta, receipt);
        }
        match &news.end {
            None if news.lost => self.event(&problem::engine_lost().json()),
            None => return false,
            Some(end) => match end.cut {
                Some(cut) => {
                    let problem = problem::cut(cut).with_receipt(Some(&end.receipt));
                    self.event(&problem.json());
                }
                None => self.end(form, end),
            },
        }
        true
    }

    fn delta(&mut self, form: &Form, delta: &Delta, receipt: Option<&SignedReceipt>) {
        let mut speaks = !delta.text.is_empty() || (form.logprobs && !delta.logprobs.is_empty());
        // How a choice was cut is the error event's to say.
        let by_itself = |finish: &Finish| matches!(finish, Finish::Stop | Finish::Length);
        let finish = delta.finish.filter(by_itself);
        // Ids that come without text ride on the finish chunk, if there is one.
        let shows_ids = form.token_ids && !delta.tokens.is_empty() && finish.is_none();
        let index = delta.choice;
        // It states this delta too, so it rides on the last chunk of it.
        let checkpoint = delta.checkpoint.as_deref();
        let (early, receipt) = match finish {
            None => (checkpoint, None),
            Some(_) => (None, receipt.or(checkpoint)),
        };
        let mut reason = finish.map(finish_reason);
        if form.calls {
            let parts = {
                let calls = self.calls.entry(index).or_default();
                let parts = calls.read(&form.id, index, &delta.text, delta.finish.is_some());
                reason = finish.map(|finish| calls.finish_reason(finish));
                parts
            };
            speaks = !parts.is_empty() || !delta.logprobs.is_empty();
            if parts.is_empty() && (speaks || shows_ids || early.is_some()) {
                let piece = chat::part(form, delta, None, true);
                self.chunk(form, index, Piece::Chat(piece), early);
            }
            for (at, part) in parts.iter().enumerate() {
                let piece = chat::part(form, delta, Some(part), at == 0);
                let early = early.filter(|_| at + 1 == parts.len());
                self.chunk(form, index, Piece::Chat(piece), early);
            }
        } else if speaks || shows_ids || early.is_some() {
            let piece = match form.kind {
                Kind::Chat => Piece::Chat(chat::text(form, delta)),
                Kind::Completion => Piece::Completion(completion::text(form, delta)),
            };
            self.chunk(form, index, piece, early);
        }
        let (Some(finish), Some(reason)) = (finish, reason) else {
            return;
        };
        let ids: &[u32] = if speaks { &[] } else { &delta.tokens };
        let piece = match form.kind {
            Kind::Chat => Piece::Chat(chat::finish(form, index, reason, ids)),
            Kind::Completion => Piece::Completion(completion::finish(form, index, finish, ids)),
        };
        self.chunk(form, index, piece, receipt);
    }

    fn end(&mut self, form: &Form, end: &End) {
        if form.include_usage {
            let none: [(); 0] = [];
            let mut envelope = Envelope::new(form, form.chunk(), &none).receipt(Some(&end.receipt));
            envelope.usage = Some(Some(UsageObject::from(end.usage)));
            self.event(&envelope.json());
        }
        self.bytes.extend_from_slice(&sse::DONE);
    }

    fn chunk(&mut self, form: &Form, index: u8, piece: Piece<'_>, receipt: Option<&SignedReceipt>) {
        let first = self.begun.insert(index);
        let prompt = form.prompt_token_ids().filter(|_| first);
        let (choice, around) = match piece {
            Piece::Completion(choice) => (Piece::Completion(choice.prompt(prompt)), None),
            chat => (chat, prompt),
        };
        let choices = [choice];
        let mut envelope = Envelope::new(form, form.chunk(), &choices).receipt(receipt);
        envelope.usage = form.include_usage.then_some(None);
        envelope.prompt_token_ids = around;
        self.event(&envelope.json());
    }

    fn event(&mut self, json: &str) {
        self.bytes.extend_from_slice(&sse::event(json));
    }
}

/// Silence after which a comment shows that the connection is alive.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
