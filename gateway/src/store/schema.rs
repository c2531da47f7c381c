//! The database's tables, one numbered step per change of them.
//!
//! A step is never edited once released: a database remembers how many it has
//! taken (`user_version`), and takes the rest when it is opened.

use sqlx::sqlite::SqliteConnection;
use sqlx::{Connection, Row};

/// Marks a database as ours ("Csgn"): we don't write into anybody else's.
const APPLICATION: i64 = 0x4373_676e;

const STEPS: [&str; 1] = ["
CREATE TABLE nonces (
    did       TEXT    NOT NULL,
    nonce     BLOB    NOT NULL,
    expires_s INTEGER NOT NULL,
    PRIMARY KEY (did, nonce)
) STRICT, WITHOUT ROWID;
CREATE INDEX nonces_by_expiry ON nonces (expires_s);

-- Up to where nonces were forgotten: a signature that expires before it can't
-- be told from a replay any more, should the clock ever step back.
CREATE TABLE nonces_forgotten (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 0),
    to_s     INTEGER NOT NULL
) STRICT;
INSERT INTO nonces_forgotten VALUES (0, 0);

CREATE TABLE credentials (
    digest  BLOB PRIMARY KEY,
    job     TEXT NOT NULL,
    compact TEXT NOT NULL
) STRICT;

CREATE TABLE receipts (
    id      TEXT    NOT NULL,
    part    INTEGER NOT NULL,
    job     TEXT    NOT NULL,
    seq     INTEGER NOT NULL,
    sub     TEXT,
    cred    BLOB    NOT NULL REFERENCES credentials (digest),
    digest  BLOB    NOT NULL,
    compact TEXT    NOT NULL,
    PRIMARY KEY (id, part)
) STRICT;
CREATE INDEX receipts_by_job ON receipts (job, seq);

PRAGMA application_id = 1131636590;
PRAGMA user_version = 1;
"];

/// Why the tables aren't as this program needs them.
#[derive(Debug)]
pub(super) enum SchemaError {
    /// The database has other content than ours.
    Foreign,
    /// A later version of this program has changed it.
    Newer {
        version: i64,
        known: i64,
    },
    Sql(sqlx::Error),
}

/// Brings the tables up to date, all steps or none.
pub(super) async fn migrate(db: &mut SqliteConnection) -> Result<(), SchemaError> {
    let mut tx = db
        .begin_with("BEGIN IMMEDIATE")
        .await
        .map_err(SchemaError::Sql)?;
    let version = pragma(&mut tx, "PRAGMA user_version").await?;
    let application = pragma(&mut tx, "PRAGMA application_id").await?;
    let tables = pragma(&mut tx, "SELECT count(*) FROM sqlite_schema").await?;
    let untouched = version == 0 && application == 0 && tables == 0;
    if !untouched && application != APPLICATION {
        return Err(SchemaError::Foreign);
    }
    let known = STEPS.len() as i64;
    if version > known {
        return Err(SchemaError::Newer { version, known });
    }
    let taken = usize::try_from(version).map_err(|_| SchemaError::Foreign)?;
    for step in &STEPS[taken..] {
        sqlx::raw_sql(*step)
            .execute(&mut *tx)
            .await
            .map_err(SchemaError::Sql)?;
    }
    tx.commit().await.map_err(SchemaError::Sql)
}

async fn pragma(db: &mut SqliteConnection, query: &'static str) -> Result<i64, SchemaError> {
    let row = sqlx::query(query)
        .fetch_one(db)
        .await
        .map_err(SchemaError::Sql)?;
    row.try_get(0).map_err(SchemaError::Sql)
}
