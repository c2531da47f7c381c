//! Ending in order: what is open may finish, nothing new begins, and the
//! deadline cuts what is left.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get as route_get;
use http_body_util::BodyExt;
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use transport::{Body, Connector, Drain, Http, Limits, Producer, Server, TcpBound, channel};

use crate::running::{LONG, Running, get, in_time, piece, text};

async fn streaming(http: Http) -> (Running, Connector, Producer, Body) {
    let (producer, body) = channel(4.try_into().unwrap(), None);
    let body = Arc::new(Mutex::new(Some(body)));
    let router = Router::new().route("/", route_get(async || "hello")).route(
        "/stream",
        route_get(async move || body.lock().await.take().unwrap()),
    );
    let running = Running::start(router).await;
    let connector = running.connector(http);
    let response = connector.send(get("/stream")).await.unwrap();
    let mut body = response.into_body();
    producer.send("begun".into()).await.unwrap();
    assert_eq!(piece(&mut body).await, "begun");
    (running, connector, producer, body)
}

#[tokio::test]
async fn an_open_stream_finishes_and_nothing_new_begins() {
    for http in Http::ALL {
        let (running, _, producer, body) = streaming(http).await;
        let idle = running.connector(http);
        assert_eq!(
            text(idle.send(get("/")).await.unwrap().into_body()).await,
            "hello"
        );
        assert_eq!(running.server.connections(), 2);
        running.drain.begin(LONG);
        // The idle connection goes at once, the open stream stays.
        in_time(async {
            while running.server.connections() > 1 {
                tokio::task::yield_now().await;
            }
        })
        .await;
        assert!(!running.ended.is_finished());
        let refused = running.connector(http).send(get("/")).await.unwrap_err();
        assert!(refused.was_not_sent(), "{refused:?}");
        let refused = idle.send(get("/")).await.unwrap_err();
        assert!(refused.was_not_sent(), "{refused:?}");
        producer.send(", ended".into()).await.unwrap();
        producer.finish();
        assert_eq!(text(body).await, ", ended", "{http:?}");
        in_time(running.ended).await.unwrap();
    }
}

#[tokio::test]
async fn the_deadline_cuts_what_is_open() {
    for http in Http::ALL {
        let (running, _, producer, mut body) = streaming(http).await;
        running.drain.begin(Duration::from_millis(20));
        in_time(producer.gone()).await;
        in_time(running.ended).await.unwrap();
        assert!(in_time(body.frame()).await.unwrap().is_err(), "{http:?}");
    }
}

#[tokio::test]
async fn a_server_that_is_dropped_leaves_nothing() {
    for http in Http::ALL {
        let (running, _, producer, _body) = streaming(http).await;
        running.ended.abort();
        in_time(producer.gone()).await;
    }
}

/// A gateway that restarts: the new one gets the next call, while the old
/// one still finishes a stream for the same connector.
#[tokio::test]
async fn a_connector_moves_on_to_the_next_server() {
    for http in Http::ALL {
        let (running, connector, producer, body) = streaming(http).await;
        let response = connector.send(get("/")).await.unwrap();
        assert_eq!(text(response.into_body()).await, "hello");
        running.drain.begin(LONG);
        in_time(async { while TcpStream::connect(running.address).await.is_ok() {} }).await;
        let bound = TcpBound::bind(running.address).await.unwrap();
        let drain = Drain::new();
        let router = Router::new().route("/", route_get(async || "hello again"));
        let next = Server::new(router, Limits::default()).serve_tcp(bound, drain.signal());
        let next = tokio::spawn(next);
        let response = connector.send(get("/")).await.unwrap();
        assert_eq!(text(response.into_body()).await, "hello again", "{http:?}");
        producer.finish();
        assert_eq!(text(body).await, "");
        next.abort();
    }
}
