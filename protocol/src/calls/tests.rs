//! Calls and their text: whole, cut anywhere, and in pieces of any size.

use proptest::prelude::*;

use super::*;

const TWO: &str = concat!(
    "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": \"}\\\"]\", \"b\": [{}]}}\n</tool_call>\n",
    "<tool_call>\n{\"name\": \"g_2\", \"arguments\": {}}\n</tool_call>"
);

fn read(text: &str, piece: usize) -> (String, Vec<(String, String)>) {
    let mut reader = CallReader::default();
    let (mut content, mut calls) = (String::new(), Vec::<(String, String)>::new());
    let chars: Vec<char> = text.chars().collect();
    let mut pieces: Vec<Piece> = chars
        .chunks(piece)
        .flat_map(|piece| reader.push(&piece.iter().collect::<String>()))
        .collect();
    pieces.extend(reader.finish());
    for piece in pieces {
        match piece {
            Piece::Content(text) => content.push_str(&text),
            Piece::Call { name } => calls.push((name, String::new())),
            Piece::Arguments(text) => calls.last_mut().unwrap().1.push_str(&text),
        }
    }
    (content, calls)
}

fn hashed(text: &str, piece: usize) -> String {
    let mut canonical = CallText::default();
    let chars: Vec<char> = text.chars().collect();
    let text: String = chars
        .chunks(piece)
        .map(|piece| canonical.push(&piece.iter().collect::<String>()))
        .collect();
    text + &canonical.end()
}

#[test]
fn calls_are_read() {
    let (content, calls) = read(TWO, 1000);
    assert_eq!(content, "");
    let want = [("f", r#"{"a": "}\"]", "b": [{}]}"#), ("g_2", "{}")];
    assert_eq!(calls, want.map(|(n, a)| (n.to_owned(), a.to_owned())));
    assert_eq!(
        hashed(TWO, 1000),
        TWO,
        "whole calls are hashed as they were written"
    );
}

#[test]
fn other_text_is_content() {
    for text in [
        "",
        "hello",
        "<",
        "<tool_call",
        "<tool_caller>",
        " <tool_call>\n{\"name\": \"f",
    ] {
        assert_eq!(read(text, 3), (text.to_owned(), vec![]), "{text:?}");
        assert_eq!(hashed(text, 2), text);
    }
}

#[test]
fn ids_differ_by_request_choice_and_index() {
    let request = |digit: char| -> RequestId {
        format!("chatcmpl-{}", digit.to_string().repeat(32))
            .parse()
            .unwrap()
    };
    let ids = [
        id(&request('a'), 0, 0),
        id(&request('a'), 0, 1),
        id(&request('a'), 1, 0),
        id(&request('b'), 0, 0),
    ];
    assert_eq!(ids[0].len(), 29);
    for (at, id) in ids.iter().enumerate() {
        assert!(!ids[..at].contains(id));
    }
}

proptest! {
    #[test]
    fn a_client_hashes_what_the_job_hashes(cut in 0..=TWO.len(), piece in 1usize..40) {
        let text = &TWO[..cut];
        let (content, calls) = read(text, piece);
        prop_assert_eq!(read(text, 1), (content.clone(), calls.clone()), "pieces don't matter");
        let calls = calls.iter().map(|(name, arguments)| (name.as_str(), arguments.as_str()));
        prop_assert_eq!(hashed(text, piece), CallText::of(&content, calls));
    }
}
