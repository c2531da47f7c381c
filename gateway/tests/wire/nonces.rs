//! A nonce counts once, however it is tried.

use futures_util::future::join_all;
use transport::Http;

use crate::client::{CHAT, Client, ask};
use crate::cluster::Cluster;

#[tokio::test]
async fn a_replay_is_refused_over_any_connection_and_after_a_restart() {
    let cluster = Cluster::start().await;
    let ann = Client::new(11);
    let body = ask(true).to_string();
    let signed = ann.signed("POST", &cluster.front.http, CHAT, &body);
    assert_eq!(
        cluster.front.send(signed.request()).await.told().1,
        "[DONE]"
    );
    let reused = (401, "nonce_reused".to_owned());
    for http in Http::ALL {
        let answer = cluster.front.send_over(http, signed.request()).await;
        assert_eq!(answer.error(), reused);
    }
    let port = cluster.front.http.clone();
    let cluster = cluster.restart_at(&port).await;
    assert_eq!(cluster.front.send(signed.request()).await.error(), reused);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_64_at_once_exactly_one_is_answered() {
    let cluster = Cluster::start().await;
    let ann = Client::new(11);
    let body = ask(true).to_string();
    let signed = ann.signed("POST", &cluster.front.http, CHAT, &body);
    let all = join_all((0..64).map(|_| cluster.front.send(signed.request()))).await;
    let answered = all.iter().filter(|answer| answer.status == 200).count();
    assert_eq!(answered, 1);
    for answer in all.iter().filter(|answer| answer.status != 200) {
        assert_eq!(answer.error(), (401, "nonce_reused".to_owned()));
    }
}
