//! Requests that must not reach the engine, and what their clients are told.

use std::collections::BTreeSet;

use http::{HeaderValue, Request};
use transport::Body;

use crate::client::{CHAT, Client, ask, unsigned};
use crate::cluster::{Cluster, Front};

#[tokio::test]
async fn every_refusal_has_its_code() {
    let mut cluster = Cluster::start().await;
    let (ann, front) = (Client::new(11), &cluster.front);
    let body = ask(true).to_string();
    let refused = async |request: Request<Body>| front.send(request).await.error();

    let strange = ann.chat("evil.example", &ask(true));
    assert_eq!(
        refused(strange).await,
        (421, "authority_unknown".to_owned())
    );

    let long = " ".repeat(10 << 20);
    let announced = unsigned(CHAT, long.clone());
    assert_eq!(refused(announced).await, (413, "body_too_large".to_owned()));
    let signed = ann.signed("POST", &front.http, CHAT, &long).request();
    assert_eq!(refused(signed).await, (413, "body_too_large".to_owned()));

    let mut altered = ann.signed("POST", &front.http, CHAT, &body).request();
    *altered.body_mut() = Body::from(ask(false).to_string());
    let mismatch = (401, "content_digest_mismatch".to_owned());
    assert_eq!(refused(altered).await, mismatch);

    let nothing = Request::get("/v2").body(Body::empty()).unwrap();
    assert_eq!(refused(nothing).await, (404, "path_not_found".to_owned()));
    let wrong = Request::get(CHAT).body(Body::empty()).unwrap();
    let answer = front.send(wrong).await;
    assert_eq!(answer.error(), (405, "method_not_allowed".to_owned()));
    assert_eq!(answer.headers["allow"], "POST");
    let wrong = unsigned("/v1/models", "");
    assert_eq!(refused(wrong).await, (405, "method_not_allowed".to_owned()));
    assert!(cluster.engine.saw_nothing());
}

#[tokio::test]
async fn a_wrong_clock_is_told_the_time() {
    let cluster = Cluster::start().await;
    let front = &cluster.front;
    for off_s in [-300, 300] {
        let mut client = Client::new(11);
        client.off_s = off_s;
        let answer = front.send(client.chat(&front.http, &ask(true))).await;
        assert_eq!(answer.error(), (401, "signature_clock".to_owned()));
        let message = answer.json()["error"]["message"].to_string();
        assert!(message.contains("server's time"), "{message}");
    }
}

#[tokio::test]
async fn only_those_who_are_named() {
    let (ann, bob) = (Client::new(11), Client::new(12));
    let named = BTreeSet::from([ann.did()]);
    let cluster = Cluster::with(|config| config.allow_dids = named).await;
    let front = &cluster.front;
    let answer = front.send(ann.chat(&front.http, &ask(true))).await;
    assert_eq!(answer.told().1, "[DONE]");
    let answer = front.send(bob.chat(&front.http, &ask(true))).await;
    assert_eq!(answer.error(), (403, "did_not_allowed".to_owned()));
    let answer = front.send(unsigned(CHAT, ask(true).to_string())).await;
    assert_eq!(answer.error(), (401, "signature_missing".to_owned()));
}

#[tokio::test]
async fn a_clients_own_admission_is_dropped() {
    let cluster = Cluster::start().await;
    let front = &cluster.front;
    let mut request = unsigned(CHAT, ask(true).to_string());
    let forged = HeaderValue::from_static("forged");
    request
        .headers_mut()
        .insert("countersign-admission", forged);
    // The engine of these tests accepts exactly one, and that the gateway's.
    assert_eq!(front.send(request).await.told().1, "[DONE]");
}

#[tokio::test]
async fn too_many_at_once_are_sent_away() {
    let one = 1.try_into().unwrap();
    let mut cluster = Cluster::with(|config| config.limits.requests_max = one).await;
    let front = &cluster.front;
    cluster.engine.does(crate::engine::Does::Hang);
    let connector = front.connector(transport::Http::H1);
    let open = connector.send(unsigned(CHAT, ask(true).to_string())).await;
    cluster.engine.sees().await;
    let answer = front.send(unsigned(CHAT, ask(true).to_string())).await;
    assert_eq!(answer.error(), (503, "gateway_busy".to_owned()));
    assert_eq!(answer.headers["retry-after"], "1");
    drop(open);
}

#[tokio::test]
async fn without_a_job_no_nonce_is_used_up() {
    let dir = tempfile::tempdir().unwrap();
    let front = Front::start(dir.path(), |_| ()).await;
    let ann = Client::new(11);
    let body = ask(true).to_string();
    let signed = ann.signed("POST", &front.http, CHAT, &body);
    let answer = front.send(signed.request()).await;
    assert_eq!(answer.error(), (503, "no_job".to_owned()));
    let engine = crate::engine::Engine::start(dir.path(), 1, front.did);
    front.jobs.attach((&engine).into()).await.unwrap();
    assert_eq!(front.send(signed.request()).await.told().1, "[DONE]");
}
