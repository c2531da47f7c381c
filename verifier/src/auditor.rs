//! Takes folders of saved answers, a window at a time, and gives a signed
//! verdict for each.
//!
//! Answers of one model come together, and within a window those whose prompts
//! begin alike, so that each model is loaded once and each prefix computed
//! once. Memory is bounded by the window and the KV pool. Start at
//! [`Auditor::run`].

use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use client::known::KnownGateways;
use client::save::{SavedAnswer, read_file};
use models::{Grammar, Level, Model, Options, Sampler, exact, fetch};
use protocol::api::Prompt;
use protocol::manifest::Manifest;
use protocol::receipt::{Receipt, SignedReceipt};
use protocol::verdict::{Fault, Finding, Ids, Lane, Replay, Replayed, Verdict};
use protocol::{Did, Digest, ModelDigest, SigningKey, UnixMs};

use crate::judgement::{Found, Judgement};
use crate::opening::{self, Case, Trust};
use crate::replay::{self, Choice, Outcome, known_ids};
use crate::report::{Counts, Entry, Quote, Report};
use crate::{folders, judge};

/// Answers that are held at a time.
const WINDOW: usize = 256;

/// The program, as verdicts name it.
const VERIFIER: &str = concat!("countersign/", env!("CARGO_PKG_VERSION"));

/// What an audit rests on.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The gateway's key, if it was given; then `known` isn't asked.
    pub gateway: Option<Did>,
    /// Keys that were used before.
    pub known: KnownGateways,
    /// The models that may be served.
    pub whitelist: Vec<Manifest>,
    /// Where their weights lie.
    pub models: PathBuf,
    /// Threads that compute.
    pub threads: NonZeroUsize,
    /// Positions of KV cache; more than one context if 0.
    pub kv_tokens: usize,
}

/// Judges saved answers.
#[derive(Debug)]
pub struct Auditor {
    trust: Trust,
    models: PathBuf,
    threads: NonZeroUsize,
    kv_tokens: usize,
    key: SigningKey,
}

/// How far an audit is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Answers that have a verdict.
    pub done: usize,
    /// All of them.
    pub all: usize,
}

/// Why an audit can't be run at all.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The folder can't be read.
    #[error("reading {}", folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// There's nothing in it.
    #[error("there are no saved answers in {}: `countersign chat --save DIR` makes them", folder.display())]
    Empty {
        /// The folder.
        folder: PathBuf,
    },
}

/// An audit while it runs.
struct Run<'a> {
    auditor: &'a Auditor,
    now: &'a dyn Fn() -> UnixMs,
    show: &'a mut dyn FnMut(Progress),
    all: usize,
    entries: Vec<Entry>,
    tokens: u64,
    model: Option<(Digest, Model)>,
}

/// An answer whose receipt only a replay can refute.
struct Pending<'a> {
    folder: PathBuf,
    compact: String,
    case: Case<'a>,
    outcomes: Vec<Option<(Ids, Outcome)>>,
}

impl Auditor {
    /// An auditor who signs with `key`.
    pub fn new(settings: Settings, key: SigningKey) -> Self {
        Auditor {
            trust: Trust {
                gateway: settings.gateway,
                known: settings.known,
                whitelist: settings.whitelist,
            },
            models: settings.models,
            threads: settings.threads,
            kv_tokens: settings.kv_tokens,
            key,
        }
    }

    /// Judges every saved answer under `dir`. A false receipt is a verdict, not an error.
    pub fn run(
        &self,
        dir: &Path,
        now: &dyn Fn() -> UnixMs,
        show: &mut dyn FnMut(Progress),
    ) -> Result<Report, RunError> {
        let began = Instant::now();
        let (found, skipped) = folders::find(dir).map_err(|source| RunError::Folder {
            folder: dir.to_owned(),
            source,
        })?;
        if found.is_empty() {
            return Err(RunError::Empty {
                folder: dir.to_owned(),
            });
        }
        let mut run = Run {
            auditor: self,
            now,
            show,
            all: found.len(),
            entries: Vec::new(),
            tokens: 0,
            model: None,
        };
        let mut by_model: Vec<(Option<ModelDigest>, PathBuf)> = found
            .into_iter()
            .map(|folder| (peek(&folder), folder))
            .collect();
        by_model.sort();
        for window in by_model.chunks(WINDOW) {
            run.window(window);
        }
        let mut answers = run.entries;
        answers.sort_by(|a, b| a.folder.cmp(&b.folder));
        Ok(Report {
            v: 1,
            auditor: self.key.did(),
            verifier: VERIFIER.to_owned(),
            counts: Counts::of(&answers),
            skipped,
            tokens: run.tokens,
            seconds: began.elapsed().as_secs_f64(),
            answers,
        })
    }

