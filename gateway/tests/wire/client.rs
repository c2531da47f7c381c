//! A client that signs, and what it reads back.

use std::sync::atomic::{AtomicU64, Ordering};

use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::BodyExt;
use protocol::credential::Chain;
use protocol::receipt::{SignedReceipt, VerifiedReceipt};
use protocol::request_signature::{self, RequestHead};
use protocol::{Did, SigningKey};
use serde_json::{Value, json};
use transport::{Body, sse};

use crate::cluster::in_time;
use crate::engine::now;

pub const CHAT: &str = "/v1/chat/completions";

/// Somebody with a key. Each request gets a nonce of its own.
pub struct Client {
    key: SigningKey,
    /// How far its clock is off, in seconds.
    pub off_s: i64,
}

/// Nonces are the tests' own, so that they may be used twice on purpose.
static NONCES: AtomicU64 = AtomicU64::new(0);

impl Client {
    pub fn new(seed: u8) -> Self {
        Self {
            key: SigningKey::from_seed([seed; 32]),
            off_s: 0,
        }
    }

    pub fn did(&self) -> Did {
        self.key.did()
    }

    /// A signed request: a function, since sending one twice is what some
    /// tests are about.
    pub fn signed(&self, method: &str, authority: &str, path: &str, body: &str) -> Signed {
        let mut nonce = [0; 16];
        let number = NONCES.fetch_add(1, Ordering::Relaxed);
        nonce[..8].copy_from_slice(&number.to_le_bytes());
        let head = RequestHead {
            method,
            authority,
            path,
            query: None,
            headers: &[("content-type", "application/json")],
        };
        let created_s = now().as_secs().checked_add_signed(self.off_s).unwrap();
        let expires_s = created_s + 60;
        let made = request_signature::sign(
            &self.key,
            &head,
            body.as_bytes(),
            created_s,
            expires_s,
            nonce,
        );
        let mut headers = HeaderMap::new();
        for (name, value) in made.fields() {
            headers.insert(name, HeaderValue::from_str(value).unwrap());
        }
        let json = HeaderValue::from_static("application/json");
        headers.insert("content-type", json);
        let host = HeaderValue::from_str(authority).unwrap();
        headers.insert("host", host);
        Signed {
            method: method.to_owned(),
            path: path.to_owned(),
            headers,
            body: body.to_owned(),
        }
    }

    pub fn chat(&self, authority: &str, body: &Value) -> Request<Body> {
        let signed = self.signed("POST", authority, CHAT, &body.to_string());
        signed.request()
    }

    pub fn get(&self, authority: &str, path: &str) -> Request<Body> {
        self.signed("GET", authority, path, "").request()
    }
}

/// A signed request that can be sent any number of times.
#[derive(Clone)]
pub struct Signed {
    method: String,
    path: String,
    pub headers: HeaderMap,
    body: String,
}

impl Signed {
    pub fn request(&self) -> Request<Body> {
        let mut request = Request::new(Body::from(self.body.clone()));
        *request.method_mut() = self.method.parse().unwrap();
        *request.uri_mut() = self.path.parse().unwrap();
        *request.headers_mut() = self.headers.clone();
        request
    }
}

/// "Say something", to be streamed or not.
pub fn ask(stream: bool) -> Value {
    let messages = json!([{"role": "user", "content": "Say something."}]);
    json!({"model": "model-1", "messages": messages, "stream": stream})
}

pub fn unsigned(path: &str, body: impl Into<Body>) -> Request<Body> {
    Request::post(path).body(body.into()).unwrap()
}

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub text: String,
}

impl Answer {
    /// Reads to the end, which must be an orderly one.
    pub async fn of(response: Response<Body>) -> Self {
        let (head, body) = response.into_parts();
        let bytes = in_time(body.collect()).await.unwrap().to_bytes();
        Self {
            status: head.status,
            headers: head.headers,
            text: String::from_utf8(bytes.to_vec()).unwrap(),
        }
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("{self:?}"))
    }

    /// Status and code of an OpenAI-shaped error.
    pub fn error(&self) -> (u16, String) {
        let body = self.json();
        let error = &body["error"];
        assert!(
            error["message"].is_string() && error["type"].is_string(),
            "{body}"
        );
        assert!(error.get("param").is_some(), "{body}");
        assert!(self.headers.contains_key("x-request-id"), "{self:?}");
        let code = error["code"].as_str().unwrap();
        (self.status.as_u16(), code.to_owned())
    }

    pub fn request_id(&self) -> &str {
        self.headers["x-request-id"].to_str().unwrap()
    }

    /// The data of a stream's events.
    pub fn events(&self) -> Vec<String> {
        let mut decoder = sse::Decoder::new(1 << 20);
        let mut events = Vec::new();
        decoder.push(self.text.as_bytes(), &mut events).unwrap();
        assert!(decoder.is_between_events(), "{}", self.text);
        events.into_iter().map(|event| event.data).collect()
    }

    /// The text of a stream, and the code of its error or its `[DONE]`.
    pub fn told(&self) -> (String, String) {
        let mut text = String::new();
        let mut end = String::new();
        for event in self.events() {
            assert!(end.is_empty(), "{event} comes after {end}");
            let Ok(event) = serde_json::from_str::<Value>(&event) else {
                end = event;
                continue;
            };
            if let Some(code) = event["error"]["code"].as_str() {
                end = code.to_owned();
            }
            let delta = &event["choices"][0]["delta"]["content"];
            text.push_str(delta.as_str().unwrap_or_default());
        }
        (text, end)
    }

    /// The receipt that the events carry.
    pub fn streamed_receipt(&self) -> String {
        let carried = self.events().iter().find_map(|event| {
            let event: Value = serde_json::from_str(event).ok()?;
            Some(event["receipt"].as_str()?.to_owned())
        });
        carried.unwrap()
    }

    /// A receipt as the gateway hands it out, checked up to its DID.
    pub fn verified_receipt(&self, gateway: &Did) -> VerifiedReceipt {
        assert_eq!(self.status, 200, "{self:?}");
        let body = self.json();
        let chain: Chain = serde_json::from_value(body["chain"].clone()).unwrap();
        let credential = chain.verify(gateway).unwrap();
        let receipt = SignedReceipt::parse(body["receipt"].as_str().unwrap()).unwrap();
        receipt.verify(&credential).unwrap()
    }
}
