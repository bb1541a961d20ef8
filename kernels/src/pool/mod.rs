//! A fork-join pool for kernels: a fork and join of a hot pool costs about a microsecond.
//!
//! A job is a number of parts and one closure. Each thread has a contiguous range of the parts and claims those in
//! order, then helps the others out with theirs. The same part of like jobs is therefore nearly always computed on
//! the same core: what one kernel wrote there the next one finds in its cache, and cores that share no cache (most of a
//! server's) send each other little. A thread that the operating system has taken off its core delays at most the
//! part that it holds. Idle workers spin for a few tens of microseconds, the gap between two kernels of a step, and
//! then park. The calling thread takes part. The pool deliberately knows nothing of priorities or nesting: a `run`
//! inside a `run` executes its parts on the thread that asked.

mod affinity;
mod shared_mut;

use std::any::Any;
use std::cell::UnsafeCell;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub use shared_mut::SharedMut;

/// How long an idle worker spins before it parks: longer than the gap between two kernels, shorter
/// than a time slice.
const SPIN: Duration = Duration::from_micros(40);

/// Spins between two looks at the clock, or before the waiting caller starts to yield its core.
const SPINS_PER_LOOK: u32 = 64;

/// How often the waiting caller spins before it yields: some tens of microseconds.
const SPINS_BEFORE_YIELD: u32 = 2000;

/// A pool of threads that run the parts of one job at a time.
pub struct ThreadPool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

impl ThreadPool {
    /// A pool of `threads` threads, the caller of [`run`](Self::run) included: `threads - 1` are
    /// started. Zero means one. The operating system places them.
    ///
    /// # Panics
    /// When the operating system refuses to start a thread.
    pub fn new(threads: usize) -> ThreadPool {
        ThreadPool::start(threads, &[])
    }

    /// As [`new`](Self::new), each worker bound to a processor of its own, counted from the second
    /// of those the process may use; the thread that calls `run` binds itself to the first with
    /// [`bind_caller`](Self::bind_caller). A woken worker is then never queued behind the very
    /// thread that waits for it. Meant for processors that nobody else uses; where the system
    /// refuses, the workers float.
    ///
    /// # Panics
    /// When the operating system refuses to start a thread.
    pub fn bound(threads: usize) -> ThreadPool {
        ThreadPool::start(threads, &affinity::processors())
    }

    /// Binds the calling thread to the first processor that the process may use; false when the
    /// system refuses.
    pub fn bind_caller(&self) -> bool {
        affinity::processors().first().is_some_and(|&processor| affinity::bind(processor))
    }

    /// Worker `index` is bound to the `index`-th of `processors`, if there are any, counted round.
    fn start(threads: usize, processors: &[usize]) -> ThreadPool {
        let threads = threads.max(1);
        let shared = Arc::new(Shared::new(threads));
        let workers = (1..threads)
            .map(|index| {
                let shared = Arc::clone(&shared);
                let processor = processors.iter().copied().cycle().nth(index);
                let work = move || {
                    // A worker that may not be bound floats.
                    let _ = processor.map(affinity::bind);
                    shared.work(index);
                };
                std::thread::Builder::new()
                    .name(format!("kernel-{index}"))
                    .spawn(work)
                    .expect("the operating system starts a kernel thread")
            })
            .collect();
        ThreadPool { shared, workers }
    }

    /// Number of threads, the caller included.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `body(part)` once for each part in `0..parts`, on the caller and the workers, and
    /// returns when all are done. Each thread starts with a range of its own, [`part_range`], the caller
    /// with the first. A call from inside a part, or while another thread uses the pool, runs its parts on the calling
    /// thread.
    ///
    /// # Panics
    /// When a part panics, with the payload of the first one, after every part has ended.
    pub fn run(&self, parts: usize, body: &(dyn Fn(usize) + Sync)) {
        self.run_on(parts, &|_, part| body(part));
    }

