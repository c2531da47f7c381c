//! A job with a real credential and a real model, which computes what it
//! likes, and signs well-formed receipts that say it did as it was asked.
//!
//! Everything but the computing is honest, so that the client believes the
//! answer, and only computing it again can tell. Start at [`Job::answer`].

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use client::check::{self, Expected, ExpectedModel, Proof};
use client::save::SavedAnswer;
use client::{BaseUrl, Received, Rejection, Sent, reread};
use models::output::OutputText;
use models::{Chunk, Model, Sampler, Trace, Want};
use protocol::api::{self, Ask, Message, Prompt, Role};
use protocol::credential::{Chain, Credential};
use protocol::manifest::Manifest;
use protocol::receipt::{Closing, Finish, OpenReceipt, Opening, SignedReceipt};
use protocol::request_signature::{RequestHead, SignatureHeaders, recheck, sign};
use protocol::sampling::{Effective, Sampling, Seed, SeedBy, seed_from_nonce};
use protocol::{Did, Digest, JobId, Kind, RequestId, SigningKey, UnixMs};
use serde_json::{Value, json};

use crate::ask::random;

/// What a job does beside its promise.
#[derive(Debug, Clone, PartialEq)]
pub enum Cheat {
    /// Nothing.
    None,
    /// Another temperature is in force than the receipt says.
    Temperature(f64),
    /// Another seed.
    Seed(u64),
    /// The model is told this beforehand.
    System(String),
    /// The answer ends after so many tokens, as if the model had ended it.
    EarlyStop(usize),
    /// The answer is cut after so many tokens, and its end claimed without an end token.
    CutOff(usize),
    /// The token with this index is replaced after the fact.
    EditToken(usize),
    /// The hidden states behind the tokens aren't the ones that are stated.
    Trace,
    /// No trace is stated.
    NoTrace,
}

/// A job and the gateway that vouches for it.
pub struct Job<'a> {
    manifest: &'a Manifest,
    /// Which may be another than the manifest's.
    model: &'a Model,
    gateway: SigningKey,
    key: SigningKey,
    job: JobId,
    client: SigningKey,
    seq: u64,
    prev: Option<Digest>,
}

/// One choice as it was computed.
struct Computed {
    tokens: Vec<u32>,
    trace: Trace,
    text: String,
    finish: Finish,
}

impl<'a> Job<'a> {
    /// A job that says it serves `manifest`, and computes with `model`.
    pub fn new(manifest: &'a Manifest, model: &'a Model) -> Self {
        Job {
            manifest,
            model,
            gateway: SigningKey::from_seed([1; 32]),
            key: SigningKey::from_seed(random()),
            job: JobId::new(random()),
            client: SigningKey::from_seed(random()),
            seq: 0,
            prev: None,
        }
    }

    /// Who vouches for it, the same for all jobs.
    pub fn gateway(&self) -> Did {
        self.gateway.did()
    }

    /// A gateway that vouches for none of them.
    pub fn stranger() -> Did {
        SigningKey::from_seed([2; 32]).did()
    }

    /// Answers a chat request, and keeps the answer in `folder` as `chat --save` does; what the
    /// client thinks of it.
    pub fn answer(&mut self, body: &Value, cheat: &Cheat, folder: &Path) -> Result<(), Rejection> {
        let (sent, nonce) = self.sent(body);
        let sampling = in_force(&sent, &nonce, self.model);
        let prompt = self
            .model
            .prompt_tokens(&sent.ask, None)
            .expect("it renders");
        let choices: Vec<Computed> = (0..sent.ask.n)
            .map(|choice| self.compute(&sent.ask, &sampling, choice, cheat))
            .collect();
        let chain = Chain(vec![self.credential()]);
        let receipt = self.receipt(&sent, &prompt, sampling, &choices, &chain, cheat);
        let response = response(&sent.ask, &prompt, &choices, &receipt);
        let received = Received {
            status: 200,
            content_type: Some("application/json".to_owned()),
            answer: reread(&sent.ask, 200, None, &response).expect("it's well-formed"),
            body: response,
            fault: None,
            at: now(),
        };
        let proof = Proof {
            receipt: Some(receipt.compact().to_owned()),
            checkpoints: Vec::new(),
            chain,
        };
        let expected = Expected {
            gateway: self.gateway.did(),
            model: Some(ExpectedModel {
                digest: self.manifest.digest(),
                numerics: self.manifest.numerics.clone(),
            }),
        };
        let verdict = check::accept(&sent, &received, &proof, &expected);
        let url: BaseUrl = format!("http://{AUTHORITY}").parse().expect("a URL");
        let gateway = Some(self.gateway.did());
        let rejection = verdict.as_ref().err();
        SavedAnswer::of(&url, (&sent, &received), Some(proof), rejection, gateway)
            .write(folder)
            .expect("the folder is free");
        verdict.map(|_| ())
    }

