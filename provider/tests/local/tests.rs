//! The tests, and as much of a harness as they need.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use http::Request;
use protocol::JobId;
use provider::local::{JobSpec, RunningJob, SocketError, StartError, start};
use tempfile::TempDir;
use transport::{Body, ConnectLimits, Connector, collect_body};

use crate::engine::{Config, DID, Found, How};

const SHORT: Duration = Duration::from_millis(100);
/// Longer than any test should take: a wait that ends in a failure.
const LONG: Duration = Duration::from_secs(60);

type Test = (&'static str, fn());

macro_rules! tests {
    ($($name:ident),* $(,)?) => { &[$((stringify!($name), $name as fn())),*] };
}

const TESTS: &[Test] = tests![
    a_job_is_ready_when_its_engine_says_so,
    the_engine_gets_its_socket_and_nothing_else,
    only_we_may_connect,
    stopping_lets_the_engine_end_in_order,
    an_engine_that_does_not_end_is_killed,
    dropping_a_job_kills_its_engine,
    an_engine_that_dies_is_noticed_and_another_may_follow,
    a_start_that_fails_says_why_and_leaves_nothing,
    a_start_that_is_given_up_leaves_nothing,
    a_long_folder_name_is_no_obstacle,
    sockets_that_nobody_listens_on_are_removed,
    an_engine_dies_with_its_parent,
    an_engine_survives_the_thread_that_started_it,
    a_child_without_its_parents_socket_refuses,
];

pub fn list() {
    for (name, _) in TESTS {
        println!("{name}: test");
    }
}

/// Runs the tests whose names contain one of the filters; a panic ends all.
pub fn run(arguments: &[&str]) {
    let filters: Vec<_> = arguments.iter().filter(|it| !it.starts_with('-')).collect();
    for (name, test) in TESTS {
        if filters.is_empty() || filters.iter().any(|filter| name.contains(**filter)) {
            println!("test {name} ...");
            test();
        }
    }
    println!("all passed");
}

pub fn spec(run_dir: &Path, how: How) -> JobSpec {
    static NUMBER: AtomicU8 = AtomicU8::new(1);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let mut id = [number; 16];
    id[..4].copy_from_slice(&std::process::id().to_le_bytes());
    let job = JobId::new(id);
    let config = Config {
        job: job.to_string(),
        how,
    };
    JobSpec {
        binary: std::env::current_exe().unwrap(),
        job,
        config: serde_json::to_string(&config).unwrap(),
        run_dir: run_dir.to_owned(),
        ready_within: LONG,
    }
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async { tokio::time::timeout(LONG, future).await.unwrap() })
}

async fn ask(socket: &Path, path: &str) -> Vec<u8> {
    let request = Request::get(path).body(Body::empty()).unwrap();
    let connector = Connector::unix(socket, ConnectLimits::default());
    let response = connector.send(request).await.unwrap();
    collect_body(response.into_body(), 1 << 20, LONG)
        .await
        .unwrap()
        .to_vec()
}

/// A connection that ends when the engine does.
fn tie(socket: &Path) -> UnixStream {
    let mut tie = UnixStream::connect(socket).unwrap();
    tie.write_all(b"GET /forever HTTP/1.1\r\n\r\n").unwrap();
    tie
}

fn has_ended(mut tie: UnixStream) -> bool {
    tie.set_read_timeout(Some(LONG)).unwrap();
    match tie.read(&mut [0]) {
        Ok(0) => true,
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        Ok(_) => false,
    }
}

/// Whether a process was started with this job in its arguments, and lives.
fn is_alive(job: &JobId) -> bool {
    let job = job.to_string();
    fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        let arguments = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        arguments
            .windows(job.len())
            .any(|part| part == job.as_bytes())
    })
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

fn mode(path: &Path) -> u32 {
    path.symlink_metadata().unwrap().permissions().mode() & 0o777
}

async fn started(run_dir: &Path, how: How) -> RunningJob {
    start(spec(run_dir, how)).await.unwrap()
}

fn a_job_is_ready_when_its_engine_says_so() {
    let folder = folder();
    block_on(async {
        let spec = spec(folder.path(), How::Good);
        let running = start(spec.clone()).await.unwrap();
        assert_eq!(*running.job(), spec.job);
        assert_eq!(running.did().to_string(), DID);
        let arguments = fs::read(format!("/proc/{}/cmdline", running.pid().unwrap())).unwrap();
        assert!(arguments.ends_with(format!("\0engine\0{}\0", spec.config).as_bytes()));
        let account = ask(running.socket(), "/job").await;
        let account: serde_json::Value = serde_json::from_slice(&account).unwrap();
        assert_eq!(account["ready"], true);
    });
}

