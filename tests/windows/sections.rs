//! Sections: names, sizes, and sections of other programs.
#![allow(unsafe_code)]
#![allow(clippy::unnecessary_wraps, reason = "all tests have one type")]

use std::ffi::{CStr, CString};
use std::os::windows::io::{AsRawHandle, FromRawHandle, OwnedHandle};
use std::{process, ptr};

use shmem_providers::{
    Error, ShMem, ShMemId, ShMemProvider, StdShMemProvider, Win32ShMem, Win32ShMemProvider,
};
use windows_sys::Win32::Foundation::{
    ERROR_ACCESS_DENIED, ERROR_ALREADY_EXISTS, ERROR_INVALID_HANDLE, INVALID_HANDLE_VALUE,
};
use windows_sys::Win32::Security::{
    ACL, ACL_REVISION, CreateWellKnownSid, GetTokenInformation, InitializeAcl,
    InitializeSecurityDescriptor, PSID, SECURITY_ATTRIBUTES, SECURITY_DESCRIPTOR,
    SetSecurityDescriptorDacl, SetSecurityDescriptorOwner, TOKEN_QUERY, TokenOwner, TokenUser,
    WinWorldSid,
};
use windows_sys::Win32::System::Memory::{
    CreateFileMappingA, FILE_MAP_WRITE, MEM_COMMIT, MapViewOfFile, PAGE_READONLY, PAGE_READWRITE,
    SEC_RESERVE, UnmapViewOfFile, VirtualAlloc,
};
use windows_sys::Win32::System::Threading::{CreateMutexA, GetCurrentProcess, OpenProcessToken};

use crate::peer::Peer;
use testkit::{Outcome, if_lacking, open_files, skip};

/// Returns a name in this namespace that no other test and no other run has.
fn name(space: &str, test: char) -> String {
    format!(r"{space}\{test}{}", process::id())
}

fn named(size: usize, name: &str) -> Result<Win32ShMem, Error> {
    Win32ShMemProvider::default().new_shmem_with_id(size, name)
}

#[track_caller]
fn assert_refused(made: Result<Win32ShMem, Error>, code: u32) -> Error {
    let error = made.expect_err("this must be refused");
    assert_eq!(error.raw_os_error().map(i32::unsigned_abs), Some(code));
    error
}

/// Creates a section without the crate.
fn section(
    name: &str,
    protection: u32,
    size: u32,
    attributes: *const SECURITY_ATTRIBUTES,
) -> OwnedHandle {
    let name = CString::new(name).expect("the name contains no zero");
    let file = INVALID_HANDLE_VALUE;
    // SAFETY: the pointers are valid or null, and the name ends with a zero.
    let made =
        unsafe { CreateFileMappingA(file, attributes, protection, 0, size, name.as_ptr().cast()) };
    assert!(!made.is_null(), "{}", std::io::Error::last_os_error());
    // SAFETY: the handle is new and ours.
    unsafe { OwnedHandle::from_raw_handle(made) }
}

pub(crate) fn a_name_that_exists_is_an_error() -> Outcome {
    let name = name("Local", 'e');
    let mut first = named(100, &name)?;
    assert_eq!(first.id().as_str(), name);
    first[0] = 7;
    let before = open_files();
    for size in [1, 100, 1 << 20] {
        let error = assert_refused(named(size, &name), ERROR_ALREADY_EXISTS);
        assert!(
            error.to_string().starts_with("CreateFileMapping ("),
            "{error}"
        );
    }
    // The handle to the existing section was closed, and its content has not changed.
    assert_eq!(open_files(), before);
    assert_eq!(first[0], 7);
    let mut peer = Peer::start();
    assert_eq!(peer.ask(format!("open {name} 100"))?, "100");
    assert_eq!(peer.ask("get 0")?, "7");
    drop(first);
    assert_refused(named(100, &name), ERROR_ALREADY_EXISTS);
    peer.kill();
    assert_eq!(named(100, &name)?[0], 0);
    Ok(())
}

