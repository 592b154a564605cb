//! Forked children hold what they have inherited.

#![allow(unsafe_code)]

use std::io::{Read, Write};
use std::time::Duration;

use shmem_providers::ErrorKind;
use shmem_providers::error::NamedError;
use shmem_providers::pipes::Pipe;
use testkit::{Outcome, fork};

use super::peer::{SIZE, initialise};
use super::{Names, reason};

/// Forks. The child calls `work`, tells so, and waits until it is told to end. Returns a function that ends
/// it.
fn in_child(work: impl FnOnce()) -> std::io::Result<impl FnOnce() -> std::io::Result<()>> {
    let mut done = Pipe::new().map_err(std::io::Error::from)?;
    let mut end = Pipe::new().map_err(std::io::Error::from)?;
    // SAFETY: the child only uses what this thread has.
    let child = unsafe { fork() };
    if child == 0 {
        work();
        let _ = done.write_all(b"x");
        end.close_write_end();
        let _ = end.read(&mut [0]);
        // SAFETY: `_exit` has no preconditions.
        unsafe { libc::_exit(0) };
    }
    done.close_write_end();
    done.read_exact(&mut [0])?;
    Ok(move || {
        end.close_write_end();
        // SAFETY: no status is asked for.
        unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
        Ok(())
    })
}

pub(crate) fn a_child_holds_the_name_it_inherited() -> Outcome {
    let here = Names::new()?;
    let options = here.options();
    let named = options.open_or_create("a", SIZE, initialise)?;
    let id = shmem_providers::ShMem::id(&named);
    let end = in_child(|| {})?;
    drop(named);
    assert_eq!(here.list(), ["a"]);
    let again = options.open("a")?;
    assert_eq!(shmem_providers::ShMem::id(&again), id);
    drop(again);
    assert_eq!(here.list(), ["a"]);
    end()?;
    // The child has ended without dropping it.
    assert_eq!(reason(options.open("a")), NamedError::Unknown);
    here.assert_empty();
    Ok(())
}

pub(crate) fn a_child_that_drops_leaves_the_name_of_its_parent() -> Outcome {
    let here = Names::new()?;
    let options = here.options();
    let mut named = Some(options.open_or_create("a", SIZE, initialise)?);
    // The closure takes it in the child only.
    let inherited = &mut named;
    let end = in_child(move || drop(inherited.take()))?;
    assert_eq!(here.list(), ["a"]);
    drop(options.open("a")?);
    assert_eq!(here.files().len(), 1);
    end()?;
    drop(options.open("a")?);
    drop(named);
    assert_eq!(here.files(), Vec::<String>::new());
    // A child that is the last to hold it removes it.
    let mut named = Some(options.open_or_create("a", SIZE, initialise)?);
    let mut parent_has_dropped = Pipe::new()?;
    // SAFETY: the child only uses what this thread has.
    let child = unsafe { fork() };
    if child == 0 {
        parent_has_dropped.close_write_end();
        let _ = parent_has_dropped.read(&mut [0]);
        drop(named.take());
        // SAFETY: `_exit` has no preconditions.
        unsafe { libc::_exit(0) };
    }
    drop(named);
    assert_eq!(here.files().len(), 1);
    parent_has_dropped.close_write_end();
    // SAFETY: no status is asked for.
    unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
    assert_eq!(here.files(), Vec::<String>::new());
    Ok(())
}

/// Both return from the call with the same segment, and the right to create ends with the parent.
pub(crate) fn a_child_forked_by_the_initialisation_is_no_creator() -> Outcome {
    let here = Names::new()?;
    let options = here.options().timeout(Duration::from_secs(5));
    let mut gate = Pipe::new()?;
    let mut child = -1;
    let named = options.open_or_create("a", SIZE, |bytes| {
        // SAFETY: the child only uses what this thread has.
        child = unsafe { fork() };
        if child == 0 {
            // Until the parent has created it.
            gate.close_write_end();
            let _ = gate.read(&mut [0]);
        }
        initialise(bytes);
    });
    if child == 0 {
        let is_opened = named.as_ref().is_ok_and(|named| !named.is_creator());
        drop(named);
        // SAFETY: `_exit` has no preconditions.
        unsafe { libc::_exit(i32::from(!is_opened)) };
    }
    let named = named?;
    assert!(named.is_creator());
    // The lock of the creation is free, although the child still has it open.
    drop(options.open_or_create("8yn0iYCKYHlIj4-BwPqk", SIZE, initialise)?);
    assert!(!options.open_or_create("a", SIZE, initialise)?.is_creator());
    gate.close_write_end();
    let mut status = 0;
    // SAFETY: `status` is valid for writing.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert_eq!(status, 0);
    drop(named);
    here.assert_empty();
    // A child that returns first waits for its parent.
    let brief = here.options().timeout(Duration::from_millis(20));
    let mut child = -1;
    let mut status = -1;
    let created = brief.open_or_create("a", SIZE, |_| {
        // SAFETY: the child only uses what this thread has.
        child = unsafe { fork() };
        if child != 0 {
            // SAFETY: `status` is valid for writing.
            unsafe { libc::waitpid(child, &raw mut status, 0) };
        }
    });
    if child == 0 {
        let is_busy = created.is_err_and(|error| error.kind() == ErrorKind::NameBusy);
        // SAFETY: `_exit` has no preconditions.
        unsafe { libc::_exit(i32::from(!is_busy)) };
    }
    assert_eq!(status, 0);
    assert!(created?.is_creator());
    here.assert_empty();
    Ok(())
}