fn the_engine_gets_its_socket_and_nothing_else() {
    let folder = folder();
    block_on(async {
        let spec = spec(folder.path(), How::Good);
        let running = start(spec.clone()).await.unwrap();
        let found = ask(running.socket(), "/found").await;
        let found: Found = serde_json::from_slice(&found).unwrap();
        assert_eq!(found.arguments, ["engine", &spec.config]);
        assert_eq!(found.environment, [""; 0]);
        assert!(found.descriptors[0].starts_with("socket:"), "{found:?}");
        assert_eq!(found.descriptors[1], "/dev/null");
        let stderr = fs::read_link("/proc/self/fd/2").unwrap();
        assert_eq!(found.descriptors[2], stderr.to_string_lossy());
        assert_eq!(found.descriptors.len(), 3, "{found:?}");
        assert!(found.own_process_group);
    });
}

fn only_we_may_connect() {
    let folder = folder();
    let run_dir = folder.path().join("deep").join("run");
    block_on(async {
        let running = started(&run_dir, How::Good).await;
        assert_eq!(mode(running.socket()), 0o600);
        assert_eq!(mode(&run_dir), 0o700);
        // A folder that was there before is closed too.
        fs::set_permissions(&run_dir, PermissionsExt::from_mode(0o755)).unwrap();
        let _second = started(&run_dir, How::Good).await;
        assert_eq!(mode(&run_dir), 0o700);
    });
}

fn stopping_lets_the_engine_end_in_order() {
    let folder = folder();
    block_on(async {
        let running = started(folder.path(), How::Good).await;
        let job = running.job().clone();
        let status = running.stop(LONG).await.unwrap();
        assert_eq!(status.code(), Some(0));
        assert!(!is_alive(&job));
        assert_eq!(files(folder.path()), [""; 0].map(PathBuf::from));
    });
}

fn an_engine_that_does_not_end_is_killed() {
    let folder = folder();
    block_on(async {
        let running = started(folder.path(), How::Stubborn).await;
        let job = running.job().clone();
        let since = Instant::now();
        let status = running.stop(SHORT).await.unwrap();
        assert!(since.elapsed() >= SHORT);
        assert_eq!(status.signal(), Some(9));
        assert!(!is_alive(&job));
    });
}

fn dropping_a_job_kills_its_engine() {
    let folder = folder();
    let running = block_on(started(folder.path(), How::Stubborn));
    let (tie, job) = (tie(running.socket()), running.job().clone());
    assert!(is_alive(&job));
    drop(running);
    assert!(has_ended(tie));
    assert!(files(folder.path()).is_empty());
}

fn an_engine_that_dies_is_noticed_and_another_may_follow() {
    let folder = folder();
    block_on(async {
        let running = started(folder.path(), How::Good).await;
        let pid = running.pid();
        assert!(pid.is_some());
        let socket = running.socket().to_owned();
        let crash = tokio::spawn(async move {
            let request = Request::get("/crash").body(Body::empty()).unwrap();
            let connector = Connector::unix(&socket, ConnectLimits::default());
            assert!(connector.send(request).await.is_err());
        });
        let status = running.exited().await.unwrap();
        assert_eq!(status.code(), Some(4));
        assert_eq!(running.pid(), None);
        crash.await.unwrap();
        // Stopping what has ended says how it ended.
        assert_eq!(running.stop(LONG).await.unwrap().code(), Some(4));
        let next = started(folder.path(), How::Good).await;
        assert_ne!(next.pid(), pid);
    });
}

fn a_start_that_fails_says_why_and_leaves_nothing() {
    let folder = folder();
    block_on(async {
        for (how, expected) in [
            (
                How::Dies,
                "the engine ended before it was ready (exit status: 3)",
            ),
            (How::NeverReady, "the engine wasn't ready within 100ms"),
            (How::Mute, "the engine wasn't ready within 100ms"),
            (How::Babbles, "the engine's account of itself can't be read"),
        ] {
            let mut spec = spec(folder.path(), how);
            if matches!(how, How::NeverReady | How::Mute) {
                spec.ready_within = SHORT;
            }
            let error = start(spec.clone()).await.unwrap_err();
            assert_eq!(error.to_string(), expected);
            assert!(!is_alive(&spec.job), "{how:?}");
        }

        let mut other = spec(folder.path(), How::Good);
        let started_as = std::mem::replace(&mut other.job, JobId::new([0; 16]));
        let error = start(other).await.unwrap_err();
        assert!(matches!(error, StartError::OtherJob(job) if job == started_as));
        assert!(!is_alive(&started_as));

        let mut missing = spec(folder.path(), How::Good);
        missing.binary = folder.path().join("nothing");
        let error = start(missing).await.unwrap_err();
        assert!(matches!(error, StartError::Spawn { .. }), "{error:?}");

        assert!(files(folder.path()).is_empty());
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let error = start(spec(&file, How::Good)).await.unwrap_err();
        let StartError::Socket(SocketError::Dir { path, .. }) = error else {
            panic!("{error:?}");
        };
        assert_eq!(path, file);
    });
}

