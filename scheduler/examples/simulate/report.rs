//! What a simulation measured.

use tokenmill_scheduler::{Event, FinishReason, Load};

/// A first token later than this does not count as good service.
const GOOD_TTFT_NS: u64 = 1_000_000_000;

/// Sums over a run.
#[derive(Default)]
pub(crate) struct Report {
    /// Hash of all events in order.
    digest: u64,
    /// Time to the first token of every sequence that had one.
    ttft_ns: Vec<u64>,
    good: u64,
    finished: [u64; 6],
    pub(crate) accepted: u64,
    pub(crate) refused: u64,
    pub(crate) steps: u64,
    pub(crate) planned_sequences: u64,
    /// Wall time inside `schedule` and `commit`.
    pub(crate) scheduler_ns: u64,
}

impl Report {
    fn mix(&mut self, value: u64) {
        self.digest = (self.digest ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23);
    }

    pub(crate) fn record_event(&mut self, request: u64, event: &Event) {
        self.mix(request);
        match event {
            Event::Admitted { cached_tokens, .. } => self.mix(u64::from(*cached_tokens) << 32),
            Event::Token(_, token) => self.mix(u64::from(*token)),
            Event::Finished(_, reason) => {
                self.mix(1 << 40 | *reason as u64);
                self.finished[*reason as usize] += 1;
            }
        }
    }

    pub(crate) fn record_first_token(&mut self, ttft_ns: u64) {
        self.ttft_ns.push(ttft_ns);
    }

    /// A sequence ran to its end; `ttft_ns` of its first token.
    pub(crate) fn record_completion(&mut self, ttft_ns: u64) {
        self.good += u64::from(ttft_ns <= GOOD_TTFT_NS);
    }

    pub(crate) fn num_finished(&self) -> u64 {
        self.finished.iter().sum()
    }

    /// `now`: simulated time; `cpu_ns`: CPU time of the run, generator included.
    pub(crate) fn print(&mut self, load: &Load, now: u64, cpu_ns: Option<u64>) {
        self.ttft_ns.sort_unstable();
        let seconds = now as f64 / 1e9;
        let steps = self.steps.max(1);
        println!("digest             {:016x}", self.digest);
        println!("sequences          {} accepted, {} refused", self.accepted, self.refused);
        let of = |reason: FinishReason| self.finished[reason as usize];
        println!(
            "ended              {} stop, {} length, {} cancelled, {} deadline, {} failed",
            of(FinishReason::Stop),
            of(FinishReason::Length),
            of(FinishReason::Cancelled),
            of(FinishReason::Deadline),
            of(FinishReason::Failed),
        );
        println!("steps              {}", self.steps);
        println!("sequences per step {:.1}", self.planned_sequences as f64 / steps as f64);
        println!("scheduler          {} ns wall per step", self.scheduler_ns / steps);
        if let Some(cpu_ns) = cpu_ns {
            println!("all CPU            {} ns per step, generator included", cpu_ns / steps);
        }
        println!("simulated time     {seconds:.1} s");
        println!(
            "goodput            {:.2} sequences/s (TTFT up to 1 s)",
            self.good as f64 / seconds
        );
        println!("tokens             {:.0} sampled/s", load.generated_tokens as f64 / seconds);
        for per_mille in [500, 900, 990, 999, 1000] {
            println!("TTFT p{:<12} {:.1} ms", per_mille as f64 / 10.0, self.ttft_ms(per_mille));
        }
        println!("preemptions        {}", load.preemptions);
        println!("recomputed tokens  {}", load.recomputed_tokens);
        println!("prompt tokens      {}, {} cached", load.prompt_tokens, load.cached_tokens);
        println!("evictions          {}", load.evictions);
    }

    fn ttft_ms(&self, per_mille: usize) -> f64 {
        let last = self.ttft_ns.len().saturating_sub(1);
        self.ttft_ns.get(last * per_mille / 1000).map_or(0.0, |ns| *ns as f64 / 1e6)
    }
}
