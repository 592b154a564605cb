//! Who has made an object: the owner that its security descriptor tells.

use core::ffi::c_void;
use core::ptr;

use windows_sys::Win32::Security::{
    EqualSid, GetKernelObjectSecurity, GetSecurityDescriptorOwner, GetTokenInformation,
    OWNER_SECURITY_INFORMATION, PSID, TOKEN_INFORMATION_CLASS, TOKEN_OWNER, TOKEN_QUERY,
    TOKEN_USER, TokenOwner, TokenUser,
};
use windows_sys::Win32::System::Threading::{GetCurrentProcess, OpenProcessToken};

use super::{OwnedHandle, failed, last_error};
use crate::error::{Result, Subject};

/// Room for a SID, which has 68 bytes at most, and what stands before it, aligned for any of it.
struct Answer([u64; 16]);

impl Answer {
    const BYTES: u32 = 128;

    fn new() -> Self {
        Self([0; 16])
    }

    fn as_mut_ptr(&mut self) -> *mut c_void {
        self.0.as_mut_ptr().cast()
    }
}

/// Whether the object belongs to the user of this process, or to whom everything belongs that this
/// process makes: with an administrator's full rights, that is all administrators.
///
/// The handle must have the right `READ_CONTROL`.
pub(crate) fn is_ours(object: &OwnedHandle) -> Result<bool> {
    let mut descriptor = Answer::new();
    let mut needed = 0;
    // SAFETY: the handle is open, and the pointer valid for the write of as many bytes.
    let told = unsafe {
        GetKernelObjectSecurity(
            object.as_raw(),
            OWNER_SECURITY_INFORMATION,
            descriptor.as_mut_ptr(),
            Answer::BYTES,
            &raw mut needed,
        )
    };
    if told == 0 {
        return refused("GetKernelObjectSecurity");
    }
    let (mut owner, mut by_default) = (ptr::null_mut(), 0);
    // SAFETY: it is a descriptor, and both pointers are valid for writes.
    let told = unsafe {
        GetSecurityDescriptorOwner(descriptor.as_mut_ptr(), &raw mut owner, &raw mut by_default)
    };
    if told == 0 {
        return refused("GetSecurityDescriptorOwner");
    }
    // Windows notes an owner for every object with a name. Wine does only where its creator named one,
    // and lets processes of one user in at all.
    if owner.is_null() {
        return Ok(true);
    }

    let token = token()?;
    let (mut user, mut default) = (Answer::new(), Answer::new());
    ask(&token, TokenUser, &mut user)?;
    // SAFETY: what was told starts with this, and the memory is aligned for it.
    let user = unsafe { user.as_mut_ptr().cast::<TOKEN_USER>().read() }
        .User
        .Sid;
    if equal(owner, user) {
        return Ok(true);
    }
    ask(&token, TokenOwner, &mut default)?;
    // SAFETY: what was told starts with this, and the memory is aligned for it.
    let default = unsafe { default.as_mut_ptr().cast::<TOKEN_OWNER>().read() };
    Ok(equal(owner, default.Owner))
}

/// Whom this process acts for.
fn token() -> Result<OwnedHandle> {
    // SAFETY: the function has no preconditions.
    let process = unsafe { GetCurrentProcess() };
    let mut token = ptr::null_mut();
    // SAFETY: the handle is that of this process, and the pointer valid for the write of another.
    let opened = unsafe { OpenProcessToken(process, TOKEN_QUERY, &raw mut token) };
    let error = last_error();
    // SAFETY: it is null, or a new handle that is ours.
    let token = unsafe { OwnedHandle::from_raw(token) };
    token
        .filter(|_| opened != 0)
        .ok_or_else(|| failed("OpenProcessToken", error, Subject::Nothing))
}

/// What the token tells of this class.
fn ask(token: &OwnedHandle, class: TOKEN_INFORMATION_CLASS, answer: &mut Answer) -> Result<()> {
    let mut needed = 0;
    // SAFETY: the handle is open, and the pointers valid for writes, the first of as many bytes.
    let told = unsafe {
        GetTokenInformation(
            token.as_raw(),
            class,
            answer.as_mut_ptr(),
            Answer::BYTES,
            &raw mut needed,
        )
    };
    match told {
        0 => refused("GetTokenInformation"),
        _ => Ok(()),
    }
}

fn equal(one: PSID, other: PSID) -> bool {
    // SAFETY: both point into answers of the system that still live.
    unsafe { EqualSid(one, other) != 0 }
}

#[cold]
fn refused<T>(call: &'static str) -> Result<T> {
    Err(failed(call, last_error(), Subject::Nothing))
}
