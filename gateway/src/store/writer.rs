//! The one task that writes: whatever waits goes into one transaction.
//!
//! A commit costs an fsync, and requests that come in during one share the
//! next, so the price of durability falls as the load rises. An answer is
//! given only after the commit. Start at [`Writer::run`].

use std::sync::Arc;
use std::time::Instant;

use protocol::{Did, Digest, JobId, RequestId};
use sqlx::sqlite::SqliteConnection;
use sqlx::{Connection, Row};
use tokio::sync::{mpsc, oneshot};

use super::{Kept, Spent, StoreError, StoreMetrics};

/// Changes that may share one commit.
const BATCH_MAX: usize = 256;
/// Nonces are looked through for expired ones this often, in seconds.
const PRUNE_EVERY_S: u64 = 60;
/// How long past its expiry a nonce is kept: more than any clock skew that
/// the signature rules allow for.
const KEEP_PAST_EXPIRY_S: u64 = 60;

/// One use of a nonce by a key.
#[derive(Debug)]
pub(crate) struct NonceUse {
    pub did: Did,
    pub nonce: Vec<u8>,
    pub expires_s: u64,
    pub now_s: u64,
}

/// A receipt as it is stored.
#[derive(Debug)]
pub(super) struct ReceiptRow {
    pub id: RequestId,
    pub part: i64,
    pub job: JobId,
    pub seq: i64,
    pub sub: Option<Did>,
    pub cred: Digest,
    pub digest: Digest,
    pub compact: String,
}

/// A credential as it is stored.
#[derive(Debug)]
pub(super) struct CredentialRow {
    pub digest: Digest,
    pub job: JobId,
    pub compact: String,
}

/// One change, who waits for it, and what came of it inside the transaction.
#[derive(Debug)]
pub(super) struct Asked<T, R> {
    what: T,
    outcome: Option<R>,
    reply: oneshot::Sender<Result<R, StoreError>>,
}

/// What can be asked of the writer.
#[derive(Debug)]
pub(super) enum Change {
    Nonce(Asked<NonceUse, Spent>),
    Receipt(Asked<ReceiptRow, Kept>),
    Credential(Asked<CredentialRow, ()>),
    /// The last one: what waits behind it is still written, nothing comes after.
    Close,
}

/// The writing half of the store. It ends when the store is closed, or when
/// no [`super::Store`] is left.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(super) db: SqliteConnection,
    pub(super) changes: mpsc::Receiver<Change>,
    pub(super) metrics: StoreMetrics,
    pub(super) pruned_s: u64,
}

impl<T, R> Asked<T, R> {
    pub(super) fn new(what: T) -> (Self, oneshot::Receiver<Result<R, StoreError>>) {
        let (reply, answer) = oneshot::channel();
        let asked = Self {
            what,
            outcome: None,
            reply,
        };
        (asked, answer)
    }

    /// Whoever asked may be gone: then nobody needs the answer.
    fn settle(self, commit: &Result<(), StoreError>) {
        let answer = match commit {
            Ok(()) => Ok(self.outcome.expect("a committed change has an outcome")),
            Err(error) => Err(error.clone()),
        };
        let _ = self.reply.send(answer);
    }
}

impl Change {
    fn settle(self, commit: &Result<(), StoreError>) {
        match self {
            Self::Nonce(asked) => asked.settle(commit),
            Self::Receipt(asked) => asked.settle(commit),
            Self::Credential(asked) => asked.settle(commit),
            Self::Close => {}
        }
    }
}

