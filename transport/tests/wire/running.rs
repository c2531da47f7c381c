//! A server that runs on a free port, and raw sockets to talk to it.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use axum::Router;
use bytes::Bytes;
use http::Request;
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use transport::{Body, ConnectLimits, Connector, Drain, Http, Limits, Server, TcpBound};

/// A limit that tests reach.
pub const SHORT: NonZeroU32 = NonZeroU32::new(60).unwrap();
/// Longer than any test should take: a wait that ends in a failure.
pub const LONG: Duration = Duration::from_secs(60);

pub struct Running {
    pub address: SocketAddr,
    pub drain: Drain,
    pub server: Server<Router>,
    pub ended: JoinHandle<()>,
}

impl Running {
    pub async fn start(router: Router) -> Self {
        Self::limited(router, Limits::default()).await
    }

    pub async fn limited(router: Router, limits: Limits) -> Self {
        let bound = TcpBound::bind("127.0.0.1:0".parse().unwrap())
            .await
            .unwrap();
        let (address, drain) = (bound.address(), Drain::new());
        let server = Server::new(router, limits);
        let ended = tokio::spawn(server.clone().serve_tcp(bound, drain.signal()));
        Self {
            address,
            drain,
            server,
            ended,
        }
    }

    pub fn connector(&self, http: Http) -> Connector {
        let authority = self.address.to_string().parse().unwrap();
        Connector::tcp(authority, http, ConnectLimits::default())
    }

    pub async fn socket(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// What the server answers to these bytes before it closes.
    pub async fn answer(&self, sent: &[u8]) -> String {
        let mut socket = self.socket().await;
        socket.write_all(sent).await.unwrap();
        read_to_end(&mut socket).await
    }
}

pub async fn read_to_end(socket: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    in_time(socket.read_to_end(&mut answer)).await.unwrap();
    String::from_utf8(answer).unwrap()
}

/// Awaits what should come soon, and fails instead of hanging.
pub async fn in_time<T>(awaited: impl Future<Output = T>) -> T {
    tokio::time::timeout(LONG, awaited).await.unwrap()
}

pub fn get(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).unwrap()
}

pub fn post(path: &str, body: impl Into<Body>) -> Request<Body> {
    Request::post(path).body(body.into()).unwrap()
}

pub async fn text(body: Body) -> String {
    let bytes: Bytes = in_time(body.collect()).await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// The next piece of a body that must have one.
pub async fn piece(body: &mut Body) -> String {
    let frame = in_time(body.frame()).await.unwrap().unwrap();
    String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap()
}
