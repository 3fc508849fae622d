//! How the C library's allocator gives memory back: pictures come and go in sizes of every kind.

/// What is larger is mapped by itself and goes back to the system when it is freed. Left alone, the
/// threshold follows the largest picture freed, and what many pictures leave behind is torn to pieces:
/// 20 000 broken ones grew a service from 57 MB to 76 MB, and from 53 to 55 with these two settings.
#[cfg(target_env = "gnu")]
const MAPPED_FROM_BYTES: libc::c_int = 128 * 1024;

/// Heaps for threads to share; one each keeps what the busiest moment took.
#[cfg(target_env = "gnu")]
const ARENAS_MAX: libc::c_int = 4;

/// Before any thread is started. An operator's `MALLOC_…` variables are overruled.
pub fn settle() {
    #[cfg(target_env = "gnu")]
    // SAFETY: plain numbers, before other threads exist; a refusal leaves the default.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_FROM_BYTES);
        libc::mallopt(libc::M_ARENA_MAX, ARENAS_MAX);
    }
}