impl Writer {
    /// Writes until the store is closed, then closes the database.
    pub(crate) async fn run(mut self) {
        let mut batch = Vec::with_capacity(BATCH_MAX);
        while self.changes.recv_many(&mut batch, BATCH_MAX).await > 0 {
            let began = Instant::now();
            let size = batch.len();
            let commit = self
                .commit(&mut batch)
                .await
                .map_err(|source| StoreError::Write {
                    source: Arc::new(source),
                });
            self.metrics.committed(began.elapsed(), size, &commit);
            for change in batch.drain(..) {
                change.settle(&commit);
            }
        }
        if let Err(error) = self.db.close().await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "closing the database"
            );
        }
    }

    /// All changes or none.
    async fn commit(&mut self, batch: &mut [Change]) -> Result<(), sqlx::Error> {
        let mut tx = self.db.begin_with("BEGIN IMMEDIATE").await?;
        let mut forgotten_to_s = None;
        for change in batch {
            match change {
                Change::Nonce(asked) => {
                    let to_s = match forgotten_to_s {
                        Some(to_s) => to_s,
                        None => *forgotten_to_s.insert(read_forgotten(&mut tx).await?),
                    };
                    asked.outcome = Some(spend(&mut tx, &asked.what, to_s).await?);
                    let now_s = asked.what.now_s;
                    if now_s.saturating_sub(self.pruned_s) >= PRUNE_EVERY_S {
                        self.pruned_s = now_s;
                        prune(&mut tx, now_s).await?;
                        forgotten_to_s = None;
                    }
                }
                Change::Receipt(asked) => {
                    asked.outcome = Some(keep_receipt(&mut tx, &asked.what).await?);
                }
                Change::Credential(asked) => {
                    keep_credential(&mut tx, &asked.what).await?;
                    asked.outcome = Some(());
                }
                Change::Close => self.changes.close(),
            }
        }
        tx.commit().await
    }
}

async fn read_forgotten(db: &mut SqliteConnection) -> Result<i64, sqlx::Error> {
    sqlx::query("SELECT to_s FROM nonces_forgotten")
        .fetch_one(db)
        .await?
        .try_get(0)
}

async fn spend(
    db: &mut SqliteConnection,
    usage: &NonceUse,
    forgotten_to_s: i64,
) -> Result<Spent, sqlx::Error> {
    let expires_s = seconds(usage.expires_s);
    if expires_s <= forgotten_to_s {
        return Ok(Spent::Forgotten);
    }
    let inserted = sqlx::query("INSERT INTO nonces VALUES (?, ?, ?) ON CONFLICT DO NOTHING")
        .bind(usage.did.to_string())
        .bind(&usage.nonce)
        .bind(expires_s)
        .execute(db)
        .await?;
    Ok(match inserted.rows_affected() {
        0 => Spent::Reused,
        _ => Spent::Fresh,
    })
}

async fn prune(db: &mut SqliteConnection, now_s: u64) -> Result<(), sqlx::Error> {
    let cutoff_s = seconds(now_s.saturating_sub(KEEP_PAST_EXPIRY_S));
    // The horizon moves to the latest expiry that is really deleted, and not
    // to the cutoff: a clock that was ahead for a moment must not shut out
    // everybody until it is right again.
    sqlx::query(
        "UPDATE nonces_forgotten SET to_s =
         max(to_s, (SELECT coalesce(max(expires_s), 0) FROM nonces WHERE expires_s < ?))",
    )
    .bind(cutoff_s)
    .execute(&mut *db)
    .await?;
    sqlx::query("DELETE FROM nonces WHERE expires_s < ?")
        .bind(cutoff_s)
        .execute(db)
        .await?;
    Ok(())
}

async fn keep_receipt(db: &mut SqliteConnection, row: &ReceiptRow) -> Result<Kept, sqlx::Error> {
    let inserted =
        sqlx::query("INSERT INTO receipts VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING")
            .bind(row.id.to_string())
            .bind(row.part)
            .bind(row.job.to_string())
            .bind(row.seq)
            .bind(row.sub.map(|did| did.to_string()))
            .bind(&row.cred.as_bytes()[..])
            .bind(&row.digest.as_bytes()[..])
            .bind(&row.compact)
            .execute(&mut *db)
            .await?;
    if inserted.rows_affected() > 0 {
        return Ok(Kept::Stored);
    }
    let there: Vec<u8> = sqlx::query("SELECT digest FROM receipts WHERE id = ? AND part = ?")
        .bind(row.id.to_string())
        .bind(row.part)
        .fetch_one(db)
        .await?
        .try_get(0)?;
    Ok(match there == row.digest.as_bytes() {
        true => Kept::Already,
        false => Kept::Another,
    })
}

async fn keep_credential(
    db: &mut SqliteConnection,
    row: &CredentialRow,
) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO credentials VALUES (?, ?, ?) ON CONFLICT DO NOTHING")
        .bind(&row.digest.as_bytes()[..])
        .bind(row.job.to_string())
        .bind(&row.compact)
        .execute(db)
        .await?;
    Ok(())
}

/// SQLite's integers are signed; a time past its end is the end.
fn seconds(s: u64) -> i64 {
    i64::try_from(s).unwrap_or(i64::MAX)
}
