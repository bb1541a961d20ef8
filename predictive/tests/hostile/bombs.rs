//! Small files that ask for much.

use std::io::Write;

/// One value of a mebibyte, dropped again: opcodes that a container repeats.
fn dropped_mebibyte() -> Vec<u8> {
    [b"B\0\0\x10\0".as_slice(), &vec![0; 1 << 20], b"0"].concat()
}

/// Containers whose streams may stand one after the other: 200 MiB of opcodes.
fn repeated(pack: impl Fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
    pack(&dropped_mebibyte()).repeat(200)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    writer.write_all(bytes).expect("memory can be written");
    writer.finish().expect("memory can be written")
}

fn bzip2(bytes: &[u8]) -> Vec<u8> {
    let mut writer = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::best());
    writer.write_all(bytes).expect("memory can be written");
    writer.finish().expect("memory can be written")
}

fn lz4(bytes: &[u8]) -> Vec<u8> {
    let mut writer = lz4_flex::frame::FrameEncoder::new(Vec::new());
    writer.write_all(bytes).expect("memory can be written");
    writer.finish().expect("memory can be written")
}

/// One stream whose middle, cut off from what is before it by a full flush, is there 200 times.
fn zlib() -> Vec<u8> {
    let mut packer = flate2::Compress::new(flate2::Compression::best(), false);
    let mut block = Vec::with_capacity(1 << 20);
    packer
        .compress_vec(&dropped_mebibyte(), &mut block, flate2::FlushCompress::Full)
        .expect("memory can be written");
    [b"\x78\xda".as_slice(), &block.repeat(200)].concat()
}

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(crate::files::folder().join("hostile").join(name))
        .expect("the fixtures are there")
}

/// `N` arguments of a global at the top of the memo: a dictionary of `size` entries, copied `times` times.
fn copies(size: usize, times: usize) -> Vec<u8> {
    let dictionary = [b"}q\0(".as_slice(), &b"K\x01K\x02".repeat(size), b"u0"].concat();
    let global = b"ccollections\nOrderedDict\nq\x010";
    let copy = b"h\x01h\0\x85R0";
    [b"\x80\x02".as_slice(), &dictionary, global, &copy.repeat(times), b"N."].concat()
}

/// Files that must be refused while little memory is held.
pub(crate) fn all() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("gzip", repeated(gzip)),
        ("bzip2", repeated(bzip2)),
        ("lz4", repeated(lz4)),
        ("zlib", zlib()),
        ("xz", fixture("bomb.xz")),
        ("lzma", fixture("bomb.lzma")),
        ("empty lists", vec![b']'; 4 << 20]),
        ("marks", vec![b'('; 4 << 20]),
        ("copies", copies(100_000, 1000)),
        ("duplicates", [b"N".as_slice(), &vec![b'2'; 16 << 20]].concat()),
    ]
}

fn array(shape: &str, code: &str, state: &str, data: &str) -> Vec<u8> {
    format!(
        "cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n{shape}\
         cnumpy\ndtype\n(S'{code}'\nI0\nI1\ntR{state}I0\n{data}tb."
    )
    .into_bytes()
}

/// Files that claim lengths they do not have.
pub(crate) fn lengths() -> Vec<(&'static str, Vec<u8>)> {
    let claim = |opcode: u8, length: u64| [&[opcode], length.to_le_bytes().as_slice()].concat();
    let short = |opcode: u8, length: u32| [&[opcode], length.to_le_bytes().as_slice()].concat();
    let record =
        "(I3\nS'|'\nN(S'a'\nt(dS'a'\n(cnumpy\ndtype\n(S'f8'\nI0\nI1\ntRI60\ntsI64\nI1\nI16\ntb";
    let memo = |index: u32| [b"Nr".as_slice(), &index.to_le_bytes(), b"."].concat();
    let longs = [b"L".as_slice(), &vec![b'9'; 5000], b"L\n."].concat();
    let data = "S'12345678'\n";
    vec![
        ("BINBYTES8 of 2^64 - 1", claim(0x8e, u64::MAX)),
        ("BINUNICODE8 of 2^62", claim(0x8d, 1 << 62)),
        ("BYTEARRAY8 of 2^40", claim(0x96, 1 << 40)),
        ("BINBYTES of 2^32 - 1", short(b'B', u32::MAX)),
        ("BINBYTES of 50 MB", short(b'B', 50_000_000)),
        ("BINSTRING of -1", short(b'T', u32::MAX)),
        ("LONG4 of 2^31 - 1", short(0x8b, i32::MAX as u32)),
        ("LONG of 5000 digits", longs),
        ("memo entry 2^32 - 1", memo(u32::MAX)),
        ("memo entry 1000", memo(1000)),
        ("memo entry 10^30", b"Np1000000000000000000000000000000\n.".to_vec()),
        ("memo entry -1", b"Np-1\n.".to_vec()),
        ("absent memo entry", b"g5\n.".to_vec()),
        ("protocol 6", b"\x80\x06N.".to_vec()),
        (
            "shape 2^62 x 2^62",
            array("(L4611686018427387904L\nL4611686018427387904L\nt", "f8", "", data),
        ),
        ("shape 0 x 2^62", array("(I0\nL4611686018427387904L\nt", "f8", "", "S''\n")),
        ("shape -1", array("(I-1\nt", "f8", "", data)),
        ("shape 2 for one", array("(I2\nt", "f8", "", data)),
        ("65 dimensions", array(&format!("({}t", "I1\n".repeat(65)), "f8", "", data)),
        ("no such type", array("(I1\nt", "x8", "", data)),
        ("type U4294967295", array("(I1\nt", "U4294967295", "", data)),
        ("elements of no bytes", array("(L1000000000L\nt", "U0", "", "S''\n")),
        ("a field outside its record", array("(I1\nt", "V64", record, data)),
        ("objects as bytes", array("(I1\nt", "O8", "", data)),
        ("objects that are missing", array("(I3\nt", "O8", "", "(lI1\na")),
        (
            "an integer of 2^64 - 1",
            array("(I1\nt", "u8", "", "S'\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff'\n"),
        ),
        ("lzma that ends in its header", b"\x5d\0\0".to_vec()),
        ("joblib 0.9", b"ZF0x10".to_vec()),
        ("an empty file", Vec::new()),
        ("text", b"hello\n".to_vec()),
    ]
}

/// Models that refer to one value again and again, or to themselves.
pub(crate) fn shared() -> Vec<(String, Vec<u8>)> {
    let names =
        ["bags", "boosting", "categories", "cycle", "histogram", "layers", "trees", "votes"];
    let file = |name: &str| (name.to_owned(), fixture(&format!("shared-{name}.xz")));
    names.into_iter().map(file).collect()
}
