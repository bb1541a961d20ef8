//! The threads on which models compute, and which work is shared among them.
//!
//! A small request may be computed on the thread that it came on. Rows are computed one after the other there: it
//! neither waits for the pool nor starts rayon's own threads.

use std::sync::Arc;

use rayon::prelude::*;

use crate::queue::{Priority, Queue};

/// The threads on which models compute, shared by all of them.
#[derive(Clone)]
pub struct PredictPool {
    threads: Arc<rayon::ThreadPool>,
    queue: Arc<Queue>,
}

impl PredictPool {
    /// A pool of `threads` threads (at least one).
    ///
    /// # Errors
    /// When the system refuses to start one.
    pub fn new(threads: usize) -> Result<Self, std::io::Error> {
        let threads = rayon::ThreadPoolBuilder::new()
            .num_threads(threads.max(1))
            .thread_name(|index| format!("predict-{index}"))
            .build()
            .map_err(std::io::Error::other)?;
        Ok(Self { threads: Arc::new(threads), queue: Arc::default() })
    }

    /// Runs `work` on the pool and waits for it.
    pub fn install<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.threads.install(work)
    }

    /// Has a thread run `work` when it is the first of what waits.
    pub(crate) fn spawn(&self, priority: Priority, work: impl FnOnce() + Send + 'static) {
        self.queue.push(priority, Box::new(work));
        let queue = Arc::clone(&self.queue);
        // As many tasks as there is work: each takes the most urgent there is by then.
        self.threads.spawn(move || {
            if let Some(work) = queue.pop() {
                work();
            }
        });
    }
}

/// Threads that can share the work of the current one: those of its pool, or itself alone.
pub(crate) fn threads() -> usize {
    if rayon::current_thread_index().is_some() { rayon::current_num_threads() } else { 1 }
}

/// `of` each item, in order, on the threads that can share the work.
pub(crate) fn map<T: Sync, R: Send>(items: &[T], of: impl Fn(&T) -> R + Send + Sync) -> Vec<R> {
    if threads() == 1 {
        return items.iter().map(of).collect();
    }
    items.par_iter().map(of).collect()
}

/// Calls `run` with the number and the values of each part of so many values, on the threads that can share the work.
pub(crate) fn each_part<T: Send>(
    values: &mut [T],
    size: usize,
    run: impl Fn(usize, &mut [T]) + Send + Sync,
) {
    let size = size.max(1);
    if threads() == 1 || size >= values.len() {
        values.chunks_mut(size).enumerate().for_each(|(part, values)| run(part, values));
    } else {
        values.par_chunks_mut(size).enumerate().for_each(|(part, values)| run(part, values));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn only_threads_of_a_pool_share_work() {
        let names = || {
            let name = |_: &u8| std::thread::current().name().map(str::to_owned);
            map(&[0; 64], name)
        };
        let own = std::thread::current().name().map(str::to_owned);
        assert!(threads() == 1 && names().iter().all(|name| *name == own));
        let pool = PredictPool::new(3).expect("threads start");
        assert_eq!(pool.install(threads), 3);
        let shared = pool.install(names);
        assert!(shared.iter().flatten().all(|name| name.starts_with("predict-")), "{shared:?}");
    }

    #[test]
    fn the_most_urgent_runs_first_and_equals_in_the_order_they_came() {
        let pool = PredictPool::new(1).unwrap();
        let (began, begins) = channel();
        let (open, gate) = channel::<()>();
        pool.spawn(Priority::default(), move || {
            began.send(()).unwrap();
            gate.recv().unwrap();
        });
        begins.recv().unwrap();
        let (done, order) = channel();
        for (name, number) in [("none", 0), ("two", 2), ("one", 1), ("zero", 0), ("other two", 2)] {
            let done = done.clone();
            pool.spawn(Priority::of(number), move || done.send(name).unwrap());
        }
        open.send(()).unwrap();
        let order: Vec<&str> = order.iter().take(5).collect();
        assert_eq!(order, ["one", "two", "other two", "none", "zero"]);
    }
}
