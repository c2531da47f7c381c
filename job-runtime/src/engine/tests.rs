//! The engine, step by step, with a model that recites the alphabet.

mod alphabet;

use std::num::NonZeroU32;

use protocol::Digest;
use protocol::receipt::{Finish, Receipt};
use protocol::sampling::{Sampling, Seed, SeedBy};

use self::alphabet::{Alphabet, BARREN, BLOCK_TOKENS, BREAKS, END, PANICS};
use super::*;
use crate::fixtures;
use crate::inbox::{self, Sender};
use crate::mailbox::{AnswerReader, End, mailbox};
use crate::prefixes::PrefixSharing;

/// An engine that moves only when told to.
struct Bench {
    engine: Engine<Alphabet>,
    inbox: Sender<Submission>,
    notary: Arc<Notary>,
    metrics: Arc<Metrics>,
    requests: u8,
    sharing: PrefixSharing,
    checkpoint_tokens: u32,
    /// Who asks.
    client: Option<protocol::Did>,
}

/// What a reader got.
#[derive(Default)]
struct Read {
    texts: Vec<String>,
    tokens: Vec<Vec<u32>>,
    finishes: Vec<Option<Finish>>,
    logprobs: Vec<(u32, usize)>,
    checkpoints: Vec<Receipt>,
    end: Option<End>,
}

impl Read {
    fn of(reader: &AnswerReader, choices: usize) -> Self {
        let mut read = Read {
            texts: vec![String::new(); choices],
            tokens: vec![Vec::new(); choices],
            finishes: vec![None; choices],
            ..Read::default()
        };
        read.more(reader);
        read
    }

    fn more(&mut self, reader: &AnswerReader) {
        let Some(news) = reader.take() else { return };
        for delta in news.deltas {
            let choice = usize::from(delta.choice);
            self.texts[choice].push_str(&delta.text);
            self.tokens[choice].extend(delta.tokens);
            self.finishes[choice] = self.finishes[choice].or(delta.finish);
            let logprobs = delta.logprobs.iter().map(|l| (l.token, l.offset));
            self.logprobs.extend(logprobs);
            if let Some(checkpoint) = delta.checkpoint {
                self.checkpoint(checkpoint.unverified().clone());
            }
        }
        self.end = news.end.or(self.end.take());
    }

    /// A checkpoint, which must be about exactly what was read until now.
    fn checkpoint(&mut self, receipt: Receipt) {
        for (choice, output) in receipt.output.iter().enumerate() {
            assert_eq!(
                output.text_sha256,
                Digest::of(self.texts[choice].as_bytes())
            );
            assert_eq!(
                output.tokens_sha256,
                Digest::of_tokens(&self.tokens[choice])
            );
            let finish = self.finishes[choice].unwrap_or(Finish::Open);
            assert_eq!(output.finish, finish);
        }
        self.checkpoints.push(receipt);
    }

    /// The receipt, which must be about exactly what was read.
    fn receipt(&self) -> Receipt {
        let receipt = self.end.as_ref().unwrap().receipt.unverified().clone();
        assert_eq!(receipt.output.len(), self.texts.len());
        for (choice, output) in receipt.output.iter().enumerate() {
            assert_eq!(
                output.text_sha256,
                Digest::of(self.texts[choice].as_bytes())
            );
            assert_eq!(
                output.tokens_sha256,
                Digest::of_tokens(&self.tokens[choice])
            );
            assert_eq!(output.tokens as usize, self.tokens[choice].len());
            assert_eq!(
                receipt.trace.is_some(),
                self.tokens.iter().any(|t| !t.is_empty())
            );
            // A choice that never began has no delta of its own.
            assert_eq!(
                output.finish,
                self.finishes[choice].unwrap_or(output.finish)
            );
        }
        receipt
    }

    /// `text(finish)` for each choice.
    fn shown(&self) -> String {
        let receipt = self.receipt();
        let choices = self.texts.iter().zip(&receipt.output);
        let shown: Vec<_> = choices
            .map(|(text, output)| format!("{text}({})", output.finish))
            .collect();
        shown.join(" ")
    }
}

impl Bench {
    fn new() -> Self {
        Self::with(16, 1000)
    }

