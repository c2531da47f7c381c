//! The one signal that ends a process in order.
//!
//! One owner holds [`Drain`] and begins it; everybody else holds a
//! [`DrainSignal`], stops taking on work when it begins, and is cut off when
//! it expires.

use std::future;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// The owner's end. Dropping it without [`Drain::begin`] is a drain whose
/// deadline is at once: nothing outlives its owner.
#[derive(Debug)]
pub struct Drain {
    deadline: watch::Sender<Option<Instant>>,
}

impl Drain {
    /// A drain that has not begun.
    #[allow(clippy::new_without_default)] // a default that ends things when dropped would surprise
    pub fn new() -> Self {
        Self {
            deadline: watch::Sender::new(None),
        }
    }

    /// A signal to hand out.
    pub fn signal(&self) -> DrainSignal {
        DrainSignal {
            deadline: Some(self.deadline.subscribe()),
        }
    }

    /// Begins the drain: what is open may finish for `grace`. Called again,
    /// it can only bring the deadline nearer.
    pub fn begin(&self, grace: Duration) {
        let wanted = Instant::now() + grace;
        self.deadline.send_modify(|deadline| {
            *deadline = Some(deadline.map_or(wanted, |earlier| earlier.min(wanted)));
        });
    }
}

/// Tells when a drain begins and when it expires. Clones are equal.
#[derive(Debug, Clone)]
pub struct DrainSignal {
    /// None: never begins.
    deadline: Option<watch::Receiver<Option<Instant>>>,
}

impl DrainSignal {
    /// A signal that never begins, for what only ends with its process.
    pub fn never() -> Self {
        Self { deadline: None }
    }

    /// Whether the drain has begun.
    pub fn has_begun(&self) -> bool {
        self.deadline
            .as_ref()
            .is_some_and(|deadline| deadline.borrow().is_some() || deadline.has_changed().is_err())
    }

    /// Waits until the drain begins, and says when it expires.
    pub async fn begun(&self) -> Instant {
        let Some(deadline) = &self.deadline else {
            return future::pending().await;
        };
        match deadline.clone().wait_for(Option::is_some).await {
            Ok(at) => at.expect("waited for a deadline"),
            Err(_owner_gone) => Instant::now(),
        }
    }

    /// Waits until the drain has begun and its deadline has passed.
    pub async fn expired(&self) {
        let mut at = self.begun().await;
        let Some(mut deadline) = self.deadline.clone() else {
            return future::pending().await;
        };
        at = deadline.borrow_and_update().unwrap_or(at);
        loop {
            tokio::select! {
                () = sleep_until(at) => return,
                changed = deadline.changed() => match changed {
                    Ok(()) => at = deadline.borrow_and_update().unwrap_or(at),
                    // The deadline stands once it was set, owner or not.
                    Err(_owner_gone) => return sleep_until(at).await,
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(20);
    const LONG: Duration = Duration::from_secs(3600);

    #[tokio::test]
    async fn expires_at_its_deadline() {
        let drain = Drain::new();
        let signal = drain.signal();
        assert!(!signal.has_begun());
        let start = Instant::now();
        drain.begin(SHORT);
        assert!(signal.has_begun());
        signal.expired().await;
        assert!(start.elapsed() >= SHORT);
    }

    #[tokio::test]
    async fn a_second_begin_only_hastens() {
        let drain = Drain::new();
        let signal = drain.signal();
        drain.begin(LONG);
        let expired = tokio::spawn(async move { signal.expired().await });
        tokio::task::yield_now().await; // it waits for the first deadline now
        drain.begin(SHORT);
        drain.begin(LONG);
        expired.await.unwrap();
    }

    #[tokio::test]
    async fn begins_and_expires_at_once_when_its_owner_is_gone() {
        let drain = Drain::new();
        let signal = drain.signal();
        drop(drain);
        assert!(signal.has_begun());
        signal.expired().await;
    }

    #[tokio::test]
    async fn an_owner_gone_after_begin_leaves_the_deadline() {
        let drain = Drain::new();
        let signal = drain.signal();
        let start = Instant::now();
        drain.begin(SHORT);
        drop(drain);
        signal.expired().await;
        assert!(start.elapsed() >= SHORT);
    }
}
