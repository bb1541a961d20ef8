//! Files that attack their reader: nothing is executed, memory is bounded, nothing panics.

#[path = "hostile/bombs.rs"]
mod bombs;
#[path = "hostile/cuts.rs"]
mod cuts;
#[path = "hostile/files.rs"]
mod files;
#[path = "hostile/memory.rs"]
mod memory;
#[path = "hostile/sizes.rs"]
mod sizes;
#[path = "hostile/trace.rs"]
mod trace;

use files::Reader;
use tokenmill_predictive::Fault;
use tokenmill_predictive::pickle;

/// What reading a file may take beyond four times its length.
const FLOOR: usize = 64 << 20;

/// Bytes of opcodes, one piece after the other.
fn opcodes(pieces: &[&[u8]]) -> Vec<u8> {
    pieces.concat()
}

/// A short text as protocol 4 writes it.
fn short(text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len()).expect("a short text");
    [&[0x8c, length], text.as_bytes()].concat()
}

/// Pickles that would call or hold something foreign, and what the error must name.
fn calls() -> Vec<(Vec<u8>, &'static str)> {
    let system: &[u8] = b"cposix\nsystem\n";
    let argument: &[u8] = b"S'touch pwned'\n";
    let stack_global = |module: &str, name: &str| [short(module), short(name), vec![0x93]].concat();
    let refused = "posix.system";
    let logistic: &[u8] = b"csklearn.linear_model\nLogisticRegression\n";
    let reconstruct: &[u8] = b"cnumpy.core.multiarray\n_reconstruct\n";
    vec![
        // REDUCE, by GLOBAL and by STACK_GLOBAL.
        (opcodes(&[system, b"(", argument, b"tR."]), refused),
        (
            opcodes(&[b"\x80\x04", &stack_global("posix", "system"), b"(", argument, b"tR."]),
            refused,
        ),
        // NEWOBJ and NEWOBJ_EX.
        (opcodes(&[b"\x80\x02", system, argument, b"\x85\x81."]), refused),
        (opcodes(&[b"\x80\x04", system, argument, b"\x85}\x92."]), refused),
        // BUILD, of a function and through a __setstate__ in the state.
        (opcodes(&[system, b"}b."]), refused),
        (opcodes(&[logistic, b")\x81}S'__setstate__'\n", system, b"sb."]), refused),
        (opcodes(&[logistic, b"}b."]), "a class or function"),
        // INST and OBJ.
        (opcodes(&[b"(", argument, b"iposix\nsystem\n."]), refused),
        (opcodes(&[b"(", system, argument, b"o."]), refused),
        (opcodes(&[b"(isklearn.svm\nSVC\n."]), "INST"),
        (opcodes(&[b"(", logistic, b"o."]), "OBJ"),
        // EXT and PERSID.
        (opcodes(&[b"\x80\x02\x82\x01)R."]), "EXT"),
        (opcodes(&[b"\x80\x02\x83\x01\x00)R."]), "EXT"),
        (opcodes(&[b"\x80\x02\x84\x01\x00\x00\x00)R."]), "EXT"),
        (opcodes(&[b"Pshell\n."]), "PERSID"),
        (opcodes(&[b"\x80\x02", argument, b"Q."]), "PERSID"),
        (opcodes(&[b"\x80\x05\x97."]), "NEXT_BUFFER"),
        // Held or dropped, not called.
        (opcodes(&[system, b"0N."]), refused),
        (opcodes(&[b"](", system, b"e."]), refused),
        // As an argument of what is known.
        (opcodes(&[b"cfunctools\npartial\n(", system, b"tR."]), refused),
        (opcodes(&[b"ccollections\ndefaultdict\n(", system, b"tR."]), refused),
        (
            opcodes(&[b"ccopy_reg\n_reconstructor\n(", system, b"c__builtin__\nobject\nNtR."]),
            refused,
        ),
        (opcodes(&[reconstruct, b"(", system, b"(I0\ntS'b'\ntR."]), refused),
        (opcodes(&[reconstruct, b"(", logistic, b"(I0\ntS'b'\ntR."]), "numpy.ndarray"),
        // Other ways to code.
        (opcodes(&[b"c__builtin__\neval\n(S'1'\ntR."]), "builtins.eval"),
        (opcodes(&[b"cbuiltins\nexec\n(S'1'\ntR."]), "builtins.exec"),
        (opcodes(&[b"cbuiltins\ngetattr\n."]), "builtins.getattr"),
        (opcodes(&[b"cbuiltins\n__import__\n(S'os'\ntR."]), "builtins.__import__"),
        (opcodes(&[b"coperator\nattrgetter\n."]), "operator.attrgetter"),
        (opcodes(&[b"csubprocess\nPopen\n."]), "subprocess.Popen"),
        (opcodes(&[b"cnumpy\nload\n."]), "numpy.load"),
        (opcodes(&[b"cpandas.core.frame\nDataFrame\n."]), "pandas.core.frame.DataFrame"),
        (opcodes(&[b"c__main__\nScaler\n."]), "__main__.Scaler"),
        (opcodes(&[b"ccloudpickle.cloudpickle\n_make_skel_func\n."]), "cloudpickle"),
        (opcodes(&[b"\x80\x04", &stack_global("sklearn.svm", "SVC.fit"), b"."]), "SVC.fit"),
        (opcodes(&[b"\x80\x04", &stack_global("sklearn", "os\nsystem"), b"."]), "is refused"),
        (opcodes(&[b"\x80\x04", &stack_global("sklearn", "__pyx_unpickle_"), b"."]), "is refused"),
        // Types and functions that are data only.
        (opcodes(&[b"cnumpy\nlog1p\n(I1\ntR."]), "only refer to it"),
        (
            opcodes(&[
                b"cnumpy.core._multiarray_umath\n_ufunc_reconstruct\n(S'os'\nS'system'\ntR.",
            ]),
            "numpy.system",
        ),
        (opcodes(&[b"I1\n(I1\ntR."]), "calls an integer"),
    ]
}