    fn with(prefill: u32, kv: u32) -> Self {
        let non_zero = |value| NonZeroU32::new(value).unwrap();
        let metrics = Arc::new(Metrics::new("alphabet"));
        let notary = Arc::new(fixtures::notary(&metrics));
        let (inbox, mail) = inbox::inbox();
        let pace = Pace {
            scheduler: SchedulerConfig {
                sequences_max: non_zero(4),
                prefill_tokens_per_step: non_zero(prefill),
                block_tokens: non_zero(BLOCK_TOKENS as u32),
                blocks_max: non_zero(kv.div_ceil(BLOCK_TOKENS as u32)),
            },
            stall: Duration::from_secs(3600),
        };
        let model = Arc::new(Alphabet::new(pace.scheduler.blocks_max.get() as usize));
        Self {
            engine: Engine::new(model, Arc::clone(&notary), Arc::clone(&metrics), pace, mail),
            inbox,
            notary,
            metrics,
            requests: 0,
            sharing: PrefixSharing::Off,
            checkpoint_tokens: 0,
            client: None,
        }
    }

    /// Submits a prompt that goes on by the alphabet.
    fn ask(&mut self, prompt: &str, change: impl FnOnce(&mut Sampling)) -> AnswerReader {
        self.ask_as(prompt, 1000, change)
    }

    fn ask_as(
        &mut self,
        prompt: &str,
        unread: usize,
        change: impl FnOnce(&mut Sampling),
    ) -> AnswerReader {
        self.requests += 1;
        let prompt: Vec<u32> = prompt.bytes().map(u32::from).collect();
        let mut sampling = sampling();
        change(&mut sampling);
        let mut open = fixtures::open(&self.notary, self.requests);
        open.prompt(&prompt);
        open.sampling(sampling.clone());
        let (answer, reader) = mailbox(unread, self.inbox.waker());
        let submission = Submission {
            open,
            prompt,
            sampling,
            grammar: None,
            logprobs: Some(1),
            checkpoint_tokens: self.checkpoint_tokens,
            scope: self.sharing.scope(self.client.as_ref()),
            answer,
            began: Instant::now(),
        };
        assert!(self.inbox.submit(submission).is_ok());
        reader
    }

    /// Takes so many turns, or fewer if nothing can run.
    fn turns(&mut self, most: usize) -> usize {
        for done in 0..most {
            self.engine.turn(None);
            if !self.engine.advance() {
                return done;
            }
        }
        most
    }

    /// Who asks from now on, and shares prefixes with itself.
    fn client(&mut self, seed: u8) {
        self.sharing = PrefixSharing::Client;
        self.client = Some(protocol::SigningKey::from_seed([seed; 32]).did());
    }

    /// KV blocks that neither a sequence nor the prefix cache holds.
    fn free(&self) -> usize {
        self.engine.model.kv_free()
    }

    /// The answer to one prompt, from beginning to end.
    fn answer(&mut self, prompt: &str) -> Read {
        let reader = self.ask(prompt, |_| {});
        self.turns(100);
        Read::of(&reader, 1)
    }
}

fn sampling() -> Sampling {
    Sampling {
        version: protocol::sampling::VERSION.to_owned(),
        temperature: 0.0,
        top_p: 1.0,
        top_k: 0,
        min_p: 0.0,
        repetition_penalty: 1.0,
        presence_penalty: 0.0,
        frequency_penalty: 0.0,
        logit_bias: BTreeMap::new(),
        max_tokens: 100,
        min_tokens: 0,
        stop: Vec::new(),
        stop_token_ids: Vec::new(),
        ignore_eos: false,
        n: 1,
        seed: Seed(1),
        seed_by: SeedBy::Client,
        template_date: None,
        grammar: None,
        grammar_sha256: None,
    }
}

/// The answer to one prompt alone.
fn check(prompt: &str, change: impl FnOnce(&mut Sampling), expected: &str) {
    let mut bench = Bench::new();
    let n = {
        let mut probe = sampling();
        change(&mut probe);
        probe
    };
    let reader = bench.ask(prompt, |sampling| *sampling = n.clone());
    bench.turns(500);
    assert_eq!(Read::of(&reader, n.n.into()).shown(), expected);
    assert!(bench.engine.requests.is_empty() && bench.engine.sequences.is_empty());
    assert_eq!(
        bench.free(),
        bench.engine.model.kv_blocks(),
        "all came back"
    );
}

