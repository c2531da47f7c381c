//! How a gateway begins, is watched, takes jobs in, and ends.

use gateway::{AttachError, BuildError, DataDir, Gateway, GatewayConfig, JobHandle};
use protocol::JobId;
use transport::Http;

use crate::client::{Answer, CHAT, Client, ask, unsigned};
use crate::cluster::{Cluster, Front, LONG, in_time};
use crate::engine::{Does, Engine, Seen};

#[tokio::test]
async fn a_bad_configuration_binds_nothing_and_tells_all() {
    let dir = tempfile::tempdir().unwrap();
    let mut config =
        GatewayConfig::new("0.0.0.0:1".parse().unwrap(), "127.0.0.1:0".parse().unwrap());
    config.authorities = vec!["http://x".to_owned()];
    let data = DataDir::hold(dir.path()).unwrap();
    let refused = Gateway::build(config, data).await.unwrap_err();
    assert!(
        matches!(&refused, BuildError::Config(faults) if faults.0.len() == 2),
        "{refused}"
    );
}

#[tokio::test]
async fn the_key_outlives_a_restart_and_the_lock_does_not() {
    let cluster = Cluster::start().await;
    let did = cluster.front.did;
    DataDir::hold(cluster.dir.path()).unwrap_err();
    let cluster = cluster.restart().await;
    assert_eq!(cluster.front.did, did);
}

#[tokio::test]
async fn health_and_metrics() {
    let cluster = Cluster::start().await;
    let (ann, front) = (Client::new(11), &cluster.front);
    front.send(ann.chat(&front.http, &ask(true))).await;
    front.send(unsigned(CHAT, "{")).await;
    assert_eq!(front.admin("/livez").await.text, "ok\n");
    assert_eq!(front.admin("/readyz").await.text, "ok\n");
    let metrics = front.admin("/metrics").await.text;
    for series in [
        "countersign_gateway_requests_total{endpoint=\"chat\"} 2",
        "countersign_gateway_receipts_total{finished_reason=\"stop\"} 1",
        "countersign_gateway_relays_running 0",
        "countersign_gateway_store_commit_seconds_count",
        "countersign_num_requests_running{model_name=\"model-1\"} 0",
    ] {
        assert!(metrics.contains(series), "{series} in {metrics}");
    }
    for id in ["did:key", "chatcmpl-", "job-"] {
        assert!(!metrics.contains(id), "{id} in {metrics}");
    }
    assert_eq!(front.admin("/v1/models").await.error().0, 404);
}

#[tokio::test]
async fn only_the_job_that_was_rented() {
    let dir = tempfile::tempdir().unwrap();
    let front = Front::start(dir.path(), |_| ()).await;
    let engine = Engine::start(dir.path(), 1, front.did);
    let rented = JobHandle::from(&engine);
    engine.is_ready(false);
    let early = front.jobs.attach(rented.clone()).await;
    assert!(
        matches!(early, Err(AttachError::NotReady { .. })),
        "{early:?}"
    );
    engine.is_ready(true);
    let mut other = rented.clone();
    other.job = JobId::new([9; 16]);
    let told = front.jobs.attach(other).await;
    assert!(
        matches!(told, Err(AttachError::OtherJob { .. })),
        "{told:?}"
    );
    let mut other = rented.clone();
    other.model.id = "bigger".to_owned();
    let told = front.jobs.attach(other).await;
    assert!(
        matches!(told, Err(AttachError::OtherModel { .. })),
        "{told:?}"
    );
    let attached = front.jobs.attach(rented.clone()).await.unwrap();
    assert_eq!(
        (attached.did, attached.context_tokens),
        (engine.did(), 2048)
    );
    let twice = front.jobs.attach(rented.clone()).await;
    assert!(matches!(twice, Err(AttachError::Twice { .. })), "{twice:?}");
    assert!(front.jobs.detach(&rented.job));
    assert_eq!(front.admin("/readyz").await.error().0, 503);
}

#[tokio::test]
async fn each_model_has_its_own_job() {
    let mut cluster = Cluster::start().await;
    let front = &cluster.front;
    let mut second = Engine::start(cluster.dir.path(), 2, front.did);
    front.jobs.attach((&second).into()).await.unwrap();
    let mut body = ask(true);
    body["model"] = "model-2".into();
    let answer = front.send(unsigned(CHAT, body.to_string())).await;
    assert_eq!(answer.told().1, "[DONE]");
    assert!(matches!(second.sees().await, Seen::Request(_)));
    assert!(cluster.engine.saw_nothing());
}

#[tokio::test]
async fn a_drain_lets_an_open_stream_end() {
    let mut cluster = Cluster::start().await;
    let ann = Client::new(11);
    cluster.engine.does(Does::Hang);
    let connector = cluster.front.connector(Http::H1);
    let request = ann.chat(&cluster.front.http, &ask(true));
    let open = in_time(connector.send(request)).await.unwrap();
    let Seen::Request(id) = cluster.engine.sees().await else {
        panic!("cancelled before it was asked");
    };
    cluster.front.drain.begin(LONG);
    let ready = cluster.front.admin("/readyz").await;
    assert_eq!(ready.error(), (503, "not_ready".to_owned()));
    // Still open, and ends as it would have.
    cluster.engine.cancel(&id).await;
    assert_eq!(Answer::of(open).await.told().1, "cancelled");
    cluster.front.end().await;
}

#[tokio::test]
async fn a_drain_that_runs_out_still_stores_the_receipt() {
    let mut cluster = Cluster::start().await;
    let ann = Client::new(11);
    cluster.engine.does(Does::Hang);
    let connector = cluster.front.connector(Http::H1);
    let request = ann.chat(&cluster.front.http, &ask(true));
    let open = in_time(connector.send(request)).await.unwrap();
    let Seen::Request(id) = cluster.engine.sees().await else {
        panic!("cancelled before it was asked");
    };
    cluster.front.drain.begin(std::time::Duration::ZERO);
    let cluster = cluster.restart().await;
    drop(open);
    let read = cluster.front.receipt(&ann, id.as_str()).await;
    read.verified_receipt(&cluster.front.did);
}
