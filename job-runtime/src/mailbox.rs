//! Carries one request's answer from the engine thread to its reply.
//!
//! The engine never waits here: it looks whether the reader is behind, and
//! lets the request sit out. So at most `unread_tokens_max` tokens (and one
//! step's more) lie in a mailbox. The reader takes everything that is there at
//! once; dropping it, or a [`Canceller`], cancels the request. Start at
//! [`mailbox`].

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use protocol::receipt::{Finish, SignedReceipt};
use tokio::sync::Notify;

use crate::inbox::Waker;

/// What one or several tokens added to a choice.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Delta {
    pub choice: u8,
    /// May be empty, while text is held back.
    pub text: String,
    /// The ids that were drawn, the terminating one included.
    pub tokens: Vec<u32>,
    /// Of the tokens whose text is out, if asked for.
    pub logprobs: Vec<TokenLogprob>,
    /// The choice ended with this.
    pub finish: Option<Finish>,
    /// States everything up to here, of all choices.
    pub checkpoint: Option<Box<SignedReceipt>>,
}

/// How likely a token was, and which others were.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TokenLogprob {
    pub token: u32,
    pub logprob: f32,
    /// The most likely ones, best first.
    pub top: Vec<(u32, f32)>,
    /// Code points of the answer before this token.
    pub offset: usize,
}

/// The last word on a request.
#[derive(Debug, Clone)]
pub(crate) struct End {
    pub receipt: SignedReceipt,
    pub usage: Usage,
    /// Why it ended before the model was done.
    pub cut: Option<Cut>,
}

/// Tokens in and out, over all choices.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub prompt: u32,
    pub cached: u32,
    pub completion: u32,
}

/// Why a request ended before the model was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// The client left, or it was cancelled.
    Cancelled,
    /// The client read nothing for too long.
    Stalled,
    /// The job is ending.
    Draining,
    /// The forward pass failed.
    Failed,
}

impl Cut {
    pub(crate) fn finish(self) -> Finish {
        match self {
            Self::Cancelled => Finish::Cancelled,
            Self::Stalled | Self::Draining => Finish::Deadline,
            Self::Failed => Finish::Error,
        }
    }
}

/// Makes the two ends. `waker` tells the engine that there is room again, or
/// that nobody reads any more.
pub(crate) fn mailbox(unread_tokens_max: usize, waker: Waker) -> (AnswerWriter, AnswerReader) {
    let shared = Arc::new(Shared {
        letters: Mutex::new(Letters::default()),
        news: Notify::new(),
        unread_tokens_max,
        waker,
    });
    (AnswerWriter(Arc::clone(&shared)), AnswerReader(shared))
}

#[derive(Debug)]
struct Shared {
    letters: Mutex<Letters>,
    news: Notify,
    unread_tokens_max: usize,
    waker: Waker,
}

#[derive(Debug, Default)]
struct Letters {
    deltas: Vec<Delta>,
    unread_tokens: usize,
    end: Option<End>,
    ended: bool,
    /// The engine let go without an end.
    lost: bool,
    cancelled: bool,
}

impl Letters {
    fn push(&mut self, delta: Delta) {
        self.unread_tokens += delta.tokens.len();
        let same = |last: &&mut Delta| {
            last.choice == delta.choice && last.finish.is_none() && last.checkpoint.is_none()
        };
        match self.deltas.last_mut().filter(same) {
            Some(last) => {
                last.text.push_str(&delta.text);
                last.tokens.extend(delta.tokens);
                last.logprobs.extend(delta.logprobs);
                last.finish = delta.finish;
                last.checkpoint = delta.checkpoint;
            }
            None => self.deltas.push(delta),
        }
    }
}

impl Shared {
    fn letters(&self) -> MutexGuard<'_, Letters> {
        // Every change of the letters is complete before anything can panic.
        self.letters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cancel(&self) -> bool {
        let mut letters = self.letters();
        if letters.ended {
            return false;
        }
        letters.cancelled = true;
        drop(letters);
        self.waker.wake();
        true
    }
}

/// The engine's end.
#[derive(Debug)]
pub(crate) struct AnswerWriter(Arc<Shared>);

/// How the reader is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReaderState {
    /// There is room.
    Ready,
    /// Less than half of it is read: go on if you were running, don't begin again.
    Behind,
    /// No room.
    Full,
    /// It left, or the request was cancelled.
    Gone,
}

impl AnswerWriter {
    pub(crate) fn reader(&self) -> ReaderState {
        let letters = self.0.letters();
        let max = self.0.unread_tokens_max;
        match letters.unread_tokens {
            _ if letters.cancelled => ReaderState::Gone,
            unread if unread >= max => ReaderState::Full,
            unread if unread > max / 2 => ReaderState::Behind,
            _ => ReaderState::Ready,
        }
    }

    /// Adds to the answer; joins what the reader hasn't taken yet.
    pub(crate) fn push(&self, delta: Delta) {
        self.0.letters().push(delta);
        self.0.news.notify_one();
    }

    /// Ends the answer. The last deltas are never seen without the end.
    pub(crate) fn end(self, last: Vec<Delta>, end: End) {
        let mut letters = self.0.letters();
        last.into_iter().for_each(|delta| letters.push(delta));
        letters.end = Some(end);
        letters.ended = true;
        drop(letters);
        self.0.news.notify_one();
    }
}

impl Drop for AnswerWriter {
    fn drop(&mut self) {
        let mut letters = self.0.letters();
        letters.lost = !letters.ended;
        letters.ended = true;
        drop(letters);
        self.0.news.notify_one();
    }
}

/// The reply's end. Dropping it before the end cancels the request.
#[derive(Debug)]
pub(crate) struct AnswerReader(Arc<Shared>);

/// Everything new.
#[derive(Debug, Default)]
pub(crate) struct News {
    pub deltas: Vec<Delta>,
    /// Nothing follows.
    pub end: Option<End>,
    /// Nothing follows either: the engine is gone.
    pub lost: bool,
}

impl AnswerReader {
    /// Waits for something new and takes all of it.
    pub(crate) async fn next(&mut self) -> News {
        loop {
            if let Some(news) = self.take() {
                return news;
            }
            self.0.news.notified().await;
        }
    }

    /// Takes what is there, if anything is.
    pub(crate) fn take(&self) -> Option<News> {
        let mut letters = self.0.letters();
        let news = News {
            deltas: std::mem::take(&mut letters.deltas),
            end: letters.end.take(),
            lost: letters.lost,
        };
        let was_full = letters.unread_tokens >= self.0.unread_tokens_max;
        letters.unread_tokens = 0;
        drop(letters);
        if was_full {
            self.0.waker.wake();
        }
        (!news.deltas.is_empty() || news.end.is_some() || news.lost).then_some(news)
    }

    /// Cancels the request from elsewhere, while the reader reads on.
    pub(crate) fn canceller(&self) -> Canceller {
        Canceller(Arc::clone(&self.0))
    }
}

impl Drop for AnswerReader {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// Cancels a request.
#[derive(Debug, Clone)]
pub(crate) struct Canceller(Arc<Shared>);

impl Canceller {
    /// False if the request has ended.
    pub(crate) fn cancel(&self) -> bool {
        self.0.cancel()
    }
}