#[test]
fn an_answer_ends_by_itself_or_by_a_limit() {
    check("v", |_| {}, "wxyz(stop)");
    check("a", |s| s.max_tokens = 3, "bcd(length)");
    check("a", |s| s.stop = vec!["ef".into()], "bcd(stop)");
    check(
        "a",
        |s| s.stop = vec!["eg".into()],
        "bcdefghijklmnopqrstuvwxyz(stop)",
    );
    check(
        "a",
        |s| (s.stop, s.max_tokens) = (vec!["efg".into()], 5),
        "bcdef(length)",
    );
    check(
        "a",
        |s| s.stop_token_ids = vec![u32::from(b'd')],
        "bc(stop)",
    );
    check(
        "x",
        |s| (s.ignore_eos, s.max_tokens) = (true, 5),
        "yzab(length)",
    );
    check(
        "a",
        |s| (s.n, s.max_tokens) = (3, 2),
        "bc(length) bc(length) bc(length)",
    );
}

#[test]
fn min_tokens_puts_off_stop_strings() {
    let stop = |s: &mut Sampling| (s.stop, s.min_tokens) = (vec!["d".into()], 3);
    check("a", stop, "bcdefghijklmnopqrstuvwxyz(stop)");
    let later = |s: &mut Sampling| (s.stop, s.min_tokens) = (vec!["e".into()], 3);
    check("a", later, "bcd(stop)");
}

#[test]
fn the_terminating_id_is_hashed_and_not_read() {
    let mut bench = Bench::new();
    let reader = bench.ask("x", |_| {});
    bench.turns(10);
    let read = Read::of(&reader, 1);
    assert_eq!(read.tokens[0], [u32::from(b'y'), u32::from(b'z'), END]);
    assert_eq!(read.receipt().output[0].tokens, 3);
    assert_eq!(read.end.unwrap().usage.completion, 3);
}

/// The trace that a receipt must state for a prompt and what was read after it.
fn trace(prompt: &str, choices: &[Vec<u32>]) -> Option<Digest> {
    let trace = |output: &Vec<u32>| {
        let mut trace = models::Trace::new();
        let mut read: Vec<u32> = prompt.bytes().map(u32::from).collect();
        for token in output {
            trace.absorb(*token, &alphabet::hidden(&read));
            read.push(*token);
        }
        trace
    };
    models::Trace::claim(&choices.iter().map(trace).collect::<Vec<_>>())
}

#[test]
fn the_trace_binds_each_token_to_the_row_that_it_was_drawn_from() {
    for (prompt, n, prefill, kv) in [("u", 1, 16, 1000), ("abcdef", 3, 4, 1000), ("a", 2, 3, 60)] {
        let mut bench = Bench::with(prefill, kv);
        let others = ["c", "d", "e"].map(|prompt| bench.ask(prompt, |_| {}));
        let reader = bench.ask(prompt, |s| s.n = n);
        bench.turns(500);
        let read = Read::of(&reader, n.into());
        assert_eq!(
            read.receipt().trace,
            trace(prompt, &read.tokens),
            "{prompt}"
        );
        let preempted = bench.metrics.num_preemptions_total.get();
        assert_eq!(preempted > 0, kv == 60, "{preempted} preemptions");
        drop(others);
    }
    let mut bench = Bench::new();
    let reader = bench.ask("a", |_| {});
    reader.canceller().cancel();
    bench.turns(1);
    assert_eq!(
        Read::of(&reader, 1).receipt().trace,
        None,
        "nothing was drawn"
    );
}

#[test]
fn logprobs_come_with_the_text_that_they_are_about() {
    let mut bench = Bench::new();
    let reader = bench.ask("a", |s| s.stop = vec!["ef".into()]);
    bench.turns(4);
    let mut read = Read::of(&reader, 1);
    let drawn = |letter: u8, offset| (u32::from(letter), offset);
    assert_eq!(read.texts[0], "bcd");
    let until_d = vec![drawn(b'b', 0), drawn(b'c', 1), drawn(b'd', 2)];
    assert_eq!(read.logprobs, until_d, "e may begin the stop string");
    bench.turns(10);
    read.more(&reader);
    assert_eq!(read.logprobs, until_d, "the stop string has none");
    assert_eq!(read.tokens[0].len(), 5, "its ids are hashed and shown");
    read.receipt();
}