pub(crate) fn name_of_another_object_is_an_error() -> Outcome {
    let name = name("Local", 'm');
    let text = CString::new(name.as_str())?;
    // SAFETY: the attributes may be null, and the name ends with a zero.
    let mutex = unsafe { CreateMutexA(ptr::null(), 0, text.as_ptr().cast()) };
    assert!(!mutex.is_null());
    // SAFETY: the handle is new and ours.
    let _mutex = unsafe { OwnedHandle::from_raw_handle(mutex) };
    assert_refused(named(100, &name), ERROR_INVALID_HANDLE);
    let opened = StdShMemProvider::new()?.shmem_from_id(ShMemId::from_string(&name));
    assert!(matches!(opened, Err(Error::Foreign { .. })), "{opened:?}");
    Ok(())
}

pub(crate) fn impossible_names_are_errors() -> Outcome {
    for name in [
        "",
        "plain",
        r"Local\",
        r"Global\",
        r"Local\a\b",
        r"local\a",
        r"Session\1\a",
        r"\\.\pipe\a",
        r"Local\longer-than-19",
        "Local\\nul\0inside",
        "w12345678901234567",
    ] {
        let error = named(100, name).expect_err("no such name");
        assert!(
            matches!(error, Error::InvalidId { .. }),
            "{name}: {error:?}"
        );
    }
    Ok(())
}

pub(crate) fn global_names_open_in_all_sessions() -> Outcome {
    let (global, local) = (name("Global", 'g'), name("Local", 'g'));
    let mut segment = match named(100, &global) {
        Ok(segment) => segment,
        // Users other than administrators lack the privilege.
        Err(error) => {
            assert_eq!(
                error.raw_os_error().map(i32::unsigned_abs),
                Some(ERROR_ACCESS_DENIED)
            );
            assert!(
                error.to_string().contains("SeCreateGlobalPrivilege"),
                "{error}"
            );
            return skip(error);
        }
    };
    segment[0] = 9;
    let mut peer = Peer::start();
    peer.ask(format!("open {global}"))?;
    assert_eq!(peer.ask("get 0")?, "9");
    // In the other namespace, the same name is another segment.
    let id = ShMemId::from_string(&local);
    let opened = StdShMemProvider::new()?.shmem_from_id(id);
    assert_eq!(opened.err(), Some(Error::Gone { id }));
    Ok(())
}

pub(crate) fn section_without_access_is_refused() -> Outcome {
    // An empty access list grants no access.
    let mut acl = ACL::default();
    let size = u32::try_from(size_of::<ACL>())?;
    // SAFETY: the pointer is valid for writes of `size` bytes.
    let made = unsafe { InitializeAcl(&raw mut acl, size, ACL_REVISION) };
    assert_ne!(made, 0);
    let mut descriptor = SECURITY_DESCRIPTOR::default();
    let pointer = (&raw mut descriptor).cast();
    // SAFETY: the pointer is valid for writes of a descriptor.
    let made = unsafe { InitializeSecurityDescriptor(pointer, 1) };
    assert_ne!(made, 0);
    // SAFETY: the descriptor is initialised, and the list lives as long as it does.
    let made = unsafe { SetSecurityDescriptorDacl(pointer, 1, &raw const acl, 0) };
    assert_ne!(made, 0);
    let attributes = SECURITY_ATTRIBUTES {
        nLength: u32::try_from(size_of::<SECURITY_ATTRIBUTES>())?,
        lpSecurityDescriptor: pointer,
        bInheritHandle: 0,
    };
    for space in ["Local", "Global"] {
        let name = name(space, 'c');
        let _closed = section(&name, PAGE_READWRITE, 4096, &raw const attributes);
        let opened = StdShMemProvider::new()?.shmem_from_id(ShMemId::from_string(&name));
        let Err(Error::OtherUser { .. }) = opened else {
            return skip(format!(
                "this system does not check access lists: {opened:?}"
            ));
        };
        let error = assert_refused(named(100, &name), ERROR_ACCESS_DENIED).to_string();
        let names_privilege = error.contains("SeCreateGlobalPrivilege");
        assert_eq!(names_privilege, space == "Global", "{error}");
    }
    Ok(())
}

