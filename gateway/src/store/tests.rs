//! The store against what it promises: restarts, races, damage.

use std::fs;
use std::process::Command;

use futures_util::future::join_all;
use prometheus::Registry;
use protocol::{Did, SigningKey};
use sqlx::Connection;
use sqlx::sqlite::SqliteConnection;
use tempfile::TempDir;
use tokio::task::JoinHandle;

use super::*;
use crate::fixtures::{About, Signer, request_id};

const NOW_S: u64 = 1_800_000_000;

struct Open {
    store: Store,
    writer: JoinHandle<()>,
    registry: Registry,
}

impl Open {
    async fn at(path: &Path) -> Self {
        Self::within(path, Duration::from_secs(30)).await.unwrap()
    }

    async fn within(path: &Path, busy_for: Duration) -> Result<Self, StoreError> {
        let registry = Registry::new();
        let metrics = StoreMetrics::register(&registry);
        let (store, writer) = Store::open(path, busy_for, metrics).await?;
        Ok(Self {
            store,
            writer: tokio::spawn(writer.run()),
            registry,
        })
    }

    /// Uses a nonce that expires five minutes after `now_s`.
    async fn spend_at(&self, now_s: u64, nonce: &str) -> Spent {
        self.spend(did(1), nonce, now_s + 300, now_s).await
    }

    async fn spend(&self, did: Did, nonce: &str, expires_s: u64, now_s: u64) -> Spent {
        let usage = NonceUse {
            did,
            nonce: nonce.as_bytes().to_vec(),
            expires_s,
            now_s,
        };
        self.store.spend_nonce(usage).await.unwrap()
    }

    async fn close(self) {
        self.store.close().await;
        self.writer.await.unwrap();
    }
}

fn did(seed: u8) -> Did {
    SigningKey::from_seed([seed; 32]).did()
}

fn folder() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("gateway.sqlite");
    (dir, path)
}

fn fresh_among(spent: &[Spent]) -> usize {
    spent.iter().filter(|spent| **spent == Spent::Fresh).count()
}

#[tokio::test]
async fn a_restart_forgets_no_nonce() {
    let (_dir, path) = folder();
    let first = Open::at(&path).await;
    assert_eq!(first.spend_at(NOW_S, "a").await, Spent::Fresh);
    first.close().await;
    let second = Open::at(&path).await;
    assert_eq!(second.spend_at(NOW_S + 1, "a").await, Spent::Reused);
    assert_eq!(second.spend_at(NOW_S + 1, "b").await, Spent::Fresh);
}

#[tokio::test]
async fn a_nonce_is_its_keys_own() {
    let (_dir, path) = folder();
    let open = Open::at(&path).await;
    let expires_s = NOW_S + 300;
    assert_eq!(
        open.spend(did(1), "a", expires_s, NOW_S).await,
        Spent::Fresh
    );
    assert_eq!(
        open.spend(did(2), "a", expires_s, NOW_S).await,
        Spent::Fresh
    );
    // Another expiry doesn't make it another nonce.
    assert_eq!(
        open.spend(did(1), "a", expires_s + 1, NOW_S).await,
        Spent::Reused
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_64_at_once_over_two_connections_one_wins() {
    let (_dir, path) = folder();
    let stores = [Open::at(&path).await, Open::at(&path).await];
    let racing = (0..64).map(|at| stores[at % 2].spend_at(NOW_S, "a"));
    let spent = join_all(racing).await;
    assert_eq!(fresh_among(&spent), 1);
    assert!(!spent.contains(&Spent::Forgotten));
}

/// What the processes of the next test do. By itself it does nothing.
#[tokio::test]
async fn process_of_a_race() {
    let Ok(path) = std::env::var("COUNTERSIGN_TEST_RACE") else {
        return;
    };
    let open = Open::at(Path::new(&path)).await;
    for nonce in 0..50 {
        println!(
            "{nonce} {:?}",
            open.spend_at(NOW_S, &nonce.to_string()).await
        );
    }
}

#[test]
fn of_two_processes_one_wins_each_nonce() {
    let (_dir, path) = folder();
    let racers = [(), ()].map(|()| {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "store::tests::process_of_a_race", "--nocapture"])
            .env("COUNTERSIGN_TEST_RACE", &path)
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap()
    });
    let told = racers.map(|racer| racer.wait_with_output().unwrap());
    let told = told.map(|output| String::from_utf8(output.stdout).unwrap());
    for nonce in 0..50 {
        let won = |text: &String| text.contains(&format!("{nonce} Fresh\n"));
        let lost = |text: &String| text.contains(&format!("{nonce} Reused\n"));
        let [one, other] = &told;
        assert!(
            (won(one) && lost(other)) || (lost(one) && won(other)),
            "nonce {nonce}: {told:?}"
        );
    }
}