fn message(bytes: &[u8]) -> String {
    match pickle::read(bytes) {
        Ok(pickle) => panic!("read as {}", pickle.root().describe()),
        Err(Fault::Corrupt { at, reason }) => format!("{at}: {reason}"),
        Err(Fault::Unsupported(what)) => what,
    }
}

#[test]
fn no_opcode_calls_anything_and_errors_name_it() {
    for (bytes, named) in calls() {
        let text = message(&bytes);
        assert!(text.contains(named), "{:?}: {text}", String::from_utf8_lossy(&bytes));
    }
}

#[test]
fn known_classes_stay_data() {
    let bytes = b"csklearn.svm\nSVC\n(I1\ntR}S'C'\nF1.5\nsb.";
    let pickle = pickle::read(bytes).expect("an object");
    let object = pickle.root().as_object().expect("an object");
    assert_eq!((object.module, object.class), ("sklearn.svm", "SVC"));
    assert_eq!(object.f64("C"), Ok(1.5));
    assert_eq!(object.arguments.as_list().map(|items| items.len()), Some(1));
}

#[test]
fn a_list_may_hold_itself() {
    let pickle = pickle::read(b"\x80\x02]q\x00h\x00a.").expect("a list");
    let root = pickle.root();
    let inner = root.as_list().expect("a list")[0];
    assert_eq!(root.id(), inner.id());
}

#[test]
fn a_deep_pickle_is_read_and_dropped_without_recursion() {
    let deep = [vec![b']'; 100_000], vec![b'a'; 99_999], vec![b'.']].concat();
    let pickle = pickle::read(&deep).expect("lists in lists");
    assert_eq!(pickle.root().as_list().map(|items| items.len()), Some(1));
    let tuples = [vec![b')'; 1], vec![0x85; 100_000], vec![b'.']].concat();
    assert!(pickle::read(&tuples).is_ok());
}

#[test]
fn laughs_take_no_memory() {
    // Each list holds the one before ten times: 10^50 leaves.
    let mut bytes = b"\x80\x02]q\x00".to_vec();
    for level in 0..50u8 {
        bytes.extend([b']', b'q', level + 1, b'(']);
        bytes.extend([b'h', level].repeat(10));
        bytes.push(b'e');
    }
    bytes.push(b'.');
    let (peak, pickle) = memory::peak(|| pickle::read(&bytes));
    assert!(pickle.is_ok() && peak < 1 << 20, "{peak} bytes");
}

#[test]
fn bombs_are_refused_within_the_limit() {
    for (name, bytes) in bombs::all() {
        let (peak, result) = memory::peak(|| pickle::read(&bytes).map(drop));
        assert!(result.is_err(), "{name} was read");
        assert!(peak <= 4 * bytes.len() + FLOOR, "{name}: {peak} bytes for {}", bytes.len());
    }
}

#[test]
fn a_value_that_is_referred_to_again_and_again_is_paid_for_each_time() {
    for (name, bytes) in bombs::shared() {
        let (peak, result) = memory::peak(|| Reader::Pickle.read(&bytes));
        let text = result.expect_err(&name).to_string();
        let wanted = match name.as_str() {
            "cycle" => "nested more than 32 deep",
            _ => "refers to the same values so often",
        };
        assert!(text.contains(wanted), "{name}: {text}");
        assert!(peak <= 4 * bytes.len() + FLOOR, "{name}: {peak} bytes for {}", bytes.len());
    }
}

#[test]
fn absurd_lengths_are_refused_before_they_are_allocated() {
    for (name, bytes) in bombs::lengths() {
        let (peak, result) = memory::peak(|| pickle::read(&bytes).map(drop));
        assert!(result.is_err(), "{name} was read");
        assert!(peak < 1 << 20, "{name}: {peak} bytes");
    }
}

#[test]
fn a_dictionary_of_4_gib_is_not_allocated() {
    let file = files::folder().join("pickle/numpy2.4.xz.joblib");
    let mut bytes = std::fs::read(file).expect("a fixture");
    // Sizes of the header and flags, then the filter, the size of its property, the property.
    assert_eq!(bytes[13..16], [0, 0x21, 1]);
    bytes[16] = 40;
    let (peak, result) = memory::peak(|| pickle::read(&bytes).map(drop));
    assert_eq!(result, Ok(()));
    assert!(peak <= 4 * bytes.len() + FLOOR, "{peak} bytes");
}