/// Creates a section with this owner, which everybody may access.
fn section_of(owner: PSID, name: &CStr) -> std::io::Result<OwnedHandle> {
    let mut descriptor = SECURITY_DESCRIPTOR::default();
    let descriptor = (&raw mut descriptor).cast();
    // SAFETY: the pointer is valid for writes of a descriptor.
    let made = unsafe { InitializeSecurityDescriptor(descriptor, 1) };
    assert_ne!(made, 0);
    // SAFETY: the descriptor is initialised, and the SID lives longer.
    let made = unsafe { SetSecurityDescriptorOwner(descriptor, owner, 0) };
    assert_ne!(made, 0);
    // SAFETY: the descriptor is initialised, and the list may be null, which grants all rights to everybody.
    let made = unsafe { SetSecurityDescriptorDacl(descriptor, 1, ptr::null(), 0) };
    assert_ne!(made, 0);
    let attributes = SECURITY_ATTRIBUTES {
        nLength: u32::try_from(size_of::<SECURITY_ATTRIBUTES>()).unwrap_or(0),
        lpSecurityDescriptor: descriptor,
        bInheritHandle: 0,
    };
    let file = INVALID_HANDLE_VALUE;
    let name = name.as_ptr().cast();
    // SAFETY: the attributes are valid, and the name ends with a zero.
    let made =
        unsafe { CreateFileMappingA(file, &raw const attributes, PAGE_READWRITE, 0, 4096, name) };
    if made.is_null() {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: the handle is new and ours.
    Ok(unsafe { OwnedHandle::from_raw_handle(made) })
}

/// Another user takes the name after we have released it, and grants us access.
pub(crate) fn section_of_another_owner_is_refused() -> Outcome {
    // The group of all users, which includes this user but is not this user.
    let mut everybody = [0_u64; 16];
    let mut size = u32::try_from(size_of_val(&everybody))?;
    let sid = everybody.as_mut_ptr().cast();
    // SAFETY: the pointers are valid for writes, that of the SID for `size` bytes.
    let made = unsafe { CreateWellKnownSid(WinWorldSid, ptr::null_mut(), sid, &raw mut size) };
    assert_ne!(made, 0);
    let name = CString::new(name("Local", 'f'))?;
    let section = match section_of(sid, &name) {
        Ok(section) => section,
        Err(error) => return skip(format!("this user cannot set another owner: {error}")),
    };
    let mut provider = StdShMemProvider::new()?;
    let before = open_files();
    let id = ShMemId::from_string(name.to_str()?);
    for opened in [
        provider.shmem_from_id(id),
        provider.shmem_from_id_and_size(id, 1),
    ] {
        let error = opened.expect_err("it belongs to another user");
        assert_eq!(error, Error::OtherUser { owner: None });
    }
    assert_eq!(open_files(), before);
    drop(section);
    Ok(())
}

/// What this process creates belongs to its user or, with full administrator rights, to all administrators.
pub(crate) fn section_of_this_user_opens() -> Outcome {
    // SAFETY: the function has no preconditions.
    let process = unsafe { GetCurrentProcess() };
    let mut token = ptr::null_mut();
    // SAFETY: the pointer is valid for writes of a handle.
    let opened = unsafe { OpenProcessToken(process, TOKEN_QUERY, &raw mut token) };
    assert_ne!(opened, 0);
    // SAFETY: the handle is new and ours.
    let token = unsafe { OwnedHandle::from_raw_handle(token) };
    let name = CString::new(name("Local", 'u'))?;
    for class in [TokenUser, TokenOwner] {
        let mut answer = [0_u64; 16];
        let mut size = u32::try_from(size_of_val(&answer))?;
        let pointer = answer.as_mut_ptr().cast();
        // SAFETY: the pointers are valid for writes, that of the answer for `size` bytes.
        let done = unsafe {
            GetTokenInformation(token.as_raw_handle(), class, pointer, size, &raw mut size)
        };
        assert_ne!(done, 0);
        // SAFETY: both kinds of answers start with a pointer to the SID.
        let owner = unsafe { pointer.cast::<PSID>().read() };
        let _section = section_of(owner, &name)?;
        let id = ShMemId::from_string(name.to_str()?);
        assert_eq!(StdShMemProvider::new()?.shmem_from_id(id)?.len(), 4096);
    }
    Ok(())
}

pub(crate) fn reserved_section_is_refused_until_committed() -> Outcome {
    let name = name("Local", 'r');
    let reserved = section(&name, PAGE_READWRITE | SEC_RESERVE, 1 << 20, ptr::null());
    let mut provider = StdShMemProvider::new()?;
    let id = ShMemId::from_string(&name);
    for opened in [
        provider.shmem_from_id(id),
        provider.shmem_from_id_and_size(id, 1),
    ] {
        assert!(matches!(opened, Err(Error::Foreign { .. })), "{opened:?}");
    }
    // Once the first two pages are committed, they can be attached.
    // SAFETY: the handle is open, and the system chooses an unused address.
    let view = unsafe { MapViewOfFile(reserved.as_raw_handle(), FILE_MAP_WRITE, 0, 0, 0) };
    // SAFETY: the range is part of the view, which has a megabyte.
    let committed = unsafe { VirtualAlloc(view.Value, 8192, MEM_COMMIT, PAGE_READWRITE) };
    assert!(!committed.is_null());
    let opened = provider.shmem_from_id(id)?;
    assert_eq!(opened.len(), 8192);
    assert!(opened.iter().all(|&byte| byte == 0));
    let (asked, actual) = (8193, 8192);
    assert_eq!(
        provider.shmem_from_id_and_size(id, asked).err(),
        Some(Error::TooLarge { asked, actual })
    );
    // SAFETY: it is a view, and there are no references into it.
    unsafe { UnmapViewOfFile(view) };
    Ok(())
}

pub(crate) fn read_only_section_is_refused() -> Outcome {
    let name = name("Local", 'o');
    let _section = section(&name, PAGE_READONLY, 4096, ptr::null());
    match StdShMemProvider::new()?.shmem_from_id(ShMemId::from_string(&name)) {
        Err(error) => {
            let code = error.raw_os_error().map(i32::unsigned_abs);
            assert_eq!(code, Some(ERROR_ACCESS_DENIED), "{error}");
            Ok(())
        }
        Ok(mut segment) => {
            segment[0] = 1;
            skip("this system allows writing to read-only sections")
        }
    }
}

/// Sizes and offsets do not fit into 32 bits.
pub(crate) fn five_gigabytes_can_be_mapped() -> Outcome {
    const SIZE: usize = 5 << 30;
    let mut made = match StdShMemProvider::new()?.new_shmem(SIZE) {
        Ok(made) => made,
        Err(error) => return if_lacking(error),
    };
    assert_eq!(made.len(), SIZE);
    made[SIZE - 1] = 3;
    made[1] = 1;
    let mut peer = Peer::start();
    assert_eq!(peer.ask(format!("open {}", made.id()))?, SIZE.to_string());
    assert_eq!(peer.ask(format!("get {}", SIZE - 1))?, "3");
    // If the upper half of the size were lost, this would be the byte written before.
    assert_eq!(peer.ask(format!("get {}", (1_usize << 30) - 1))?, "0");
    Ok(())
}

pub(crate) fn exceeding_the_commit_limit_is_an_error_that_names_it() -> Outcome {
    let error = StdShMemProvider::new()?
        .new_shmem(1 << 60)
        .expect_err("an exabyte");
    let text = error.to_string();
    assert!(
        text.starts_with(&format!("CreateFileMapping ({} bytes): ", 1_u64 << 60)),
        "{text}"
    );
    assert!(text.contains("the system can commit"), "{text}");
    Ok(())
}
