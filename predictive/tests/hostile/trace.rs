//! Loading under a tracer: every system call of the process is seen, and only those that allocate memory and read the
//! model's own files are allowed.
//!
//! The test runs itself again as a child that asks to be traced and loads every file of a folder.

use std::ffi::{c_long, c_void};
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};

use tokenmill_predictive::{LoadOptions, load};

use crate::files::{self, Reader};
use crate::{bombs, calls};

/// What allocation and reading a file need; a thread's start, a process's and a socket are not here.
const ALLOWED: &[c_long] = &[
    libc::SYS_brk,
    libc::SYS_mmap,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_getrandom,
    libc::SYS_read,
    libc::SYS_lseek,
    libc::SYS_close,
    libc::SYS_fstat,
    libc::SYS_getdents64,
    libc::SYS_fcntl,
    // The signal with which the child says that it is done.
    libc::SYS_rt_sigprocmask,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_tgkill,
];

/// Calls whose second argument is a path, relative to the first.
const WITH_PATH: &[c_long] = &[libc::SYS_openat, libc::SYS_statx, libc::SYS_newfstatat];

/// The variable that makes the test the child.
const CHILD: &str = "TOKENMILL_HOSTILE_TRACED";

/// A system call that was entered.
struct Call {
    number: c_long,
    arguments: [u64; 6],
    /// Of a call that has one.
    path: Option<PathBuf>,
}

/// Starts this test again as a traced child and gives every system call that it makes between its two [`mark`]s.
///
/// `folder` is what the child finds in [`CHILD`].
#[expect(clippy::zombie_processes, reason = "`wait` sees the child to its end")]
fn trace(test: &str, folder: &Path) -> Vec<Call> {
    let mut command =
        std::process::Command::new(std::env::current_exe().expect("a test has a file"));
    command.args(["--exact", test, "--nocapture"]).env(CHILD, folder);
    command.stdout(std::process::Stdio::null());
    // SAFETY: between fork and exec the closure makes one system call and allocates nothing.
    unsafe { command.pre_exec(trace_me) };
    let child = command.spawn().expect("the test can be run again");
    let process = i32::try_from(child.id()).expect("process numbers are small");
    let (mut calls, mut traced) = (Vec::new(), None);
    loop {
        let Stop { thread, status } = wait();
        let signal = libc::WSTOPSIG(status);
        if !libc::WIFSTOPPED(status) {
            if thread == process {
                assert_eq!(status, 0, "the child succeeds");
                return calls;
            }
            continue;
        }
        match signal {
            libc::SIGUSR1 => traced = if traced.is_none() { Some(thread) } else { Some(0) },
            CALL => calls.extend(entered(thread)),
            // The end of exec, where a child of this kind first stops.
            libc::SIGTRAP if status >> 16 == 0 => {
                let clones = libc::PTRACE_O_TRACECLONE | libc::PTRACE_O_TRACEFORK;
                let options = clones | libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_EXITKILL;
                resume(libc::PTRACE_SETOPTIONS, thread, options);
            }
            // A new thread, from both sides; a shell that wakes its jobs.
            libc::SIGTRAP | libc::SIGSTOP | libc::SIGCONT => {}
            other => panic!("the child stops with signal {other}"),
        }
        let to_calls = traced == Some(thread);
        resume(if to_calls { libc::PTRACE_SYSCALL } else { libc::PTRACE_CONT }, thread, 0);
    }
}

/// How a stop at a system call is told from that of a signal.
const CALL: i32 = libc::SIGTRAP | 0x80;

/// Tells the tracer that what it wants to see begins or ends.
fn mark() {
    // SAFETY: takes a number only; the tracer keeps the signal to itself.
    assert_eq!(unsafe { libc::raise(libc::SIGUSR1) }, 0);
}

fn trace_me() -> std::io::Result<()> {
    // SAFETY: takes no pointers.
    let traced = unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) };
    if traced == -1 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}

/// Lets a stopped thread do something.
fn resume(request: libc::c_uint, thread: libc::pid_t, data: i32) {
    // SAFETY: the requests that are passed here take numbers only.
    let result = unsafe { libc::ptrace(request, thread, 0, c_long::from(data)) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

/// A thread of the child that stopped or ended.
struct Stop {
    thread: libc::pid_t,
    status: i32,
}

/// Waits for a child of this thread, so that other tests keep theirs.
fn wait() -> Stop {
    let mut status = 0;
    // SAFETY: `status` lives until the call returns.
    let thread = unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL | libc::__WNOTHREAD) };
    assert!(thread > 0, "{}", std::io::Error::last_os_error());
    Stop { thread, status }
}

/// The call that a stopped thread enters; `None` when it leaves one.
fn entered(thread: libc::pid_t) -> Option<Call> {
    let mut info = MaybeUninit::<libc::ptrace_syscall_info>::zeroed();
    let size = size_of::<libc::ptrace_syscall_info>();
    // SAFETY: the kernel writes at most `size` bytes to `info`, which lives until the call returns.
    let written = unsafe {
        libc::ptrace(
            libc::PTRACE_GET_SYSCALL_INFO,
            thread,
            size,
            info.as_mut_ptr().cast::<c_void>(),
        )
    };
    assert!(written > 0, "{}", std::io::Error::last_os_error());
    // SAFETY: zeros are a value of this structure, and the kernel wrote over them what it knows.
    let info = unsafe { info.assume_init() };
    if info.op != libc::PTRACE_SYSCALL_INFO_ENTRY {
        return None;
    }
    // SAFETY: of the union's fields, `op` says that this one was written.
    let entry = unsafe { info.u.entry };
    let number = c_long::try_from(entry.nr).expect("numbers of calls are small");
    let path = WITH_PATH.contains(&number).then(|| text(thread, entry.args[1]));
    Some(Call { number, arguments: entry.args, path })
}

