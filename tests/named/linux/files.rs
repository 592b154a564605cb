//! What another program of this user could put where an entry belongs.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use rustix::fs::{CWD, FileType, FlockOperation, Mode, flock, mknodat};
use shmem_providers::error::NamedError;
use shmem_providers::{MmapShMemProvider, ShMem, ShMemProvider};
use testkit::{Outcome, if_lacking, name_exists};

use super::peer::{SIZE, initialise, initialised_by};
use super::users::entry_of;
use super::{Names, reason};

/// Returns the bytes of an entry of this name, size and id.
fn entry(id: &str, size: u64, name: &str) -> Vec<u8> {
    let mut bytes = b"shmem-n1".to_vec();
    bytes.extend(id.as_bytes());
    bytes.resize(28, 0);
    bytes.extend(size.to_le_bytes());
    bytes.push(0);
    bytes.extend(name.as_bytes());
    bytes
}

pub(crate) fn damaged_entries_are_replaced() -> Outcome {
    let here = Names::new()?;
    let file = here.path().join(entry_of("a")?);
    let good = entry("m000000000000000000", 64, "a");
    let mut contents = vec![
        Vec::new(),
        vec![0; 100],
        vec![0xff; 237],
        vec![b'x'; 100_000],
        good[..37].to_vec(),
        [&good[..], &[b'a'; 200]].concat(),
        [&good[..], &[0xff]].concat(),
        entry("m000000000000000000", u64::MAX, "a"),
        good.clone(),
    ];
    contents.extend((0..good.len()).map(|end| good[..end].to_vec()));
    for content in contents {
        fs::write(&file, &content)?;
        assert_eq!(
            reason(here.options().open("a")),
            NamedError::Unknown,
            "{content:?}"
        );
        fs::write(&file, &content)?;
        let mut named = here.options().open_or_create("a", SIZE, initialise)?;
        assert!(named.is_creator());
        initialised_by(&mut named)?;
        assert_eq!(named.len(), SIZE);
        assert_eq!(here.files().len(), 1);
        drop(named);
        assert_eq!(here.files(), Vec::<String>::new());
    }
    // A file that is too large to be read takes no memory and no time.
    File::create(&file)?.set_len(1 << 40)?;
    assert!(
        here.options()
            .open_or_create("a", SIZE, initialise)?
            .is_creator()
    );
    // Another name in the place of this one is not this one, held or not.
    let holder = File::create(&file)?;
    fs::write(&file, entry("m000000000000000000", 64, "b"))?;
    flock(&holder, FlockOperation::LockShared)?;
    assert_eq!(reason(here.options().open("a")), NamedError::Unknown);
    assert!(
        here.options()
            .open_or_create("a", SIZE, initialise)?
            .is_creator()
    );
    assert_eq!(here.files().len(), 1);
    drop(holder);
    here.assert_empty();
    Ok(())
}

pub(crate) fn other_files_are_refused_and_left_alone() -> Outcome {
    let here = Names::new()?;
    let entry = entry_of("a")?;
    let hash = entry.split('.').next().ok_or("it has a suffix")?;
    let target = tempfile::NamedTempFile::new()?;
    let draft = format!("{hash}.new");
    for file in [entry.clone(), format!("{hash}.lock"), draft.clone()] {
        let path = here.path().join(&file);
        let refused = |what: &str| -> Outcome {
            let refused = here.options().open_or_create("a", SIZE, initialise);
            if file == draft && what != "a directory" {
                // It was not opened, but replaced.
                assert!(refused?.is_creator(), "{file}: {what}");
                return Ok(());
            }
            let refused = reason(refused);
            let text = refused.to_string();
            assert!(
                matches!(refused, NamedError::NotAnEntry { .. }),
                "{file}: {what}: {text}"
            );
            assert!(text.contains(&file) && text.contains("remove it"), "{text}");
            assert!(
                path.symlink_metadata().is_ok(),
                "{file}: {what} was removed"
            );
            assert_eq!(here.list(), Vec::<String>::new());
            Ok(())
        };
        symlink(target.path(), &path)?;
        refused("a link")?;
        let _ = fs::remove_file(&path);
        symlink("/nonexistent", &path)?;
        refused("a link to nothing")?;
        let _ = fs::remove_file(&path);
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
        refused("a pipe")?;
        let _ = fs::remove_file(&path);
        let listener = UnixListener::bind(&path)?;
        refused("a socket")?;
        drop(listener);
        let _ = fs::remove_file(&path);
        fs::create_dir(&path)?;
        refused("a directory")?;
        fs::remove_dir(&path)?;
    }
    assert_eq!(target.as_file().metadata()?.len(), 0);
    assert!(
        here.options()
            .open_or_create("a", SIZE, initialise)?
            .is_creator()
    );
    here.assert_empty();
    Ok(())
}

