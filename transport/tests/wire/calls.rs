//! Connector to server and back: both protocols, Unix sockets, reuse,
//! cancellation, failures.

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::routing::{get as route_get, post as route_post};
use http::StatusCode;
use http::header::HOST;
use http_body_util::BodyExt;
use tokio::sync::Notify;
use transport::{
    Body, ConnectError, ConnectLimits, Connector, Drain, Http, Limits, Peer, PeerAddress,
    RequestTarget, Server, UnixBound, channel,
};

use crate::running::{LONG, Running, SHORT, get, in_time, piece, post, read_to_end, text};

/// Answers with the body it got, and the number of the connection.
fn echo() -> Router {
    Router::new()
        .route(
            "/echo",
            route_post(async |request: Request| request.into_body()),
        )
        .route("/connection", route_get(connection_number))
        .route("/target", route_get(target))
}

async fn connection_number(request: Request) -> String {
    request
        .extensions()
        .get::<Peer>()
        .unwrap()
        .connection
        .to_string()
}

async fn target(request: Request) -> String {
    let target = RequestTarget::of(&request).unwrap();
    format!("{} {} {:?}", target.authority, target.path, target.query)
}

#[tokio::test]
async fn a_body_goes_there_and_back() {
    let long = "0123456789".repeat(300_000);
    for http in Http::ALL {
        let running = Running::start(echo()).await;
        let connector = running.connector(http);
        for body in ["", "short", &long] {
            let response = connector
                .send(post("/echo", body.to_owned()))
                .await
                .unwrap();
            assert_eq!(response.status(), StatusCode::OK);
            assert_eq!(text(response.into_body()).await, body, "{http:?}");
        }
        let missing = connector.send(get("/nowhere")).await.unwrap();
        assert_eq!(missing.status(), StatusCode::NOT_FOUND);
    }
}

#[tokio::test]
async fn a_unix_socket_serves_and_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("job.sock");
    let bound = UnixBound::bind(&path).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::mode(&path.metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let drain = Drain::new();
    let router = echo().route(
        "/peer",
        route_get(async |request: Request| {
            let peer = request.extensions().get::<Peer>().unwrap();
            assert_eq!(peer.address, PeerAddress::Unix);
        }),
    );
    let server = Server::new(router, Limits::default());
    let ended = tokio::spawn(server.serve_unix(bound, drain.signal()));

    let connector = Connector::unix(&path, ConnectLimits::default());
    let response = connector.send(post("/echo", "hello")).await.unwrap();
    assert_eq!(text(response.into_body()).await, "hello");
    let response = connector.send(get("/peer")).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);

    drain.begin(LONG);
    in_time(ended).await.unwrap();
    assert!(!path.exists());
    let error = connector.send(get("/peer")).await.unwrap_err();
    assert!(matches!(error, ConnectError::Connect { .. }), "{error:?}");
    assert!(error.was_not_sent());
}

#[tokio::test]
async fn a_connection_is_used_again() {
    for http in Http::ALL {
        let running = Running::start(echo()).await;
        let connector = running.connector(http);
        let mut numbers = Vec::new();
        for _ in 0..3 {
            let response = connector.send(get("/connection")).await.unwrap();
            numbers.push(text(response.into_body()).await);
        }
        numbers.dedup();
        assert_eq!(numbers.len(), 1, "{http:?}");
    }
}

#[tokio::test]
async fn a_connection_that_the_server_closed_is_replaced() {
    for http in Http::ALL {
        let limits = Limits {
            idle_ms: SHORT,
            ..Limits::default()
        };
        let running = Running::limited(echo(), limits).await;
        let connector = running.connector(http);
        let mut numbers = Vec::new();
        for _ in 0..2 {
            let response = connector.send(get("/connection")).await.unwrap();
            numbers.push(text(response.into_body()).await);
            while running.server.connections() > 0 {
                tokio::task::yield_now().await;
            }
        }
        assert_ne!(numbers[0], numbers[1], "{http:?}");
    }
}

#[tokio::test]
async fn the_authority_sent_is_the_hosts_the_uris_or_our_own() {
    for http in Http::ALL {
        let running = Running::start(echo()).await;
        let connector = running.connector(http);
        let own = running.address.to_string();
        let mut named = get("/target?a=%20b&");
        named
            .headers_mut()
            .insert(HOST, "Example.com:8443".parse().unwrap());
        for (request, expected) in [
            (get("/target"), format!("{own} /target None")),
            (get("/target?"), format!("{own} /target Some(\"\")")),
            (
                get("http://other.example:80/target?x"),
                "other.example /target Some(\"x\")".to_owned(),
            ),
            (
                named,
                "example.com:8443 /target Some(\"a=%20b&\")".to_owned(),
            ),
        ] {
            let response = connector.send(request).await.unwrap();
            assert_eq!(text(response.into_body()).await, expected, "{http:?}");
        }
    }
}

