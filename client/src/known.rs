//! The known-gateways file: which gateway key answers at which authority, and
//! which weights a gateway means by a model's name.
//!
//! First use is told and kept; a change afterwards is never accepted silently.
//! Deciding what is right lies in `check`; this is the memory. Start at
//! [`KnownGateways::load`] and [`KnownGateways::remember`].

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use protocol::{Did, ModelDigest};
use serde::{Deserialize, Serialize};

/// What is known about gateways.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KnownGateways {
    /// By authority, as in signatures: `127.0.0.1:8080`.
    #[serde(
        default,
        rename = "authority",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    authorities: BTreeMap<String, KnownAuthority>,
    /// By the gateway's key.
    #[serde(
        default,
        rename = "gateway",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    gateways: BTreeMap<Did, KnownGateway>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KnownAuthority {
    gateway: Did,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KnownGateway {
    #[serde(default, rename = "model")]
    models: BTreeMap<String, KnownModel>,
}

/// What a model's name stood for when it was first used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KnownModel {
    /// The digest of its manifest.
    pub digest: ModelDigest,
    /// The arithmetic it was computed with.
    pub numerics: String,
}

/// Something used for the first time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FirstUse {
    /// A gateway's key.
    Gateway {
        /// Where it answered.
        authority: String,
        /// Its key.
        gateway: Did,
    },
    /// A model that no whitelist knows.
    Model {
        /// Whose model.
        gateway: Did,
        /// Its name.
        model: String,
        /// What the name stands for from now on.
        known: KnownModel,
    },
}

/// Why the file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum KnownGatewaysError {
    /// It isn't ours, or was edited into something else.
    #[error("{} can't be read as a list of known gateways", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// Meanwhile someone else wrote down something different.
    #[error("{} meanwhile says something else about {about}", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
        /// The authority or the model.
        about: String,
    },
    /// The file system said no.
    #[error("{doing} {}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

const HEADER: &str = "\
# Gateways that were used before. A key or a model's digest that changes is an
# error: remove its lines here only if you know why it changed.

";

impl KnownGateways {
    /// Reads the file; one that isn't there knows nothing.
    pub fn load(path: &Path) -> Result<KnownGateways, KnownGatewaysError> {
        match fs::read_to_string(path) {
            Ok(text) => toml::from_str(&text).map_err(|source| KnownGatewaysError::Malformed {
                path: path.into(),
                source: Box::new(source),
            }),
            Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(KnownGateways::default()),
            Err(source) => Err(io_error("reading", path, source)),
        }
    }

    /// The key that answered at this authority before.
    pub fn gateway(&self, authority: &str) -> Option<Did> {
        self.authorities.get(authority).map(|known| known.gateway)
    }

    /// What this gateway meant by this model's name before.
    pub fn model(&self, gateway: &Did, model: &str) -> Option<&KnownModel> {
        self.gateways.get(gateway)?.models.get(model)
    }

    /// Writes first uses down, beside whatever another process wrote since
    /// the file was read; what that process wrote is never replaced.
    pub fn remember(path: &Path, uses: &[FirstUse]) -> Result<(), KnownGatewaysError> {
        if uses.is_empty() {
            return Ok(());
        }
        let lock = lock(path).map_err(|source| io_error("locking", path, source))?;
        let mut known = KnownGateways::load(path)?;
        for first in uses {
            known
                .add(first)
                .map_err(|about| KnownGatewaysError::Changed {
                    path: path.into(),
                    about,
                })?;
        }
        known
            .write(path)
            .map_err(|source| io_error("writing", path, source))?;
        drop(lock);
        Ok(())
    }

    fn add(&mut self, first: &FirstUse) -> Result<(), String> {
        match first {
            FirstUse::Gateway { authority, gateway } => {
                let entry = KnownAuthority { gateway: *gateway };
                if self
                    .authorities
                    .entry(authority.clone())
                    .or_insert(entry)
                    .gateway
                    != *gateway
                {
                    return Err(authority.clone());
                }
            }
            FirstUse::Model {
                gateway,
                model,
                known,
            } => {
                let models = &mut self.gateways.entry(*gateway).or_default().models;
                if models.entry(model.clone()).or_insert(known.clone()) != known {
                    return Err(model.clone());
                }
            }
        }
        Ok(())
    }

    fn write(&self, path: &Path) -> io::Result<()> {
        let text = toml::to_string(self).map_err(io::Error::other)?;
        let partial = beside(path, "partial");
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&partial)?;
        file.write_all(HEADER.as_bytes())?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&partial, path)
    }
}

/// Held while the file is read and written again; the system lets go of it
/// when a process dies.
fn lock(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(beside(path, "lock"))?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive)?;
    Ok(file)
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    name.into()
}

fn io_error(doing: &'static str, path: &Path, source: io::Error) -> KnownGatewaysError {
    KnownGatewaysError::Io {
        doing,
        path: path.into(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use protocol::SigningKey;

    use super::*;

    fn did(seed: u8) -> Did {
        SigningKey::from_seed([seed; 32]).did()
    }

    fn gateway(authority: &str, seed: u8) -> FirstUse {
        FirstUse::Gateway {
            authority: authority.into(),
            gateway: did(seed),
        }
    }

    fn model(seed: u8, name: &str, digest: u8) -> FirstUse {
        FirstUse::Model {
            gateway: did(seed),
            model: name.into(),
            known: KnownModel {
                digest: format!("{digest:02x}").repeat(32).parse().unwrap(),
                numerics: "candle-cpu/1".into(),
            },
        }
    }

    #[test]
    fn what_is_remembered_is_known_next_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/known-gateways.toml");
        assert_eq!(
            KnownGateways::load(&path).unwrap(),
            KnownGateways::default()
        );

        KnownGateways::remember(
            &path,
            &[gateway("127.0.0.1:8080", 1), model(1, "small one", 7)],
        )
        .unwrap();
        KnownGateways::remember(&path, &[gateway("[::1]:9", 2)]).unwrap();

        let known = KnownGateways::load(&path).unwrap();
        assert_eq!(known.gateway("127.0.0.1:8080"), Some(did(1)));
        assert_eq!(known.gateway("[::1]:9"), Some(did(2)));
        assert_eq!(known.gateway("localhost:8080"), None);
        assert!(known.model(&did(1), "small one").is_some());
        assert!(known.model(&did(2), "small one").is_none());
    }

    #[test]
    fn a_change_is_refused_and_nothing_is_lost() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("known-gateways.toml");
        KnownGateways::remember(&path, &[gateway("a:1", 1), model(1, "m", 7)]).unwrap();
        let before = fs::read(&path).unwrap();
        for change in [gateway("a:1", 2), model(1, "m", 8)] {
            assert!(matches!(
                KnownGateways::remember(&path, &[change]),
                Err(KnownGatewaysError::Changed { .. })
            ));
        }
        KnownGateways::remember(&path, &[gateway("a:1", 1)]).unwrap();
        assert_eq!(fs::read(&path).unwrap(), before);
    }

    #[test]
    fn a_file_that_is_not_ours_stops_us() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("known-gateways.toml");
        for text in [
            "what?",
            "[authority.\"a:1\"]\ngateway = \"did:key:nonsense\"\n",
            "[host]\n",
        ] {
            fs::write(&path, text).unwrap();
            assert!(matches!(
                KnownGateways::load(&path),
                Err(KnownGatewaysError::Malformed { .. })
            ));
            assert!(KnownGateways::remember(&path, &[gateway("a:1", 1)]).is_err());
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
    }
}
