//! The loop around [`EngineCore`]: clock, submissions, and the boundary that panics do not cross.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use crate::core::{EngineCore, EngineFault, Submission};
use crate::executor::DeviceTimes;
use crate::handle::Shared;
use crate::stats::StepPart;

/// Runs until every handle is gone and nothing is left to do, or the engine cannot go on.
///
/// On the second path `alive` is false before the first stream ends, so who reads `Lost` finds the
/// engine dead.
pub(crate) fn run(mut core: EngineCore, commands: Receiver<Submission>, shared: &Arc<Shared>) {
    let result = catch_unwind(AssertUnwindSafe(|| drive(&mut core, &commands, shared)));
    shared.alive.store(false, Ordering::Release);
    let reason = match result {
        Ok(Ok(())) => return,
        Ok(Err(fault)) => fault.to_string(),
        Err(payload) => format!("panic: {}", panic_message(payload.as_ref())),
    };
    tracing::error!(reason, live = core.live(), "the engine stopped");
    // Whatever the panic left behind must not unwind out of the thread either.
    let cleanup = catch_unwind(AssertUnwindSafe(move || {
        core.abandon();
        // Submissions still in the channel lose their senders here, which reads as `Lost`.
        drop(commands);
        drop(core);
    }));
    if cleanup.is_err() {
        tracing::error!("the engine panicked again while its state was dropped");
    }
}

fn panic_message(payload: &(dyn std::any::Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

fn drive(
    core: &mut EngineCore,
    commands: &Receiver<Submission>,
    shared: &Shared,
) -> Result<(), EngineFault> {
    loop {
        let mut watch = Stopwatch::start();
        let runs = core.schedule(shared.now());
        watch.lap(StepPart::Schedule);
        if runs {
            core.launch()?;
        }
        watch.lap(StepPart::Launch);
        let delivered = core.deliver();
        watch.lap(StepPart::Emit);
        let applied = apply_pending(core, commands, shared);
        watch.lap(StepPart::Submit);
        if runs {
            watch.device(core.collect()?);
            core.commit()?;
            watch.lap(StepPart::Commit);
            core.publish();
            shared.stats.observe_step(core.plan().tokens.len(), &watch.parts);
            continue;
        }
        core.publish();
        if core.live() == 0 {
            match commands.recv() {
                Ok(submission) => core.apply(submission, shared.now()),
                Err(_) => return Ok(()), // Every handle is gone.
            }
        } else if delivered == 0 && applied == 0 {
            return Err(EngineFault::Stalled { live: core.live() });
        }
    }
}

fn apply_pending(core: &mut EngineCore, commands: &Receiver<Submission>, shared: &Shared) -> usize {
    let mut applied = 0;
    loop {
        match commands.try_recv() {
            Ok(submission) => core.apply(submission, shared.now()),
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => return applied,
        }
        applied += 1;
    }
}

/// Times the parts of a step.
struct Stopwatch {
    last: Instant,
    parts: [Duration; StepPart::ALL.len()],
}

impl Stopwatch {
    fn start() -> Self {
        Self { last: Instant::now(), parts: Default::default() }
    }

    fn lap(&mut self, part: StepPart) {
        let now = Instant::now();
        self.parts[part as usize] = now - self.last;
        self.last = now;
    }

    /// Ends the wait for the device. What it did of its work inside the launch is told apart from that.
    fn device(&mut self, times: DeviceTimes) {
        self.lap(StepPart::Collect);
        let DeviceTimes { prepare, forward, sample } = times;
        self.parts[StepPart::Prepare as usize] = prepare;
        self.parts[StepPart::Forward as usize] = forward;
        self.parts[StepPart::Sample as usize] = sample;
        let launch = &mut self.parts[StepPart::Launch as usize];
        *launch = launch.saturating_sub(prepare + forward + sample);
    }
}
