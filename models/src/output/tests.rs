//! What a reader sees, whatever the tokens were.

use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::*;

/// Pushes `tokens` and prints each release, `.` for none, `■` where a stop string ended it.
fn check(stops: &[&str], tokens: &[&[u8]], expect: Expect) {
    expect.assert_eq(&run(stops, tokens, 0).0.join(" "));
}

/// The releases as words, and the whole text.
fn run(stops: &[&str], tokens: &[&[u8]], min_tokens: usize) -> (Vec<String>, String) {
    let mut output = OutputText::new(stops);
    let (mut words, mut whole) = (Vec::new(), String::new());
    let mut show = |released: Released, end: &str| {
        whole.push_str(&released.text);
        let text = released.text.replace(' ', "_");
        let offsets: Vec<_> = released.offsets.iter().map(usize::to_string).collect();
        words.push(match (text.is_empty(), offsets.is_empty()) {
            (true, true) => format!(".{end}"),
            _ => format!("{text}@{}{end}", offsets.join(",")),
        });
    };
    for (at, token) in tokens.iter().enumerate() {
        let stops = match at + 1 > min_tokens {
            true => Stops::Armed,
            false => Stops::Disarmed,
        };
        match output.push(token, stops) {
            Pushed::More(released) => show(released, ""),
            Pushed::Stopped(released) => {
                show(released, "■");
                return (words, whole);
            }
        }
    }
    show(output.finish(), "");
    (words, whole)
}

#[test]
fn text_without_stops_is_released_at_once() {
    check(
        &[],
        &[b"Hel", b"lo", b" you"],
        expect!["Hel@0 lo@3 _you@5 ."],
    );
}

#[test]
fn a_stop_string_across_tokens_never_leaks() {
    check(
        &["END"],
        &[b"one E", b"N", b"D two"],
        expect!["one_@ . @0■"],
    );
}

#[test]
fn what_only_looked_like_a_stop_string_is_released() {
    check(
        &["END"],
        &[b"E", b"N", b"G", b"E", b"N"],
        expect![". . ENG@0,1,2 . . EN@3,4"],
    );
}

#[test]
fn a_partial_match_falls_back_to_its_own_border() {
    check(&["abac"], &[b"aba", b"bac", b"zz"], expect![". ab@0■"]);
}

#[test]
fn the_first_to_complete_wins_and_then_the_longest() {
    check(&["long tail", "ng"], &[b"a long tail"], expect!["a_lo@0■"]);
    check(
        &["b", "ab", "xab"],
        &[b"1x", b"ab2"],
        expect![[r#"1@ @0■"#]],
    );
}

#[test]
fn code_points_are_never_cut() {
    check(
        &[],
        &[b"\xF0\x9F", b"\x98", b"\x80!", b"\xC3"],
        expect!["@0 @0 😀!@0 @2 �@"],
    );
}

#[test]
fn invalid_bytes_become_replacement_characters() {
    check(
        &[],
        &[b"a\xFFb", b"\xE2\x82", b"c"],
        expect!["a�b@0 @3 �c@3 ."],
    );
}

#[test]
fn stop_strings_wait_for_min_tokens() {
    let (words, _) = run(&["ab"], &[b"ab", b"a", b"b", b"ab", b"c"], 2);
    expect!["ab@0 a@2 b@3 .■"].assert_eq(&words.join(" "));
}

fn cut(text: &[u8], cuts: &[usize]) -> Vec<Vec<u8>> {
    let mut pieces = Vec::new();
    let mut rest = text;
    for cut in cuts {
        let (piece, after) = rest.split_at(*cut.min(&rest.len()));
        pieces.push(piece.to_vec());
        rest = after;
    }
    pieces.push(rest.to_vec());
    pieces
}

/// The rule, written the slow way over the whole text.
fn reference(stops: &[String], bytes: &[u8]) -> String {
    let whole = String::from_utf8_lossy(bytes);
    for end in 1..=whole.len() {
        let before = &whole.as_bytes()[..end];
        let longest = stops
            .iter()
            .filter(|stop| before.ends_with(stop.as_bytes()))
            .map(String::len)
            .max();
        if let Some(length) = longest {
            return whole[..end - length].to_owned();
        }
    }
    whole.into_owned()
}

proptest! {
    #[test]
    fn the_text_does_not_depend_on_the_tokens(
        bytes in proptest::collection::vec(prop_oneof![
            Just(b'a'), Just(b'b'), Just(0xC3), Just(0xA9), Just(0xF0), Just(0x9F), Just(0x98), Just(0x80), any::<u8>()
        ], 0..60),
        cuts in proptest::collection::vec(0usize..6, 0..20),
        stops in proptest::collection::vec("[abé]{1,5}", 0..4),
    ) {
        let tokens = cut(&bytes, &cuts);
        let tokens: Vec<&[u8]> = tokens.iter().map(Vec::as_slice).collect();
        let names: Vec<&str> = stops.iter().map(String::as_str).collect();
        prop_assert_eq!(run(&names, &tokens, 0).1, reference(&stops, &bytes));
    }
}