    /// The weights, ready to compute, or why they aren't.
    fn load(&self, manifest: &Manifest) -> Result<Model, String> {
        let id = &manifest.identity.id;
        let path = fetch::path(manifest, &self.models);
        if !path.is_file() {
            return Err(format!(
                "the weights of {id} aren't in {}: `countersign model fetch {id}` gets them",
                self.models.display()
            ));
        }
        let context = manifest.identity.context_tokens as usize;
        let kv_tokens = match self.kv_tokens {
            0 => KV_TOKENS.max(context + 2 * exact::POSITIONS),
            given => given,
        };
        let options = Options {
            threads: self.threads,
            level: Level::detect(),
            kv_tokens,
        };
        Model::load(&path, manifest, &options)
            .map_err(|error| format!("the weights of {id} can't be used: {}", chain(&error)))
    }
}

impl<'a> Run<'a> {
    fn window(&mut self, window: &[(Option<ModelDigest>, PathBuf)]) {
        let mut pending = Vec::new();
        for (_, folder) in window {
            pending.extend(self.open(folder));
        }
        // Stable, so that the order of verdicts doesn't depend on chance.
        pending.sort_by_key(|pending| pending.case.claims.model.digest);
        while let Some(first) = pending.first() {
            let digest = first.case.claims.model.digest;
            let same = |p: &Pending| p.case.claims.model.digest == digest;
            let rest = pending.split_off(pending.iter().take_while(|p| same(p)).count());
            self.replay(std::mem::replace(&mut pending, rest));
        }
    }

