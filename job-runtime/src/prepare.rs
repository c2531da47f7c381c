//! From a request's body to what the engine runs: parsed, rendered, tokenized,
//! and checked against what the model and the job can take.
//!
//! Computes for as long as the body is large, so `api` calls it off the async
//! threads. Start at [`Preparer::prepare`].

use std::sync::Arc;

use models::{Grammar, GrammarRefused, Model, TemplateError};
use protocol::Digest;
use protocol::api::{self, ApiError, Ask, Kind, Prompt};
use protocol::request_signature::Nonce;
use protocol::sampling::{Effective, Sampling, Seed, SeedBy, seed_from_nonce};

use crate::ambient;
use crate::config::EngineLimits;

/// What requests are checked against.
#[derive(Debug)]
pub(crate) struct Preparer {
    pub model: Arc<Model>,
    pub model_id: String,
    pub context_tokens: u32,
    kv_tokens_max: u32,
    api: api::Limits,
    /// Bytes of the longest token: no fewer tokens can say a text.
    piece_bytes_max: usize,
}

/// A request that the engine can run.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub ask: Ask,
    pub prompt: Vec<u32>,
    pub sampling: Sampling,
    pub grammar: Option<Grammar>,
}

/// What the client's signature adds: the seed, where it names none.
#[derive(Debug)]
pub(crate) struct SeedSource {
    pub nonce: Nonce,
    pub body_sha256: Digest,
}

/// Why a request can't be run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PrepareError {
    #[error(transparent)]
    Api(#[from] ApiError),
    #[error("the model {0:?} isn't served here")]
    UnknownModel(String),
}

impl Preparer {
    pub(crate) fn new(
        model: Arc<Model>,
        model_id: String,
        context_tokens: u32,
        limits: &EngineLimits,
    ) -> Self {
        let tokenizer = model.tokenizer();
        let ids = 0..u32::try_from(tokenizer.vocab_size()).unwrap_or(u32::MAX);
        let piece_bytes_max = ids
            .filter_map(|id| tokenizer.piece(id))
            .map(<[u8]>::len)
            .max();
        Self {
            piece_bytes_max: piece_bytes_max.unwrap_or(1),
            model_id,
            context_tokens,
            kv_tokens_max: limits.kv_tokens_max.get(),
            api: api::Limits {
                n: limits.n_max.get(),
                ..api::Limits::default()
            },
            model,
        }
    }

    /// Reads a completion request.
    pub(crate) fn prepare(
        &self,
        kind: Kind,
        body: &[u8],
        seed: Option<SeedSource>,
    ) -> Result<Prepared, PrepareError> {
        let ask = match kind {
            Kind::Chat => api::parse_chat(body, &self.api)?,
            Kind::Completion => api::parse_completion(body, &self.api)?,
        };
        self.known_model(Some(&ask.model))?;
        let (prompt, template_date) = self.prompt(&ask)?;
        let max_tokens = self.room(&ask, prompt.len())?;
        self.known_tokens(&ask)?;
        let grammar = Grammar::for_ask(&ask, &self.model).map_err(refused_by_grammar)?;
        let (seed, seed_by) = match (ask.sampling.seed, seed) {
            (Some(seed), _) => (Seed(seed), SeedBy::Client),
            (None, Some(signed)) => {
                let seed = seed_from_nonce(signed.nonce.as_bytes(), &signed.body_sha256);
                (seed, SeedBy::Nonce)
            }
            (None, None) => (Seed(u64::from_le_bytes(ambient::random())), SeedBy::Server),
        };
        let effective = Effective {
            max_tokens,
            seed,
            seed_by,
            template_date,
        };
        let sampling = Sampling::in_force(&ask.sampling, ask.n, effective).with_grammar(&ask);
        Ok(Prepared {
            ask,
            prompt,
            sampling,
            grammar,
        })
    }

    /// Reads a `/tokenize` request.
    pub(crate) fn tokenize(&self, body: &[u8]) -> Result<Vec<u32>, PrepareError> {
        let ask = api::parse_tokenize(body)?;
        self.known_model(ask.model.as_deref())?;
        let tokens = self.encode(&ask.prompt);
        Ok(match ask.add_special_tokens {
            true => self.model.begun(tokens),
            false => tokens,
        })
    }