    /// As [`run`](Self::run), calling `body(thread, part)`: no two parts run on the same `thread` at once.
    ///
    /// # Panics
    /// As [`run`](Self::run), and with 2^24 parts or more.
    pub fn run_on(&self, parts: usize, body: &(dyn Fn(usize, usize) + Sync)) {
        let shared = &*self.shared;
        if parts <= 1 || self.workers.is_empty() || shared.busy.swap(true, Ordering::Acquire) {
            return (0..parts).for_each(|part| body(0, part));
        }
        assert!(parts < 1 << PART_BITS, "{parts} parts of one job");
        let before = shared.done.0.load(Ordering::Relaxed);
        let ticket = shared.publish(parts, body);
        let ran = shared.run_parts(ticket, 0);
        shared.wait_until_done(before.wrapping_add(parts - ran));
        let panic = shared.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        shared.busy.store(false, Ordering::Release);
        if let Some(payload) = panic {
            resume_unwind(payload);
        }
    }

    /// Splits `data` into chunks of `chunk_len` elements (the last may be shorter) and calls
    /// `body(index, chunk)` once for each, in parallel.
    ///
    /// # Panics
    /// When `chunk_len` is zero, and as [`run`](Self::run).
    pub fn for_each_chunk_mut<T: Send>(
        &self,
        data: &mut [T],
        chunk_len: usize,
        body: &(dyn Fn(usize, &mut [T]) + Sync),
    ) {
        assert!(chunk_len > 0, "a chunk has at least one element");
        let len = data.len();
        let shared = SharedMut::new(data);
        self.run(len.div_ceil(chunk_len), &|index| {
            let start = index * chunk_len;
            // SAFETY: chunks of different indices do not overlap and `run` hands out each index
            // once.
            let chunk = unsafe { shared.slice(start..len.min(start + chunk_len)) };
            body(index, chunk);
        });
    }

    /// Calls `body(range)` for contiguous ranges that cover `0..len`, one range per thread but none
    /// shorter than
    /// `min_len` (unless `len` is): small jobs stay on the caller.
    ///
    /// # Panics
    /// As [`run`](Self::run).
    pub fn for_each_range(&self, len: usize, min_len: usize, body: &(dyn Fn(Range<usize>) + Sync)) {
        let parts = self.threads().min(len / min_len.max(1)).max(1);
        self.run(parts, &|part| body(part_range(len, parts, part)));
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        self.shared.stop();
        for worker in self.workers.drain(..) {
            // A worker catches the panics of parts, so it has none of its own to report.
            let _ = worker.join();
        }
    }
}

impl std::fmt::Debug for ThreadPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ThreadPool").field("threads", &self.threads()).finish()
    }
}

/// The `part`-th of `parts` contiguous ranges that cover `0..len`; their lengths differ by at most
/// one.
pub fn part_range(len: usize, parts: usize, part: usize) -> Range<usize> {
    let (each, rest) = (len / parts, len % parts);
    let start = part * each + part.min(rest);
    start..start + each + usize::from(part < rest)
}

/// The closure of the current job, its lifetime erased.
type Body = *const (dyn Fn(usize, usize) + Sync);

/// Bits of a [`Ticket`] that count parts.
const PART_BITS: u32 = 24;

/// A number of parts and the job they belong to, in one word: the job's number modulo 2^40, then the parts. A word
/// would be taken for one of a later job after 2^40 jobs in which it was never touched: months of nothing but jobs that
/// leave a thread without a part.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Ticket(u64);

impl Ticket {
    fn new(job: u64, parts: usize) -> Ticket {
        Ticket(job << PART_BITS | parts as u64)
    }

    fn parts(self) -> usize {
        (self.0 & ((1 << PART_BITS) - 1)) as usize
    }

    fn job(self) -> u64 {
        self.0 >> PART_BITS
    }

    /// Of a word of claims: how many were claimed of a job; `None` when the word is of a later one.
    fn claimed_of(self, job: Ticket) -> Option<usize> {
        let ahead =
            (self.0 >> PART_BITS << PART_BITS).wrapping_sub(job.0 >> PART_BITS << PART_BITS);
        match ahead {
            0 => Some(self.parts()),
            1..=0x7fff_ffff_ffff_ffff => None,
            _ => Some(0),
        }
    }
}

