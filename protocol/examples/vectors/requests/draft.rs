//! A request that is signed as drafted, and then sent, perhaps changed. Its
//! signature base is built here by hand, without the code that it tests.

use std::collections::BTreeMap;

use protocol::Digest;
use protocol::receipt::RequestLine;
use serde_json::{Map, Value, json};

use super::super::forge::{base64, did, key};
use super::super::honest::{AUTHORITY, BODY, CLIENT, NOW_S, PATH};
use super::{facts, invalid_case, valid_case};

const PARAMS: &str =
    "created={created};expires={expires};nonce=\"{nonce}\";keyid=\"{did}\";tag=\"countersign\"";

#[derive(Clone)]
pub struct Draft {
    pub body: String,
    method: String,
    authority: String,
    path: String,
    query: Option<String>,
    fields: Vec<(String, String)>,
    items: Vec<String>,
    label: String,
    params: String,
    created: u64,
    expires: u64,
    nonce: String,
    /// What is sent otherwise than signed: members of the case.
    sent: Map<String, Value>,
    sent_fields: Vec<(String, String)>,
    left_out: Vec<String>,
    raw_input: String,
    raw_signature: String,
    input_change: Option<(String, String)>,
}

pub fn content_digest(body: &str) -> String {
    format!(
        "sha-256=:{}:",
        base64(Digest::of(body.as_bytes()).as_bytes())
    )
}

impl Draft {
    pub fn new() -> Self {
        Draft {
            body: BODY.to_owned(),
            method: "POST".to_owned(),
            authority: AUTHORITY.to_owned(),
            path: PATH.to_owned(),
            query: None,
            fields: vec![
                ("content-type".to_owned(), "application/json".to_owned()),
                ("content-digest".to_owned(), content_digest(BODY)),
            ],
            items: [
                "@method",
                "@authority",
                "@path",
                "content-digest",
                "content-type",
            ]
            .map(|name| format!("\"{name}\""))
            .to_vec(),
            label: "countersign".to_owned(),
            params: PARAMS.to_owned(),
            created: NOW_S,
            expires: NOW_S + 60,
            nonce: "BwcHBwcHBwcHBwcHBwcHBw".to_owned(),
            sent: Map::new(),
            sent_fields: Vec::new(),
            left_out: Vec::new(),
            raw_input: "{input}".to_owned(),
            raw_signature: "{label}=:{signature}:".to_owned(),
            input_change: None,
        }
    }

    // What is signed and sent.

    pub fn method(mut self, method: &str) -> Self {
        self.method = method.to_owned();
        self.sent_method(method)
    }

    pub fn authority(mut self, authority: &str) -> Self {
        self.authority = authority.to_lowercase();
        self.sent_authority(authority)
    }

    pub fn path(mut self, path: &str) -> Self {
        self.path = path.to_owned();
        self.sent_path(path)
    }

    pub fn query(mut self, query: &str) -> Self {
        self.query = Some(query.to_owned());
        self.sent_query(query)
    }

    pub fn body(mut self, body: &str) -> Self {
        self.body = body.to_owned();
        self.digest(&content_digest(body)).sent_body(body)
    }

    pub fn digest(mut self, digest: &str) -> Self {
        self.fields[1].1 = digest.to_owned();
        self
    }