/// The text at an address of a child.
fn text(thread: libc::pid_t, address: u64) -> PathBuf {
    use std::os::unix::fs::FileExt;
    let memory =
        std::fs::File::open(format!("/proc/{thread}/mem")).expect("a traced child's memory");
    let mut bytes = vec![0; 4096];
    let read = memory.read_at(&mut bytes, address).expect("the address of a path");
    let end = bytes[..read].iter().position(|&byte| byte == 0).expect("paths end");
    PathBuf::from(std::ffi::OsStr::from_bytes(&bytes[..end]))
}

/// Writes what attacks readers beside what they can read, each where its format looks for it.
fn write_corpus(folder: &Path) {
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    for (index, (bytes, _)) in calls().into_iter().enumerate() {
        files.push((format!("call-{index}.pkl"), bytes.clone()));
        // The same in the place of an MLflow model's file.
        files.push((format!("mlflow-{index}/model.pkl"), bytes));
        let flavour = "flavors:\n  sklearn:\n    pickled_model: model.pkl\n";
        files.push((format!("mlflow-{index}/MLmodel"), flavour.into()));
    }
    for (index, (_, bytes)) in bombs::lengths().into_iter().chain(bombs::all()).enumerate() {
        files.push((format!("bomb-{index}.pkl"), bytes));
    }
    for (index, file) in
        ["../call-0.pkl", "/etc/hostname", "''", "../../x", "a/../../x"].iter().enumerate()
    {
        let flavour = format!("flavors:\n  xgboost:\n    data: {file}\n");
        files.push((format!("outside-{index}/MLmodel"), flavour.into()));
    }
    for (index, file) in files::all().into_iter().enumerate() {
        let half = file.bytes[..file.bytes.len() / 2].to_vec();
        let wrong: Vec<u8> = file.bytes.iter().map(|byte| byte.wrapping_mul(31)).collect();
        // Broken ones: some of each kind, which stand beside each other by their size.
        if file.reader != Reader::Mlflow && index % 4 == 0 {
            files.push((format!("half/{}", file.name), half));
            files.push((format!("wrong/{}", file.name), wrong));
        }
        files.push((format!("whole/{}", file.name), file.bytes));
    }
    for (name, bytes) in files {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().expect("below the folder")).expect("a folder");
        std::fs::write(path, bytes).expect("the file can be written");
    }
}

/// What a server would load of a folder: its files, and directories that MLflow wrote.
fn models(folder: &Path) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).expect("the corpus is there") {
        let path = entry.expect("the folder can be listed").path();
        if path.is_dir() && !path.join("MLmodel").exists() {
            paths.extend(models(&path));
        } else {
            paths.push(path);
        }
    }
    paths
}

#[test]
fn loading_starts_nothing_and_opens_only_the_model() {
    if let Some(folder) = std::env::var_os(CHILD) {
        let paths = models(Path::new(&folder));
        let load = |path: &&PathBuf| load(path, &LoadOptions::default()).is_ok();
        mark();
        let loaded = paths.iter().filter(load).count();
        mark();
        assert!(loaded > 900, "{loaded} files load");
        return;
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("hostile");
    let _ = std::fs::remove_dir_all(&folder);
    write_corpus(&folder);
    let calls = trace("trace::loading_starts_nothing_and_opens_only_the_model", &folder);
    let opened = calls.iter().filter(|call| call.number == libc::SYS_openat).count();
    assert!(opened > 1500, "{opened} files were opened: the trace sees them");
    for Call { number, arguments, path } in calls {
        let Some(path) = path else {
            assert!(ALLOWED.contains(&number), "system call {number} {arguments:x?}");
            continue;
        };
        let inside = path.strip_prefix(&folder).is_ok_and(|path| !path.starts_with(".."));
        // A descriptor's own state is asked for with an empty path; glibc looks at a setting before it gives memory back.
        let known =
            ["", "/proc/sys/vm/overcommit_memory"].iter().any(|known| path == Path::new(known));
        assert!(inside || known, "call {number} of {}", path.display());
        let written = libc::O_WRONLY | libc::O_RDWR | libc::O_CREAT;
        let reads = number != libc::SYS_openat || arguments[2] & written as u64 == 0;
        assert!(reads, "{} is opened to be written", path.display());
    }
}

#[test]
fn the_tracer_sees_a_file_and_a_process() {
    if std::env::var_os(CHILD).is_some() {
        mark();
        assert!(std::fs::metadata("/proc").is_ok() && std::fs::File::open("/").is_ok());
        // SAFETY: takes numbers only.
        unsafe { libc::syscall(libc::SYS_getpid) };
        mark();
        return;
    }
    let calls = trace("trace::the_tracer_sees_a_file_and_a_process", Path::new("/"));
    let paths: Vec<&Path> = calls.iter().filter_map(|call| call.path.as_deref()).collect();
    assert_eq!(paths, [Path::new("/proc"), Path::new("/")]);
    assert!(calls.iter().any(|call| call.number == libc::SYS_getpid));
}
