//! Giving free memory back to the system.
//!
//! The C library's allocator is used as it is: what the agent allocates is a few large buffers a request, and a
//! small allocator of its own would add to the idle size. It keeps freed pages for the next request; after a spike
//! they are returned when the memory watch asks for it.

/// Returns free memory to the system. Takes milliseconds on a large heap and holds up allocations meanwhile, so it
/// is for the memory watch alone. Does nothing where the C library offers no way (it is glibc's).
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code, reason = "one call of the C library that takes and returns plain numbers")]
pub fn release() {
    // SAFETY: `malloc_trim` takes no pointer, and glibc documents it as safe to call from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Returns free memory to the system; this C library offers no way.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn release() {}
