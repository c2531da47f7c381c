//! A gateway and its engine, running, and a way to ask them.

use std::path::Path;
use std::time::Duration;

use gateway::{DataDir, Gateway, GatewayConfig, JobDesk, Running};
use http::Request;
use protocol::Did;
use tempfile::TempDir;
use transport::{Body, ConnectLimits, Connector, Drain, Http};

use crate::client::{Answer, Client};
use crate::engine::Engine;

/// Longer than any test should take: a wait that ends in a failure.
pub const LONG: Duration = Duration::from_secs(60);

/// Awaits what should come soon, and fails instead of hanging.
pub async fn in_time<T>(awaited: impl Future<Output = T>) -> T {
    tokio::time::timeout(LONG, awaited).await.unwrap()
}

pub struct Cluster {
    pub engine: Engine,
    pub front: Front,
    pub dir: TempDir,
}

/// A running gateway.
pub struct Front {
    pub http: String,
    pub admin: String,
    pub did: Did,
    pub jobs: JobDesk,
    pub drain: Drain,
    running: Running,
}

impl Cluster {
    pub async fn start() -> Self {
        Self::with(|_| ()).await
    }

    pub async fn with(change: impl FnOnce(&mut GatewayConfig)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let front = Front::start(dir.path(), change).await;
        let engine = Engine::start(dir.path(), 1, front.did);
        front.jobs.attach((&engine).into()).await.unwrap();
        Self { engine, front, dir }
    }

    /// Ends the gateway in order, and starts it again on the same data. Its
    /// engine stays, and is attached again.
    pub async fn restart(self) -> Self {
        self.restart_at("127.0.0.1:0").await
    }

    /// The same, on a port of the test's choice.
    pub async fn restart_at(self, http: &str) -> Self {
        let Self { engine, front, dir } = self;
        front.end().await;
        let http = http.parse().unwrap();
        let front = Front::start(dir.path(), |config| config.http = http).await;
        front.jobs.attach((&engine).into()).await.unwrap();
        Self { engine, front, dir }
    }
}

impl Front {
    pub async fn start(data: &Path, change: impl FnOnce(&mut GatewayConfig)) -> Self {
        let any = "127.0.0.1:0".parse().unwrap();
        let mut config = GatewayConfig::new(any, any);
        change(&mut config);
        let data = DataDir::hold(data).unwrap();
        let gateway = Gateway::build(config, data).await.unwrap();
        let drain = Drain::new();
        Self {
            http: gateway.http_address().to_string(),
            admin: gateway.admin_address().to_string(),
            did: gateway.did(),
            jobs: gateway.jobs(),
            running: gateway.spawn(drain.signal()),
            drain,
        }
    }

    /// Drains, with time for all that is open.
    pub async fn end(self) {
        self.drain.begin(LONG);
        in_time(self.running.wait()).await;
    }

    pub fn connector(&self, http: Http) -> Connector {
        let authority = self.http.parse().unwrap();
        Connector::tcp(authority, http, ConnectLimits::default())
    }

    /// Sends a request as it is, over a connection of its own.
    pub async fn send(&self, request: Request<Body>) -> Answer {
        self.send_over(Http::H1, request).await
    }

    /// The same, by a protocol of the test's choice.
    pub async fn send_over(&self, http: Http, request: Request<Body>) -> Answer {
        let connector = self.connector(http);
        let sent = in_time(connector.send(request)).await;
        Answer::of(sent.unwrap()).await
    }

    /// Asks for a receipt, signed by this client.
    pub async fn receipt(&self, client: &Client, id: &str) -> Answer {
        let request = client.get(&self.http, &format!("/v1/receipts/{id}"));
        self.send(request).await
    }

    pub async fn admin(&self, path: &str) -> Answer {
        let connector = Connector::tcp(
            self.admin.parse().unwrap(),
            Http::H1,
            ConnectLimits::default(),
        );
        let request = Request::get(path).body(Body::empty()).unwrap();
        Answer::of(in_time(connector.send(request)).await.unwrap()).await
    }
}