fn a_start_that_is_given_up_leaves_nothing() {
    let folder = folder();
    let job = block_on(async {
        let spec = spec(folder.path(), How::NeverReady);
        let job = spec.job.clone();
        let given_up = tokio::time::timeout(SHORT, start(spec)).await;
        assert!(given_up.is_err());
        job
    });
    let since = Instant::now();
    while is_alive(&job) {
        assert!(since.elapsed() < LONG, "the engine lives on");
        std::thread::yield_now();
    }
    assert!(files(folder.path()).is_empty());
}

fn a_long_folder_name_is_no_obstacle() {
    let folder = folder();
    let run_dir = folder.path().join("r".repeat(200));
    block_on(async {
        let running = started(&run_dir, How::Good).await;
        let socket = running.socket().to_owned();
        assert!(socket.as_os_str().as_bytes().len() <= 107);
        let private = socket.parent().unwrap().to_owned();
        assert_eq!(mode(&private), 0o700);
        running.stop(LONG).await.unwrap();
        assert!(!private.exists());
        // Nobody can lay out a folder there for us.
        let spec = spec(&run_dir, How::Good);
        let trap = private.with_file_name(spec.job.to_string());
        symlink(folder.path(), &trap).unwrap();
        let error = start(spec).await.unwrap_err();
        fs::remove_file(&trap).unwrap();
        assert!(matches!(error, StartError::Socket(SocketError::Dir { .. })));
    });
}

fn sockets_that_nobody_listens_on_are_removed() {
    let folder = folder();
    let (dead, other) = (folder.path().join("dead.sock"), folder.path().join("other"));
    drop(UnixListener::bind(&dead).unwrap());
    fs::write(&other, "").unwrap();
    block_on(async {
        let first = started(folder.path(), How::Good).await;
        assert!(!dead.exists());
        assert!(other.exists());
        let second = started(folder.path(), How::Good).await;
        for running in [&first, &second] {
            ask(running.socket(), "/job").await;
        }
    });
}

fn an_engine_dies_with_its_parent() {
    let folder = folder();
    let mut parent = Command::new(std::env::current_exe().unwrap())
        .arg("parent")
        .arg(folder.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut said = BufReader::new(parent.stdout.take().unwrap());
    said.read_line(&mut line).unwrap();
    let (engine, socket) = line.trim().split_once(' ').unwrap();
    let tie = tie(socket.as_ref());
    parent.kill().unwrap();
    parent.wait().unwrap();
    if !has_ended(tie) {
        // It would keep our standard error open for ever.
        let engine = rustix::process::Pid::from_raw(engine.parse().unwrap()).unwrap();
        rustix::process::kill_process(engine, rustix::process::Signal::KILL).unwrap();
        panic!("the engine outlived its parent");
    }
}

fn an_engine_survives_the_thread_that_started_it() {
    let folder = folder();
    let run_dir = folder.path().to_owned();
    let starting = std::thread::spawn(move || block_on(started(&run_dir, How::Good)));
    let running = starting.join().unwrap();
    block_on(async {
        ask(running.socket(), "/job").await;
        assert_eq!(running.stop(LONG).await.unwrap().code(), Some(0));
    });
}

/// The parent is gone when it isn't the one that made the socket.
fn a_child_without_its_parents_socket_refuses() {
    let child = |stdin: Stdio| {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["engine", "{}"])
            .stdin(stdin)
            .output()
            .unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let said = child(Stdio::null());
    assert!(said.contains("Socket("), "{said}");

    let folder = folder();
    let path = folder.path().join("a.sock");
    // A shell between us and the child: we made the socket, and aren't its parent.
    let listener = UnixListener::bind(&path).unwrap();
    let output = Command::new("/bin/sh")
        .args(["-c", "\"$0\" engine '{}'; true"])
        .arg(std::env::current_exe().unwrap())
        .stdin(Stdio::from(std::os::fd::OwnedFd::from(listener)))
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("Gone"), "{said}");
}
