//! A request as it was sent, and its reply while it comes in.
//!
//! [`Reply::next`] gives text as it arrives, whatever happens; what went wrong
//! is kept in [`Received`], for `check` to name. Nothing here decides whether
//! the text is true.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use http::{HeaderMap, Response, header};
use http_body_util::BodyExt;
use protocol::api::Ask;
use protocol::request_signature::SignatureHeaders;
use protocol::{Did, Digest, UnixMs};
use transport::Body;
use transport::sse::{self, Decoder};

use crate::answer::{Answer, Assembly, Delta, ServerError};
use crate::check::Check;
use crate::clock::now;

/// A request as it was sent.
#[derive(Debug, Clone)]
pub struct Sent {
    /// `@method`
    pub method: String,
    /// `@authority`
    pub authority: String,
    /// `@path`
    pub path: String,
    /// The exact bytes of the body.
    pub body: Vec<u8>,
    /// What they ask for.
    pub ask: Ask,
    /// Who asked; none if it wasn't signed.
    pub client: Option<Did>,
    /// The signature; none if it wasn't signed.
    pub signature: Option<SignatureHeaders>,
    /// Our clock when it was signed.
    pub at: UnixMs,
}

/// Everything that came back.
#[derive(Debug, Clone)]
pub struct Received {
    /// The HTTP status.
    pub status: u16,
    /// The content type.
    pub content_type: Option<String>,
    /// The exact bytes of the body, as far as they came.
    pub body: Vec<u8>,
    /// What they say.
    pub answer: Answer,
    /// Why there isn't more of it, if there should be.
    pub fault: Option<Fault>,
    /// Our clock when the last of it had come.
    pub at: UnixMs,
}

/// Why a reply couldn't be read to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The connection broke.
    Broken(String),
    /// Nothing came for this long.
    Stalled(Duration),
    /// More came than anyone would want.
    TooLarge(usize),
    /// It isn't what the API allows.
    Malformed(String),
}

impl Fault {
    /// The check that fails by it.
    pub fn check(&self) -> Check {
        match self {
            Fault::Broken(_) | Fault::Stalled(_) => Check::Truncated,
            Fault::TooLarge(_) | Fault::Malformed(_) => Check::Response,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Broken(why) => {
                write!(f, "the connection broke in the middle of the answer: {why}")
            }
            Fault::Stalled(time) => write!(f, "nothing came for {} s", time.as_secs()),
            Fault::TooLarge(max) => write!(f, "the response is larger than {max} bytes"),
            Fault::Malformed(why) => f.write_str(why),
        }
    }
}

impl Sent {
    /// The digest of the body, as a receipt states it.
    pub fn body_sha256(&self) -> Digest {
        Digest::of(&self.body)
    }
}

/// How much and how long a reply may be waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplyLimits {
    /// Longest time without a byte; servers send keep-alives more often.
    pub pause_max: Duration,
    /// Most bytes of a body, which is kept whole to be saved.
    pub bytes_max: usize,
    /// Longest time that a connection may stay open after `[DONE]`.
    pub after_end_max: Duration,
}

impl Default for ReplyLimits {
    fn default() -> Self {
        ReplyLimits {
            pause_max: Duration::from_secs(120),
            bytes_max: 64 << 20,
            after_end_max: Duration::from_secs(2),
        }
    }
}

/// A reply while it comes in. Dropping it tells the server to stop.
#[derive(Debug)]
pub struct Reply {
    sent: Sent,
    limits: ReplyLimits,
    status: u16,
    content_type: Option<String>,
    body: Body,
    raw: Vec<u8>,
    /// None when the body is one JSON value.
    events: Option<Decoder>,
    assembly: Assembly,
    deltas: VecDeque<Delta>,
    ended: bool,
    fault: Option<Fault>,
}

impl Reply {
    pub(crate) fn new(sent: Sent, response: Response<Body>, limits: ReplyLimits) -> Reply {
        let status = response.status().as_u16();
        let content_type = content_type(response.headers());
        let streams = is_stream(status, content_type.as_deref());
        Reply {
            assembly: Assembly::for_ask(&sent.ask),
            sent,
            limits,
            status,
            content_type,
            body: response.into_body(),
            raw: Vec::new(),
            events: streams.then(|| Decoder::new(limits.bytes_max)),
            deltas: VecDeque::new(),
            ended: false,
            fault: None,
        }
    }

