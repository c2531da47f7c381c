//! An answer that passes every check, in the parts that a test breaks one of.
//! Start at [`honest`].

use super::*;

pub(super) const AUTHORITY: &str = "127.0.0.1:8080";
pub(super) const PATH: &str = "/v1/chat/completions";
pub(super) const BODY: &str = r#"{"model":"small","messages":[{"role":"user","content":"hi"}],"stream":true,"stream_options":{"include_usage":true},"max_tokens":9,"temperature":0.5}"#;
pub(super) const SENT: u64 = 1_800_000_000_000;

pub(super) fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed([seed; 32])
}

pub(super) const CLIENT: u8 = 1;
pub(super) const JOB: u8 = 2;
pub(super) const GATEWAY: u8 = 3;
pub(super) const STRANGER: u8 = 4;

/// What an answer is made of, before it is signed. A test changes one part.
pub(super) struct Parts {
    pub(super) sent: Sent,
    pub(super) answer: Answer,
    pub(super) fault: Option<Fault>,
    pub(super) received_ms: u64,
    pub(super) credential: Credential,
    pub(super) credential_key: u8,
    pub(super) chain: Option<Chain>,
    pub(super) claims: Receipt,
    pub(super) receipt_key: u8,
    pub(super) receipt: Option<String>,
    pub(super) typ: &'static str,
    pub(super) stored: Option<String>,
    /// Checkpoints of the answer so far, each when "Hel" had come.
    pub(super) checkpoints: Vec<Receipt>,
    /// Whether the gateway keeps them.
    pub(super) kept: bool,
    pub(super) trust: Trust,
}

pub(super) fn digest(byte: u8) -> Digest {
    Digest::from_bytes([byte; 32])
}

pub(super) fn model(byte: u8) -> ModelRef {
    ModelRef {
        id: "small".into(),
        digest: ModelDigest::from_digest(digest(byte)),
    }
}

pub(super) fn sign(
    client: u8,
    path: &str,
    body: &str,
    nonce: u8,
) -> (SignatureHeaders, RequestLine, Vec<u8>) {
    let head = RequestHead {
        method: "POST",
        authority: AUTHORITY,
        path,
        query: None,
        headers: &[("content-type", "application/json")],
    };
    let at = SENT / 1000;
    let headers = request_signature::sign(
        &key(client),
        &head,
        body.as_bytes(),
        at,
        at + 60,
        [nonce; 16],
    );
    let mut lines = vec![("content-type", "application/json")];
    lines.extend(headers.fields());
    let head = RequestHead {
        headers: &lines,
        ..head
    };
    let policy = Policy {
        authorities: &[AUTHORITY.to_owned()],
    };
    let verified = request_signature::verify(&head, body.as_bytes(), UnixMs(SENT), &policy)
        .unwrap()
        .unwrap();
    (headers, verified.line, verified.nonce.as_bytes().to_vec())
}