    fn sent(&self, body: &Value) -> (Sent, Vec<u8>) {
        let body = body.to_string().into_bytes();
        let head = RequestHead {
            method: "POST",
            authority: AUTHORITY,
            path: PATH,
            query: None,
            headers: &[],
        };
        let at = now();
        let created = at.as_secs();
        let signature: SignatureHeaders =
            sign(&self.client, &head, &body, created, created + 60, random());
        let client = self.client.did();
        let nonce = recheck(&signature.line, &Digest::of(&body), &client)
            .expect("it was just signed")
            .nonce;
        let ask = api::parse_chat(&body, &api::Limits::default()).expect("a good request");
        let sent = Sent {
            method: "POST".to_owned(),
            authority: AUTHORITY.to_owned(),
            path: PATH.to_owned(),
            body,
            ask,
            client: Some(client),
            signature: Some(signature),
            at,
        };
        (sent, nonce.as_bytes().to_vec())
    }

    /// Where it cheats: what the receipt says is `stated`.
    fn compute(&self, ask: &Ask, stated: &Sampling, choice: u8, cheat: &Cheat) -> Computed {
        let mut used = stated.clone();
        let mut ask = ask.clone();
        match (cheat, &mut ask.prompt) {
            (Cheat::Temperature(other), _) => used.temperature = *other,
            (Cheat::Seed(other), _) => used.seed = Seed(*other),
            (Cheat::System(told), Prompt::Messages(messages)) => {
                let content = told.clone();
                let role = Role::System;
                messages.insert(0, Message::new(role, content));
            }
            _ => {}
        }
        let prompt = self.model.prompt_tokens(&ask, None).expect("it renders");
        let config = self.model.config();
        let sampler = Sampler::new(&used, config);
        let mut said = Said::new(&used);
        let mut cache = self.model.new_cache();
        let mut next = prompt.clone();
        while said.finish.is_none() {
            let mut work = [Chunk {
                cache: &mut cache,
                tokens: &next,
                logits: Want::Last,
            }];
            let out = self
                .model
                .forward(&mut work)
                .expect("there is room")
                .remove(0);
            let position = u32::try_from(prompt.len() + said.tokens.len()).unwrap();
            let drawn = sampler
                .sample(choice, position, &out.logits[0], &prompt, &said.tokens)
                .expect("finite logits");
            let token = match cheat {
                Cheat::EarlyStop(after) if said.tokens.len() == *after => config.eos[0],
                // Another one that a reader wouldn't stumble over.
                Cheat::EditToken(at) if said.tokens.len() == *at => {
                    let comma = self.model.encode_prompt(",")[0];
                    let and = self.model.encode_prompt(" and")[0];
                    if drawn.token == comma { and } else { comma }
                }
                _ => drawn.token,
            };
            let mut hidden = out.hidden[0].clone();
            if *cheat == Cheat::Trace {
                hidden[7] += 1.0;
            }
            said.push(token, &hidden, self.model, &used);
            if matches!(cheat, Cheat::CutOff(after) if said.tokens.len() == *after) {
                said.finish.get_or_insert(Finish::Stop);
            }
            // What was edited afterwards wasn't read by the model.
            next = vec![if matches!(cheat, Cheat::EditToken(_)) {
                drawn.token
            } else {
                token
            }];
        }
        said.done()
    }

    fn receipt(
        &mut self,
        sent: &Sent,
        prompt: &[u32],
        sampling: Sampling,
        choices: &[Computed],
        chain: &Chain,
        cheat: &Cheat,
    ) -> SignedReceipt {
        let line = sent.signature.as_ref().map(|headers| headers.line.clone());
        let mut open = OpenReceipt::begin(Opening {
            jti: RequestId::new(Kind::Chat, random()),
            job: self.job.clone(),
            iss: self.key.did(),
            sub: sent.client,
            salt: protocol::receipt::Salt(random()),
            from_ms: sent.at,
            request: line.expect("requests are signed here"),
            body_sha256: sent.body_sha256(),
            model: self.manifest.model(),
            numerics: self.model.numerics(),
            cred: Digest::of(chain.0[0].as_bytes()),
        });
        open.prompt(prompt);
        open.sampling(sampling);
        for (number, choice) in (0..).zip(choices) {
            for token in &choice.tokens {
                open.absorb(number, *token, "");
            }
            open.absorb_text(number, &choice.text);
            open.finish(number, choice.finish);
        }
        let traces: Vec<Trace> = choices.iter().map(|choice| choice.trace.clone()).collect();
        let receipt = open.close(Closing {
            to_ms: now(),
            unfinished: Finish::Error,
            seq: self.seq,
            prev: self.prev,
            trace: Trace::claim(&traces).filter(|_| *cheat != Cheat::NoTrace),
        });
        let signed = receipt.sign(&self.key);
        self.seq += 1;
        self.prev = Some(signed.digest());
        signed
    }

