//! Servers as a user starts them: `countersign up` and llama-server, each a
//! child process that ends with its [`Server`].

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::Context;
use protocol::Did;
use tempfile::TempDir;

use super::theirs::LlamaCpp;
use crate::subject::Subject;

/// A server that answers.
pub struct Server {
    /// Where.
    pub address: SocketAddr,
    /// Our gateway's key.
    pub gateway: Option<Did>,
    child: Child,
    _data: Option<TempDir>,
}

/// How long a server may take to be ready.
const PATIENCE: Duration = Duration::from_secs(120);

impl Server {
    /// `countersign up` with a data directory of its own. Only signed requests
    /// of `client` are accepted.
    pub fn ours(
        program: &Path,
        subject: &Subject,
        client: &Did,
        sequences: usize,
    ) -> anyhow::Result<Self> {
        let data = TempDir::with_prefix("countersign-bench-").context("making a data directory")?;
        let models = data.path().join("models");
        let weights = models::fetch::path(subject.manifest, &models);
        let folder = weights.parent().context("weights lie in a folder")?;
        std::fs::create_dir_all(folder).context("making the models folder")?;
        let original = std::fs::canonicalize(&subject.weights).context("finding the weights")?;
        if std::fs::hard_link(&original, &weights).is_err() {
            std::fs::copy(&original, &weights).context("copying the weights")?;
        }
        let mut command = Command::new(program);
        command
            .args([
                "up",
                "--http",
                "127.0.0.1:0",
                "--admin",
                "127.0.0.1:0",
                "--log",
                "error",
            ])
            .arg("--data")
            .arg(data.path())
            .args(["--model", &subject.manifest.identity.id])
            .args(["--sequences", &sequences.to_string(), "--waiting", "256"])
            .args(["--require-signed", "--allow-did", &client.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit());
        let mut child = command.spawn().context("starting this program")?;
        let lines = lines(&mut child)?;
        let mut server = Self {
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            gateway: None,
            child,
            _data: Some(data),
        };
        // The banner is complete when the last command to try is there.
        loop {
            let line = lines
                .recv_timeout(PATIENCE)
                .context("`countersign up` isn't ready")?;
            if let Some(rest) = line.trim().strip_prefix("ready http://") {
                let word = rest.split_whitespace().next().unwrap_or_default();
                server.address = word.parse().context("reading the address")?;
            }
            if let Some(at) = line.find("did:key:") {
                let word = line[at..].split_whitespace().next().unwrap_or_default();
                server.gateway = server.gateway.or_else(|| word.parse().ok());
            }
            if line.contains(" chat --url ") {
                return Ok(server);
            }
        }
    }

    /// llama-server, with room for `parallel` streams and otherwise its defaults.
    pub fn theirs(
        llama: &LlamaCpp,
        file: &Path,
        threads: usize,
        parallel: usize,
    ) -> anyhow::Result<Self> {
        let free = TcpListener::bind(("127.0.0.1", 0)).context("finding a free port")?;
        let address = free.local_addr().context("finding a free port")?;
        drop(free);
        let mut command = llama.program("llama-server");
        command
            .arg("-m")
            .arg(file)
            .args(["--host", "127.0.0.1"])
            .stdout(Stdio::null());
        for (name, value) in [
            ("--port", usize::from(address.port())),
            ("-t", threads),
            ("--parallel", parallel),
            ("-c", 256 * parallel),
        ] {
            command.arg(name).arg(value.to_string());
        }
        let child = command.spawn().context("starting llama-server")?;
        let mut server = Self {
            address,
            gateway: None,
            child,
            _data: None,
        };
        let start = Instant::now();
        while !healthy(address) {
            let ended = server
                .child
                .try_wait()
                .context("waiting for llama-server")?;
            anyhow::ensure!(ended.is_none(), "llama-server ended at once");
            anyhow::ensure!(start.elapsed() < PATIENCE, "llama-server isn't ready");
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(server)
    }

    /// Resident bytes of the engine that our gateway started.
    pub fn engine_memory(&self) -> Option<u64> {
        // The engine is a child of whichever thread started it.
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).ok()?;
        let engine: u32 = threads.flatten().find_map(|thread| {
            let text = std::fs::read_to_string(thread.path().join("children")).ok()?;
            text.split_whitespace().next()?.parse().ok()
        })?;
        let status = std::fs::read_to_string(format!("/proc/{engine}/status")).ok()?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kib: u64 = line.trim().split(' ').next()?.parse().ok()?;
        Some(kib * 1024)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; nothing more can be done about it then.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A child's lines of output. They are read to the end, or it would stop at a full pipe.
fn lines(child: &mut Child) -> anyhow::Result<mpsc::Receiver<String>> {
    let stdout = child.stdout.take().context("stdout is a pipe")?;
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    Ok(receiver)
}

/// Whether /health says 200.
fn healthy(address: SocketAddr) -> bool {
    use std::io::{Read, Write};
    let ask = || -> std::io::Result<bool> {
        let mut stream = std::net::TcpStream::connect(address)?;
        stream.write_all(b"GET /health HTTP/1.0\r\n\r\n")?;
        let mut head = [0; 12];
        stream.read_exact(&mut head)?;
        Ok(head.ends_with(b" 200"))
    };
    ask().unwrap_or(false)
}
