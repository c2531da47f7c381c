//! One choice while it is computed again.

use std::sync::{Mutex, MutexGuard, PoisonError};

use models::output::{OutputText, ends};
use models::{
    GrammarError, GrammarState, KvCache, Model, SampleError, Scored, Special, Standing, TokenMask,
    Trace, Weighed,
};
use protocol::Digest;
use protocol::calls::CallText;
use protocol::receipt::Finish;

use super::blocks_for;
use super::claim::Choice;
use super::prefixes::Key;

/// Tokens of a draft at most: past the first that is drawn otherwise they are wasted.
const DRAFT_MAX: usize = 24;

/// What computing a choice again gave.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Positions at which a token was drawn.
    pub tokens: u32,
    /// How many of them gave another than the known one.
    pub differing: u32,
    /// The first of those; where ids aren't known, the first that contradicts the text.
    pub first: Option<Differing>,
    /// Over the known ids, or those that were drawn.
    pub trace: Trace,
    pub tokens_sha256: Digest,
    pub text_sha256: Digest,
    /// The text as far as it is told.
    pub text: String,
    /// The ids.
    pub ids: Vec<u32>,
    /// How many ids there are.
    pub count: u32,
    /// How the answer ends, and after how many tokens; none: it goes on.
    pub end: Option<(Finish, u32)>,
    /// How it stood at each of the choice's marks that it reached.
    pub marks: Vec<Mark>,
    /// Why it couldn't be computed to its end.
    pub stop: Option<Stop>,
    /// Whether the ids were known before.
    pub known: bool,
}

/// How a choice stands after some of its tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct Mark {
    pub tokens: u32,
    pub tokens_sha256: Digest,
    pub text_sha256: Digest,
    /// How it had ended by then.
    pub end: Option<Finish>,
    pub trace: Trace,
}

/// A token that isn't the one that is drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Differing {
    /// Its index in the output.
    pub index: u32,
    /// Known, or what the text goes on with.
    pub claimed: Option<u32>,
    pub expected: u32,
    /// How the claimed one fared.
    pub standing: Option<Standing>,
}

/// Why a choice couldn't be computed to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// The model gives no logits there, or none that a token can be drawn from.
    NotFinite { position: usize },
    /// An id that isn't in the vocabulary, or a place past the context.
    Impossible,
    /// The grammar costs more than it may, so that nothing can be said of what it allows.
    Grammar,
    /// No room for it.
    NoMemory,
}

/// Some tokens of a sequence, in one step.
pub struct Part {
    pub tokens: Vec<u32>,
    /// Whether tokens are drawn from its rows.
    pub draws: bool,
    /// Position of the first.
    start: usize,
    /// For each row, what the grammar allows there; empty without one.
    masks: Vec<Mask>,
}

/// The tokens that may come; `Ok(None)`: any. An error: none, the grammar is at its limits.
type Mask = Result<Option<TokenMask>, GrammarError>;

/// What was drawn at one position.
pub struct Row {
    drawn: Result<u32, Stop>,
    /// How the next token fared, if one is known or supposed.
    standing: Option<Standing>,
    hidden: Vec<f32>,
}

pub struct Sequence {
    choice: Choice,
    pub cache: KvCache,
    /// Of the prompt's blocks, until they are kept.
    keys: Vec<Key>,
    /// Known ids, or those drawn so far.
    output: Vec<u32>,
    /// Output tokens that are checked.
    checked: usize,
    text: OutputText,
    /// Where the answer may call tools: what is hashed is made of the text.
    calls: Option<CallText>,
    /// After the checked tokens.
    grammar: Option<Mutex<GrammarState>>,
    /// Bytes that the text has so far.
    said: usize,
    outcome: Outcome,
    ended: bool,
}

impl Outcome {
    /// Of a choice that isn't computed.
    pub fn stopped(choice: &Choice, stop: Stop) -> Self {
        Outcome {
            stop: Some(stop),
            count: choice.known.as_ref().map_or(0, |ids| count(ids.len())),
            ..Outcome::empty()
        }
    }

