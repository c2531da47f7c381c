//! Every limit, at the limit.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::routing::{get as route_get, post as route_post};
use http::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, Semaphore};
use transport::{BodyError, Http, Limits, channel, collect_body};

use crate::running::{LONG, Running, SHORT, get, in_time, post, read_to_end, text};

const BODY_MAX: usize = 1000;

/// Says how reading a body of at most [`BODY_MAX`] bytes ended.
fn reader() -> Router {
    Router::new()
        .route("/", route_get(async || "hello"))
        .route("/read", route_post(read))
}

async fn read(request: Request) -> (StatusCode, String) {
    let time = Duration::from_millis(300);
    match collect_body(request.into_body(), BODY_MAX, time).await {
        Ok(body) => (StatusCode::OK, body.len().to_string()),
        Err(BodyError::TooLarge { .. }) => (StatusCode::PAYLOAD_TOO_LARGE, String::new()),
        Err(BodyError::TimedOut { .. }) => (StatusCode::REQUEST_TIMEOUT, "late".to_owned()),
        Err(BodyError::Stalled { .. }) => (StatusCode::REQUEST_TIMEOUT, "stalled".to_owned()),
        Err(BodyError::Broken(_)) => (StatusCode::BAD_REQUEST, String::new()),
    }
}

#[tokio::test]
async fn slow_heads_and_silence_are_closed() {
    let limits = Limits {
        header_ms: SHORT,
        linger_ms: SHORT,
        ..Limits::default()
    };
    let running = Running::limited(reader(), limits).await;
    for begun in [
        "",
        "G",
        "GET / HTTP/1.1\r\nhost: a\r\nx: ",
        "PRI * HTTP/2.0\r\n",
        "PR",
    ] {
        let answer = running.answer(begun.as_bytes()).await;
        assert_eq!(answer, "", "to {begun:?}");
    }
}

/// One byte at a time does not put the end off.
#[tokio::test]
async fn a_dribbled_head_is_closed() {
    let limits = Limits {
        header_ms: SHORT,
        linger_ms: SHORT,
        ..Limits::default()
    };
    let running = Running::limited(reader(), limits).await;
    let (mut reading, mut writing) = running.socket().await.into_split();
    writing.write_all(b"GET / HTTP/1.1\r\nx: ").await.unwrap();
    let dribbled = async {
        let mut pace = tokio::time::interval(Duration::from_millis(5));
        loop {
            pace.tick().await;
            if writing.write_all(b"x").await.is_err() {
                return;
            }
        }
    };
    in_time(dribbled).await;
    let mut answer = Vec::new();
    let _reset_or_end = reading.read_to_end(&mut answer).await;
    assert!(answer.is_empty());
}

