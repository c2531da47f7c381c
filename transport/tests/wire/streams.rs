//! Bodies that are written while they are read.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get as route_get;
use http_body_util::BodyExt;
use tokio::sync::{Mutex, Notify};
use transport::{Body, Gone, Http, KeepAlive, Producer, TrySendError, channel, hold, sse};

use crate::running::{Running, get, in_time, piece, text};

/// A server whose one stream is written by the test.
async fn open(
    http: Http,
    capacity: usize,
    keep_alive: Option<KeepAlive>,
) -> (Running, Producer, Body) {
    let (producer, body) = channel(capacity.try_into().unwrap(), keep_alive);
    let body = Arc::new(Mutex::new(Some(body)));
    let router = Router::new().route(
        "/stream",
        route_get(async move || body.lock().await.take().unwrap()),
    );
    let running = Running::start(router).await;
    let response = running.connector(http).send(get("/stream")).await.unwrap();
    (running, producer, response.into_body())
}

#[tokio::test]
async fn pieces_arrive_as_they_are_written() {
    for http in Http::ALL {
        let (_running, producer, mut body) = open(http, 4, None).await;
        for word in ["one", "two", "three"] {
            producer.send(word.into()).await.unwrap();
            assert_eq!(piece(&mut body).await, word, "{http:?}");
        }
        producer.finish();
        assert_eq!(text(body).await, "");
    }
}

#[tokio::test]
async fn a_writer_that_dies_breaks_the_stream() {
    for http in Http::ALL {
        let (_running, producer, mut body) = open(http, 4, None).await;
        producer.send("half".into()).await.unwrap();
        assert_eq!(piece(&mut body).await, "half");
        drop(producer);
        assert!(in_time(body.frame()).await.unwrap().is_err(), "{http:?}");

        let (_running, producer, body) = open(http, 4, None).await;
        producer.send("half".into()).await.unwrap();
        producer.fail("on purpose");
        assert!(in_time(body.collect()).await.is_err(), "{http:?}");
    }
}

#[tokio::test]
async fn silence_is_filled_with_pings() {
    for http in Http::ALL {
        let keep_alive = KeepAlive {
            every: Duration::from_millis(5),
            bytes: sse::PING,
        };
        let (_running, producer, mut body) = open(http, 4, Some(keep_alive)).await;
        assert!(piece(&mut body).await.starts_with(": ping\n"));
        producer.send(sse::event("after")).await.unwrap();
        producer.finish();
        let rest = text(body).await;
        assert!(rest.replace(": ping\n", "") == "data: after\n\n", "{rest}");
    }
}

#[tokio::test]
async fn a_reader_that_sleeps_holds_back_its_writer_only() {
    for http in Http::ALL {
        let (running, producer, mut body) = open(http, 2, None).await;
        let large = bytes::Bytes::from(vec![b'x'; 1 << 20]);
        // Socket buffers and windows fill up; then there is no room.
        let mut accepted = 0;
        loop {
            let sending = producer.send(large.clone());
            match tokio::time::timeout(Duration::from_millis(200), sending).await {
                Ok(sent) => sent.unwrap(),
                Err(_full) => break,
            }
            accepted += 1;
            assert!(accepted < 1000, "nothing holds the writer back");
        }
        assert!(matches!(
            producer.try_send(large),
            Err(TrySendError::Full(_))
        ));
        assert_eq!(producer.room(), 0);
        let other = running.connector(http).send(get("/nowhere")).await.unwrap();
        assert_eq!(other.status(), http::StatusCode::NOT_FOUND);
        // It wakes up and nothing was lost.
        producer.finish();
        let mut read = 0;
        while let Some(frame) = in_time(body.frame()).await {
            read += frame.unwrap().into_data().unwrap().len();
        }
        assert_eq!(read, accepted << 20, "{http:?}");
    }
}

/// An HTTP/2 receiver charges small frames to a budget, and gives it back
/// when they are read.
#[tokio::test]
async fn a_reader_may_sleep_through_ten_thousand_small_events() {
    for http in Http::ALL {
        let (_running, producer, body) = open(http, 1, None).await;
        let writer = tokio::spawn(async move {
            for number in 0..10_000 {
                producer.send(sse::event(&format!("{number:040}"))).await?;
            }
            producer.finish();
            Ok::<_, Gone>(())
        });
        in_time(writer).await.unwrap().unwrap();
        let mut events = Vec::new();
        sse::Decoder::new(1024)
            .push(text(body).await.as_bytes(), &mut events)
            .unwrap();
        assert_eq!(events.len(), 10_000, "{http:?}");
    }
}

#[tokio::test]
async fn pieces_that_wait_are_joined_in_order() {
    let (producer, mut body) = channel(16.try_into().unwrap(), None);
    for word in ["a", "b", "c"] {
        producer.try_send(word.into()).unwrap();
    }
    producer.finish();
    assert_eq!(piece(&mut body).await, "abc");
    assert!(body.frame().await.is_none());
}

#[tokio::test]
async fn what_a_body_holds_lasts_as_long_as_the_body() {
    for http in Http::ALL {
        let freed = Arc::new(Notify::new());
        let guard = {
            struct Guard(Arc<Notify>);
            impl Drop for Guard {
                fn drop(&mut self) {
                    self.0.notify_one();
                }
            }
            Guard(Arc::clone(&freed))
        };
        let (producer, body) = channel(4.try_into().unwrap(), None);
        let body = Arc::new(Mutex::new(Some(hold(body, guard))));
        let router = Router::new().route(
            "/stream",
            route_get(async move || body.lock().await.take().unwrap()),
        );
        let running = Running::start(router).await;
        let mut response = running.connector(http).send(get("/stream")).await.unwrap();
        producer.send("on".into()).await.unwrap();
        assert_eq!(piece(response.body_mut()).await, "on");
        assert!(futures_now(freed.notified()).is_none(), "freed while open");
        producer.finish();
        assert_eq!(text(response.into_body()).await, "");
        in_time(freed.notified()).await;
    }
}

/// What a future gives if asked once.
fn futures_now<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = std::pin::pin!(future);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match future.as_mut().poll(&mut context) {
        std::task::Poll::Ready(value) => Some(value),
        std::task::Poll::Pending => None,
    }
}
