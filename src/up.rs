//! `countersign up`: gateway, provider and engine on this machine, from one command.
//!
//! Wires and waits: options are `up::settings`, the engine's life is
//! `up::job`, what is printed is `up::banner`. Start at [`run`].

mod banner;
mod job;
mod settings;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use client::keyfile;
use gateway::{DataDir as HeldData, Gateway};
use protocol::Did;
use tokio::signal::unix::{Signal, SignalKind, signal};
use transport::Drain;

use settings::Settings;
pub use settings::UpArgs;

use crate::data_dir::DataDir;
use crate::{log, model};
use banner::Banner;
use job::Launcher;

/// How long an engine has for its last words, once no stream is open any more.
const ENGINE_GRACE: Duration = Duration::from_secs(10);

/// The very program that runs, even if its file was replaced or removed since.
const THIS_PROGRAM: &str = "/proc/self/exe";

/// The exit status of a process that a second Ctrl-C ended.
const INTERRUPTED: i32 = 130;

/// Runs it until Ctrl-C, SIGTERM, or a failure that no restart mends.
pub fn run(args: UpArgs, data: &DataDir) -> anyhow::Result<ExitCode> {
    let settings = Settings::read(args, data)?;
    log::start(&settings.log)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("starting")?;
    let result = runtime.block_on(up(settings, data));
    // A download that is still running is not waited for.
    runtime.shutdown_background();
    result.map(|()| ExitCode::SUCCESS)
}

async fn up(settings: Settings, data: &DataDir) -> anyhow::Result<()> {
    let mut stop = Stop::listen()?;
    let held = HeldData::hold(data.path())?;
    let (client_key, client) = own_client(data)?;
    let mut config = settings.gateway.clone();
    let unsigned = config.accepts_unsigned();
    if !unsigned {
        config.allow_dids.insert(client);
    }
    let gateway = Gateway::build(config, held).await?;
    let banner = Banner {
        http: gateway.http_address(),
        admin: gateway.admin_address(),
        gateway: gateway.did(),
        model: settings.manifest.model(),
        client_key,
        unsigned,
    };
    let mut launcher = Launcher {
        binary: PathBuf::from(THIS_PROGRAM),
        run_dir: data.run(),
        gateway: gateway.did(),
        authorities: gateway.authorities().to_vec(),
        manifest: settings.manifest,
        weights: PathBuf::new(),
        limits: settings.limits,
        threads: settings.threads,
        allow_unsigned: unsigned,
        desk: gateway.jobs(),
    };

    // From here on the front door answers, if only to say that nothing is ready.
    let drain = Drain::new();
    let serving = gateway.spawn(drain.signal());
    let engine = async {
        let (manifest, folder) = (settings.manifest, settings.models);
        launcher.weights = tokio::task::spawn_blocking(move || model::ensure(manifest, &folder))
            .await
            .context("fetching the model")??;
        let job = launcher.launch().await?;
        banner.print();
        anyhow::Ok(job)
    };
    let engine = tokio::select! {
        job = engine => job,
        () = stop.wanted() => {
            drain.begin(settings.drain);
            stop.again_exits();
            serving.wait().await;
            return Ok(());
        }
    };
    let job = match engine {
        Ok(job) => job,
        Err(error) => {
            drain.begin(Duration::ZERO);
            serving.wait().await;
            return Err(error);
        }
    };

    let ending = Drain::new();
    let front = async {
        stop.wanted().await;
        tracing::info!("draining: open answers may finish; Ctrl-C again ends at once");
        drain.begin(settings.drain);
        stop.again_exits();
        // First the front door, which cancels what is left at its deadline and
        // stores its receipts; the engine has to answer until then.
        serving.wait().await;
        ending.begin(ENGINE_GRACE);
    };
    tokio::join!(front, launcher.keep(job, ending.signal()));
    Ok(())
}

/// The key that the printed commands use, made at the first start.
fn own_client(data: &DataDir) -> anyhow::Result<(PathBuf, Did)> {
    let path = data.client_key();
    let key = match path.exists() {
        true => keyfile::load(&path)?,
        false => {
            data.make_keys_folder()?;
            keyfile::create(&path)?
        }
    };
    Ok((path, key.did()))
}

/// Ctrl-C and SIGTERM.
struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    fn listen() -> anyhow::Result<Stop> {
        Ok(Stop {
            interrupt: signal(SignalKind::interrupt()).context("listening for SIGINT")?,
            terminate: signal(SignalKind::terminate()).context("listening for SIGTERM")?,
        })
    }

    async fn wanted(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }

    /// From now on the next signal ends this process at once; its engine dies with it.
    fn again_exits(mut self) {
        tokio::spawn(async move {
            self.wanted().await;
            std::process::exit(INTERRUPTED);
        });
    }
}
