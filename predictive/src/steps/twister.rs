//! numpy's `RandomState` as far as estimators use it when they answer: the Mersenne Twister (Matsumoto and Nishimura 1998) from
//! a number, and permutations.

const SIZE: usize = 624;
const MIDDLE: usize = 397;

/// The generator.
pub(super) struct Twister {
    state: [u32; SIZE],
    next: usize,
}

impl Twister {
    /// `RandomState(seed)`.
    pub(super) fn new(seed: u32) -> Self {
        let mut state = [seed; SIZE];
        for index in 1..SIZE {
            let before = state[index - 1];
            let mixed = (before ^ (before >> 30)).wrapping_mul(1_812_433_253);
            state[index] = mixed.wrapping_add(index as u32);
        }
        Self { state, next: SIZE }
    }

    fn refill(&mut self) {
        for index in 0..SIZE {
            let joined =
                (self.state[index] & 0x8000_0000) | (self.state[(index + 1) % SIZE] & 0x7fff_ffff);
            let twist = if joined & 1 == 1 { 0x9908_b0df } else { 0 };
            self.state[index] = self.state[(index + MIDDLE) % SIZE] ^ (joined >> 1) ^ twist;
        }
        self.next = 0;
    }

    fn number(&mut self) -> u32 {
        if self.next == SIZE {
            self.refill();
        }
        let mut number = self.state[self.next];
        self.next += 1;
        number ^= number >> 11;
        number ^= (number << 7) & 0x9d2c_5680;
        number ^= (number << 15) & 0xefc6_0000;
        number ^ (number >> 18)
    }

    /// A number up to `greatest`, by rejection.
    fn up_to(&mut self, greatest: u32) -> u32 {
        let mask = u32::MAX.checked_shr(greatest.leading_zeros()).unwrap_or(0);
        loop {
            let number = self.number() & mask;
            if number <= greatest {
                return number;
            }
        }
    }

    /// `permutation(count)`.
    pub(super) fn permutation(&mut self, count: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..count).collect();
        for index in (1..count).rev() {
            let greatest = u32::try_from(index).unwrap_or(u32::MAX);
            order.swap(index, self.up_to(greatest) as usize);
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permutations_are_numpys() {
        let mut random = Twister::new(0);
        assert_eq!(random.permutation(10), [2, 8, 4, 9, 1, 6, 7, 3, 0, 5]);
        assert_eq!(random.permutation(1), [0]);
        assert_eq!(random.permutation(5), [1, 0, 2, 3, 4]);
        assert_eq!(Twister::new(4_294_967_295).number(), 419_326_371);
    }
}