/// What the caller and the workers share. Words that several threads write lie on cache lines of their own.
struct Shared {
    /// What the workers are told.
    published: CacheLine<Published>,
    /// For each thread, how many of its parts were claimed; a word of an earlier job counts as none. A successful
    /// exchange is the licence to read the job's body.
    claimed: Box<[CacheLine<AtomicU64>]>,
    /// Parts that workers have run, of all jobs together.
    done: CacheLine<AtomicUsize>,
    busy: AtomicBool,
    stopped: AtomicBool,
    /// Workers that are parked or about to.
    parked: AtomicUsize,
    park: Mutex<()>,
    wake: Condvar,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

/// A job, in one cache line: a core that shares no cache with the caller's fetches it once.
struct Published {
    /// Its number and its parts.
    ticket: AtomicU64,
    body: UnsafeCell<Body>,
}

#[repr(align(128))]
struct CacheLine<T>(T);

// SAFETY: the body of `published` is written only by the thread that holds `busy`, while every part of the job before has ended and none
// of the next can be claimed, and read only by threads that hold a claim; the claim follows a load that synchronises
// with the publishing store. The rest is `Sync`.
unsafe impl Sync for Shared {}
// SAFETY: the pointer in `published` is used only as described for `Sync`; the closure it points to is
// `Sync`.
unsafe impl Send for Shared {}

impl Shared {
    fn new(threads: usize) -> Shared {
        let nothing: &'static (dyn Fn(usize, usize) + Sync) = &|_, _| {};
        Shared {
            published: CacheLine(Published {
                ticket: AtomicU64::new(0),
                body: UnsafeCell::new(nothing),
            }),
            claimed: (0..threads).map(|_| CacheLine(AtomicU64::new(0))).collect(),
            done: CacheLine(AtomicUsize::new(0)),
            busy: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            parked: AtomicUsize::new(0),
            park: Mutex::new(()),
            wake: Condvar::new(),
            panic: Mutex::new(None),
        }
    }

