//! Answers that are as they should be, and their receipts.

use protocol::Digest;
use protocol::receipt::Finish;
use serde_json::json;
use transport::Http;

use crate::client::{CHAT, Client, ask, unsigned};
use crate::cluster::Cluster;
use crate::engine::{Does, Seen};

#[tokio::test]
async fn a_signed_stream_and_its_receipt() {
    let cluster = Cluster::start().await;
    let (ann, front) = (Client::new(11), &cluster.front);
    for http in Http::ALL {
        let request = ann.chat(&front.http, &ask(true));
        let answer = front.send_over(http, request).await;
        assert_eq!(answer.headers["content-type"], "text/event-stream");
        assert_eq!(answer.told(), ("Hello".to_owned(), "[DONE]".to_owned()));
        let id = answer.request_id();
        let read = front.receipt(&ann, id).await;
        let receipt = read.verified_receipt(&front.did);
        assert_eq!(receipt.compact(), answer.streamed_receipt());
        let claims = receipt.claims();
        assert_eq!(claims.jti.as_str(), id);
        assert_eq!(claims.sub, Some(ann.did()));
        assert_eq!(claims.output[0].text_sha256, Digest::of(b"Hello"));
        assert_eq!(
            claims.input.body_sha256,
            Digest::of(ask(true).to_string().as_bytes())
        );
    }
}

#[tokio::test]
async fn receipts_are_their_owners() {
    let cluster = Cluster::start().await;
    let (ann, bob, front) = (Client::new(11), Client::new(12), &cluster.front);
    let answer = front.send(ann.chat(&front.http, &ask(false))).await;
    assert_eq!(answer.json()["choices"][0]["text"], "Hello");
    let id = answer.request_id();
    let unknown = (404, "receipt_not_found".to_owned());
    assert_eq!(front.receipt(&bob, id).await.error(), unknown);
    let path = format!("/v1/receipts/{id}");
    let nobody = http::Request::get(&path).body(transport::Body::empty());
    assert_eq!(front.send(nobody.unwrap()).await.error(), unknown);
    assert_eq!(front.receipt(&ann, "nonsense").await.error(), unknown);
    let found = front.receipt(&ann, id).await.json();
    assert_eq!(found["receipt"], answer.json()["receipt"]);
}

#[tokio::test]
async fn unsigned_on_loopback() {
    let cluster = Cluster::start().await;
    let front = &cluster.front;
    let answer = front.send(unsigned(CHAT, ask(true).to_string())).await;
    assert_eq!(answer.told(), ("Hello".to_owned(), "[DONE]".to_owned()));
    let path = format!("/v1/receipts/{}", answer.request_id());
    let request = http::Request::get(&path).body(transport::Body::empty());
    let read = front.send(request.unwrap()).await;
    let receipt = read.verified_receipt(&front.did);
    assert_eq!(receipt.claims().sub, None);
}

#[tokio::test]
async fn a_refusal_has_a_receipt_too() {
    let cluster = Cluster::start().await;
    let (ann, front) = (Client::new(11), &cluster.front);
    cluster.engine.does(Does::Refuse);
    let answer = front.send(ann.chat(&front.http, &ask(true))).await;
    assert_eq!(answer.error(), (400, "refused".to_owned()));
    let receipt = front.receipt(&ann, answer.request_id()).await;
    let receipt = receipt.verified_receipt(&front.did);
    assert_eq!(answer.json()["receipt"], receipt.compact());
    assert_eq!(receipt.claims().output[0].finish, Finish::Refused);
}

#[tokio::test]
async fn a_busy_engine_says_when_to_come_back() {
    let cluster = Cluster::start().await;
    let front = &cluster.front;
    cluster.engine.does(Does::Busy);
    let answer = front.send(unsigned(CHAT, ask(false).to_string())).await;
    assert_eq!(answer.error(), (429, "busy".to_owned()));
    assert_eq!(answer.headers["retry-after"], "7");
}

#[tokio::test]
async fn what_was_signed_is_refused_by_the_engine() {
    let mut cluster = Cluster::start().await;
    let (ann, front) = (Client::new(11), &cluster.front);
    cluster.engine.does(Does::Refuse);
    let mut stranger = ask(false);
    stranger["model"] = json!("gpt-5");
    for body in ["{", "", "{\"a\":1,\"a\":2}", &stranger.to_string()] {
        let signed = ann.signed("POST", &front.http, CHAT, body).request();
        let answer = front.send(signed).await;
        assert_eq!(answer.error(), (400, "refused".to_owned()), "{body}");
        assert!(answer.json()["receipt"].is_string());
        assert!(matches!(cluster.engine.sees().await, Seen::Request(_)));
        let plain = front.send(unsigned(CHAT, body.to_owned())).await;
        let (status, code) = plain.error();
        match body.contains("gpt-5") {
            true => assert_eq!((status, code.as_str()), (404, "model_not_found")),
            false => assert_eq!(status, 400, "{code}"),
        }
        assert!(cluster.engine.saw_nothing(), "{body}");
    }
}

#[tokio::test]
async fn models_and_tokens() {
    let cluster = Cluster::start().await;
    let front = &cluster.front;
    let get = |path: &str| {
        http::Request::get(path)
            .body(transport::Body::empty())
            .unwrap()
    };
    let list = front.send(get("/v1/models")).await.json();
    let model = &list["data"][0];
    assert_eq!(list["object"], "list");
    assert_eq!(model["id"], "model-1");
    assert_eq!(model["digest"], json!(cluster.engine.model.digest));
    assert_eq!(front.send(get("/v1/models/model-1")).await.json(), *model);
    let strange = front.send(get("/v1/models/a/b")).await;
    assert_eq!(strange.error(), (404, "model_not_found".to_owned()));
    let body = json!({"model": "model-1", "prompt": "x"}).to_string();
    let tokens = front.send(unsigned("/tokenize", body)).await;
    assert_eq!(tokens.json(), json!({"tokens": [1, 2], "count": 2}));
}