    /// Before the first token.
    pub fn empty() -> Self {
        Outcome {
            tokens: 0,
            differing: 0,
            first: None,
            trace: Trace::new(),
            tokens_sha256: Digest::of_tokens(&[]),
            text_sha256: Digest::of(b""),
            text: String::new(),
            ids: Vec::new(),
            count: 0,
            end: None,
            marks: Vec::new(),
            stop: None,
            known: false,
        }
    }
}

impl Sequence {
    pub fn new(choice: Choice, cache: KvCache, keys: Vec<Key>) -> Self {
        let ended = choice.claim.tokens == 0;
        let mut sequence = Sequence {
            output: choice.known.clone().unwrap_or_default(),
            text: OutputText::new(&choice.sampling.stop),
            calls: choice.sampling.may_call().then(CallText::default),
            grammar: (choice.grammar.as_ref()).map(|grammar| Mutex::new(grammar.begin())),
            cache,
            keys,
            checked: 0,
            said: 0,
            outcome: Outcome {
                known: choice.known.is_some(),
                ..Outcome::empty()
            },
            choice,
            ended,
        };
        sequence.mark();
        sequence
    }

    pub fn ended(&self) -> bool {
        self.ended
    }

    pub fn stop(&mut self, stop: Stop) {
        self.outcome.stop = Some(stop);
        self.ended = true;
    }

    /// Whether it is about to compute the block of this name.
    pub fn computes(&self, key: &Key) -> bool {
        self.keys.contains(key)
    }

    /// Blocks that it will still take.
    pub fn blocks_to_come(&self) -> usize {
        let most = self.choice.blocks_max().max(blocks_for(self.cache.len()));
        most.saturating_sub(self.cache.blocks().len())
    }

    /// The names of the prompt's blocks, once, when all are there.
    pub fn prompt_is_read(&mut self) -> Option<Vec<Key>> {
        let read = self.cache.len() >= self.choice.shared_prompt().len();
        (read && !self.keys.is_empty()).then(|| std::mem::take(&mut self.keys))
    }

    fn known(&self) -> bool {
        self.choice.known.is_some()
    }

    /// What it computes next, in at most so many rows.
    pub fn next(&self, rows: usize, model: &Model) -> Part {
        let start = self.cache.len();
        let shared = self.choice.shared_prompt();
        if start < shared.len() {
            let end = shared.len().min(start + rows);
            return Part {
                tokens: shared[start..end].to_vec(),
                draws: false,
                start,
                masks: Vec::new(),
            };
        }
        let before = match self.checked {
            0 => *self.choice.prompt.last().expect("a prompt has a token"),
            drawn => self.output[drawn - 1],
        };
        let draft = match self.known() {
            // The last one's row says nothing about the answer.
            true => self.output[self.checked..self.output.len() - 1].to_vec(),
            false => self.draft(model),
        };
        let mut tokens = vec![before];
        tokens.extend(draft.into_iter().take(rows - 1));
        let masks = self.masks(&mut tokens);
        Part {
            tokens,
            draws: true,
            start,
            masks,
        }
    }

    /// What the grammar allows at each row; a draft is cut where it leaves the grammar.
    fn masks(&self, tokens: &mut Vec<u32>) -> Vec<Mask> {
        let Some(grammar) = &self.grammar else {
            return Vec::new();
        };
        let mut state = locked(grammar).clone();
        let mut masks = vec![state.mask()];
        let followed = tokens[1..].iter().take_while(|token| {
            let goes_on = state.advance(**token).is_ok();
            if goes_on {
                masks.push(state.mask());
            }
            goes_on
        });
        let followed = followed.count();
        tokens.truncate(1 + followed);
        masks
    }

