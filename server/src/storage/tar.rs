//! Reads a tar archive as it comes: headers (ustar, GNU long names, pax records), contents between them.
//!
//! What an archive announces is bounded before it is believed: no name takes more memory than [`LONGEST`].
//! Nothing is written here; where entries may lie is the business of [`super::confined`].

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// Headers and contents come in blocks of this many bytes.
const BLOCK: usize = 512;
/// Most bytes of a name, or of the records that describe an entry.
const LONGEST: u64 = 1 << 20;

/// An archive that is being read.
pub(super) struct Tar<R> {
    inner: R,
    /// Bytes of the entry's content that were not read.
    left: u64,
    /// Bytes after the content up to the next block.
    padding: u64,
}

/// What comes next in an archive.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// As the archive has it: anything.
    pub(super) name: PathBuf,
    pub(super) kind: Kind,
}

/// What an entry is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A file of this many bytes, which [`Tar`] now reads.
    File(u64),
    Directory,
    /// A link to a path, from the directory of the link.
    Symlink(PathBuf),
    /// Another name of an earlier entry.
    HardLink(PathBuf),
    /// A device, a pipe, a file with holes: the letter of its kind.
    Other(char),
}

/// What headers before an entry say about it.
#[derive(Default)]
struct Described {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    sparse: bool,
}

impl<R: Read> Tar<R> {
    pub(super) fn new(inner: R) -> Self {
        Self { inner, left: 0, padding: 0 }
    }

    /// What the archive was read from, where its end is.
    pub(super) fn into_inner(self) -> R {
        self.inner
    }

    /// The next entry; what was not read of the one before is passed over.
    pub(super) fn entry(&mut self) -> io::Result<Option<Entry>> {
        let mut described = Described::default();
        loop {
            self.pass()?;
            let Some(header) = self.header()? else { return Ok(None) };
            let size = number(&header[124..136])?;
            let letter = header[156];
            self.contains(match letter {
                b'L' | b'K' | b'x' | b'g' => size,
                _ => described.size.unwrap_or(size),
            })?;
            match letter {
                b'L' => described.name = Some(until_nul(&self.text()?).to_vec()),
                b'K' => described.link = Some(until_nul(&self.text()?).to_vec()),
                b'x' => described.read(&self.text()?)?,
                // Records for every entry name no files.
                b'g' => {}
                _ => return Ok(Some(self.described(&header, letter, described))),
            }
        }
    }

    fn described(&mut self, header: &[u8; BLOCK], letter: u8, described: Described) -> Entry {
        let path = |bytes: Vec<u8>| PathBuf::from(OsString::from_vec(bytes));
        let name = described.name.unwrap_or_else(|| name(header));
        let directory = name.ends_with(b"/");
        let link = || path(described.link.unwrap_or_else(|| until_nul(&header[157..257]).to_vec()));
        let kind = match letter {
            _ if described.sparse => Kind::Other('S'),
            b'0' | 0 if directory => Kind::Directory,
            b'0' | 0 | b'7' => Kind::File(self.left),
            b'1' => Kind::HardLink(link()),
            b'2' => Kind::Symlink(link()),
            b'5' => Kind::Directory,
            other => Kind::Other(char::from(other)),
        };
        Entry { name: path(name), kind }
    }

    /// A header that is none of nothing but zeros, which end an archive; nor is its end.
    fn header(&mut self) -> io::Result<Option<[u8; BLOCK]>> {
        let mut header = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.inner.read(&mut header[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(wrong("it ends within a header")),
                Ok(length) => filled += length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if header.iter().all(|&byte| byte == 0) {
            return Ok(None);
        }
        let sum: u64 = header.iter().map(|&byte| u64::from(byte)).sum();
        let own: u64 = header[148..156].iter().map(|&byte| u64::from(byte)).sum();
        let spaces = 8 * u64::from(b' ');
        if number(&header[148..156])? != sum - own + spaces {
            return Err(wrong("a header's checksum is wrong: this is no tar archive"));
        }
        Ok(Some(header))
    }

    /// Says that a content of `size` bytes follows.
    fn contains(&mut self, size: u64) -> io::Result<()> {
        let block = BLOCK as u64;
        let padding = (block - size % block) % block;
        if size.checked_add(padding).is_none() {
            return Err(wrong("an entry's size overflows"));
        }
        (self.left, self.padding) = (size, padding);
        Ok(())
    }

    /// Passes over what is left of an entry.
    fn pass(&mut self) -> io::Result<()> {
        let rest = self.left + self.padding;
        (self.left, self.padding) = (0, 0);
        match io::copy(&mut (&mut self.inner).take(rest), &mut io::sink())? {
            passed if passed == rest => Ok(()),
            _ => Err(wrong("it ends within an entry")),
        }
    }

    /// The content of a header's continuation.
    fn text(&mut self) -> io::Result<Vec<u8>> {
        if self.left > LONGEST {
            return Err(wrong("a name is longer than any can be"));
        }
        let mut text = Vec::new();
        self.read_to_end(&mut text)?;
        Ok(text)
    }
}

/// The content of the entry that [`Tar::entry`] gave last.
impl<R: Read> Read for Tar<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if most == 0 {
            return Ok(0);
        }
        let length = self.inner.read(&mut buffer[..most])?;
        if length == 0 {
            return Err(wrong("it ends within a file"));
        }
        self.left -= length as u64;
        Ok(length)
    }
}

