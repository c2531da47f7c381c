//! One member of Signature-Input and of Signature: reading it strictly, and
//! the one spelling that receipts keep.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use sfv::{BareItem, Dictionary, InnerList, ListEntry, Parser};

use super::{LABEL, LIFETIME_S_MAX, Nonce, SKEW_S, SignatureError, TAG, VerifiedSignature, base};
use crate::did::Did;
use crate::digest::Digest;
use crate::receipt::RequestLine;
use crate::time::UnixMs;

/// Longest Signature-Input or Signature field that is read, in bytes.
const FIELD_BYTES_MAX: usize = 8192;

/// A signature's label, what it covers, and its parameters.
#[derive(Debug)]
pub(super) struct Member {
    pub label: String,
    pub components: Vec<String>,
    pub created_s: u64,
    pub expires_s: u64,
    pub nonce: Nonce,
    pub keyid: Did,
    /// `label=(…);…`, in the canonical serialization.
    pub text: String,
}

impl Member {
    /// The one member with our tag, if there is one. // spec 1.2, 1.3
    pub fn find(field: &str) -> Result<Option<Self>, SignatureError> {
        let members = dictionary(field).ok_or(SignatureError::InputForm)??;
        let mut ours = members.iter().filter(|(_, entry)| has_our_tag(entry));
        let Some((label, entry)) = ours.next() else {
            return Ok(None);
        };
        if ours.next().is_some() {
            return Err(SignatureError::Several);
        }
        let ListEntry::InnerList(list) = entry else {
            return Err(SignatureError::InputForm);
        };
        let mut serializer = sfv::DictSerializer::new();
        serializer.members([(label, entry)]);
        let text = serializer.finish().expect("one member isn't nothing");
        Self::read(label.as_str(), list, text).map(Some)
    }

    fn read(label: &str, list: &InnerList, text: String) -> Result<Self, SignatureError> {
        let components = read_components(list)?;
        let mut parameters = Parameters::default();
        for (name, value) in &list.params {
            parameters.take(name.as_str(), value)?;
        }
        let missing = SignatureError::ParameterMissing;
        let created_s = parameters.created.ok_or(missing("created"))?;
        let expires_s = parameters.expires.ok_or(missing("expires"))?;
        let nonce = parameters.nonce.ok_or(missing("nonce"))?;
        let keyid = parameters.keyid.ok_or(missing("keyid"))?;
        if parameters.alg.is_some_and(|alg| alg != "ed25519") {
            return Err(SignatureError::Algorithm);
        }
        Ok(Member {
            label: label.to_owned(),
            components,
            created_s,
            expires_s,
            nonce: Nonce::parse(&nonce).ok_or(SignatureError::Nonce)?,
            keyid: keyid.parse().map_err(SignatureError::KeyId)?,
            text,
        })
    }

    /// What our own signer signs.
    pub fn ours(
        line: &RequestLine,
        created_s: u64,
        expires_s: u64,
        nonce: [u8; 16],
        keyid: Did,
    ) -> Self {
        let components = base::required(line);
        let nonce = Nonce(URL_SAFE_NO_PAD.encode(nonce));
        let text = format!(
            "{LABEL}=(\"{}\");created={created_s};expires={expires_s};nonce=\"{nonce}\";keyid=\"{keyid}\";tag=\"{TAG}\"",
            components.join("\" \""),
        );
        Member {
            label: LABEL.to_owned(),
            components,
            created_s,
            expires_s,
            nonce,
            keyid,
            text,
        }
    }

    /// The value of `@signature-params`: the member without its label.
    pub fn params_text(&self) -> &str {
        &self.text[self.label.len() + 1..]
    }

    /// Whether it lives no longer than it may. // spec 4.4
    pub fn check_lifetime(&self) -> Result<(), SignatureError> {
        match self.expires_s.checked_sub(self.created_s) {
            Some(1..=LIFETIME_S_MAX) => Ok(()),
            _ => Err(SignatureError::Lifetime),
        }
    }

