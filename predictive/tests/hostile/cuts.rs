//! Every fixture cut short or with a wrong byte: an error, or a model; never a panic, much memory or a long wait.
//!
//! `TOKENMILL_HOSTILE=all` tries every length of every file, and holds each to two seconds of a core; without it the smallest
//! files of each kind are cut everywhere, all others at many places.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use crate::FLOOR;
use crate::files::{self, File, Reader};
use crate::memory;

/// The longest that reading a file of these sizes may take.
const LONGEST: Duration = Duration::from_secs(2);
/// Places of a larger file are so far from each other: a prime, so that they fall on all parts of repeated structures.
const STRIDE: usize = 211;
/// Bytes at the end of a file that are all tried.
const TAIL: usize = 24;
/// Files of a kind that are tried everywhere.
const WHOLE: usize = 1;

/// Whether everything is tried.
pub(crate) fn is_full() -> bool {
    std::env::var_os("TOKENMILL_HOSTILE").is_some_and(|value| value == "all")
}

/// The places of each file that are tried.
fn places<'f>(files: &'f [File]) -> Vec<(&'f File, Vec<usize>)> {
    let mut seen: HashMap<(Reader, &str), usize> = HashMap::new();
    let mut places = |(index, file): (usize, &'f File)| -> Vec<usize> {
        let kind = file.name.rsplit_once('.').map_or("", |(_, extension)| extension);
        let before = seen.entry((file.reader, kind)).or_default();
        *before += 1;
        let length = file.bytes.len();
        if is_full() || *before <= WHOLE {
            return (0..length).collect();
        }
        let tail = length.saturating_sub(TAIL);
        (index % STRIDE..tail).step_by(STRIDE).chain(tail..length).collect()
    };
    let places: Vec<Vec<usize>> = files.iter().enumerate().map(&mut places).collect();
    files.iter().zip(places).collect()
}

/// How long the calling thread has worked: other processes do not count.
fn busy() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` lives until the call returns.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    let part = u32::try_from(time.tv_nsec).expect("less than a second");
    Duration::new(time.tv_sec.unsigned_abs(), part)
}

/// The worst that was seen.
#[derive(Default)]
struct Worst {
    reads: usize,
    time: (Duration, String),
    /// Bytes held, in hundredths of what is allowed.
    memory: (usize, String),
}

/// Reads what `change` makes of every file at every place, on two threads; `judge` sees the outcome.
fn read_all(
    change: impl Fn(&File, usize) -> Vec<u8> + Sync,
    judge: impl Fn(&File, usize, bool) + Sync,
) {
    let files = files::all();
    let work = Mutex::new(places(&files));
    let worst = Mutex::new(Worst::default());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                // The largest first, so that both threads end at about the same time.
                while let Some((file, places)) = { work.lock().expect("no test panics").pop() } {
                    for at in places {
                        let bytes = change(file, at);
                        let started = busy();
                        let (peak, result) = memory::peak(|| file.reader.read(&bytes));
                        let time = busy() - started;
                        let allowed = 4 * bytes.len() + FLOOR;
                        let place = format!("{} at byte {at}", file.name);
                        assert!(peak <= allowed, "{place}: {peak} bytes, allowed are {allowed}");
                        if let Err(fault) = &result {
                            assert!(fault.to_string().len() > 8, "{place}: {fault}");
                        }
                        judge(file, at, result.is_ok());
                        let mut worst = worst.lock().expect("no test panics");
                        worst.reads += 1;
                        worst.time = worst.time.clone().max((time, place.clone()));
                        worst.memory = worst.memory.clone().max((peak * 100 / allowed, place));
                    }
                }
            });
        }
    });
    let Worst { reads, time, memory } = worst.into_inner().expect("no test panics");
    println!("{reads} reads of {} files; longest {time:?}, most memory {memory:?} %", files.len());
    assert!(!is_full() || time.0 <= LONGEST, "{time:?}");
}

#[test]
fn every_truncation_is_an_error() {
    read_all(
        |file, at| file.bytes[..at].to_vec(),
        |file, at, read| {
            assert!(!read || file.is_whole(at), "{} cut to {at} bytes was read", file.name);
        },
    );
}

#[test]
fn no_wrong_byte_breaks_the_limits() {
    read_all(
        |file, at| {
            let mut wrong = file.bytes.clone();
            wrong[at] = wrong[at].wrapping_mul(31).wrapping_add(167);
            wrong
        },
        |_, _, _| {},
    );
}
