//! Who goes first, and who is preempted.
//!
//! Both questions have one answer: sequences are ranked, the smallest rank is admitted and served
//! first, the largest is preempted first. An enum rather than a trait until a third policy exists.

/// Order of the waiting queue, and the victim of preemption.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// First come, first served; the newest running sequence is preempted.
    #[default]
    FirstCome,
    /// Smaller `priority` first, then arrival; the largest (priority, arrival) is preempted.
    Priority,
}

/// Position in the order of service; smaller is earlier. No two live sequences share one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    priority: i64,
    arrival: u64,
}

impl Rank {
    /// How many sequences were accepted before this one.
    pub(crate) fn arrival(self) -> u64 {
        self.arrival
    }
}

impl Policy {
    /// The rank of the `arrival`-th accepted sequence.
    pub(crate) fn rank(self, priority: i64, arrival: u64) -> Rank {
        match self {
            Policy::FirstCome => Rank { priority: 0, arrival },
            Policy::Priority => Rank { priority, arrival },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_come_ignores_priorities() {
        assert!(Policy::FirstCome.rank(9, 1) < Policy::FirstCome.rank(-9, 2));
    }

    #[test]
    fn priority_goes_before_arrival() {
        assert!(Policy::Priority.rank(-1, 2) < Policy::Priority.rank(0, 1));
        assert!(Policy::Priority.rank(0, 1) < Policy::Priority.rank(0, 2));
    }
}
