//! The engine's process: started, watched and reaped by a thread of its own.
//!
//! The system sends a parent-death signal when the *thread* that started the
//! child ends, and a runtime's threads come and go. This thread lives as long
//! as the child does.

use std::io;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use tokio::sync::{oneshot, watch};

/// A child process. Dropping it kills the process.
#[derive(Debug)]
pub(super) struct Engine {
    process: Arc<Process>,
    ended: watch::Receiver<Option<ExitStatus>>,
}

/// The process as long as its number can't mean another one.
#[derive(Debug)]
struct Process {
    pid: Pid,
    /// Not yet reaped. Held while a signal is sent.
    ours: Mutex<bool>,
}

impl Engine {
    /// Starts `command`.
    pub(super) async fn spawn(mut command: Command) -> io::Result<Self> {
        let (started, start) = oneshot::channel();
        thread::Builder::new()
            .name("engine-watch".to_owned())
            .spawn(move || {
                let child = match command.spawn() {
                    Ok(child) => child,
                    Err(error) => return drop(started.send(Err(error))),
                };
                let process = Arc::new(Process {
                    pid: Pid::from_child(&child),
                    ours: Mutex::new(true),
                });
                let (ending, ended) = watch::channel(None);
                let engine = Self {
                    process: Arc::clone(&process),
                    ended,
                };
                // Nobody waits any more: the engine is dropped here, and so killed.
                drop(started.send(Ok(engine)));
                process.attend(child, &ending);
            })?;
        start
            .await
            .unwrap_or_else(|_| Err(io::Error::other("its thread died")))
    }

    /// The process id, while the process runs.
    pub(super) fn pid(&self) -> Option<u32> {
        let running = self.ended.borrow().is_none();
        running.then(|| self.process.pid.as_raw_nonzero().get().unsigned_abs())
    }

    /// Waits until the process has ended.
    pub(super) async fn exited(&self) -> io::Result<ExitStatus> {
        let mut ended = self.ended.clone();
        let status = ended
            .wait_for(Option::is_some)
            .await
            .map_err(|_| io::Error::other("its thread died"))?;
        Ok(status.expect("waited for a status"))
    }

    /// Sends a signal. Nothing happens if the process has ended.
    pub(super) fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.process.signal(Signal::KILL);
    }
}

impl Process {
    fn signal(&self, signal: Signal) {
        let ours = self.ours.lock().unwrap_or_else(PoisonError::into_inner);
        if *ours {
            // It can only fail because the process has just ended.
            let _ = kill_process(self.pid, signal);
        }
    }

    /// Waits without reaping first: until then the number is still its own.
    fn attend(&self, mut child: Child, ending: &watch::Sender<Option<ExitStatus>>) {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        while let Err(Errno::INTR) = waitid(WaitId::Pid(self.pid), options) {}
        let mut ours = self.ours.lock().unwrap_or_else(PoisonError::into_inner);
        *ours = false;
        match child.wait() {
            Ok(status) => drop(ending.send_replace(Some(status))),
            Err(error) => tracing::error!(%error, "an engine can't be waited for"),
        }
    }
}
