//! The options of `up`, and everything that can be wrong with them.
//!
//! Pure: every fault is found before anything is bound or fetched, and all are
//! told together. Start at [`Settings::read`].

use std::fmt::{self, Display};
use std::net::SocketAddr;
use std::num::{NonZeroU8, NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use gateway::GatewayConfig;
use job_runtime::EngineLimits;
use models::Whitelist;
use protocol::Did;
use protocol::manifest::Manifest;

use crate::data_dir::DataDir;
use crate::log;

/// What `up` can be told. All values are read by [`Settings::read`], so that
/// all that is wrong is told at once.
#[derive(Debug, Clone, clap::Args)]
#[command(args_override_self = true)]
pub struct UpArgs {
    /// Where clients ask; port 0 takes any free port. An address that isn't
    /// loopback requires signatures, unless --allow-unsigned is said
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    http: String,
    /// Where /livez, /readyz and /metrics are
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8081")]
    admin: String,
    /// Refuse unsigned requests on loopback too. Then only --allow-did may
    /// ask, and the key that `up` keeps for the commands that it prints
    #[arg(long)]
    require_signed: bool,
    /// Accept unsigned requests from anybody who can reach the address
    #[arg(long)]
    allow_unsigned: bool,
    /// Who may ask: a client's DID (repeatable). Naming one shuts all others
    /// out, and unsigned requests too
    #[arg(long, value_name = "DID")]
    allow_did: Vec<String>,
    /// A name that clients use for this gateway, `HOST:PORT` as in their URL
    /// (repeatable) [default: the bound address, and localhost]
    #[arg(long, value_name = "HOST:PORT")]
    authority: Vec<String>,
    /// Where weights are kept [default: models in the data directory]
    #[arg(long, value_name = "DIR")]
    models: Option<PathBuf>,
    /// The model to serve; `countersign model list` shows which there are
    #[arg(long, value_name = "ID")]
    model: Option<String>,
    /// Sequences that the engine computes together
    #[arg(long, value_name = "N", default_value = "64")]
    sequences: String,
    /// Requests that may wait for their turn; one more is refused with 429
    #[arg(long, value_name = "N", default_value = "64")]
    waiting: String,
    /// Tokens of prompt and answer together, at most
    #[arg(long, value_name = "N", default_value = "8192")]
    context_tokens: String,
    /// Threads that compute [default: one for each core]
    #[arg(long, value_name = "N")]
    threads: Option<String>,
    /// Whose requests may reuse what was computed for another with the same
    /// beginning: off, client (only the same client's) or all (anybody's, who can
    /// then tell by the time that somebody has asked it)
    #[arg(long, value_name = "WHOSE", default_value = "client")]
    prefix_sharing: String,
    /// Tokens of a streamed answer after which the receipt so far is signed, so that a
    /// cut stream leaves proof; 0: never
    #[arg(long, value_name = "N", default_value = "256")]
    checkpoint_tokens: String,
    /// Seconds that open answers may go on after Ctrl-C
    #[arg(long, value_name = "SECONDS", default_value = "30")]
    drain: String,
    /// What is logged to stderr, such as warn or gateway=debug,info
    #[arg(long, value_name = "FILTER", default_value = log::DEFAULT)]
    log: String,
}

/// Options that make sense, each by itself and together.
#[derive(Debug)]
pub struct Settings {
    /// The gateway's. The key that `up` keeps for its own commands isn't in it yet.
    pub gateway: GatewayConfig,
    /// The model to serve.
    pub manifest: &'static Manifest,
    /// Where its weights are kept.
    pub models: PathBuf,
    /// The engine's limits.
    pub limits: EngineLimits,
    /// Threads that compute; none: one for each core.
    pub threads: Option<NonZeroUsize>,
    /// How long open answers may go on after Ctrl-C.
    pub drain: Duration,
    /// What is logged.
    pub log: String,
}

/// All that is wrong with the options.
#[derive(Debug, PartialEq, Eq)]
pub struct Faults(Vec<String>);

impl std::error::Error for Faults {}

impl Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [one] => f.write_str(one),
            all => {
                write!(f, "{} settings are wrong:", all.len())?;
                all.iter().try_for_each(|fault| write!(f, "\n  {fault}"))
            }
        }
    }
}

impl Faults {
    /// The value that `text` means; a fault, and none, if it means none.
    fn value<T: FromStr>(&mut self, option: &str, text: &str) -> Option<T>
    where
        T::Err: Display,
    {
        text.trim()
            .parse()
            .map_err(|error| self.0.push(format!("--{option} {text:?}: {error}")))
            .ok()
    }
}

