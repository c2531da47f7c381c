//! A response body that is written while it is sent.
//!
//! The writer holds a [`Producer`], the connection holds the body, a bounded
//! channel lies between. Dropping the body (the client left) shows at the
//! producer; dropping the producer before [`Producer::finish`] breaks the
//! body off, so that a writer that died never looks like one that was done.

use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::{Frame, SizeHint};
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep};

use crate::{Body, BodyError, BoxError};

/// Pieces that are ready together leave as one, up to about this size.
const COALESCED_BYTES_MAX: usize = 16 * 1024;

/// What a body says when nothing else was said for a while.
#[derive(Debug, Clone)]
pub struct KeepAlive {
    /// The silence after which it is said.
    pub every: Duration,
    /// Whole lines, such as [`crate::sse::PING`].
    pub bytes: Bytes,
}

/// Makes a body and its writer. At most `capacity` pieces wait between them;
/// then `send` waits and `try_send` refuses.
pub fn channel(capacity: NonZeroUsize, keep_alive: Option<KeepAlive>) -> (Producer, Body) {
    let (pieces, received) = mpsc::channel(capacity.get());
    let ending = Arc::new(Mutex::new(None));
    let producer = Producer {
        pieces,
        ending: Arc::clone(&ending),
    };
    let body = Streamed {
        pieces: received,
        ending,
        ended: false,
        keep_alive: keep_alive.map(|keep_alive| {
            let silence = Box::pin(tokio::time::sleep(keep_alive.every));
            (keep_alive, silence)
        }),
    };
    (producer, Body::new(body))
}

/// The writing end of a streamed body.
#[derive(Debug)]
pub struct Producer {
    pieces: mpsc::Sender<Bytes>,
    ending: Arc<Mutex<Option<Ending>>>,
}

impl Producer {
    /// Hands over one piece, waiting for room. Pieces may be joined on the
    /// wire, but are never cut or reordered.
    pub async fn send(&self, piece: Bytes) -> Result<(), Gone> {
        self.pieces.send(piece).await.map_err(|_| Gone)
    }

    /// Hands over one piece if there is room at once.
    pub fn try_send(&self, piece: Bytes) -> Result<(), TrySendError> {
        self.pieces
            .try_send(piece)
            .map_err(|refused| match refused {
                mpsc::error::TrySendError::Full(piece) => TrySendError::Full(piece),
                mpsc::error::TrySendError::Closed(_) => TrySendError::Gone,
            })
    }

    /// Pieces for which there is room now.
    pub fn room(&self) -> usize {
        self.pieces.capacity()
    }

    /// Whether the reader has left.
    pub fn is_gone(&self) -> bool {
        self.pieces.is_closed()
    }

    /// Waits until the reader has left.
    pub async fn gone(&self) {
        self.pieces.closed().await;
    }

    /// Ends the body in order, after what was handed over.
    pub fn finish(self) {
        self.end(Ending::Finished);
    }

    /// Breaks the body off, after what was handed over: the peer sees an
    /// incomplete answer.
    pub fn fail(self, reason: impl Into<BoxError>) {
        self.end(Ending::Failed(reason.into()));
    }

    fn end(self, ending: Ending) {
        *self.ending.lock().unwrap_or_else(PoisonError::into_inner) = Some(ending);
    }
}

/// The reader of a streamed body has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the reader has left")]
pub struct Gone;

/// Why a piece was not taken.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrySendError {
    /// No room; here is the piece.
    #[error("the reader is behind")]
    Full(Bytes),
    /// The reader has left.
    #[error("the reader has left")]
    Gone,
}

#[derive(Debug)]
enum Ending {
    Finished,
    Failed(BoxError),
}

/// The writer of a body went away without ending it.
#[derive(Debug, thiserror::Error)]
#[error("its writer went away")]
struct Abandoned;

struct Streamed {
    pieces: mpsc::Receiver<Bytes>,
    ending: Arc<Mutex<Option<Ending>>>,
    ended: bool,
    keep_alive: Option<(KeepAlive, Pin<Box<Sleep>>)>,
}

impl Streamed {
    /// Joins what else is ready to `first`: one frame, one write. (An HTTP/2
    /// receiver also charges small frames to a budget.)
    fn coalesce(&mut self, first: Bytes) -> Bytes {
        let mut joined: Option<BytesMut> = None;
        let mut size = first.len();
        while size < COALESCED_BYTES_MAX
            && let Ok(next) = self.pieces.try_recv()
        {
            size += next.len();
            joined
                .get_or_insert_with(|| BytesMut::from(&first[..]))
                .extend_from_slice(&next);
        }
        joined.map_or(first, BytesMut::freeze)
    }

    fn end(&mut self) -> Option<Result<Frame<Bytes>, BodyError>> {
        self.ended = true;
        let ending = self
            .ending
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        match ending {
            Some(Ending::Finished) => None,
            Some(Ending::Failed(reason)) => Some(Err(BodyError::Broken(reason))),
            None => Some(Err(BodyError::Broken(Abandoned.into()))),
        }
    }
}

impl http_body::Body for Streamed {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let piece = match self.pieces.poll_recv(cx) {
            Poll::Ready(Some(first)) => self.coalesce(first),
            Poll::Ready(None) => return Poll::Ready(self.end()),
            Poll::Pending => {
                let Some((keep_alive, silence)) = &mut self.keep_alive else {
                    return Poll::Pending;
                };
                ready!(silence.as_mut().poll(cx));
                keep_alive.bytes.clone()
            }
        };
        if let Some((keep_alive, silence)) = &mut self.keep_alive {
            silence.as_mut().reset(Instant::now() + keep_alive.every);
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
