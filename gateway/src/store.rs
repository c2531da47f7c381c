//! What must survive a restart: nonces, receipts, credentials.
//!
//! SQLite in WAL mode. What is answered `Ok` is on the disk. All writes go
//! through one task ([`Writer`]), reads through connections of their own.
//! The tables are `schema`'s. Start at [`Store::open`].

mod metrics;
mod schema;
mod writer;

use std::fs::Permissions;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use protocol::RequestId;
use protocol::credential::SignedCredential;
use protocol::receipt::VerifiedReceipt;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{ConnectOptions, Row};
use tokio::sync::{mpsc, oneshot};

pub(crate) use metrics::StoreMetrics;
use schema::SchemaError;
use writer::{Asked, Change, CredentialRow, ReceiptRow};
pub(crate) use writer::{NonceUse, Writer};

/// Changes that wait for the writer. When it is full, whoever asks waits too:
/// there are never more of them than requests in flight.
const CHANGES_WAITING_MAX: usize = 1024;
/// Receipts are read rarely: by id, once each.
const READERS: u32 = 2;

/// A handle on the store; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    changes: mpsc::Sender<Change>,
    readers: SqlitePool,
}

/// What became of a nonce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spent {
    /// Its first use, and on the disk.
    Fresh,
    /// This key has used it before.
    Reused,
    /// Nonces of that age are forgotten, so nobody can tell.
    Forgotten,
}

/// What became of a receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kept {
    /// It is new, and on the disk.
    Stored,
    /// The very same was there.
    Already,
    /// Another one is there under its id: only a broken engine signs two.
    Another,
}

/// What is kept about a request, read back.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct StoredReceipt {
    /// Its receipt; none where only checkpoints came.
    pub compact: Option<String>,
    /// Its checkpoints, in order.
    pub checkpoints: Vec<String>,
    /// The owner's DID as text; none where the request was unsigned.
    pub sub: Option<String>,
    /// The credential it names.
    pub credential: String,
}

/// Why the store can't do its work.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The file couldn't be opened.
    #[error("opening the database {}", path.display())]
    Open {
        /// The database.
        path: PathBuf,
        /// What SQLite said.
        #[source]
        source: Arc<sqlx::Error>,
    },
    /// Another process has been writing to it for seconds.
    #[error("the database {} is locked by another process", path.display())]
    Locked {
        /// The database.
        path: PathBuf,
    },
    /// Its content is no SQLite database, or a damaged one.
    #[error(
        "the database {} is damaged: restore it from a backup, or move it away to start without its receipts (nonces of the last minutes could then be used again)",
        path.display()
    )]
    Damaged {
        /// The database.
        path: PathBuf,
    },
    /// It is a database of something else.
    #[error("the database {} isn't a gateway's", path.display())]
    Foreign {
        /// The database.
        path: PathBuf,
    },
    /// A later version has changed its tables.
    #[error(
        "the database {} is of version {version}, this program knows versions up to {known}", path.display()
    )]
    Newer {
        /// The database.
        path: PathBuf,
        /// Its version.
        version: i64,
        /// The last one that we know.
        known: i64,
    },
    /// A change couldn't be made durable.
    #[error("writing to the database")]
    Write {
        /// What SQLite said.
        #[source]
        source: Arc<sqlx::Error>,
    },
    /// Something couldn't be read back.
    #[error("reading from the database")]
    Read {
        /// What SQLite said.
        #[source]
        source: Arc<sqlx::Error>,
    },
    /// The writer has ended.
    #[error("the database is closed")]
    Closed,
}

impl Store {
    /// Opens or makes the database. Its owner runs the [`Writer`], which ends
    /// when the store is closed. Another process may keep the database to
    /// itself for as long as `busy_for`.
    pub(crate) async fn open(
        path: &Path,
        busy_for: Duration,
        metrics: StoreMetrics,
    ) -> Result<(Self, Writer), StoreError> {
        make_private(path).map_err(|source| StoreError::Open {
            path: path.to_owned(),
            source: Arc::new(sqlx::Error::Io(source)),
        })?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .busy_timeout(busy_for)
            .foreign_keys(true)
            .disable_statement_logging();
        let mut db = options
            .clone()
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .connect()
            .await
            .map_err(|error| opening(path, error))?;
        schema::migrate(&mut db)
            .await
            .map_err(|error| match error {
                SchemaError::Foreign => StoreError::Foreign { path: path.into() },
                SchemaError::Newer { version, known } => StoreError::Newer {
                    path: path.into(),
                    version,
                    known,
                },
                SchemaError::Sql(error) => opening(path, error),
            })?;
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            .connect_lazy_with(options.read_only(true));
        let (changes, receiver) = mpsc::channel(CHANGES_WAITING_MAX);
        let writer = Writer {
            db,
            changes: receiver,
            metrics,
            pruned_s: 0,
        };
        Ok((Self { changes, readers }, writer))
    }