/// An answer that every check holds for.
pub(super) fn honest() -> Parts {
    let ask = parse_ask(PATH, BODY.as_bytes()).unwrap();
    let (headers, line, nonce) = sign(CLIENT, PATH, BODY, 7);
    let body_sha256 = Digest::of(BODY.as_bytes());
    let id = RequestId::new(protocol::Kind::Chat, [9; 16]);
    let job = JobId::new([8; 16]);
    let sampling = Sampling::in_force(
        &ask.sampling,
        1,
        Effective {
            max_tokens: 9,
            seed: seed_from_nonce(&nonce, &body_sha256),
            seed_by: SeedBy::Nonce,
            template_date: None,
        },
    );
    Parts {
        sent: Sent {
            method: "POST".into(),
            authority: AUTHORITY.into(),
            path: PATH.into(),
            body: BODY.into(),
            ask,
            client: Some(key(CLIENT).did()),
            signature: Some(headers),
            at: UnixMs(SENT),
        },
        answer: Answer {
            id: Some(id.to_string()),
            model: Some("small".into()),
            choices: vec![Choice {
                calls: Vec::new(),
                text: "Hello".into(),
                finish: Some("stop".into()),
                token_ids: Some(vec![5, 6, 2]),
            }],
            usage: Some(Usage {
                prompt_tokens: 4,
                completion_tokens: 3,
            }),
            prompt_token_ids: Some(vec![1, 2, 3, 4]),
            done: true,
            ..Answer::default()
        },
        fault: None,
        received_ms: SENT + 2000,
        credential: Credential {
            v: 1,
            iss: key(GATEWAY).did(),
            job: job.clone(),
            sub: key(JOB).did(),
            model: model(1),
            numerics: "exact/1".into(),
            class: "local".into(),
            sandbox: vec![],
            authorities: vec![AUTHORITY.into()],
            nbf_ms: UnixMs(SENT - 3_600_000),
            exp_ms: UnixMs(SENT + 3_600_000),
        },
        credential_key: GATEWAY,
        chain: None,
        claims: Receipt {
            v: 1,
            domain: receipt::DOMAIN.into(),
            salt: Salt([6; 16]),
            jti: id,
            part: 0,
            job,
            seq: 0,
            prev: None,
            iss: key(JOB).did(),
            sub: Some(key(CLIENT).did()),
            from_ms: UnixMs(SENT + 10),
            to_ms: UnixMs(SENT + 1990),
            input: Input {
                request: line,
                body_sha256,
                prompt_tokens_sha256: Digest::of_tokens(&[1, 2, 3, 4]),
                prompt_tokens: 4,
            },
            output: vec![Output {
                text_sha256: Digest::of(b"Hello"),
                tokens_sha256: Digest::of_tokens(&[5, 6, 2]),
                tokens: 3,
                finish: Finish::Stop,
            }],
            model: model(1),
            sampling: Some(sampling),
            numerics: Numerics {
                profile: "exact/1".into(),
                device: "cpu".into(),
                detail: Default::default(),
            },
            trace: Some(digest(9)),
            // Filled in once the credential is signed.
            cred: digest(0),
        },
        receipt_key: JOB,
        receipt: None,
        typ: receipt::TYP,
        stored: None,
        checkpoints: vec![],
        kept: true,
        trust: Trust {
            gateway: Some(key(GATEWAY).did()),
            known: KnownGateways::default(),
            whitelist: [(
                "small".to_owned(),
                ExpectedModel {
                    digest: model(1).digest,
                    numerics: vec!["exact/1".into()],
                },
            )]
            .into(),
        },
    }
}

impl Parts {
    /// Signs what isn't signed yet; gives the receipt and the chain.
    pub(super) fn seal(&mut self) -> (String, Chain) {
        let credential = jws::sign(
            &key(self.credential_key),
            protocol::credential::TYP,
            &self.credential,
        );
        if self.claims.cred == digest(0) {
            self.claims.cred = Digest::of(credential.as_bytes());
        }
        let receipt = match self.receipt.take() {
            Some(receipt) => receipt,
            None => jws::sign(&key(self.receipt_key), self.typ, &self.claims),
        };
        let chain = self.chain.take().unwrap_or(Chain(vec![credential]));
        (receipt, chain)
    }

    /// What a checkpoint says when "Hel" has come.
    pub(super) fn checkpoint(&self) -> Receipt {
        let mut claims = self.claims.clone();
        claims.part = 1;
        claims.output[0] = Output {
            text_sha256: Digest::of(b"Hel"),
            tokens_sha256: Digest::of_tokens(&[5]),
            tokens: 1,
            finish: Finish::Open,
        };
        claims
    }

    pub(super) fn judge(self) -> Result<Accepted, Rejection> {
        let (trust, sent, received, proof) = self.arrive();
        trust.judge(&sent, &received, Ok(&proof))
    }

    /// The answer breaks off; what its latest checkpoint proves of it.
    pub(super) fn proven(mut self) -> Option<Result<Proven, Rejection>> {
        self.answer.done = false;
        let (trust, sent, received, proof) = self.arrive();
        assert!(trust.judge(&sent, &received, Ok(&proof)).is_err());
        trust.proven(&sent, &received, &proof.chain)
    }

    fn arrive(mut self) -> (Trust, Sent, Received, Proof) {
        let (receipt, chain) = self.seal();
        let checkpoints = self.checkpoints.into_iter().map(|mut claims| {
            claims.cred = self.claims.cred;
            jws::sign(&key(self.receipt_key), self.typ, &claims)
        });
        let checkpoints: Vec<String> = checkpoints.collect();
        for receipt in &checkpoints {
            let choices = vec![Progress {
                text_bytes: 3,
                token_ids: Some(1),
                finish: None,
            }];
            let receipt = receipt.clone();
            self.answer
                .checkpoints
                .push(Checkpoint { receipt, choices });
        }
        let proof = Proof {
            receipt: Some(self.stored.unwrap_or(receipt.clone())),
            checkpoints: if self.kept { checkpoints } else { vec![] },
            chain,
        };
        self.answer.receipt = Some(receipt);
        let received = Received {
            status: 200,
            content_type: None,
            body: vec![],
            answer: self.answer,
            fault: self.fault,
            at: UnixMs(self.received_ms),
        };
        (self.trust, self.sent, received, proof)
    }
}