    pub fn field(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn covering(self, name: &str) -> Self {
        self.covering_item(&format!("\"{name}\""))
    }

    pub fn covering_item(mut self, item: &str) -> Self {
        self.items.push(item.to_owned());
        self
    }

    pub fn uncovering(mut self, name: &str) -> Self {
        self.items.retain(|item| *item != format!("\"{name}\""));
        self
    }

    pub fn order(mut self, names: &[&str]) -> Self {
        self.items = names.iter().map(|name| format!("\"{name}\"")).collect();
        self
    }

    pub fn label(mut self, label: &str) -> Self {
        self.label = label.to_owned();
        self
    }

    pub fn params(mut self, params: &str) -> Self {
        self.params = params.to_owned();
        self
    }

    /// Sets a parameter's text, or adds one in front of the tag.
    pub fn param(self, name: &str, text: &str) -> Self {
        let params = self
            .params
            .split(';')
            .filter(|param| !param.starts_with(&format!("{name}=")));
        let mut params: Vec<String> = params.map(str::to_owned).collect();
        params.insert(params.len() - 1, format!("{name}={text}"));
        let params = params.join(";");
        self.params(&params)
    }

    pub fn without_param(self, name: &str) -> Self {
        let params = self
            .params
            .split(';')
            .filter(|param| !param.starts_with(&format!("{name}=")));
        let params = params.collect::<Vec<_>>().join(";");
        self.params(&params)
    }

    pub fn nonce(mut self, nonce: &str) -> Self {
        self.nonce = nonce.to_owned();
        self
    }

    pub fn times(mut self, created: u64, expires: u64) -> Self {
        (self.created, self.expires) = (created, expires);
        self
    }

    // What is sent otherwise.

    pub fn sent_method(self, method: &str) -> Self {
        self.sent("method", json!(method))
    }

    pub fn sent_authority(self, authority: &str) -> Self {
        self.sent("authority", json!(authority))
    }

    pub fn sent_path(self, path: &str) -> Self {
        self.sent("path", json!(path))
    }

    pub fn sent_query(self, query: &str) -> Self {
        self.sent("query", json!(query))
    }

    pub fn sent_body(self, body: &str) -> Self {
        self.sent("body", json!(body))
    }

    pub fn now(self, now_ms: u64) -> Self {
        self.sent("now_ms", json!(now_ms))
    }

    pub fn sent_field(mut self, name: &str, value: &str) -> Self {
        self.sent_fields.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn without(mut self, name: &str) -> Self {
        self.left_out.push(name.to_owned());
        self
    }

    pub fn raw_input(mut self, text: &str) -> Self {
        self.raw_input = text.to_owned();
        self
    }

    pub fn raw_signature(mut self, text: &str) -> Self {
        self.raw_signature = text.to_owned();
        self
    }

    pub fn change_input(mut self, from: &str, to: &str) -> Self {
        self.input_change = Some((from.to_owned(), to.to_owned()));
        self
    }

    pub fn also(self, input: &str, signature: &str) -> Self {
        self.raw_input(&format!("{input}, {{input}}"))
            .raw_signature(&format!("{signature}, {{label}}=:{{signature}}:"))
    }

    fn sent(mut self, member: &str, value: Value) -> Self {
        self.sent.insert(member.to_owned(), value);
        self
    }

    // What comes of it.

    pub fn valid(self, name: &str) -> Value {
        let mut members = self.members();
        let facts = facts(&self).as_object().cloned().unwrap_or_default();
        members.extend(facts);
        valid_case(name, Value::Object(members))
    }

    pub fn invalid(self, name: &str, code: &str) -> Value {
        invalid_case(name, code, Value::Object(self.members()))
    }

    /// The request with other signature fields, none of them ours.
    pub fn unsigned(self, name: &str, fields: &[(&str, &str)]) -> Value {
        let mut members = self.sent.clone();
        let fields: Vec<_> = fields.iter().map(|(n, v)| json!([n, v])).collect();
        members.insert("headers".to_owned(), json!(fields));
        members.insert("signed".to_owned(), json!(false));
        valid_case(name, Value::Object(members))
    }

    fn members(&self) -> Map<String, Value> {
        let mut fields: Vec<(String, String)> = self
            .fields
            .iter()
            .map(|(name, value)| {
                let other = self.sent_fields.iter().find(|(sent, _)| sent == name);
                (
                    name.clone(),
                    other.map_or(value, |(_, value)| value).clone(),
                )
            })
            .collect();
        let mut input = self.raw_input.replace("{input}", &self.input());
        if let Some((from, to)) = &self.input_change {
            assert!(input.contains(from), "{from}");
            input = input.replacen(from, to, 1);
        }
        let signature = base64(&key(CLIENT).sign(self.base().as_bytes()));
        let signature = self.raw_signature.replace("{signature}", &signature);
        for (name, text) in [("signature-input", input), ("signature", signature)] {
            fields.push((name.to_owned(), text.replace("{label}", &self.label)));
        }
        fields.retain(|(name, _)| !self.left_out.contains(name));
        let mut members = self.sent.clone();
        members.insert("headers".to_owned(), json!(fields));
        members
    }

    fn params_text(&self) -> String {
        self.params
            .replace("{created}", &self.created.to_string())
            .replace("{expires}", &self.expires.to_string())
            .replace("{nonce}", &self.nonce)
            .replace("{did}", &did(CLIENT).to_string())
    }

    fn list(&self) -> String {
        format!("({});{}", self.items.join(" "), self.params_text())
    }

    fn input(&self) -> String {
        format!("{}={}", self.label, self.list())
    }

    /// RFC 9421, 2.5.
    pub fn base(&self) -> String {
        let mut lines: Vec<String> = self
            .items
            .iter()
            .map(|item| format!("{item}: {}", self.value(item.trim_matches('"'))))
            .collect();
        lines.push(format!("\"@signature-params\": {}", self.list()));
        lines.join("\n")
    }

    fn value(&self, name: &str) -> String {
        match name {
            "@method" => self.method.clone(),
            "@authority" => self.authority.clone(),
            "@path" => self.path.clone(),
            "@query" => format!("?{}", self.query.as_deref().unwrap_or_default()),
            field => {
                let lines = self.fields.iter().filter(|(name, _)| name == field);
                lines
                    .map(|(_, value)| value.as_str())
                    .collect::<Vec<_>>()
                    .join(", ")
            }
        }
    }

    /// What a receipt keeps of the request.
    pub fn keep(&self, line: &mut RequestLine) {
        line.method.clone_from(&self.method);
        line.authority.clone_from(&self.authority);
        line.path.clone_from(&self.path);
        line.query.clone_from(&self.query);
        let fields = self.items.iter().map(|item| item.trim_matches('"'));
        line.headers = fields
            .filter(|name| !name.starts_with('@'))
            .map(|name| (name.to_owned(), self.value(name)))
            .collect::<BTreeMap<_, _>>();
        let signature = base64(&key(CLIENT).sign(self.base().as_bytes()));
        line.signature_input = Some(self.input());
        line.signature = Some(format!("{}=:{signature}:", self.label));
    }
}
