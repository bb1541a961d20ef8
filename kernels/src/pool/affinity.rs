//! Binding threads to processors, where the operating system offers it.

/// Binds the calling thread to the `index`-th (modulo their number) of the processors that the
/// process may use. False when the system refuses or has no such call.
#[cfg(target_os = "linux")]
pub(super) fn bind_current_thread(index: usize) -> bool {
    if cfg!(miri) {
        return false;
    }
    // SAFETY: a `cpu_set_t` is plain bits; all zero is the empty set.
    let mut allowed: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // The process, not the thread: a bound thread may start bound threads.
    let process = std::process::id() as libc::pid_t;
    // SAFETY: the set is writable and its size is given.
    if unsafe { libc::sched_getaffinity(process, size_of_val(&allowed), &mut allowed) } != 0 {
        return false;
    }
    let is_allowed = |cpu: &usize| {
        // SAFETY: `cpu` is below the number of bits in the set.
        unsafe { libc::CPU_ISSET(*cpu, &allowed) }
    };
    let all = 0..8 * size_of_val(&allowed);
    let count = all.clone().filter(is_allowed).count();
    let Some(cpu) = all.clone().filter(is_allowed).nth(index % count.max(1)) else { return false };
    // SAFETY: as above.
    let mut one: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `cpu` is below the number of bits in the set.
    unsafe { libc::CPU_SET(cpu, &mut one) };
    // SAFETY: the set is readable and its size is given; 0 is the calling thread.
    unsafe { libc::sched_setaffinity(0, size_of_val(&one), &one) == 0 }
}

/// Binds the calling thread to the `index`-th (modulo their number) of the processors that the
/// process may use. False when the system refuses or has no such call.
#[cfg(not(target_os = "linux"))]
pub(super) fn bind_current_thread(_index: usize) -> bool {
    false
}
