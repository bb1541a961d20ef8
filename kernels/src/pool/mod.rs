//! A fork-join pool for kernels: a fork and join of a hot pool costs about a microsecond.
//!
//! A job is a number of parts and one closure. Threads claim parts from one atomic counter, so a
//! thread that the operating system has taken off its core delays at most the part that it holds,
//! never those it did not claim. Idle workers spin for a few tens of microseconds, the gap between
//! two kernels of a step, and then park. The calling thread takes part. The pool deliberately knows
//! nothing of priorities, nesting or work stealing: a `run` inside a `run` executes its parts on
//! the thread that asked.

mod affinity;
mod shared_mut;

use std::any::Any;
use std::cell::UnsafeCell;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
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
        ThreadPool::start(threads, |_| ())
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
        ThreadPool::start(threads, |index| _ = affinity::bind_current_thread(index))
    }

    /// Binds the calling thread to the first processor that the process may use; false when the
    /// system refuses.
    pub fn bind_caller(&self) -> bool {
        affinity::bind_current_thread(0)
    }

    fn start(threads: usize, prepare: fn(usize)) -> ThreadPool {
        let shared = Arc::new(Shared::new());
        let workers = (1..threads.max(1))
            .map(|index| {
                let shared = Arc::clone(&shared);
                let work = move || {
                    prepare(index);
                    shared.work();
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
    /// returns when all are done. Parts start in ascending order. A call from inside a part, or
    /// while another thread uses the pool, runs its parts on the calling thread.
    ///
    /// # Panics
    /// When a part panics, with the payload of the first one, after every part has ended.
    pub fn run(&self, parts: usize, body: &(dyn Fn(usize) + Sync)) {
        let shared = &*self.shared;
        if parts <= 1 || self.workers.is_empty() || shared.busy.swap(true, Ordering::Acquire) {
            return (0..parts).for_each(body);
        }
        shared.publish(parts, body, self.workers.len());
        while shared.run_one_part() {}
        shared.wait_until_done(parts);
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
type Body = *const (dyn Fn(usize) + Sync);

#[derive(Clone, Copy)]
struct Job {
    body: Body,
    parts: usize,
}

/// What the caller and the workers share. The counters lie on cache lines of their own: all threads
/// write them.
struct Shared {
    /// Parts that no thread has claimed. A successful decrement is the licence to read `job`.
    unclaimed: CacheLine<AtomicUsize>,
    /// Parts that have ended.
    done: CacheLine<AtomicUsize>,
    job: UnsafeCell<Job>,
    busy: AtomicBool,
    stopped: AtomicBool,
    /// Workers that are parked or about to.
    parked: AtomicUsize,
    park: Mutex<()>,
    wake: Condvar,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

#[repr(align(128))]
struct CacheLine<T>(T);

// SAFETY: `job` is written only by the thread that holds `busy`, while no part is claimed or
// unclaimed, and read only by threads that hold a claim; the claim's decrement synchronises with
// the publishing store. The rest is `Sync`.
unsafe impl Sync for Shared {}
// SAFETY: the pointer in `job` is used only as described for `Sync`; the closure it points to is
// `Sync`.
unsafe impl Send for Shared {}

impl Shared {
    fn new() -> Shared {
        let nothing: &'static (dyn Fn(usize) + Sync) = &|_| {};
        Shared {
            unclaimed: CacheLine(AtomicUsize::new(0)),
            done: CacheLine(AtomicUsize::new(0)),
            job: UnsafeCell::new(Job { body: nothing, parts: 0 }),
            busy: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            parked: AtomicUsize::new(0),
            park: Mutex::new(()),
            wake: Condvar::new(),
            panic: Mutex::new(None),
        }
    }

    /// Makes a job claimable and wakes parked workers when there are any. The caller holds `busy`.
    fn publish(&self, parts: usize, body: &(dyn Fn(usize) + Sync), workers: usize) {
        // SAFETY: only the lifetime changes. Every use of the pointer ends before `run` returns:
        // uses happen under a claim, and `run` waits until as many parts are done as there were to
        // claim.
        let body: Body =
            unsafe { std::mem::transmute::<*const (dyn Fn(usize) + Sync + '_), Body>(body) };
        self.done.0.store(0, Ordering::Relaxed);
        // SAFETY: the previous job's parts have all ended and none of this one is claimable yet, so
        // no thread reads it.
        unsafe { *self.job.get() = Job { body, parts } };
        self.unclaimed.0.store(parts, Ordering::Release);
        // Pairs with the fence in `park`: either this thread sees the worker parked or the worker
        // sees the parts.
        fence(Ordering::SeqCst);
        if self.parked.load(Ordering::Relaxed) > 0 {
            let guard = self.park.lock().unwrap_or_else(PoisonError::into_inner);
            if parts > workers {
                self.wake.notify_all();
            } else {
                (1..parts).for_each(|_| self.wake.notify_one());
            }
            drop(guard);
        }
    }

    /// Claims one part and runs it; false when none is left.
    fn run_one_part(&self) -> bool {
        let claim = self
            .unclaimed
            .0
            .fetch_update(Ordering::Acquire, Ordering::Relaxed, |left| left.checked_sub(1));
        let Ok(left) = claim else { return false };
        // SAFETY: this thread holds a claim, so the job is published and stays until the claim is
        // counted in `done`.
        let job = unsafe { *self.job.get() };
        // SAFETY: as above: the closure outlives the claim because `run` waits for it.
        let body = unsafe { &*job.body };
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| body(job.parts - left))) {
            self.panic.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(payload);
        }
        self.done.0.fetch_add(1, Ordering::Release);
        true
    }

    fn wait_until_done(&self, parts: usize) {
        let mut spins = 0;
        while self.done.0.load(Ordering::Acquire) < parts {
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
    fn work(&self) {
        while !self.stopped.load(Ordering::Acquire) {
            if !self.run_one_part() && !self.spin() {
                self.park();
            }
        }
    }

    /// Spins until there is a part to claim (true) or the time to spin is over (false).
    fn spin(&self) -> bool {
        let start = Instant::now();
        loop {
            for _ in 0..SPINS_PER_LOOK {
                if self.has_work() {
                    return true;
                }
                std::hint::spin_loop();
            }
            if start.elapsed() > SPIN {
                return false;
            }
        }
    }

    fn park(&self) {
        let mut guard = self.park.lock().unwrap_or_else(PoisonError::into_inner);
        self.parked.fetch_add(1, Ordering::Relaxed);
        // Pairs with the fence in `publish`.
        fence(Ordering::SeqCst);
        while !self.has_work() {
            guard = self.wake.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        self.parked.fetch_sub(1, Ordering::Relaxed);
    }

    fn has_work(&self) -> bool {
        self.unclaimed.0.load(Ordering::Relaxed) > 0 || self.stopped.load(Ordering::Relaxed)
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
