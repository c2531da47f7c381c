//! Building a receipt: that its hashes cover exactly what was absorbed.

use proptest::prelude::*;

use super::*;
use crate::digest::ModelDigest;
use crate::key::SigningKey;
use crate::receipt::SignedReceipt;
use crate::sampling::{Effective, Seed, SeedBy};
use crate::{Kind, api::SamplingAsk};

fn key() -> SigningKey {
    SigningKey::from_seed([2; 32])
}

fn opening() -> Opening {
    Opening {
        jti: RequestId::new(Kind::Chat, [1; 16]),
        job: JobId::new([2; 16]),
        iss: key().did(),
        sub: None,
        salt: Salt([3; 16]),
        from_ms: UnixMs(1000),
        request: RequestLine::unsigned("POST", "localhost", "/v1/chat/completions", None),
        body_sha256: Digest::of(b"{}"),
        model: ModelRef {
            id: "m".to_owned(),
            digest: ModelDigest::from_digest(Digest::of(b"m")),
        },
        numerics: Numerics {
            profile: "candle-cpu/1".to_owned(),
            device: "cpu".to_owned(),
            detail: Default::default(),
        },
        cred: Digest::of(b"credential"),
    }
}

fn closing() -> Closing {
    Closing {
        to_ms: UnixMs(2000),
        unfinished: Finish::Cancelled,
        seq: 0,
        prev: None,
        trace: None,
    }
}

fn sampling(n: u8) -> Sampling {
    let effective = Effective {
        max_tokens: 9,
        seed: Seed(1),
        seed_by: SeedBy::Server,
        template_date: None,
    };
    Sampling::in_force(&SamplingAsk::default(), n, effective)
}

#[test]
fn a_refused_request_has_one_empty_choice() {
    let closing = Closing {
        unfinished: Finish::Refused,
        ..closing()
    };
    let receipt = OpenReceipt::begin(opening()).close(closing);
    assert_eq!(receipt.sampling, None);
    assert_eq!(receipt.input.prompt_tokens, 0);
    let [output] = &receipt.output[..] else {
        panic!("one choice");
    };
    assert_eq!(output.finish, Finish::Refused);
    assert_eq!(output.text_sha256, Digest::of(b""));
    assert_eq!(output.tokens, 0);
    assert!(SignedReceipt::parse(receipt.sign(&key()).compact()).is_ok());
}

#[test]
fn a_checkpoint_states_what_there_is_and_closes_nothing() {
    let mut open = OpenReceipt::begin(opening());
    open.sampling(sampling(2));
    open.absorb(0, 10, "He");
    open.absorb(1, 20, "A");
    open.finish(1, Finish::Stop);
    let receipt = open.checkpoint(1, closing());
    assert_eq!(receipt.part, 1);
    let finishes: Vec<_> = receipt.output.iter().map(|output| output.finish).collect();
    assert_eq!(finishes, [Finish::Open, Finish::Stop]);
    assert_eq!(receipt.output[0].text_sha256, Digest::of(b"He"));
    assert!(SignedReceipt::parse(receipt.sign(&key()).compact()).is_ok());
    open.absorb(0, 11, "llo");
    let receipt = open.close(closing());
    assert_eq!((receipt.part, receipt.output[0].tokens), (0, 2));
    assert_eq!(receipt.output[0].text_sha256, Digest::of(b"Hello"));
}

#[test]
fn each_choice_has_its_own_hashes_and_end() {
    let mut open = OpenReceipt::begin(opening());
    open.prompt(&[7, 8, 9]);
    open.sampling(sampling(2));
    open.absorb(0, 10, "He");
    open.absorb(1, 20, "");
    open.absorb(0, 11, "llo");
    open.absorb_text(1, "é");
    open.finish(0, Finish::Stop);
    open.finish(0, Finish::Length);
    let receipt = open.close(closing());
    assert_eq!(receipt.input.prompt_tokens, 3);
    assert_eq!(
        receipt.input.prompt_tokens_sha256,
        Digest::of_tokens(&[7, 8, 9])
    );
    let expected = [
        Output {
            text_sha256: Digest::of(b"Hello"),
            tokens_sha256: Digest::of_tokens(&[10, 11]),
            tokens: 2,
            finish: Finish::Stop,
        },
        Output {
            text_sha256: Digest::of("é".as_bytes()),
            tokens_sha256: Digest::of_tokens(&[20]),
            tokens: 1,
            finish: Finish::Cancelled,
        },
    ];
    assert_eq!(receipt.output, expected);
    assert!(SignedReceipt::parse(receipt.sign(&key()).compact()).is_ok());
}

#[test]
fn a_clock_set_back_ends_no_receipt_before_it_begins() {
    let closing = Closing {
        to_ms: UnixMs(1),
        ..closing()
    };
    let receipt = OpenReceipt::begin(opening()).close(closing);
    assert_eq!(receipt.to_ms, receipt.from_ms);
}

proptest! {
    #[test]
    fn pieces_make_no_difference(pieces: Vec<(u32, String)>) {
        let mut open = OpenReceipt::begin(opening());
        open.sampling(sampling(1));
        for (token, text) in &pieces {
            open.absorb(0, *token, text);
        }
        let receipt = open.close(closing());
        let text: String = pieces.iter().map(|(_, text)| text.as_str()).collect();
        let tokens: Vec<u32> = pieces.iter().map(|(token, _)| *token).collect();
        prop_assert_eq!(receipt.output[0].text_sha256, Digest::of(text.as_bytes()));
        prop_assert_eq!(receipt.output[0].tokens_sha256, Digest::of_tokens(&tokens));
        prop_assert_eq!(receipt.output[0].tokens as usize, tokens.len());
    }

    #[test]
    fn any_receipt_round_trips(
        texts in prop::collection::vec(any::<String>(), 6),
        numbers in prop::collection::vec(0..1_u64 << 53, 2),
        choices in 1..=8_u8,
        first: bool,
    ) {
        let mut open = OpenReceipt::begin(Opening {
            model: ModelRef { id: texts[0].clone(), ..opening().model },
            numerics: Numerics {
                device: texts[1].clone(),
                detail: [(texts[2].clone(), texts[3].clone())].into(),
                ..opening().numerics
            },
            request: RequestLine::unsigned("POST", &texts[4], "/", Some(&texts[5])),
            from_ms: UnixMs(numbers[0]),
            ..opening()
        });
        open.sampling(sampling(choices));
        let seq = if first { 0 } else { numbers[1].max(1) };
        let receipt = open.close(Closing {
            seq,
            prev: (seq > 0).then(|| Digest::of(b"the one before")),
            ..closing()
        });
        let signed = receipt.clone().sign(&key());
        let read = SignedReceipt::parse(signed.compact()).unwrap();
        prop_assert_eq!(read.unverified(), &receipt);
        prop_assert_eq!(read.digest(), signed.digest());
    }

    #[test]
    fn arbitrary_text_is_no_receipt(text in "[A-Za-z0-9_-]{0,40}(\\.[A-Za-z0-9_-]{0,40}){0,3}") {
        prop_assert!(SignedReceipt::parse(&text).is_err());
    }
}