    /// The next piece of text; none when there is no more.
    pub async fn next(&mut self) -> Option<Delta> {
        loop {
            if let Some(delta) = self.deltas.pop_front() {
                return Some(delta);
            }
            if self.ended {
                return None;
            }
            if let Err(fault) = self.read().await {
                self.fault = Some(fault);
                self.ended = true;
            }
        }
    }

    /// Reads what is left, and hands over everything.
    pub async fn finish(mut self) -> (Sent, Received) {
        while self.next().await.is_some() {}
        let received = Received {
            status: self.status,
            content_type: self.content_type,
            body: self.raw,
            answer: self.assembly.into_answer(),
            fault: self.fault,
            at: now(),
        };
        (self.sent, received)
    }

    async fn read(&mut self) -> Result<(), Fault> {
        let over = self.assembly.answer().done || self.assembly.answer().error.is_some();
        let patience = match over {
            true => self.limits.after_end_max,
            false => self.limits.pause_max,
        };
        let frame = match tokio::time::timeout(patience, self.body.frame()).await {
            Ok(frame) => frame,
            Err(_) if over => None,
            Err(_) => return Err(Fault::Stalled(patience)),
        };
        match frame {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => self.take(&data),
                Err(_trailers) => Ok(()),
            },
            // After the proper end it no longer matters how the connection ends.
            Some(Err(_)) if over => self.end(),
            Some(Err(error)) => Err(Fault::Broken(innermost(&error))),
            None => self.end(),
        }
    }

    fn take(&mut self, data: &[u8]) -> Result<(), Fault> {
        if self.raw.len() + data.len() > self.limits.bytes_max {
            return Err(Fault::TooLarge(self.limits.bytes_max));
        }
        self.raw.extend_from_slice(data);
        let Some(decoder) = &mut self.events else {
            return Ok(());
        };
        let mut events = Vec::new();
        let decoded = decoder.push(data, &mut events);
        for event in events {
            let deltas = self
                .assembly
                .event(&event.data)
                .map_err(|error| Fault::Malformed(error.to_string()))?;
            self.deltas.extend(deltas);
        }
        decoded.map_err(|error| Fault::Malformed(error.to_string()))
    }

    fn end(&mut self) -> Result<(), Fault> {
        self.ended = true;
        if self.events.is_some() {
            return Ok(());
        }
        match self.assembly.body(self.status, &self.raw) {
            Ok(deltas) => {
                self.deltas.extend(deltas);
                Ok(())
            }
            // A proxy's error page is a refusal too, if not a well-explained one.
            Err(_) if self.status != 200 => {
                self.assembly.refuse(ServerError {
                    status: self.status,
                    message: format!("HTTP status {} without an explanation", self.status),
                    code: None,
                    param: None,
                });
                Ok(())
            }
            Err(error) => Err(Fault::Malformed(error.to_string())),
        }
    }
}

/// Reads a response that was kept, from its bytes: what came, as far as it came.
pub fn reread(
    ask: &Ask,
    status: u16,
    content_type: Option<&str>,
    body: &[u8],
) -> Result<Answer, Fault> {
    let malformed = |error: &dyn fmt::Display| Fault::Malformed(error.to_string());
    let mut assembly = Assembly::for_ask(ask);
    if !is_stream(status, content_type) {
        assembly
            .body(status, body)
            .map_err(|error| malformed(&error))?;
        return Ok(assembly.into_answer());
    }
    let mut events = Vec::new();
    let decoded = Decoder::new(ReplyLimits::default().bytes_max).push(body, &mut events);
    for event in events {
        assembly
            .event(&event.data)
            .map_err(|error| malformed(&error))?;
    }
    decoded.map_err(|error| malformed(&error))?;
    Ok(assembly.into_answer())
}

fn is_stream(status: u16, content_type: Option<&str>) -> bool {
    let essence = content_type.and_then(|value| value.split(';').next());
    status == 200
        && essence.is_some_and(|value| value.trim().eq_ignore_ascii_case(sse::CONTENT_TYPE))
}

fn content_type(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    Some(value.to_owned())
}

/// The last cause in a chain of errors: the layers above only repeat it.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}
