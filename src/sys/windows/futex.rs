//! Waiting for a word of a section to change, across processes, by named semaphores.
//!
//! `WaitOnAddress` works within one process only. So each sleeper creates a semaphore, whose name consists of
//! that of the section, the offset of the word, and the number of a place, of which every word has
//! [`PLACES`]. It looks at the word again and waits for its semaphore. A waker changes the word and
//! releases the semaphores that exist. The kernel removes a semaphore with the handle of its sleeper, also
//! if the process is terminated.
//!
//! A semaphore belongs to one sleeper, so no other one can consume its release. A waker that meets a sleeper
//! which is about to leave may have chosen it instead of another one; a sleeper that finds itself released as
//! it leaves passes that on, and every sleeper looks at the word after [`LONGEST`] at the latest.
#![allow(unsafe_code)]

use core::ptr;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed, Ordering::SeqCst, fence};
use core::time::Duration;

use windows_sys::Win32::Foundation::{
    ERROR_ACCESS_DENIED, ERROR_ALREADY_EXISTS, ERROR_INVALID_HANDLE, WAIT_OBJECT_0, WAIT_TIMEOUT,
};
use windows_sys::Win32::System::Threading::{
    CreateSemaphoreW, OpenSemaphoreW, ReleaseSemaphore, SEMAPHORE_MODIFY_STATE, WaitForSingleObject,
};

use super::object_name::ObjectName;
use super::views::{self, SectionName};
use super::{OwnedHandle, failed, forget_last_error, last_error};
use crate::error::{Result, Subject};
use crate::sys::polling;
pub(crate) use crate::sys::polling::{Deadline, after, sleep_while_all};

/// How many sleepers one word can have. More of them poll.
const PLACES: u32 = 8;

/// After this time a sleeper looks at the word again.
const LONGEST: Duration = Duration::from_millis(100);

/// Returns `true`: the words of sections have semaphores.
pub(crate) fn is_native() -> bool {
    true
}

fn name_of(section: &SectionName, offset: usize, place: u32) -> ObjectName {
    ObjectName::of(section, format_args!("wake-{offset:x}-{place}"))
}

/// Creates the semaphore of a free place. Returns `None` if there is none.
fn take_place(section: &SectionName, offset: usize) -> Result<Option<OwnedHandle>> {
    for place in 0..PLACES {
        let name = name_of(section, offset, place);
        forget_last_error();
        // SAFETY: `name` ends with a zero, and the attributes may be null.
        let raw = unsafe { CreateSemaphoreW(ptr::null(), 0, 1, name.as_ptr()) };
        let error = last_error();
        // SAFETY: `raw` is null or a new handle that nothing else owns.
        match unsafe { OwnedHandle::from_raw(raw) } {
            Some(_) if error == ERROR_ALREADY_EXISTS => {}
            Some(semaphore) => return Ok(Some(semaphore)),
            // Another kind of object, or another user's, has the name.
            None if matches!(error, ERROR_ACCESS_DENIED | ERROR_INVALID_HANDLE) => {}
            None => return Err(failed("CreateSemaphore", error, Subject::Nothing)),
        }
    }
    Ok(None)
}

/// Waits for a release. Returns `false` if the time is up before.
fn wait(semaphore: &OwnedHandle, time: Duration) -> Result<bool> {
    // Rounded up, so that the remainder is not spent on waits without time.
    let milliseconds = u32::try_from(time.as_micros().div_ceil(1000)).unwrap_or(u32::MAX - 1);
    // SAFETY: the handle is open.
    match unsafe { WaitForSingleObject(semaphore.as_raw(), milliseconds) } {
        WAIT_OBJECT_0 => Ok(true),
        WAIT_TIMEOUT => Ok(false),
        _ => Err(failed(
            "WaitForSingleObject",
            last_error(),
            Subject::Nothing,
        )),
    }
}

/// Blocks while the word has this value. Returns `false` if the deadline has passed. May also
/// return `true` spuriously.
pub(crate) fn sleep_while(
    word: &AtomicU32,
    value: u32,
    deadline: Option<&Deadline>,
) -> Result<bool> {
    let Some((section, offset)) = views::find(word.as_ptr().cast()) else {
        return polling::sleep_while(word, value, deadline);
    };
    let Some(semaphore) = take_place(&section, offset)? else {
        return polling::sleep_while(word, value, deadline);
    };
    // Either this sees the change, or the waker sees the semaphore: both have a fence in between.
    fence(SeqCst);
    while word.load(Relaxed) == value {
        let Some(time) = polling::left(deadline, LONGEST) else {
            break;
        };
        if wait(&semaphore, time)? {
            return Ok(true);
        }
    }
    if wait(&semaphore, Duration::ZERO)? {
        drop(semaphore);
        wake_at(&section, offset, 1);
    }
    Ok(polling::is_before(deadline))
}

/// Wakes at most `most` waiters, and returns how many were woken.
#[expect(clippy::unnecessary_wraps, reason = "waking can fail on other systems")]
pub(crate) fn wake(word: &AtomicU32, most: u32) -> Result<usize> {
    Ok(match views::find(word.as_ptr().cast()) {
        Some((section, offset)) => wake_at(&section, offset, most),
        None => 0,
    })
}

fn wake_at(section: &SectionName, offset: usize, most: u32) -> usize {
    fence(SeqCst);
    let mut woken = 0;
    for place in 0..PLACES {
        if woken == most {
            break;
        }
        let name = name_of(section, offset, place);
        // SAFETY: `name` ends with a zero.
        let raw = unsafe { OpenSemaphoreW(SEMAPHORE_MODIFY_STATE, 0, name.as_ptr()) };
        // SAFETY: `raw` is null or a new handle that nothing else owns.
        let Some(semaphore) = (unsafe { OwnedHandle::from_raw(raw) }) else {
            continue;
        };
        // It fails if the sleeper has been released already, and is about to leave.
        // SAFETY: the handle is open, and the last pointer may be null.
        let released = unsafe { ReleaseSemaphore(semaphore.as_raw(), 1, ptr::null_mut()) };
        woken += u32::from(released != 0);
    }
    woken as usize
}
