//! What engines may and may not do, event by event.

use protocol::Did;
use serde_json::json;

use super::*;
use crate::fixtures::{About, Signer, gateway_key, request_id};

/// The engine, the request, and what was issued.
struct Setting {
    signer: Signer,
    about: About,
    issued: Credentials,
}

impl Setting {
    fn new() -> Self {
        let signer = Signer::new(5);
        Self {
            issued: issued_to(&signer),
            about: About::unsigned(request_id(1)),
            signer,
        }
    }

    fn passage(&self) -> Passage {
        let admitted = Admitted {
            at: crate::fixtures::NOW,
            body_sha256: self.about.body,
            line: self.about.line.clone(),
            signature: None,
        };
        Passage::new(self.about.id.clone(), admitted, true)
    }

    fn compact(&self) -> String {
        self.signer.sign(&self.about).compact().to_owned()
    }

    /// What becomes of the last of these events.
    fn last(&self, events: &[String]) -> Result<&'static str, &'static str> {
        let mut passage = self.passage();
        let mut told = Ok("nothing");
        for event in events {
            told = match passage.event(event, &self.issued) {
                Ok(Step::Pass) => Ok("pass"),
                Ok(Step::Keep(_)) => Ok("keep"),
                Ok(Step::Done) => Ok("done"),
                Err(breach) => Err(breach.code()),
            };
        }
        told
    }
}

fn issued_to(signer: &Signer) -> Credentials {
    let compact = signer.credential.compact();
    let signed = protocol::credential::SignedCredential::parse(compact).unwrap();
    Credentials::default().with(signed, &gateway_key().did())
}

fn delta() -> String {
    json!({"choices": [{"delta": {"content": "\"receipt\": "}}], "error": null}).to_string()
}

fn finish(receipt: &str) -> String {
    json!({"choices": [{"finish_reason": "stop"}], "receipt": receipt}).to_string()
}

fn done() -> String {
    sse::DONE_DATA.to_owned()
}

#[test]
fn a_stream_as_it_should_be() {
    let setting = Setting::new();
    let receipt = setting.compact();
    assert_eq!(setting.last(&[delta()]), Ok("pass"));
    assert_eq!(setting.last(&[delta(), finish(&receipt)]), Ok("keep"));
    let usage = json!({"choices": [], "usage": {}, "receipt": receipt}).to_string();
    assert_eq!(setting.last(&[finish(&receipt), usage]), Ok("pass"));
    assert_eq!(setting.last(&[finish(&receipt), done()]), Ok("done"));
}

#[test]
fn no_end_without_a_receipt() {
    let setting = Setting::new();
    assert_eq!(setting.last(&[delta(), done()]), Err("receipt_missing"));
    let mut passage = setting.passage();
    passage.event(&delta(), &setting.issued).unwrap();
    assert!(!passage.is_complete());
    let error = json!({"error": {"message": "x"}}).to_string();
    passage.event(&error, &setting.issued).unwrap();
    assert!(passage.is_complete());
}

#[test]
fn nothing_after_the_end() {
    let setting = Setting::new();
    let receipt = setting.compact();
    let events = [finish(&receipt), done(), delta()];
    assert_eq!(setting.last(&events), Err("engine_after_end"));
}

#[test]
fn what_is_not_an_event() {
    let setting = Setting::new();
    let twice = format!(
        "{{\"receipt\":\"{0}\",\"receipt\":\"{0}\"}}",
        setting.compact()
    );
    for event in ["", "[]", "{", "text", "{\"receipt\": 1}", &twice] {
        assert_eq!(
            setting.last(&[event.to_owned()]),
            Err("engine_event_form"),
            "{event}"
        );
    }
}

/// A receipt for something else, signed by the right key.
fn check_foreign(change: impl FnOnce(&mut About), wanted: &str) {
    let setting = Setting::new();
    let mut about = setting.about.clone();
    change(&mut about);
    let receipt = setting.signer.sign(&about).compact().to_owned();
    assert_eq!(setting.last(&[finish(&receipt)]), Err(wanted));
}

