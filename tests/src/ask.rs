//! Asks a gateway over HTTP/1.1 or HTTP/2, signed or not, and keeps what came
//! back as it was read: [`Answer::proven`] then holds it against its receipt.
//!
//! This is no client of ours: it knows the API's JSON and, for the proof, the
//! formats of `protocol`. Start at [`Asker`].

use std::net::SocketAddr;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http_body_util::BodyExt;
use protocol::credential::Chain;
use protocol::receipt::{SignedReceipt, VerifiedReceipt};
use protocol::request_signature::{RequestHead, SignatureHeaders, sign};
use protocol::{Digest, SigningKey};
use serde_json::Value;
use transport::sse::{DONE_DATA, Decoder};
use transport::{Body, ConnectLimits, Connector, Http};

use crate::raw;
use crate::up::Up;

/// Somebody who asks one gateway.
pub struct Asker {
    to: SocketAddr,
    gateway: protocol::Did,
    http: Http,
    key: Option<SigningKey>,
}

/// What came back, as it was read.
#[derive(Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The response header of that name.
    pub request_id: Option<String>,
    /// The body, or every event of the stream but `[DONE]`.
    pub events: Vec<Value>,
    /// Whether a stream ended with `[DONE]`; true for a body.
    pub done: bool,
}

impl Asker {
    /// One who doesn't sign.
    pub fn anonymous(up: &Up, http: Http) -> Self {
        Self {
            to: up.http,
            gateway: up.gateway.parse().expect("the banner names a DID"),
            http,
            key: None,
        }
    }

    /// One who signs with a key of its own.
    pub fn signing(up: &Up, http: Http) -> Self {
        let key = SigningKey::from_seed(random());
        Self {
            key: Some(key),
            ..Self::anonymous(up, http)
        }
    }

    /// One who signs with the key in that file.
    pub fn with_key_file(up: &Up, http: Http, file: &Path) -> Self {
        let pem = std::fs::read_to_string(file).expect("the key file can be read");
        let key = SigningKey::from_pkcs8_pem(&pem).expect("it holds a key");
        Self {
            key: Some(key),
            ..Self::anonymous(up, http)
        }
    }

    /// The same one, asking another gateway.
    pub fn moved_to(self, up: &Up) -> Self {
        Self {
            key: self.key,
            ..Self::anonymous(up, self.http)
        }
    }

    /// Who signs.
    pub fn did(&self) -> Option<protocol::Did> {
        self.key.as_ref().map(SigningKey::did)
    }

    /// Posts JSON.
    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.send("POST", path, body.to_string().into_bytes())
    }

    /// Gets.
    pub fn get(&self, path: &str) -> Answer {
        self.send("GET", path, Vec::new())
    }

    /// The header fields that a signed request has beside `host`.
    pub fn fields(&self, method: &str, path: &str, body: &[u8]) -> Vec<(String, String)> {
        let mut fields = Vec::new();
        if method == "POST" {
            fields.push(("content-type".to_owned(), "application/json".to_owned()));
        }
        if let Some(key) = &self.key {
            let signed = signed(key, &self.to.to_string(), method, path, &fields, body);
            fields.extend(
                signed
                    .fields()
                    .map(|(name, value)| (name.to_owned(), value.to_owned())),
            );
        }
        fields
    }

    /// A signed POST of JSON for the bare client, which sends the same bytes as often as it is told to.
    pub fn raw(&self, path: &str, body: &str) -> raw::Request {
        let fields = self.fields("POST", path, body.as_bytes());
        let request = raw::Request::post(path, body);
        // It brings its own content type.
        let fields = fields.iter().filter(|(name, _)| name != "content-type");
        fields.fold(request, |request, (name, value)| {
            request.header(name, value)
        })
    }

    fn send(&self, method: &str, path: &str, body: Vec<u8>) -> Answer {
        let mut request = http::Request::builder().method(method).uri(path);
        for (name, value) in self.fields(method, path, &body) {
            request = request.header(name, value);
        }
        let request = request.body(Body::from(body)).expect("a request");
        let authority = self.to.to_string().parse().expect("an authority");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let connector = Connector::tcp(authority, self.http, ConnectLimits::default());
            let response = connector.send(request).await.expect("the gateway answers");
            let (head, body) = response.into_parts();
            let body = body.collect().await.expect("the body is whole").to_bytes();
            Answer::read(&head, body)
        })
    }
}

impl Answer {
    fn read(head: &http::response::Parts, body: Bytes) -> Self {
        let header = |name: &str| {
            let value = head.headers.get(name)?;
            Some(value.to_str().expect("headers are ASCII").to_owned())
        };
        let (events, done) =
            if header("content-type").is_some_and(|kind| kind.starts_with("text/event-stream")) {
                events(&body)
            } else {
                let value = serde_json::from_slice(&body);
                (
                    vec![value.unwrap_or_else(|_| panic!("not JSON: {body:?}"))],
                    true,
                )
            };
        Self {
            status: head.status.as_u16(),
            request_id: header("x-request-id"),
            events,
            done,
        }
    }

