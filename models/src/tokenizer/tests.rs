//! Merging by scores, on a vocabulary small enough to work out by hand. Real
//! vocabularies are compared with other implementations in `tests/oracle.rs`.

use super::*;

/// Bytes first (ids 0 to 255), then a special token, user-defined ones, and pieces.
fn tokenizer(pieces: &[(&str, f32)]) -> Tokenizer {
    let bytes: Vec<String> = (0..256).map(|byte| format!("<0x{byte:02X}>")).collect();
    let mut tokens: Vec<&str> = bytes.iter().map(String::as_str).collect();
    let mut kinds = vec![PieceKind::Byte; 256];
    let mut scores = vec![0.0; 256];
    for (token, kind) in [
        ("<end>", PieceKind::Control),
        ("  ", PieceKind::UserDefined),
        ("   ", PieceKind::UserDefined),
    ] {
        tokens.push(token);
        kinds.push(kind);
        scores.push(-1000.0);
    }
    for (piece, score) in pieces {
        tokens.push(piece);
        kinds.push(PieceKind::Normal);
        scores.push(*score);
    }
    let (merges, texts) = Scores::new(&tokens, &kinds, &scores).unwrap();
    Tokenizer::new(Merges::Scores(merges), texts, kinds).unwrap()
}

/// What a text is split into, as texts.
fn check(tokenizer: &Tokenizer, text: &str, expected: &[&str]) {
    let ids = tokenizer.encode(text, Special::AsText);
    let texts = ids.iter().map(|id| tokenizer.piece(*id).unwrap());
    let texts: Vec<_> = texts.map(String::from_utf8_lossy).collect();
    assert_eq!(texts, expected, "{text:?}");
    assert_eq!(tokenizer.decode(&ids), text.as_bytes());
}

#[test]
fn the_best_score_is_merged_first_and_of_equals_the_left_one() {
    let tokenizer = tokenizer(&[
        ("a", -10.0),
        ("b", -10.0),
        ("c", -10.0),
        ("ab", -2.0),
        ("bc", -1.0),
        ("abc", -3.0),
        ("aa", -5.0),
    ]);
    check(&tokenizer, "abc", &["abc"]);
    check(&tokenizer, "abcb", &["abc", "b"]);
    check(&tokenizer, "abb", &["ab", "b"]);
    check(&tokenizer, "aaa", &["aa", "a"]);
    check(&tokenizer, "aaaa", &["aa", "aa"]);
    // bc is worth most, then a joins it.
    check(&tokenizer, "aabc", &["a", "abc"]);
}

#[test]
fn a_piece_that_no_merge_reaches_is_never_made() {
    let tokenizer = tokenizer(&[("a", -1.0), ("b", -1.0), ("c", -1.0), ("abc", -1.0)]);
    check(&tokenizer, "abc", &["a", "b", "c"]);
}

#[test]
fn spaces_are_spelled_and_runs_of_them_split_off_longest_first() {
    let tokenizer = tokenizer(&[("\u{2581}", -1.0), ("\u{2581}a", -2.0), ("a", -3.0)]);
    check(&tokenizer, " a", &[" a"]);
    check(&tokenizer, "a     a", &["a", "   ", "  ", "a"]);
    check(&tokenizer, "a a", &["a", " a"]);
}

#[test]
fn what_has_no_piece_becomes_bytes() {
    let tokenizer = tokenizer(&[("a", -1.0)]);
    assert_eq!(
        tokenizer.encode("a\u{e9}\n", Special::AsText),
        [259, 0xC3, 0xA9, 10]
    );
    assert_eq!(tokenizer.decode(&[259, 0xC3, 0xA9]), "a\u{e9}".as_bytes());
}

#[test]
fn special_tokens_are_text_unless_they_are_parsed() {
    let tokenizer = tokenizer(&[("<", -1.0), ("end", -1.0), (">", -1.0)]);
    let text = "<end>";
    assert_eq!(tokenizer.encode(text, Special::Parse), [256]);
    assert!(!tokenizer.encode(text, Special::AsText).contains(&256));
    assert!(tokenizer.is_special(256) && !tokenizer.is_special(257));
}

#[test]
fn vocabularies_with_gaps_are_refused() {
    let byte = PieceKind::Byte;
    let refused = |tokens: &[&str], kinds: &[PieceKind], scores: &[f32]| {
        Scores::new(tokens, kinds, scores)
            .err()
            .unwrap()
            .to_string()
    };
    for (said, expected) in [
        (refused(&["<0x00>"], &[byte], &[0.0]), "a byte has no token"),
        (refused(&["<0xZZ>"], &[byte], &[0.0]), "is no byte"),
        (refused(&["a"], &[byte], &[]), "not one score"),
        (refused(&["a"], &[byte], &[f32::NAN]), "not one score"),
        (
            refused(&["a", "a"], &[PieceKind::Normal; 2], &[0.0; 2]),
            "twice",
        ),
    ] {
        assert!(said.contains(expected), "{said}");
    }
}
