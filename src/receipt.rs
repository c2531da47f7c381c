//! `countersign receipt`: shows what a receipt says, and checks one offline.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use client::check;
use client::known::KnownGateways;
use protocol::credential::Chain;
use protocol::receipt::SignedReceipt;
use protocol::{Did, json};

use crate::data_dir::DataArgs;

/// What to do with a receipt.
#[derive(Debug, clap::Subcommand)]
pub enum ReceiptCommand {
    /// Print what a receipt says, as JSON; nothing is checked but its form
    Show {
        /// The receipt, a compact JWS
        file: PathBuf,
    },
    /// Check a receipt against the request, the answer and the chain
    ///
    /// Prints one line. The exit status is 0 only if every check held. The
    /// gateway's key is the one given by --trust, else the one that `chat`
    /// has kept for the receipt's authority.
    Verify(VerifyArgs),
}

/// The files of one answer.
#[derive(Debug, clap::Args)]
pub struct VerifyArgs {
    /// The receipt, a compact JWS
    file: PathBuf,
    /// The request body, byte for byte
    #[arg(long, value_name = "BODY")]
    request: PathBuf,
    /// The text that was answered, byte for byte; once for each choice
    #[arg(long, value_name = "TEXT", required = true)]
    output: Vec<PathBuf>,
    /// The credential chain: a JSON array, or the reply of GET /v1/receipts/ID
    #[arg(long, value_name = "FILE")]
    chain: PathBuf,
    /// The gateway's key
    #[arg(long, value_name = "DID")]
    trust: Option<Did>,
}

/// Runs it.
pub fn run(command: &ReceiptCommand, data: &DataArgs) -> anyhow::Result<ExitCode> {
    match command {
        ReceiptCommand::Show { file } => show(file),
        ReceiptCommand::Verify(args) => verify(args, data),
    }
}

fn show(file: &Path) -> anyhow::Result<ExitCode> {
    let receipt = parse(&read_compact(file)?, file)?;
    let claims = serde_json::to_string_pretty(receipt.unverified()).context("printing")?;
    println!("{claims}");
    eprintln!("not checked; the receipt's SHA-256 is {}", receipt.digest());
    Ok(ExitCode::SUCCESS)
}

fn verify(args: &VerifyArgs, data: &DataArgs) -> anyhow::Result<ExitCode> {
    let compact = read_compact(&args.file)?;
    let chain = read_chain(&args.chain)?;
    let body = read(&args.request)?;
    let texts = args
        .output
        .iter()
        .map(|path| read_text(path))
        .collect::<anyhow::Result<Vec<String>>>()?;
    let gateway = match args.trust {
        Some(gateway) => gateway,
        None => known_gateway(&parse(&compact, &args.file)?, data)?,
    };
    match check::verify(&compact, &chain, &gateway, &body, &texts) {
        Ok(receipt) => {
            let claims = receipt.claims();
            let finishes: Vec<&str> = (claims.output.iter())
                .map(|output| output.finish.as_str())
                .collect();
            let client = claims
                .sub
                .map_or("an unsigned request".to_owned(), |did| did.to_string());
            println!(
                "verified {}: {} for {client}, finish {}, gateway {gateway}",
                claims.jti,
                claims.model.digest,
                finishes.join(" ")
            );
            Ok(ExitCode::SUCCESS)
        }
        Err(rejection) => {
            eprintln!("NOT VERIFIED: {rejection}");
            Ok(ExitCode::FAILURE)
        }
    }
}

fn known_gateway(receipt: &SignedReceipt, data: &DataArgs) -> anyhow::Result<Did> {
    let file = data.dir()?.known_gateways();
    let authority = &receipt.unverified().input.request.authority;
    KnownGateways::load(&file)?
        .gateway(authority)
        .with_context(|| {
            format!(
                "no gateway key is known for {authority:?} in {}: give one with --trust",
                file.display()
            )
        })
}

fn parse(compact: &str, file: &Path) -> anyhow::Result<SignedReceipt> {
    SignedReceipt::parse(compact).with_context(|| format!("{} isn't a receipt", file.display()))
}

fn read_chain(file: &Path) -> anyhow::Result<Chain> {
    let value =
        json::parse(&read(file)?).with_context(|| format!("{} isn't JSON", file.display()))?;
    let chain = value.get("chain").cloned().unwrap_or(value);
    serde_json::from_value(chain)
        .with_context(|| format!("{} isn't a credential chain", file.display()))
}

/// A JWS has no white space of its own; editors and shells add a line end.
fn read_compact(file: &Path) -> anyhow::Result<String> {
    Ok(read_text(file)?.trim_ascii().to_owned())
}

fn read_text(file: &Path) -> anyhow::Result<String> {
    String::from_utf8(read(file)?).with_context(|| format!("{} isn't UTF-8", file.display()))
}

fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(file).with_context(|| format!("reading {}", file.display()))
}
