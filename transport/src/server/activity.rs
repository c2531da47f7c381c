//! What a connection is doing, so that it can be closed when it does nothing.
//!
//! Written by the socket and by the requests of one connection, read by the
//! task that drives it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use crate::Limits;
use crate::limits::millis;

#[derive(Debug)]
pub(super) struct Activity {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Requests whose answer is not complete.
    open: usize,
    phase: Phase,
    http2: bool,
}

/// What is awaited while no request is open.
#[derive(Debug, Clone, Copy)]
enum Phase {
    /// The rest of a head, since then.
    Head(Instant),
    /// The first byte of one, since then.
    Idle(Instant),
}

impl Activity {
    /// A new connection owes us a head at once.
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                open: 0,
                phase: Phase::Head(Instant::now()),
                http2: false,
            }),
        })
    }

    /// Bytes came in. `http2`: the connection began with its preface, whose
    /// frames between requests (pings, settings) are no head.
    pub(super) fn received(&self, http2: bool) {
        let mut state = self.state();
        if http2 && !state.http2 {
            state.http2 = true;
            state.phase = Phase::Idle(Instant::now());
        }
        if !http2
            && state.open == 0
            && let Phase::Idle(_) = state.phase
        {
            state.phase = Phase::Head(Instant::now());
        }
    }

    /// A request's head is complete; its answer is open until the guard drops.
    pub(super) fn open(self: &Arc<Self>) -> OpenRequest {
        self.state().open += 1;
        OpenRequest(Arc::clone(self))
    }

    /// When the connection has been useless for too long, if nothing happens.
    pub(super) fn deadline(&self, limits: &Limits) -> Option<Instant> {
        let state = self.state();
        match state.phase {
            _ if state.open > 0 => None,
            Phase::Head(since) => Some(since + millis(limits.header_ms)),
            Phase::Idle(since) => Some(since + millis(limits.idle_ms)),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An open request. Lives in its response's body.
#[derive(Debug)]
pub(super) struct OpenRequest(Arc<Activity>);

impl Drop for OpenRequest {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.open -= 1;
        if state.open == 0 {
            state.phase = Phase::Idle(Instant::now());
        }
    }
}
