//! Whether a receipt is true: replays an answer, and judges it.

#![forbid(unsafe_code)]
