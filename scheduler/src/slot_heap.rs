//! A binary heap of sequence slots from which any slot can be removed.
//!
//! Waiting sequences, deadlines and ages are each one of these: every operation is O(log n), so a
//! storm of cancellations stays linear, and nothing allocates after [`SlotHeap::add_slot`].

/// Not in the heap.
const ABSENT: u32 = u32::MAX;

/// Slots ordered by a key, smallest first. Keys should be distinct where order matters.
#[derive(Debug)]
pub(crate) struct SlotHeap<K> {
    entries: Vec<(K, u32)>,
    /// Index into `entries` by slot.
    positions: Vec<u32>,
}

impl<K: Ord + Copy> SlotHeap<K> {
    /// Empty, for no slots.
    pub(crate) fn new() -> Self {
        SlotHeap { entries: Vec::new(), positions: Vec::new() }
    }

    /// Makes room for one more slot. The only function that allocates.
    pub(crate) fn add_slot(&mut self) {
        self.positions.push(ABSENT);
        self.entries.reserve(self.positions.len() - self.entries.len());
    }

    /// Entries in the heap.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing is in the heap.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether `slot` is in the heap.
    pub(crate) fn contains(&self, slot: u32) -> bool {
        self.positions[slot as usize] != ABSENT
    }

    /// The entry with the smallest key.
    pub(crate) fn peek(&self) -> Option<(K, u32)> {
        self.entries.first().copied()
    }

    /// Adds a slot that is not in the heap.
    pub(crate) fn push(&mut self, slot: u32, key: K) {
        debug_assert!(!self.contains(slot), "slot {slot} is in the heap already");
        let index = self.entries.len();
        self.entries.push((key, slot));
        self.positions[slot as usize] = index as u32;
        self.sift_up(index);
    }

    /// Takes a slot out; false when it was not in the heap.
    pub(crate) fn remove(&mut self, slot: u32) -> bool {
        let index = self.positions[slot as usize];
        if index == ABSENT {
            return false;
        }
        let index = index as usize;
        self.entries.swap_remove(index);
        self.positions[slot as usize] = ABSENT;
        if index < self.entries.len() {
            self.positions[self.entries[index].1 as usize] = index as u32;
            self.sift_up(index);
            self.sift_down(index);
        }
        true
    }

    /// Panics when the order or the positions are wrong.
    pub(crate) fn check(&self) {
        for (index, (key, slot)) in self.entries.iter().enumerate() {
            assert_eq!(self.positions[*slot as usize], index as u32, "position of slot {slot}");
            assert!(index == 0 || self.entries[(index - 1) / 2].0 <= *key, "heap order at {index}");
        }
        let present = self.positions.iter().filter(|&&position| position != ABSENT).count();
        assert_eq!(present, self.entries.len(), "slots with a position");
    }

    fn sift_up(&mut self, mut index: usize) {
        while index > 0 {
            let parent = (index - 1) / 2;
            if self.entries[parent].0 <= self.entries[index].0 {
                break;
            }
            self.swap(index, parent);
            index = parent;
        }
    }

    fn sift_down(&mut self, mut index: usize) {
        loop {
            let left = 2 * index + 1;
            let Some(&(left_key, _)) = self.entries.get(left) else { break };
            let right_is_smaller =
                self.entries.get(left + 1).is_some_and(|&(right_key, _)| right_key < left_key);
            let child = if right_is_smaller { left + 1 } else { left };
            if self.entries[index].0 <= self.entries[child].0 {
                break;
            }
            self.swap(index, child);
            index = child;
        }
    }

    fn swap(&mut self, a: usize, b: usize) {
        self.entries.swap(a, b);
        self.positions[self.entries[a].1 as usize] = a as u32;
        self.positions[self.entries[b].1 as usize] = b as u32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_out_in_order_of_their_keys_after_removals() {
        let mut heap = SlotHeap::new();
        let keys: Vec<u32> = (0..97).map(|slot| (slot * 41 + 13) % 97).collect();
        for (slot, key) in keys.iter().enumerate() {
            heap.add_slot();
            heap.push(slot as u32, *key);
            heap.check();
        }
        for slot in (0..97).step_by(3) {
            assert!(heap.remove(slot));
            assert!(!heap.remove(slot), "a slot leaves once");
            heap.check();
        }
        let mut want: Vec<u32> = (0..97).filter(|slot| slot % 3 != 0).map(|s| keys[s]).collect();
        want.sort_unstable();
        let mut got = Vec::new();
        while let Some((key, slot)) = heap.peek() {
            assert!(heap.contains(slot));
            got.push(key);
            heap.remove(slot);
            heap.check();
        }
        assert_eq!(got, want);
        assert!(heap.is_empty());
    }
}
