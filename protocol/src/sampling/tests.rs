//! Sampling parameters: defaults, and that a client notices each one changed.

use proptest::prelude::*;

use super::*;
use crate::api::{Limits, parse_chat};

const BODY: &str = r#"{"model": "m", "messages": [{"role": "user", "content": "hi"}],
    "temperature": 0.7, "top_p": 0.9, "top_k": 40, "min_p": 0.05, "repetition_penalty": 1.1,
    "presence_penalty": 0.5, "frequency_penalty": -0.5, "logit_bias": {"5": -100},
    "max_tokens": 64, "min_tokens": 2, "stop": ["\n"], "stop_token_ids": [2], "n": 2"#;

fn ask(rest: &str) -> Ask {
    parse_chat(format!("{BODY}{rest}}}").as_bytes(), &Limits::default()).unwrap()
}

fn in_force(ask: &Ask, seed: Seed, seed_by: SeedBy) -> Sampling {
    let effective = Effective {
        max_tokens: ask.max_tokens.unwrap_or(99),
        seed,
        seed_by,
        template_date: None,
    };
    Sampling::in_force(&ask.sampling, ask.n, effective)
}

#[test]
fn what_nobody_says_has_the_documented_values() {
    let effective = Effective {
        max_tokens: 10,
        seed: Seed(u64::MAX),
        seed_by: SeedBy::Server,
        template_date: None,
    };
    let sampling = Sampling::in_force(&SamplingAsk::default(), 1, effective);
    assert_eq!(
        serde_json::to_string(&sampling).unwrap(),
        concat!(
            r#"{"version":"gumbel-philox/1","temperature":1.0,"top_p":1.0,"top_k":0,"#,
            r#""min_p":0.0,"repetition_penalty":1.0,"presence_penalty":0.0,"#,
            r#""frequency_penalty":0.0,"max_tokens":10,"min_tokens":0,"ignore_eos":false,"#,
            r#""n":1,"seed":"18446744073709551615","seed_by":"server"}"#
        )
    );
}

#[test]
fn the_client_notices_each_parameter_changed() {
    let ask = ask(r#", "seed": -1"#);
    let honest = in_force(&ask, Seed(u64::MAX), SeedBy::Client);
    assert_eq!(honest.honours(&ask, None), Ok(()));
    type Change = fn(&mut Sampling);
    let changes: [(&str, Change); 17] = [
        ("version", |s| s.version.push('0')),
        ("temperature", |s| s.temperature = 0.0),
        ("top_p", |s| s.top_p = 1.0),
        ("top_k", |s| s.top_k = 0),
        ("min_p", |s| s.min_p = 0.0),
        ("repetition_penalty", |s| s.repetition_penalty = 1.0),
        ("presence_penalty", |s| s.presence_penalty = 0.0),
        ("frequency_penalty", |s| s.frequency_penalty = 0.0),
        ("logit_bias", |s| s.logit_bias.clear()),
        ("max_tokens", |s| s.max_tokens -= 1),
        ("min_tokens", |s| s.min_tokens = 0),
        ("stop", |s| s.stop.clear()),
        ("stop_token_ids", |s| s.stop_token_ids.push(3)),
        ("ignore_eos", |s| s.ignore_eos = true),
        ("n", |s| s.n = 1),
        ("seed", |s| s.seed = Seed(0)),
        ("seed", |s| s.seed_by = SeedBy::Server),
    ];
    for (name, change) in changes {
        let mut changed = honest.clone();
        change(&mut changed);
        assert_eq!(changed.honours(&ask, None), Err(name));
    }
}

#[test]
fn a_signed_request_without_a_seed_gets_its_nonces() {
    let (ask, body) = (ask(""), Digest::of(b"body"));
    let nonce = b"0123456789abcdefghijkl".as_slice();
    let honest = in_force(&ask, seed_from_nonce(nonce, &body), SeedBy::Nonce);
    assert_eq!(honest.honours(&ask, Some((nonce, &body))), Ok(()));
    for dishonest in [
        in_force(&ask, Seed(honest.seed.0 ^ 1), SeedBy::Nonce),
        in_force(&ask, honest.seed, SeedBy::Client),
        in_force(&ask, honest.seed, SeedBy::Server),
    ] {
        assert_eq!(dishonest.honours(&ask, Some((nonce, &body))), Err("seed"));
    }
    // Unsigned, the server's word is all there is.
    assert_eq!(honest.honours(&ask, None), Err("seed"));
    let drawn = in_force(&ask, Seed(7), SeedBy::Server);
    assert_eq!(drawn.honours(&ask, None), Ok(()));
}

#[test]
fn a_limit_left_to_the_server_is_the_servers() {
    let mut ask = ask(r#", "seed": 1"#);
    ask.max_tokens = None;
    let sampling = in_force(&ask, Seed(1), SeedBy::Client);
    assert_eq!(sampling.max_tokens, 99);
    assert_eq!(sampling.honours(&ask, None), Ok(()));
}

#[test]
fn seeds_have_one_spelling() {
    for text in ["", "+1", "01", "-1", "1.0", " 1", "18446744073709551616"] {
        assert_eq!(text.parse::<Seed>(), Err(SeedError), "{text}");
    }
    assert!(serde_json::from_str::<Seed>("1").is_err());
}

proptest! {
    #[test]
    fn seeds_round_trip(seed: u64) {
        prop_assert_eq!(Seed(seed).to_string().parse::<Seed>(), Ok(Seed(seed)));
    }

    #[test]
    fn any_nonce_or_body_gives_another_seed(nonce: [u8; 16], body: [u8; 32], at in 0..16_usize) {
        let body = Digest::from_bytes(body);
        let seed = seed_from_nonce(&nonce, &body);
        let mut other = nonce;
        other[at] ^= 1;
        prop_assert_ne!(seed_from_nonce(&other, &body), seed);
        prop_assert_ne!(seed_from_nonce(&nonce, &Digest::of(body.as_bytes())), seed);
    }

    #[test]
    fn in_json_it_round_trips(temperature in 0.0..=2.0, top_p in 0.0..=1.0, seed: u64) {
        let mut sampling = in_force(&ask(""), Seed(seed), SeedBy::Client);
        (sampling.temperature, sampling.top_p) = (temperature, top_p);
        let json = serde_json::to_vec(&sampling).unwrap();
        let value = crate::json::parse(&json).unwrap();
        prop_assert_eq!(Sampling::deserialize(&value).unwrap(), sampling);
    }
}
