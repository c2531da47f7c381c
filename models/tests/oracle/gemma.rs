//! Gemma 3 270M: tokenizer, template and distributions against llama.cpp's
//! (`tests/data/oracle/gemma-3-270m`, made by `tests/python/oracle.py`).

use models::{Chunk, Special, Want, log_softmax_top};

use super::*;

static GEMMA: LazyLock<Model> = LazyLock::new(|| load("gemma-3-270m"));

fn theirs(name: &str) -> Vec<Value> {
    oracle(&format!("gemma-3-270m/{name}"))
}

#[test]
fn tokens_are_the_oracles() {
    let tokenizer = GEMMA.tokenizer();
    let items = theirs("tokenize.json");
    assert!(items.len() >= 200, "{} texts", items.len());
    for item in items {
        let text = item["text"].as_str().unwrap();
        let plain = ids(&item["ids_plain"]);
        assert_eq!(
            tokenizer.encode(text, Special::AsText),
            plain,
            "{text:?} as text"
        );
        assert_eq!(
            tokenizer.encode(text, Special::Parse),
            ids(&item["ids_special"]),
            "{text:?} parsed"
        );
        // Pieces spell a space so, and can't tell the two apart.
        let back = text.replace('\u{2581}', " ");
        assert_eq!(
            tokenizer.decode(&plain),
            back.as_bytes(),
            "{text:?} and back"
        );
    }
}

#[test]
fn prompts_are_the_oracles() {
    for item in theirs("templates.json") {
        let messages = item["messages"].as_array().unwrap();
        let messages: Vec<Message> = messages.iter().map(message).collect();
        let prompt = GEMMA.template().render(&messages, &Map::new(), None);
        // llama.cpp leaves the token that begins texts to its caller.
        assert_eq!(
            prompt.unwrap(),
            format!("<bos>{}", item["prompt"].as_str().unwrap())
        );
    }
    let turn = |role| message(&serde_json::json!({ "role": role, "content": "x" }));
    let twice = [turn("user"), turn("user")];
    let refused = GEMMA.template().render(&twice, &Map::new(), None);
    assert!(refused.unwrap_err().to_string().contains("must alternate"));
}

#[test]
fn the_model_says_what_it_is() {
    let config = GEMMA.config();
    assert_eq!((config.vocab, config.context_tokens), (262_144, 32_768));
    assert_eq!(
        (config.bos, config.eos.as_slice()),
        (Some(2), [1, 106].as_slice())
    );
    let piece = |id| GEMMA.tokenizer().piece(id).unwrap();
    assert_eq!(
        (piece(1), piece(106)),
        (b"<eos>".as_slice(), b"<end_of_turn>".as_slice())
    );
    assert_eq!(
        (piece(494), piece(248)),
        (b" t".as_slice(), b"\n".as_slice())
    );
}

/// llama.cpp's own tokens are forced on us. It quantises activations
/// differently (to Q8_K for some formats), so distributions are compared, not bits.
#[test]
fn distributions_are_close_to_the_oracles() {
    let (mut positions, mut agreeing, mut differing_by) = (0, 0, 0.0);
    for item in theirs("greedy.json") {
        let prompt = item["prompt"].as_str().unwrap();
        let mut tokens = vec![GEMMA.config().bos.unwrap()];
        tokens.extend(GEMMA.tokenizer().encode(prompt, Special::Parse));
        assert_eq!(tokens, ids(&item["prompt_tokens"]));
        let first = tokens.len() - 1;
        tokens.extend(ids(&item["tokens"]));
        tokens.pop();
        let mut cache = GEMMA.new_cache();
        let mut work = [Chunk {
            cache: &mut cache,
            tokens: &tokens,
            logits: Want::All,
        }];
        let output = GEMMA.forward(&mut work).unwrap().remove(0);
        let theirs = item["positions"].as_array().unwrap();
        assert_eq!(output.logits.len() - first, theirs.len());
        for (logits, theirs) in output.logits[first..].iter().zip(theirs) {
            let id = theirs["top5"][0][0].as_u64().unwrap() as u32;
            let logprob = theirs["top5"][0][1].as_f64().unwrap();
            let ours = log_softmax_top(logits, 1, id);
            positions += 1;
            agreeing += u32::from(ours.top[0].0 == id);
            differing_by += (f64::from(ours.chosen) - logprob).abs();
        }
    }
    let (agreeing, mean) = (
        f64::from(agreeing) / f64::from(positions),
        differing_by / f64::from(positions),
    );
    println!("{positions} positions, {agreeing:.4} agree, mean difference {mean:.5}");
    assert!(positions >= 180, "only {positions} positions compared");
    assert!(agreeing >= 0.95, "{agreeing} agree");
    assert!(mean <= 0.08, "mean difference {mean}");
}
