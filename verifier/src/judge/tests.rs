//! What outcomes of a replay are called.

use models::Standing;
use protocol::receipt::{
    Closing, Finish, ModelRef, Numerics, OpenReceipt, Opening, Output, RequestLine, Salt,
};
use protocol::{Digest, JobId, Kind, ModelDigest, RequestId, SigningKey, UnixMs};

use super::*;

fn outcome() -> Outcome {
    Outcome {
        known: true,
        ..Outcome::empty()
    }
}

fn claim() -> Output {
    Output {
        text_sha256: Digest::of(b""),
        tokens_sha256: Digest::of_tokens(&[]),
        tokens: 0,
        finish: Finish::Cancelled,
    }
}

fn checks(outcome: &Outcome) -> Vec<(String, Word)> {
    let found = choice(0, 5, &claim(), outcome).into_iter();
    found.map(|f| (f.finding.check, f.word)).collect()
}

#[test]
fn a_costly_grammar_is_nobodys_lie() {
    let mut stopped = outcome();
    stopped.stop = Some(Stop::Grammar);
    let grammar = ("no_grammar".to_owned(), Word::Unverifiable);
    assert_eq!(checks(&stopped), std::slice::from_ref(&grammar));
    // What was wrong before is still wrong.
    stopped.first = Some(Differing {
        index: 2,
        claimed: Some(1),
        expected: 3,
        standing: None,
    });
    let token = ("token".to_owned(), Word::Mismatch);
    assert_eq!(checks(&stopped), [token, grammar]);
}

#[test]
fn a_margin_that_json_cannot_say_is_left_out() {
    for (by, expected) in [
        (f64::INFINITY, None),
        (f64::NAN, None),
        (f64::MAX, None),
        (0.123_456_789, Some(0.123_457)),
    ] {
        let mut wrong = outcome();
        wrong.first = Some(Differing {
            index: 0,
            claimed: Some(1),
            expected: 3,
            standing: Some(Standing::Lost { by }),
        });
        let found = choice(0, 5, &claim(), &wrong);
        assert_eq!(found[0].finding.margin, expected, "{by}");
    }
}

#[test]
fn what_came_is_the_beginning_of_what_is_true() {
    let told = Outcome {
        text: "seven seas".to_owned(),
        ids: vec![7, 8],
        ..outcome()
    };
    let came = |text: &str, ids: &[u32]| Answer {
        choices: vec![client::answer::Choice {
            text: text.to_owned(),
            token_ids: Some(ids.to_vec()),
            ..Default::default()
        }],
        ..Answer::default()
    };
    let check = |text: &str, ids: &[u32], part, expected: &[&str]| {
        let found = partial(&came(text, ids), part, std::slice::from_ref(&told));
        let names: Vec<_> = found.iter().map(|f| f.finding.check.as_str()).collect();
        assert_eq!(names, expected, "{text}");
        assert!(found.iter().all(|f| f.fault == Some(Fault::Client)));
    };
    check("seven", &[7], 0, &[]);
    check("", &[], 0, &[]);
    check("eleven", &[7], 0, &["text"]);
    check("seven", &[8], 0, &["tokens"]);
    check("seven seas and", &[7, 8, 9], 1, &[]);
    check("seven seas and", &[7, 8, 9], 0, &["text", "tokens"]);
}

#[test]
fn what_was_not_computed_refutes_no_checkpoint() {
    let key = SigningKey::from_seed([2; 32]);
    let mut open = OpenReceipt::begin(Opening {
        jti: RequestId::new(Kind::Chat, [1; 16]),
        job: JobId::new([2; 16]),
        iss: key.did(),
        sub: None,
        salt: Salt([3; 16]),
        from_ms: UnixMs(1),
        request: RequestLine::unsigned("POST", "localhost", "/v1/chat/completions", None),
        body_sha256: Digest::of(b"{}"),
        model: ModelRef {
            id: "m".to_owned(),
            digest: ModelDigest::from_digest(Digest::of(b"m")),
        },
        numerics: Numerics {
            profile: "exact/1".to_owned(),
            device: "cpu".to_owned(),
            detail: Default::default(),
        },
        cred: Digest::of(b"credential"),
    });
    open.absorb(0, 7, "seven");
    let checkpoint = open.checkpoint(
        1,
        Closing {
            to_ms: UnixMs(2),
            unfinished: Finish::Open,
            seq: 0,
            prev: None,
            trace: None,
        },
    );
    let wrong = |outcome| checkpoints(std::slice::from_ref(&checkpoint), &[outcome]).is_some();
    assert!(wrong(outcome()), "the answer has no token");
    assert!(!wrong(Outcome {
        stop: Some(Stop::NoMemory),
        ..outcome()
    }));
}