pub(crate) fn foreign_ids_are_errors_or_replaced() -> Outcome {
    let mut provider = MmapShMemProvider::new()?;
    let posix = match provider.new_shmem_with_id(64, format!("test-{}", std::process::id())) {
        Ok(posix) => posix,
        Err(error) => return if_lacking(error),
    };
    let here = Names::new()?;
    let file = here.path().join(entry_of("a")?);
    let brief = here.options().timeout(Duration::from_millis(20));
    let id = posix.id();
    let memfd = "mAAAAAAAAAAAAAAAAAA";
    let ids = [
        memfd,
        "2147483647",
        "/no-such-segment",
        "nonsense",
        "",
        "sAAAAAAAAAAAAAAAAAA",
    ];
    for (id, size) in ids
        .map(|id| (id, 64))
        .into_iter()
        .chain([(id.as_str(), 65)])
    {
        // Held, it is an error: the holder could have a segment that this process cannot open.
        fs::write(&file, entry(id, size, "a"))?;
        let holder = File::open(&file)?;
        flock(&holder, FlockOperation::LockShared)?;
        assert!(brief.open("a").is_err(), "{id:?}");
        assert!(
            brief.open_or_create("a", SIZE, initialise).is_err(),
            "{id:?}"
        );
        assert!(file.exists(), "{id:?}");
        drop(holder);
        // Otherwise it is replaced.
        assert!(
            brief.open_or_create("a", SIZE, initialise)?.is_creator(),
            "{id:?}"
        );
        here.assert_empty();
    }
    // The segment of another program is not removed with the entry.
    fs::write(&file, entry(id.as_str(), 64, "a"))?;
    here.assert_empty();
    fs::write(&file, entry(id.as_str(), 64, "a"))?;
    let holder = File::open(&file)?;
    flock(&holder, FlockOperation::LockShared)?;
    let opened = brief.open("a")?;
    drop(holder);
    drop(opened);
    here.assert_empty();
    assert!(name_exists(id.as_str()));
    Ok(())
}

pub(crate) fn files_left_by_hand_are_removed_by_the_list() -> Outcome {
    let here = Names::new()?;
    let entry = entry_of("a")?;
    let hash = entry.split('.').next().ok_or("it has a suffix")?;
    for suffix in ["lock", "new"] {
        fs::write(here.path().join(format!("{hash}.{suffix}")), b"")?;
    }
    here.assert_empty();
    // What has another name is not ours, also while the lock is removed by hand.
    fs::write(here.path().join("service"), b"")?;
    let named = here.options().open_or_create("a", SIZE, |bytes| {
        fs::remove_file(here.path().join(format!("{hash}.lock"))).expect("it is held");
        drop(here.options().open_or_create("a", SIZE, initialise));
        initialise(bytes);
    });
    // Another one was registered and has ended, so this one could be.
    assert!(named?.is_creator());
    assert!(
        here.options()
            .open_or_create("a", SIZE, initialise)?
            .is_creator()
    );
    assert_eq!(here.list(), Vec::<String>::new());
    assert_eq!(here.files(), ["service"]);
    Ok(())
}