#[test]
fn receipts_for_something_else() {
    check_foreign(|about| about.id = request_id(2), "receipt_other_request");
    check_foreign(
        |about| about.body = Digest::of(b"x"),
        "receipt_other_request",
    );
    check_foreign(|about| about.line.path.push('x'), "receipt_other_request");
    check_foreign(
        |about| about.line.authority = "x".to_owned(),
        "receipt_authority",
    );
    check_foreign(
        |about| {
            about.sub = Some(somebody());
            about.line.signature_input = Some("s=()".to_owned());
            about.line.signature = Some("s=::".to_owned());
        },
        "receipt_other_request",
    );
}

fn somebody() -> Did {
    protocol::SigningKey::from_seed([8; 32]).did()
}

#[test]
fn receipts_by_somebody_else() {
    let setting = Setting::new();
    // A job that this gateway knows nothing of.
    let other = Signer::new(6).sign(&setting.about);
    let told = setting.last(&[finish(other.compact())]);
    assert_eq!(told, Err("receipt_credential_unknown"));
    // Our job's claims and credential, another's signature.
    let receipt = setting.compact();
    let (claims, _) = receipt.rsplit_once('.').unwrap();
    let (_, signature) = other.compact().rsplit_once('.').unwrap();
    let spliced = format!("{claims}.{signature}");
    assert_eq!(setting.last(&[finish(&spliced)]), Err("jws_signature"));
}

#[test]
fn two_receipts_for_one_request() {
    let setting = Setting::new();
    let second = About {
        seq: 1,
        ..setting.about.clone()
    };
    let second = setting.signer.sign(&second).compact().to_owned();
    let events = [finish(&setting.compact()), finish(&second)];
    assert_eq!(setting.last(&events), Err("receipt_second"));
}

#[test]
fn checkpoints_come_in_order_and_before_the_end() {
    let setting = Setting::new();
    let sign = |seq, part| {
        let about = About {
            seq,
            part,
            ..setting.about.clone()
        };
        finish(setting.signer.sign(&about).compact())
    };
    let checkpoints = [sign(0, 1), sign(1, 2)];
    assert_eq!(setting.last(&checkpoints), Ok("keep"));
    let [first, second] = checkpoints;
    let last = sign(2, 0);
    let all = [first.clone(), second.clone(), last.clone(), done()];
    assert_eq!(setting.last(&all[..3]), Ok("keep"));
    assert_eq!(setting.last(&all), Ok("done"));
    let told = setting.last(&[first.clone(), done()]);
    assert_eq!(told, Err("receipt_missing"), "a checkpoint is no end");
    assert_eq!(
        setting.last(std::slice::from_ref(&second)),
        Err("receipt_checkpoint")
    );
    assert_eq!(
        setting.last(&[first.clone(), sign(1, 1)]),
        Err("receipt_checkpoint")
    );
    assert_eq!(setting.last(&[last, first]), Err("receipt_second"));
}

/// A whole reply: its status, its body, what becomes of it.
fn check_reply(status: u16, body: &str, wanted: Result<&str, &str>) {
    let setting = Setting::new();
    let body = body.replace("RECEIPT", &setting.compact());
    let status = StatusCode::from_u16(status).unwrap();
    let told = setting
        .passage()
        .reply(status, body.as_bytes(), &setting.issued);
    let told = match &told {
        Ok(Step::Keep(_)) => Ok("keep"),
        Ok(_) => Ok("pass"),
        Err(breach) => Err(breach.code()),
    };
    assert_eq!(told, wanted, "{body}");
}

#[test]
fn replies_in_one_piece() {
    check_reply(200, r#"{"choices": [], "receipt": "RECEIPT"}"#, Ok("keep"));
    check_reply(200, r#"{"choices": []}"#, Err("receipt_missing"));
    check_reply(400, r#"{"error": {}, "receipt": "RECEIPT"}"#, Ok("keep"));
    check_reply(429, r#"{"error": {}}"#, Ok("pass"));
    check_reply(
        200,
        r#"{"error": {}, "receipt": "RECEIPT"}"#,
        Err("engine_reply_form"),
    );
    check_reply(500, "oops", Err("engine_reply_form"));
    check_reply(200, r#"{"receipt": "x"}"#, Err("jws_form"));
}
