//! Huge pages under large buffers: a small page costs a page walk each 4 KiB and a fault each on first touch.

use std::mem::MaybeUninit;

/// Asks for huge pages under a buffer that is still untouched.
#[cfg(target_os = "linux")]
pub(crate) fn advise_huge<T>(buffer: &mut [MaybeUninit<T>]) {
    const HUGE: usize = 2 << 20;
    let bytes = size_of_val(buffer);
    let skip = buffer.as_ptr().cast::<u8>().align_offset(HUGE);
    if cfg!(miri) || bytes < skip.saturating_add(HUGE) {
        return;
    }
    let start = buffer.as_mut_ptr().wrapping_byte_add(skip);
    // SAFETY: the range lies within our own allocation, and the advice changes no contents. A
    // refusal (an error code) leaves small pages, which is as correct.
    unsafe { libc::madvise(start.cast(), (bytes - skip) / HUGE * HUGE, libc::MADV_HUGEPAGE) };
}

/// Asks for nothing: other systems choose their pages themselves.
#[cfg(not(target_os = "linux"))]
pub(crate) fn advise_huge<T>(_: &mut [MaybeUninit<T>]) {}