    /// Reads a folder and makes the checks that need no model; some if a replay is left to do.
    fn open(&mut self, folder: &Path) -> Option<Pending<'a>> {
        let saved = match SavedAnswer::read(folder) {
            Ok(saved) => saved,
            Err(error) => {
                self.put(Entry::unreadable(folder, chain(&error)));
                return None;
            }
        };
        // Of an answer that broke off, the latest checkpoint is what its job has signed.
        let Some(compact) = saved.receipt.as_ref().or(saved.checkpoints.last()) else {
            let why = "it has no receipt, so there is nothing to judge".to_owned();
            self.put(Entry::unreadable(folder, why));
            return None;
        };
        let compact = compact.trim_ascii().to_owned();
        match opening::open(&saved, &compact, &self.auditor.trust) {
            Ok(case) => Some(Pending {
                folder: folder.to_owned(),
                outcomes: vec![None; case.claims.output.len()],
                compact,
                case: *case,
            }),
            Err(judgement) => {
                self.say(folder, &compact, judgement, Vec::new());
                None
            }
        }
    }

    /// Computes answers of one model again, and judges them.
    fn replay(&mut self, pending: Vec<Pending<'a>>) {
        let manifest = pending[0].case.manifest;
        let weights = manifest.identity.weights_sha256;
        let loaded = match self.model.take() {
            Some((digest, model)) if digest == weights => Ok(model),
            other => {
                drop(other);
                self.auditor.load(manifest)
            }
        };
        let model = match loaded {
            Ok(model) => model,
            Err(says) => {
                let missing = Found::unverifiable(Fault::Auditor, "no_weights", says);
                self.all_are(pending, &missing);
                return;
            }
        };
        let profile = model.numerics().profile;
        let (ours, others): (Vec<_>, Vec<_>) = pending
            .into_iter()
            .partition(|p| p.case.claims.numerics.profile == profile);
        let says = "the numerics profile isn't one that this auditor has";
        self.all_are(
            others,
            &Found::unverifiable(Fault::Auditor, "no_lane", says),
        );
        self.exact(ours, &model);
        self.model = Some((weights, model));
    }

    /// The exact lane.
    fn exact(&mut self, pending: Vec<Pending<'a>>, model: &Model) {
        let mut choices = Vec::new();
        let mut slots = Vec::new();
        for pending in pending {
            match choices_of(&pending.case, slots.len(), model) {
                Ok(mut more) => {
                    choices.append(&mut more);
                    slots.push(Some(pending));
                }
                Err(judgement) => {
                    self.say(&pending.folder, &pending.compact, judgement, Vec::new());
                }
            }
        }
        // Those that begin alike stand together.
        choices.sort_by(|a, b| (&a.prompt, a.case, a.number).cmp(&(&b.prompt, b.case, b.number)));
        replay::run(model, choices, &mut |choice, outcome| {
            let slot = &mut slots[choice.case];
            let pending = slot
                .as_mut()
                .expect("a case is judged after its last choice");
            pending.outcomes[usize::from(choice.number)] = Some((choice.ids, outcome));
            if pending.outcomes.iter().all(Option::is_some) {
                let pending = slot.take().expect("it was there a line ago");
                self.judge(pending, model);
            }
        });
    }

    fn judge(&mut self, pending: Pending<'a>, model: &Model) {
        let claims = &pending.case.claims;
        let (ids, outcomes): (Vec<Ids>, Vec<Outcome>) =
            pending.outcomes.into_iter().flatten().unzip();
        let prompt = claims.input.prompt_tokens;
        let mut found = Vec::new();
        for (number, (claim, outcome)) in claims.output.iter().zip(&outcomes).enumerate() {
            found.extend(judge::choice(number, prompt, claim, outcome));
        }
        found.extend(judge::trace(claims, &outcomes));
        found.extend(judge::checkpoints(&pending.case.checkpoints, &outcomes));
        if found.is_empty() && !pending.case.answer.done {
            found.extend(judge::partial(&pending.case.answer, claims.part, &outcomes));
        }
        let replayed = |(ids, outcome): (&Ids, &Outcome)| Replayed {
            ids: *ids,
            tokens: outcome.tokens,
            differing: outcome.differing,
        };
        let replay = Replay {
            profile: model.numerics().profile,
            verifier: VERIFIER.to_owned(),
            choices: ids.iter().zip(&outcomes).map(replayed).collect(),
        };
        let drawn: u64 = outcomes.iter().map(|o| u64::from(o.tokens)).sum();
        self.tokens += u64::from(prompt) + drawn;
        let judgement = Judgement {
            found,
            replay: Some(replay),
        };
        let quotes = quotes(&judgement, model);
        self.say(&pending.folder, &pending.compact, judgement, quotes);
    }

    fn all_are(&mut self, pending: Vec<Pending<'a>>, found: &Found) {
        for pending in pending {
            let judgement = Judgement::of(vec![found.clone()]);
            self.say(&pending.folder, &pending.compact, judgement, Vec::new());
        }
    }

    /// Signs.
    fn say(&mut self, folder: &Path, compact: &str, judgement: Judgement, quotes: Vec<Quote>) {
        let (verdict, fault, replay, findings) = judgement.conclude();
        let verdict = Verdict {
            v: 1,
            iss: self.auditor.key.did(),
            receipt: opening::receipt_digest(compact),
            at_ms: (self.now)(),
            verdict,
            fault,
            lane: replay.is_some().then_some(Lane::Exact),
            replay,
            findings: findings.into_iter().take(FINDINGS_MAX).map(short).collect(),
        };
        let signed = verdict.sign(&self.auditor.key);
        let mut entry = Entry::judged(folder, &signed, quotes);
        if let Ok(receipt) = SignedReceipt::parse(compact) {
            entry.request = Some(receipt.unverified().jti.as_str().to_owned());
            entry.model = Some(receipt.unverified().model.id.clone());
        }
        self.put(entry);
    }

    fn put(&mut self, entry: Entry) {
        self.entries.push(entry);
        (self.show)(Progress {
            done: self.entries.len(),
            all: self.all,
        });
    }
}