    /// Uses a nonce. Of many uses of one nonce, exactly one is `Fresh`, across
    /// connections, processes and restarts.
    pub(crate) async fn spend_nonce(&self, usage: NonceUse) -> Result<Spent, StoreError> {
        let (asked, answer) = Asked::new(usage);
        self.change(Change::Nonce(asked), answer).await
    }

    /// Keeps a receipt. Its credential must have been kept before.
    pub(crate) async fn keep_receipt(&self, receipt: &VerifiedReceipt) -> Result<Kept, StoreError> {
        let claims = receipt.claims();
        let (asked, answer) = Asked::new(ReceiptRow {
            id: claims.jti.clone(),
            part: i64::from(claims.part),
            job: claims.job.clone(),
            seq: i64::try_from(claims.seq).unwrap_or(i64::MAX),
            sub: claims.sub,
            cred: claims.cred,
            digest: receipt.digest(),
            compact: receipt.compact().to_owned(),
        });
        self.change(Change::Receipt(asked), answer).await
    }

    /// Keeps a job's credential.
    pub(crate) async fn keep_credential(
        &self,
        credential: &SignedCredential,
    ) -> Result<(), StoreError> {
        let (asked, answer) = Asked::new(CredentialRow {
            digest: credential.digest(),
            job: credential.unverified().job.clone(),
            compact: credential.compact().to_owned(),
        });
        self.change(Change::Credential(asked), answer).await
    }

    /// The receipt of a request and its checkpoints, and the credential that they name.
    pub(crate) async fn receipt(
        &self,
        id: &RequestId,
    ) -> Result<Option<StoredReceipt>, StoreError> {
        let read = |source| StoreError::Read {
            source: Arc::new(source),
        };
        let rows = sqlx::query(
            "SELECT r.part, r.compact, r.sub, c.compact FROM receipts r
             JOIN credentials c ON c.digest = r.cred WHERE r.id = ? ORDER BY r.part",
        )
        .bind(id.to_string())
        .fetch_all(&self.readers)
        .await
        .map_err(read)?;
        let Some(last) = rows.last() else {
            return Ok(None);
        };
        let mut found = StoredReceipt {
            compact: None,
            checkpoints: Vec::new(),
            sub: last.try_get(2).map_err(read)?,
            credential: last.try_get(3).map_err(read)?,
        };
        for row in &rows {
            let part: i64 = row.try_get(0).map_err(read)?;
            let compact = row.try_get(1).map_err(read)?;
            match part {
                0 => found.compact = Some(compact),
                _ => found.checkpoints.push(compact),
            }
        }
        Ok(Some(found))
    }

    /// Lets the writer end once it has written what waits for it.
    pub(crate) async fn close(&self) {
        // Closed already: all the better.
        let _ = self.changes.send(Change::Close).await;
        self.readers.close().await;
    }

    async fn change<R>(
        &self,
        change: Change,
        answer: oneshot::Receiver<Result<R, StoreError>>,
    ) -> Result<R, StoreError> {
        let sent = self.changes.send(change).await;
        sent.map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }
}

fn opening(path: &Path, error: sqlx::Error) -> StoreError {
    let path = path.to_owned();
    // SQLite's primary result codes: the low byte of the extended ones.
    let code = error
        .as_database_error()
        .and_then(|error| error.code()?.parse::<u32>().ok())
        .map(|code| code & 0xff);
    match code {
        Some(5 | 6) => StoreError::Locked { path },
        Some(11 | 26) => StoreError::Damaged { path },
        _ => StoreError::Open {
            path,
            source: Arc::new(error),
        },
    }
}

/// Makes the database its owner's alone, whatever the folder allows: it holds
/// receipts, which are shown to nobody but their clients. SQLite gives its
/// companion files the same mode.
fn make_private(path: &Path) -> std::io::Result<()> {
    let file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)?;
    file.set_permissions(Permissions::from_mode(0o600))
}

#[cfg(test)]
mod tests;
