//! What the operating system knows of this process, from `/proc`. Values it does not give are left out.

use std::fs;

/// Kernel ticks per second in `/proc`: a constant of the Linux interface (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;
/// Bytes of a page on every platform this server is built for.
const PAGE_BYTES: f64 = 4096.0;

/// Fields of `/proc/self/stat` after the command's name, which may hold blanks: field 3 is first.
fn stat_fields() -> Option<Vec<f64>> {
    let text = fs::read_to_string("/proc/self/stat").ok()?;
    let (_, rest) = text.rsplit_once(')')?;
    Some(rest.split_whitespace().map(|field| field.parse().unwrap_or(0.0)).collect())
}

/// Field `number` as `proc(5)` counts them.
fn stat(number: usize) -> Option<f64> {
    stat_fields()?.get(number.checked_sub(3)?).copied()
}

/// Resident memory in bytes.
pub(super) fn resident_bytes() -> Option<f64> {
    Some(stat(24)? * PAGE_BYTES)
}

/// Virtual memory in bytes.
pub(super) fn virtual_bytes() -> Option<f64> {
    stat(23)
}

/// Seconds of CPU, user and system.
pub(super) fn cpu_seconds() -> Option<f64> {
    Some((stat(14)? + stat(15)?) / TICKS_PER_SECOND)
}

/// Open file descriptors.
pub(super) fn open_fds() -> Option<f64> {
    Some(fs::read_dir("/proc/self/fd").ok()?.count() as f64)
}

/// Limit of open file descriptors.
pub(super) fn max_fds() -> Option<f64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find(|line| line.starts_with("Max open files"))?;
    line.split_whitespace().nth(3)?.parse().ok()
}

/// Unix time at which the process started.
pub(super) fn start_time_seconds() -> Option<f64> {
    let text = fs::read_to_string("/proc/stat").ok()?;
    let line = text.lines().find(|line| line.starts_with("btime "))?;
    let boot: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(boot + stat(22)? / TICKS_PER_SECOND)
}
