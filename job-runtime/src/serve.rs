//! Runs one job from its start to its end. Start at [`serve()`].
//!
//! The model is loaded on the thread that will drive it, while the socket
//! already answers `GET /job`. The end: new requests are refused, running ones
//! finish until shortly before the drain's deadline, what is left is cut with
//! its receipt, and only then does the socket go.

use std::num::NonZeroU32;
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use models::{LoadError, Model};
use protocol::SigningKey;
use protocol::manifest::Manifest;
use tokio::sync::{Semaphore, SemaphorePermit, oneshot};
use tokio::time::{Instant, sleep_until, timeout_at};
use transport::{BindError, Drain, DrainSignal, Limits, Server, UnixBound};

use crate::admit::Gatekeeper;
use crate::ambient;
use crate::api::{self, Job, OpenRequests, Process};
use crate::config::{ConfigError, EngineConfig};
use crate::engine::{Engine, Submission};
use crate::inbox::{self, Receiver, Sender};
use crate::metrics::Metrics;
use crate::notary::Notary;
use crate::prepare::Preparer;

/// Why a job couldn't be served, or ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The configuration.
    #[error("the engine's configuration can't be used")]
    Config(#[source] ConfigError),
    /// The socket.
    #[error("the engine's socket can't be used")]
    Listen(#[source] BindError),
    /// The model.
    #[error("the model can't be loaded")]
    Load(#[source] LoadError),
    /// The thread that drives the model.
    #[error("starting the engine's thread")]
    Thread(#[source] std::io::Error),
    /// The thread that drives the model panicked.
    #[error("the engine's thread died")]
    Died,
}

/// Serves one job on a listening socket, until `drain` is over.
///
/// The job's key is made here and never leaves this process.
pub async fn serve(
    config: EngineConfig,
    listener: UnixListener,
    drain: DrainSignal,
) -> Result<(), EngineError> {
    let manifest = config.check().map_err(EngineError::Config)?;
    let bound = UnixBound::from_std(listener).map_err(EngineError::Listen)?;
    let key = SigningKey::from_seed(ambient::random());
    let requests_max = config.limits.requests_max();
    let process = Arc::new(Process {
        did: key.did(),
        model: manifest.model(),
        context_tokens: config.limits.context_tokens(&manifest),
        metrics: Arc::new(Metrics::new(&manifest.identity.id)),
        draining: AtomicBool::new(false),
        requests: Arc::new(Semaphore::new(requests_max)),
        job: OnceLock::new(),
        config,
    });
    let (inbox, mail) = inbox::inbox();
    let mut engine = start(&process, manifest, key, inbox.clone(), mail)?;
    let socket = Drain::new();
    let server = Server::new(api::router(Arc::clone(&process)), limits(&process.config));
    let mut server = std::pin::pin!(server.serve_unix(bound, socket.signal()));
    // Kept until the socket is closed, so that no late request gets a place.
    let _places = tokio::select! {
        ended = &mut engine => return ended.unwrap_or(Err(EngineError::Died)),
        () = &mut server => unreachable!("its drain hasn't begun"),
        places = quiesce(&process, &inbox, &drain) => places,
    };
    // The last bytes of the last answers.
    socket.begin(FLUSH);
    server.await;
    inbox.close();
    engine.await.unwrap_or(Err(EngineError::Died))
}

/// What the socket grants. A reader that stalls is the engine's to end, with a
/// receipt, before the connection is.
fn limits(config: &EngineConfig) -> Limits {
    Limits {
        write_stall_ms: config.limits.stall_ms.saturating_mul(PATIENCE),
        ..Limits::default()
    }
}

/// Starts the thread that loads the model and drives it; its end comes through the channel.
fn start(
    process: &Arc<Process>,
    manifest: Manifest,
    key: SigningKey,
    inbox: Sender<Submission>,
    mail: Receiver<Submission>,
) -> Result<oneshot::Receiver<Result<(), EngineError>>, EngineError> {
    let (end, ended) = oneshot::channel();
    let process = Arc::clone(process);
    let run = move || {
        let outcome = load(&process.config, &manifest).map(|model| {
            let engine = assemble(&process, Arc::new(model), key, inbox, mail);
            engine.run();
        });
        // Nobody listens when the process is already ending.
        let _ = end.send(outcome);
    };
    std::thread::Builder::new()
        .name("engine".to_owned())
        .spawn(run)
        .map_err(EngineError::Thread)?;
    Ok(ended)
}

fn load(config: &EngineConfig, manifest: &Manifest) -> Result<Model, EngineError> {
    let options = config.options().map_err(EngineError::Config)?;
    Model::load(&config.model_path, manifest, &options).map_err(EngineError::Load)
}

/// Puts the job together; from here on it is ready.
fn assemble(
    process: &Process,
    model: Arc<Model>,
    key: SigningKey,
    inbox: Sender<Submission>,
    mail: Receiver<Submission>,
) -> Engine<Model> {
    let config = &process.config;
    let limits = &config.limits;
    let metrics = Arc::clone(&process.metrics);
    let notary = Arc::new(Notary::new(
        key,
        config.job.clone(),
        config.gateway,
        process.model.clone(),
        model.numerics(),
        Arc::clone(&metrics),
    ));
    let gate = Gatekeeper {
        job: config.job.clone(),
        gateway: config.gateway,
        allow_unsigned: config.allow_unsigned,
        admission_ms: limits.admission_ms.get().into(),
        used: Mutex::default(),
    };
    let preparer = Preparer::new(
        Arc::clone(&model),
        process.model.id.clone(),
        process.context_tokens,
        limits,
    );
    let job = Job {
        notary: Arc::clone(&notary),
        gate,
        preparer: Arc::new(preparer),
        preparing: Arc::new(Semaphore::new(limits.preparing_max.get() as usize)),
        inbox,
        open: Arc::new(OpenRequests::default()),
    };
    if process.job.set(job).is_err() {
        unreachable!("a process has one job");
    }
    tracing::info!(job_id = %config.job, model = process.model.id, did = %process.did, "ready");
    Engine::new(model, notary, metrics, limits.pace(), mail)
}

/// Waits for the drain, then until every reply is read, or cut at its deadline.
/// Gives all places for requests, unless some are taken until the end.
async fn quiesce<'a>(
    process: &'a Process,
    inbox: &Sender<Submission>,
    drain: &DrainSignal,
) -> Option<SemaphorePermit<'a>> {
    let deadline = drain.begun().await;
    process.draining.store(true, Ordering::Release);
    let margin = Duration::from_millis(process.config.limits.cut_margin_ms.into());
    let cut_at = deadline.checked_sub(margin).unwrap_or(deadline);
    let all = u32::try_from(process.config.limits.requests_max()).unwrap_or(u32::MAX);
    let mut idle = std::pin::pin!(process.requests.acquire_many(all));
    tokio::select! {
        all = &mut idle => return all.ok(),
        () = sleep_until(cut_at) => {}
        () = drain.expired() => {}
    }
    inbox.cut();
    let last = deadline.max(Instant::now() + FLUSH);
    match timeout_at(last, idle).await {
        Ok(all) => all.ok(),
        Err(_) => {
            tracing::warn!("some answers weren't read before the deadline");
            None
        }
    }
}

/// Time for what is written to be read.
const FLUSH: Duration = Duration::from_millis(250);

const PATIENCE: NonZeroU32 = NonZeroU32::new(10).expect("ten isn't zero");