#[tokio::test]
async fn dropping_an_answer_reaches_the_producer() {
    for http in Http::ALL {
        let left = Arc::new(Notify::new());
        let router = Router::new().route("/stream", {
            let left = Arc::clone(&left);
            route_get(async move || {
                let (producer, body) = channel(4.try_into().unwrap(), None);
                tokio::spawn(async move {
                    producer.send("first".into()).await.unwrap();
                    producer.gone().await;
                    left.notify_one();
                });
                body
            })
        });
        let running = Running::start(router).await;
        let mut response = running.connector(http).send(get("/stream")).await.unwrap();
        assert_eq!(piece(response.body_mut()).await, "first");
        drop(response);
        in_time(left.notified()).await;
    }
}

#[tokio::test]
async fn dropping_a_call_drops_its_handler() {
    for http in Http::ALL {
        let (begun, dropped) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let router = Router::new().route("/slow", {
            let (begun, dropped) = (Arc::clone(&begun), Arc::clone(&dropped));
            route_get(async move || {
                let _told = TellWhenDropped(dropped);
                begun.notify_one();
                std::future::pending::<()>().await;
            })
        });
        let running = Running::start(router).await;
        let connector = running.connector(http);
        let call = connector.send(get("/slow"));
        tokio::select! {
            _ = call => unreachable!(),
            () = begun.notified() => {}
        }
        in_time(dropped.notified()).await;
    }
}

struct TellWhenDropped(Arc<Notify>);

impl Drop for TellWhenDropped {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

#[tokio::test]
async fn an_answer_that_does_not_come_is_an_error() {
    for http in Http::ALL {
        let router = Router::new().route("/slow", route_get(std::future::pending::<()>));
        let running = Running::start(router).await;
        let limits = ConnectLimits {
            answer_ms: Some(SHORT),
            ..ConnectLimits::default()
        };
        let authority = running.address.to_string().parse().unwrap();
        let connector = Connector::tcp(authority, http, limits);
        let error = in_time(connector.send(get("/slow"))).await.unwrap_err();
        assert!(matches!(error, ConnectError::NoAnswer { .. }), "{error:?}");
        assert!(!error.was_not_sent());
    }
}

#[tokio::test]
async fn many_calls_at_once_share_what_they_should() {
    for http in Http::ALL {
        let running = Running::start(echo()).await;
        let connector = running.connector(http);
        let calls = (0..50).map(|number| {
            let connector = connector.clone();
            tokio::spawn(async move {
                let response = connector.send(post("/echo", number.to_string())).await;
                assert_eq!(
                    text(response.unwrap().into_body()).await,
                    number.to_string()
                );
            })
        });
        for call in calls.collect::<Vec<_>>() {
            in_time(call).await.unwrap();
        }
        if http == Http::H2 {
            assert_eq!(running.server.connections(), 1);
        }
    }
}

#[tokio::test]
async fn a_panic_in_a_handler_costs_no_other_connection() {
    async fn broken() {
        panic!("on purpose");
    }
    for http in Http::ALL {
        let running = Running::start(echo().route("/broken", route_get(broken))).await;
        let error = running
            .connector(http)
            .send(get("/broken"))
            .await
            .unwrap_err();
        assert!(matches!(error, ConnectError::Broken(_)), "{error:?}");
        let response = running
            .connector(http)
            .send(post("/echo", "on"))
            .await
            .unwrap();
        assert_eq!(text(response.into_body()).await, "on");
    }
}

/// A server that breaks off in the middle is never taken for one that ended.
#[tokio::test]
async fn an_answer_cut_short_is_an_error() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let authority = listener.local_addr().unwrap().to_string().parse().unwrap();
    let connector = Connector::tcp(authority, Http::H1, ConnectLimits::default());
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n";
        tokio::io::AsyncWriteExt::write_all(&mut socket, head.as_bytes())
            .await
            .unwrap();
        tokio::io::AsyncWriteExt::shutdown(&mut socket)
            .await
            .unwrap();
        read_to_end(&mut socket).await;
    });
    let mut response = connector.send(get("/")).await.unwrap();
    assert_eq!(piece(response.body_mut()).await, "hello");
    assert!(in_time(response.body_mut().frame()).await.unwrap().is_err());
    let _: Body = response.into_body();
}
