//! What can be done to a mapping besides mapping it: `madvise(2)`, `mlock(2)`.
#![cfg_attr(any(target_os = "android", target_os = "linux"), allow(unsafe_code))]

use crate::mapping::Mapping;
use crate::options::{Grants, ShMemOptions};

/// Applies to the mapping what the options ask for, and notes what came of it in the grants, where
/// all is refused so far.
#[cfg(any(target_os = "android", target_os = "linux"))]
pub(crate) fn tune(mapping: &mut Mapping, options: ShMemOptions, grants: &mut Grants) {
    use crate::options::Grant;

    if options.transparent_huge_pages {
        grants.transparent_huge_pages = Grant::of(linux::transparent_huge_pages(mapping));
    }
    if options.no_dump {
        grants.no_dump = Grant::of(linux::no_dump(mapping));
    }
    if options.prefault {
        grants.prefault = Grant::of(linux::prefault(mapping));
    }
    if options.lock {
        grants.lock = Grant::of(linux::lock(mapping));
    }
}

/// Elsewhere nothing is done.
#[cfg(not(any(target_os = "android", target_os = "linux")))]
pub(crate) fn tune(_mapping: &mut Mapping, _options: ShMemOptions, _grants: &mut Grants) {}

#[cfg(any(target_os = "android", target_os = "linux"))]
mod linux {
    use rustix::fs::{Mode, OFlags, open};
    use rustix::io::{Errno, read};
    use rustix::mm::{self, Advice};

    use crate::error::{Error, Result, Subject};
    use crate::mapping::Mapping;
    use crate::options::HugePages;
    use crate::sys::{advice_is_heeded, failed};

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