#[tokio::test]
async fn what_comes_together_shares_a_commit() {
    let (_dir, path) = folder();
    let open = Open::at(&path).await;
    let nonces: Vec<String> = (0..64).map(|number| number.to_string()).collect();
    let spent = join_all(nonces.iter().map(|nonce| open.spend_at(NOW_S, nonce))).await;
    assert_eq!(fresh_among(&spent), 64);
    let families = open.registry.gather();
    let commits = families
        .iter()
        .find(|family| family.name() == "countersign_gateway_store_commit_seconds")
        .map(|family| family.get_metric()[0].get_histogram().get_sample_count());
    // One runtime thread: all have asked before the writer runs.
    assert_eq!(commits, Some(1));
}

#[tokio::test]
async fn expired_nonces_go_and_stay_refused() {
    let (_dir, path) = folder();
    let open = Open::at(&path).await;
    assert_eq!(open.spend_at(NOW_S, "old").await, Spent::Fresh);
    assert_eq!(open.spend_at(NOW_S + 200, "young").await, Spent::Fresh);
    // Past the first one's expiry, and what clocks may differ by, a look
    // through them is due.
    assert_eq!(open.spend_at(NOW_S + 400, "new").await, Spent::Fresh);
    assert_eq!(nonces_in(&path).await, 2);
    // The clock steps back: what was forgotten counts as used.
    assert_eq!(open.spend_at(NOW_S, "old").await, Spent::Forgotten);
    assert_eq!(open.spend_at(NOW_S + 200, "young").await, Spent::Reused);
    open.close().await;
    let again = Open::at(&path).await;
    assert_eq!(again.spend_at(NOW_S, "old").await, Spent::Forgotten);
}

#[tokio::test]
async fn a_clock_that_was_ahead_shuts_nobody_out() {
    let (_dir, path) = folder();
    let open = Open::at(&path).await;
    assert_eq!(open.spend_at(NOW_S, "a").await, Spent::Fresh);
    let year = 365 * 24 * 3600;
    assert_eq!(open.spend_at(NOW_S + year, "b").await, Spent::Fresh);
    assert_eq!(open.spend_at(NOW_S + 1, "c").await, Spent::Fresh);
    assert_eq!(open.spend_at(NOW_S, "a").await, Spent::Forgotten);
}

async fn nonces_in(path: &Path) -> i64 {
    let mut db = raw(path).await;
    let counted = sqlx::query("SELECT count(*) FROM nonces");
    counted.fetch_one(&mut db).await.unwrap().get(0)
}

async fn raw(path: &Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(path);
    let options = options.create_if_missing(true);
    SqliteConnection::connect_with(&options).await.unwrap()
}

#[tokio::test]
async fn receipts_are_kept_once_and_read_after_a_restart() {
    let (_dir, path) = folder();
    let open = Open::at(&path).await;
    let signer = Signer::new(5);
    let about = About::unsigned(request_id(1));
    let receipt = signer.verified(&about);
    keep_credential(&open.store, &signer).await;
    assert_eq!(
        open.store.keep_receipt(&receipt).await.unwrap(),
        Kept::Stored
    );
    assert_eq!(
        open.store.keep_receipt(&receipt).await.unwrap(),
        Kept::Already
    );
    let second = signer.verified(&About {
        seq: 1,
        ..about.clone()
    });
    assert_eq!(
        open.store.keep_receipt(&second).await.unwrap(),
        Kept::Another
    );
    open.close().await;

    let open = Open::at(&path).await;
    let found = open.store.receipt(&about.id).await.unwrap();
    let wanted = StoredReceipt {
        compact: Some(receipt.compact().to_owned()),
        checkpoints: Vec::new(),
        sub: None,
        credential: signer.credential.compact().to_owned(),
    };
    assert_eq!(found, Some(wanted));
    assert_eq!(open.store.receipt(&request_id(2)).await.unwrap(), None);
}

#[tokio::test]
async fn checkpoints_are_read_beside_the_receipt() {
    let (_dir, path) = folder();
    let open = Open::at(&path).await;
    let signer = Signer::new(5);
    keep_credential(&open.store, &signer).await;
    let part = |seq, part| {
        let about = About::unsigned(request_id(1));
        signer.verified(&About { seq, part, ..about })
    };
    let (first, second, last) = (part(0, 1), part(1, 2), part(2, 0));
    for (receipt, is_last) in [(&first, false), (&second, false), (&last, true)] {
        let kept = open.store.keep_receipt(receipt).await.unwrap();
        assert_eq!(kept, Kept::Stored);
        let found = open.store.receipt(&request_id(1)).await.unwrap().unwrap();
        assert_eq!(found.compact.is_some(), is_last);
    }
    let found = open.store.receipt(&request_id(1)).await.unwrap().unwrap();
    assert_eq!(found.checkpoints, [first.compact(), second.compact()]);
    assert_eq!(found.compact.as_deref(), Some(last.compact()));
}

