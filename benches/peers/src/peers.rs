//! What others offer: making and dropping 64 KiB, without and with writing all of it.

use std::fs::File;
use std::hint::black_box;

// Without it, the program of that crate has nobody to tell its messages to.
extern crate iceoryx2_bb_loggers;
use iceoryx2_bb_container::semantic_string::SemanticString as _;
use iceoryx2_bb_posix::shared_memory::{CreationMode, Permission, SharedMemoryBuilder};
use iceoryx2_bb_system_types::file_name::FileName;
use old::{ShMemProvider as _, UnixShMemProvider as OldUnix};

use crate::measure::{Table, Target};
use crate::rows::SIZE;
use crate::{Result, raw};

pub(crate) fn rows(table: &mut Table) -> Result {
    for write in [false, true] {
        let work = if write {
            "create + write all + drop"
        } else {
            "create + drop"
        };
        let count = if write { SIZE } else { 0 };
        let row = |table: &mut Table, name: &str, theirs: &mut dyn FnMut() -> Result| {
            let work = format!("{work}, 64 KiB, by {name}");
            let how = (60, 16);
            table.row(
                &work,
                "raw memfd with seals",
                Target::None,
                how,
                theirs,
                || raw::life(SIZE, write),
            );
        };
        let mut new = shmem_providers::StdShMemProvider::default();
        row(table, "this crate", &mut || {
            let mut segment = shmem_providers::ShMemProvider::new_shmem(&mut new, SIZE)?;
            black_box(&mut segment)[..count].fill(1);
            Ok(())
        });
        let mut unix = OldUnix::new().map_err(|error| error.to_string())?;
        row(table, "shmem_providers 0.16.1", &mut || {
            let mut segment = unix.new_shmem(SIZE).map_err(|error| error.to_string())?;
            black_box(&mut segment)[..count].fill(1);
            Ok(())
        });
        row(table, "shared_memory", &mut || {
            let mut segment = shared_memory::ShmemConf::new().size(SIZE).create()?;
            // SAFETY: nobody else knows it.
            black_box(unsafe { segment.as_slice_mut() })[..count].fill(1);
            Ok(())
        });
        row(table, "memmap2 on memfd", &mut || {
            let file = File::from(raw::memfd(SIZE)?);
            // SAFETY: nobody else knows the file, and it is sealed.
            let mut map = unsafe { memmap2::MmapMut::map_mut(&file) }?;
            black_box(&mut map)[..count].fill(1);
            Ok(())
        });
        let name = format!("bench-table-{}", std::process::id());
        let name = FileName::new(name.as_bytes()).map_err(|error| format!("{error:?}"))?;
        row(table, "iceoryx2-bb-posix", &mut || {
            let mut segment = SharedMemoryBuilder::new(&name)
                .is_memory_locked(false)
                .creation_mode(CreationMode::PurgeAndCreate)
                .size(SIZE)
                .permission(Permission::OWNER_READ_WRITE)
                // The system has just zeroed it.
                .zero_memory(false)
                .create()
                .map_err(|error| format!("{error:?}"))?;
            black_box(segment.as_mut_slice())[..count].fill(1);
            Ok(())
        });
        // It has no way to write once it is made: it is filled when it is.
        row(table, "ipc-channel, filled", &mut || {
            black_box(ipc_channel::ipc::IpcSharedMemory::from_byte(1, SIZE));
            Ok(())
        });
    }
    Ok(())
}
