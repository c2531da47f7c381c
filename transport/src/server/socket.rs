//! A connection's socket, with what hyper leaves to it.
//!
//! Notes when bytes come in, gives up on a peer that does not read, and when
//! closing goes on reading for a while: closing a socket with unread bytes
//! resets it, and the peer would lose the answer that it has not read yet.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::activity::Activity;
use crate::Limits;
use crate::limits::millis;

/// How an HTTP/2 connection begins (RFC 9113, section 3.4).
const HTTP2_BEGINS: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const LINGER_BYTES_MAX: usize = 64 * 1024 * 1024;

pub(super) struct Socket<I> {
    stream: I,
    activity: Arc<Activity>,
    /// The first bytes received, up to the length of [`HTTP2_BEGINS`].
    beginning: Vec<u8>,
    write_stall_max: Duration,
    /// Runs while a write waits for the peer.
    stalled: Option<Pin<Box<Sleep>>>,
    linger_max: Duration,
    closing: Closing,
}

enum Closing {
    No,
    Lingering { until: Pin<Box<Sleep>>, read: usize },
    Done,
}

impl<I> Socket<I> {
    pub(super) fn new(stream: I, activity: Arc<Activity>, limits: &Limits) -> Self {
        Self {
            stream,
            activity,
            beginning: Vec::new(),
            write_stall_max: millis(limits.write_stall_ms),
            stalled: None,
            linger_max: millis(limits.linger_ms),
            closing: Closing::No,
        }
    }

    fn note(&mut self, received: &[u8]) {
        if received.is_empty() {
            return;
        }
        let missing = HTTP2_BEGINS.len() - self.beginning.len();
        self.beginning
            .extend_from_slice(&received[..missing.min(received.len())]);
        self.activity.received(self.beginning == HTTP2_BEGINS);
    }

    /// Runs the clock on a write that waits.
    fn watch<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let max = self.write_stall_max;
        let stalled = self
            .stalled
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(max)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the peer does not read",
        )))
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Socket<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        self.note(&buf.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Socket<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.watch(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.watch(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let Closing::No = this.closing {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
            this.closing = Closing::Lingering {
                until: Box::pin(tokio::time::sleep_until(Instant::now() + this.linger_max)),
                read: 0,
            };
        }
        if let Closing::Lingering { until, read } = &mut this.closing {
            ready!(linger(&mut this.stream, until, read, cx));
            this.closing = Closing::Done;
        }
        Poll::Ready(Ok(()))
    }
}

/// Reads and forgets until the peer has closed too, or it is enough.
fn linger<I: AsyncRead + Unpin>(
    stream: &mut I,
    until: &mut Pin<Box<Sleep>>,
    read: &mut usize,
    cx: &mut Context<'_>,
) -> Poll<()> {
    let mut scratch = [0; 8192];
    while *read < LINGER_BYTES_MAX {
        let mut buf = ReadBuf::new(&mut scratch);
        match Pin::new(&mut *stream).poll_read(cx, &mut buf) {
            Poll::Pending => return until.as_mut().poll(cx),
            Poll::Ready(Err(_)) => break,
            Poll::Ready(Ok(())) if buf.filled().is_empty() => break,
            Poll::Ready(Ok(())) => *read += buf.filled().len(),
        }
    }
    Poll::Ready(())
}
