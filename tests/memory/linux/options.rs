//! Options and their reports, and segments with initial content.

use std::{fs, io};

use rustix::fs::FallocateFlags;
use shmem_providers::error::Limit;
use shmem_providers::{
    Error, HugePages, MemfdShMem, MemfdShMemProvider, OptionReport, OptionStatus, ShMem, ShMemId,
    ShMemOptions, ShMemProvider, StdShMemProvider, UnixShMemProvider,
};

use super::any::Tuned;
use super::peer::{Commands, Peer};
use super::smaps::Smaps;
use testkit::{Outcome, mappings, natively, page_size, skip};

/// Why an emulator cannot run some tests.
const WITHOUT_SMAPS: &str = "whose /proc/self/smaps is empty";

const EVERYTHING: ShMemOptions = ShMemOptions::new()
    .try_huge_pages(HugePages::TwoMiB)
    .transparent_huge_pages()
    .prefault()
    .lock()
    .no_dump();

pub(crate) fn what_is_not_asked_for_is_not_granted<P: Tuned>(p: &mut P) -> Outcome {
    let (segment, report) = p.new_shmem_with(65536, ShMemOptions::new())?;
    assert_eq!(report, OptionReport::default());
    assert_eq!(report.refusals().count(), 0);
    let smaps = Smaps::of(segment.as_ptr());
    assert_eq!(smaps.bytes("Rss"), 0);
    assert!(!smaps.has("lo") && !smaps.has("dd") && !smaps.has("hg"));
    let (_, report) = p.shmem_from_id_with(segment.id(), None, ShMemOptions::new())?;
    assert_eq!(report, OptionReport::default());
    Ok(())
}

pub(crate) fn what_is_granted_is_in_effect<P: Tuned>(p: &mut P) -> Outcome {
    natively(WITHOUT_SMAPS)?;
    let size = 1 << 20;
    let (segment, report) = p.new_shmem_with(size, ShMemOptions::new().prefault())?;
    assert_eq!(report.prefault, OptionStatus::Granted);
    assert_eq!(Smaps::of(segment.as_ptr()).bytes("Rss"), size);
    drop(segment);

    let (segment, report) = p.new_shmem_with(size, ShMemOptions::new().no_dump())?;
    assert_eq!(report.no_dump, OptionStatus::Granted);
    let smaps = Smaps::of(segment.as_ptr());
    assert!(smaps.has("dd") && smaps.bytes("Rss") == 0);
    drop(segment);

    // Every user may lock 64 KiB.
    let (segment, report) = p.new_shmem_with(65536, ShMemOptions::new().lock())?;
    match &report.lock {
        OptionStatus::Granted => {
            let smaps = Smaps::of(segment.as_ptr());
            assert!(smaps.has("lo"));
            assert_eq!(smaps.bytes("Locked"), 65536);
        }
        other => assert!(
            matches!(other, OptionStatus::Refused(Error::Os { .. })),
            "{other:?}"
        ),
    }
    Ok(())
}

pub(crate) fn options_change_neither_size_nor_content<P: Tuned>(p: &mut P) -> Outcome {
    for size in [1, 4097, 65536, (2 << 20) + 1, 4 << 20] {
        let (mut segment, report) = p.new_shmem_with(size, EVERYTHING)?;
        assert_ne!(report.prefault, OptionStatus::NotAsked);
        assert!(
            report
                .refusals()
                .all(|(_, reason)| !reason.to_string().is_empty())
        );
        assert_eq!(segment.len(), size);
        assert!(segment.iter().all(|&byte| byte == 0));
        segment[size - 1] = 1;
        let plain = p.shmem_from_id(segment.id())?;
        assert_eq!((plain.len(), plain[size - 1]), (size, 1));
        assert_eq!(p.clone_ref(&segment)?[size - 1], 1);
    }
    for size in [0, isize::MAX as usize + 1] {
        let error = p
            .new_shmem_with(size, EVERYTHING)
            .expect_err("no such size");
        assert_eq!(error, Error::InvalidSize { size });
    }
    Ok(())
}

