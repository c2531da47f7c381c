//! Engines that fail or cheat, and clients that leave.

use http::Request;
use http_body_util::BodyExt;
use protocol::receipt::Finish;
use serde_json::json;
use transport::{Body, Connector, Http};

use crate::client::{CHAT, Client, ask, unsigned};
use crate::cluster::{Cluster, in_time};
use crate::engine::{Does, Seen};

/// A stream from an engine that does this ends with that code, and what came
/// before is passed on. Nothing is stored.
async fn check_spoiled(does: Does, text: &str, code: &str) {
    let cluster = Cluster::start().await;
    let (ann, front) = (Client::new(11), &cluster.front);
    cluster.engine.does(does);
    let answer = front.send(ann.chat(&front.http, &ask(true))).await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.told(),
        (text.to_owned(), code.to_owned()),
        "{does:?}"
    );
    assert!(!answer.text.contains("\"receipt\""), "{}", answer.text);
    let read = front.receipt(&ann, answer.request_id()).await;
    assert_eq!(read.error(), (404, "receipt_not_found".to_owned()));
}

#[tokio::test]
async fn death_in_mid_stream() {
    let mut cluster = Cluster::start().await;
    cluster.engine.does(Does::Die);
    let request = unsigned(CHAT, ask(true).to_string());
    let connector = cluster.front.connector(Http::H1);
    let (read, mut body) = first_delta(&connector, request).await;
    let Seen::Request(id) = cluster.engine.sees().await else {
        panic!("cancelled before it was asked");
    };
    cluster.engine.cancel(&id).await;
    let rest = in_time(body.frame()).await.unwrap().unwrap();
    let rest = String::from_utf8(rest.into_data().unwrap().to_vec()).unwrap();
    assert!(rest.contains("engine_lost"), "{read} and {rest}");
    assert!(
        in_time(body.frame()).await.is_none(),
        "nothing comes after it"
    );
}

#[tokio::test]
async fn an_end_in_mid_stream() {
    check_spoiled(Does::Stop, "Hel", "engine_lost").await;
}

#[tokio::test]
async fn a_checkpoint_outlives_the_engine() {
    let cluster = Cluster::start().await;
    let (ann, bob, front) = (Client::new(11), Client::new(12), &cluster.front);
    cluster.engine.does(Does::StateAndStop);
    let answer = front.send(ann.chat(&front.http, &ask(true))).await;
    let told = ("Hel".to_owned(), "engine_lost".to_owned());
    assert_eq!(answer.told(), told);
    let read = front.receipt(&ann, answer.request_id()).await.json();
    assert_eq!(read["checkpoints"], json!([answer.streamed_receipt()]));
    assert_eq!(read["chain"].as_array().unwrap().len(), 1);
    assert!(
        read.get("receipt").is_none(),
        "the engine signed no last one"
    );
    let read = front.receipt(&bob, answer.request_id()).await;
    assert_eq!(read.error(), (404, "receipt_not_found".to_owned()));
}

#[tokio::test]
async fn nonsense_in_mid_stream() {
    check_spoiled(Does::Garbage, "Hel", "engine_event_form").await;
}

#[tokio::test]
async fn receipts_that_are_none() {
    check_spoiled(Does::Forge, "Hello", "receipt_key").await;
    check_spoiled(Does::Swap, "Hello", "receipt_other_request").await;
    check_spoiled(Does::Withhold, "Hello", "receipt_missing").await;
}

#[tokio::test]
async fn receipts_that_are_none_in_one_piece() {
    let cluster = Cluster::start().await;
    let front = &cluster.front;
    let cases = [
        (Does::Forge, "receipt_key"),
        (Does::Swap, "receipt_other_request"),
        (Does::Withhold, "receipt_missing"),
    ];
    for (does, code) in cases {
        cluster.engine.does(does);
        let answer = front.send(unsigned(CHAT, ask(false).to_string())).await;
        assert_eq!(answer.error(), (502, code.to_owned()));
        assert!(!answer.text.contains("Hello"), "{}", answer.text);
    }
}

