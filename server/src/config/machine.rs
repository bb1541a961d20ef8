//! What this machine has: cores that compute and memory that is free.
//!
//! Both are read from the system and from the control group, whichever is smaller, because a
//! container sees the host's figures in the first and its own limit only in the second.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Memory assumed when the system does not say how much is free.
const UNKNOWN_MEMORY: u64 = 4 << 30;

/// Cores and memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Physical cores this process may use.
    pub cores: usize,
    /// Bytes that can be allocated without swapping.
    pub memory: u64,
}

impl Machine {
    /// Looks at the system.
    pub fn detect() -> Self {
        let logical = std::thread::available_parallelism().map_or(1, usize::from);
        let physical = physical_cores(Path::new("/sys/devices/system/cpu")).unwrap_or(logical);
        let memory = free_memory().unwrap_or(UNKNOWN_MEMORY);
        Self { cores: physical.min(logical).max(1), memory }
    }
}

/// How the cores are shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Split {
    /// Threads of the kernels, the one that drives them included.
    pub kernel_threads: usize,
    /// Threads of sockets, JSON and streams.
    pub tokio_workers: usize,
    /// Threads that tokenise and render templates.
    pub text_threads: usize,
}

impl Split {
    /// Kernels get every physical core (a decode step leaves the others idle when it waits for
    /// memory); the other threads are few and short of work.
    pub fn of(machine: Machine, threads: Option<usize>) -> Self {
        Self {
            kernel_threads: threads.unwrap_or(machine.cores).max(1),
            tokio_workers: (machine.cores / 8).clamp(2, 8),
            text_threads: (machine.cores / 4).clamp(1, 4),
        }
    }
}

/// Distinct (package, core) pairs below `/sys/devices/system/cpu`.
fn physical_cores(root: &Path) -> Option<usize> {
    let read = |path: &Path, name: &str| fs::read_to_string(path.join("topology").join(name)).ok();
    let mut cores = BTreeSet::new();
    for entry in fs::read_dir(root).ok()? {
        let path = entry.ok()?.path();
        if let (Some(package), Some(core)) =
            (read(&path, "physical_package_id"), read(&path, "core_id"))
        {
            cores.insert((package, core));
        }
    }
    (!cores.is_empty()).then_some(cores.len())
}

/// Bytes of memory that this process may still take: of the machine and of its control group.
pub(crate) fn free_memory() -> Option<u64> {
    let free = fs::read_to_string("/proc/meminfo").ok().and_then(|text| available(&text));
    [free, group_memory(Path::new("/sys/fs/cgroup"))].into_iter().flatten().min()
}

/// `MemAvailable` of `/proc/meminfo`, in bytes.
fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// What is left of the control group's limit (version 2, then 1); absent when it has none.
fn group_memory(root: &Path) -> Option<u64> {
    let read = |path: &str| {
        fs::read_to_string(root.join(path)).ok().and_then(|text| text.trim().parse::<u64>().ok())
    };
    let (limit, used) = match read("memory.max") {
        Some(limit) => (limit, read("memory.current")),
        None => (read("memory/memory.limit_in_bytes")?, read("memory/memory.usage_in_bytes")),
    };
    Some(limit.saturating_sub(used.unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn available_memory_is_read_in_bytes() {
        let text = "MemTotal:       100 kB\nMemAvailable:    64 kB\n";
        assert_eq!(available(text), Some(65536));
        assert_eq!(available("MemTotal: 100 kB"), None);
        assert_eq!(available("MemAvailable: x kB"), None);
    }

    #[test]
    fn this_machine_has_something() {
        let machine = Machine::detect();
        assert!(machine.cores >= 1 && machine.memory > 0);
    }

    #[test]
    fn the_split_follows_the_cores_and_the_threads_asked_for() {
        let split = |cores, threads| Split::of(Machine { cores, memory: 0 }, threads);
        let want = |kernel_threads, tokio_workers, text_threads| Split {
            kernel_threads,
            tokio_workers,
            text_threads,
        };
        assert_eq!(split(2, None), want(2, 2, 1));
        assert_eq!(split(64, None), want(64, 8, 4));
        assert_eq!(split(16, Some(4)), want(4, 2, 4));
    }
}
