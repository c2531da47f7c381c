//! What `up` prints once it is ready: where it is, who it is, what to try.

use std::fmt::{self, Display};
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use protocol::Did;
use protocol::receipt::ModelRef;

/// Everything that a person needs to begin.
#[derive(Debug)]
pub struct Banner {
    /// Where clients ask.
    pub http: SocketAddr,
    /// Where health and metrics are.
    pub admin: SocketAddr,
    /// The gateway's key, which clients pin.
    pub gateway: Did,
    /// What is served.
    pub model: ModelRef,
    /// The key of the printed chat command.
    pub client_key: PathBuf,
    /// Whether the printed curl would be answered.
    pub unsigned: bool,
}

const PROMPT: &str = "Why is the sky blue?";

impl Banner {
    /// Prints it. Whoever closed stdout doesn't want to know.
    pub fn print(&self) {
        let mut out = std::io::stdout();
        let _ = write!(out, "{self}").and_then(|()| out.flush());
    }

    /// The address as a client on this machine names it.
    fn reachable(&self) -> SocketAddr {
        let mut address = self.http;
        match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip([127, 0, 0, 1].into()),
            IpAddr::V6(ip) if ip.is_unspecified() => {
                address.set_ip(std::net::Ipv6Addr::LOCALHOST.into())
            }
            _ => {}
        }
        address
    }
}

impl Display for Banner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = format!("http://{}", self.reachable());
        writeln!(f, "ready http://{}", self.http)?;
        writeln!(f, "admin http://{}", self.admin)?;
        writeln!(f, "gateway {}", self.gateway)?;
        writeln!(f, "model {} {}", self.model.id, self.model.digest)?;
        writeln!(f, "\nTry it:")?;
        if self.unsigned {
            let body = serde_json::json!({
                "model": self.model.id,
                "messages": [{ "role": "user", "content": PROMPT }],
                "max_tokens": 64,
            });
            writeln!(
                f,
                "  curl {url}/v1/chat/completions -H 'content-type: application/json' -d {}",
                quoted(&body.to_string())
            )?;
        }
        writeln!(
            f,
            "  {} chat --url {url} --key {} --trust {} --max-tokens 64 {}",
            program(),
            quoted(&shown(&self.client_key)),
            self.gateway,
            quoted(PROMPT)
        )
    }
}

/// This program as a shell finds it.
fn program() -> String {
    match std::env::current_exe() {
        Ok(path) => quoted(&shown(&path)),
        Err(_) => "countersign".to_owned(),
    }
}

/// The path as any terminal finds it.
fn shown(path: &Path) -> String {
    let whole = std::path::absolute(path);
    whole.as_deref().unwrap_or(path).display().to_string()
}

/// The word as a shell reads it back.
fn quoted(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-:=,+@%".contains(&byte);
    match !word.is_empty() && word.bytes().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use protocol::manifest::Manifest;

    use super::*;

    fn banner(http: &str, unsigned: bool) -> String {
        let manifest: &Manifest = &models::Whitelist::embedded()[0];
        Banner {
            http: http.parse().unwrap(),
            admin: "127.0.0.1:8081".parse().unwrap(),
            gateway: protocol::SigningKey::from_seed([1; 32]).did(),
            model: manifest.model(),
            client_key: "/data/my keys/client.pem".into(),
            unsigned,
        }
        .to_string()
    }

    #[test]
    fn the_first_line_is_for_scripts() {
        let text = banner("127.0.0.1:8080", true);
        assert!(text.starts_with("ready http://127.0.0.1:8080\n"), "{text}");
        assert!(
            text.contains("  curl http://127.0.0.1:8080/v1/chat/completions "),
            "{text}"
        );
        assert!(
            text.contains(" --key '/data/my keys/client.pem' "),
            "{text}"
        );
    }

    #[test]
    fn commands_name_an_address_that_can_be_reached() {
        let text = banner("0.0.0.0:9", false);
        assert!(text.starts_with("ready http://0.0.0.0:9\n"), "{text}");
        assert!(text.contains(" chat --url http://127.0.0.1:9 "), "{text}");
        assert!(
            !text.contains("curl"),
            "an unsigned request would be refused: {text}"
        );
        assert!(banner("[::]:9", true).contains(" --url http://[::1]:9 "));
    }

    #[test]
    fn a_shell_reads_words_back() {
        assert_eq!(quoted("/a/b-c_d.pem"), "/a/b-c_d.pem");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted("a b"), "'a b'");
        assert_eq!(quoted(""), "''");
    }
}
