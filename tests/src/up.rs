//! `countersign up` as a user starts it: the built binary, a data directory of
//! its own, free ports, and the line that says it is ready.
//!
//! Start at [`Up::start`]. The process ends with the [`Up`], or with the test
//! process if that dies first.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{self, Receiver};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use tempfile::TempDir;

use crate::raw::Request;
use crate::workspace;

/// A running gateway with its engine.
pub struct Up {
    /// Where it serves.
    pub http: SocketAddr,
    /// Where health and metrics are.
    pub admin: SocketAddr,
    /// The gateway's DID.
    pub gateway: String,
    /// Everything that it printed until it was ready.
    pub banner: Vec<String>,
    data: PathBuf,
    process: Process,
}

impl Up {
    /// Starts it with a fresh data directory.
    pub fn start(binary: &str) -> Self {
        let data = TempDir::with_prefix("countersign-").unwrap().keep();
        Self::with(binary, &data, &[])
            .unwrap_or_else(|ended| panic!("`up` ended at once: {ended:?}"))
    }

    /// Starts it on `data` (kept, if the caller made it) with more arguments; fails if it ends before it is ready.
    pub fn with(binary: &str, data: &Path, more: &[&str]) -> Result<Self, Ended> {
        let mut command = Command::new(binary);
        command
            .args(["up", "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
            .arg("--data")
            .arg(data)
            .arg("--models")
            .arg(workspace::models())
            .args(more);
        Self::run(command, data)
    }

    /// Starts any command that ends up as `countersign up`.
    pub fn run(mut command: Command, data: &Path) -> Result<Self, Ended> {
        let mut process = Process::spawn(&mut command, data);
        let mut banner = Vec::new();
        // The banner is complete when the last command to try is there.
        while !banner
            .iter()
            .any(|line: &String| line.contains(" chat --url "))
        {
            match process.line() {
                Some(line) => banner.push(line),
                None => return Err(process.ended(banner)),
            }
        }
        let http = word_after(&banner, "ready http://");
        let admin = word_after(&banner, "admin http://");
        let gateway = banner
            .iter()
            .find_map(|line| Some(line[line.find("did:key:")?..].to_owned()))
            .expect("the banner names the gateway");
        Ok(Self {
            http: http.parse().expect("an address"),
            admin: admin.parse().expect("an address"),
            gateway: gateway.split_whitespace().next().unwrap().to_owned(),
            banner,
            data: data.to_owned(),
            process,
        })
    }

    /// What a client puts in front of paths.
    pub fn base(&self) -> String {
        format!("http://{}", self.http)
    }

    /// Its data directory.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Whether it serves.
    pub fn answers(&self) -> bool {
        Request::get("/v1/models").send(self.http).status == 200
    }

    /// The process id of the gateway.
    pub fn pid(&self) -> u32 {
        self.process.child.id()
    }

    /// The process id of the engine that it started.
    pub fn engine_pid(&self) -> u32 {
        let mut children = children_of(self.pid());
        assert_eq!(children.len(), 1, "one engine per gateway: {children:?}");
        children.remove(0)
    }

    /// Ctrl-C.
    pub fn interrupt(&self) {
        signal(self.pid(), Signal::INT);
    }

    /// Ends it without a chance to clean up.
    pub fn kill(self) -> Ended {
        signal(self.pid(), Signal::KILL);
        self.wait()
    }

    /// Waits until it has ended by itself.
    pub fn wait(mut self) -> Ended {
        let banner = std::mem::take(&mut self.banner);
        self.process.ended(banner)
    }
}

/// How a process ended, and everything that it had said.
#[derive(Debug)]
pub struct Ended {
    /// Its exit status.
    pub status: ExitStatus,
    /// Lines of standard output.
    pub stdout: Vec<String>,
    /// Standard error, logs included.
    pub stderr: String,
}

/// Sends a signal to a process that the test started (or its engine).
pub fn signal(pid: u32, signal: Signal) {
    kill_process(raw_pid(pid), signal).expect("it still runs");
}

fn raw_pid(pid: u32) -> Pid {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.expect("a process id")
}

/// A process that isn't our child, whose end can be waited for.
pub struct Watched(OwnedFd);

impl Watched {
    /// Watches it from now on.
    pub fn process(pid: u32) -> Self {
        let descriptor = pidfd_open(raw_pid(pid), PidfdFlags::empty());
        Self(descriptor.expect("it still runs"))
    }

    /// Waits until it has ended.
    pub fn ends(self) {
        let mut events = [PollFd::new(&self.0, PollFlags::IN)];
        let patience = Timespec::try_from(PATIENCE).expect("it fits");
        let ended = poll(&mut events, Some(&patience)).expect("a process can be polled");
        assert_eq!(ended, 1, "it still runs after {PATIENCE:?}");
    }
}

/// Processes whose parent is `pid`.
fn children_of(pid: u32) -> Vec<u32> {
    let parent = |child: u32| -> Option<u32> {
        let stat = std::fs::read_to_string(format!("/proc/{child}/stat")).ok()?;
        // The name in parentheses may hold anything; state and parent follow it.
        let mut fields = stat[stat.rfind(')')? + 1..].split_whitespace();
        fields.nth(1)?.parse().ok()
    };
    std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|&child| parent(child) == Some(pid))
        .collect()
}

fn word_after<'a>(lines: &'a [String], prefix: &str) -> &'a str {
    lines
        .iter()
        .find_map(|line| line.trim().strip_prefix(prefix))
        .and_then(|rest| rest.split_whitespace().next())
        .unwrap_or_else(|| panic!("no line starts with {prefix:?} in {lines:#?}"))
}

