//! Asks one gateway: signs each request, sends it, reads the reply.
//!
//! Judging a reply is `check`'s and `trust`'s; here are only the wire and the
//! key. Start at [`Client::ask`].

use std::time::Duration;

use http::{Method, Request, Response, header};
use protocol::credential::Chain;
use protocol::request_signature::{self, RequestHead, SignatureHeaders};
use protocol::{Did, RequestId, SigningKey, UnixMs, json};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use transport::{Body, ConnectError, ConnectLimits, Connector, Http, collect_body};

use crate::base_url::BaseUrl;
use crate::check::{self, Proof};
use crate::clock::now;
use crate::reply::{Reply, ReplyLimits, Sent};

/// How long a signature counts. A request may queue for longer once it is admitted.
const SIGNATURE_LIFETIME_S: u64 = 60;

/// Most bytes of a reply that isn't an answer.
const SMALL_REPLY_BYTES_MAX: usize = 1 << 20;

/// Most bytes of a receipt with its chain and checkpoints, of which a long answer has many.
const KEPT_BYTES_MAX: usize = 64 << 20;

/// Longest time that such a reply may take.
const SMALL_REPLY_TIME: Duration = Duration::from_secs(30);

/// One gateway, asked by one key.
#[derive(Debug)]
pub struct Client {
    url: BaseUrl,
    key: Option<SigningKey>,
    connector: Connector,
    limits: ReplyLimits,
}

/// Why there is no reply at all.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The body isn't one that any gateway accepts.
    #[error("the request isn't valid: {0}")]
    Body(String),
    /// The system's random numbers failed.
    #[error("the system gave no random numbers for a nonce: {0}")]
    Random(getrandom::Error),
    /// The gateway can't be reached, or broke off.
    #[error("asking {url}")]
    Connect {
        /// The gateway.
        url: BaseUrl,
        /// What went wrong.
        #[source]
        source: ConnectError,
    },
    /// A reply that isn't an answer broke off.
    #[error("reading the reply of {url}")]
    Read {
        /// The gateway.
        url: BaseUrl,
        /// What went wrong.
        #[source]
        source: transport::BodyError,
    },
    /// The gateway said no.
    #[error("{url} answered {status}: {message}")]
    Status {
        /// The gateway.
        url: BaseUrl,
        /// The HTTP status.
        status: u16,
        /// What it said.
        message: String,
    },
    /// The reply isn't what the API says.
    #[error("the reply of {url} isn't what the API says: {why}")]
    Malformed {
        /// The gateway.
        url: BaseUrl,
        /// What's wrong.
        why: String,
    },
}

impl Client {
    /// A client of the gateway at `url`. Without a key its requests aren't signed.
    pub fn new(url: BaseUrl, key: Option<SigningKey>, http: Http, limits: ReplyLimits) -> Client {
        let authority = url.to_authority();
        Client {
            connector: Connector::tcp(authority, http, ConnectLimits::default()),
            url,
            key,
            limits,
        }
    }

    /// The gateway's address.
    pub fn url(&self) -> &BaseUrl {
        &self.url
    }

    /// Who asks.
    pub fn did(&self) -> Option<Did> {
        self.key.as_ref().map(SigningKey::did)
    }

    /// Sends `body` to `/v1/chat/completions` or `/v1/completions`.
    pub async fn ask(&self, path: &str, body: Vec<u8>) -> Result<Reply, ClientError> {
        let ask = check::parse_ask(path, &body).map_err(ClientError::Body)?;
        let at = now();
        let (request, signature) = self.request(Method::POST, path, &body, at)?;
        let sent = Sent {
            method: Method::POST.to_string(),
            authority: self.url.authority().to_owned(),
            path: path.to_owned(),
            body,
            ask,
            client: self.did(),
            signature,
            at,
        };
        let response = self.send(request).await?;
        Ok(Reply::new(sent, response, self.limits))
    }

