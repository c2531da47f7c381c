//! Events there and back, in any pieces.

use proptest::prelude::*;

use super::*;

const MAX: usize = 1 << 20;

/// What a reader gets from `pieces`: data, with its name if it has one.
fn read(pieces: &[&[u8]], max: usize) -> Result<Vec<String>, DecodeError> {
    let mut decoder = Decoder::new(max);
    let mut events = Vec::new();
    for piece in pieces {
        decoder.push(piece, &mut events)?;
    }
    Ok(events
        .into_iter()
        .map(|event| match event.name {
            Some(name) => format!("{name}|{}", event.data),
            None => event.data,
        })
        .collect())
}

fn check(stream: &str, expected: &[&str]) {
    assert_eq!(
        read(&[stream.as_bytes()], MAX).unwrap(),
        expected,
        "{stream:?}"
    );
    let bytes: Vec<&[u8]> = stream.as_bytes().chunks(1).collect();
    assert_eq!(read(&bytes, MAX).unwrap(), expected, "{stream:?} by bytes");
}

#[test]
fn written_as_clients_want_it() {
    assert_eq!(event("{}"), "data: {}\n\n");
    assert_eq!(event("a\nb"), "data: a\ndata: b\n\n");
    assert_eq!(event("a\r\nb\rc"), "data: a\ndata: b\ndata: c\n\n");
    assert_eq!(PING, ": ping\n");
    assert_eq!(DONE, event(DONE_DATA));
}

#[test]
fn read_as_the_standard_says() {
    check("data: a\n\ndata:b\r\n\r\ndata:  c\r\r", &["a", "b", " c"]);
    check("data: a\ndata: b\n\n", &["a\nb"]);
    check("data\n\n", &[""]);
    check("data\ndata\n\n", &["\n"]);
    check("\u{feff}data: a\n\n", &["a"]);
    check("event: error\ndata: a\n\ndata: b\n\n", &["error|a", "b"]);
    // No data, no event; unknown fields, comments, ids and retries are nothing.
    check("event: x\n\nid: 1\n\nretry: 5\n\n: ping\n\n\n\n", &[]);
    check(": ping\n: ping\ndata: a\nid: 7\nx: y\n\n", &["a"]);
    // The end came before the blank line.
    check("data: a\n\ndata: b\n", &["a"]);
}

#[test]
fn says_whether_an_event_is_missing_its_end() {
    for (stream, between) in [
        ("", true),
        ("data: a\n\n", true),
        ("data: a\r\n\r", true),
        (": ping\n", true),
        ("data: a\n", false),
        ("data: a", false),
        ("d", false),
    ] {
        let mut decoder = Decoder::new(MAX);
        decoder.push(stream.as_bytes(), &mut Vec::new()).unwrap();
        assert_eq!(decoder.is_between_events(), between, "{stream:?}");
    }
}

#[test]
fn an_event_at_the_limit_is_read_and_one_above_is_not() {
    assert_eq!(read(&[b"data: abcd\n\n"], 10).unwrap(), ["abcd"]);
    let too_large = DecodeError::TooLarge { max: 10 };
    assert_eq!(read(&[b"data: abcde\n\n"], 10), Err(too_large));
    assert_eq!(read(&[b"data: a\ndata: b\n\n"], 10), Err(too_large));
    assert_eq!(read(&[b"an endless line"], 10), Err(too_large));
    let many = b"data: abcd\n\n".repeat(1000);
    assert_eq!(read(&[&many], 10).unwrap().len(), 1000);
    let pings = b": ping\n".repeat(1000);
    assert_eq!(read(&[&pings, b"data: abcd\n\n"], 10).unwrap(), ["abcd"]);
}

#[test]
fn an_error_stays() {
    let mut decoder = Decoder::new(MAX);
    let mut events = Vec::new();
    assert_eq!(
        decoder.push(b"data: a\n\ndata: \xff\n\n", &mut events),
        Err(DecodeError::NotUtf8)
    );
    assert_eq!(events.len(), 1);
    assert_eq!(
        decoder.push(b"data: b\n\n", &mut events),
        Err(DecodeError::NotUtf8)
    );
    assert_eq!(events.len(), 1);
}

/// Cuts `bytes` at the given places.
fn cut<'a>(bytes: &'a [u8], places: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut places: Vec<usize> = places.iter().map(|at| at.index(bytes.len() + 1)).collect();
    places.sort_unstable();
    let mut pieces = Vec::new();
    let mut from = 0;
    for to in places {
        pieces.push(&bytes[from..to]);
        from = to;
    }
    pieces.push(&bytes[from..]);
    pieces
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        written in prop::collection::vec("[a-z:\\r\\n {}é\u{feff}]{0,20}", 0..20),
        pings in prop::collection::vec(any::<bool>(), 20),
        places in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let mut stream = Vec::new();
        for (data, ping) in written.iter().zip(pings) {
            if ping {
                stream.extend_from_slice(&PING);
            }
            stream.extend_from_slice(&event(data));
        }
        let expected: Vec<String> = written
            .iter()
            .map(|data| data.replace("\r\n", "\n").replace('\r', "\n"))
            .collect();
        prop_assert_eq!(read(&cut(&stream, &places), MAX).unwrap(), expected);
    }

    #[test]
    fn pieces_do_not_matter(
        stream in prop::collection::vec(
            prop::sample::select(b"data: event\r\n\n:x\xc3\xa9\xff".to_vec()), 0..200),
        places in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
        max in 1usize..40,
    ) {
        prop_assert_eq!(read(&cut(&stream, &places), max), read(&[&stream], max));
    }

    #[test]
    fn no_event_is_larger_than_the_limit(
        stream in prop::collection::vec(
            prop::sample::select(b"data: \n\nx".to_vec()), 0..400),
        max in 1usize..40,
    ) {
        if let Ok(events) = read(&[&stream], max) {
            prop_assert!(events.iter().all(|data| data.len() <= max));
        }
    }
}
