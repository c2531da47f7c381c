//! A gateway that follows the protocol, with keys of its own and a scripted
//! answer, except for the one [`Trick`] that it is told to play.
//!
//! Start at [`EvilGateway::start`]; how each trick is done is in `script`.

mod script;

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use protocol::credential::Credential;
use protocol::receipt::ModelRef;
use protocol::request_signature::{Policy, RequestHead, SignatureError, VerifiedSignature, verify};
use protocol::{Did, Digest, JobId, SigningKey, UnixMs};
use serde_json::json;

use crate::ask::random;

/// The name of the model that it claims to serve; no whitelist knows it.
pub const MODEL: &str = "scripted";

/// What it does wrong, if anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trick {
    /// Nothing: the answer must be accepted, or the other tricks prove nothing.
    None,
    /// One character of the text isn't the one that the job signed.
    FlipCharacter,
    /// The last piece of text is left out.
    DropText,
    /// The last chunk, with finish and receipt, is left out; `[DONE]` comes.
    DropLastChunk,
    /// The connection closes after half the text.
    Break,
    /// The same, after a checkpoint.
    BreakStated,
    /// A checkpoint over another text than the one that came.
    OtherCheckpoint,
    /// Everything but the receipt.
    NoReceipt,
    /// A receipt for the same body, signed by another client.
    OthersReceipt,
    /// The receipt of the client's own previous request with the same body.
    OldReceipt,
    /// From now on another gateway key.
    NewGatewayKey,
    /// The receipt is signed by a key that no credential names.
    UnknownJobKey,
    /// The receipt isn't signed at all, and says so.
    AlgNone,
    /// Nothing is known about the receipt under its id.
    NoChain,
    /// Another receipt is kept than the one that was sent.
    OtherStored,
    /// The job's clock is ahead by this many milliseconds (behind, if negative).
    JobClock(i64),
    /// The gateway's clock is, too, so it refuses the request's signature.
    GatewayClock(i64),
    /// The name stands for other weights than before.
    OtherModel,
    /// The arithmetic isn't the credential's.
    OtherNumerics,
    /// The temperature isn't the one asked for.
    OtherTemperature,
    /// The seed is one that the provider liked better.
    ChosenSeed,
    /// The stream says "stop" where the job signed "length".
    OtherFinish,
    /// The token counts in the response are too high.
    OtherUsage,
    /// The job read another body than the one that was sent.
    OtherBody,
    /// More text after the end of the answer.
    MoreText,
    /// The arithmetic is said to be exact, and nothing binds the tokens to it.
    NoTrace,
}

/// A running cheat. It ends with the test process.
pub struct EvilGateway {
    /// Where it serves.
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
}

/// Its keys, what it is told to do, and what it gave away so far.
struct State {
    authority: String,
    trick: Trick,
    gateway: SigningKey,
    job_key: SigningKey,
    job: JobId,
    model: ModelRef,
    seq: u64,
    /// The last receipt's compact text and digest.
    last: Option<(String, Digest)>,
    kept: HashMap<String, String>,
}

impl EvilGateway {
    /// Listens on a free port, and is honest for now.
    pub fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State {
            authority: address.to_string(),
            trick: Trick::None,
            gateway: new_key(),
            job_key: new_key(),
            job: JobId::new(random()),
            model: model("weights"),
            seq: 0,
            last: None,
            kept: HashMap::new(),
        }));
        let serving = state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // One request at a time is enough for one client under test.
                serve(&stream, &mut serving.lock().unwrap());
            }
        });
        Self { address, state }
    }

    /// The key that its chains end in now.
    pub fn gateway(&self) -> Did {
        self.state.lock().unwrap().gateway.did()
    }

    /// What it does from now on.
    pub fn play(&self, trick: Trick) {
        let mut state = self.state.lock().unwrap();
        state.trick = trick;
        match trick {
            Trick::NewGatewayKey => state.gateway = new_key(),
            Trick::OtherModel => state.model = model("other weights"),
            _ => {}
        }
    }
}

impl State {
    /// The time by a clock that may be wrong.
    fn now(&self, shift_ms: i64) -> UnixMs {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("it is past 1970");
        let now = u64::try_from(since.as_millis()).expect("it isn't the year 500 million");
        UnixMs(now.saturating_add_signed(shift_ms))
    }

