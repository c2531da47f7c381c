//! Request signatures: our own, foreign ones, and that nothing covered can be
//! changed. Each rule's own vectors are in `protocol/vectors/request-signatures.json`.

use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::*;

const BODY: &[u8] = br#"{"model":"m"}"#;
const CREATED_S: u64 = 1_767_225_600;

fn key() -> SigningKey {
    SigningKey::from_seed([3; 32])
}

/// A request that is signed and then perhaps changed.
struct Request {
    method: String,
    authority: String,
    path: String,
    query: Option<String>,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Request {
    fn new() -> Self {
        Request {
            method: "POST".to_owned(),
            authority: "localhost:8080".to_owned(),
            path: "/v1/chat/completions".to_owned(),
            query: None,
            headers: vec![("content-type".to_owned(), "application/json".to_owned())],
            body: BODY.to_vec(),
        }
    }

    fn with_head<T>(&self, read: impl FnOnce(&RequestHead<'_>) -> T) -> T {
        let headers: Vec<(&str, &str)> = self
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        read(&RequestHead {
            method: &self.method,
            authority: &self.authority,
            path: &self.path,
            query: self.query.as_deref(),
            headers: &headers,
        })
    }

    fn sign(&mut self) -> SignatureHeaders {
        let expires_s = CREATED_S + 60;
        let signed =
            self.with_head(|head| sign(&key(), head, &self.body, CREATED_S, expires_s, [7; 16]));
        let fields = signed.fields();
        let fields = fields.map(|(name, value)| (name.to_owned(), value.to_owned()));
        self.headers.extend(fields);
        signed
    }

    fn verify_at(&self, now: UnixMs) -> Result<Option<VerifiedSignature>, SignatureError> {
        let authorities = ["localhost:8080".to_owned(), "127.0.0.1:8080".to_owned()];
        let policy = Policy {
            authorities: &authorities,
        };
        self.with_head(|head| verify(head, &self.body, now, &policy))
    }

    fn verify(&self) -> Result<Option<VerifiedSignature>, SignatureError> {
        self.verify_at(UnixMs::from_secs(CREATED_S + 1))
    }

    fn code(&self) -> &'static str {
        self.verify().unwrap_err().code()
    }
}

#[test]
fn what_our_signer_signs_is_this() {
    let mut request = Request::new();
    request.query = Some("a=b".to_owned());
    let signed = request.sign();
    let check = |actual: &str, expected: Expect| expected.assert_eq(actual);
    check(
        &signed.signature_input,
        expect![[
            r#"countersign=("@method" "@authority" "@path" "@query" "content-digest" "content-type");created=1767225600;expires=1767225660;nonce="BwcHBwcHBwcHBwcHBwcHBw";keyid="did:key:z6MkvRXNYcE7MMduynWTgeKbDaT1iijDSC8pZqXZc8rHPrf2";tag="countersign""#
        ]],
    );
    let member = Member::find(&signed.signature_input).unwrap().unwrap();
    check(
        &base::of(&member, &signed.line),
        expect![[r#"
            "@method": POST
            "@authority": localhost:8080
            "@path": /v1/chat/completions
            "@query": ?a=b
            "content-digest": sha-256=:VI9Y0cNscVtE8IY0cgdKl8RI1bjRgWS5Kt9VWSsSf4Y=:
            "content-type": application/json
            "@signature-params": ("@method" "@authority" "@path" "@query" "content-digest" "content-type");created=1767225600;expires=1767225660;nonce="BwcHBwcHBwcHBwcHBwcHBw";keyid="did:key:z6MkvRXNYcE7MMduynWTgeKbDaT1iijDSC8pZqXZc8rHPrf2";tag="countersign""#]],
    );
    let verified = request.verify().unwrap().unwrap();
    assert_eq!(verified.did, key().did());
    assert_eq!(verified.nonce.as_str(), "BwcHBwcHBwcHBwcHBwcHBw");
    assert_eq!(verified.line, signed.line);
}

#[test]
fn a_receipt_alone_shows_that_the_client_signed() {
    let mut request = Request::new();
    let signed = request.sign();
    let verified = request.verify().unwrap();
    let body = Digest::of(BODY);
    assert_eq!(
        recheck(&signed.line, &body, &key().did()).ok(),
        verified,
        "the same facts as at the door"
    );
    let code = |line: &RequestLine, body: &Digest, client: &Did| {
        recheck(line, body, client).unwrap_err().code()
    };
    let other = SigningKey::from_seed([4; 32]).did();
    assert_eq!(code(&signed.line, &body, &other), "signature_client");
    let other = Digest::of(b"other");
    assert_eq!(
        code(&signed.line, &other, &key().did()),
        "content_digest_mismatch"
    );
    let change = |change: fn(&mut RequestLine)| {
        let mut line = signed.line.clone();
        change(&mut line);
        code(&line, &body, &key().did())
    };
    assert_eq!(change(|line| line.path.push('x')), "signature_invalid");
    assert_eq!(
        change(|line| line.method = "GET".into()),
        "signature_invalid"
    );
    assert_eq!(
        change(|line| line.authority = "evil".into()),
        "signature_invalid"
    );
    assert_eq!(
        change(|line| line.query = Some("".into())),
        "signature_uncovered"
    );
    assert_eq!(
        change(|line| drop(line.headers.remove("content-type"))),
        "signature_field_missing"
    );
    assert_eq!(
        change(|line| drop(line.headers.insert("x-more".into(), "1".into()))),
        "signature_uncovered"
    );
    assert_eq!(change(|line| line.signature = None), "signature_form");
    assert_eq!(
        change(|line| line.signature_input = None),
        "signature_input_form"
    );
    assert_eq!(
        change(|line| {
            let input = line.signature_input.as_mut().unwrap();
            *input = input.replace(";created", "; created");
        }),
        "signature_input_form"
    );
    assert_eq!(
        change(|line| line.signature.as_mut().unwrap().push(' ')),
        "signature_form"
    );
}

#[test]
fn without_our_tag_a_request_is_unsigned() {
    let mut request = Request::new();
    assert_eq!(request.verify(), Ok(None));
    let foreign = r#"sig=("@method");created=1;keyid="k";tag="other", x"#;
    request
        .headers
        .push(("signature-input".to_owned(), foreign.to_owned()));
    assert_eq!(request.verify(), Ok(None));
}

#[test]
fn other_peoples_signatures_are_left_alone() {
    let mut request = Request::new();
    request.sign();
    for (name, value) in [
        (
            "signature-input",
            r#"theirs=("date");created=1;tag="other""#,
        ),
        ("signature", "theirs=:AAAA:"),
    ] {
        request
            .headers
            .insert(0, (name.to_owned(), value.to_owned()));
    }
    assert!(request.verify().unwrap().is_some());
}

#[test]
fn a_clock_that_is_wrong_is_named() {
    let mut request = Request::new();
    request.sign();
    let at = |seconds: u64, ms: u64| {
        let now = UnixMs::from_secs(seconds).plus_ms(ms);
        request
            .verify_at(now)
            .map(|_| ())
            .map_err(|e| e.to_string())
    };
    assert_eq!(at(CREATED_S - 30, 0), Ok(()));
    assert_eq!(
        at(CREATED_S - 31, 999),
        Err("the signature was created 31 s after the server's time, which is 1767225569".into())
    );
    assert_eq!(at(CREATED_S + 60, 0), Ok(()));
    assert_eq!(
        at(CREATED_S + 360, 0),
        Err("the signature expired 300 s before the server's time, which is 1767225960".into())
    );
    assert!(at(CREATED_S + 60, 1).is_err());
}

#[test]
fn present_fields_must_be_covered() {
    for name in [
        "content-encoding",
        "idempotency-key",
        "countersign-grant",
        "countersign-job",
    ] {
        let mut request = Request::new();
        request.sign();
        request.headers.push((name.to_owned(), "x".to_owned()));
        let error = request.verify().unwrap_err();
        assert_eq!(error, SignatureError::Uncovered(name.to_owned()));
        let mut request = Request::new();
        request.headers.push((name.to_owned(), "x".to_owned()));
        request.sign();
        assert!(request.verify().unwrap().is_some(), "{name}");
    }
    // What the gateway adds for the job, and what signs nothing of ours.
    for name in ["countersign-admission", "user-agent", "authorization"] {
        let mut request = Request::new();
        request.sign();
        request.headers.push((name.to_owned(), "x".to_owned()));
        assert!(request.verify().unwrap().is_some(), "{name}");
    }
}

#[test]
fn letter_case_of_the_authority_doesnt_matter() {
    let mut request = Request::new();
    request.sign();
    request.authority = "LocalHost:8080".to_owned();
    let verified = request.verify().unwrap().unwrap();
    assert_eq!(verified.line.authority, "localhost:8080");
}

#[test]
fn a_default_port_is_left_out() {
    assert_eq!(
        normalize_authority("Example.com:80", Some(80)),
        "example.com"
    );
    assert_eq!(
        normalize_authority("example.com:8080", Some(80)),
        "example.com:8080"
    );
    assert_eq!(
        normalize_authority("example.com:443", Some(80)),
        "example.com:443"
    );
    assert_eq!(normalize_authority("[::1]:443", Some(443)), "[::1]");
    assert_eq!(normalize_authority("[::1]:8443", None), "[::1]:8443");
}

proptest! {
    #[test]
    fn what_is_signed_verifies(
        seed: [u8; 32],
        nonce: [u8; 16],
        lifetime in 1..=LIFETIME_S_MAX,
        path in "/[!-~]{0,40}",
        query in prop::option::of("[!-~]{0,40}"),
        values in prop::collection::vec("[ -~\t]{0,40}", 4),
        body: Vec<u8>,
    ) {
        let key = SigningKey::from_seed(seed);
        let mut request = Request { path, query, body, ..Request::new() };
        let names = ["content-type", "idempotency-key", "countersign-job", "x-other"];
        request.headers = names.iter().zip(values).map(|(n, v)| ((*n).to_owned(), v)).collect();
        let signed = request.with_head(|head| {
            sign(&key, head, &request.body, CREATED_S, CREATED_S + lifetime, nonce)
        });
        for (name, value) in signed.fields() {
            request.headers.push((name.to_owned(), value.to_owned()));
        }
        let verified = request.verify().unwrap().unwrap();
        prop_assert_eq!(&verified.line, &signed.line);
        let again = recheck(&signed.line, &Digest::of(&request.body), &key.did()).unwrap();
        prop_assert_eq!(again, verified);
    }

    #[test]
    fn no_changed_part_passes(part in 0..6_usize, at: prop::sample::Index, flip in 1..=127_u8) {
        let mut request = Request::new();
        request.query = Some("a=b".to_owned());
        request.sign();
        let fields = request.headers.len();
        let bytes = match part {
            0 => &mut request.method,
            1 => &mut request.path,
            2 => request.query.as_mut().unwrap(),
            3 => &mut request.headers[fields - 3].1,
            4 => &mut request.headers[fields - 2].1,
            _ => &mut request.headers[fields - 1].1,
        };
        let at = at.index(bytes.len());
        let changed: Vec<u8> = bytes
            .bytes()
            .enumerate()
            .map(|(index, byte)| if index == at { byte ^ flip } else { byte })
            .collect();
        *bytes = String::from_utf8(changed).unwrap();
        // Another tag makes it an unsigned request; a second spelling of the
        // same value is no change.
        let outcome = request.verify();
        if let Ok(Some(verified)) = outcome {
            let mut honest = Request::new();
            honest.query = Some("a=b".to_owned());
            prop_assert_eq!(verified.line, honest.sign().line);
        }
    }

    #[test]
    fn arbitrary_lines_never_panic(
        texts in prop::collection::vec(any::<String>(), 5),
        input in r#"(sig=\("@method"( "@path"){0,2}\);tag="countersign")?[ -~]{0,20}"#,
    ) {
        let mut line = RequestLine::unsigned(&texts[0], &texts[1], &texts[2], Some(&texts[3]));
        line.headers.insert(texts[4].clone(), texts[0].clone());
        line.signature_input = Some(input);
        line.signature = Some(texts[1].clone());
        prop_assert!(recheck(&line, &Digest::of(BODY), &key().did()).is_err());
    }

    #[test]
    fn arbitrary_fields_never_panic(
        input in r#"[ -~]{0,20}(sig=\("@method"( "@path"){0,2}\);tag="countersign"(;created=[0-9]{1,15})?[ -~]{0,30})?"#,
        signature in "(sig=:[A-Za-z0-9+/=]{0,90}:)?[ -~]{0,20}",
        digest in "[ -~]{0,60}",
    ) {
        let mut request = Request::new();
        for (name, value) in [
            ("signature-input", input),
            ("signature", signature),
            ("content-digest", digest),
        ] {
            request.headers.push((name.to_owned(), value));
        }
        prop_assert!(!matches!(request.verify(), Ok(Some(_))));
    }
}

#[test]
fn a_changed_body_is_noticed() {
    let mut request = Request::new();
    request.sign();
    request.body.push(b' ');
    assert_eq!(request.code(), "content_digest_mismatch");
}
