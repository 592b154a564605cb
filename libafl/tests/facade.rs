//! Everything that LibAFL's crates rely on: the paths, the error type, the bytes of ids and messages.
#![cfg(target_os = "linux")]

use std::io::{Read, Write};

use original::unix_shmem_server::ServedShMemRequest;
use original::{ShMem as _, ShMemProvider as _};
use shmem_providers::pipes::Pipe;
use shmem_providers::unix_shmem::memfd::MemfdShMemProvider;
use shmem_providers::unix_shmem_server::{ServedShMemProvider, ShMemService};
use shmem_providers::{
    Error, MmapShMemProvider, NopShMemProvider, RcShMemProvider, ShMem, ShMemDescription, ShMemId,
    ShMemProvider, StdShMem, StdShMemProvider, StdShMemService, UnixShMemProvider,
};
use uds::UnixSeqpacketConn;

/// LibAFL's error holds the error number, and its text names the call.
#[test]
fn a_refused_call_is_an_os_error() {
    let name = format!("facade-{}", std::process::id());
    let mut provider = MmapShMemProvider::new().unwrap();
    let _holder = provider.new_shmem_with_id(1, &name).unwrap();
    let refused = provider.new_shmem_with_id(1, &name).unwrap_err();
    let libafl_core::Error::OsError(error, text, _) = Error::from(refused) else {
        panic!("not an error of the system");
    };
    assert_eq!(error.kind(), std::io::ErrorKind::AlreadyExists);
    assert!(text.contains("shm_open"), "{text}");
}

#[test]
fn other_errors_have_the_kind_that_libafl_has_for_them() {
    let mut provider = StdShMemProvider::new().unwrap();
    let id = provider.new_shmem(1).unwrap().id();
    assert!(matches!(
        provider.new_shmem(0),
        Err(Error::IllegalArgument(..))
    ));
    assert!(matches!(
        provider.shmem_from_id(id),
        Err(Error::KeyNotFound(..))
    ));
    assert!(matches!(
        provider.existing_from_env("SHMEM_FACADE_UNSET"),
        Err(Error::Empty(..))
    ));
    let text = provider.shmem_from_id(id).unwrap_err().to_string();
    assert!(
        text.contains("holder of segment") || text.contains("holds segment"),
        "{text}"
    );
}

/// LibAFL sends ids and descriptions to programs that may be built with the original.
#[test]
fn messages_are_the_same_bytes_as_the_originals() {
    for text in ["", "0", "4711", "/name", "a text of 19 bytes."] {
        let ours = ShMemDescription::from_string_and_size(text, 1 << 33);
        let theirs = original::ShMemDescription::from_string_and_size(text, 1 << 33);
        let bytes = postcard::to_allocvec(&theirs).unwrap();
        assert_eq!(postcard::to_allocvec(&ours).unwrap(), bytes, "{text}");
        assert_eq!(
            postcard::from_bytes::<ShMemDescription>(&bytes).unwrap(),
            ours
        );
        assert_eq!(ours.id.as_array(), theirs.id.as_array());
    }
}

/// Each crate opens the System V segments of the other by their ids.
#[test]
fn the_original_attaches_to_system_v_segments_and_the_other_way_round() {
    let mut ours = UnixShMemProvider::new().unwrap();
    let mut theirs = original::UnixShMemProvider::new().unwrap();

    let mut created = ours.new_shmem(4096).unwrap();
    created[7] = 42;
    let id = original::ShMemId::from_array(created.id().as_array());
    assert_eq!(theirs.shmem_from_id_and_size(id, 4096).unwrap()[7], 42);

    let mut created = theirs.new_shmem(4096).unwrap();
    created[7] = 43;
    let id = ShMemId::from_array(created.id().as_array());
    assert_eq!(ours.shmem_from_id(id).unwrap()[7], 43);
}

/// One message of any peer ends the service of version 0.16.1, another one makes its thread panic.
#[test]
fn what_stopped_the_originals_service_does_not_stop_this_one() {
    let directory = tempfile::tempdir().unwrap();
    let address = directory.path().join("service");
    let service = ShMemService::start_at(&address).unwrap();
    let mut provider = ServedShMemProvider::<MmapShMemProvider>::at(&address);
    let mut before = provider.new_shmem(4096).unwrap();
    before[0] = 7;

    let exit = postcard::to_allocvec(&ServedShMemRequest::Exit).unwrap();
    let exit = [&u32::try_from(exit.len()).unwrap().to_be_bytes()[..], &exit].concat();
    let huge = u32::MAX.to_be_bytes().to_vec();
    let broken_off = [&8_u32.to_be_bytes()[..], &[1]].concat();
    for message in [exit, huge, broken_off] {
        let peer = UnixSeqpacketConn::connect(&address).unwrap();
        peer.send(&message).unwrap();
    }

    assert!(
        ShMemService::start_at(&address).is_err(),
        "the service has ended"
    );
    assert_eq!(provider.shmem_from_id(before.id()).unwrap()[0], 7);
    drop(provider.new_shmem(4096).unwrap());
    service.stop();
}

/// The names that LibAFL's crates, and fuzzers that use them, refer to.
#[test]
fn every_path_leads_somewhere() {
    fn is_provider<P: ShMemProvider + Clone + Default + std::fmt::Debug>() {}
    is_provider::<NopShMemProvider>();
    is_provider::<StdShMemProvider>();
    is_provider::<RcShMemProvider<ServedShMemProvider<MmapShMemProvider>>>();
    is_provider::<shmem_providers::unix_shmem::UnixShMemProvider>();
    is_provider::<shmem_providers::StdServedShMemProvider>();

    StdShMemService::start().unwrap();
    let _: fn() -> shmem_providers::Result<ShMemService> = ShMemService::start;
    let _: fn(&StdShMem) -> ShMemId = StdShMem::id;

    let mut file = MemfdShMemProvider::new_file().unwrap();
    file.write_all(b"output").unwrap();

    let mut pipe = Pipe::new().unwrap();
    pipe.write_all(b"go").unwrap();
    pipe.close_write_end();
    let mut received = String::new();
    pipe.read_to_string(&mut received).unwrap();
    assert_eq!(received, "go");
}
