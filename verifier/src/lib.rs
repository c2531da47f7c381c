//! Whether a receipt is true: checks an answer against its receipt, computes
//! it again, and judges.
//!
//! Pure decisions are in `opening` (what needs no model), `judge` (what a
//! replay means) and `prefixes`; `replay` computes, [`Auditor`] reads folders
//! and signs. The rules and their names are normative in
//! `docs/spec/verdict.md`. Start at [`Auditor::run`].

#![forbid(unsafe_code)]

mod auditor;
mod folders;
mod judge;
mod judgement;
mod opening;
mod replay;
mod report;

pub use auditor::{Auditor, Progress, RunError, Settings};
pub use report::{Entry, Quote, Report};
