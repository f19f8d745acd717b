//! The heap of a process that serves for long: what is no longer needed goes back to the system.
//!
//! glibc gives each thread an arena of its own, up to eight for each core, and gives back what is free
//! at the end of one. After copies in many sessions, or a thousand orders at the same time, the process
//! would keep the memory of all of them.

use std::io;
use std::thread;
use std::time::Duration;

/// Enough for threads that mostly copy.
const ARENAS: libc::c_int = 2;
/// What is longer has pages of its own, which go back as soon as it is freed. Without this line the
/// limit grows up to 32 MiB with what is freed.
const OWN_PAGES: libc::c_int = 256 << 10;
/// So much that is free at its end an arena keeps: a copy frees and takes less.
const SPARE: libc::c_int = 1 << 20;
/// It takes microseconds where little is free.
const PERIOD: Duration = Duration::from_secs(2);

/// Gives back what is free every two seconds, on a thread.
///
/// # Errors
/// The thread cannot be started.
pub fn trim_regularly() -> io::Result<()> {
    thread::Builder::new().name("heap".to_owned()).spawn(run).map(drop)
}

/// The same with few arenas, for a process whose threads mostly copy. To be called before there are
/// others: their arenas exist as soon as they allocate.
///
/// # Errors
/// The thread cannot be started.
pub fn keep_small() -> io::Result<()> {
    for (option, value) in [
        (libc::M_ARENA_MAX, ARENAS),
        (libc::M_MMAP_THRESHOLD, OWN_PAGES),
        (libc::M_TRIM_THRESHOLD, SPARE),
    ] {
        // SAFETY: it takes two numbers, and sets an option of the allocator under its lock.
        #[allow(unsafe_code)]
        let _ = unsafe { libc::mallopt(option, value) };
    }
    trim_regularly()
}

fn run() {
    loop {
        thread::sleep(PERIOD);
        trim();
    }
}

/// Gives back all pages that nothing is in.
fn trim() {
    // SAFETY: it takes a number, and touches free memory alone, under the locks of the arenas.
    #[allow(unsafe_code)]
    let _ = unsafe { libc::malloc_trim(0) };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resident_kib() -> usize {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    #[test]
    fn what_is_free_between_other_things_goes_back() {
        let (pieces, others): (Vec<Vec<u8>>, Vec<Box<[u8; 64]>>) =
            (0..8_192).map(|_| (vec![1; 16 << 10], Box::new([1; 64]))).unzip();
        drop(pieces);
        let before = resident_kib();
        trim();
        let after = resident_kib();
        // Of 128 MiB.
        assert!(before > after + (64 << 10), "{before} KiB, then {after}");
        drop(others);
    }
}