#[test]
fn requests_run_together_as_they_run_alone() {
    for (prefill, kv) in [(16, 1000), (1, 1000), (3, 68)] {
        let mut bench = Bench::with(prefill, kv);
        let prompts = [
            "long prompt, much longer than one step k",
            "x",
            "abcdef",
            "mnop",
            "q",
            "r",
        ];
        let readers: Vec<_> = prompts.map(|prompt| bench.ask(prompt, |_| {})).into();
        bench.turns(2000);
        let shown: Vec<_> = readers.iter().map(|r| Read::of(r, 1).shown()).collect();
        let alone = [
            "lmnopqrstuvwxyz",
            "yz",
            "ghijklmnopqrstuvwxyz",
            "qrstuvwxyz",
            "rstuvwxyz",
            "stuvwxyz",
        ];
        assert_eq!(
            shown,
            alone.map(|text| format!("{text}(stop)")),
            "{prefill} {kv}"
        );
        let preempted = bench.metrics.num_preemptions_total.get();
        assert_eq!(preempted > 0, kv == 68, "{preempted} preemptions");
    }
}

#[test]
fn choices_share_one_prefill() {
    let mut bench = Bench::new();
    let reader = bench.ask("a prompt of some tokens w", |s| s.n = 4);
    bench.turns(100);
    assert_eq!(Read::of(&reader, 4).shown(), ["xyz(stop)"; 4].join(" "));
    assert_eq!(bench.metrics.prompt_tokens_total.get(), 25);
    assert_eq!(bench.engine.model.tokens_read(), 25 + 4 * 3);
}

#[test]
fn cancelling_frees_at_once_and_signs() {
    let mut bench = Bench::new();
    let reader = bench.ask("a", |s| s.stop = vec!["fgh".into()]);
    let other = bench.ask("v", |_| {});
    bench.turns(5);
    let mut read = Read::of(&reader, 1);
    assert_eq!(read.texts[0], "bcde", "f is held back");
    assert!(reader.canceller().cancel());
    bench.turns(1);
    read.more(&reader);
    assert_eq!(read.shown(), "bcdef(cancelled)");
    assert_eq!(read.end.unwrap().cut, Some(Cut::Cancelled));
    assert_eq!(bench.engine.sequences.len(), 0, "v ended in its 5th step");
    assert!(!reader.canceller().cancel(), "it has ended");
    assert_eq!(Read::of(&other, 1).shown(), "wxyz(stop)");
}

#[test]
fn a_reader_that_leaves_cancels() {
    let mut bench = Bench::new();
    drop(bench.ask("a", |_| {}));
    bench.turns(1);
    assert!(bench.engine.requests.is_empty());
    let reader = bench.ask("y", |_| {});
    bench.turns(9);
    let receipt = Read::of(&reader, 1).receipt();
    assert_eq!(receipt.seq, 1, "the cancelled one has a receipt too");
}

#[test]
fn a_slow_reader_sits_out_and_loses_nothing() {
    let mut bench = Bench::new();
    let slow = bench.ask_as("a", 4, |_| {});
    let quick = bench.ask("a", |_| {});
    bench.turns(100);
    let mut read = Read::of(&slow, 1);
    assert_eq!(read.texts[0], "bcde", "no more than it may leave unread");
    assert_eq!(
        Read::of(&quick, 1).shown(),
        "bcdefghijklmnopqrstuvwxyz(stop)"
    );
    while read.end.is_none() {
        assert!(bench.turns(100) <= 4, "it fills up again");
        read.more(&slow);
    }
    assert_eq!(read.shown(), "bcdefghijklmnopqrstuvwxyz(stop)");
}

#[test]
fn a_reader_that_stalls_is_cut() {
    let mut bench = Bench::new();
    bench.engine.pace.stall = Duration::ZERO;
    let reader = bench.ask_as("a", 4, |_| {});
    bench.turns(100);
    let read = Read::of(&reader, 1);
    assert_eq!(read.shown(), "bcde(deadline)");
    assert_eq!(read.end.unwrap().cut, Some(Cut::Stalled));
}

#[test]
fn a_failure_ends_only_the_request_that_it_names() {
    let mut bench = Bench::new();
    let sound = bench.ask("v", |_| {});
    let broken = bench.ask(&format!("ab{BREAKS}"), |_| {});
    bench.turns(20);
    let read = Read::of(&broken, 1);
    assert_eq!(read.shown(), "(error)");
    assert_eq!(read.end.unwrap().cut, Some(Cut::Failed));
    assert_eq!(Read::of(&sound, 1).shown(), "wxyz(stop)");
}

