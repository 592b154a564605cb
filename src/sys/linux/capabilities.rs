//! The capabilities of this process: `capget(2)`.
//!
//! The function of `rustix` passes uninitialised memory, and valgrind does not notice that the kernel writes
//! the upper half of the sets. Reading them from `/proc` needs a descriptor, and there may be none left.
#![allow(unsafe_code)]

/// The version with 64 capabilities, in two halves: Linux 2.6.26 and later (`linux/capability.h`).
const VERSION_3: u32 = 0x2008_0522;

/// Sets of capabilities, one bit per capability (`capabilities(7)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Capabilities {
    pub(super) effective: u64,
    pub(super) permitted: u64,
}

/// The kernel's `struct __user_cap_header_struct`.
#[repr(C)]
struct Header {
    version: u32,
    /// 0 for the calling thread.
    pid: i32,
}

/// The kernel's `struct __user_cap_data_struct`: half of each set.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Half {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

impl Capabilities {
    /// Returns the capabilities of the calling thread, or `None` if the call is forbidden.
    pub(super) fn current() -> Option<Self> {
        let mut header = Header {
            version: VERSION_3,
            pid: 0,
        };
        let mut halves = [Half::default(); 2];
        // SAFETY: the header is valid for reads and writes, and so are the two halves that the kernel writes
        // for this version.
        let result =
            unsafe { libc::syscall(libc::SYS_capget, &raw mut header, halves.as_mut_ptr()) };
        let [low, high] = halves;
        let set = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        (result == 0).then(|| Self {
            effective: set(low.effective, high.effective),
            permitted: set(low.permitted, high.permitted),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::Capabilities;

    #[test]
    fn capabilities_equal_those_in_proc() {
        // Without `/proc` there is nothing to compare with.
        let Ok(status) = fs::read_to_string("/proc/thread-self/status") else {
            return;
        };
        let set = |name| {
            let digits = status.lines().find_map(|line| line.strip_prefix(name));
            digits.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok())
        };
        let current = Capabilities::current();
        assert_eq!(current.map(|sets| sets.effective), set("CapEff:"));
        assert_eq!(current.map(|sets| sets.permitted), set("CapPrm:"));
    }
}