impl Described {
    /// Takes pax records: `LENGTH KEY=VALUE\n`, the length counting the whole record.
    fn read(&mut self, mut records: &[u8]) -> io::Result<()> {
        let malformed = || wrong("a pax record is malformed");
        while !records.is_empty() {
            let space = records.iter().position(|&byte| byte == b' ').ok_or_else(malformed)?;
            let digits = std::str::from_utf8(&records[..space]).map_err(|_| malformed())?;
            let length: usize = digits.parse().map_err(|_| malformed())?;
            if length <= space + 1 || length > records.len() {
                return Err(malformed());
            }
            let (record, rest) = records.split_at(length);
            let record = record[space + 1..].strip_suffix(b"\n").ok_or_else(malformed)?;
            let equals = record.iter().position(|&byte| byte == b'=').ok_or_else(malformed)?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            match key {
                b"path" => self.name = Some(value.to_vec()),
                b"linkpath" => self.link = Some(value.to_vec()),
                b"size" => {
                    let text = std::str::from_utf8(value).map_err(|_| malformed())?;
                    self.size = Some(text.parse().map_err(|_| malformed())?);
                }
                key if key.starts_with(b"GNU.sparse.") => self.sparse = true,
                _ => {}
            }
            records = rest;
        }
        Ok(())
    }
}

fn wrong(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|&byte| byte == 0).next().unwrap_or_default()
}

/// The name in a header; POSIX (not GNU) puts the front of a long one elsewhere.
fn name(header: &[u8; BLOCK]) -> Vec<u8> {
    let name = until_nul(&header[..100]);
    let front = until_nul(&header[345..500]);
    if &header[257..263] != b"ustar\0" || front.is_empty() {
        return name.to_vec();
    }
    [front, b"/", name].concat()
}

/// Octal digits, or big-endian bytes when the first has its highest bit set.
fn number(field: &[u8]) -> io::Result<u64> {
    let malformed = || wrong("a header's number is malformed: this is no tar archive");
    if field[0] & 0x80 != 0 {
        // The highest bit marks the form; of what follows, eight bytes are enough for any file.
        let (high, low) = field.split_at(field.len() - 8);
        let Some((0x80, [0, 0, 0])) = high.split_first() else { return Err(malformed()) };
        return Ok(u64::from_be_bytes(low.try_into().expect("split eight bytes before its end")));
    }
    let text = std::str::from_utf8(until_nul(field)).map_err(|_| malformed())?.trim();
    if text.is_empty() {
        return Ok(0);
    }
    u64::from_str_radix(text, 8).map_err(|_| malformed())
}

/// Archives for tests.
#[cfg(test)]
pub(super) mod build {
    use super::BLOCK;