#[test]
fn a_request_that_cannot_be_drawn_from_ends_with_all_its_choices() {
    let mut bench = Bench::new();
    let sound = bench.ask("v", |_| {});
    let barren = bench.ask("|", |s| s.n = 2);
    bench.turns(20);
    let shown = Read::of(&barren, 2).shown();
    assert_eq!(shown, ["}~(error)"; 2].join(" "), "both in one step");
    assert_eq!(Read::of(&sound, 1).shown(), "wxyz(stop)");
    assert_eq!(BARREN, '~');
}

#[test]
fn a_panic_ends_the_step_and_not_the_engine() {
    let mut bench = Bench::new();
    let panicking = bench.ask(&format!("ab{PANICS}"), |s| s.n = 2);
    bench.turns(20);
    assert_eq!(Read::of(&panicking, 2).shown(), "(error) (error)");
    let next = bench.ask("v", |_| {});
    bench.turns(20);
    assert_eq!(Read::of(&next, 1).shown(), "wxyz(stop)");
}

#[test]
fn the_end_of_a_drain_cuts_what_runs_and_what_comes() {
    let mut bench = Bench::new();
    let running = bench.ask("a", |_| {});
    bench.turns(2);
    bench.inbox.cut();
    let late = bench.ask("a", |_| {});
    bench.turns(2);
    assert_eq!(Read::of(&running, 1).shown(), "bc(deadline)");
    assert_eq!(Read::of(&late, 1).shown(), "(deadline)");
    bench.inbox.close();
    assert!(!bench.engine.turn(None), "nothing is left to do");
}

#[test]
fn a_prefix_is_computed_once_for_each_client_and_changes_nothing() {
    let mut bench = Bench::new();
    bench.client(1);
    let cold = bench.answer("the same beginning, a");
    let read = bench.engine.model.tokens_read();
    let warm = bench.answer("the same beginning, a");
    let computed = bench.engine.model.tokens_read() - read;
    // 21 tokens of prompt, five full blocks, and the last of 26 drawn is never read.
    assert_eq!(computed, 1 + 25);
    let usage = |read: &Read| read.end.as_ref().unwrap().usage;
    assert_eq!((usage(&cold).cached, usage(&warm).cached), (0, 20));
    assert_eq!(usage(&warm).prompt, 21);
    let (cold, warm) = (cold.receipt(), warm.receipt());
    assert_eq!((&cold.output, cold.trace), (&warm.output, warm.trace));
    assert_eq!(bench.metrics.prefix_cache_queries_total.get(), 42);
    assert_eq!(bench.metrics.prefix_cache_hits_total.get(), 20);

    bench.client(2);
    let other = bench.answer("the same beginning, a");
    assert_eq!(usage(&other).cached, 0, "it is another client's");
    bench.client = None;
    for _ in 0..2 {
        let unsigned = bench.answer("the same beginning, a");
        assert_eq!(usage(&unsigned).cached, 0, "nobody knows whose it is");
    }
    bench.sharing = PrefixSharing::All;
    assert_eq!(usage(&bench.answer("the same beginning, a")).cached, 0);
    bench.client(3);
    bench.sharing = PrefixSharing::All;
    assert_eq!(usage(&bench.answer("the same beginning, a")).cached, 20);
}

#[test]
fn a_prefix_is_shared_while_it_is_in_use_and_its_last_token_computed() {
    let mut bench = Bench::new();
    bench.client(1);
    let first = bench.ask("abcdefgh", |_| {});
    bench.turns(2);
    let before = bench.free();
    let second = bench.ask("abcdefgh", |s| s.n = 2);
    bench.turns(1);
    // The first goes on in its third block; the second shares one of the two full ones
    // and computes the other again, for the row to draw from.
    assert_eq!(before - bench.free(), 1);
    bench.turns(100);
    let (first, second) = (Read::of(&first, 1), Read::of(&second, 2));
    assert_eq!(second.end.as_ref().unwrap().usage.cached, 4);
    assert_eq!(first.receipt().output[0], second.receipt().output[1]);
    assert_eq!(second.receipt().trace, trace("abcdefgh", &second.tokens));
}

#[test]
fn kept_prefixes_give_way_when_blocks_are_wanted() {
    let mut bench = Bench::with(16, 80);
    bench.client(1);
    for letter in "klmnopqrst".chars() {
        let prompt = format!("{letter} is the letter, {letter}");
        let read = bench.answer(&prompt);
        assert_eq!(read.receipt().trace, trace(&prompt, &read.tokens));
    }
    assert_eq!(bench.metrics.num_preemptions_total.get(), 0);
    assert!(bench.free() < 3, "what isn't wanted is kept");
    assert_eq!(
        bench.metrics.kv_cache_usage_perc.get(),
        0.0,
        "by no sequence"
    );
    let warm = bench.answer("t is the letter, t");
    assert_eq!(warm.end.unwrap().usage.cached, 16, "the latest is there");
    let cold = bench.answer("k is the letter, k");
    assert_eq!(cold.end.unwrap().usage.cached, 0, "the oldest isn't");
}

