//! Clients and what goes wrong with them, drawn from a seed.

use tokenmill_scheduler::{SequenceSpec, Tick, TokenId};

/// Vocabulary of the simulated model; the last id is its stop token.
pub(crate) const VOCAB_SIZE: TokenId = 32_000;

/// xorshift64* (Vigna, "An experimental exploration of Marsaglia's xorshift generators, scrambled").
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        // Spreads small seeds; zero would be a fixed point.
        Random(seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15).max(1))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Uniform in `0..bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// Uniform in `(0, 1]`.
    fn unit(&mut self) -> f64 {
        ((self.next() >> 11) + 1) as f64 / (1u64 << 53) as f64
    }

    /// True `per_mille` times out of 1000.
    pub(crate) fn happens(&mut self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }
}

/// What goes wrong, each in times out of 1000. A seed leaves some of them out altogether, since
/// faults can hide each other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Faults {
    /// A client leaves before its completion ends.
    pub(crate) leaving: u64,
    /// The clock jumps ahead, per step.
    pub(crate) clock_jump: u64,
    /// A prompt begins like others.
    pub(crate) equal_prefix: u64,
    /// An arrival brings many more at the same instant.
    pub(crate) burst: u64,
    /// A request has a deadline.
    pub(crate) deadline: u64,
    /// A prompt nearly as long as the model allows.
    pub(crate) longest_prompt: u64,
    /// The logits of a sequence are not numbers, per sampled token.
    pub(crate) failure: u64,
}

impl Faults {
    fn draw(random: &mut Random) -> Self {
        let mut often = |per_mille| if random.happens(750) { per_mille } else { 0 };
        Faults {
            leaving: often(60),
            clock_jump: often(1),
            equal_prefix: often(400),
            burst: often(5),
            deadline: often(50),
            longest_prompt: often(2),
            failure: often(1),
        }
    }
}

/// One client.
pub(crate) struct Request {
    pub(crate) arrival: u64,
    pub(crate) spec: SequenceSpec,
    /// When the client leaves.
    pub(crate) leaves: Option<u64>,
}

/// An endless stream of requests.
pub(crate) struct Trace {
    random: Random,
    pub(crate) faults: Faults,
    /// Beginnings that prompts share.
    prefixes: Vec<Vec<TokenId>>,
    mean_gap_ns: f64,
    max_model_len: u64,
    clock: u64,
    burst_left: u64,
}

impl Trace {
    /// `rate`: requests per second, bursts not counted.
    pub(crate) fn new(seed: u64, rate: u64, max_model_len: u32) -> Self {
        let mut random = Random::new(seed);
        let faults = Faults::draw(&mut random);
        let mut prefix = |index: u64| {
            let len = (64 + index * 24).min(u64::from(max_model_len) / 3);
            (0..len).map(|_| random.below(u64::from(VOCAB_SIZE)) as TokenId).collect()
        };
        Trace {
            prefixes: (0..16).map(&mut prefix).collect(),
            random,
            faults,
            mean_gap_ns: 1e9 / rate as f64,
            max_model_len: u64::from(max_model_len),
            clock: 0,
            burst_left: 0,
        }
    }

    /// The next client, in order of arrival.
    pub(crate) fn request(&mut self) -> Request {
        if self.burst_left > 0 {
            self.burst_left -= 1;
        } else {
            self.clock += (-self.random.unit().ln() * self.mean_gap_ns) as u64;
            if self.random.happens(self.faults.burst) {
                self.burst_left = 20 + self.random.below(100);
            }
        }
        let (arrival, random) = (self.clock, &mut self.random);
        let prompt = prompt(random, &self.faults, &self.prefixes, self.max_model_len);
        let seconds = 1_000_000_000;
        let spec = SequenceSpec {
            prompt,
            max_tokens: 1 + random.below(128) as u32,
            stop_tokens: vec![VOCAB_SIZE - 1],
            priority: random.below(3) as i64,
            deadline: random
                .happens(self.faults.deadline)
                .then(|| Tick(arrival + seconds / 2 + random.below(4 * seconds))),
            ..SequenceSpec::default()
        };
        let leaves =
            random.happens(self.faults.leaving).then(|| arrival + random.below(2 * seconds));
        Request { arrival, spec, leaves }
    }
}

/// Lengths are uniform in their logarithm, from 8 to 512 tokens.
fn prompt(
    random: &mut Random,
    faults: &Faults,
    prefixes: &[Vec<TokenId>],
    longest: u64,
) -> Vec<TokenId> {
    let mut tokens = match random.happens(faults.equal_prefix) {
        true => prefixes[random.below(prefixes.len() as u64) as usize].clone(),
        false => Vec::new(),
    };
    let scale = 8u64 << random.below(6);
    let len = match random.happens(faults.longest_prompt) {
        true => longest,
        false => scale + random.below(scale),
    };
    tokens.extend((0..len).map(|_| random.below(u64::from(VOCAB_SIZE)) as TokenId));
    tokens.truncate(longest as usize - 1);
    tokens
}
