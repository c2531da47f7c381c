//! Streams and bodies, whole and broken.

use super::*;

const ROLE: &str = r#"{"id":"a","model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}"#;
const HELLO: &str = r#"{"id":"a","model":"m","choices":[{"index":0,"delta":{"content":"Hello"}}]}"#;
const WORLD: &str = r#"{"id":"a","model":"m","choices":[{"index":0,"delta":{"content":" world"},"token_ids":[7,8]}]}"#;
const FINISH: &str = r#"{"id":"a","model":"m","receipt":"r","choices":[{"index":0,"delta":{},"finish_reason":"stop","token_ids":[2]}]}"#;
const USAGE: &str = r#"{"id":"a","model":"m","receipt":"r","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}}"#;

fn stream(events: &[&str]) -> Result<Answer, AnswerError> {
    let mut assembly = Assembly::new(Kind::Chat, 1);
    for event in events {
        assembly.event(event)?;
    }
    Ok(assembly.into_answer())
}

#[test]
fn a_stream_adds_up() {
    let answer = stream(&[ROLE, HELLO, WORLD, FINISH, USAGE, "[DONE]"]).unwrap();
    assert_eq!(answer.id.as_deref(), Some("a"));
    assert_eq!(answer.model.as_deref(), Some("m"));
    assert_eq!(answer.choices[0].text, "Hello world");
    assert_eq!(answer.choices[0].finish.as_deref(), Some("stop"));
    assert_eq!(answer.choices[0].token_ids, Some(vec![7, 8, 2]));
    assert_eq!(
        answer.usage,
        Some(Usage {
            prompt_tokens: 3,
            completion_tokens: 4
        })
    );
    assert_eq!(answer.receipt.as_deref(), Some("r"));
    assert!(answer.done && !answer.receipts_differ && answer.error.is_none());
}

#[test]
fn text_is_told_as_it_comes() {
    let mut assembly = Assembly::new(Kind::Chat, 1);
    assert_eq!(assembly.event(ROLE).unwrap(), []);
    let told = assembly.event(HELLO).unwrap();
    assert_eq!(
        told,
        [Delta {
            choice: 0,
            text: "Hello".into()
        }]
    );
}

