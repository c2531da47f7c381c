//! HTTP/1.1 over a bare socket: sends whatever bytes a test wants, reads what
//! comes back, and judges nothing.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// A response as it was on the wire, its body decoded from chunks.
#[derive(Debug)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// Names in lower case, values as sent.
    pub headers: Vec<(String, String)>,
    /// The whole body.
    pub body: Vec<u8>,
    /// From the first byte sent to the last one read.
    pub took: Duration,
}

impl Reply {
    /// The first header of that name (in lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the body is UTF-8")
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|fault| panic!("{fault} in the body {:?}", self.text()))
    }
}

/// A request under construction. `Host` is the server's address unless a header replaces it.
pub struct Request {
    line: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Request {
    /// A GET.
    pub fn get(path: &str) -> Self {
        Self::new("GET", path, Vec::new())
    }

    /// A POST of JSON.
    pub fn post(path: &str, body: impl Into<Vec<u8>>) -> Self {
        Self::new("POST", path, body.into()).header("content-type", "application/json")
    }

    fn new(method: &str, path: &str, body: Vec<u8>) -> Self {
        Self {
            line: format!("{method} {path} HTTP/1.1\r\n"),
            headers: Vec::new(),
            body,
        }
    }

    /// Adds a header; `host` and `content-length` replace the ones that would be sent.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sends it on a connection of its own and reads the whole response.
    pub fn send(&self, to: SocketAddr) -> Reply {
        self.open(to).finish()
    }

    /// Sends it, and reads as far as the response's head.
    pub fn open(&self, to: SocketAddr) -> Open {
        Open::send(to, &self.bytes(to))
    }

    /// What goes over the wire.
    pub fn bytes(&self, to: SocketAddr) -> Vec<u8> {
        let given = |name: &str| self.headers.iter().any(|(known, _)| known == name);
        let mut head = self.line.clone();
        if !given("host") {
            head += &format!("host: {to}\r\n");
        }
        if !given("content-length") && !self.body.is_empty() {
            head += &format!("content-length: {}\r\n", self.body.len());
        }
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += "connection: close\r\n\r\n";
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

/// A response whose head was read and whose body is still on its way.
pub struct Open {
    /// The status, the headers; the body is empty so far.
    pub head: Reply,
    began: Instant,
    from: BufReader<TcpStream>,
}

impl Open {
    /// Sends exactly these bytes and reads a response's head.
    pub fn send(to: SocketAddr, bytes: &[u8]) -> Self {
        let began = Instant::now();
        let stream = TcpStream::connect(to).expect("the server listens");
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        let mut writer = stream.try_clone().unwrap();
        let bytes = bytes.to_vec();
        // A server may answer and close before it has read everything: that is its right.
        let sender = std::thread::spawn(move || drop(writer.write_all(&bytes)));
        let mut from = BufReader::new(stream);
        let head = read_head(&mut from);
        if head.header("connection") != Some("close") {
            sender.join().unwrap();
        }
        Self { head, began, from }
    }

    /// One line of an event stream, without its line feed; `None` at the end.
    pub fn line(&mut self) -> Option<String> {
        assert!(
            self.head.header("transfer-encoding").is_some(),
            "an event stream comes in chunks"
        );
        let mut line = Vec::new();
        while line.last() != Some(&b'\n') {
            // `body` holds what was decoded and not yet handed out.
            if self.head.body.is_empty() {
                self.head.body = read_chunk(&mut self.from)?;
            }
            let end = self.head.body.iter().position(|&byte| byte == b'\n');
            let taken = end.map_or(self.head.body.len(), |end| end + 1);
            line.extend(self.head.body.drain(..taken));
        }
        line.pop();
        Some(String::from_utf8(line).expect("events are UTF-8"))
    }

    /// The next event's data; `None` at the end of the body.
    pub fn event(&mut self) -> Option<String> {
        loop {
            if let Some(data) = self.line()?.strip_prefix("data: ") {
                return Some(data.to_owned());
            }
        }
    }

    /// Reads the rest of the body.
    pub fn finish(mut self) -> Reply {
        let length = self.head.header("content-length").map(str::to_owned);
        if self.head.header("transfer-encoding").is_some() {
            while let Some(chunk) = read_chunk(&mut self.from) {
                self.head.body.extend(chunk);
            }
        } else if let Some(length) = length {
            self.head.body = vec![0; length.parse().expect("a length is a number")];
            self.from
                .read_exact(&mut self.head.body)
                .expect("the body is as long as announced");
        } else if self.head.status != 204 {
            self.from.read_to_end(&mut self.head.body).unwrap();
        }
        self.head.took = self.began.elapsed();
        self.head
    }
}

fn read_head(from: &mut impl BufRead) -> Reply {
    let mut line = || {
        let mut line = String::new();
        from.read_line(&mut line).expect("a response arrives");
        line.truncate(line.trim_end().len());
        line
    };
    let status_line = line();
    let status = status_line
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3)?.parse().ok())
        .unwrap_or_else(|| panic!("not a status line: {status_line:?}"));
    let mut headers = Vec::new();
    loop {
        let field = line();
        if field.is_empty() {
            break;
        }
        let (name, value) = field.split_once(':').expect("a field has a colon");
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    Reply {
        status,
        headers,
        body: Vec::new(),
        took: Duration::ZERO,
    }
}

/// One chunk; `None` at the last one, and when the server broke off.
fn read_chunk(from: &mut impl BufRead) -> Option<Vec<u8>> {
    let mut size = String::new();
    from.read_line(&mut size).ok()?;
    let size = usize::from_str_radix(size.trim_end(), 16).ok()?;
    let mut chunk = vec![0; size + 2];
    from.read_exact(&mut chunk).ok()?;
    chunk.truncate(size);
    (size > 0).then_some(chunk)
}

/// How long a server may be silent before a test gives up on it.
const PATIENCE: Duration = Duration::from_secs(60);
