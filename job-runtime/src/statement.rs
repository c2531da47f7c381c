//! The receipt of a request that isn't in the engine yet.
//!
//! From the moment that a client's signature is accepted there will be a
//! receipt, whatever happens: [`Statement`] signs one when it is refused, and
//! also when it is simply dropped, because the connection was.

use std::sync::Arc;

use protocol::receipt::{Finish, OpenReceipt, SignedReceipt};
use protocol::sampling::Sampling;

use crate::notary::Notary;

/// An open receipt on its way to the engine.
#[derive(Debug)]
pub(crate) struct Statement {
    /// None once it was passed on.
    open: Option<OpenReceipt>,
    signed: bool,
    notary: Arc<Notary>,
}

impl Statement {
    /// `signed`: whether a client signed the request. Nobody is owed a receipt for
    /// refusing one that nobody signed.
    pub(crate) fn new(open: OpenReceipt, signed: bool, notary: Arc<Notary>) -> Self {
        Self {
            open: Some(open),
            signed,
            notary,
        }
    }

    /// States what was understood of the request.
    pub(crate) fn understood(&mut self, prompt: &[u32], sampling: &Sampling) {
        if let Some(open) = &mut self.open {
            open.prompt(prompt);
            open.sampling(sampling.clone());
        }
    }

    /// Passes the receipt on, to be closed by the engine.
    pub(crate) fn pass(mut self) -> OpenReceipt {
        self.open.take().expect("a statement is passed on once")
    }

    /// Signs that it ended here, for nobody but a client that signed.
    pub(crate) fn close(mut self, finish: Finish) -> Option<SignedReceipt> {
        self.end(finish)
    }

    fn end(&mut self, finish: Finish) -> Option<SignedReceipt> {
        let open = self.open.take().filter(|_| self.signed)?;
        Some(self.notary.close(open, finish, None))
    }
}

impl Drop for Statement {
    fn drop(&mut self) {
        self.end(Finish::Cancelled);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;
    use crate::metrics::Metrics;

    #[test]
    fn whoever_signed_gets_a_receipt_whatever_happens() {
        let notary = Arc::new(fixtures::notary(&Arc::new(Metrics::new("alphabet"))));
        let state = |number, signed| {
            Statement::new(fixtures::open(&notary, number), signed, Arc::clone(&notary))
        };
        let refused = state(0, true).close(Finish::Refused).unwrap();
        assert_eq!(refused.unverified().output[0].finish, Finish::Refused);
        assert!(state(1, false).close(Finish::Refused).is_none());
        drop(state(2, false));
        drop(state(3, true)); // the connection was, before the engine had it
        let next = state(4, true).close(Finish::Refused).unwrap();
        assert_eq!(next.unverified().seq, 2, "the dropped one was signed");
    }
}
