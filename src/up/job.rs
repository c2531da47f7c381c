//! The engine's life: started, attached, replaced when it dies, ended last.
//!
//! A dead engine is never revived: its key is gone, so the next one is another
//! job with another key. Start at [`Launcher::launch`] and [`Launcher::keep`].

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use gateway::{JobDesk, JobHandle};
use job_runtime::{EngineConfig, EngineLimits};
use protocol::manifest::Manifest;
use protocol::{Did, JobId};
use provider::local::{self, JobSpec, RunningJob};
use tokio::time::{Instant, sleep};
use transport::DrainSignal;

/// What every engine of this gateway is started with.
pub struct Launcher {
    /// This program.
    pub binary: PathBuf,
    /// Where sockets are made.
    pub run_dir: PathBuf,
    /// The gateway, whose admissions and credential count.
    pub gateway: Did,
    /// The names that it answers to.
    pub authorities: Vec<String>,
    /// The model.
    pub manifest: &'static Manifest,
    /// Its checked weights.
    pub weights: PathBuf,
    /// The engine's limits.
    pub limits: EngineLimits,
    /// Threads that compute; none: one for each core.
    pub threads: Option<NonZeroUsize>,
    /// Whether unsigned requests are answered.
    pub allow_unsigned: bool,
    /// Where jobs are attached.
    pub desk: JobDesk,
}

/// How long an engine may take to load its model.
const READY_WITHIN: Duration = Duration::from_secs(120);

/// What an executor on this machine is called in credentials.
const CLASS: &str = "local";

impl Launcher {
    /// Starts an engine, waits until it is ready, and attaches it.
    pub async fn launch(&self) -> anyhow::Result<RunningJob> {
        let mut random = [0; 16];
        getrandom::fill(&mut random).context("making a job's id")?;
        let job = JobId::new(random);
        let config = EngineConfig {
            job: job.clone(),
            gateway: self.gateway,
            manifest: self.manifest.to_toml(),
            model_path: self.weights.clone(),
            allow_unsigned: self.allow_unsigned,
            authorities: self.authorities.clone(),
            limits: self.limits.clone(),
            threads: self.threads,
            level: None,
        };
        let running = local::start(JobSpec {
            binary: self.binary.clone(),
            job: job.clone(),
            config: serde_json::to_string(&config).context("writing the engine's configuration")?,
            run_dir: self.run_dir.clone(),
            ready_within: READY_WITHIN,
        })
        .await
        .context("starting the engine")?;
        let handle = JobHandle {
            job,
            model: self.manifest.model(),
            socket: running.socket().to_owned(),
            class: CLASS.to_owned(),
            sandbox: Vec::new(),
        };
        self.desk
            .attach(handle)
            .await
            .context("attaching the engine")?;
        tracing::info!(job_id = %running.job(), did = %running.did(), pid = running.pid(), "the engine is ready");
        Ok(running)
    }

    /// Keeps an engine running until `ending` begins, then ends it.
    pub async fn keep(self, job: RunningJob, ending: DrainSignal) {
        let mut running = Some(job);
        let mut pause = Pause::default();
        loop {
            let life = async {
                match &mut running {
                    Some(job) => pause.after(self.watch(job).await),
                    None => sleep(pause.next()).await,
                }
            };
            tokio::select! {
                deadline = ending.begun() => return end(running, deadline).await,
                () = life => {}
            }
            if running.take().is_some() {
                continue;
            }
            let launched = tokio::select! {
                deadline = ending.begun() => return end(None, deadline).await,
                launched = self.launch() => launched,
            };
            match launched {
                Ok(job) => running = Some(job),
                Err(error) => tracing::error!("no engine: {error:#}"),
            }
        }
    }

    /// Waits until the engine dies, and takes it off the gateway; tells how long it lived.
    async fn watch(&self, job: &mut RunningJob) -> Duration {
        let since = Instant::now();
        let ended = job.exited().await;
        self.desk.detach(job.job());
        match ended {
            Ok(status) => {
                tracing::error!(job_id = %job.job(), "the engine died ({status}); another job follows")
            }
            Err(error) => {
                tracing::error!(job_id = %job.job(), "the engine can't be watched: {error}")
            }
        }
        since.elapsed()
    }
}

async fn end(running: Option<RunningJob>, deadline: Instant) {
    let Some(job) = running else { return };
    let grace = deadline.saturating_duration_since(Instant::now());
    if let Err(error) = job.stop(grace).await {
        tracing::error!("ending the engine: {error}");
    }
}

/// How long to wait before the next engine: twice as long each time, until one has lived for a while.
#[derive(Debug, Default)]
struct Pause(u32);

impl Pause {
    const FIRST: Duration = Duration::from_millis(250);
    const LONGEST: Duration = Duration::from_secs(30);
    /// An engine that lived this long wasn't broken from the start.
    const LIVED: Duration = Duration::from_secs(60);

    fn after(&mut self, life: Duration) {
        if life >= Self::LIVED {
            self.0 = 0;
        }
    }

    fn next(&mut self) -> Duration {
        let doublings = self.0.min(16);
        self.0 = self.0.saturating_add(1);
        (Self::FIRST * 2_u32.pow(doublings)).min(Self::LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_are_forgotten() {
        let mut pause = Pause::default();
        let millis = |pause: &mut Pause| pause.next().as_millis();
        let first: Vec<u128> = (0..9).map(|_| millis(&mut pause)).collect();
        assert_eq!(
            first,
            [250, 500, 1000, 2000, 4000, 8000, 16000, 30000, 30000]
        );
        pause.after(Duration::from_secs(59));
        assert_eq!(millis(&mut pause), 30000);
        pause.after(Duration::from_secs(60));
        assert_eq!(millis(&mut pause), 250);
        pause.0 = u32::MAX;
        assert_eq!(millis(&mut pause), 30000);
    }
}
