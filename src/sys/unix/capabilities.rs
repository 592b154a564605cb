//! The capabilities of this process: `capget(2)`.
//!
//! Not rustix's, which passes memory that is not initialised: valgrind believes that the upper half of the
//! sets stays so. Not `/proc`, which takes a descriptor: this has an answer when there is none left.
#![allow(unsafe_code)]

/// The version with 64 capabilities, in two halves, which every kernel since 2.6.26 has
/// (`linux/capability.h`).
const VERSION_3: u32 = 0x2008_0522;

/// Sets of capabilities, one bit for each (`capabilities(7)`).
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
    /// Those of the calling thread; `None` where the call is forbidden.
    pub(super) fn own() -> Option<Self> {
        let mut header = Header {
            version: VERSION_3,
            pid: 0,
        };
        let mut halves = [Half::default(); 2];
        // SAFETY: the header is valid for reads and writes, and of this version the kernel writes two
        // halves.
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
    fn they_are_those_that_proc_tells() {
        // Without `/proc` there is nothing to compare with.
        let Ok(status) = fs::read_to_string("/proc/thread-self/status") else {
            return;
        };
        let set = |name| {
            let digits = status.lines().find_map(|line| line.strip_prefix(name));
            digits.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok())
        };
        let own = Capabilities::own();
        assert_eq!(own.map(|own| own.effective), set("CapEff:"));
        assert_eq!(own.map(|own| own.permitted), set("CapPrm:"));
    }
}
