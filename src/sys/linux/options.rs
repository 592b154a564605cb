//! What options change about a mapping: `madvise(2)`, `mlock(2)`.
#![allow(unsafe_code)]

use core::ffi::c_void;
use core::sync::atomic::AtomicU32;

use rustix::fs::{Mode, OFlags, open};
use rustix::io::{Errno, read};
use rustix::mm::{self, Advice};
use rustix::thread::{Timespec, futex};

use super::{advice_is_heeded, page_size};
use crate::error::{Error, Result, Subject};
use crate::memory::mapping::Mapping;
use crate::options::{HugePages, OptionReport, OptionStatus, ShMemOptions};
use crate::sys::{failed, failed_for, limits};

/// The smallest page size of the machines that Linux supports.
const SMALLEST_PAGE: usize = 4096;

/// Applies the options to the mapping, and records in the report which of them took effect.
pub(crate) fn apply_options(
    mapping: &mut Mapping,
    options: ShMemOptions,
    report: &mut OptionReport,
) {
    if options.transparent_huge_pages {
        report.transparent_huge_pages = status(transparent_huge_pages(mapping));
    }
    if options.no_dump {
        report.no_dump = status(no_dump(mapping));
    }
    if options.prefault {
        report.prefault = status(prefault(mapping));
    }
    if options.lock {
        report.lock = status(lock(mapping));
    }
}

/// Makes every page of an existing segment present, if it consists of huge pages. Those do not come
/// from the general memory of the system: where one is missing and none is free, the first access
/// raises SIGBUS. Ordinary pages are left as they are.
///
/// # Errors
///
/// [`Error::Foreign`] if a page is missing.
pub(crate) fn populate_or_refuse(mapping: &Mapping) -> Result<()> {
    if may_be_of_huge_pages(mapping) {
        populate(mapping)
    } else {
        Ok(())
    }
}

/// Converts the result of applying an option.
fn status(result: Result<()>) -> OptionStatus {
    result.map_or_else(OptionStatus::Refused, |()| OptionStatus::Granted)
}

fn prefault(mapping: &mut Mapping) -> Result<()> {
    // This acts as if every page were read. In a shared mapping that allocates the page and maps it
    // for writing, too. Unlike writing, it maps pages that exist already sixteen at a time.
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

/// Returns `false` if a shared mapping certainly consists of ordinary pages.
///
/// Only of huge pages does the kernel refuse to drop a part: `MADV_DONTNEED` on the second ordinary
/// page fails with EINVAL. Of ordinary pages it drops the page table entry. It also refuses for
/// locked pages, but those are all present, so populating them changes nothing. If there is no
/// second page, the answer is `true`, and populating takes one page.
fn may_be_of_huge_pages(mapping: &Mapping) -> bool {
    /// The smallest huge pages of this kind of machine, to whose size their mappings are aligned.
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
    // SAFETY: the address is within the mapping, which is shared. Only the page table entry is
    // dropped: the content stays in the object, and the next access maps it again.
    let done = unsafe { mm::madvise(second, 1, Advice::LinuxDontNeed) };
    done == Err(Errno::INVAL)
}

/// The memory is damaged. The crate libc defines it for Linux only; Android's kernel is the same.
#[cfg(target_os = "linux")]
const EHWPOISON: i32 = libc::EHWPOISON;
#[cfg(target_os = "android")]
const EHWPOISON: i32 = 133;

/// Makes every page of the mapping present.
fn populate(mapping: &Mapping) -> Result<()> {
    let missing = Error::Foreign {
        found: "it consists of huge pages, some of which are missing while none is free, so that \
                accessing them would raise SIGBUS: set more aside (/proc/sys/vm/nr_hugepages), and \
                create it without SHM_NORESERVE",
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

/// Makes the kernel read a word of every page. Where an access by this process would raise SIGBUS,
/// the kernel returns EFAULT.
///
/// Waiting for a word (`futex(2)`) reads it, and needs nothing else, not even a file descriptor.
fn read_every_page(mapping: &Mapping) -> Result<(), Errno> {
    /// A timeout that has passed already, so that the call never blocks.
    const NO_TIME: Timespec = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };

    for offset in (0..mapping.len()).step_by(page_size()) {
        let address = mapping.base().as_ptr().wrapping_add(offset);
        // SAFETY: the address is a multiple of the page size, and the page that starts there is
        // mapped as long as `mapping` exists. This function does not read the word itself.
        let word = unsafe { AtomicU32::from_ptr(address.cast()) };
        let waited = futex::wait(word, futex::Flags::PRIVATE, 0, Some(&NO_TIME));
        // Any other result means that the page is present, whatever its value.
        if waited == Err(Errno::FAULT) {
            return Err(Errno::FAULT);
        }
    }
    Ok(())
}

fn transparent_huge_pages(mapping: &Mapping) -> Result<()> {
    if mapping.len() < HugePages::TwoMiB.bytes() {
        return Err(Error::Unsupported {
            what: "the segment is smaller than a huge page",
        });
    }
    if !shmem_may_be_huge() {
        return Err(Error::Unsupported {
            what: "the system is configured to use none for shared memory: write `advise` to \
                   /sys/kernel/mm/transparent_hugepage/shmem_enabled",
        });
    }
    advise(mapping, Advice::LinuxHugepage)
        .map_err(|errno| failed("madvise(MADV_HUGEPAGE)", errno, Subject::Nothing))
}

/// Also applies to what is not committed yet.
fn no_dump(mapping: &Mapping) -> Result<()> {
    advise_first(mapping, mapping.mapped(), Advice::LinuxDontDump)
        .map_err(|errno| failed("madvise(MADV_DONTDUMP)", errno, Subject::Nothing))
}

fn lock(mapping: &Mapping) -> Result<()> {
    let (base, len) = (mapping.base().as_ptr().cast(), mapping.len());
    // SAFETY: the pages are mapped as long as `mapping` exists, and locking does not change their
    // content.
    unsafe { mm::mlock(base, len) }
        .map_err(|errno| failed_for("mlock", errno, Subject::Bytes(len), limits::for_lock))
}

/// Gives advice that does not change the content of the mapping.
fn advise(mapping: &Mapping, advice: Advice) -> Result<(), Errno> {
    advise_first(mapping, mapping.len(), advice)
}

/// Does so for the first `len` bytes that are mapped.
fn advise_first(mapping: &Mapping, len: usize, advice: Advice) -> Result<(), Errno> {
    if !advice_is_heeded() {
        return Err(Errno::NOSYS);
    }
    let base = mapping.base().as_ptr().cast();
    // SAFETY: the pages are mapped as long as `mapping` exists, and the callers pass only advice
    // that does not change their content.
    unsafe { mm::madvise(base, len, advice) }
}

/// Returns `true` if the system is configured to use transparent huge pages for shared memory.
fn shmem_may_be_huge() -> bool {
    const SETTING: &str = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";
    let mut text = [0; 128];
    let setting = open(SETTING, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .and_then(|file| read(file, &mut text))
        .ok()
        .and_then(|len| core::str::from_utf8(text.get(..len)?).ok());
    setting.is_some_and(|setting| !setting.contains("[never]") && !setting.contains("[deny]"))
}

#[cfg(all(test, feature = "std", target_os = "linux"))]
mod tests;