    /// Makes a job claimable and wakes parked workers when there are any. The caller holds `busy`.
    fn publish(&self, parts: usize, body: &(dyn Fn(usize, usize) + Sync)) -> Ticket {
        // SAFETY: only the lifetime changes. Every use of the pointer ends before `run_on` returns:
        // uses happen under a claim, and `run_on` waits until as many parts are done as there were to
        // claim.
        let body: Body =
            unsafe { std::mem::transmute::<*const (dyn Fn(usize, usize) + Sync + '_), Body>(body) };
        let Published { ticket: published, body: published_body } = &self.published.0;
        // SAFETY: the previous job's parts have all ended and none of this one is claimable yet, so
        // no thread reads it.
        unsafe { *published_body.get() = body };
        let before = Ticket(published.load(Ordering::Relaxed));
        let ticket = Ticket::new(before.job() + 1, parts);
        published.store(ticket.0, Ordering::Release);
        // Pairs with the fence in `park`: either this thread sees the worker parked or the worker
        // sees the job.
        fence(Ordering::SeqCst);
        if self.parked.load(Ordering::Relaxed) > 0 {
            let guard = self.park.lock().unwrap_or_else(PoisonError::into_inner);
            if parts >= self.claimed.len() {
                self.wake.notify_all();
            } else {
                (1..parts).for_each(|_| self.wake.notify_one());
            }
            drop(guard);
        }
        ticket
    }

    /// Runs parts of a job until none can be claimed: those of `thread`, then those of the threads after it. Returns
    /// how many it ran.
    fn run_parts(&self, ticket: Ticket, thread: usize) -> usize {
        let threads = self.claimed.len();
        let mut ran = 0;
        for owner in (thread..threads).chain(0..thread) {
            let range = part_range(ticket.parts(), threads, owner);
            while let Some(index) = self.claim(ticket, owner, range.len()) {
                // SAFETY: this thread holds a claim, so the job is published and stays, with its closure, until
                // the claim is counted, in `done` or by the caller.
                let body = unsafe { &**self.published.0.body.get() };
                let part = range.start + index;
                if let Err(payload) = catch_unwind(AssertUnwindSafe(|| body(thread, part))) {
                    let mut panic = self.panic.lock().unwrap_or_else(PoisonError::into_inner);
                    panic.get_or_insert(payload);
                }
                ran += 1;
            }
        }
        ran
    }

    /// Claims the next of the `count` parts of `owner`: its index among them. A claim succeeds only while the job
    /// of the ticket is the current one: it is not over before each of its parts was claimed, once, and words only
    /// move on.
    fn claim(&self, ticket: Ticket, owner: usize, count: usize) -> Option<usize> {
        let word = &self.claimed[owner].0;
        let mut seen = word.load(Ordering::Acquire);
        loop {
            let index = Ticket(seen).claimed_of(ticket)?;
            if index >= count {
                return None;
            }
            let next = Ticket::new(ticket.job(), index + 1).0;
            match word.compare_exchange_weak(seen, next, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Some(index),
                Err(now) => seen = now,
            }
        }
    }

    /// Waits until the count of parts that workers have run is `target`.
    fn wait_until_done(&self, target: usize) {
        let mut spins = 0;
        while self.done.0.load(Ordering::Acquire) != target {
            if spins < SPINS_BEFORE_YIELD {
                spins += 1;
                std::hint::spin_loop();
            } else {
                // The thread that holds the last part may be waiting for this core.
                std::thread::yield_now();
            }
        }
    }

    /// The life of a worker.
    fn work(&self, thread: usize) {
        let mut seen = Ticket(0);
        while !self.stopped.load(Ordering::Acquire) {
            let ticket = Ticket(self.published.0.ticket.load(Ordering::Acquire));
            if ticket != seen {
                let ran = self.run_parts(ticket, thread);
                if ran > 0 {
                    self.done.0.fetch_add(ran, Ordering::Release);
                }
                seen = ticket;
            } else if !self.spin(seen) {
                self.park(seen);
            }
        }
    }

    /// Spins until there is another job (true) or the time to spin is over (false).
    fn spin(&self, seen: Ticket) -> bool {
        let start = Instant::now();
        loop {
            for _ in 0..SPINS_PER_LOOK {
                if self.has_work(seen) {
                    return true;
                }
                std::hint::spin_loop();
            }
            if start.elapsed() > SPIN {
                return false;
            }
        }
    }

    fn park(&self, seen: Ticket) {
        let mut guard = self.park.lock().unwrap_or_else(PoisonError::into_inner);
        self.parked.fetch_add(1, Ordering::Relaxed);
        // Pairs with the fence in `publish`.
        fence(Ordering::SeqCst);
        while !self.has_work(seen) {
            guard = self.wake.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        self.parked.fetch_sub(1, Ordering::Relaxed);
    }

    fn has_work(&self, seen: Ticket) -> bool {
        let ticket = self.published.0.ticket.load(Ordering::Relaxed);
        ticket != seen.0 || self.stopped.load(Ordering::Relaxed)
    }

    fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        let guard = self.park.lock().unwrap_or_else(PoisonError::into_inner);
        self.wake.notify_all();
        drop(guard);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;

    const ROUNDS: usize = if cfg!(miri) { 20 } else { 2000 };

    #[test]
    fn every_part_runs_exactly_once() {
        for threads in [0, 1, 2, 5] {
            let pool = ThreadPool::new(threads);
            assert_eq!(pool.threads(), threads.max(1));
            for round in 0..ROUNDS {
                let parts = round % 9;
                let counts: Vec<AtomicU32> = (0..parts).map(|_| AtomicU32::new(0)).collect();
                pool.run(parts, &|part| {
                    counts[part].fetch_add(1, Ordering::Relaxed);
                });
                assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1));
            }
        }
    }

    #[test]
    fn claims_belong_to_one_job() {
        let last = (1 << (64 - PART_BITS)) - 1;
        for (word, job, claimed) in [
            ((7, 2), 7, Some(2)),
            ((6, 2), 7, Some(0)),
            ((8, 2), 7, None),
            ((last, 2), 0, Some(0)),
            ((0, 2), last, None),
        ] {
            let word = Ticket::new(word.0, word.1);
            assert_eq!(word.claimed_of(Ticket::new(job, 9)), claimed, "{job}");
        }
    }

    #[test]
    fn threads_start_with_their_own_parts() {
        let pool = ThreadPool::new(3);
        let barrier = std::sync::Barrier::new(3);
        let first = [const { AtomicUsize::new(usize::MAX) }; 3];
        // Nobody claims a second part before each has its first.
        pool.run_on(9, &|thread, part| {
            let fresh = first[thread].compare_exchange(
                usize::MAX,
                part,
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
            if fresh.is_ok() {
                barrier.wait();
            }
        });
        assert_eq!(first.map(AtomicUsize::into_inner), [0, 3, 6]);
    }

    #[test]
    fn bound_workers_run_their_parts() {
        let pool = ThreadPool::bound(3);
        let count = AtomicU32::new(0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                pool.bind_caller();
                pool.run(7, &|_| {
                    count.fetch_add(1, Ordering::Relaxed);
                });
            });
        });
        assert_eq!(count.load(Ordering::Relaxed), 7);
    }

