//! What can be done to a mapping besides mapping it: `madvise(2)`, `mlock(2)`.
#![cfg_attr(any(target_os = "android", target_os = "linux"), allow(unsafe_code))]

use crate::memory::mapping::Mapping;
use crate::options::{OptionReport, ShMemOptions};

/// Applies to the mapping what the options ask for, and notes what came of it in the report, where
/// all is refused so far.
#[cfg(any(target_os = "android", target_os = "linux"))]
pub(crate) fn apply_options(
    mapping: &mut Mapping,
    options: ShMemOptions,
    report: &mut OptionReport,
) {
    use crate::options::OptionStatus;

    if options.transparent_huge_pages {
        report.transparent_huge_pages = OptionStatus::of(linux::transparent_huge_pages(mapping));
    }
    if options.no_dump {
        report.no_dump = OptionStatus::of(linux::no_dump(mapping));
    }
    if options.prefault {
        report.prefault = OptionStatus::of(linux::prefault(mapping));
    }
    if options.lock {
        report.lock = OptionStatus::of(linux::lock(mapping));
    }
}

/// Elsewhere nothing is done.
#[cfg(not(any(target_os = "android", target_os = "linux")))]
pub(crate) fn apply_options(
    _mapping: &mut Mapping,
    _options: ShMemOptions,
    _grants: &mut OptionReport,
) {
}

/// Makes sure that every page of an existing segment is there, if it consists of huge pages, which
/// do not come from the memory of the machine at large: where one is missing and none is free, the
/// first access raises SIGBUS. Ordinary pages are left as they are.
///
/// # Errors
///
/// [`Error::Foreign`](crate::error::Error::Foreign) if a page is missing.
#[cfg(any(target_os = "android", target_os = "linux"))]
pub(crate) fn populate_or_refuse(mapping: &Mapping) -> crate::error::Result<()> {
    if linux::may_be_of_huge_pages(mapping) {
        linux::populate(mapping)
    } else {
        Ok(())
    }
}

/// Elsewhere no mechanism has pages that can be missing.
#[cfg(not(any(target_os = "android", target_os = "linux")))]
#[allow(dead_code, reason = "not every mechanism needs it")]
#[expect(clippy::unnecessary_wraps, reason = "on Linux it can fail")]
pub(crate) fn populate_or_refuse(_mapping: &Mapping) -> crate::error::Result<()> {
    Ok(())
}

#[cfg(any(target_os = "android", target_os = "linux"))]
mod linux {
    use core::ffi::c_void;
    use core::sync::atomic::AtomicU32;

    use rustix::fs::{Mode, OFlags, open};
    use rustix::io::{Errno, read};
    use rustix::mm::{self, Advice};
    use rustix::thread::{Timespec, futex};

    use crate::error::{Error, Result, Subject};
    use crate::memory::mapping::Mapping;
    use crate::options::HugePages;
    use crate::sys::{advice_is_heeded, failed, page_size};

    /// No page of any machine that we run on is smaller.
    const SMALLEST_PAGE: usize = 4096;

    pub(super) fn prefault(mapping: &mut Mapping) -> Result<()> {
        // As if every page were read, which allocates it all the same, and maps it for writing as
        // well, because it is shared; and which, unlike writing, maps those that exist already
        // sixteen at a time.
        match advise(mapping, Advice::LinuxPopulateRead) {
            // Before Linux 5.14, or in an emulator.
            Err(Errno::INVAL | Errno::NOSYS) => {
                mapping.access().touch_every(SMALLEST_PAGE);
                Ok(())
            }
            done => done.map_err(|errno| {
                let subject = Subject::Bytes(mapping.len());
                failed("madvise(MADV_POPULATE_READ)", errno, subject)
            }),
        }
    }

    /// Whether a shared mapping may consist of huge pages.
    ///
    /// Of these alone the kernel refuses to drop a part: `MADV_DONTNEED` on the second ordinary page
    /// is EINVAL. Of ordinary ones it drops the entry in the page table. It refuses for locked pages
    /// as well, but these are all there already, so to populate them changes nothing. Of a mapping
    /// that has no second page nothing is known; to populate it takes one page.
    pub(super) fn may_be_of_huge_pages(mapping: &Mapping) -> bool {
        /// Such a mapping is aligned to the size of its pages. No machine has smaller huge ones.
        const SMALLEST: usize = if cfg!(any(target_arch = "x86", target_arch = "x86_64")) {
            2 << 20
        } else {
            64 << 10
        };

        if mapping.base().as_ptr().addr() % SMALLEST != 0 || !advice_is_heeded() {
            return false;
        }
        let page = page_size();
        if mapping.len() <= page {
            return true;
        }
        let second = mapping.base().as_ptr().wrapping_add(page).cast::<c_void>();
        // SAFETY: a page of the mapping, which is shared: only the entry in the page table goes; the
        // content stays in the object, and the next access finds it there.
        let done = unsafe { mm::madvise(second, 1, Advice::LinuxDontNeed) };
        done == Err(Errno::INVAL)
    }