/// A child, its output, and a watcher that ends it if the test process dies: a static is never dropped.
struct Process {
    child: Child,
    lines: Mutex<Receiver<String>>,
    stderr: Option<JoinHandle<String>>,
    watcher: Watcher,
}

impl Process {
    fn spawn(command: &mut Command, data: &Path) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|fault| panic!("cannot start {command:?}: {fault}"));
        let watcher = Watcher::over(&child, data);
        let stdout = child.stdout.take().expect("stdout is a pipe");
        let stderr = child.stderr.take().expect("stderr is a pipe");
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let stderr = std::thread::spawn(move || {
            let mut text = String::new();
            let mut stderr = BufReader::new(stderr);
            while stderr.read_line(&mut text).is_ok_and(|read| read > 0) {}
            text
        });
        Self {
            child,
            lines: Mutex::new(lines),
            stderr: Some(stderr),
            watcher,
        }
    }

    /// The next line of standard output; `None` when it was closed.
    fn line(&mut self) -> Option<String> {
        let lines = self.lines.get_mut().expect("no reader panics");
        match lines.recv_timeout(PATIENCE) {
            Ok(line) => Some(line),
            Err(mpsc::RecvTimeoutError::Disconnected) => None,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                drop(self.child.kill());
                panic!("silent for {PATIENCE:?}; {:#?}", self.ended(Vec::new()));
            }
        }
    }

    fn ended(&mut self, mut stdout: Vec<String>) -> Ended {
        while let Some(line) = self.line() {
            stdout.push(line);
        }
        let stderr = self.stderr.take().expect("a process ends once");
        let status = self.child.wait().expect("a child can be waited for");
        self.watcher.dismiss();
        Ended {
            status,
            stdout,
            stderr: stderr.join().unwrap(),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        self.watcher.dismiss();
    }
}

/// A shell whose standard input ends when the test process does; then it kills the child and removes the data.
struct Watcher {
    shell: Child,
    leash: Option<ChildStdin>,
}

impl Watcher {
    fn over(child: &Child, data: &Path) -> Self {
        let mut shell = Command::new("sh")
            .args([
                "-c",
                "read -r _ && exit; kill -KILL \"$1\"; rm -rf \"$2\"",
                "sh",
            ])
            .arg(child.id().to_string())
            .arg(data)
            .stdin(Stdio::piped())
            .spawn()
            .expect("there is a shell");
        let leash = shell.stdin.take();
        Self { shell, leash }
    }

    fn dismiss(&mut self) {
        if let Some(mut leash) = self.leash.take() {
            drop(leash.write_all(b"\n"));
            drop(self.shell.wait());
        }
    }
}

/// How long the binary may say nothing while a test waits for its next line.
const PATIENCE: Duration = Duration::from_secs(90);
