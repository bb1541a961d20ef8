//! Binding threads to processors, where the operating system offers it.

/// The processors that the process may use: those of its first thread. Empty when the system does not tell.
#[cfg(target_os = "linux")]
pub(super) fn processors() -> Vec<usize> {
    if cfg!(miri) {
        return Vec::new();
    }
    // SAFETY: a `cpu_set_t` is plain bits; all zero is the empty set.
    let mut allowed: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // The process, not the thread: a bound thread may start bound threads.
    let process = std::process::id() as libc::pid_t;
    // SAFETY: the set is writable and its size is given.
    if unsafe { libc::sched_getaffinity(process, size_of_val(&allowed), &mut allowed) } != 0 {
        return Vec::new();
    }
    // SAFETY: `processor` is below the number of bits in the set.
    let is_allowed = |processor: &usize| unsafe { libc::CPU_ISSET(*processor, &allowed) };
    (0..8 * size_of_val(&allowed)).filter(is_allowed).collect()
}

/// Binds the calling thread to a processor that [`processors`] named. False when the system refuses.
#[cfg(target_os = "linux")]
pub(super) fn bind(processor: usize) -> bool {
    // SAFETY: as above.
    let mut one: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    if processor >= 8 * size_of_val(&one) {
        return false;
    }
    // SAFETY: `processor` is below the number of bits in the set.
    unsafe { libc::CPU_SET(processor, &mut one) };
    // SAFETY: the set is readable and its size is given; 0 is the calling thread.
    unsafe { libc::sched_setaffinity(0, size_of_val(&one), &one) == 0 }
}

/// The processors that the process may use. Empty when the system does not tell.
#[cfg(not(target_os = "linux"))]
pub(super) fn processors() -> Vec<usize> {
    Vec::new()
}

/// Binds the calling thread to a processor. False when the system refuses or has no such call.
#[cfg(not(target_os = "linux"))]
pub(super) fn bind(_processor: usize) -> bool {
    false
}