pub(crate) fn an_attachment_has_options_of_its_own<P: Tuned>(p: &mut P) -> Outcome {
    natively(WITHOUT_SMAPS)?;
    let size = 1 << 20;
    let segment = p.new_shmem(size)?;
    let options = ShMemOptions::new().prefault().no_dump();
    let (attached, report) = p.shmem_from_id_with(segment.id(), None, options)?;
    assert!(report.prefault.is_granted() && report.no_dump.is_granted());
    let smaps = Smaps::of(attached.as_ptr());
    assert!(smaps.has("dd"));
    assert_eq!(smaps.bytes("Rss"), size);
    assert!(!Smaps::of(segment.as_ptr()).has("dd"));

    let (part, _) = p.shmem_from_id_with(segment.id(), Some(5000), EVERYTHING)?;
    assert_eq!(part.len(), 5000);
    let more = p.shmem_from_id_with(segment.id(), Some(size + 1), EVERYTHING);
    let more = more.expect_err("there is less");
    assert_eq!(
        more,
        Error::TooLarge {
            asked: size + 1,
            actual: size
        }
    );
    let required = ShMemOptions::new().require_huge_pages(HugePages::TwoMiB);
    let refused = p.shmem_from_id_with(segment.id(), None, required);
    assert!(
        matches!(refused, Err(Error::Unsupported { .. })),
        "{refused:?}"
    );
    Ok(())
}

pub(crate) fn content_is_there_from_the_start<P: Tuned>(p: &mut P) -> Outcome {
    for size in [1, 100, 4096, 5000, (1 << 20) + 1] {
        let bytes: Vec<u8> = (0..=255).cycle().take(size).collect();
        let mut segment = p.shmem_from_bytes(&bytes)?;
        assert_eq!(segment[..], bytes);
        let mut attached = p.shmem_from_id(segment.id())?;
        assert_eq!(attached[..], bytes);
        attached[0] = 9;
        assert_eq!(segment[0], 9);
        segment[size - 1] = 8;
        assert_eq!(attached[size - 1], 8);
    }
    assert_eq!(
        p.shmem_from_bytes(&[]).expect_err("no bytes"),
        Error::InvalidSize { size: 0 }
    );
    Ok(())
}

pub(crate) fn huge_pages_are_huge_or_refused<P: Tuned>(p: &mut P) -> Outcome {
    let size = 4 << 20;
    let options = ShMemOptions::new().try_huge_pages(HugePages::TwoMiB);
    let (mut segment, report) = p.new_shmem_with(size, options)?;
    segment.fill(1);
    let page = Smaps::of(segment.as_ptr()).bytes("KernelPageSize");
    let reason = match report.huge_pages {
        OptionStatus::Granted => {
            assert_eq!(page, HugePages::TwoMiB.bytes());
            return Ok(());
        }
        OptionStatus::Refused(reason) => reason,
        OptionStatus::NotAsked => return Err("the option was requested".into()),
    };
    assert_eq!(page, page_size());
    let options = ShMemOptions::new().require_huge_pages(HugePages::TwoMiB);
    match &p.new_shmem_with(size, options) {
        Err(error) => assert_eq!(error.raw_os_error(), reason.raw_os_error()),
        // The default has a second mechanism to try.
        Ok((_, report)) => assert_eq!(report.huge_pages, OptionStatus::Granted),
    }
    Ok(())
}

/// A mechanism without huge pages is not given up.
pub(crate) fn failed_requirements_leave_nothing() -> Outcome {
    let mut p = StdShMemProvider::new()?;
    let before = p.new_shmem(1)?.mechanism();
    let files = super::open();
    // The size is no multiple of 1 GiB, so that existing pages of that size cannot be used either.
    let options = ShMemOptions::new().require_huge_pages(HugePages::OneGiB);
    let memfd = StdShMemProvider::with_mechanism(shmem_providers::Mechanism::Memfd);
    let error = memfd.clone().new_shmem_with(4096, options);
    if let Err(error) = error {
        assert!(matches!(error, Error::Unsupported { .. }), "{error:?}");
    } else {
        return Err("a page of 1 GiB was used for 4 KiB".into());
    }
    for _ in 0..3 {
        let _ = p.new_shmem_with(4096, options);
        let _ = p.new_shmem_with(1 << 30, options);
    }
    assert_eq!(super::open(), files);
    assert_eq!(p.new_shmem(1)?.mechanism(), before);
    Ok(())
}

