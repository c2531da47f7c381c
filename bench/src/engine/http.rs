//! The same load through HTTP on both servers: streams side by side, each
//! asking again as soon as it is answered.
//!
//! Ours gets signed requests, and every receipt is checked after the clock has
//! stopped. What is sent and read is in `clients`. Start at [`table`].

mod clients;

use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use models::Special;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::Options;
use super::server::Server;
use super::statistics::Samples;
use super::theirs::LlamaCpp;
use crate::report::Section;
use crate::subject::Subject;
use crate::text::BOOK;
use clients::{Asked, Ours, Theirs};

/// Streams side by side.
const STREAMS: [usize; 4] = [1, 8, 16, 64];
/// Tokens of a prompt.
const PROMPT: usize = 123;
/// Tokens of an answer.
const ANSWER: usize = 64;

/// One server under one load.
#[derive(Default)]
struct Measured {
    tokens_per_second: Samples,
    first_token_ms: Samples,
}

/// Measures both servers at every number of streams.
pub fn table(options: &Options, llama: Option<&LlamaCpp>) -> anyhow::Result<Section> {
    let rounds = usize::min(options.rounds, 2);
    let mut prompts = Prompts::of(&options.subject)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .context("starting")?;
    let key = protocol::SigningKey::from_seed([7; 32]);
    let most = STREAMS[STREAMS.len() - 1];
    let server = Server::ours(&options.program, &options.subject, &key.did(), most)?;
    let ours = Arc::new(Ours::new(&server, &options.subject, key)?);
    let mut table = Section::new(
        format!(
            "Through HTTP: prompts of {PROMPT} tokens, answers of {ANSWER}, all prompts different, \
             each engine's own sampling defaults; ours signed, receipts checked after the clock stopped; \
             `up --sequences {most}`, `llama-server --parallel` as many as streams"
        ),
        &[
            "streams",
            "ours, tokens/s",
            "llama-server",
            "ratio",
            "to reach",
            "first token, median (p99), ms",
            "llama-server",
            "ratio",
            "to reach",
        ],
    );
    for streams in STREAMS {
        let (mut us, mut them) = (Measured::default(), Measured::default());
        let beside = match llama {
            Some(llama) => {
                let file = &options.subject.weights;
                let server = Server::theirs(llama, file, options.threads, streams)?;
                let theirs = Theirs::new(server.address)?;
                Some((server, Arc::new(theirs)))
            }
            None => None,
        };
        for round in 0..rounds {
            eprintln!("HTTP, {streams} streams: round {} of {rounds}", round + 1);
            let count = streams * if streams == 1 { 4 } else { 2 };
            let bodies = prompts.bodies(count, &options.subject);
            runtime.block_on(drive(&ours, &bodies, streams, &mut us))?;
            if let Some((_, theirs)) = &beside {
                runtime.block_on(drive(theirs, &bodies, streams, &mut them))?;
            }
        }
        row(&mut table, streams, &us, &them);
    }
    let checked = runtime.block_on(ours.check_receipts())?;
    let memory = server.engine_memory().map(|bytes| bytes as f64 / 1e6);
    let mut cells = vec![String::new(); 9];
    cells[0] = format!(
        "{checked} receipts checked, none wrong; engine process: {:.0} MB resident",
        memory.unwrap_or(f64::NAN)
    );
    table.row(
        cells,
        json!({ "receipts_checked": checked, "engine_resident_mb": memory }),
    );
    Ok(table)
}

fn row(table: &mut Section, streams: usize, us: &Measured, them: &Measured) {
    let speed = super::ratio(&us.tokens_per_second, &them.tokens_per_second);
    let wait = super::ratio(&us.first_token_ms, &them.first_token_ms);
    let text = |ratio: Option<f64>| ratio.map_or_else(|| "–".to_owned(), |r| format!("{r:.2}"));
    let waits = |measured: &Measured| match measured.first_token_ms.is_empty() {
        true => "–".to_owned(),
        false => {
            let samples = &measured.first_token_ms;
            format!("{:.0} ({:.0})", samples.median(), samples.quantile(0.99))
        }
    };
    let cells = vec![
        streams.to_string(),
        super::rate(&us.tokens_per_second),
        super::rate(&them.tokens_per_second),
        text(speed),
        if streams >= 8 { "≥ 3.0" } else { "–" }.to_owned(),
        waits(us),
        waits(them),
        text(wait),
        if streams == 16 { "≤ 0.25" } else { "–" }.to_owned(),
    ];
    let side = |measured: &Measured| -> Value {
        json!({
            "tokens_per_second": measured.tokens_per_second.json(),
            "first_token_ms": measured.first_token_ms.json(),
            "first_token_ms_p99": measured.first_token_ms.quantile(0.99),
        })
    };
    let value = json!({
        "streams": streams, "ours": side(us), "llama_cpp": side(them),
        "ratio": speed, "first_token_ratio": wait,
    });
    table.row(cells, value);
}

/// Asks all bodies, `streams` at a time.
async fn drive<C: clients::Client>(
    client: &Arc<C>,
    bodies: &[Vec<u8>],
    streams: usize,
    out: &mut Measured,
) -> anyhow::Result<()> {
    let mut tasks = JoinSet::new();
    let start = Instant::now();
    for stream in 0..streams {
        let client = Arc::clone(client);
        let bodies: Vec<Vec<u8>> = bodies
            .iter()
            .skip(stream)
            .step_by(streams)
            .cloned()
            .collect();
        tasks.spawn(async move {
            let mut asked = Vec::new();
            for body in bodies {
                asked.push(client.ask(body).await?);
            }
            anyhow::Ok(asked)
        });
    }
    let mut tokens = 0;
    while let Some(stream) = tasks.join_next().await {
        for Asked {
            first,
            tokens: answer,
        } in stream.context("a stream")??
        {
            tokens += answer;
            out.first_token_ms.add(first.as_secs_f64() * 1e3);
        }
    }
    out.tokens_per_second
        .add(tokens as f64 / start.elapsed().as_secs_f64());
    Ok(())
}

/// Different prompts of the same length, from the book.
struct Prompts {
    texts: Vec<String>,
    next: usize,
}

impl Prompts {
    fn of(subject: &Subject) -> anyhow::Result<Self> {
        let model = subject.load_whole(1, 32)?;
        let tokenizer = model.tokenizer();
        let tokens = tokenizer.encode(BOOK, Special::AsText);
        let text = |tokens: &[u32]| {
            let text = String::from_utf8(tokenizer.decode(tokens)).ok()?;
            // Cut elsewhere, a text may have other tokens.
            (tokenizer.encode(&text, Special::AsText).len() == PROMPT).then_some(text)
        };
        let texts: Vec<String> = tokens.chunks_exact(PROMPT).filter_map(text).collect();
        anyhow::ensure!(texts.len() > 500, "only {} prompts", texts.len());
        Ok(Self { texts, next: 0 })
    }

    fn bodies(&mut self, count: usize, subject: &Subject) -> Vec<Vec<u8>> {
        let first = self.next;
        self.next += count;
        let body = |index: usize| {
            let body = json!({
                "model": subject.manifest.identity.id,
                "prompt": self.texts[index % self.texts.len()],
                "max_tokens": ANSWER,
                "ignore_eos": true,
                "stream": true,
                "stream_options": { "include_usage": true },
            });
            serde_json::to_vec(&body).expect("strings and numbers have JSON")
        };
        (first..first + count).map(body).collect()
    }
}
