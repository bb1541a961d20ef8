//! How often code of ours panicked, caught or not.

use std::panic;
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

static COUNT: AtomicU64 = AtomicU64::new(0);

/// Counts panics of this process from now on; they are still printed as before.
pub fn watch() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let print = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            COUNT.fetch_add(1, Relaxed);
            print(info);
        }));
    });
}

/// Panics since [`watch`].
pub(super) fn count() -> u64 {
    COUNT.load(Relaxed)
}

#[cfg(test)]
mod tests {
    #[test]
    fn caught_panics_count() {
        super::watch();
        super::watch();
        let before = super::count();
        assert!(std::panic::catch_unwind(|| panic!("on purpose")).is_err());
        assert!(super::count() > before);
    }
}