    #[test]
    fn parked_workers_wake_up() {
        let pool = ThreadPool::new(3);
        for _ in 0..3 {
            while pool.shared.parked.load(Ordering::SeqCst) < 2 {
                std::thread::yield_now();
            }
            let barrier = std::sync::Barrier::new(3);
            // Ends only when three threads are inside at once.
            pool.run(3, &|_| {
                barrier.wait();
            });
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_after_the_others_ended() {
        let pool = ThreadPool::new(2);
        let ended = AtomicU32::new(0);
        let result = catch_unwind(AssertUnwindSafe(|| {
            pool.run(8, &|part| {
                assert!(part != 3, "part three");
                ended.fetch_add(1, Ordering::Relaxed);
            });
        }));
        let payload = result.expect_err("the panic of part three is raised again");
        assert_eq!(payload.downcast_ref::<&str>(), Some(&"part three"));
        assert_eq!(ended.load(Ordering::Relaxed), 7);
        let after = AtomicU32::new(0);
        pool.run(4, &|_| {
            after.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(after.load(Ordering::Relaxed), 4, "the pool works after a panic");
    }

    #[test]
    fn nested_and_concurrent_runs_do_not_deadlock() {
        let pool = ThreadPool::new(2);
        let count = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..ROUNDS / 10 {
                        pool.run(3, &|_| {
                            pool.run(2, &|_| {
                                count.fetch_add(1, Ordering::Relaxed);
                            });
                        });
                    }
                });
            }
        });
        assert_eq!(count.load(Ordering::Relaxed) as usize, 2 * (ROUNDS / 10) * 6);
    }

    #[test]
    fn chunks_and_ranges_cover_everything_once() {
        let pool = ThreadPool::new(2);
        let mut data = vec![0usize; 103];
        pool.for_each_chunk_mut(&mut data, 10, &|index, chunk| {
            for value in chunk {
                *value += index + 1;
            }
        });
        assert!(data.iter().enumerate().all(|(i, &value)| value == i / 10 + 1));
        let shared = SharedMut::new(&mut data);
        pool.for_each_range(103, 1, &|range| {
            // SAFETY: ranges do not overlap.
            unsafe { shared.slice(range) }.fill(7);
        });
        assert!(data.iter().all(|&value| value == 7));
    }

    #[test]
    fn part_ranges_are_contiguous_and_even() {
        for (len, parts) in [(0, 3), (1, 3), (7, 3), (9, 3), (100, 7)] {
            let mut end = 0;
            for part in 0..parts {
                let range = part_range(len, parts, part);
                assert_eq!(range.start, end);
                assert!(range.len() == len / parts || range.len() == len / parts + 1);
                end = range.end;
            }
            assert_eq!(end, len);
        }
    }
}