pub(crate) fn a_refusal_names_the_limit() -> Outcome {
    let mut peer = Peer::start();
    let answer = peer.lock(1 << 20, 64 << 10)?;
    if answer == "granted" {
        return skip("this user may lock any amount of memory");
    }
    assert!(answer.contains("mlock (1048576 bytes)"), "{answer}");
    assert!(answer.contains("RLIMIT_MEMLOCK is 65536 bytes"), "{answer}");

    if free_huge_pages() == 0 && !exist_on_demand() {
        let options = ShMemOptions::new().try_huge_pages(HugePages::TwoMiB);
        let (_, report) = MemfdShMemProvider::new()?.new_shmem_with(2 << 20, options)?;
        let OptionStatus::Refused(Error::Os { limit, .. }) = report.huge_pages else {
            return Err(format!("{report:?}").into());
        };
        let none_free = Limit::HugePages {
            size: 2 << 20,
            free: 0,
        };
        assert!(limit.is_none_or(|limit| limit == none_free), "{limit:?}");
    }
    Ok(())
}

pub(crate) fn whole_huge_pages_are_unmapped() -> Outcome {
    let _alone = match huge_pages_alone() {
        Ok(alone) => alone,
        Err(error) => return skip(format!("no huge pages: {error}")),
    };
    let mut p = MemfdShMemProvider::new()?;
    let options = ShMemOptions::new().require_huge_pages(HugePages::TwoMiB);
    let mut segment = match p.new_shmem_with(4 << 20, options) {
        Ok((segment, _)) => segment,
        Err(error) => return skip(format!("no huge pages: {error}")),
    };
    segment[4095] = 7;
    let before = mappings();
    for size in [
        1,
        4096,
        65536,
        (2 << 20) - 1,
        2 << 20,
        (2 << 20) + 1,
        4 << 20,
    ] {
        let part = p.shmem_from_id_and_size(segment.id(), size)?;
        assert_eq!(
            (part.len(), part.get(4095).copied().unwrap_or(7)),
            (size, 7)
        );
        drop(part);
        assert_eq!(mappings(), before, "{size}");
    }
    let (whole, report) = p.shmem_from_id_with(segment.id(), None, options)?;
    assert!(report.huge_pages.is_granted());
    assert_eq!(whole.len(), 4 << 20);
    Ok(())
}

/// Accessing a page that is neither reserved nor free would raise SIGBUS.
pub(crate) fn huge_pages_that_nobody_reserved_are_refused() -> Outcome {
    natively("which has no huge pages")?;
    let _alone = match huge_pages_alone() {
        Ok(alone) => alone,
        Err(error) => return skip(format!("no huge pages: {error}")),
    };
    if exist_on_demand() {
        return skip("there are huge pages on demand");
    }
    let _all = match all_huge_pages() {
        Ok(all) => all,
        Err(error) => return skip(error),
    };
    let flags = libc::IPC_CREAT | libc::SHM_HUGETLB | libc::SHM_NORESERVE | 0o600;
    // SAFETY: the call takes no pointer.
    let number = unsafe { libc::shmget(libc::IPC_PRIVATE, 4 << 20, flags) };
    if number == -1 {
        let error = io::Error::last_os_error();
        return skip(format!("no System V segment of huge pages: {error}"));
    }
    let mut p = UnixShMemProvider::new()?;
    let id = ShMemId::from_int(number);
    let before = mappings();
    let refused = [
        p.shmem_from_id(id).err(),
        p.shmem_from_id_and_size(id, 1).err(),
        p.shmem_from_id_and_size(id, (2 << 20) + 1).err(),
    ];
    let after = mappings();
    // SAFETY: this command does not use the pointer.
    unsafe { libc::shmctl(number, libc::IPC_RMID, std::ptr::null_mut()) };
    for refused in refused {
        assert!(
            matches!(refused, Some(Error::Foreign { .. })),
            "{refused:?}"
        );
    }
    assert_eq!(after, before);
    Ok(())
}

