//! Bodies: reading one whole within limits, and what a body carries along.
//!
//! [`collect_body`] is how every consumer reads a request. A body that came
//! over a listener already fails by itself when the peer pauses too long.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, timeout};

use crate::{Body, BoxError};

/// Why a body could not be read to its end.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// More than `max` bytes, as announced or as counted.
    #[error("the body is larger than {max} bytes")]
    TooLarge {
        /// The limit.
        max: usize,
    },
    /// Not complete within `time`.
    #[error("the body was not complete within {time:?}")]
    TimedOut {
        /// The limit.
        time: Duration,
    },
    /// The peer paused for `pause` in the middle of it.
    #[error("the body paused for {pause:?}")]
    Stalled {
        /// The limit.
        pause: Duration,
    },
    /// The connection or stream broke, or its framing is wrong.
    #[error("the body broke off")]
    Broken(#[source] BoxError),
}

impl BodyError {
    /// Finds what a body failed with, whatever it was wrapped in on the way.
    pub fn from_axum(error: axum::Error) -> Self {
        match error.into_inner().downcast::<Self>() {
            Ok(ours) => *ours,
            Err(other) => Self::Broken(other),
        }
    }
}

/// Reads a whole body of at most `bytes_max` bytes within `time`. A body that
/// announces more is refused before a byte of it is read.
pub async fn collect_body(
    body: Body,
    bytes_max: usize,
    time: Duration,
) -> Result<Bytes, BodyError> {
    timeout(time, collect(body, bytes_max))
        .await
        .unwrap_or(Err(BodyError::TimedOut { time }))
}

async fn collect(mut body: Body, max: usize) -> Result<Bytes, BodyError> {
    if body.size_hint().lower() > max as u64 {
        return Err(BodyError::TooLarge { max });
    }
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(BodyError::from_axum)?.into_data() else {
            continue; // trailers mean nothing to us
        };
        if data.len() > max - first.len() - rest.len() {
            return Err(BodyError::TooLarge { max });
        }
        // Most bodies come in one piece, which needs no copy.
        if first.is_empty() {
            first = data;
        } else {
            rest.extend_from_slice(&data);
        }
    }
    if rest.is_empty() {
        return Ok(first);
    }
    let mut whole = BytesMut::with_capacity(first.len() + rest.len());
    whole.extend_from_slice(&first);
    whole.extend_from_slice(&rest);
    Ok(whole.freeze())
}

/// The same body, which keeps `guard` until it is dropped: an admission
/// permit or an open-request gauge lasts as long as the answer does.
pub fn hold<G: Send + 'static>(body: Body, guard: G) -> Body {
    Body::new(Held {
        body,
        _guard: guard,
    })
}

struct Held<G> {
    body: Body,
    _guard: G,
}

// Nothing is pinned structurally: `Body` is `Unpin` and the guard never polled.
impl<G> Unpin for Held<G> {}

impl<G> http_body::Body for Held<G> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

pin_project! {
    /// A body that fails when its sender pauses for longer than allowed. The
    /// clock runs only while somebody waits for the next piece.
    pub(crate) struct Paced<B> {
        #[pin]
        body: B,
        #[pin]
        pause: Sleep,
        pause_max: Duration,
        waiting: bool,
    }
}

impl<B> Paced<B> {
    pub(crate) fn new(body: B, pause_max: Duration) -> Self {
        Self {
            body,
            pause: tokio::time::sleep(pause_max),
            pause_max,
            waiting: false,
        }
    }
}

impl<B> http_body::Body for Paced<B>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut this = self.project();
        if let Poll::Ready(frame) = this.body.poll_frame(cx) {
            *this.waiting = false;
            return Poll::Ready(
                frame.map(|frame| frame.map_err(|error| BodyError::Broken(error.into()))),
            );
        }
        if !*this.waiting {
            *this.waiting = true;
            this.pause.as_mut().reset(Instant::now() + *this.pause_max);
        }
        ready!(this.pause.poll(cx));
        Poll::Ready(Some(Err(BodyError::Stalled {
            pause: *this.pause_max,
        })))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
