//! Other crates: creating and dropping a segment of 64 KiB, without and with writing all of it.

use std::fs::File;
use std::hint::black_box;

// Must be linked: it defines the logger of the other crates of iceoryx2.
extern crate iceoryx2_bb_loggers;
use bench::pairs::Target;
use bench::{Result, SIZE};
use iceoryx2_bb_container::semantic_string::SemanticString as _;
use iceoryx2_bb_posix::shared_memory::{CreationMode, Permission, SharedMemoryBuilder};
use iceoryx2_bb_system_types::file_name::FileName;
use old::{ShMemProvider as _, UnixShMemProvider as OldUnix};

use crate::raw;
use crate::table::Table;

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
            // SAFETY: no other process knows the segment.
            black_box(unsafe { segment.as_slice_mut() })[..count].fill(1);
            Ok(())
        });
        row(table, "memmap2 on memfd", &mut || {
            let file = File::from(raw::memfd(SIZE)?);
            // SAFETY: no other process has the file, and it is sealed against shrinking.
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
                // A new object is zeroed by the system.
                .zero_memory(false)
                .create()
                .map_err(|error| format!("{error:?}"))?;
            black_box(segment.as_mut_slice())[..count].fill(1);
            Ok(())
        });
        // It cannot be written after its creation, so it is filled then.
        row(table, "ipc-channel, filled", &mut || {
            black_box(ipc_channel::ipc::IpcSharedMemory::from_byte(1, SIZE));
            Ok(())
        });
    }
    Ok(())
}
