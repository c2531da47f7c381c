//! One request after another, and the code that each is refused with.

use http::{HeaderValue, Request};
use protocol::SigningKey;

use super::*;
use crate::fixtures::{NOW, gateway_key, request_id};

const BODY: &[u8] = b"{}";
const LIMIT: usize = 64;

/// A request as its client makes it.
struct Client {
    key: SigningKey,
    host: &'static str,
    created_s: u64,
    expires_s: u64,
}

impl Client {
    fn new(seed: u8) -> Self {
        Self {
            key: SigningKey::from_seed([seed; 32]),
            host: "localhost:8080",
            created_s: NOW.as_secs(),
            expires_s: NOW.as_secs() + 60,
        }
    }

    fn unsigned(&self) -> request::Parts {
        let request = Request::post("/v1/chat/completions?a=b")
            .header("host", self.host)
            .header("content-type", "application/json");
        request.body(()).unwrap().into_parts().0
    }

    fn signed(&self) -> request::Parts {
        let mut head = self.unsigned();
        let signed = RequestHead {
            method: "POST",
            authority: self.host,
            path: "/v1/chat/completions",
            query: Some("a=b"),
            headers: &[("host", self.host), ("content-type", "application/json")],
        };
        let (created_s, expires_s) = (self.created_s, self.expires_s);
        let made = request_signature::sign(&self.key, &signed, BODY, created_s, expires_s, [9; 16]);
        for (name, value) in made.fields() {
            let value = HeaderValue::from_str(value).unwrap();
            head.headers.insert(name, value);
        }
        head
    }
}

fn rules(signatures: Signatures, allowed: &[u8]) -> Rules {
    let allowed = allowed.iter().map(|seed| Client::new(*seed).key.did());
    Rules {
        authorities: vec!["127.0.0.1:8080".to_owned(), "localhost:8080".to_owned()],
        signatures,
        allow_dids: allowed.collect(),
        body_bytes_max: LIMIT,
    }
}

/// Admits with a body, and says who asked or with what code it was refused.
fn check(rules: &Rules, head: &request::Parts, body: &[u8], wanted: Result<Option<u8>, &str>) {
    let admitted = rules.admit(head, body, NOW);
    let told = match &admitted {
        Ok(admitted) => Ok(admitted.did()),
        Err(problem) => Err(problem.code()),
    };
    let wanted = wanted.map(|who| who.map(|seed| Client::new(seed).key.did()));
    assert_eq!(told, wanted, "{head:?}");
}

#[test]
fn who_may_ask() {
    use Signatures::{Optional, Required};
    let (ann, bob) = (Client::new(1), Client::new(2));
    let open = rules(Optional, &[]);
    check(&open, &ann.unsigned(), BODY, Ok(None));
    check(&open, &ann.signed(), BODY, Ok(Some(1)));
    let anns = rules(Required, &[1]);
    check(&anns, &ann.unsigned(), BODY, Err("signature_missing"));
    check(&anns, &ann.signed(), BODY, Ok(Some(1)));
    check(&anns, &bob.signed(), BODY, Err("did_not_allowed"));
    let anns_and_unsigned = rules(Optional, &[1]);
    check(&anns_and_unsigned, &ann.unsigned(), BODY, Ok(None));
    check(
        &anns_and_unsigned,
        &bob.signed(),
        BODY,
        Err("did_not_allowed"),
    );
}

#[test]
fn a_bad_signature_is_not_an_absent_one() {
    let open = rules(Signatures::Optional, &[]);
    let head = Client::new(1).signed();
    check(&open, &head, b"[]", Err("content_digest_mismatch"));
    let mut other_path = Client::new(1).signed();
    other_path.uri = "/v1/completions?a=b".parse().unwrap();
    check(&open, &other_path, BODY, Err("signature_invalid"));
    let mut uncovered = Client::new(1).signed();
    let grant = HeaderValue::from_static("x");
    uncovered.headers.insert("countersign-grant", grant);
    check(&open, &uncovered, BODY, Err("signature_uncovered"));
}

#[test]
fn clocks_that_differ_are_told_by_how_much() {
    let open = rules(Signatures::Optional, &[]);
    let mut early = Client::new(1);
    early.created_s += 300;
    early.expires_s += 300;
    let mut late = Client::new(1);
    late.created_s -= 300;
    late.expires_s -= 300;
    for (client, said) in [(early, "300 s"), (late, "240 s")] {
        let problem = open.admit(&client.signed(), BODY, NOW).unwrap_err();
        assert_eq!(problem.code(), "signature_clock");
        let text = problem.to_string();
        assert!(text.contains(said), "{text}");
        assert!(text.contains(&NOW.as_secs().to_string()), "{text}");
    }
}

#[test]
fn only_our_own_names() {
    let open = rules(Signatures::Optional, &[]);
    let mut client = Client::new(1);
    client.host = "127.0.0.1:8080";
    check(&open, &client.signed(), BODY, Ok(Some(1)));
    client.host = "LOCALHOST:8080";
    check(&open, &client.unsigned(), BODY, Ok(None));
    for strange in ["evil.example", "localhost", "localhost:8081"] {
        client.host = strange;
        check(&open, &client.unsigned(), BODY, Err("authority_unknown"));
        check(&open, &client.signed(), BODY, Err("authority_unknown"));
    }
    let mut twice = Client::new(1).unsigned();
    let host = HeaderValue::from_static("localhost:8080");
    twice.headers.append("host", host);
    check(&open, &twice, BODY, Err("authority_unclear"));
}

#[test]
fn a_long_body_is_refused_before_it_is_hashed() {
    let open = rules(Signatures::Optional, &[]);
    let head = Client::new(1).signed();
    check(&open, &head, &[b' '; LIMIT + 1], Err("body_too_large"));
}

#[test]
fn the_admission_says_what_was_admitted() {
    let open = rules(Signatures::Optional, &[]);
    let (gateway, job) = (gateway_key(), JobId::new([4; 16]));
    for head in [Client::new(1).signed(), Client::new(1).unsigned()] {
        let admitted = open.admit(&head, BODY, NOW).unwrap();
        let signed = admitted.certify(&request_id(7), &job, &gateway);
        let parsed = SignedAdmission::parse(signed.compact()).unwrap();
        let verified = parsed.verify(&gateway.did()).unwrap();
        let claims = verified.claims();
        assert_eq!(claims.jti, request_id(7));
        assert_eq!(claims.sub, admitted.did());
        assert_eq!(claims.admitted_ms, NOW);
        let line = (claims.path.as_str(), claims.query.as_deref());
        assert_eq!(line, ("/v1/chat/completions", Some("a=b")));
        assert_eq!(claims.body_sha256, Digest::of(BODY));
    }
}