#[tokio::test]
async fn a_change_that_fails_spoils_no_later_one() {
    let (_dir, path) = folder();
    let open = Open::at(&path).await;
    let signer = Signer::new(5);
    let receipt = signer.verified(&About::unsigned(request_id(1)));
    // Its credential isn't kept: nobody could check it.
    open.store.keep_receipt(&receipt).await.unwrap_err();
    keep_credential(&open.store, &signer).await;
    assert_eq!(
        open.store.keep_receipt(&receipt).await.unwrap(),
        Kept::Stored
    );
}

async fn keep_credential(store: &Store, signer: &Signer) {
    let compact = signer.credential.compact();
    let signed = SignedCredential::parse(compact).unwrap();
    store.keep_credential(&signed).await.unwrap();
}

#[tokio::test]
async fn a_closed_store_says_so() {
    let (_dir, path) = folder();
    let Open { store, writer, .. } = Open::at(&path).await;
    store.close().await;
    writer.await.unwrap();
    let usage = NonceUse {
        did: did(1),
        nonce: vec![1],
        expires_s: NOW_S,
        now_s: NOW_S,
    };
    let refused = store.spend_nonce(usage).await.unwrap_err();
    assert!(matches!(refused, StoreError::Closed), "{refused:?}");
}

#[tokio::test]
async fn a_torn_end_of_the_log_loses_only_what_was_not_acknowledged() {
    let (dir, path) = folder();
    let open = Open::at(&path).await;
    assert_eq!(open.spend_at(NOW_S, "a").await, Spent::Fresh);
    let log = dir.path().join("gateway.sqlite-wal");
    let whole = fs::metadata(&log).unwrap().len();
    assert_eq!(open.spend_at(NOW_S, "b").await, Spent::Fresh);

    // As after a power cut while "b" was being written.
    let torn = dir.path().join("torn.sqlite");
    fs::copy(&path, &torn).unwrap();
    let bytes = fs::read(&log).unwrap();
    let cut = usize::try_from(whole).unwrap() + 100;
    assert!(bytes.len() > cut);
    fs::write(dir.path().join("torn.sqlite-wal"), &bytes[..cut]).unwrap();

    let open = Open::at(&torn).await;
    assert_eq!(open.spend_at(NOW_S, "a").await, Spent::Reused);
    assert_eq!(open.spend_at(NOW_S, "b").await, Spent::Fresh);
}

async fn refused(path: &Path) -> String {
    let opened = Open::within(path, Duration::ZERO).await;
    opened.err().expect("it should be refused").to_string()
}

#[tokio::test]
async fn damage_is_named() {
    let (_dir, path) = folder();
    fs::write(&path, [b'x'; 8192]).unwrap();
    let text = refused(&path).await;
    assert!(text.contains("is damaged"), "{text}");
    assert!(text.contains(&path.display().to_string()), "{text}");
    assert_eq!(fs::read(&path).unwrap(), [b'x'; 8192], "left as it was");
}

#[tokio::test]
async fn somebody_elses_database_is_left_alone() {
    let (_dir, path) = folder();
    let mut db = raw(&path).await;
    let made = sqlx::raw_sql("CREATE TABLE theirs (x)");
    made.execute(&mut db).await.unwrap();
    let text = refused(&path).await;
    assert!(text.contains("isn't a gateway's"), "{text}");
}

#[tokio::test]
async fn a_later_versions_database_is_left_alone() {
    let (_dir, path) = folder();
    Open::at(&path).await.close().await;
    let mut db = raw(&path).await;
    let raised = sqlx::raw_sql("PRAGMA user_version = 99");
    raised.execute(&mut db).await.unwrap();
    let text = refused(&path).await;
    assert!(text.contains("is of version 99"), "{text}");
}

#[tokio::test]
async fn a_locked_database_is_told_as_locked() {
    let (_dir, path) = folder();
    Open::at(&path).await.close().await;
    let mut db = raw(&path).await;
    let held = sqlx::raw_sql("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE");
    held.execute(&mut db).await.unwrap();
    let text = refused(&path).await;
    assert!(text.contains("is locked by another process"), "{text}");
}