impl Settings {
    /// Reads the options, or says all that is wrong with them.
    pub fn read(args: UpArgs, data: &DataDir) -> Result<Settings, Faults> {
        let mut faults = Faults(Vec::new());
        let http: Option<SocketAddr> = faults.value("http", &args.http);
        let admin: Option<SocketAddr> = faults.value("admin", &args.admin);
        let dids: Vec<Option<Did>> = (args.allow_did.iter())
            .map(|did| faults.value("allow-did", did))
            .collect();
        let limits = limits(&args, &mut faults);
        let threads: Option<NonZeroUsize> =
            (args.threads.as_ref()).and_then(|threads| faults.value("threads", threads));
        let drain: Option<u32> = faults.value("drain", &args.drain);
        let manifest = match &args.model {
            None => Some(&Whitelist::embedded()[0]),
            Some(id) => Whitelist::by_id(id).or_else(|| {
                faults
                    .0
                    .push(format!("--model {id:?} isn't on the whitelist"));
                None
            }),
        };
        if let Err(error) = log::parse(&args.log) {
            faults.0.push(format!("--log: {error:#}"));
        }
        if let (Some(limits), Some(manifest)) = (&limits, manifest)
            && let Err(error) = limits.check(manifest)
        {
            faults.0.push(error.to_string());
        }
        // Addresses that can't be read are told above; the rest can still be checked.
        let anywhere = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let mut gateway =
            GatewayConfig::new(http.unwrap_or(anywhere(1)), admin.unwrap_or(anywhere(2)));
        gateway.authorities = args.authority;
        gateway.require_signed = args.require_signed;
        gateway.allow_unsigned = args.allow_unsigned;
        gateway.allow_dids = dids.into_iter().flatten().collect();
        faults.0.extend(gateway_faults(&gateway));
        match (manifest, limits, drain, faults.0.is_empty()) {
            (Some(manifest), Some(limits), Some(drain), true) => Ok(Settings {
                gateway,
                manifest,
                models: args.models.unwrap_or_else(|| data.models()),
                limits,
                threads,
                drain: Duration::from_secs(drain.into()),
                log: args.log,
            }),
            _ => Err(faults),
        }
    }
}

fn limits(args: &UpArgs, faults: &mut Faults) -> Option<EngineLimits> {
    let sequences: Option<NonZeroU32> = faults.value("sequences", &args.sequences);
    let waiting = faults.value("waiting", &args.waiting);
    let context = faults.value("context-tokens", &args.context_tokens);
    let checkpoints = faults.value("checkpoint-tokens", &args.checkpoint_tokens);
    let sharing = faults.value("prefix-sharing", &args.prefix_sharing);
    let sequences = sequences?;
    // A request's choices run together, so there can't be more of them than that.
    let most = NonZeroU8::try_from(sequences).unwrap_or(NonZeroU8::MAX);
    let defaults = EngineLimits::default();
    Some(EngineLimits {
        sequences_max: sequences,
        n_max: defaults.n_max.min(most),
        waiting_max: waiting?,
        context_tokens_max: context?,
        checkpoint_tokens: checkpoints?,
        prefix_sharing: sharing?,
        ..defaults
    })
}

/// The gateway's own rules. That somebody must be named who may ask is met by
/// the key that `up` adds when signatures are required.
fn gateway_faults(gateway: &GatewayConfig) -> Vec<String> {
    let Err(faults) = gateway.check() else {
        return Vec::new();
    };
    (faults.0.iter())
        .filter(|fault| **fault != gateway::ConfigFault::NobodyMayAsk)
        .map(ToString::to_string)
        .collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        up: UpArgs,
        #[command(flatten)]
        data: crate::data_dir::DataArgs,
    }

    fn read(words: &str) -> Result<Settings, Faults> {
        let words = ["up", "--data", "/data"]
            .into_iter()
            .chain(words.split_whitespace());
        let line = Line::try_parse_from(words).unwrap();
        Settings::read(line.up, &line.data.dir().unwrap())
    }

    #[test]
    fn defaults_are_sound() {
        let settings = read("").unwrap();
        assert_eq!(settings.gateway.http, "127.0.0.1:8080".parse().unwrap());
        assert_eq!(settings.models, PathBuf::from("/data/models"));
        assert!(settings.gateway.accepts_unsigned());
    }

    #[test]
    fn the_last_of_two_addresses_counts_and_names_add_up() {
        let settings =
            read("--http 127.0.0.1:1 --authority a:1 --http [::1]:2 --authority b").unwrap();
        assert_eq!(settings.gateway.http, "[::1]:2".parse().unwrap());
        assert_eq!(settings.gateway.authorities, ["a:1", "b"]);
    }

    #[test]
    fn other_addresses_and_named_clients_require_signatures() {
        let did = protocol::SigningKey::from_seed([1; 32]).did();
        for (words, unsigned) in [
            ("--http 0.0.0.0:1", false),
            ("--http 0.0.0.0:1 --allow-unsigned", true),
            ("--require-signed", false),
            (&format!("--allow-did {did}"), false),
        ] {
            assert_eq!(
                read(words).unwrap().gateway.accepts_unsigned(),
                unsigned,
                "{words}"
            );
        }
    }

    #[test]
    fn everything_that_is_wrong_is_told_at_once() {
        let faults = read(
            "--http nowhere --admin 127.0.0.1 --allow-did did:key:nobody --authority HTTP://x \
             --require-signed --allow-unsigned --model gpt-5 --sequences 0 --waiting many --threads 0 --checkpoint-tokens few --prefix-sharing some \
             --drain soon --log a=b=c",
        )
        .unwrap_err();
        let text = faults.to_string();
        for word in [
            "--http",
            "--admin",
            "--allow-did",
            "HTTP://x",
            "contradict",
            "gpt-5",
            "--sequences",
            "--waiting",
            "--threads",
            "--checkpoint-tokens",
            "--prefix-sharing",
            "--drain",
            "--log",
        ] {
            assert!(text.contains(word), "{word} isn't in {text}");
        }
        assert!(text.starts_with("13 settings are wrong:\n"), "{text}");
        assert_eq!(
            read("--http nowhere").unwrap_err().to_string(),
            "--http \"nowhere\": invalid socket address syntax"
        );
    }

    #[test]
    fn few_sequences_mean_few_choices() {
        assert_eq!(read("--sequences 3").unwrap().limits.n_max.get(), 3);
        assert_eq!(read("--sequences 1000").unwrap().limits.n_max.get(), 8);
    }
}
