//! The jobs that answer here: attached, credentialed, chosen by model.
//!
//! The gateway signs each job's credential itself, for a day, and renews it
//! long before it expires. How an engine is started and watched is the
//! provider's affair. Start at [`Jobs::attach`].

mod credentials;

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use protocol::receipt::{ModelRef, Numerics};
use protocol::{Did, JobId, SigningKey, UnixMs};

pub(crate) use credentials::Credentials;
use credentials::Terms;

use crate::clock;
use crate::engine::{Engine, EngineError, JobFacts};
use crate::store::{Store, StoreError};

/// A job as whoever started it hands it over: what it was rented for, and
/// where it is. What its engine says of itself has to agree.
#[derive(Debug, Clone)]
pub struct JobHandle {
    /// The job.
    pub job: JobId,
    /// The model that it was rented for.
    pub model: ModelRef,
    /// Its engine's socket.
    pub socket: PathBuf,
    /// The executor class that it runs on, such as `local`.
    pub class: String,
    /// The layers of its sandbox, as its provider tells them.
    pub sandbox: Vec<String>,
}

/// A job that answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttachedJob {
    /// The job.
    pub job: JobId,
    /// Its key.
    pub did: Did,
    /// What it serves.
    pub model: ModelRef,
    /// How it computes.
    pub numerics: Numerics,
    /// Tokens of prompt and answer together, at most.
    pub context_tokens: u32,
    /// Since when it has answered here.
    pub since: UnixMs,
}

/// Why a job doesn't answer here.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// Its engine can't be asked, or refused.
    #[error("attaching job {job}")]
    Engine {
        /// The job.
        job: JobId,
        /// What went wrong.
        #[source]
        source: EngineError,
    },
    /// Its engine isn't ready yet.
    #[error("job {job} isn't ready")]
    NotReady {
        /// The job.
        job: JobId,
    },
    /// Another job answers there.
    #[error("job {found} answers on the socket of job {job}")]
    OtherJob {
        /// The job that should answer.
        job: JobId,
        /// The one that does.
        found: JobId,
    },
    /// It serves something else than it was rented for.
    #[error("job {job} serves {} ({}), not {} ({})", found.id, found.digest, wanted.id, wanted.digest)]
    OtherModel {
        /// The job.
        job: JobId,
        /// What it was rented for.
        wanted: Box<ModelRef>,
        /// What it serves.
        found: Box<ModelRef>,
    },
    /// A job of that id is attached already.
    #[error("job {job} is attached already")]
    Twice {
        /// The job.
        job: JobId,
    },
    /// Its credential couldn't be stored, and without that no receipt holds.
    #[error("storing the credential of job {job}")]
    Store {
        /// The job.
        job: JobId,
        /// What went wrong.
        #[source]
        source: StoreError,
    },
}

/// One attached job.
#[derive(Debug)]
pub(crate) struct Job {
    facts: AttachedJob,
    engine: Engine,
    terms: Terms,
    issued: RwLock<Arc<Credentials>>,
    in_flight: AtomicUsize,
}

/// A request's place at a job: it counts while it is held.
#[derive(Debug)]
pub(crate) struct Seat {
    job: Arc<Job>,
}

/// All attached jobs, in the order in which they came.
#[derive(Debug)]
pub(crate) struct Jobs {
    key: Arc<SigningKey>,
    authorities: Vec<String>,
    store: Store,
    attached: RwLock<Vec<Arc<Job>>>,
}

impl Jobs {
    pub(crate) fn new(key: Arc<SigningKey>, authorities: Vec<String>, store: Store) -> Self {
        Self {
            key,
            authorities,
            store,
            attached: RwLock::default(),
        }
    }