    /// What the text goes on with, as the tokenizer spells it.
    fn draft(&self, model: &Model) -> Vec<u32> {
        let left = (self.choice.claim.tokens as usize).saturating_sub(self.checked + 1);
        let text = self.choice.text.as_deref();
        let rest = text.and_then(|text| text.get(self.said..)).unwrap_or("");
        if self.outcome.first.is_some() || rest.is_empty() {
            return Vec::new();
        }
        // Spelling needs some text beyond the draft, and not all of a long one.
        let far = rest.floor_char_boundary(DRAFT_MAX * 12);
        let mut ids = model.tokenizer().encode(&rest[..far], Special::AsText);
        ids.truncate(DRAFT_MAX.min(left));
        ids
    }

    /// Draws at one row. Called on any thread.
    pub fn draw(&self, part: &Part, row: Scored<'_>) -> Row {
        let Choice {
            number,
            prompt,
            sampler,
            ..
        } = &self.choice;
        let ahead = row.position - part.start;
        let fed = &part.tokens[1..];
        let history = [&self.output[..self.checked], &fed[..ahead]].concat();
        let position = count(row.position + 1);
        let next = match self.known() {
            true => self.output.get(history.len()),
            false => fed.get(ahead),
        };
        let mask = match part.masks.get(ahead) {
            Some(Ok(mask)) => mask.as_ref(),
            Some(Err(_)) => {
                return Row {
                    drawn: Err(Stop::Grammar),
                    standing: None,
                    hidden: row.hidden.to_vec(),
                };
            }
            None => None,
        };
        let logits = row.logits;
        let (drawn, standing) = match next {
            Some(next) => {
                let weighed =
                    sampler.weigh(*number, position, logits, prompt, &history, mask, *next);
                let standing = weighed.as_ref().ok().map(|weighed| weighed.standing);
                (weighed.map(|Weighed { drawn, .. }| drawn), standing)
            }
            None => {
                let drawn =
                    sampler.sample_masked(*number, position, logits, prompt, &history, mask);
                (drawn.map(|drawn| drawn.token), None)
            }
        };
        let position = row.position + 1;
        Row {
            drawn: drawn.map_err(|_: SampleError| Stop::NotFinite { position }),
            standing,
            hidden: row.hidden.to_vec(),
        }
    }

    /// Takes what was drawn for a part, in order.
    pub fn take(&mut self, part: &Part, rows: Vec<Row>, model: &Model) {
        for (ahead, row) in rows.into_iter().enumerate() {
            let drawn = match row.drawn {
                Ok(drawn) => drawn,
                Err(stop) => {
                    self.stop(stop);
                    return;
                }
            };
            let next = match self.known() {
                true => Some(self.output[self.checked]),
                false => part.tokens.get(ahead + 1).copied(),
            };
            self.outcome.tokens += 1;
            let contradicts = match self.known() {
                true => next != Some(drawn),
                false => {
                    self.output.push(drawn);
                    !self.follows_text(drawn, model)
                }
            };
            if contradicts {
                self.outcome.differing += 1;
                self.outcome.first.get_or_insert(Differing {
                    index: count(self.checked),
                    claimed: next.filter(|next| *next != drawn),
                    expected: drawn,
                    standing: row.standing,
                });
            }
            self.accept(&row.hidden, model);
            if self.ended || (!self.known() && next != Some(drawn)) {
                break;
            }
        }
        // The last token isn't read yet, and what a wrong draft left is forgotten.
        let read = self.choice.shared_prompt().len() + self.checked;
        self.cache.truncate(read);
    }

