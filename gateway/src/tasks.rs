//! Owns the tasks that outlive the handler that began them.
//!
//! A request whose client left goes on until its receipt is stored. Whoever
//! shuts down waits here for the last of them.

use std::future::Future;
use std::sync::{Mutex, PoisonError};

use tokio::task::{JoinError, JoinSet};

/// The tasks that run. Their number is bounded by the requests' permits.
#[derive(Debug, Default)]
pub(crate) struct Tasks {
    running: Mutex<JoinSet<()>>,
}

impl Tasks {
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(ended) = running.try_join_next() {
            report(ended);
        }
        running.spawn(task);
    }

    /// Waits for those that run now.
    pub(crate) async fn finish(&self) {
        let mut running = {
            let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *running)
        };
        while let Some(ended) = running.join_next().await {
            report(ended);
        }
    }
}

fn report(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(error = &error as &dyn std::error::Error, "a task died");
    }
}
