//! Whether the calls of an answer are this request's.

use protocol::receipt::Receipt;

use super::{Check, Rejection};
use crate::answer::Choice;

/// That the calls have the ids that the request gives them. // spec grammar 4.4
pub(super) fn have_ids(number: usize, choice: &Choice, claims: &Receipt) -> Result<(), Rejection> {
    for (index, call) in choice.calls.iter().enumerate() {
        let ours = match (u8::try_from(number), u8::try_from(index)) {
            (Ok(number), Ok(index)) => protocol::calls::id(&claims.jti, number, index),
            _ => String::new(),
        };
        if call.id != ours {
            return Err(Check::Id.fails(format!(
                "call {index} of choice {number} isn't {ours}, as this request has it"
            )));
        }
    }
    Ok(())
}
