//! Saved answers: a folder that holds everything needed to check one answer
//! again, later and elsewhere.
//!
//! The format is docs/saved-answers.md; `verify run` and foreign tools read
//! it. A folder appears whole or not at all. Start at [`SavedAnswer::write`]
//! and [`SavedAnswer::read`].

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use protocol::Did;
use serde::{Deserialize, Serialize};

use crate::base_url::BaseUrl;
use crate::check::{Proof, Rejection};
use crate::reply::{Received, Sent};

/// The version of the format that is written and read.
pub const VERSION: u32 = 1;

/// Bytes of one file.
const FILE_MAX: u64 = 64 << 20;

/// One answer, as its folder holds it.
#[derive(Debug, Clone, PartialEq)]
pub struct SavedAnswer {
    /// `answer.json`.
    pub about: About,
    /// `request.json`: the exact bytes of the body.
    pub request: Vec<u8>,
    /// `signature.json`.
    pub signature: SavedSignature,
    /// `response.txt`: the exact bytes that came back.
    pub response: Vec<u8>,
    /// `output.txt`, `output.1.txt`, …: the text of each choice.
    pub outputs: Vec<String>,
    /// `receipt.jws`, unless none came.
    pub receipt: Option<String>,
    /// `checkpoint.1.jws`, `checkpoint.2.jws`, …: the receipts of the answer so far.
    pub checkpoints: Vec<String>,
    /// `chain.json`, unless none could be had.
    pub chain: Option<Vec<String>>,
}

/// When and from where an answer came, and what the client made of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct About {
    /// The version of this format: [`VERSION`].
    pub v: u32,
    /// The gateway that was asked, `http://HOST:PORT`.
    pub url: String,
    /// The client's clock when it signed, in milliseconds since the epoch.
    pub sent_ms: u64,
    /// The client's clock when the last byte had come.
    pub received_ms: u64,
    /// The response's HTTP status.
    pub status: u16,
    /// The response's content type.
    pub content_type: Option<String>,
    /// The gateway key that the chain was checked against, if any.
    pub gateway: Option<String>,
    /// True if every check held.
    pub verified: bool,
    /// The name of the check that failed.
    pub failed_check: Option<String>,
    /// What it said.
    pub reason: Option<String>,
}

/// The request's signed parts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedSignature {
    /// `@method`
    pub method: String,
    /// `@authority`
    pub authority: String,
    /// `@path`
    pub path: String,
    /// `@query`, if there was one.
    pub query: Option<String>,
    /// The `content-digest` header, if the request was signed.
    pub content_digest: Option<String>,
    /// The `signature-input` header, if the request was signed.
    pub signature_input: Option<String>,
    /// The `signature` header, if the request was signed.
    pub signature: Option<String>,
}

