//! Content of a block as a number: a chained, keyed hash over token ids.
//!
//! SipHash-2-4 with 128 bits of output (Aumasson and Bernstein, "SipHash: a fast short-input PRF",
//! and the reference implementation's 128-bit variant). Keyed, because the tokens come from
//! strangers and a collision would show one of them the cache of another. A block's message is its
//! predecessor's hash, or the salt for the first block, then its tokens in little endian; the two
//! kinds of message differ in length, so they never coincide.

use crate::ids::TokenId;

/// Hash of a block and of everything before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct BlockHash([u64; 2]);

impl BlockHash {
    /// Bits to choose a bucket with; as good as any, since the hash is keyed.
    pub(crate) fn bucket_bits(self) -> u64 {
        self.0[0]
    }
}

/// What a block follows.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Parent {
    /// Nothing: the first block of a sequence with this salt.
    Salt(u64),
    /// The block of this hash.
    Block(BlockHash),
}

/// The hash of the block of `tokens` after `parent`.
pub(crate) fn hash_block(key: [u64; 2], parent: Parent, tokens: &[TokenId]) -> BlockHash {
    let mut sip = Sip128::new(key);
    match parent {
        Parent::Salt(salt) => sip.write(salt),
        Parent::Block(BlockHash([low, high])) => {
            sip.write(low);
            sip.write(high);
        }
    }
    let (pairs, rest) = tokens.as_chunks::<2>();
    for [first, second] in pairs {
        sip.write(u64::from(*first) | u64::from(*second) << 32);
    }
    let (tail, tail_len) = rest.first().map_or((0, 0), |token| (u64::from(*token), 4));
    BlockHash(sip.finish(tail, tail_len))
}

/// SipHash-2-4-128 over 64-bit little-endian words.
struct Sip128 {
    v: [u64; 4],
    /// Bytes written.
    length: u64,
}

impl Sip128 {
    fn new([k0, k1]: [u64; 2]) -> Self {
        // The constants spell "somepseudorandomlygeneratedbytes"; 0xee selects 128 bits of output.
        let v = [
            k0 ^ 0x736f_6d65_7073_6575,
            k1 ^ 0x646f_7261_6e64_6f6d ^ 0xee,
            k0 ^ 0x6c79_6765_6e65_7261,
            k1 ^ 0x7465_6462_7974_6573,
        ];
        Sip128 { v, length: 0 }
    }

    #[inline]
    fn write(&mut self, word: u64) {
        self.v[3] ^= word;
        self.rounds(2);
        self.v[0] ^= word;
        self.length += 8;
    }

    /// Ends the message with the `tail_len < 8` low bytes of `tail`.
    fn finish(mut self, tail: u64, tail_len: u64) -> [u64; 2] {
        let length = self.length + tail_len;
        self.write(tail | length << 56);
        self.v[2] ^= 0xee;
        self.rounds(4);
        let low = self.v.iter().fold(0, |sum, v| sum ^ v);
        self.v[1] ^= 0xdd;
        self.rounds(4);
        [low, self.v.iter().fold(0, |sum, v| sum ^ v)]
    }

    #[inline]
    fn rounds(&mut self, count: u32) {
        let [mut v0, mut v1, mut v2, mut v3] = self.v;
        for _ in 0..count {
            v0 = v0.wrapping_add(v1);
            v1 = v1.rotate_left(13) ^ v0;
            v0 = v0.rotate_left(32);
            v2 = v2.wrapping_add(v3);
            v3 = v3.rotate_left(16) ^ v2;
            v0 = v0.wrapping_add(v3);
            v3 = v3.rotate_left(21) ^ v0;
            v2 = v2.wrapping_add(v1);
            v1 = v1.rotate_left(17) ^ v2;
            v2 = v2.rotate_left(32);
        }
        self.v = [v0, v1, v2, v3];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Key of the published vectors: bytes 0 to 15.
    const KEY: [u64; 2] = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];

    fn sip_bytes(message: &[u8]) -> String {
        let mut sip = Sip128::new(KEY);
        let (words, rest) = message.as_chunks::<8>();
        for word in words {
            sip.write(u64::from_le_bytes(*word));
        }
        let mut tail = [0; 8];
        tail[..rest.len()].copy_from_slice(rest);
        let hash = sip.finish(u64::from_le_bytes(tail), rest.len() as u64);
        hash.iter().flat_map(|word| word.to_le_bytes()).map(|byte| format!("{byte:02x}")).collect()
    }

    /// `vectors_sip128` of the reference implementation: message `0, 1, 2, ..` of the given length.
    #[test]
    fn the_published_vectors_hold() {
        for (length, want) in [
            (0, "a3817f04ba25a8e66df67214c7550293"),
            (1, "da87c1d86b99af44347659119b22fc45"),
            (2, "8177228da4a45dc7fca38bdef60affe4"),
            (7, "a1f1ebbed8dbc153c0b84aa61ff08239"),
            (8, "3b62a9ba6258f5610f83e264f31497b4"),
            (15, "5493e99933b0a8117e08ec0f97cfc3d9"),
            (24, "2db479ae78bd50d8882a8a178a6132ad"),
        ] {
            let message: Vec<u8> = (0..length).collect();
            assert_eq!(sip_bytes(&message), want, "message of {length} bytes");
        }
    }

    #[test]
    fn a_block_is_hashed_as_the_bytes_of_its_message() {
        for len in [1, 2, 3, 16, 17] {
            let tokens: Vec<TokenId> = (0..len).map(|i| i * 0x0102_0305).collect();
            let mut message = 77u64.to_le_bytes().to_vec();
            message.extend(tokens.iter().flat_map(|token| token.to_le_bytes()));
            let BlockHash(words) = hash_block(KEY, Parent::Salt(77), &tokens);
            let got: String = words
                .iter()
                .flat_map(|word| word.to_le_bytes())
                .map(|byte| format!("{byte:02x}"))
                .collect();
            assert_eq!(got, sip_bytes(&message), "{len} tokens");
        }
    }

    #[test]
    fn key_salt_parent_and_tokens_all_count() {
        let tokens = [1, 2, 3, 4];
        let first = hash_block(KEY, Parent::Salt(0), &tokens);
        let others = [
            hash_block([KEY[0], KEY[1] ^ 1], Parent::Salt(0), &tokens),
            hash_block(KEY, Parent::Salt(1), &tokens),
            hash_block(KEY, Parent::Block(BlockHash::default()), &tokens),
            hash_block(KEY, Parent::Block(first), &tokens),
            hash_block(KEY, Parent::Salt(0), &[1, 2, 4, 3]),
            hash_block(KEY, Parent::Salt(0), &[1, 2, 3]),
        ];
        assert!(others.iter().all(|other| *other != first));
        assert_eq!(first, hash_block(KEY, Parent::Salt(0), &tokens));
    }
}
