//! An engine without a model: answers `GET /job`, and otherwise misbehaves
//! as told.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::process::exit;

use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::signal::unix::{SignalKind, signal};

/// What the engine is told to be.
#[derive(Debug, Serialize, Deserialize)]
pub struct Config {
    pub job: String,
    pub how: How,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum How {
    /// Ready at the third question.
    Good,
    /// Exits at once, with status 3.
    Dies,
    /// Never says that it is ready.
    NeverReady,
    /// Takes connections, and answers nothing.
    Mute,
    /// Ready, and deaf to SIGTERM.
    Stubborn,
    /// Answers with something else than an account.
    Babbles,
}

/// What it finds in its process, told at `GET /found`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Found {
    pub arguments: Vec<String>,
    pub environment: Vec<String>,
    /// What descriptors 0, 1, 2 and so on are.
    pub descriptors: Vec<String>,
    pub own_process_group: bool,
}

impl Found {
    fn look() -> Self {
        let mut descriptors = Vec::new();
        while let Ok(what) = fs::read_link(format!("/proc/self/fd/{}", descriptors.len())) {
            descriptors.push(what.to_string_lossy().into_owned());
        }
        Self {
            arguments: std::env::args().skip(1).collect(),
            environment: std::env::vars().map(|(name, _)| name).collect(),
            descriptors,
            own_process_group: rustix::process::getpgrp() == rustix::process::getpid(),
        }
    }
}

pub fn run(config: &str) {
    let found = Found::look();
    provider::local::die_with_parent().unwrap();
    let config: Config = serde_json::from_str(config).unwrap();
    if config.how == How::Dies {
        exit(3);
    }
    let listener = UnixListener::from(std::io::stdin().as_fd().try_clone_to_owned().unwrap());
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(serve(&config, &found, listener));
}

async fn serve(config: &Config, found: &Found, listener: UnixListener) {
    let mut terminated = signal(SignalKind::terminate()).unwrap();
    listener.set_nonblocking(true).unwrap();
    let listener = tokio::net::UnixListener::from_std(listener).unwrap();
    let mut kept = Vec::new();
    let mut questions = 0;
    loop {
        let (mut socket, _) = tokio::select! {
            _ = terminated.recv() => match config.how {
                How::Stubborn => continue,
                _ => exit(0),
            },
            accepted = listener.accept() => accepted.unwrap(),
        };
        if config.how == How::Mute {
            kept.push(socket);
            continue;
        }
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            if socket.read_buf(&mut head).await.unwrap() == 0 {
                break;
            }
        }
        let body = match head.split(|byte| *byte == b' ').nth(1) {
            Some(b"/job") => {
                questions += 1;
                account(config, questions)
            }
            Some(b"/found") => serde_json::to_string(found).unwrap(),
            Some(b"/crash") => exit(4),
            // A connection that lasts as long as the engine does.
            _ => {
                kept.push(socket);
                continue;
            }
        };
        let answer = format!(
            "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let _gone = socket.write_all(answer.as_bytes()).await;
    }
}

fn account(config: &Config, questions: u32) -> String {
    if config.how == How::Babbles {
        return "<html>".to_owned();
    }
    json!({
        "job": config.job,
        "did": DID,
        "model": {"id": "none", "digest": "none"},
        "ready": config.how != How::NeverReady && questions >= 3,
        "credential": false,
    })
    .to_string()
}

/// The key of seed 0, which is nobody's.
pub const DID: &str = "did:key:z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp";