    /// Memory that is damaged. The crate libc has it for Linux only; the kernel is the same.
    #[cfg(target_os = "linux")]
    const EHWPOISON: i32 = libc::EHWPOISON;
    #[cfg(target_os = "android")]
    const EHWPOISON: i32 = 133;

    /// Makes sure that every page of the mapping is there.
    pub(super) fn populate(mapping: &Mapping) -> Result<()> {
        let missing = Error::Foreign {
            found: "it consists of huge pages, some of which are missing while none is free, so \
                    that to access them would raise SIGBUS: set more aside \
                    (/proc/sys/vm/nr_hugepages), and make it without SHM_NORESERVE",
        };
        match advise(mapping, Advice::LinuxPopulateRead) {
            Ok(()) => Ok(()),
            Err(Errno::FAULT | Errno::NOMEM) => Err(missing),
            Err(errno) if errno.raw_os_error() == EHWPOISON => Err(Error::Foreign {
                found: "some of its memory is damaged (EHWPOISON)",
            }),
            // Before Linux 5.14, or where it is forbidden.
            Err(_) => read_every_page(mapping).map_err(|_| missing),
        }
    }

    /// Has the kernel read a word of every page: where this process would get SIGBUS, the kernel
    /// answers EFAULT. Whether to wait for a word (`futex(2)`) is a question that it reads one for,
    /// and that needs nothing else, not even a descriptor.
    pub(super) fn read_every_page(mapping: &Mapping) -> Result<(), Errno> {
        /// So that it never waits.
        const NOT_AT_ALL: Timespec = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };

        for offset in (0..mapping.len()).step_by(page_size()) {
            let place = mapping.base().as_ptr().wrapping_add(offset);
            // SAFETY: the address is a multiple of the page size, and a whole page is mapped there; this
            // function reads nothing from it.
            let word = unsafe { AtomicU32::from_ptr(place.cast()) };
            let asked = futex::wait(word, futex::Flags::PRIVATE, 0, Some(&NOT_AT_ALL));
            // Any other answer says that the page is there, whatever its value is.
            if asked == Err(Errno::FAULT) {
                return Err(Errno::FAULT);
            }
        }
        Ok(())
    }

    pub(super) fn transparent_huge_pages(mapping: &Mapping) -> Result<()> {
        if mapping.len() < HugePages::TwoMiB.bytes() {
            return Err(Error::Unsupported {
                what: "the segment is smaller than a huge page",
            });
        }
        if !shmem_may_be_huge() {
            return Err(Error::Unsupported {
                what: "the system is set to give none to shared memory: write `advise` to \
                       /sys/kernel/mm/transparent_hugepage/shmem_enabled",
            });
        }
        advise(mapping, Advice::LinuxHugepage)
            .map_err(|errno| failed("madvise(MADV_HUGEPAGE)", errno, Subject::Nothing))
    }

    pub(super) fn no_dump(mapping: &Mapping) -> Result<()> {
        advise(mapping, Advice::LinuxDontDump)
            .map_err(|errno| failed("madvise(MADV_DONTDUMP)", errno, Subject::Nothing))
    }

    pub(super) fn lock(mapping: &Mapping) -> Result<()> {
        let (base, len) = (mapping.base().as_ptr().cast(), mapping.len());
        // SAFETY: the pages are mapped, and keep their content.
        unsafe { mm::mlock(base, len) }.map_err(|errno| failed("mlock", errno, Subject::Bytes(len)))
    }

    /// For advice that leaves the content as it is, and nothing else.
    fn advise(mapping: &Mapping, advice: Advice) -> Result<(), Errno> {
        if !advice_is_heeded() {
            return Err(Errno::NOSYS);
        }
        let (base, len) = (mapping.base().as_ptr().cast(), mapping.len());
        // SAFETY: the pages are mapped, and the callers pass advice that changes no byte of them.
        unsafe { mm::madvise(base, len, advice) }
    }

    fn shmem_may_be_huge() -> bool {
        const SETTING: &str = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";
        let mut text = [0; 128];
        let setting = open(SETTING, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .and_then(|file| read(file, &mut text))
            .ok()
            .and_then(|len| core::str::from_utf8(text.get(..len)?).ok());
        setting.is_some_and(|setting| !setting.contains("[never]") && !setting.contains("[deny]"))
    }
}

#[cfg(all(test, feature = "std", target_os = "linux"))]
mod tests;