/// The same for a later request of a kept connection.
#[tokio::test]
async fn a_slow_second_head_is_closed() {
    let limits = Limits {
        header_ms: SHORT,
        linger_ms: SHORT,
        ..Limits::default()
    };
    let running = Running::limited(reader(), limits).await;
    let mut socket = first_answer(&running).await;
    socket.write_all(b"GET / HT").await.unwrap();
    assert_eq!(read_to_end(&mut socket).await, "");
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_a_busy_one_is_not() {
    let limits = Limits {
        idle_ms: SHORT,
        linger_ms: SHORT,
        ..Limits::default()
    };
    let (producer, body) = channel(4.try_into().unwrap(), None);
    let body = Arc::new(tokio::sync::Mutex::new(Some(body)));
    let router = reader().route(
        "/stream",
        route_get(async move || body.lock().await.take().unwrap()),
    );
    let running = Running::limited(router, limits).await;
    let busy = running
        .connector(Http::H2)
        .send(get("/stream"))
        .await
        .unwrap();
    for http in [Http::ALL, Http::ALL, Http::ALL].concat() {
        let connector = running.connector(http);
        let response = connector.send(get("/")).await.unwrap();
        assert_eq!(text(response.into_body()).await, "hello");
        in_time(async {
            while running.server.connections() > 1 {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
    producer.send("still there".into()).await.unwrap();
    producer.finish();
    assert_eq!(text(busy.into_body()).await, "still there");
}

#[tokio::test]
async fn a_large_head_is_431() {
    let limits = Limits {
        headers_bytes_max: 2000.try_into().unwrap(),
        ..Limits::default()
    };
    for http in Http::ALL {
        let running = Running::limited(reader(), limits.clone()).await;
        for (length, status) in [
            (1500, StatusCode::OK),
            (2000, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
            (8_000, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
        ] {
            let mut request = get("/");
            let value = "x".repeat(length).parse().unwrap();
            request.headers_mut().insert("x-long", value);
            let response = running.connector(http).send(request).await.unwrap();
            assert_eq!(response.status(), status, "{http:?} {length}");
        }
    }
}

#[tokio::test]
async fn many_header_fields_are_431() {
    let running = Running::start(reader()).await;
    let fields = |count| {
        let fields: String = (0..count).map(|n| format!("x-{n}: y\r\n")).collect();
        format!("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{fields}\r\n")
    };
    let answer = running.answer(fields(98).as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let answer = running.answer(fields(99).as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
}

#[tokio::test]
async fn a_body_at_the_limit_is_read_and_one_above_is_not() {
    for http in Http::ALL {
        let running = Running::start(reader()).await;
        let connector = running.connector(http);
        for (length, status) in [
            (BODY_MAX, StatusCode::OK),
            (BODY_MAX + 1, StatusCode::PAYLOAD_TOO_LARGE),
        ] {
            let announced = connector
                .send(post("/read", "x".repeat(length)))
                .await
                .unwrap();
            assert_eq!(announced.status(), status, "{http:?}");
            let (producer, body) = channel(4.try_into().unwrap(), None);
            for piece in "x".repeat(length).as_bytes().chunks(300) {
                producer.try_send(piece.to_vec().into()).unwrap();
            }
            producer.finish();
            let counted = connector.send(post("/read", body)).await.unwrap();
            assert_eq!(counted.status(), status, "{http:?}");
        }
    }
}

/// Refused before it is read, and yet the client gets to read the answer.
#[tokio::test]
async fn a_refusal_survives_a_client_that_sends_on() {
    let running = Running::start(reader()).await;
    let mut socket = running.socket().await;
    let body = vec![b'x'; 10_000_000];
    let head = format!(
        "POST /read HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    socket.write_all(&body).await.unwrap();
    let answer = read_to_end(&mut socket).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");

    let connector = running.connector(Http::H2);
    let response = connector.send(post("/read", body)).await.unwrap();
    assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
}

/// What announces too much is not even asked for.
#[tokio::test]
async fn a_client_that_asks_first_is_refused_before_it_sends() {
    let running = Running::start(reader()).await;
    for (length, answer_begins) in [(5, "HTTP/1.1 100 "), (BODY_MAX + 1, "HTTP/1.1 413 ")] {
        let mut socket = running.socket().await;
        let head = format!(
            "POST /read HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: {length}\r\n\r\n"
        );
        socket.write_all(head.as_bytes()).await.unwrap();
        let mut answer = vec![0; answer_begins.len()];
        in_time(socket.read_exact(&mut answer)).await.unwrap();
        assert_eq!(answer, answer_begins.as_bytes());
    }
}

#[tokio::test]
async fn a_body_that_pauses_is_told_from_one_that_is_late() {
    for http in Http::ALL {
        for (pause_max, how) in [(SHORT.get(), "stalled"), (60_000, "late")] {
            let limits = Limits {
                body_pause_ms: pause_max.try_into().unwrap(),
                ..Limits::default()
            };
            let running = Running::limited(reader(), limits).await;
            let (producer, body) = channel(4.try_into().unwrap(), None);
            producer.try_send("begun".into()).unwrap();
            let connector = running.connector(http);
            let response = in_time(connector.send(post("/read", body))).await.unwrap();
            assert_eq!(response.status(), StatusCode::REQUEST_TIMEOUT);
            assert_eq!(text(response.into_body()).await, how, "{http:?}");
            drop(producer);
        }
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_is_broken() {
    let running = Running::start(Router::new().route("/", {
        route_post(async |request: Request| {
            match collect_body(request.into_body(), BODY_MAX, LONG).await {
                Err(BodyError::Broken(_)) => "broken",
                _ => "not broken",
            }
        })
    }))
    .await;
    let answer = running
        .answer(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n")
        .await;
    assert!(answer.ends_with("\r\n\r\nbroken"), "{answer}");
}

#[tokio::test]
async fn one_connection_too_many_is_closed_at_once() {
    let limits = Limits {
        connections_max: 2.try_into().unwrap(),
        ..Limits::default()
    };
    let running = Running::limited(reader(), limits).await;
    let mut kept = Vec::new();
    for _ in 0..2 {
        kept.push(first_answer(&running).await);
    }
    let mut refused = running.socket().await;
    assert_eq!(read_to_end(&mut refused).await, "");
    // Room again as soon as one has left.
    kept.pop();
    in_time(async {
        while running.server.connections() > 1 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    first_answer(&running).await;
}

/// A connection that has had its first answer and is kept.
async fn first_answer(running: &Running) -> TcpStream {
    let mut socket = running.socket().await;
    socket
        .write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"hello") {
        assert!(in_time(socket.read_buf(&mut answer)).await.unwrap() > 0);
    }
    socket
}

#[tokio::test]
async fn a_peer_that_does_not_read_is_cut() {
    let limits = Limits {
        write_stall_ms: SHORT,
        ..Limits::default()
    };
    let gone = Arc::new(Notify::new());
    let router = Router::new().route("/", {
        let gone = Arc::clone(&gone);
        route_get(async move || {
            let (producer, body) = channel(1.try_into().unwrap(), None);
            tokio::spawn(async move {
                let large = bytes::Bytes::from(vec![b'x'; 1 << 20]);
                while producer.send(large.clone()).await.is_ok() {}
                gone.notify_one();
            });
            body
        })
    });
    let running = Running::limited(router, limits).await;
    let mut socket = running.socket().await;
    socket
        .write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    in_time(gone.notified()).await;
    drop(socket);
}

#[tokio::test]
async fn streams_above_the_limit_wait_their_turn() {
    let limits = Limits {
        streams_per_connection_max: 3.try_into().unwrap(),
        ..Limits::default()
    };
    let (running_now, released) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let router = Router::new().route("/", {
        let (running_now, released) = (Arc::clone(&running_now), Arc::clone(&released));
        route_get(async move || {
            running_now.add_permits(1);
            released.acquire().await.unwrap().forget();
        })
    });
    let running = Running::limited(router, limits).await;
    let connector = running.connector(Http::H2);
    // The connection has learnt of the limit once it has had an answer.
    connector.send(get("/nowhere")).await.unwrap();
    let calls: Vec<_> = (0..5)
        .map(|_| {
            let connector = connector.clone();
            tokio::spawn(async move { connector.send(get("/")).await.unwrap().status() })
        })
        .collect();
    in_time(running_now.acquire_many(3)).await.unwrap().forget();
    assert_eq!(running_now.available_permits(), 0);
    released.add_permits(5);
    for call in calls {
        assert_eq!(in_time(call).await.unwrap(), StatusCode::OK);
    }
}