    /// Whether it counts now. // spec 4.5
    pub fn check_clock(&self, now: UnixMs) -> Result<(), SignatureError> {
        let from = UnixMs::from_secs(self.created_s.saturating_sub(SKEW_S));
        let until = UnixMs::from_secs(self.expires_s);
        if from <= now && now <= until {
            return Ok(());
        }
        Err(SignatureError::Clock {
            server: now,
            created_s: self.created_s,
            expires_s: self.expires_s,
        })
    }

    pub fn verified(self, line: RequestLine, body_sha256: Digest) -> VerifiedSignature {
        VerifiedSignature {
            did: self.keyid,
            created_s: self.created_s,
            expires_s: self.expires_s,
            nonce: self.nonce,
            body_sha256,
            line,
        }
    }
}

#[derive(Default)]
struct Parameters {
    created: Option<u64>,
    expires: Option<u64>,
    nonce: Option<String>,
    keyid: Option<String>,
    alg: Option<String>,
}

impl Parameters {
    fn take(&mut self, name: &str, value: &BareItem) -> Result<(), SignatureError> {
        let wrong = || SignatureError::ParameterValue(name.to_owned());
        let time = || {
            let integer = value.as_integer().map(i64::from);
            integer
                .and_then(|at| u64::try_from(at).ok())
                .ok_or_else(wrong)
        };
        let text = || {
            let text = value.as_string().map(|text| text.as_str().to_owned());
            text.ok_or_else(wrong)
        };
        match name {
            "created" => self.created = Some(time()?),
            "expires" => self.expires = Some(time()?),
            "nonce" => self.nonce = Some(text()?),
            "keyid" => self.keyid = Some(text()?),
            "alg" => self.alg = Some(text()?),
            "tag" => {}
            unknown => return Err(SignatureError::ParameterUnknown(unknown.to_owned())),
        }
        Ok(())
    }
}

impl Nonce {
    /// Reads a nonce: 22 to 128 characters of base64 or base64url. // spec 4.3
    pub fn parse(text: &str) -> Option<Self> {
        let plain = text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"+/-_=".contains(&byte));
        ((22..=128).contains(&text.len()) && plain).then(|| Nonce(text.to_owned()))
    }
}

/// The 64 bytes under a label in the field Signature. // spec 1.3
pub(super) fn find_signature(field: &str, label: &str) -> Result<[u8; 64], SignatureError> {
    let form = || SignatureError::SignatureForm {
        label: label.to_owned(),
    };
    let members = dictionary(field).ok_or_else(form)??;
    match members.get(label) {
        Some(ListEntry::Item(item)) if item.params.is_empty() => item
            .bare_item
            .as_byte_sequence()
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or_else(form),
        _ => Err(form()),
    }
}

/// `label=:…:`, in the canonical serialization.
pub(super) fn signature_text(label: &str, signature: &[u8; 64]) -> String {
    format!("{label}=:{}:", STANDARD.encode(signature))
}

fn dictionary(field: &str) -> Option<Result<Dictionary, SignatureError>> {
    if field.len() > FIELD_BYTES_MAX {
        return Some(Err(SignatureError::TooLong {
            what: "a signature field",
            limit: FIELD_BYTES_MAX,
        }));
    }
    Parser::new(field).parse().ok().map(Ok)
}

fn has_our_tag(entry: &ListEntry) -> bool {
    let params = match entry {
        ListEntry::Item(item) => &item.params,
        ListEntry::InnerList(list) => &list.params,
    };
    params
        .get("tag")
        .and_then(BareItem::as_string)
        .is_some_and(|tag| tag.as_str() == TAG)
}

/// The names of the covered components: plain texts that may be covered, once each.
fn read_components(list: &InnerList) -> Result<Vec<String>, SignatureError> {
    let mut names: Vec<String> = Vec::new();
    for item in &list.items {
        let name = match item.bare_item.as_string() {
            Some(name) if item.params.is_empty() && base::is_coverable(name.as_str()) => {
                name.as_str().to_owned()
            }
            _ => {
                let text = sfv::ItemSerializer::new().bare_item(&item.bare_item);
                let text = text.parameters(&item.params).finish();
                return Err(SignatureError::Component(text));
            }
        };
        if names.contains(&name) {
            return Err(SignatureError::ComponentTwice(name));
        }
        names.push(name);
    }
    Ok(names)
}
