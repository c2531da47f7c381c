//! Text from elsewhere, on a person's terminal or in a pipe.
//!
//! A pipe gets the exact bytes. A terminal gets no control characters: an
//! answer must not be able to move the cursor over what was printed before.

use std::io::{self, IsTerminal, Write};

/// Standard output, as an answer streams onto it.
pub struct Screen<W> {
    out: W,
    is_terminal: bool,
    /// A reader that went away (`| head`) is no reason to stop checking.
    gone: bool,
    at_line_start: bool,
}

impl Screen<io::Stdout> {
    /// This process's standard output.
    pub fn stdout() -> Self {
        let out = io::stdout();
        let is_terminal = out.is_terminal();
        Screen::new(out, is_terminal)
    }
}

impl<W: Write> Screen<W> {
    fn new(out: W, is_terminal: bool) -> Self {
        Screen {
            out,
            is_terminal,
            gone: false,
            at_line_start: true,
        }
    }

    /// Prints the next piece at once.
    pub fn print(&mut self, text: &str) -> io::Result<()> {
        if let Some(last) = text.chars().last() {
            self.at_line_start = last == '\n';
        }
        match self.is_terminal {
            true => self.write(&harmless(text)),
            false => self.write(text),
        }
    }

    /// Ends the last line on a terminal; a pipe gets nothing that wasn't in the answer.
    pub fn end(&mut self) -> io::Result<()> {
        match self.is_terminal && !self.at_line_start {
            true => self.write("\n"),
            false => Ok(()),
        }
    }

    fn write(&mut self, text: &str) -> io::Result<()> {
        if self.gone {
            return Ok(());
        }
        match self
            .out
            .write_all(text.as_bytes())
            .and_then(|()| self.out.flush())
        {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.gone = true;
                Ok(())
            }
            other => other,
        }
    }
}

/// The text with control characters made visible.
pub fn harmless(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' | '\t' => safe.push(character),
            // Beside ASCII and Latin-1 controls, those that reorder what is shown.
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                safe.extend(character.escape_unicode())
            }
            _ if character.is_control() => safe.extend(character.escape_default()),
            _ => safe.push(character),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(is_terminal: bool, pieces: &[&str]) -> String {
        let mut out = Vec::new();
        let mut screen = Screen::new(&mut out, is_terminal);
        for piece in pieces {
            screen.print(piece).unwrap();
        }
        screen.end().unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_pipe_gets_the_exact_text() {
        let text = "a\u{1b}[2Jb\r\u{202e}c";
        assert_eq!(shown(false, &[text]), text);
    }

    #[test]
    fn a_terminal_gets_no_control_characters() {
        assert_eq!(
            shown(true, &["grün\t\n", "a\u{1b}[2Jb\r", "\u{202e}c\u{9b}"]),
            "grün\t\na\\u{1b}[2Jb\\r\\u{202e}c\\u{9b}\n"
        );
        assert_eq!(shown(true, &["line\n"]), "line\n");
        assert_eq!(shown(true, &[]), "");
    }

    #[test]
    fn a_reader_that_went_away_is_no_error() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut screen = Screen::new(Closed, false);
        screen.print("a").unwrap();
        screen.print("b").unwrap();
        screen.end().unwrap();
    }
}
