//! `countersign chat`: asks one question, prints the answer as it comes, and
//! says whether it may be believed.

use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use client::check::{ExpectedModel, Proof, Proven};
use client::keyfile;
use client::known::{FirstUse, KnownGateways};
use client::save::SavedAnswer;
use client::{Accepted, BaseUrl, ChatAsk, Client, Http, Received, Rejection, ReplyLimits, Trust};
use protocol::{Did, RequestId, SigningKey};

use crate::data_dir::DataDir;
use crate::terminal::{Screen, harmless};

/// What to ask, whom, and whom to believe.
#[derive(Debug, clap::Args)]
pub struct ChatArgs {
    /// The gateway to ask
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    url: BaseUrl,
    /// Who asks: a key file of `countersign key new`
    /// [default: keys/client.pem in the data directory]
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// The gateway's key, if you know it from elsewhere. Otherwise the key of
    /// the first answer is kept in known-gateways.toml, and a change is refused
    #[arg(long, value_name = "DID")]
    trust: Option<Did>,
    /// The model to ask [default: the gateway's, if it has only one]
    #[arg(long, value_name = "M")]
    model: Option<String>,
    /// What the model is told beforehand
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// Tokens at most
    #[arg(long, value_name = "N")]
    max_tokens: Option<u32>,
    /// 0 always takes the likeliest token, 2 is the wildest
    #[arg(long, value_name = "T")]
    temperature: Option<f64>,
    /// The same seed gives the same answer; without one it comes from the signature's nonce
    #[arg(long, value_name = "S", allow_negative_numbers = true, value_parser = seed)]
    seed: Option<u64>,
    /// Keep request, signature, answer, receipt and chain in the new folder DIR
    #[arg(long, value_name = "DIR")]
    save: Option<PathBuf>,
    /// Speak HTTP/2 instead of HTTP/1.1
    #[arg(long)]
    http2: bool,
    /// What to ask; without it, or with `-`, it is read from stdin
    prompt: Vec<String>,
}

/// Any 64-bit integer; a negative one counts as its two's complement, as in a request.
fn seed(text: &str) -> Result<u64, std::num::ParseIntError> {
    text.parse()
        .or_else(|_| text.parse::<i64>().map(i64::cast_unsigned))
}

/// Runs it.
pub fn run(args: ChatArgs, data: &DataDir) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting")?;
    runtime.block_on(chat(args, data))
}

async fn chat(args: ChatArgs, data: &DataDir) -> anyhow::Result<ExitCode> {
    if let Some(folder) = &args.save {
        SavedAnswer::check_free(folder)?;
    }
    let key = load_key(args.key.as_deref(), data)?;
    let known_file = data.known_gateways();
    let trust = Trust {
        gateway: args.trust,
        known: KnownGateways::load(&known_file)?,
        whitelist: whitelist(),
    };
    let prompt = read_prompt(&args.prompt)?;
    let http = if args.http2 { Http::H2 } else { Http::H1 };
    let client = Client::new(args.url, Some(key), http, ReplyLimits::default());
    let ask = ChatAsk {
        model: match args.model {
            Some(model) => model,
            None => only_model(&client).await?,
        },
        prompt,
        system: args.system,
        max_tokens: args.max_tokens,
        temperature: args.temperature,
        seed: args.seed,
    };

    let mut reply = client.ask(ChatAsk::PATH, ask.body()).await?;
    let mut screen = Screen::stdout();
    while let Some(delta) = reply.next().await {
        screen.print(&delta.text).context("writing to stdout")?;
    }
    screen.end().context("writing to stdout")?;
    let (sent, received) = reply.finish().await;

    let proof = proof(&client, &received).await;
    let verdict = trust.judge(&sent, &received, proof.as_ref().map_err(String::as_str));
    let proven = proof.as_ref().ok().filter(|_| verdict.is_err());
    let proven = proven
        .and_then(|proof| trust.proven(&sent, &received, &proof.chain))
        .map(|judged| proves(&judged));
    // Kept before it is told: a full disk must not look like a success.
    if let Some(folder) = &args.save {
        let gateway = match &verdict {
            Ok(accepted) => Some(accepted.gateway),
            Err(_) => trust.gateway(&sent.authority),
        };
        let came = (&sent, &received);
        SavedAnswer::of(
            client.url(),
            came,
            proof.ok(),
            verdict.as_ref().err(),
            gateway,
        )
        .write(folder)?;
    }
    match verdict {
        Ok(accepted) => {
            KnownGateways::remember(&known_file, &accepted.first_uses)?;
            for first in &accepted.first_uses {
                eprintln!("{} (kept in {})", first_use(first), known_file.display());
            }
            eprintln!("{}", verified(&accepted));
            Ok(ExitCode::SUCCESS)
        }
        Err(rejection) => {
            if let Some(line) = proven {
                eprintln!("{line}");
            }
            eprintln!("NOT VERIFIED: {}", one_line(&rejection.to_string()));
            Ok(ExitCode::FAILURE)
        }
    }
}