#[test]
fn a_preempted_sequence_goes_on_from_what_is_kept() {
    let mut bench = Bench::with(16, 88);
    bench.client(1);
    let prompts = [
        "0123456789 a",
        "9876543210 b",
        "5678901234 c",
        "3210987654 d",
    ];
    let readers = prompts.map(|prompt| bench.ask(prompt, |_| {}));
    bench.turns(1000);
    assert!(bench.metrics.num_preemptions_total.get() > 0);
    for (prompt, reader) in prompts.iter().zip(&readers) {
        let read = Read::of(reader, 1);
        assert_eq!(read.receipt().output[0].finish, Finish::Stop);
        assert_eq!(read.receipt().trace, trace(prompt, &read.tokens));
        assert_eq!(read.end.unwrap().usage.cached, 0, "its own work");
    }
}

#[test]
fn a_gone_client_gets_at_most_two_more_tokens_and_its_blocks_are_free() {
    for n in [1, 3] {
        let mut bench = Bench::new();
        let all = bench.free();
        let reader = bench.ask("some prompt a", |s| s.n = n);
        bench.turns(3);
        let mut read = Read::of(&reader, n.into());
        let seen = read.tokens[0].len();
        assert!(bench.free() < all);
        reader.canceller().cancel();
        bench.turns(10);
        read.more(&reader);
        let receipt = read.receipt();
        assert!(receipt.output[0].tokens as usize <= seen + 2);
        assert_eq!(receipt.output[0].finish, Finish::Cancelled);
        assert_eq!(bench.free(), all);
        assert_eq!(bench.metrics.kv_cache_usage_perc.get(), 0.0);
    }
}

#[test]
fn a_step_without_blocks_costs_nobody_the_answer() {
    let mut bench = Bench::new();
    let readers = ["a", "b", "c"].map(|prompt| bench.ask(prompt, |_| {}));
    bench.turns(2);
    bench.engine.model.run_short(2);
    bench.turns(300);
    assert_eq!(bench.metrics.num_preemptions_total.get(), 2);
    for (reader, letter) in readers.iter().zip("abc".chars()) {
        let read = Read::of(reader, 1);
        assert_eq!(read.receipt().output[0].finish, Finish::Stop);
        assert_eq!(
            read.receipt().trace,
            trace(&letter.to_string(), &read.tokens)
        );
    }
}

#[test]
fn checkpoints_state_what_was_read_until_then() {
    for (n, often) in [(1, false), (1, true), (3, false), (3, true)] {
        let mut bench = Bench::new();
        bench.checkpoint_tokens = 7;
        let stop = vec!["kl".to_owned(), "mo".to_owned()];
        let reader = bench.ask("a", |s| (s.n, s.stop, s.temperature) = (n, stop, 3.0));
        let mut read = Read::of(&reader, n.into());
        while bench.turns(if often { 1 } else { 100 }) > 0 {
            read.more(&reader);
        }
        let receipt = read.receipt();
        let drawn: u32 = receipt.output.iter().map(|output| output.tokens).sum();
        let parts: Vec<_> = read
            .checkpoints
            .iter()
            .map(|receipt| receipt.part)
            .collect();
        // The last one may have been due when the request ended.
        assert!(
            [drawn / 7, (drawn - 1) / 7].contains(&(parts.len() as u32)),
            "{drawn} {parts:?}"
        );
        assert_eq!(parts, (1..=parts.len() as u32).collect::<Vec<_>>());
        let all = read.checkpoints.iter().chain([&receipt]);
        let numbers: Vec<_> = all.map(|receipt| receipt.seq).collect();
        assert_eq!(numbers, (0..numbers.len() as u64).collect::<Vec<_>>());
        let first = &read.checkpoints[0];
        let so_far: Vec<_> = (first.output.iter().zip(&read.tokens))
            .map(|(output, tokens)| tokens[..output.tokens as usize].to_vec())
            .collect();
        assert_eq!(first.trace, trace("a", &so_far));
    }
}
