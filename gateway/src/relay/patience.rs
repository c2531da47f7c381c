//! How long an engine is waited for, and what happens when nobody waits.
//!
//! While the client is there, an engine has until the request's deadline.
//! When the client leaves, or the deadline passes, the request is cancelled at
//! the engine, which then has a short while to hand over the receipt.

use std::future::{Future, pending};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use protocol::RequestId;
use tokio::time::{Instant, sleep_until};

use crate::engine::EngineError;
use crate::jobs::Job;

/// The patience with one request.
pub(super) struct Patience {
    job: Arc<Job>,
    id: RequestId,
    until: Instant,
    after_cancel: Duration,
    /// Nothing more is hoped for than what ends the answer.
    over: bool,
    cancelling: Option<Cancelling>,
}

/// The call that cancels, until it is answered.
type Cancelling = Pin<Box<dyn Future<Output = Result<(), EngineError>> + Send>>;

/// The engine kept us waiting even after the request was cancelled.
#[derive(Debug)]
pub(super) struct Exhausted;

impl Patience {
    pub(super) fn new(
        job: Arc<Job>,
        id: RequestId,
        request: Duration,
        after_cancel: Duration,
    ) -> Self {
        Self {
            job,
            id,
            until: Instant::now() + request,
            after_cancel,
            over: false,
            cancelling: None,
        }
    }

    /// Cancels the request at the engine, once.
    pub(super) fn cancel(&mut self) {
        if self.over {
            return;
        }
        let (job, id) = (Arc::clone(&self.job), self.id.clone());
        self.cancelling = Some(Box::pin(async move { job.engine().cancel(&id).await }));
        self.hurry();
    }

    /// Grants the engine a short while from now, at most.
    pub(super) fn hurry(&mut self) {
        self.over = true;
        self.until = self.until.min(Instant::now() + self.after_cancel);
    }

    /// Waits for the engine's `work`, and cancels when `gone` says that
    /// nobody waits for it any more.
    pub(super) async fn wait<T>(
        &mut self,
        gone: impl Future<Output = ()>,
        work: impl Future<Output = T>,
    ) -> Result<T, Exhausted> {
        let mut work = pin!(work);
        // Time comes first everywhere: an engine that always has something to
        // say must not keep us from noticing that it is over.
        if !self.over {
            tokio::select! {
                biased;
                () = sleep_until(self.until) => {
                    self.until = Instant::now() + self.after_cancel;
                    self.cancel();
                }
                done = &mut work => return Ok(done),
                () = gone => self.cancel(),
            }
        }
        loop {
            tokio::select! {
                biased;
                () = sleep_until(self.until) => return Err(Exhausted),
                answer = answered(&mut self.cancelling) => {
                    if let Err(error) = answer {
                        // It may have ended by itself; else time will tell.
                        let error = &error as &dyn std::error::Error;
                        tracing::debug!(error, "cancelling at the engine");
                    }
                    self.cancelling = None;
                }
                done = &mut work => return Ok(done),
            }
        }
    }
}

async fn answered(cancelling: &mut Option<Cancelling>) -> Result<(), EngineError> {
    match cancelling {
        Some(cancelling) => cancelling.await,
        None => pending().await,
    }
}
