//! An answer in one body.

use protocol::api::Kind;
use protocol::receipt::Finish;
use serde::Serialize;

use super::{Envelope, Form, UsageObject, chat, completion};
use crate::mailbox::{AnswerReader, Delta, End, TokenLogprob};

/// All that a choice said.
#[derive(Debug)]
pub(super) struct Choice {
    pub index: u8,
    pub text: String,
    pub tokens: Vec<u32>,
    pub logprobs: Vec<TokenLogprob>,
    pub finish: Finish,
}

/// Reads an answer to its end; gives the body and the end, or nothing if the engine is gone.
/// The body is only worth sending when the end isn't a cut.
pub(crate) async fn whole(form: &Form, mut answer: AnswerReader) -> Option<(String, End)> {
    let mut choices: Vec<Choice> = (0..form.n).map(Choice::new).collect();
    let end = loop {
        let news = answer.next().await;
        for delta in news.deltas {
            choices[usize::from(delta.choice)].add(delta);
        }
        match news.end {
            Some(end) => break end,
            None if news.lost => return None,
            None => {}
        }
    };
    Some((form.body(&choices, &end), end))
}

impl Choice {
    fn new(index: u8) -> Self {
        Self {
            index,
            text: String::new(),
            tokens: Vec::new(),
            logprobs: Vec::new(),
            finish: Finish::Open,
        }
    }

    fn add(&mut self, delta: Delta) {
        self.text.push_str(&delta.text);
        self.tokens.extend(delta.tokens);
        self.logprobs.extend(delta.logprobs);
        self.finish = delta.finish.unwrap_or(self.finish);
    }
}

impl Form {
    fn body(&self, choices: &[Choice], end: &End) -> String {
        match self.kind {
            Kind::Chat => {
                let choices: Vec<_> = choices.iter().map(|c| chat::whole(self, c)).collect();
                let mut envelope = self.around(chat::OBJECT, &choices, end);
                envelope.prompt_token_ids = self.prompt_token_ids();
                envelope.json()
            }
            Kind::Completion => {
                let choices: Vec<_> = choices.iter().map(|c| completion::whole(self, c)).collect();
                self.around(completion::OBJECT, &choices, end).json()
            }
        }
    }

    fn around<'a, C: Serialize>(
        &'a self,
        object: &'static str,
        choices: &'a [C],
        end: &'a End,
    ) -> Envelope<'a, C> {
        let mut envelope = Envelope::new(self, object, choices).receipt(Some(&end.receipt));
        envelope.usage = Some(Some(UsageObject::from(end.usage)));
        envelope
    }
}