#[tokio::test]
async fn a_dead_engine() {
    let Cluster { engine, front, dir } = Cluster::start().await;
    assert_eq!(front.admin("/readyz").await.status, 200);
    engine.kill().await;
    let answer = front.send(unsigned(CHAT, ask(true).to_string())).await;
    assert_eq!(answer.error(), (503, "engine_unavailable".to_owned()));
    assert_eq!(
        front.admin("/readyz").await.error(),
        (503, "not_ready".to_owned())
    );
    assert_eq!(front.admin("/livez").await.status, 200);
    assert_eq!(front.admin("/metrics").await.status, 200);
    front.end().await;
    drop(dir);
}

/// A client that leaves: the engine is told, its receipt is kept.
async fn check_leaving(does: Does, stream: bool) {
    let mut cluster = Cluster::start().await;
    let ann = Client::new(11);
    cluster.engine.does(does);
    let request = ann.chat(&cluster.front.http, &ask(stream));
    let connector = cluster.front.connector(Http::H1);
    let reading = tokio::spawn(async move { first_delta(&connector, request).await });
    let Seen::Request(id) = cluster.engine.sees().await else {
        panic!("cancelled before it was asked");
    };
    match does {
        Does::HangSilently => reading.abort(),
        _ => drop(in_time(reading).await.unwrap()),
    }
    assert_eq!(cluster.engine.sees().await, Seen::Cancel(id.clone()));
    // Draining waits for whatever is still to be stored.
    let cluster = cluster.restart().await;
    let read = cluster.front.receipt(&ann, id.as_str()).await;
    let receipt = read.verified_receipt(&cluster.front.did);
    assert_eq!(receipt.claims().output[0].finish, Finish::Cancelled);
    assert_eq!(receipt.claims().sub, Some(ann.did()));
}

/// Asks, and reads up to the first delta.
async fn first_delta(connector: &Connector, request: Request<Body>) -> (String, Body) {
    let mut body = connector.send(request).await.unwrap().into_body();
    let mut read = String::new();
    while !read.contains("Hel") {
        let frame = in_time(body.frame()).await.unwrap().unwrap();
        read.push_str(std::str::from_utf8(&frame.into_data().unwrap()).unwrap());
    }
    (read, body)
}

#[tokio::test]
async fn a_client_leaves_its_stream() {
    check_leaving(Does::Hang, true).await;
}

#[tokio::test]
async fn a_client_leaves_before_there_is_an_answer() {
    check_leaving(Does::HangSilently, false).await;
    check_leaving(Does::HangSilently, true).await;
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_up_only_itself() {
    let second = 1.try_into().unwrap();
    let mut cluster = Cluster::with(|config| config.limits.unread_s_max = second).await;
    let (ann, front) = (Client::new(11), &cluster.front);
    cluster.engine.does(Does::Babble);
    let connector = front.connector(Http::H1);
    let open = connector
        .send(ann.chat(&front.http, &ask(true)))
        .await
        .unwrap();
    let Seen::Request(id) = cluster.engine.sees().await else {
        panic!("cancelled before it was asked");
    };
    // Nobody reads: the engine is held up, and after a while told to stop.
    assert_eq!(cluster.engine.sees().await, Seen::Cancel(id.clone()));
    drop(open);
    let cluster = cluster.restart().await;
    let read = cluster.front.receipt(&ann, id.as_str()).await;
    read.verified_receipt(&cluster.front.did);
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_cancelled_with_a_receipt() {
    let second = 1.try_into().unwrap();
    let cluster = Cluster::with(|config| config.limits.request_s_max = second).await;
    let (ann, front) = (Client::new(11), &cluster.front);
    cluster.engine.does(Does::Hang);
    let answer = front.send(ann.chat(&front.http, &ask(true))).await;
    assert_eq!(answer.told(), ("Hel".to_owned(), "cancelled".to_owned()));
    let read = front.receipt(&ann, answer.request_id()).await;
    assert_eq!(read.json()["receipt"], answer.streamed_receipt());
}