/// The choices of a case, if the prompt is the one that the receipt states.
fn choices_of(case: &Case<'_>, index: usize, model: &Model) -> Result<Vec<Choice>, Judgement> {
    let wrong = |found| Judgement::of(vec![found]);
    let date = case.sampling.template_date.as_deref();
    let told = matches!(case.ask.prompt, Prompt::Messages(_)) && model.template().asks_for_date();
    if let Some(says) = opening::wrong_date(date, told, case.claims.from_ms) {
        return Err(wrong(Found::mismatch("sampling", says)));
    }
    let prompt = model.prompt_tokens(&case.ask, date).map_err(|_| {
        wrong(Found::mismatch(
            "prompt",
            "the template refuses this request",
        ))
    })?;
    let digest = Digest::of_tokens(&prompt);
    let input = &case.claims.input;
    if digest != input.prompt_tokens_sha256 || prompt.len() as u64 != u64::from(input.prompt_tokens)
    {
        let says = "the job read another prompt than template and tokenizer make of the request";
        let prompt = Found::mismatch("prompt", says);
        return Err(wrong(prompt.instead_of(input.prompt_tokens_sha256, digest)));
    }
    if prompt.is_empty() || prompt.iter().any(|id| *id as usize >= model.config().vocab) {
        let says = "no model can answer this prompt";
        return Err(wrong(Found::mismatch("prompt", says)));
    }
    let grammar = Grammar::for_ask(&case.ask, model).map_err(|_| {
        let says = "the job answered under a grammar that it has to refuse";
        wrong(Found::mismatch("sampling", says))
    })?;
    let grammar = grammar.map(Arc::new);
    let prompt: Arc<[u32]> = prompt.into();
    let sampling = Arc::new(case.sampling.clone());
    let sampler = Arc::new(Sampler::new(&sampling, model.config()));
    let choices = case.claims.output.iter().zip(0u8..).map(|(claim, number)| {
        let came = case.answer.choices.get(usize::from(number));
        let shown = came.and_then(|choice| choice.token_ids.as_ref());
        let text = came.map(|choice| choice.text.clone());
        let known = known_ids(model, &sampling, claim, shown, text.as_deref());
        let at = |checkpoint: &Receipt| Some(checkpoint.output.get(usize::from(number))?.tokens);
        let (known, ids) = match known {
            Some((known, ids)) => (Some(known), ids),
            None => (None, Ids::Drawn),
        };
        Choice {
            case: index,
            number,
            prompt: Arc::clone(&prompt),
            sampling: Arc::clone(&sampling),
            sampler: Arc::clone(&sampler),
            grammar: grammar.clone(),
            claim: claim.clone(),
            known,
            ids,
            marks: case.checkpoints.iter().filter_map(at).collect(),
            text,
            whole: case.answer.done,
        }
    });
    Ok(choices.collect())
}

/// What the tokens say that findings name.
fn quotes(judgement: &Judgement, model: &Model) -> Vec<Quote> {
    let findings = judgement.found.iter().map(|found| &found.finding);
    let mut ids: Vec<u32> = findings
        .filter(|finding| finding.check == "token")
        .flat_map(|finding| [&finding.claimed, &finding.expected])
        .filter_map(|id| id.as_ref()?.parse().ok())
        .collect();
    ids.sort_unstable();
    ids.dedup();
    let text = |id| model.tokenizer().piece(id).unwrap_or_default();
    ids.into_iter()
        .map(|token| Quote {
            token,
            text: String::from_utf8_lossy(text(token)).into_owned(),
        })
        .collect()
}

/// The model that a folder's receipt names, to sort by. Nothing is believed.
fn peek(folder: &Path) -> Option<ModelDigest> {
    let compact = String::from_utf8(read_file(&folder.join("receipt.jws")).ok()?).ok()?;
    let receipt = SignedReceipt::parse(compact.trim_ascii()).ok()?;
    Some(receipt.unverified().model.digest)
}

/// A finding whose words from elsewhere don't make a verdict too long to read.
fn short(mut finding: Finding) -> Finding {
    let Finding {
        says,
        claimed,
        expected,
        ..
    } = &mut finding;
    for text in [Some(says), claimed.as_mut(), expected.as_mut()]
        .into_iter()
        .flatten()
    {
        if let Some((end, _)) = text.char_indices().nth(TEXT_MAX) {
            text.truncate(end);
        }
    }
    finding
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text = format!("{text}: {source}");
        next = source.source();
    }
    text
}

/// KV cache, in positions, unless a context needs more.
const KV_TOKENS: usize = 16_384;

/// Findings of one verdict; a receipt with more has nothing right.
const FINDINGS_MAX: usize = 16;

/// Characters of one text in a finding.
const TEXT_MAX: usize = 300;
