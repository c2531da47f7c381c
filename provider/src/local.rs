//! The local executor: an engine as a child process of this one.
//!
//! The child gets its listening Unix socket as standard input, one JSON
//! argument, an empty environment and our standard error, and nothing else.
//! Whether it is ready is asked of its socket. What to do when it dies is
//! the owner's to decide. Start at [`start`].

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use http::Request;
use protocol::{Did, JobId};
use rustix::process::Signal;
use serde::Deserialize;
use tokio::time::{sleep, timeout};
use transport::{Body, ConnectLimits, Connector, collect_body};

mod child;
mod parent;
mod socket;

use child::Engine;
pub use parent::{ParentError, die_with_parent};
pub use socket::SocketError;
use socket::SocketPlace;

/// What to start.
#[derive(Debug, Clone)]
pub struct JobSpec {
    /// The program; it is called as `BINARY engine CONFIG`.
    pub binary: PathBuf,
    /// The job, as `config` names it.
    pub job: JobId,
    /// The engine's configuration, one JSON argument. It holds no secrets:
    /// every user of the machine can read it.
    pub config: String,
    /// Where the socket is made, a folder of ours; it is created with mode 0700.
    pub run_dir: PathBuf,
    /// How long the engine may take until it is ready.
    pub ready_within: Duration,
}

/// A job whose engine said that it is ready. Dropping it kills the engine.
#[derive(Debug)]
pub struct RunningJob {
    engine: Engine,
    socket: SocketPlace,
    job: JobId,
    did: Did,
}

/// Why a job couldn't be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The socket.
    #[error("making the engine's socket")]
    Socket(#[source] SocketError),
    /// The program.
    #[error("starting {}", .binary.display())]
    Spawn {
        /// The program.
        binary: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It ended before it was ready. Its own words are on standard error.
    #[error("the engine ended before it was ready ({0})")]
    Exited(ExitStatus),
    /// It didn't get ready in time, and was killed.
    #[error("the engine wasn't ready within {0:?}")]
    TooSlow(Duration),
    /// Whether it still runs couldn't be asked.
    #[error("watching the engine")]
    Watch(#[source] io::Error),
    /// Its answer to `GET /job` makes no sense.
    #[error("the engine's account of itself can't be read")]
    Account(#[source] serde_json::Error),
    /// It says that it is another job than the one that was started.
    #[error("the engine says that it is {0}, which wasn't started")]
    OtherJob(JobId),
}

/// What `GET /job` says, as far as an executor cares.
#[derive(Debug, Deserialize)]
struct Account {
    job: JobId,
    did: Did,
    ready: bool,
}

/// Starts an engine and waits until it is ready.
///
/// # Errors
///
/// If it can't be started, ends early, or takes longer than `ready_within`.
/// No process and no socket is left behind then.
pub async fn start(spec: JobSpec) -> Result<RunningJob, StartError> {
    let (socket, listener) =
        SocketPlace::bind(&spec.run_dir, &spec.job).map_err(StartError::Socket)?;
    let engine = Engine::spawn(command(&spec, listener))
        .await
        .map_err(|source| StartError::Spawn {
            binary: spec.binary.clone(),
            source,
        })?;
    let readiness = tokio::select! {
        biased;
        ended = engine.exited() => Err(match ended {
            Ok(status) => StartError::Exited(status),
            Err(error) => StartError::Watch(error),
        }),
        ready = timeout(spec.ready_within, ready(&spec.job, socket.path())) => {
            ready.unwrap_or(Err(StartError::TooSlow(spec.ready_within)))
        }
    };
    match readiness {
        Ok(did) => Ok(RunningJob {
            engine,
            socket,
            job: spec.job,
            did,
        }),
        Err(error) => {
            engine.signal(Signal::KILL);
            // Nothing is left behind; and why it failed matters more than how it ended.
            let _ = engine.exited().await;
            Err(error)
        }
    }
}

/// Asks the engine until it says that it is ready.
async fn ready(job: &JobId, socket: &Path) -> Result<Did, StartError> {
    let connector = Connector::unix(socket, ConnectLimits::default());
    loop {
        match timeout(ASK_TIME, ask(&connector)).await {
            Ok(Ok(account)) if account.job != *job => {
                return Err(StartError::OtherJob(account.job));
            }
            Ok(Ok(account)) if account.ready => return Ok(account.did),
            Ok(Err(AskError::Account(error))) => return Err(StartError::Account(error)),
            // Not there yet, or busy.
            Ok(Ok(_) | Err(AskError::NotNow)) | Err(_) => sleep(ASK_AGAIN).await,
        }
    }
}

/// Between two questions whether an engine is ready.
const ASK_AGAIN: Duration = Duration::from_millis(25);

/// The time that one such question may take.
const ASK_TIME: Duration = Duration::from_secs(2);

/// Longest account of an engine, in bytes.
const ACCOUNT_BYTES_MAX: usize = 64 * 1024;

fn command(spec: &JobSpec, listener: UnixListener) -> Command {
    let mut command = Command::new(&spec.binary);
    command
        .arg("engine")
        .arg(&spec.config)
        .env_clear()
        .stdin(Stdio::from(OwnedFd::from(listener)))
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        // A terminal's Ctrl-C is for us; the engine is told when its streams are done.
        .process_group(0);
    command
}

enum AskError {
    /// It doesn't answer, or not to the end.
    NotNow,
    Account(serde_json::Error),
}

async fn ask(connector: &Connector) -> Result<Account, AskError> {
    let request = Request::get("/job")
        .header("host", "localhost")
        .body(Body::empty())
        .expect("a constant request is well-formed");
    let answer = connector
        .send(request)
        .await
        .map_err(|_| AskError::NotNow)?;
    let body = collect_body(answer.into_body(), ACCOUNT_BYTES_MAX, ASK_TIME)
        .await
        .map_err(|_| AskError::NotNow)?;
    serde_json::from_slice(&body).map_err(AskError::Account)
}

impl RunningJob {
    /// The engine's socket.
    pub fn socket(&self) -> &Path {
        self.socket.path()
    }

    /// The job's id.
    pub fn job(&self) -> &JobId {
        &self.job
    }

    /// The job's key, as the engine states it.
    pub fn did(&self) -> Did {
        self.did
    }

    /// The engine's process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.engine.pid()
    }

    /// Waits until the engine has ended, by itself or not. Its key is gone
    /// then: what is started next is another job.
    pub async fn exited(&self) -> io::Result<ExitStatus> {
        self.engine.exited().await
    }

    /// Tells the engine to end (SIGTERM), and kills it after `grace`.
    pub async fn stop(self, grace: Duration) -> io::Result<ExitStatus> {
        self.engine.signal(Signal::TERM);
        if let Ok(ended) = timeout(grace, self.engine.exited()).await {
            return ended;
        }
        self.engine.signal(Signal::KILL);
        self.engine.exited().await
    }
}
