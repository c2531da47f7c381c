//! A fork-join team of threads for the hot path.
//!
//! [`Team::run`] hands out items by a shared counter, so a slow core does
//! fewer of them. Which thread computes an item never changes its bits: items
//! write disjoint outputs, and no sum crosses items. Between runs, helpers
//! spin for a few microseconds (a step has some two hundred runs), then park.

use std::cell::UnsafeCell;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// What one run calls for each item: `job(item, worker)`.
type Job<'a> = dyn Fn(usize, usize) + Sync + 'a;

/// Threads that work on one thing at a time.
pub struct Team {
    shared: Arc<Shared>,
    helpers: Vec<JoinHandle<()>>,
}

struct Shared {
    /// Odd while a run accepts helpers. Its upper half counts runs, its lower
    /// half, from the second bit on, the helpers inside.
    state: AtomicU64,
    job: UnsafeCell<Option<*const Job<'static>>>,
    items: AtomicUsize,
    next: AtomicUsize,
    panicked: AtomicBool,
    quit: AtomicBool,
}

// SAFETY: `job` is written only by `Team::run` while no helper is inside, and
// read by helpers only while they are counted in `state`; the job is `Sync`.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

const OPEN: u64 = 1;
const INSIDE: u64 = 2;
const RUN: u64 = 1 << 32;
const SPIN: Duration = Duration::from_micros(40);

impl Team {
    /// A team of `threads`, the caller of [`Team::run`] being one of them.
    pub fn new(threads: NonZeroUsize) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            state: AtomicU64::new(0),
            job: UnsafeCell::new(None),
            items: AtomicUsize::new(0),
            next: AtomicUsize::new(0),
            panicked: AtomicBool::new(false),
            quit: AtomicBool::new(false),
        });
        let helpers = (1..threads.get())
            .map(|worker| {
                let shared = Arc::clone(&shared);
                thread::Builder::new()
                    .name(format!("exact-{worker}"))
                    .spawn(move || shared.help(worker))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { shared, helpers })
    }

    /// Number of threads; workers are numbered below it.
    pub fn threads(&self) -> usize {
        self.helpers.len() + 1
    }

    /// Calls `job(item, worker)` once for every item below `items`, and
    /// returns when all calls have.
    ///
    /// # Panics
    /// If a call panicked.
    pub fn run(&mut self, items: usize, job: &Job<'_>) {
        if items <= 1 || self.helpers.is_empty() {
            (0..items).for_each(|item| job(item, 0));
            return;
        }
        let shared = &*self.shared;
        // SAFETY: no helper is inside, since the previous run waited for all
        // and `self` is borrowed mutably. The lifetime is erased, but this
        // function doesn't return (or unwind) before every helper has left.
        unsafe {
            *shared.job.get() = Some(std::mem::transmute::<*const Job<'_>, *const Job<'static>>(
                job,
            ));
        }
        shared.panicked.store(false, Ordering::Relaxed);
        shared.items.store(items, Ordering::Relaxed);
        shared.next.store(0, Ordering::Relaxed);
        shared.state.fetch_add(RUN + OPEN, Ordering::Release);
        for helper in &self.helpers {
            helper.thread().unpark();
        }
        let finish = Finish(shared);
        shared.work(job, 0);
        drop(finish);
        assert!(
            !shared.panicked.load(Ordering::Relaxed),
            "a worker panicked"
        );
    }
}

/// Closes the run and waits for the helpers inside, also when unwinding.
struct Finish<'a>(&'a Shared);

impl Drop for Finish<'_> {
    fn drop(&mut self) {
        self.0.state.fetch_and(!OPEN, Ordering::AcqRel);
        let mut spins = 0_u32;
        while self.0.state.load(Ordering::Acquire) & (RUN - 1) != 0 {
            spins = spins.wrapping_add(1);
            if spins.is_multiple_of(4096) {
                // The helper may wait for this very core.
                thread::yield_now();
            }
            std::hint::spin_loop();
        }
    }
}

impl Shared {
    fn work(&self, job: &Job<'_>, worker: usize) {
        let items = self.items.load(Ordering::Relaxed);
        loop {
            let item = self.next.fetch_add(1, Ordering::Relaxed);
            if item >= items {
                return;
            }
            job(item, worker);
        }
    }

    /// A helper's life.
    fn help(&self, worker: usize) {
        let mut last_run = 0;
        while let Some(run) = self.enter_after(last_run) {
            last_run = run;
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                // SAFETY: counted inside an open run, so the pointer was set
                // by it, and `run` keeps the job alive until this helper left.
                let job = unsafe { &*(*self.job.get()).expect("an open run has a job") };
                self.work(job, worker);
            }));
            if outcome.is_err() {
                self.panicked.store(true, Ordering::Relaxed);
            }
            self.state.fetch_sub(INSIDE, Ordering::Release);
        }
    }

    /// Waits for a run after `last_run` and enters it; `None` to quit.
    fn enter_after(&self, last_run: u64) -> Option<u64> {
        let mut idle_since = None;
        let mut spins = 0_u32;
        loop {
            let state = self.state.load(Ordering::Acquire);
            if state & OPEN != 0 && state / RUN != last_run {
                let entered = state + INSIDE;
                let swap = self.state.compare_exchange_weak(
                    state,
                    entered,
                    Ordering::AcqRel,
                    Ordering::Relaxed,
                );
                if swap.is_ok() {
                    return Some(state / RUN);
                }
                continue;
            }
            if self.quit.load(Ordering::Relaxed) {
                return None;
            }
            spins = spins.wrapping_add(1);
            if !spins.is_multiple_of(64) {
                std::hint::spin_loop();
                continue;
            }
            let now = Instant::now();
            if now - *idle_since.get_or_insert(now) > SPIN {
                // A run that opens meanwhile unparks: no wake-up is lost.
                thread::park();
                idle_since = None;
            }
        }
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.shared.quit.store(true, Ordering::Relaxed);
        for helper in self.helpers.drain(..) {
            helper.thread().unpark();
            // A helper catches its panics.
            let _ = helper.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(threads: usize, runs: usize, items: usize) {
        let mut team = Team::new(NonZeroUsize::new(threads).unwrap()).unwrap();
        for _ in 0..runs {
            let counts: Vec<AtomicUsize> = (0..items).map(|_| AtomicUsize::new(0)).collect();
            team.run(items, &|item, worker| {
                assert!(worker < threads);
                counts[item].fetch_add(1, Ordering::Relaxed);
            });
            assert!(counts.iter().all(|n| n.load(Ordering::Relaxed) == 1));
        }
    }

    #[test]
    fn every_item_is_done_once() {
        for threads in 1..=5 {
            check(threads, 300, 7);
            check(threads, 3, 1000);
            check(threads, 3, 1);
            check(threads, 3, 0);
        }
    }

    #[test]
    fn a_panic_in_any_worker_reaches_the_caller() {
        let mut team = Team::new(NonZeroUsize::new(3).unwrap()).unwrap();
        for _ in 0..20 {
            let run = std::panic::AssertUnwindSafe(|| {
                team.run(50, &|item, _| assert_ne!(item, 37));
            });
            assert!(std::panic::catch_unwind(run).is_err());
        }
        drop(team);
        check(3, 10, 10);
    }
}