/// A peer has freed one of the pages, and another segment has it now.
pub(crate) fn missing_huge_page_is_reported() -> Outcome {
    let _alone = match huge_pages_alone() {
        Ok(alone) => alone,
        Err(error) => return skip(format!("no huge pages: {error}")),
    };
    let mut p = MemfdShMemProvider::new()?;
    let options = ShMemOptions::new().require_huge_pages(HugePages::TwoMiB);
    let mut segment = match p.new_shmem_with(4 << 20, options) {
        Ok((segment, _)) => segment,
        Err(error) => return skip(format!("no huge pages: {error}")),
    };
    if exist_on_demand() {
        return skip("there are huge pages on demand");
    }
    segment.fill(7);
    let attached = p.shmem_from_id(segment.id())?;
    assert!(attached.iter().all(|&byte| byte == 7));
    drop(attached);
    let peer = super::snapshot::file_of(segment.id())?;
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(&peer, flags, 0, 2 << 20)?;
    let all = all_huge_pages()?;
    let refused = p.shmem_from_id(segment.id());
    assert!(
        matches!(
            refused,
            Err(Error::Os {
                limit: Some(Limit::HugePages { free: 0, .. }),
                ..
            })
        ),
        "{refused:?}"
    );
    drop(all);
    let attached = p.shmem_from_id(segment.id())?;
    assert_eq!((attached[0], attached[2 << 20]), (0, 7));
    // The page exists again, and stays.
    let _all = all_huge_pages()?;
    assert_eq!(segment[5], 0);
    Ok(())
}

/// Locks the huge pages of this machine for a test, also against other runs of this program.
pub(crate) fn huge_pages_alone() -> io::Result<fs::File> {
    let file = fs::File::open("/proc/sys/vm/nr_hugepages")?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive)?;
    Ok(file)
}

/// Takes all free huge pages.
fn all_huge_pages() -> Result<Vec<MemfdShMem>, Error> {
    let mut p = MemfdShMemProvider::new()?;
    let options = ShMemOptions::new().require_huge_pages(HugePages::TwoMiB);
    let more = std::iter::repeat_with(|| p.new_shmem_with(2 << 20, options));
    // More than any machine that runs tests has.
    let all = more.map_while(Result::ok).map(|(segment, _)| segment);
    Ok(all.take(10_000).collect())
}

pub(crate) fn transparent_huge_pages_are_aligned() -> Outcome {
    let mut p = MemfdShMemProvider::new()?;
    let options = ShMemOptions::new().transparent_huge_pages();
    let files = super::open();
    for size in [2 << 20, (2 << 20) + 1, 8 << 20] {
        let (segment, report) = p.new_shmem_with(size, options)?;
        if let OptionStatus::Refused(reason) = report.transparent_huge_pages {
            return skip(reason);
        }
        assert_eq!(segment.as_ptr().addr() % HugePages::TwoMiB.bytes(), 0);
        assert!(Smaps::of(segment.as_ptr()).has("hg"));
        let (attached, _) = p.shmem_from_id_with(segment.id(), None, options)?;
        assert_eq!(attached.as_ptr().addr() % HugePages::TwoMiB.bytes(), 0);
        drop((segment, attached));
        assert_eq!(super::open(), files);
    }
    let (_, report) = p.new_shmem_with((2 << 20) - 1, options)?;
    assert!(matches!(
        report.transparent_huge_pages,
        OptionStatus::Refused(_)
    ));
    Ok(())
}

fn number(path: &str) -> u64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

fn free_huge_pages() -> u64 {
    number("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages")
}

/// Returns `true` if the kernel can allocate huge pages beyond those set aside.
fn exist_on_demand() -> bool {
    number("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_overcommit_hugepages") > 0
}