    /// The credential that the gateway gives its job.
    fn credential(&self) -> String {
        let now = self.now(0);
        Credential {
            v: 1,
            iss: self.gateway.did(),
            job: self.job.clone(),
            sub: self.job_key.did(),
            model: self.model.clone(),
            numerics: PROFILE.to_owned(),
            class: "local".to_owned(),
            sandbox: Vec::new(),
            authorities: vec![self.authority.clone()],
            // The same text all day, so that its digest stays the same.
            nbf_ms: UnixMs(now.0 / DAY_MS * DAY_MS).minus_ms(DAY_MS),
            exp_ms: UnixMs(now.0 / DAY_MS * DAY_MS).plus_ms(2 * DAY_MS),
        }
        .sign(&self.gateway)
        .compact()
        .to_owned()
    }

    fn signature(&self, request: &Received) -> Result<VerifiedSignature, SignatureError> {
        let shift = match self.trick {
            Trick::GatewayClock(shift) => shift,
            _ => 0,
        };
        let authorities = [self.authority.clone()];
        let policy = Policy {
            authorities: &authorities,
        };
        let headers = request.header_refs();
        let signed = verify(
            &request.head(&headers),
            &request.body,
            self.now(shift),
            &policy,
        )?;
        Ok(signed.expect("the client under test signs every request"))
    }
}

/// A request as it came.
struct Received {
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Received {
    fn read(stream: &TcpStream) -> Option<Self> {
        let mut from = BufReader::new(stream);
        let mut line = || {
            let mut line = String::new();
            from.read_line(&mut line).ok().filter(|&read| read > 0)?;
            Some(line.trim_end().to_owned())
        };
        let request_line = line()?;
        let mut words = request_line.split(' ');
        let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
        let mut headers = Vec::new();
        loop {
            let field = line()?;
            let Some((name, value)) = field.split_once(':') else {
                break;
            };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let mut received = Self {
            method,
            path,
            headers,
            body: Vec::new(),
        };
        let length = received
            .header("content-length")
            .unwrap_or("0")
            .parse()
            .ok()?;
        received.body = vec![0; length];
        from.read_exact(&mut received.body).ok()?;
        Some(received)
    }

    fn header(&self, name: &str) -> Option<&str> {
        let field = self.headers.iter().find(|(known, _)| known == name);
        field.map(|(_, value)| value.as_str())
    }

    fn header_refs(&self) -> Vec<(&str, &str)> {
        let pairs = self.headers.iter();
        pairs
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect()
    }

    fn head<'a>(&'a self, headers: &'a [(&'a str, &'a str)]) -> RequestHead<'a> {
        RequestHead {
            method: &self.method,
            authority: self.header("host").unwrap_or_default(),
            path: &self.path,
            query: None,
            headers,
        }
    }
}

fn serve(stream: &TcpStream, state: &mut State) {
    let Some(request) = Received::read(stream) else {
        return;
    };
    let reply = match (request.method.as_str(), request.path.as_str()) {
        ("POST", "/v1/chat/completions") => match state.signature(&request) {
            Ok(signature) => script::answer(state, &request, &signature),
            Err(error) => refusal(401, error.code(), &error.to_string()),
        },
        ("GET", "/v1/models") => json_reply(
            200,
            &json!({"object": "list", "data": [{
                "id": MODEL, "object": "model", "created": 0, "owned_by": "nobody",
                "digest": state.model.digest, "numerics": PROFILE,
            }]}),
        ),
        ("GET", path) => match path
            .strip_prefix("/v1/receipts/")
            .and_then(|id| state.kept.get(id))
        {
            Some(receipt) => json_reply(
                200,
                &json!({"receipt": receipt, "chain": [state.credential()]}),
            ),
            None => refusal(404, "not_found", "there is no such thing"),
        },
        _ => refusal(405, "method", "that isn't in the script"),
    };
    // The client may have left in disgust.
    drop((&mut &*stream).write_all(&reply));
}

fn refusal(status: u16, code: &str, message: &str) -> Vec<u8> {
    let error =
        json!({"message": message, "type": "invalid_request_error", "param": null, "code": code});
    json_reply(status, &json!({ "error": error }))
}

fn json_reply(status: u16, body: &serde_json::Value) -> Vec<u8> {
    let body = body.to_string();
    format!(
        "HTTP/1.1 {status} Scripted\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

fn model(weights: &str) -> ModelRef {
    ModelRef {
        id: MODEL.to_owned(),
        digest: Digest::of(weights.as_bytes())
            .to_string()
            .parse()
            .expect("a digest"),
    }
}

fn new_key() -> SigningKey {
    SigningKey::from_seed(random())
}

const PROFILE: &str = "exact/1";
const DAY_MS: u64 = 86_400_000;