/// Why an answer can't be saved or read.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// There's something at this path already.
    #[error("{} exists already: answers are saved in a new folder", path.display())]
    Exists {
        /// The path.
        path: PathBuf,
    },
    /// A file isn't what the format says.
    #[error("{} isn't part of a saved answer: {why}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What's wrong with it.
        why: String,
    },
    /// The file system said no.
    #[error("{doing} {}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To which path.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl SavedAnswer {
    /// Everything that is kept of an answer. `gateway` is the key that its chain was checked
    /// against, if any.
    pub fn of(
        url: &BaseUrl,
        (sent, received): (&Sent, &Received),
        proof: Option<Proof>,
        rejection: Option<&Rejection>,
        gateway: Option<Did>,
    ) -> SavedAnswer {
        let signature = sent.signature.as_ref();
        SavedAnswer {
            about: About {
                v: VERSION,
                url: url.to_string(),
                sent_ms: sent.at.0,
                received_ms: received.at.0,
                status: received.status,
                content_type: received.content_type.clone(),
                gateway: gateway.map(|did| did.to_string()),
                verified: rejection.is_none(),
                failed_check: rejection.map(|rejection| rejection.check.name().to_owned()),
                reason: rejection.map(|rejection| rejection.sentence.clone()),
            },
            request: sent.body.clone(),
            signature: SavedSignature {
                method: sent.method.clone(),
                authority: sent.authority.clone(),
                path: sent.path.clone(),
                query: None,
                content_digest: signature.map(|headers| headers.content_digest.clone()),
                signature_input: signature.map(|headers| headers.signature_input.clone()),
                signature: signature.map(|headers| headers.signature.clone()),
            },
            response: received.body.clone(),
            outputs: (received.answer.choices.iter())
                .map(|choice| choice.text.clone())
                .collect(),
            // A stream that broke has none, but the gateway may keep one.
            receipt: (received.answer.receipt.clone())
                .or(proof.as_ref().and_then(|proof| proof.receipt.clone())),
            checkpoints: match (received.answer.checkpoints.as_slice(), &proof) {
                ([], Some(proof)) => proof.checkpoints.clone(),
                (came, _) => came.iter().map(|one| one.receipt.clone()).collect(),
            },
            chain: proof.map(|proof| proof.chain.0),
        }
    }

    /// Says early whether an answer could be saved here, before it costs anything.
    pub fn check_free(folder: &Path) -> Result<(), SaveError> {
        match fs::read_dir(folder).map(|mut entries| entries.next().is_some()) {
            Ok(false) => Ok(()),
            Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(()),
            _ => Err(SaveError::Exists {
                path: folder.into(),
            }),
        }
    }

    /// Writes the folder, whole or not at all. It and its files are the owner's alone.
    pub fn write(&self, folder: &Path) -> Result<(), SaveError> {
        SavedAnswer::check_free(folder)?;
        let partial = partial_beside(folder);
        let result = self.write_files(&partial).and_then(|()| {
            fs::rename(&partial, folder).map_err(|source| match source.kind() {
                io::ErrorKind::AlreadyExists
                | io::ErrorKind::DirectoryNotEmpty
                | io::ErrorKind::NotADirectory => SaveError::Exists {
                    path: folder.into(),
                },
                _ => io_error("naming", folder, source),
            })
        });
        if result.is_err() {
            let _ = fs::remove_dir_all(&partial);
        }
        result
    }

    fn write_files(&self, folder: &Path) -> Result<(), SaveError> {
        if let Some(parent) = folder.parent() {
            (fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(parent))
            .map_err(|source| io_error("making", parent, source))?;
        }
        // Somebody else's folder of this name is never written into.
        (fs::DirBuilder::new().mode(0o700).create(folder))
            .map_err(|source| io_error("making", folder, source))?;
        let write = |name: &str, bytes: &[u8]| {
            let path = folder.join(name);
            write_file(&path, bytes).map_err(|source| io_error("writing", &path, source))
        };
        write("answer.json", &json(&self.about))?;
        write("request.json", &self.request)?;
        write("signature.json", &json(&self.signature))?;
        write("response.txt", &self.response)?;
        for (choice, text) in self.outputs.iter().enumerate() {
            write(&output_name(choice), text.as_bytes())?;
        }
        if let Some(receipt) = &self.receipt {
            write("receipt.jws", receipt.as_bytes())?;
        }
        for (part, checkpoint) in (1..).zip(&self.checkpoints) {
            write(&checkpoint_name(part), checkpoint.as_bytes())?;
        }
        if let Some(chain) = &self.chain {
            write("chain.json", &json(chain))?;
        }
        File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(|source| io_error("writing", folder, source))
    }

    /// Reads a folder that [`SavedAnswer::write`] made.
    pub fn read(folder: &Path) -> Result<SavedAnswer, SaveError> {
        let about: About = parse(folder, "answer.json")?;
        if about.v != VERSION {
            return Err(SaveError::Malformed {
                path: folder.join("answer.json"),
                why: format!("version {} isn't known", about.v),
            });
        }
        let mut outputs = Vec::new();
        while let Some(text) = optional(folder, &output_name(outputs.len()))? {
            outputs.push(utf8(folder, &output_name(outputs.len()), text)?);
        }
        let mut checkpoints = Vec::new();
        while let Some(compact) = optional(folder, &checkpoint_name(checkpoints.len() + 1))? {
            let name = checkpoint_name(checkpoints.len() + 1);
            checkpoints.push(utf8(folder, &name, compact)?);
        }
        Ok(SavedAnswer {
            checkpoints,
            about,
            request: required(folder, "request.json")?,
            signature: parse(folder, "signature.json")?,
            response: required(folder, "response.txt")?,
            outputs,
            receipt: match optional(folder, "receipt.jws")? {
                Some(bytes) => Some(utf8(folder, "receipt.jws", bytes)?),
                None => None,
            },
            chain: match optional(folder, "chain.json")? {
                Some(_) => Some(parse(folder, "chain.json")?),
                None => None,
            },
        })
    }
}

/// `output.txt` for the first choice, `output.1.txt` for the second, …
fn output_name(choice: usize) -> String {
    match choice {
        0 => "output.txt".to_owned(),
        _ => format!("output.{choice}.txt"),
    }
}

fn checkpoint_name(part: usize) -> String {
    format!("checkpoint.{part}.jws")
}

fn partial_beside(folder: &Path) -> PathBuf {
    let mut name = folder.components().as_path().as_os_str().to_owned();
    name.push(format!(".partial-{}", std::process::id()));
    name.into()
}

fn write_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn json(value: &impl Serialize) -> Vec<u8> {
    let mut text = serde_json::to_vec_pretty(value).expect("strings and numbers always have JSON");
    text.push(b'\n');
    text
}

/// Reads a file that somebody else may have put there: a regular one, of at most 64 MiB.
/// A pipe or a device would never end.
pub fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let refused = |why| Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    if !fs::metadata(path)?.is_file() {
        return refused("it isn't a regular file");
    }
    let mut bytes = Vec::new();
    let mut file = File::open(path)?.take(FILE_MAX + 1);
    match file.read_to_end(&mut bytes)? as u64 {
        0..=FILE_MAX => Ok(bytes),
        _ => refused("it is larger than 64 MiB"),
    }
}

