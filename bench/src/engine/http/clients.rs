//! Two clients: ours, which signs and checks, and one that only reads events.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use client::check::{self, Expected, ExpectedModel};
use client::{Http, Received, ReplyLimits, Sent};
use http::{Request, header};
use http_body_util::BodyExt;
use protocol::{RequestId, SigningKey};
use serde_json::Value;
use transport::sse::{DONE_DATA, Decoder};
use transport::{Body, ConnectLimits, Connector};

use super::{ANSWER, PROMPT};
use crate::engine::server::Server;
use crate::subject::Subject;

const PATH: &str = "/v1/completions";

/// One answer, as its reader saw it.
pub struct Asked {
    /// From sending the request to the first text.
    pub first: Duration,
    /// Tokens of the answer.
    pub tokens: u64,
}

/// Asks one thing.
pub trait Client: Send + Sync + 'static {
    /// Sends the body, and reads the answer to its end.
    fn ask(&self, body: Vec<u8>) -> impl Future<Output = anyhow::Result<Asked>> + Send;
}

/// Our client: signs every request, and keeps what came for the check.
pub struct Ours {
    client: client::Client,
    expected: Expected,
    answers: Mutex<Vec<(Sent, Received)>>,
}

impl Ours {
    /// A client of our server.
    pub fn new(server: &Server, subject: &Subject, key: SigningKey) -> anyhow::Result<Self> {
        let url = format!("http://{}", server.address)
            .parse()
            .context("the server's URL")?;
        let model = ExpectedModel {
            digest: subject.manifest.digest(),
            numerics: subject.manifest.numerics.clone(),
        };
        Ok(Self {
            client: client::Client::new(url, Some(key), Http::H1, ReplyLimits::default()),
            expected: Expected {
                gateway: server.gateway.context("`up` named no gateway key")?,
                model: Some(model),
            },
            answers: Mutex::new(Vec::new()),
        })
    }

    /// Holds every answer against its receipt; fails at the first that doesn't hold.
    pub async fn check_receipts(&self) -> anyhow::Result<usize> {
        let answers =
            std::mem::take(&mut *self.answers.lock().unwrap_or_else(PoisonError::into_inner));
        let mut ids = BTreeMap::new();
        for (sent, received) in &answers {
            let id = received
                .answer
                .id
                .as_deref()
                .context("an answer without an id")?;
            let id: RequestId = id.parse().context("reading an answer's id")?;
            let proof = self.client.proof(&id).await?;
            check::accept(sent, received, &proof, &self.expected)
                .map_err(|rejection| anyhow::anyhow!("a receipt doesn't hold: {rejection}"))?;
            ids.insert(id.to_string(), ());
        }
        anyhow::ensure!(ids.len() == answers.len(), "two answers have one id");
        Ok(answers.len())
    }
}

impl Client for Ours {
    async fn ask(&self, body: Vec<u8>) -> anyhow::Result<Asked> {
        let start = Instant::now();
        let mut reply = self.client.ask(PATH, body).await?;
        let mut first = None;
        while let Some(delta) = reply.next().await {
            if !delta.text.is_empty() {
                first.get_or_insert_with(|| start.elapsed());
            }
        }
        let end = start.elapsed();
        let (sent, received) = reply.finish().await;
        if let Some(error) = &received.answer.error {
            anyhow::bail!("our server refused: {}", error.message);
        }
        let usage = received
            .answer
            .usage
            .context("an answer without token counts")?;
        check_counts(usage.prompt_tokens, usage.completion_tokens)?;
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.push((sent, received));
        Ok(Asked {
            first: first.unwrap_or(end),
            tokens: usage.completion_tokens,
        })
    }
}

/// A reader of llama-server's events.
pub struct Theirs {
    connector: Connector,
    authority: String,
}

impl Theirs {
    /// A client of the server there.
    pub fn new(address: SocketAddr) -> anyhow::Result<Self> {
        let authority = address.to_string();
        let parsed = authority.parse().context("the server's address")?;
        // llama-server says keep-alive and closes after a stream: a request on
        // a kept connection would be lost.
        let limits = ConnectLimits {
            idle_max: 0,
            ..ConnectLimits::default()
        };
        Ok(Self {
            connector: Connector::tcp(parsed, Http::H1, limits),
            authority,
        })
    }
}

impl Client for Theirs {
    async fn ask(&self, body: Vec<u8>) -> anyhow::Result<Asked> {
        let start = Instant::now();
        let request = Request::post(PATH)
            .header(header::HOST, &self.authority)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(body))
            .context("making a request")?;
        let response = self.connector.send(request).await?;
        anyhow::ensure!(
            response.status() == 200,
            "llama-server answered {}",
            response.status()
        );
        let mut body = response.into_body();
        let mut decoder = Decoder::new(1 << 20);
        let mut first = None;
        let mut usage = None;
        let mut done = false;
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.context("reading an answer")?.into_data() else {
                continue;
            };
            let mut events = Vec::new();
            decoder.push(&data, &mut events).context("reading events")?;
            for event in events {
                if event.data == DONE_DATA {
                    done = true;
                    continue;
                }
                let value: Value = serde_json::from_str(&event.data).context("reading an event")?;
                let text = value["choices"][0]["text"].as_str().unwrap_or_default();
                if !text.is_empty() {
                    first.get_or_insert_with(|| start.elapsed());
                }
                if let Some(counts) = value["usage"].as_object() {
                    let count = |name: &str| counts.get(name).and_then(Value::as_u64);
                    usage = count("prompt_tokens").zip(count("completion_tokens"));
                }
            }
        }
        anyhow::ensure!(done, "llama-server's stream ended before [DONE]");
        let (prompt, tokens) = usage.context("llama-server stated no token counts")?;
        check_counts(prompt, tokens)?;
        Ok(Asked {
            first: first.unwrap_or_else(|| start.elapsed()),
            tokens,
        })
    }
}

/// Both servers must have had the same to do.
fn check_counts(prompt: u64, answer: u64) -> anyhow::Result<()> {
    anyhow::ensure!(
        (prompt, answer) == (PROMPT as u64, ANSWER as u64),
        "a prompt of {prompt} tokens and an answer of {answer}, not {PROMPT} and {ANSWER}"
    );
    Ok(())
}
