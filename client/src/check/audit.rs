//! The same rules one by one, for an auditor who wants to hear of every one
//! that fails, and who wasn't the one that asked.

use protocol::api::Ask;
use protocol::credential::Chain;
use protocol::receipt::{Finish, Receipt, VerifiedReceipt};
use protocol::{Did, Digest};

use super::Rejection;
use crate::answer::Answer;

/// The receipt, if a job that the gateway vouches for signed it, within what its
/// credential allows, for a request that its client signed. A checkpoint is one too.
pub fn authentic(
    compact: &str,
    chain: &Chain,
    gateway: &Did,
) -> Result<VerifiedReceipt, Rejection> {
    let receipt = super::signed(compact, chain, gateway)?;
    super::request_signature(receipt.claims())?;
    Ok(receipt)
}

/// That the receipt is about this body.
pub fn body(body: &[u8], claims: &Receipt) -> Result<(), Rejection> {
    super::body_read(&Digest::of(body), claims)
}

/// What of a whole response isn't what the receipt says of it.
pub fn response(ask: &Ask, answer: &Answer, claims: &Receipt) -> Vec<Rejection> {
    let checks = [
        super::same_id(answer, claims),
        super::texts_written(super::texts_of(answer), claims),
        super::tokens(ask, answer, claims),
        super::same_finish(answer, claims),
        super::same_usage(answer, claims),
    ];
    checks.into_iter().filter_map(Result::err).collect()
}

/// What in the receipt isn't what was asked for.
pub fn promise(ask: &Ask, claims: &Receipt) -> Vec<Rejection> {
    let checks = [super::model_name(ask, claims), super::sampling(ask, claims)];
    checks.into_iter().filter_map(Result::err).collect()
}

/// That the counts of tokens are possible for the ends beside them; unfinished choices
/// have no lower limit.
pub fn counts(claims: &Receipt) -> Result<(), Rejection> {
    let mut finished = claims.clone();
    let done = |finish: Finish| matches!(finish, Finish::Stop | Finish::Length);
    let most = claims.sampling.as_ref().map_or(0, |s| s.max_tokens);
    for output in &mut finished.output {
        if !done(output.finish) && output.tokens <= most {
            (output.finish, output.tokens) = (Finish::Length, most);
        }
    }
    super::endings(&finished)
}