    /// Reads a `/detokenize` request.
    pub(crate) fn detokenize(&self, body: &[u8]) -> Result<String, PrepareError> {
        let ask = api::parse_detokenize(body)?;
        self.known_model(ask.model.as_deref())?;
        self.in_vocabulary("tokens", ask.tokens.iter().copied())?;
        let bytes = self.model.tokenizer().decode(&ask.tokens);
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn known_model(&self, name: Option<&str>) -> Result<(), PrepareError> {
        match name {
            Some(name) if name != self.model_id => {
                Err(PrepareError::UnknownModel(name.chars().take(100).collect()))
            }
            _ => Ok(()),
        }
    }

    /// The prompt's tokens, and the day that the template was told.
    fn prompt(&self, ask: &Ask) -> Result<(Vec<u32>, Option<String>), PrepareError> {
        match &ask.prompt {
            Prompt::Messages(messages) => {
                let said = messages.iter().map(|message| message.content.len()).sum();
                self.can_fit("messages", said)?;
                let date = (self.model.template().asks_for_date()).then(ambient::today);
                let text = self
                    .model
                    .prompt_text(ask, date.as_deref())
                    .map_err(refused_by_template)?
                    .unwrap_or_default();
                Ok((self.encode_prompt("messages", &text)?, date))
            }
            Prompt::Text(text) => {
                let tokens = self.encode_prompt("prompt", text)?;
                Ok((self.model.begun(tokens), None))
            }
            Prompt::Tokens(tokens) => {
                self.in_vocabulary("prompt", tokens.iter().copied())?;
                Ok((tokens.clone(), None))
            }
        }
    }

    fn encode_prompt(&self, param: &str, text: &str) -> Result<Vec<u32>, PrepareError> {
        self.can_fit(param, text.len())?;
        let most = self.context_tokens as usize;
        // A long text is read only as far as it takes to see that it is too long.
        let mut bytes = most * TYPICAL_TOKEN_BYTES;
        while bytes < text.len() {
            let beginning = &text[..text.floor_char_boundary(bytes)];
            // Tokens don't reach across a space, so cutting there adds none to speak
            // of; elsewhere it takes more to be certain.
            let (beginning, certain) = match beginning.rfind(' ') {
                Some(space) if bytes - space < most => (&beginning[..space], most + most / 64),
                _ => (beginning, most + most / 4),
            };
            if self.encode(beginning).len() > certain {
                return Err(self.too_long(param, &format!("more than {most} tokens")));
            }
            bytes *= 4;
        }
        Ok(self.encode(text))
    }

    /// Here and in `/tokenize`.
    fn encode(&self, text: &str) -> Vec<u32> {
        self.model.encode_prompt(text)
    }

    /// Refuses what can't fit before any work is done on it.
    fn can_fit(&self, param: &str, bytes: usize) -> Result<(), PrepareError> {
        let tokens = bytes / self.piece_bytes_max;
        match tokens > self.context_tokens as usize {
            true => Err(self.too_long(param, &format!("{tokens} tokens or more"))),
            false => Ok(()),
        }
    }

    /// The tokens that the answer may have.
    fn room(&self, ask: &Ask, prompt: usize) -> Result<u32, PrepareError> {
        let param = match ask.kind {
            Kind::Chat => "messages",
            Kind::Completion => "prompt",
        };
        if prompt == 0 {
            return Err(refuse(
                param,
                "invalid_value",
                "the prompt has no tokens".into(),
            ));
        }
        let prompt = u32::try_from(prompt).unwrap_or(u32::MAX);
        let Some(room @ 1..) = self.context_tokens.checked_sub(prompt) else {
            return Err(self.too_long(param, &format!("{prompt} tokens")));
        };
        if prompt.saturating_mul(ask.n.into()) > self.kv_tokens_max {
            let message = format!(
                "{} choices of a prompt of {prompt} tokens are more than the {} tokens that this job holds",
                ask.n, self.kv_tokens_max
            );
            return Err(refuse("n", "context_length_exceeded", message));
        }
        let wanted = ask.max_tokens.unwrap_or(room);
        if wanted > room {
            let message = format!(
                "the prompt has {prompt} tokens and max_tokens is {wanted}: together more than the context of {} tokens",
                self.context_tokens
            );
            return Err(refuse("max_tokens", "context_length_exceeded", message));
        }
        if ask.sampling.min_tokens.is_some_and(|least| least > wanted) {
            let message =
                format!("min_tokens is more than the {wanted} tokens that the answer may have");
            return Err(refuse("min_tokens", "invalid_value", message));
        }
        Ok(wanted)
    }

    fn too_long(&self, param: &str, has: &str) -> PrepareError {
        let message = format!(
            "the prompt has {has}; the context has {}, and the answer needs at least one",
            self.context_tokens
        );
        refuse(param, "context_length_exceeded", message)
    }

    fn known_tokens(&self, ask: &Ask) -> Result<(), PrepareError> {
        let sampling = &ask.sampling;
        self.in_vocabulary("stop_token_ids", sampling.stop_token_ids.iter().copied())?;
        self.in_vocabulary("logit_bias", sampling.logit_bias.keys().copied())
    }

    fn in_vocabulary(
        &self,
        param: &str,
        mut tokens: impl Iterator<Item = u32>,
    ) -> Result<(), PrepareError> {
        let size = self.model.config().vocab;
        match tokens.find(|token| *token as usize >= size) {
            Some(token) => {
                let message = format!("{token} isn't one of this model's {size} tokens");
                Err(refuse(param, "invalid_value", message))
            }
            None => Ok(()),
        }
    }
}

fn refused_by_template(error: TemplateError) -> PrepareError {
    refuse("messages", "invalid_value", error.to_string())
}

fn refused_by_grammar(error: GrammarRefused) -> PrepareError {
    refuse(&error.param, "unsupported_schema", error.to_string())
}

fn refuse(param: &str, code: &'static str, message: String) -> PrepareError {
    PrepareError::Api(ApiError {
        message,
        param: Some(param.to_owned()),
        code,
    })
}

/// More bytes than a token has on average in most languages.
const TYPICAL_TOKEN_BYTES: usize = 6;
