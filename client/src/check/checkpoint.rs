//! What a receipt from the middle of a stream proves: the answer up to there.
//!
//! A finished answer is believed only if its checkpoints were about it too; of
//! one that was cut, the latest says what its job had signed by then. Start at
//! [`proven`].

use protocol::Did;
use protocol::credential::Chain;
use protocol::receipt::{Receipt, VerifiedReceipt};

use super::{Check, Expected, Proof, Rejection};
use crate::answer::{Answer, Checkpoint};
use crate::reply::{Received, Sent};

/// A part of an answer that its job has signed.
#[derive(Debug, Clone)]
pub struct Proven {
    /// The checkpoint.
    pub receipt: VerifiedReceipt,
    /// The text of each choice up to there.
    pub texts: Vec<String>,
}

/// Judges the latest checkpoint of an answer that broke off; none if none came.
pub fn proven(
    sent: &Sent,
    received: &Received,
    chain: &Chain,
    expected: &Expected,
) -> Option<Result<Proven, Rejection>> {
    let checkpoint = received.answer.checkpoints.last()?;
    let judge = || {
        let receipt = about(sent, &received.answer, checkpoint, chain, &expected.gateway)?;
        let claims = receipt.claims();
        super::about_model(&sent.ask, expected, claims)?;
        super::sampling(&sent.ask, claims)?;
        super::trace(claims)?;
        super::clock(sent.at, received.at, claims)?;
        let texts = texts(&received.answer, checkpoint);
        Ok(Proven {
            texts: texts.map(str::to_owned).collect(),
            receipt,
        })
    };
    Some(judge())
}

/// That the checkpoints of a finished answer are about it, one after the other, and kept.
pub(super) fn all(
    sent: &Sent,
    received: &Received,
    proof: &Proof,
    gateway: &Did,
    last: &Receipt,
) -> Result<(), Rejection> {
    let came = &received.answer.checkpoints;
    for (number, checkpoint) in (1..).zip(came) {
        let fails =
            |why: String| Err(Check::Checkpoint.fails(format!("checkpoint {number}: {why}")));
        let receipt = match about(sent, &received.answer, checkpoint, &proof.chain, gateway) {
            Ok(receipt) => receipt,
            Err(rejection) => return fails(rejection.to_string()),
        };
        let claims = receipt.claims();
        if claims.part != number {
            return fails(format!("its number is {}", claims.part));
        }
        if (&claims.model, &claims.sampling, &claims.input)
            != (&last.model, &last.sampling, &last.input)
        {
            return fails("it is about another request than the receipt".to_owned());
        }
        if !proof.checkpoints.contains(&checkpoint.receipt) {
            return fails("the gateway doesn't keep it".to_owned());
        }
    }
    Ok(())
}

/// The checkpoint, if it states what had come of this answer when it did.
fn about(
    sent: &Sent,
    answer: &Answer,
    checkpoint: &Checkpoint,
    chain: &Chain,
    gateway: &Did,
) -> Result<VerifiedReceipt, Rejection> {
    let receipt = super::signed(&checkpoint.receipt, chain, gateway)?;
    let claims = receipt.claims();
    super::about_request(sent, claims)?;
    super::same_id(answer, claims)?;
    let texts: Vec<&str> = texts(answer, checkpoint).collect();
    super::texts_written(texts.into_iter(), claims)?;
    let choices = answer.choices.iter().zip(&checkpoint.choices);
    for (number, ((choice, then), output)) in choices.zip(&claims.output).enumerate() {
        let ids = choice.token_ids.as_ref().zip(then.token_ids);
        if let Some((ids, count)) = ids
            && !super::same_tokens(&ids[..count], output.tokens, &output.tokens_sha256)
        {
            return Err(Check::Tokens.fails(format!(
                "the token ids of choice {number} aren't those of the receipt"
            )));
        }
        let came = then.finish.as_deref().unwrap_or("open");
        if super::finish_word(output.finish, choice) != came {
            return Err(Check::Finish.fails(format!(
                "choice {number} was {came:?}, the receipt says {:?}",
                output.finish.as_str()
            )));
        }
    }
    Ok(receipt)
}

fn texts<'a>(answer: &'a Answer, checkpoint: &'a Checkpoint) -> impl Iterator<Item = &'a str> {
    let choices = answer.choices.iter().zip(&checkpoint.choices);
    choices.map(|(choice, then)| &choice.text[..then.text_bytes])
}