    /// Whether the text can go on with this token, as far as that can be said: a wrong yes
    /// or no costs time and evidence, never the verdict, which is the hash's.
    fn follows_text(&mut self, token: u32, model: &Model) -> bool {
        let Choice {
            text: Some(text),
            claim,
            sampling,
            ..
        } = &self.choice
        else {
            return true;
        };
        let rest = &text.as_bytes()[self.said..];
        if ends(token, sampling, model.config()) {
            return rest.is_empty();
        }
        let says = said(token, model);
        if rest.starts_with(says) {
            self.said += says.len();
            return true;
        }
        // A stop text began, or bytes that are no text: nothing can be told from here on.
        let stopping = claim.finish == Finish::Stop && !sampling.stop.is_empty();
        // As far as the text came, if it broke off.
        let cut = !self.choice.whole && says.starts_with(rest);
        let stopped = stopping && says.starts_with(rest);
        let unclear = cut || stopped || rest.starts_with("\u{fffd}".as_bytes());
        if unclear {
            self.choice.text = None;
        }
        unclear
    }

    /// The token at `checked` is the answer's next one.
    fn accept(&mut self, hidden: &[f32], model: &Model) {
        let token = self.output[self.checked];
        let mut followed = Ok(());
        self.checked += 1;
        self.outcome.trace.absorb(token, hidden);
        if self.outcome.end.is_none() {
            let (sampling, config) = (&self.choice.sampling, model.config());
            let says = said(token, model);
            let (released, finish) = self.text.take(token, says, self.checked, sampling, config);
            self.say(&released.text);
            self.outcome.end = finish.map(|finish| (finish, count(self.checked)));
            // An end is no part of a grammar.
            if let Some(state) = self.grammar.as_ref().filter(|_| finish.is_none()) {
                followed = locked(state).advance(token);
            }
        }
        self.mark();
        let over = !self.known() && self.outcome.end.is_some();
        self.ended = over || self.checked >= self.choice.claim.tokens as usize;
        match followed {
            Err(GrammarError::Stuck(_)) if !self.ended => self.stop(Stop::Grammar),
            // What isn't allowed has no state to go on from.
            Err(_) => self.ended = true,
            Ok(()) => {}
        }
    }

    fn say(&mut self, text: &str) {
        match &mut self.calls {
            Some(calls) => self.outcome.text += &calls.push(text),
            None => self.outcome.text += text,
        }
    }

    fn mark(&mut self) {
        let tokens = count(self.checked);
        if self.choice.marks.contains(&tokens) {
            let end = self.outcome.end.map(|(finish, _)| finish);
            let text_sha256 = Digest::of(self.text_if(end.is_some()).as_bytes());
            self.outcome.marks.push(Mark {
                text_sha256,
                end,
                tokens,
                tokens_sha256: Digest::of_tokens(&self.output[..self.checked]),
                trace: self.outcome.trace.clone(),
            });
        }
    }

    /// Hands over the choice and what came out.
    pub fn finish(mut self) -> (Choice, Outcome) {
        if self.outcome.end.is_none() && self.choice.claim.finish != Finish::Open {
            // Cut off: what was held back is out.
            let released = self.text.finish();
            self.say(&released.text);
        }
        // What goes on has no end yet.
        self.outcome.text = self.text_if(self.choice.claim.finish != Finish::Open);
        self.output.truncate(self.checked);
        self.outcome.tokens_sha256 = Digest::of_tokens(&self.output);
        self.outcome.count = count(self.output.len());
        self.outcome.text_sha256 = Digest::of(self.outcome.text.as_bytes());
        self.outcome.ids = self.output;
        (self.choice, self.outcome)
    }

    /// The text that there is, with the end of its last call if it has `ended`.
    fn text_if(&self, ended: bool) -> String {
        let text = &self.outcome.text;
        match self.calls.as_ref().filter(|_| ended) {
            Some(calls) => format!("{text}{}", calls.end()),
            None => text.clone(),
        }
    }
}

fn locked(state: &Mutex<GrammarState>) -> MutexGuard<'_, GrammarState> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The bytes that a token adds to an answer: none for a special one.
fn said(token: u32, model: &Model) -> &[u8] {
    let tokenizer = model.tokenizer();
    match tokenizer.is_special(token) {
        true => &[],
        false => tokenizer.piece(token).unwrap_or_default(),
    }
}

fn count(tokens: usize) -> u32 {
    u32::try_from(tokens).expect("a context is shorter")
}