fn optional(folder: &Path, name: &str) -> Result<Option<Vec<u8>>, SaveError> {
    match read_file(&folder.join(name)) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(io_error("reading", &folder.join(name), source)),
    }
}

fn required(folder: &Path, name: &str) -> Result<Vec<u8>, SaveError> {
    read_file(&folder.join(name)).map_err(|source| io_error("reading", &folder.join(name), source))
}

fn utf8(folder: &Path, name: &str, bytes: Vec<u8>) -> Result<String, SaveError> {
    String::from_utf8(bytes).map_err(|error| SaveError::Malformed {
        path: folder.join(name),
        why: error.to_string(),
    })
}

fn parse<T: for<'de> Deserialize<'de>>(folder: &Path, name: &str) -> Result<T, SaveError> {
    serde_json::from_slice(&required(folder, name)?).map_err(|error| SaveError::Malformed {
        path: folder.join(name),
        why: error.to_string(),
    })
}

fn io_error(doing: &'static str, path: &Path, source: io::Error) -> SaveError {
    SaveError::Io {
        doing,
        path: path.into(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn answer() -> SavedAnswer {
        SavedAnswer {
            about: About {
                v: VERSION,
                url: "http://127.0.0.1:8080".into(),
                sent_ms: 1,
                received_ms: 2,
                status: 200,
                content_type: Some("text/event-stream".into()),
                gateway: None,
                verified: false,
                failed_check: Some("text".into()),
                reason: Some("one character differs".into()),
            },
            request: b"{\"a\": 1}".to_vec(),
            signature: SavedSignature {
                method: "POST".into(),
                authority: "127.0.0.1:8080".into(),
                path: "/v1/completions".into(),
                query: None,
                content_digest: Some("sha-256=:AA==:".into()),
                signature_input: Some("sig1=()".into()),
                signature: Some("sig1=:AA==:".into()),
            },
            response: b"data: \xff\n\n".to_vec(),
            outputs: vec!["one\n".into(), String::new(), "drei ß".into()],
            receipt: Some("a.b.c".into()),
            checkpoints: vec!["g.h.i".into(), "j.k.l".into()],
            chain: Some(vec!["d.e.f".into()]),
        }
    }

    #[test]
    fn what_is_written_reads_back() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("some/answer");
        answer().write(&folder).unwrap();
        assert_eq!(SavedAnswer::read(&folder).unwrap(), answer());
        assert_eq!(fs::metadata(&folder).unwrap().mode() & 0o777, 0o700);
        for file in fs::read_dir(&folder).unwrap() {
            let file = file.unwrap();
            assert_eq!(
                file.metadata().unwrap().mode() & 0o777,
                0o600,
                "{:?}",
                file.path()
            );
        }
        // Nothing else is left lying about.
        assert_eq!(fs::read_dir(folder.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn absent_parts_stay_absent() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("answer/");
        let cut = SavedAnswer {
            outputs: vec![],
            receipt: None,
            checkpoints: vec![],
            chain: None,
            ..answer()
        };
        cut.write(&folder).unwrap();
        assert_eq!(SavedAnswer::read(&folder).unwrap(), cut);
    }

    #[test]
    fn exact_bytes_are_kept() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("answer");
        answer().write(&folder).unwrap();
        let read = |name| fs::read(folder.join(name)).unwrap();
        assert_eq!(read("request.json"), answer().request);
        assert_eq!(read("response.txt"), answer().response);
        assert_eq!(read("receipt.jws"), b"a.b.c");
        assert_eq!(read("output.2.txt"), "drei ß".as_bytes());
    }

    #[test]
    fn nothing_is_overwritten() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("answer");
        fs::create_dir(&folder).unwrap();
        answer().write(&folder).unwrap();
        assert!(matches!(
            answer().write(&folder),
            Err(SaveError::Exists { .. })
        ));
        let file = parent.path().join("file");
        fs::write(&file, "x").unwrap();
        assert!(matches!(
            answer().write(&file),
            Err(SaveError::Exists { .. })
        ));
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 2);
    }

    #[test]
    fn what_never_ends_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("receipt.jws");
        std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
        assert!(read_file(&path).is_err());
        fs::remove_file(&path).unwrap();
        let file = File::create(&path).unwrap();
        file.set_len(FILE_MAX + 1).unwrap();
        assert!(read_file(&path).is_err());
        file.set_len(3).unwrap();
        assert_eq!(read_file(&path).unwrap(), [0; 3]);
    }

    #[test]
    fn other_folders_are_refused() {
        let parent = tempfile::tempdir().unwrap();
        assert!(matches!(
            SavedAnswer::read(parent.path()),
            Err(SaveError::Io { .. })
        ));
        let folder = parent.path().join("answer");
        let newer = SavedAnswer {
            about: About {
                v: 2,
                ..answer().about
            },
            ..answer()
        };
        newer.write(&folder).unwrap();
        assert!(matches!(
            SavedAnswer::read(&folder),
            Err(SaveError::Malformed { .. })
        ));
    }
}