#[test]
fn a_receipt_is_told_from_a_checkpoint_by_its_part() {
    let checkpoint = checkpoint();
    let event = HELLO.replace(
        r#""model":"m","#,
        &format!(r#""model":"m","receipt":"{checkpoint}","#),
    );
    let answer = stream(&[ROLE, WORLD, &event, FINISH, "[DONE]"]).unwrap();
    assert_eq!(answer.receipt.as_deref(), Some("r"));
    assert!(!answer.receipts_differ);
    let choices = vec![Progress {
        text_bytes: 11,
        token_ids: Some(2),
        finish: None,
    }];
    let receipt = checkpoint;
    assert_eq!(answer.checkpoints, [Checkpoint { receipt, choices }]);
}

/// Some job's checkpoint of some request.
fn checkpoint() -> String {
    use protocol::receipt::{
        Closing, Finish, ModelRef, Numerics, OpenReceipt, Opening, RequestLine, Salt,
    };
    use protocol::{Digest, JobId, ModelDigest, RequestId, SigningKey, UnixMs};
    let key = SigningKey::from_seed([2; 32]);
    let opening = Opening {
        jti: RequestId::new(Kind::Chat, [1; 16]),
        job: JobId::new([2; 16]),
        iss: key.did(),
        sub: None,
        salt: Salt([3; 16]),
        from_ms: UnixMs(1),
        request: RequestLine::unsigned("POST", "localhost", "/v1/chat/completions", None),
        body_sha256: Digest::of(b""),
        model: ModelRef {
            id: "m".to_owned(),
            digest: ModelDigest::from_digest(Digest::of(b"m")),
        },
        numerics: Numerics {
            profile: "exact/1".to_owned(),
            device: "cpu".to_owned(),
            detail: Default::default(),
        },
        cred: Digest::of(b""),
    };
    let closing = Closing {
        to_ms: UnixMs(2),
        unfinished: Finish::Open,
        seq: 0,
        prev: None,
        trace: None,
    };
    let receipt = OpenReceipt::begin(opening).checkpoint(1, closing);
    receipt.sign(&key).compact().to_owned()
}

#[test]
fn a_cut_stream_is_not_done() {
    let answer = stream(&[ROLE, HELLO]).unwrap();
    assert!(!answer.done && answer.receipt.is_none());
}

#[test]
fn an_error_in_a_stream_ends_it_and_keeps_its_receipt() {
    let error = r#"{"error":{"message":"cancelled","type":"x","param":null,"code":"cancelled"},"receipt":"r"}"#;
    let answer = stream(&[ROLE, HELLO, error]).unwrap();
    let said = answer.error.unwrap();
    assert_eq!(
        (said.message.as_str(), said.code.as_deref()),
        ("cancelled", Some("cancelled"))
    );
    assert_eq!(answer.receipt.as_deref(), Some("r"));
    assert!(!answer.done);
    assert_eq!(stream(&[error, "[DONE]"]), Err(AnswerError::AfterEnd));
}

#[test]
fn whole_bodies_add_up_too() {
    let mut chat = Assembly::new(Kind::Chat, 2);
    chat.body(
        200,
        br#"{"id":"a","model":"m","receipt":"r","choices":[
        {"index":1,"message":{"role":"assistant","content":"two"},"finish_reason":"length"},
        {"index":0,"message":{"role":"assistant","content":"one"},"finish_reason":"stop"}]}"#,
    )
    .unwrap();
    let answer = chat.into_answer();
    assert_eq!(answer.choices[0].text, "one");
    assert_eq!(answer.choices[1].finish.as_deref(), Some("length"));
    assert!(answer.done);

    let mut completion = Assembly::new(Kind::Completion, 1);
    completion
        .body(200, br#"{"id":"a","model":"m","choices":[{"index":0,"text":"one","finish_reason":"stop"}]}"#)
        .unwrap();
    assert_eq!(completion.answer().choices[0].text, "one");

    let mut refused = Assembly::new(Kind::Chat, 1);
    refused
        .body(
            401,
            br#"{"error":{"message":"no","type":"x","param":"key","code":"nonce_reused"}}"#,
        )
        .unwrap();
    let answer = refused.into_answer();
    assert_eq!(answer.error.unwrap().status, 401);
    assert!(!answer.done);
}

#[test]
fn two_receipts_are_noticed() {
    let other = USAGE.replace(r#""receipt":"r""#, r#""receipt":"s""#);
    let answer = stream(&[FINISH, &other]).unwrap();
    assert!(answer.receipts_differ);
    assert_eq!(answer.receipt.as_deref(), Some("r"));
}

#[test]
fn what_the_api_does_not_allow_is_named() {
    let check =
        |events: &[&str], why: AnswerError| assert_eq!(stream(events), Err(why), "{events:?}");
    check(&[FINISH, HELLO], AnswerError::AfterFinish(0));
    check(&["[DONE]", HELLO], AnswerError::AfterEnd);
    check(&["[DONE]", "[DONE]"], AnswerError::AfterEnd);
    check(&[&HELLO.replace(":0", ":1")], AnswerError::Choice(1));
    check(
        &[HELLO, &WORLD.replace(r#""a""#, r#""b""#)],
        AnswerError::Changed("id"),
    );
    check(
        &[HELLO, &WORLD.replace(r#""m""#, r#""o""#)],
        AnswerError::Changed("model"),
    );
    check(
        &[r#"{"id":"a","model":"m"}"#],
        AnswerError::Field("choices"),
    );
    check(&[r#"{"model":"m","choices":[]}"#], AnswerError::Field("id"));
    check(
        &[&HELLO.replace(r#""Hello""#, "5")],
        AnswerError::Field("content"),
    );
    check(&[r#"[]"#], AnswerError::Field("object"));
    for broken in [
        r#"{"id":"a","model":"m","choices":[{"index":0,"delta":{"content":"x","content":"y"}}]}"#,
        r#"{"id":"a""#,
        "",
    ] {
        assert!(
            matches!(stream(&[broken]), Err(AnswerError::Json(_))),
            "{broken}"
        );
    }
}
