//! Puts the gateway together: build, attach jobs, run, drain.
//!
//! [`Gateway::build`] checks and binds, [`Gateway::spawn`] serves. Both take
//! port 0, so that tests go the same way as the program.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use prometheus::Registry;
use protocol::{Did, JobId};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use transport::{BindError, Drain, DrainSignal, Limits, Server, TcpBound};

use crate::admin::{self, Admin};
use crate::admission::Rules;
use crate::config::{ConfigFaults, GatewayConfig};
use crate::data_dir::DataDir;
use crate::front_door::{FrontDoor, FrontDoorMetrics};
use crate::gateway_key::{self, GatewayKeyError};
use crate::jobs::{AttachError, AttachedJob, JobHandle, Jobs};
use crate::relay::RelayMetrics;
use crate::store::{Store, StoreError, StoreMetrics};
use crate::tasks::Tasks;
use crate::{api, clock};

/// How often credentials are looked through for one that is due.
const RENEW_EVERY: Duration = Duration::from_secs(60);
/// How long another process may keep the database to itself: a backup, say.
const STORE_BUSY_FOR: Duration = Duration::from_secs(5);

/// A gateway that has its ports and serves nobody yet.
#[derive(Debug)]
pub struct Gateway {
    door: Arc<FrontDoor>,
    http: TcpBound,
    admin: TcpBound,
    transport: Limits,
    registry: Registry,
    writer: JoinHandle<()>,
    data: DataDir,
}

/// A gateway that serves.
#[derive(Debug)]
pub struct Running {
    task: JoinHandle<()>,
}

/// Attaches jobs to a gateway and lets them go, before and while it serves.
#[derive(Debug, Clone)]
pub struct JobDesk {
    door: Arc<FrontDoor>,
}

/// Why there is no gateway.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Its settings, all that is wrong with them.
    #[error("the gateway's configuration: {0}")]
    Config(ConfigFaults),
    /// Its key.
    #[error("the gateway's key")]
    Key(#[source] GatewayKeyError),
    /// Its database.
    #[error("the gateway's database")]
    Store(#[source] StoreError),
    /// One of its ports.
    #[error("the gateway's listeners")]
    Bind(#[source] BindError),
}

impl Gateway {
    /// Checks the configuration, opens the data directory's key and database,
    /// binds both ports. Nothing is accepted before [`Gateway::spawn`].
    pub async fn build(config: GatewayConfig, data: DataDir) -> Result<Self, BuildError> {
        config.check().map_err(BuildError::Config)?;
        let key = Arc::new(gateway_key::load_or_make(&data).map_err(BuildError::Key)?);
        let http = TcpBound::bind(config.http)
            .await
            .map_err(BuildError::Bind)?;
        let admin = TcpBound::bind(config.admin)
            .await
            .map_err(BuildError::Bind)?;
        let registry = Registry::new();
        let store_metrics = StoreMetrics::register(&registry);
        let opened = Store::open(&data.database(), STORE_BUSY_FOR, store_metrics).await;
        let (store, writer) = opened.map_err(BuildError::Store)?;
        let authorities = config.authorities_at(http.address());
        let door = FrontDoor {
            rules: Rules {
                authorities: authorities.clone(),
                signatures: config.signatures(),
                allow_dids: config.allow_dids,
                body_bytes_max: config.limits.body_bytes_max.get(),
            },
            jobs: Jobs::new(Arc::clone(&key), authorities, store.clone()),
            key,
            store,
            permits: Arc::new(Semaphore::new(config.limits.requests_max.get())),
            limits: config.limits,
            relays: Tasks::default(),
            metrics: FrontDoorMetrics::register(&registry),
            relay_metrics: RelayMetrics::register(&registry),
        };
        Ok(Self {
            door: Arc::new(door),
            http,
            admin,
            transport: config.transport,
            registry,
            writer: tokio::spawn(writer.run()),
            data,
        })
    }

    /// Where clients ask.
    pub fn http_address(&self) -> SocketAddr {
        self.http.address()
    }

    /// Where health and metrics are told.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin.address()
    }

    /// The gateway's own DID: what clients pin.
    pub fn did(&self) -> Did {
        self.door.key.did()
    }

    /// The names that it answers to.
    pub fn authorities(&self) -> &[String] {
        &self.door.rules.authorities
    }

    /// Attaches jobs and lets them go, while the gateway serves too.
    pub fn jobs(&self) -> JobDesk {
        JobDesk {
            door: Arc::clone(&self.door),
        }
    }

    /// Attaches a job: the same as through [`Gateway::jobs`].
    pub async fn attach(&self, job: JobHandle) -> Result<AttachedJob, AttachError> {
        self.jobs().attach(job).await
    }

    /// Serves until the drain is over and every receipt is stored.
    pub fn spawn(self, drain: DrainSignal) -> Running {
        Running {
            task: tokio::spawn(self.serve(drain)),
        }
    }

    async fn serve(self, drain: DrainSignal) {
        let door = self.door;
        let admin = admin::router(Admin {
            door: Arc::clone(&door),
            registry: self.registry,
            drain: drain.clone(),
        });
        // Health and metrics can be asked for until everything else is done.
        let admin_drain = Drain::new();
        let serve_admin =
            Server::new(admin, self.transport.clone()).serve_tcp(self.admin, admin_drain.signal());
        let serve_http = async {
            Server::new(api::router(Arc::clone(&door)), self.transport)
                .serve_tcp(self.http, drain.clone())
                .await;
            door.relays.finish().await;
            admin_drain.begin(Duration::ZERO);
        };
        tokio::join!(serve_http, serve_admin, renew(&door, &drain));
        door.store.close().await;
        if let Err(error) = self.writer.await {
            tracing::error!(error = &error as &dyn std::error::Error, "the writer died");
        }
        drop(self.data); // last: the next holder finds a closed database
    }
}

async fn renew(door: &FrontDoor, drain: &DrainSignal) {
    while tokio::time::timeout(RENEW_EVERY, drain.begun())
        .await
        .is_err()
    {
        door.jobs.renew(clock::now()).await;
    }
}

impl Running {
    /// Waits until the drain is over and every receipt is stored.
    pub async fn wait(self) {
        if let Err(error) = self.task.await {
            tracing::error!(error = &error as &dyn std::error::Error, "the gateway died");
        }
    }
}

impl JobDesk {
    /// Takes a ready job in: checks that it is what was rented, and gives it
    /// its credential.
    pub async fn attach(&self, job: JobHandle) -> Result<AttachedJob, AttachError> {
        self.door.jobs.attach(job).await
    }

    /// Gives a job no further request; those that it has go on. False if no
    /// such job is attached.
    pub fn detach(&self, job: &JobId) -> bool {
        self.door.jobs.detach(job)
    }

    /// The attached jobs.
    pub fn attached(&self) -> Vec<AttachedJob> {
        let jobs = self.door.jobs.all();
        jobs.iter().map(|job| job.facts().clone()).collect()
    }
}