fn load_key(named: Option<&Path>, data: &DataDir) -> anyhow::Result<SigningKey> {
    if let Some(file) = named {
        return Ok(keyfile::load(file)?);
    }
    let file = data.client_key();
    anyhow::ensure!(
        file.exists(),
        "there is no key in {}: make one with `countersign key new FILE`, and name it with --key",
        file.display()
    );
    Ok(keyfile::load(&file)?)
}

/// What the gateway keeps about this answer, whatever became of it.
async fn proof(client: &Client, received: &Received) -> Result<Proof, String> {
    let id = received.answer.id.as_deref().unwrap_or_default();
    let id: RequestId = id
        .parse()
        .map_err(|_| "the response has no request id".to_owned())?;
    client
        .proof(&id)
        .await
        .map_err(|error| format!("{:#}", anyhow::Error::from(error)))
}

async fn only_model(client: &Client) -> anyhow::Result<String> {
    let mut models = client.models().await?;
    match models.len() {
        1 => Ok(models.remove(0)),
        0 => anyhow::bail!("{} serves no model at the moment", client.url()),
        _ => anyhow::bail!(
            "choose a model with --model: {}",
            harmless(&models.join(", "))
        ),
    }
}

fn read_prompt(words: &[String]) -> anyhow::Result<String> {
    if !words.is_empty() && words != ["-"] {
        return Ok(words.join(" "));
    }
    let mut stdin = std::io::stdin();
    if stdin.is_terminal() {
        eprintln!("Type the prompt, then Ctrl-D:");
    }
    let mut prompt = String::new();
    stdin
        .read_to_string(&mut prompt)
        .context("reading the prompt from stdin")?;
    anyhow::ensure!(!prompt.trim().is_empty(), "the prompt is empty");
    Ok(prompt)
}

/// The models whose digests this build knows by itself.
#[cfg(feature = "runtime")]
fn whitelist() -> std::collections::BTreeMap<String, ExpectedModel> {
    let expected = |manifest: &protocol::manifest::Manifest| ExpectedModel {
        digest: manifest.digest(),
        numerics: manifest.numerics.clone(),
    };
    models::Whitelist::embedded()
        .iter()
        .map(|manifest| (manifest.identity.id.clone(), expected(manifest)))
        .collect()
}

/// A build without models knows none: they are pinned by first use.
#[cfg(not(feature = "runtime"))]
fn whitelist() -> std::collections::BTreeMap<String, ExpectedModel> {
    Default::default()
}

fn first_use(first: &FirstUse) -> String {
    match first {
        FirstUse::Gateway { authority, gateway } => {
            format!("first use: the gateway at {authority} has the key {gateway}")
        }
        FirstUse::Model { model, known, .. } => format!(
            "first use: the model {} has the digest {} and is computed as {}",
            one_line(model),
            known.digest,
            one_line(&known.numerics)
        ),
    }
}

fn verified(accepted: &Accepted) -> String {
    let claims = accepted.receipt.claims();
    let written: u64 = claims
        .output
        .iter()
        .map(|output| u64::from(output.tokens))
        .sum();
    one_line(&format!(
        "verified {}: {} prompt and {written} output tokens, {} ({}, {}), gateway {}",
        claims.jti,
        claims.input.prompt_tokens,
        claims.model.id,
        claims.model.digest,
        claims.numerics.profile,
        accepted.gateway
    ))
}

/// What the latest checkpoint proves of an answer that isn't believed.
fn proves(judged: &Result<Proven, Rejection>) -> String {
    one_line(&match judged {
        Ok(proven) => {
            let claims = proven.receipt.claims();
            let parts = claims.output.iter().zip(&proven.texts).enumerate();
            let parts = parts.map(|(choice, (output, text))| {
                let (tokens, characters) = (output.tokens, text.chars().count());
                format!("the first {characters} characters ({tokens} tokens) of choice {choice}")
            });
            let parts: Vec<_> = parts.collect();
            format!("checkpoint {} proves {}", claims.part, parts.join(", "))
        }
        Err(rejection) => format!("the latest checkpoint proves nothing: {rejection}"),
    })
}

/// Words from elsewhere never make a second line.
fn one_line(text: &str) -> String {
    harmless(&text.replace(['\n', '\t'], " "))
}
