//! The models that may be served: the manifests in `models/manifests`, compiled in.
//!
//! What a manifest says is [`protocol::manifest`]'s business. Start at
//! [`Whitelist::embedded`].

use std::sync::LazyLock;

use protocol::ModelDigest;
use protocol::manifest::Manifest;

/// The whitelist.
pub struct Whitelist;

static EMBEDDED: LazyLock<Vec<Manifest>> = LazyLock::new(|| {
    let texts = [
        include_str!("../manifests/smollm2-135m-instruct-q4_1.toml"),
        include_str!("../manifests/gemma-3-270m-q4_k_m.toml"),
    ];
    texts
        .iter()
        .map(|text| Manifest::parse(text).expect("the compiled-in manifests are tested"))
        .collect()
});

impl Whitelist {
    /// Every whitelisted model; the first is the one to serve when none is named.
    pub fn embedded() -> &'static [Manifest] {
        &EMBEDDED
    }

    /// The model with this name.
    pub fn by_id(id: &str) -> Option<&'static Manifest> {
        Whitelist::embedded().iter().find(|m| m.identity.id == id)
    }

    /// The model with this digest.
    pub fn by_digest(digest: &ModelDigest) -> Option<&'static Manifest> {
        Whitelist::embedded().iter().find(|m| m.digest() == *digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn embedded_manifests_are_read() {
        let all = Whitelist::embedded();
        let ids: Vec<&str> = all.iter().map(|m| m.identity.id.as_str()).collect();
        assert_eq!(ids, ["smollm2-135m-instruct", "gemma-3-270m"]);
        for manifest in all {
            assert_eq!(Whitelist::by_id(&manifest.identity.id), Some(manifest));
            assert_eq!(Whitelist::by_digest(&manifest.digest()), Some(manifest));
            assert!(!manifest.sources.is_empty());
        }
        assert_eq!(Whitelist::by_id("gpt-5"), None);
    }
}
