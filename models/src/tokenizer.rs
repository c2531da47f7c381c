//! Text to token ids and back, as the model's GGUF metadata says.

/// How a special token's text is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Special {
    /// As ordinary text: what a client wrote stays text.
    AsText,
    /// As the token: for rendered chat templates.
    Parse,
}

/// The model's tokenizer.
#[derive(Debug)]
pub struct Tokenizer {}

/// Why a tokenizer can't be built, or a text not be read.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// A pre-tokenizer that we don't have.
    #[error("the pre-tokenizer `{0}` isn't supported")]
    PreTokenizer(String),
}

impl Tokenizer {
    /// The ids of a text. Nothing is added to it.
    pub fn encode(&self, text: &str, special: Special) -> Vec<u32> {
        let _ = (text, special);
        todo!()
    }

    /// The bytes of ids, special tokens as their text; ids past the vocabulary give nothing.
    pub fn decode(&self, ids: &[u32]) -> Vec<u8> {
        let _ = ids;
        todo!()
    }

    /// The bytes of one id, if it is in the vocabulary.
    pub fn piece(&self, id: u32) -> Option<&[u8]> {
        let _ = id;
        todo!()
    }

    /// Whether the id is a special token, whose text isn't part of an answer.
    pub fn is_special(&self, id: u32) -> bool {
        let _ = id;
        todo!()
    }

    /// Ids there are: 0 to this, exclusive.
    pub fn vocab_size(&self) -> usize {
        todo!()
    }
}
