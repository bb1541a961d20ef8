//! A thread that may allocate memory and nothing else: any other system call kills the process.

/// System calls that allocation and the end of a thread need.
const ALLOWED: &[libc::c_long] = &[
    libc::SYS_brk,
    libc::SYS_mmap,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_getrandom,
    libc::SYS_rt_sigprocmask,
    libc::SYS_sigaltstack,
    libc::SYS_exit,
];

/// The filter: a number of `ALLOWED` passes, any other kills.
fn program() -> Vec<libc::sock_filter> {
    let statement = |code: u32, jt: usize, k: u32| libc::sock_filter {
        code: u16::try_from(code).expect("codes have 16 bits"),
        jt: u8::try_from(jt).expect("the list is short"),
        jf: 0,
        k,
    };
    let compare = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let answer = libc::BPF_RET | libc::BPF_K;
    // Offset 0 of what a filter sees is the number of the call.
    let mut program = vec![statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0)];
    for (index, &call) in ALLOWED.iter().enumerate() {
        let number = u32::try_from(call).expect("numbers of calls are small");
        program.push(statement(compare, ALLOWED.len() - index, number));
    }
    program.push(statement(answer, 0, libc::SECCOMP_RET_KILL_PROCESS));
    program.push(statement(answer, 0, libc::SECCOMP_RET_ALLOW));
    program
}

/// Confines the calling thread for the rest of its life.
fn confine() {
    let mut program = program();
    let filter = libc::sock_fprog {
        len: u16::try_from(program.len()).expect("the filter is short"),
        filter: program.as_mut_ptr(),
    };
    // SAFETY: takes numbers only.
    let privileges = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    assert_eq!(privileges, 0, "{}", std::io::Error::last_os_error());
    // SAFETY: `filter` and the program it points to live until the call returns; the kernel copies them.
    let confined = unsafe {
        libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, std::ptr::from_ref(&filter))
    };
    assert_eq!(confined, 0, "{}", std::io::Error::last_os_error());
}

/// Runs a closure on a confined thread.
pub(crate) fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let confined = std::thread::spawn(|| {
        confine();
        work()
    });
    confined.join().expect("the work does not panic")
}

#[test]
fn the_filter_kills_what_opens_a_file() {
    // Runs itself again as a process that may die.
    const CHILD: &str = "HOSTILE_SANDBOX_CHILD";
    if std::env::var_os(CHILD).is_some() {
        run(|| std::fs::File::open("/").map(drop).is_ok());
        return;
    }
    let program = std::env::current_exe().expect("a test has a file");
    let status = std::process::Command::new(program)
        .args(["--exact", "sandbox::the_filter_kills_what_opens_a_file"])
        .env(CHILD, "1")
        .stdout(std::process::Stdio::null())
        .status()
        .expect("the test can be run again");
    use std::os::unix::process::ExitStatusExt;
    assert_eq!(status.signal(), Some(libc::SIGSYS), "{status}");
}