    /// The only event: the body of an answer that isn't a stream.
    pub fn body(&self) -> &Value {
        assert_eq!(self.events.len(), 1, "not a single body: {:?}", self.events);
        &self.events[0]
    }

    /// The body of a 200.
    pub fn ok(&self) -> &Value {
        assert_eq!(self.status, 200, "{:?}", self.events);
        self.body()
    }

    /// The id, the same in every event.
    pub fn id(&self) -> &str {
        let id = self.events[0]["id"].as_str().expect("an id");
        assert!(
            self.events.iter().all(|event| event["id"] == id),
            "one id: {:?}",
            self.events
        );
        id
    }

    /// What a choice says, put together from what was read.
    pub fn text(&self, choice: u64) -> String {
        self.of_choice(choice)
            .filter_map(|choice| {
                let holder = choice.get("delta").or_else(|| choice.get("message"));
                let text = match holder {
                    Some(holder) => &holder["content"],
                    None => &choice["text"],
                };
                text.as_str()
            })
            .collect()
    }

    /// The token ids of a choice, where they were asked for.
    pub fn token_ids(&self, choice: u64) -> Vec<u32> {
        self.of_choice(choice)
            .filter_map(|choice| choice.get("token_ids")?.as_array())
            .flatten()
            .map(|id| u32::try_from(id.as_u64().expect("an id")).expect("a token id"))
            .collect()
    }

    /// How a choice ended.
    pub fn finish(&self, choice: u64) -> &str {
        let said = self
            .of_choice(choice)
            .filter_map(|choice| choice["finish_reason"].as_str());
        let said: Vec<&str> = said.collect();
        assert_eq!(said.len(), 1, "a choice ends once: {:?}", self.events);
        said[0]
    }

    /// How many choices there are.
    pub fn choices(&self) -> u64 {
        let numbers = self
            .all_choices()
            .filter_map(|choice| choice["index"].as_u64());
        numbers.max().map_or(0, |last| last + 1)
    }

    /// The receipt, the same wherever it stands.
    pub fn receipt(&self) -> &str {
        let mut receipts = self
            .events
            .iter()
            .filter_map(|event| event.get("receipt")?.as_str());
        let receipt = receipts.next().expect("a receipt");
        assert!(receipts.all(|other| other == receipt), "one receipt");
        receipt
    }

    /// The receipt, once it is proved to be over this answer: by the chain that the gateway keeps, for this asker.
    pub fn proven(&self, asker: &Asker) -> VerifiedReceipt {
        assert_eq!(self.status, 200, "{:?}", self.events);
        assert!(self.done, "the stream ended with [DONE]");
        assert_eq!(self.request_id.as_deref(), Some(self.id()));
        let kept = asker.get(&format!("/v1/receipts/{}", self.id()));
        assert_eq!(kept.ok()["receipt"], self.receipt());
        let receipt = verified(asker, kept.body());
        let claims = receipt.claims();
        assert_eq!(claims.jti.as_str(), self.id());
        assert_eq!(claims.sub, asker.did());
        assert_eq!(claims.output.len() as u64, self.choices());
        for (choice, output) in (0..).zip(&claims.output) {
            assert_eq!(output.text_sha256, Digest::of(self.text(choice).as_bytes()));
            assert_eq!(output.finish.as_str(), self.finish(choice));
        }
        receipt
    }

    fn all_choices(&self) -> impl Iterator<Item = &Value> {
        self.events
            .iter()
            .filter_map(|event| event["choices"].as_array())
            .flatten()
    }

    fn of_choice(&self, number: u64) -> impl Iterator<Item = &Value> {
        self.all_choices()
            .filter(move |choice| choice["index"] == number)
    }
}

/// What the gateway keeps for a request, once its chain is proved to end in the gateway's key.
pub fn verified(asker: &Asker, kept: &Value) -> VerifiedReceipt {
    let chain: Chain = serde_json::from_value(kept["chain"].clone()).expect("a chain");
    let credential = chain.verify(&asker.gateway).expect("the chain holds");
    let receipt = kept["receipt"].as_str().expect("a receipt");
    let receipt = SignedReceipt::parse(receipt).expect("the receipt is well-formed");
    receipt.verify(&credential).expect("the receipt holds")
}

/// The headers of a signature made now.
pub fn signed(
    key: &SigningKey,
    authority: &str,
    method: &str,
    path: &str,
    fields: &[(String, String)],
    body: &[u8],
) -> SignatureHeaders {
    let fields: Vec<(&str, &str)> = fields
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let head = RequestHead {
        method,
        authority,
        path,
        query: None,
        headers: &fields,
    };
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("it is past 1970")
        .as_secs();
    sign(key, &head, body, now, now + 60, random())
}

/// Fresh random bytes.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the system has randomness");
    bytes
}

fn events(body: &[u8]) -> (Vec<Value>, bool) {
    let mut events = Vec::new();
    Decoder::new(16 << 20)
        .push(body, &mut events)
        .expect("an event stream");
    let done = events.last().is_some_and(|event| event.data == DONE_DATA);
    let events = events
        .iter()
        .filter(|event| event.data != DONE_DATA)
        .map(|event| serde_json::from_str(&event.data).expect("events are JSON"));
    (events.collect(), done)
}