    /// Takes a job in: what its engine says must agree with what it was
    /// rented for, and it gets its credential.
    pub(crate) async fn attach(&self, handle: JobHandle) -> Result<AttachedJob, AttachError> {
        let engine = Engine::at(&handle.socket);
        let said = engine.facts().await;
        let said = said.map_err(|source| AttachError::Engine {
            job: handle.job.clone(),
            source,
        })?;
        let facts = agree(&handle, said)?;
        let job = Arc::new(Job {
            terms: Terms {
                class: handle.class,
                sandbox: handle.sandbox,
                authorities: self.authorities.clone(),
            },
            facts: facts.clone(),
            engine,
            issued: RwLock::default(),
            in_flight: AtomicUsize::new(0),
        });
        self.issue(&job).await?;
        let mut attached = write(&self.attached);
        if attached.iter().any(|other| other.facts.job == facts.job) {
            return Err(AttachError::Twice { job: facts.job });
        }
        attached.push(job);
        Ok(facts)
    }

    /// Lets a job go: it gets no further request. Those that it has go on.
    pub(crate) fn detach(&self, job: &JobId) -> bool {
        let mut attached = write(&self.attached);
        let before = attached.len();
        attached.retain(|other| other.facts.job != *job);
        attached.len() < before
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<Arc<Job>> {
        read(&self.attached).clone()
    }

    /// A place at the job of that model with the fewest requests.
    pub(crate) fn seat(&self, model: &str) -> Option<Seat> {
        let attached = read(&self.attached);
        let job = (attached.iter())
            .filter(|job| job.facts.model.id == model)
            .min_by_key(|job| job.in_flight.load(Ordering::Relaxed))?;
        Some(Seat::take(job))
    }

    /// A place at the job that answers what names no model of ours: it says
    /// why it can't, and signs that.
    pub(crate) fn default_seat(&self) -> Option<Seat> {
        read(&self.attached).first().map(Seat::take)
    }

    /// Whether any job is attached.
    pub(crate) fn is_empty(&self) -> bool {
        read(&self.attached).is_empty()
    }

    /// Renews the credentials that are due. What fails now is tried again.
    pub(crate) async fn renew(&self, now: UnixMs) {
        for job in self.all() {
            if !job.credentials().is_due(now) {
                continue;
            }
            if let Err(error) = self.issue(&job).await {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(job_id = %job.facts.job, error, "renewing a credential");
            }
        }
    }

    /// Signs a credential, keeps it, hands it over: in that order, so that no
    /// receipt names one that isn't kept.
    async fn issue(&self, job: &Job) -> Result<(), AttachError> {
        let signed = job.terms.sign(&job.facts, &self.key, clock::now());
        let id = || job.facts.job.clone();
        let kept = self.store.keep_credential(&signed).await;
        kept.map_err(|source| AttachError::Store { job: id(), source })?;
        let issued = job.credentials().with(signed.clone(), &self.key.did());
        *write(&job.issued) = Arc::new(issued.clone());
        let put = job.engine.put_credential(&signed).await;
        put.map_err(|source| AttachError::Engine { job: id(), source })?;
        *write(&job.issued) = Arc::new(issued.in_force());
        Ok(())
    }
}

impl Job {
    pub(crate) fn facts(&self) -> &AttachedJob {
        &self.facts
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The credentials that its receipts may name now.
    pub(crate) fn credentials(&self) -> Arc<Credentials> {
        Arc::clone(&read(&self.issued))
    }
}

impl Seat {
    fn take(job: &Arc<Job>) -> Self {
        job.in_flight.fetch_add(1, Ordering::Relaxed);
        Self {
            job: Arc::clone(job),
        }
    }

    pub(crate) fn job(&self) -> &Arc<Job> {
        &self.job
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.job.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What the engine says of itself, if that is what was rented.
fn agree(handle: &JobHandle, said: JobFacts) -> Result<AttachedJob, AttachError> {
    let job = handle.job.clone();
    if said.job != job {
        let found = said.job;
        return Err(AttachError::OtherJob { job, found });
    }
    if said.model != handle.model {
        return Err(AttachError::OtherModel {
            job,
            wanted: Box::new(handle.model.clone()),
            found: Box::new(said.model),
        });
    }
    match said.numerics {
        Some(numerics) if said.ready => Ok(AttachedJob {
            job,
            did: said.did,
            model: said.model,
            numerics,
            context_tokens: said.context_tokens,
            since: clock::now(),
        }),
        _ => Err(AttachError::NotReady { job }),
    }
}

// Nothing panics while holding these locks, and what they hold is whole at
// any moment, so a poisoned one is as good as a clean one.
fn read<T>(lock: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