    /// The ids of the models that the gateway serves.
    pub async fn models(&self) -> Result<Vec<String>, ClientError> {
        #[derive(Deserialize)]
        struct List {
            data: Vec<Model>,
        }
        #[derive(Deserialize)]
        struct Model {
            id: String,
        }
        let list: List = self.get("/v1/models", SMALL_REPLY_BYTES_MAX).await?;
        Ok(list.data.into_iter().map(|model| model.id).collect())
    }

    /// The receipt that the gateway keeps, and the chain that goes with it.
    pub async fn proof(&self, id: &RequestId) -> Result<Proof, ClientError> {
        #[derive(Deserialize)]
        struct Kept {
            receipt: Option<String>,
            #[serde(default)]
            checkpoints: Vec<String>,
            chain: Vec<String>,
        }
        let kept: Kept = self
            .get(&format!("/v1/receipts/{id}"), KEPT_BYTES_MAX)
            .await?;
        Ok(Proof {
            receipt: kept.receipt,
            checkpoints: kept.checkpoints,
            chain: Chain(kept.chain),
        })
    }

    async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        bytes_max: usize,
    ) -> Result<T, ClientError> {
        let (request, _) = self.request(Method::GET, path, b"", now())?;
        let response = self.send(request).await?;
        let status = response.status().as_u16();
        let body = collect_body(response.into_body(), bytes_max, SMALL_REPLY_TIME)
            .await
            .map_err(|source| ClientError::Read {
                url: self.url.clone(),
                source,
            })?;
        if status != 200 {
            return Err(ClientError::Status {
                url: self.url.clone(),
                status,
                message: error_message(&body),
            });
        }
        json::parse(&body)
            .map_err(|error| error.to_string())
            .and_then(|value| serde_json::from_value(value).map_err(|error| error.to_string()))
            .map_err(|why| ClientError::Malformed {
                url: self.url.clone(),
                why,
            })
    }

    async fn send(&self, request: Request<Body>) -> Result<Response<Body>, ClientError> {
        self.connector
            .send(request)
            .await
            .map_err(|source| ClientError::Connect {
                url: self.url.clone(),
                source,
            })
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        body: &[u8],
        at: UnixMs,
    ) -> Result<(Request<Body>, Option<SignatureHeaders>), ClientError> {
        let mut headers: Vec<(&str, &str)> = Vec::new();
        if method == Method::POST {
            headers.push((header::CONTENT_TYPE.as_str(), "application/json"));
        }
        let signature = self.sign(&method, path, &headers, body, at)?;
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, self.url.authority())
            .header(header::ACCEPT, "application/json, text/event-stream");
        let signed = signature.iter().flat_map(SignatureHeaders::fields);
        for (name, value) in headers.into_iter().chain(signed) {
            request = request.header(name, value);
        }
        let request = request
            .body(Body::from(body.to_vec()))
            .expect("paths and headers are made of visible ASCII here");
        Ok((request, signature))
    }

    fn sign(
        &self,
        method: &Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
        at: UnixMs,
    ) -> Result<Option<SignatureHeaders>, ClientError> {
        let Some(key) = &self.key else {
            return Ok(None);
        };
        let head = RequestHead {
            method: method.as_str(),
            authority: self.url.authority(),
            path,
            query: None,
            headers,
        };
        let mut nonce = [0; 16];
        getrandom::fill(&mut nonce).map_err(ClientError::Random)?;
        let created = at.as_secs();
        let expires = created + SIGNATURE_LIFETIME_S;
        let signature = request_signature::sign(key, &head, body, created, expires, nonce);
        Ok(Some(signature))
    }
}

/// What an OpenAI-shaped error says, or that it says nothing.
fn error_message(body: &[u8]) -> String {
    let value: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    match value
        .pointer("/error/message")
        .and_then(|message| message.as_str())
    {
        Some(message) => message.to_owned(),
        None => "without an explanation".to_owned(),
    }
}