    /// One entry: header, content, padding.
    pub(in super::super) fn entry(letter: u8, name: &str, link: &str, content: &[u8]) -> Vec<u8> {
        let mut header = [0u8; BLOCK];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[100..107].copy_from_slice(b"0000644");
        header[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
        header[156] = letter;
        header[157..157 + link.len()].copy_from_slice(link.as_bytes());
        header[257..265].copy_from_slice(b"ustar\x0000");
        sign(&mut header);
        let mut bytes = header.to_vec();
        bytes.extend(content);
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
        bytes
    }

    /// Writes the checksum.
    pub(in super::super) fn sign(header: &mut [u8]) {
        header[148..156].fill(b' ');
        let sum: u64 = header[..BLOCK].iter().map(|&byte| u64::from(byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }

    pub(in super::super) fn file(name: &str, content: &[u8]) -> Vec<u8> {
        entry(b'0', name, "", content)
    }

    /// Entries with the zeros that end an archive.
    pub(in super::super) fn archive(entries: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = entries.concat();
        bytes.resize(bytes.len() + 2 * BLOCK, 0);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::build::{archive, entry, file, sign};
    use super::*;

    fn read(bytes: &[u8]) -> io::Result<Vec<(Entry, Vec<u8>)>> {
        let mut tar = Tar::new(bytes);
        let mut entries = Vec::new();
        while let Some(entry) = tar.entry()? {
            let mut content = Vec::new();
            tar.read_to_end(&mut content)?;
            entries.push((entry, content));
        }
        Ok(entries)
    }

    fn pax(records: &[(&str, &str)]) -> Vec<u8> {
        let record = |&(key, value): &(&str, &str)| {
            let body = key.len() + value.len() + 3;
            let length = (1..).find(|n: &usize| body + n.to_string().len() == *n).unwrap();
            format!("{length} {key}={value}\n")
        };
        entry(b'x', "pax", "", records.iter().map(record).collect::<String>().as_bytes())
    }

    #[test]
    fn entries_of_every_dialect() {
        let long = "d/".repeat(80) + "file";
        let mut front = file("name", b"");
        front[345..350].copy_from_slice(b"front");
        sign(&mut front);
        let mut large = file("base256", b"12");
        large[124..136].copy_from_slice(&[0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
        sign(&mut large);
        let bytes = archive(&[
            entry(b'g', "global", "", b"13 path=nope\n"),
            file("a", &[7; 513]),
            entry(b'5', "dir/", "", b""),
            entry(b'L', "././@LongLink", "", format!("{long}\0").as_bytes()),
            file("short", b"x"),
            entry(b'K', "././@LongLink", "", format!("{long}\0").as_bytes()),
            entry(b'2', "link", "short", b""),
            pax(&[("path", "pax/name"), ("mtime", "1.5"), ("size", "3")]),
            file("ignored", b"abc"),
            entry(b'1', "hard", "a", b""),
            entry(b'3', "device", "", b""),
            pax(&[("GNU.sparse.major", "1")]),
            file("holes", b""),
            front,
            large,
        ]);
        let got = read(&bytes).unwrap();
        let names: Vec<_> = got.iter().map(|(entry, _)| entry.name.to_str().unwrap()).collect();
        let want = [
            "a",
            "dir/",
            &long,
            "link",
            "pax/name",
            "hard",
            "device",
            "holes",
            "front/name",
            "base256",
        ];
        assert_eq!(names, want);
        let kinds: Vec<_> = got.iter().map(|(entry, _)| &entry.kind).collect();
        assert_eq!(kinds[0], &Kind::File(513));
        assert_eq!(got[0].1, [7; 513]);
        assert_eq!(kinds[1], &Kind::Directory);
        assert_eq!(kinds[3], &Kind::Symlink(long.into()));
        assert_eq!((kinds[4], got[4].1.as_slice()), (&Kind::File(3), b"abc".as_slice()));
        assert_eq!(kinds[5], &Kind::HardLink("a".into()));
        assert_eq!((kinds[6], kinds[7]), (&Kind::Other('3'), &Kind::Other('S')));
        assert_eq!(got[9].1, b"12");
    }

    #[test]
    fn what_is_no_archive_or_half_of_one_is_an_error() {
        let whole = archive(&[file("a", &[7; 600])]);
        let mut huge = file("a", b"");
        huge[124..136]
            .copy_from_slice(&[0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
        sign(&mut huge);
        let mut name = entry(b'L', "x", "", b"");
        name[124..135].copy_from_slice(b"77777777777");
        sign(&mut name);
        for (bytes, part) in [
            (vec![1; 512], "malformed"),
            (whole[..100].to_vec(), "within a header"),
            (whole[..700].to_vec(), "within a file"),
            (huge, "overflows"),
            (name, "longer than any"),
            (entry(b'x', "x", "", b"99 path=x\n"), "pax record"),
            (entry(b'x', "x", "", b"nothing"), "pax record"),
        ] {
            let error = read(&bytes).unwrap_err().to_string();
            assert!(error.contains(part), "{part}: {error}");
        }
        let mut flipped = whole.clone();
        flipped[0] ^= 1;
        assert!(read(&flipped).unwrap_err().to_string().contains("checksum"));
        // No byte at any place makes it panic.
        let long = entry(b'L', "l", "", b"name");
        let odd = archive(&[long, pax(&[("path", "p"), ("size", "1")]), file("a", b"x")]);
        for place in 0..odd.len() {
            for byte in [0, 1, b'7', b'9', 0x80, 0xff] {
                let mut changed = odd.clone();
                changed[place] = byte;
                let _ = read(&changed);
                // Also with a checksum that agrees.
                let header = place / 512 * 512;
                sign(&mut changed[header..]);
                let _ = read(&changed);
            }
        }
        // An archive whose last zeros were left out is one.
        assert_eq!(read(&file("a", b"x")).unwrap().len(), 1);
        assert_eq!(read(b"").unwrap(), []);
    }
}
