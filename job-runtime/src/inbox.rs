//! What the rest of the process tells the engine thread.
//!
//! Requests come in here, bounded by the permits that each of them carries
//! (`api` hands out no more than `sequences_max + waiting_max`), so the queue
//! needs no bound of its own. The engine takes everything at once between two
//! steps, and sleeps here when nothing can run.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Makes the two ends.
pub(crate) fn inbox<T>() -> (Sender<T>, Receiver<T>) {
    let slots = Arc::new(Slots {
        letters: Mutex::new(Letters {
            requests: Vec::new(),
            woken: false,
            cut: false,
            closed: false,
        }),
        news: Condvar::new(),
    });
    (
        Sender {
            slots: Arc::clone(&slots),
        },
        Receiver { slots },
    )
}

struct Slots<T> {
    letters: Mutex<Letters<T>>,
    news: Condvar,
}

struct Letters<T> {
    requests: Vec<T>,
    woken: bool,
    cut: bool,
    closed: bool,
}

impl<T> Slots<T> {
    fn letters(&self) -> MutexGuard<'_, Letters<T>> {
        // Every change of the letters is complete before anything can panic.
        self.letters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self, change: impl FnOnce(&mut Letters<T>)) {
        let mut letters = self.letters();
        change(&mut letters);
        letters.woken = true;
        drop(letters);
        self.news.notify_one();
    }
}

/// The end that everybody else holds. When the last is dropped, nothing happens:
/// the owner closes the inbox.
pub(crate) struct Sender<T> {
    slots: Arc<Slots<T>>,
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self {
            slots: Arc::clone(&self.slots),
        }
    }
}

impl<T: Send + 'static> Sender<T> {
    /// Hands a request over; back if the engine has ended.
    pub(crate) fn submit(&self, request: T) -> Result<(), T> {
        let mut letters = self.slots.letters();
        if letters.closed {
            return Err(request);
        }
        letters.requests.push(request);
        drop(letters);
        self.slots.news.notify_one();
        Ok(())
    }

    /// Ends every request that is alive, and every one that still comes.
    pub(crate) fn cut(&self) {
        self.slots.wake(|letters| letters.cut = true);
    }

    /// Ends the engine after what is alive.
    pub(crate) fn close(&self) {
        self.slots.wake(|letters| letters.closed = true);
    }

    /// Something that isn't about the requests themselves.
    pub(crate) fn waker(&self) -> Waker {
        let slots = Arc::clone(&self.slots);
        Waker(Arc::new(move || slots.wake(|_| ())))
    }
}

/// Makes the engine look again.
#[derive(Clone)]
pub(crate) struct Waker(Arc<dyn Fn() + Send + Sync>);

impl Waker {
    pub(crate) fn wake(&self) {
        (self.0)();
    }
}

impl std::fmt::Debug for Waker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Waker")
    }
}

/// The engine's end.
pub(crate) struct Receiver<T> {
    slots: Arc<Slots<T>>,
}

/// Everything new.
pub(crate) struct Mail<T> {
    pub requests: Vec<T>,
    /// End every request now.
    pub cut: bool,
    /// End when nothing is alive.
    pub closed: bool,
}

impl<T> Receiver<T> {
    /// Takes what is there. With `wait`, first waits until something is, at most so long.
    pub(crate) fn take(&self, wait: Option<Duration>) -> Mail<T> {
        let mut letters = self.slots.letters();
        if let Some(wait) = wait {
            let quiet = |letters: &mut Letters<T>| letters.requests.is_empty() && !letters.woken;
            letters = self
                .slots
                .news
                .wait_timeout_while(letters, wait, quiet)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        letters.woken = false;
        Mail {
            requests: std::mem::take(&mut letters.requests),
            cut: letters.cut,
            closed: letters.closed,
        }
    }
}

impl<T> Drop for Receiver<T> {
    /// What nobody takes any more is dropped, and so ends.
    fn drop(&mut self) {
        let mut letters = self.slots.letters();
        letters.closed = true;
        let orphans = std::mem::take(&mut letters.requests);
        drop(letters);
        drop(orphans);
    }
}