    fn credential(&self) -> String {
        let credential = Credential {
            v: 1,
            iss: self.gateway.did(),
            job: self.job.clone(),
            sub: self.key.did(),
            model: self.manifest.model(),
            numerics: self.model.numerics().profile,
            class: "local".to_owned(),
            sandbox: Vec::new(),
            authorities: vec![AUTHORITY.to_owned()],
            nbf_ms: UnixMs(0),
            exp_ms: UnixMs(8_000_000_000_000),
        };
        credential.sign(&self.gateway).compact().to_owned()
    }
}

/// A choice while it is computed.
struct Said {
    tokens: Vec<u32>,
    trace: Trace,
    output: OutputText,
    text: String,
    finish: Option<Finish>,
}

impl Said {
    fn new(sampling: &Sampling) -> Self {
        Said {
            tokens: Vec::new(),
            trace: Trace::new(),
            output: OutputText::new(&sampling.stop),
            text: String::new(),
            finish: None,
        }
    }

    fn push(&mut self, token: u32, hidden: &[f32], model: &Model, sampling: &Sampling) {
        let tokenizer = model.tokenizer();
        let bytes = match tokenizer.is_special(token) {
            true => &[],
            false => tokenizer.piece(token).unwrap_or_default(),
        };
        self.tokens.push(token);
        self.trace.absorb(token, hidden);
        let drawn = self.tokens.len();
        let (released, finish) = self
            .output
            .take(token, bytes, drawn, sampling, model.config());
        self.text += &released.text;
        self.finish = finish;
    }

    fn done(mut self) -> Computed {
        self.text += &self.output.finish().text;
        Computed {
            tokens: self.tokens,
            trace: self.trace,
            text: self.text,
            finish: self.finish.expect("it has ended"),
        }
    }
}

/// The sampling that was asked for.
fn in_force(sent: &Sent, nonce: &[u8], model: &Model) -> Sampling {
    let prompt = model.prompt_tokens(&sent.ask, None).expect("it renders");
    let room = model.config().context_tokens - u32::try_from(prompt.len()).unwrap();
    let asked = &sent.ask.sampling;
    let (seed, seed_by) = match asked.seed {
        Some(seed) => (Seed(seed), SeedBy::Client),
        None => (seed_from_nonce(nonce, &sent.body_sha256()), SeedBy::Nonce),
    };
    let effective = Effective {
        max_tokens: sent.ask.max_tokens.unwrap_or(room),
        seed,
        seed_by,
        template_date: None,
    };
    Sampling::in_force(asked, sent.ask.n, effective)
}

fn response(ask: &Ask, prompt: &[u32], choices: &[Computed], receipt: &SignedReceipt) -> Vec<u8> {
    let shown = |choice: &Computed| ask.return_token_ids.then(|| choice.tokens.clone());
    let listed: Vec<Value> = (choices.iter().enumerate())
        .map(|(index, choice)| {
            json!({
                "index": index,
                "message": {"role": "assistant", "content": choice.text},
                "finish_reason": choice.finish.as_str(),
                "token_ids": shown(choice),
            })
        })
        .collect();
    let written: usize = choices.iter().map(|choice| choice.tokens.len()).sum();
    let body = json!({
        "id": receipt.unverified().jti.as_str(),
        "object": "chat.completion",
        "created": 0,
        "model": ask.model,
        "choices": listed,
        "usage": {
            "prompt_tokens": prompt.len(),
            "completion_tokens": written,
            "total_tokens": prompt.len() + written,
        },
        "prompt_token_ids": ask.return_token_ids.then_some(prompt),
        "receipt": receipt.compact(),
    });
    body.to_string().into_bytes()
}

fn now() -> UnixMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    UnixMs(u64::try_from(since.expect("it is past 1970").as_millis()).unwrap())
}

const AUTHORITY: &str = "127.0.0.1:8080";
const PATH: &str = "/v1/chat/completions";
