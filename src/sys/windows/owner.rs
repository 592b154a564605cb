//! Which user created an object: the owner in its security descriptor.

use core::ffi::c_void;
use core::ptr;

use windows_sys::Win32::Foundation::HANDLE;
use windows_sys::Win32::Security::{
    EqualSid, GetKernelObjectSecurity, GetSecurityDescriptorOwner, GetTokenInformation,
    IsWellKnownSid, OWNER_SECURITY_INFORMATION, PSID, TOKEN_INFORMATION_CLASS, TOKEN_OWNER,
    TOKEN_QUERY, TOKEN_USER, TokenOwner, TokenUser, WinBuiltinAdministratorsSid,
};
use windows_sys::Win32::System::Threading::{GetCurrentProcess, OpenProcessToken};

use super::{OwnedHandle, failed, last_error};
use crate::error::{Result, Subject};

/// A buffer for a SID of at most 68 bytes and the structure in front of it, aligned for both.
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

/// Returns `true` if the object belongs to the user of this process, or to the default owner of the
/// objects that this process creates. With full administrator rights, that is the group of all
/// administrators.
///
/// The handle must have the access right `READ_CONTROL`.
pub(crate) fn is_ours(object: &OwnedHandle) -> Result<bool> {
    is_handle_ours(object.as_raw(), false)
}

/// The same, for a handle that the caller keeps open. If `or_administrators`, also returns `true` for what
/// belongs to the group of all administrators.
pub(super) fn is_handle_ours(object: HANDLE, or_administrators: bool) -> Result<bool> {
    let mut descriptor = Answer::new();
    let mut needed = 0;
    // SAFETY: the caller keeps the handle open, and the buffer has `Answer::BYTES` bytes.
    let done = unsafe {
        GetKernelObjectSecurity(
            object,
            OWNER_SECURITY_INFORMATION,
            descriptor.as_mut_ptr(),
            Answer::BYTES,
            &raw mut needed,
        )
    };
    if done == 0 {
        return refused("GetKernelObjectSecurity");
    }
    let (mut owner, mut by_default) = (ptr::null_mut(), 0);
    // SAFETY: the call above succeeded, so the buffer contains a security descriptor. Both pointers
    // are to local variables.
    let done = unsafe {
        GetSecurityDescriptorOwner(descriptor.as_mut_ptr(), &raw mut owner, &raw mut by_default)
    };
    if done == 0 {
        return refused("GetSecurityDescriptorOwner");
    }
    // On Windows every named object has an owner. On Wine it has one only if its creator set it,
    // and all processes belong to one user.
    if owner.is_null() {
        return Ok(true);
    }

    if or_administrators {
        // SAFETY: the owner is a valid SID in `descriptor`.
        let belongs = unsafe { IsWellKnownSid(owner, WinBuiltinAdministratorsSid) };
        if belongs != 0 {
            return Ok(true);
        }
    }

    let token = token()?;
    let (mut user, mut default) = (Answer::new(), Answer::new());
    ask(&token, TokenUser, &mut user)?;
    // SAFETY: `ask` succeeded, so the buffer starts with this structure, and is aligned for it.
    let user = unsafe { user.as_mut_ptr().cast::<TOKEN_USER>().read() }
        .User
        .Sid;
    if equal(owner, user) {
        return Ok(true);
    }
    ask(&token, TokenOwner, &mut default)?;
    // SAFETY: as above.
    let default = unsafe { default.as_mut_ptr().cast::<TOKEN_OWNER>().read() };
    Ok(equal(owner, default.Owner))
}

/// Opens the access token of this process.
fn token() -> Result<OwnedHandle> {
    // SAFETY: the function has no preconditions.
    let process = unsafe { GetCurrentProcess() };
    let mut token = ptr::null_mut();
    // SAFETY: the pseudo-handle of this process is always valid, and the pointer is to a local
    // variable that the call writes the new handle to.
    let opened = unsafe { OpenProcessToken(process, TOKEN_QUERY, &raw mut token) };
    let error = last_error();
    // SAFETY: the call left it null, or stored a new handle that only this function knows.
    let token = unsafe { OwnedHandle::from_raw(token) };
    token
        .filter(|_| opened != 0)
        .ok_or_else(|| failed("OpenProcessToken", error, Subject::Nothing))
}

/// Reads information of this class from the token.
fn ask(token: &OwnedHandle, class: TOKEN_INFORMATION_CLASS, answer: &mut Answer) -> Result<()> {
    let mut needed = 0;
    // SAFETY: `token` keeps its handle open, the buffer has `Answer::BYTES` bytes, and `needed` is
    // a local variable.
    let done = unsafe {
        GetTokenInformation(
            token.as_raw(),
            class,
            answer.as_mut_ptr(),
            Answer::BYTES,
            &raw mut needed,
        )
    };
    match done {
        0 => refused("GetTokenInformation"),
        _ => Ok(()),
    }
}

fn equal(one: PSID, other: PSID) -> bool {
    // SAFETY: both point into buffers of the caller that contain valid SIDs.
    unsafe { EqualSid(one, other) != 0 }
}

#[cold]
fn refused<T>(call: &'static str) -> Result<T> {
    Err(failed(call, last_error(), Subject::Nothing))
}
