//! The `countersign` command: parses the command line and hands over to one
//! file per subcommand. Without a subcommand it's `up`.

#![forbid(unsafe_code)]

#[cfg(feature = "runtime")]
mod bench;
mod chat;
mod data_dir;
#[cfg(feature = "runtime")]
mod engine;
mod key;
#[cfg(feature = "runtime")]
mod log;
#[cfg(feature = "runtime")]
mod model;
#[cfg(feature = "runtime")]
mod progress;
mod receipt;
mod terminal;
#[cfg(feature = "runtime")]
mod up;
#[cfg(feature = "runtime")]
mod verify;

use std::process::ExitCode;

use clap::Parser;

/// Serves open-weight models with signed receipts, and checks such receipts.
///
/// Without a subcommand this is `countersign up`: a gateway and the embedded
/// model on this machine, on loopback only.
#[derive(Debug, Parser)]
#[command(name = "countersign", version, args_conflicts_with_subcommands = true)]
#[cfg_attr(not(feature = "runtime"), command(arg_required_else_help = true))]
struct Cli {
    #[command(flatten)]
    data: data_dir::DataArgs,

    #[cfg(feature = "runtime")]
    #[command(flatten)]
    up: up::UpArgs,

    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Serve a model: gateway, provider and engine on this machine
    #[cfg(feature = "runtime")]
    Up(up::UpArgs),
    /// Run one engine: started by `up`, speaks over the socket on its stdin
    #[cfg(feature = "runtime")]
    #[command(hide = true)]
    Engine(engine::EngineArgs),
    /// Ask a model, and check the receipt of what it answers
    ///
    /// The answer goes to stdout as it arrives. Then one line goes to stderr:
    /// `verified …`, or `NOT VERIFIED: CHECK: what was found`. The exit status
    /// is 0 only if every check held.
    Chat(chat::ChatArgs),
    /// Make and show key files
    #[command(subcommand)]
    Key(key::Key),
    /// Show and check receipts, offline
    #[command(subcommand)]
    Receipt(receipt::ReceiptCommand),
    /// List and fetch the models that this build may serve
    #[cfg(feature = "runtime")]
    #[command(subcommand)]
    Model(model::ModelCommand),
    /// Compare bits, and measure speed
    #[cfg(feature = "runtime")]
    #[command(subcommand)]
    Bench(bench::BenchCommand),
    /// Judge saved answers: compute them again, and sign a verdict for each
    #[cfg(feature = "runtime")]
    #[command(subcommand)]
    Verify(verify::VerifyCommand),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    run(cli).unwrap_or_else(|error| {
        eprintln!("countersign: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        #[cfg(feature = "runtime")]
        None => up::run(cli.up, &cli.data.dir()?),
        #[cfg(feature = "runtime")]
        Some(Command::Up(args)) => up::run(args, &cli.data.dir()?),
        #[cfg(feature = "runtime")]
        Some(Command::Engine(args)) => engine::run(&args),
        Some(Command::Chat(args)) => chat::run(args, &cli.data.dir()?),
        Some(Command::Key(command)) => key::run(&command),
        Some(Command::Receipt(command)) => receipt::run(&command, &cli.data),
        #[cfg(feature = "runtime")]
        Some(Command::Model(command)) => model::run(&command, &cli.data),
        #[cfg(feature = "runtime")]
        Some(Command::Bench(command)) => bench::run(command, &cli.data),
        #[cfg(feature = "runtime")]
        Some(Command::Verify(command)) => verify::run(command, &cli.data),
        #[cfg(not(feature = "runtime"))]
        None => anyhow::bail!("say what to do: `countersign --help` lists it"),
    }
}
