//! One contract, which is tested with every mechanism of the host, in one process and one thread.
//!
//! After every test, descriptors, System V segments and mappings have to be as before.
#![allow(unsafe_code)]

mod contract;

use std::time::{Duration, Instant};
use std::{fs, process, thread};

use libtest_mimic::{Arguments, Trial};
#[cfg(all(target_os = "linux", not(any(shmem_apple_rules, shmem_freebsd_rules))))]
use shmem_providers::AshmemBackend;
#[cfg(shmem_android_rules)]
use shmem_providers::AshmemShMemProvider;
#[cfg(all(target_os = "linux", not(shmem_freebsd_rules)))]
use shmem_providers::MemfdBackend;
#[cfg(all(
    target_os = "linux",
    not(any(shmem_apple_rules, shmem_android_rules, shmem_freebsd_rules))
))]
use shmem_providers::MemfdShMemProvider;
use shmem_providers::{Error, RcShMemProvider, ShMem, ShMemProvider, StdShMemProvider};
#[cfg(unix)]
use shmem_providers::{
    FileShMemProvider, PosixBackend, ServedShMemProvider, ShMemService, StdServedShMemProvider,
};
#[cfg(all(unix, not(shmem_android_rules)))]
use shmem_providers::{MmapShMemProvider, UnixShMemProvider};

use crate::contract::Rules;
use testkit::{Outcome, if_lacking, mappings, open_files, system_v_segments};

/// Creates a trial of every rule for one mechanism.
macro_rules! contract {
    ($trials:ident, $mechanism:literal, $rules:expr, $provider:expr, [$($rule:ident),* $(,)?]) => {
        $trials.extend([$(testkit::trial(
            concat!($mechanism, "::", stringify!($rule)),
            move || watched($provider, |provider| contract::$rule(provider, $rules)),
        )),*]);
    };
}

/// Creates the trials of several mechanisms from one list of rules.
macro_rules! contracts {
    ($trials:ident: $($mechanism:literal, $rules:expr => $provider:expr;)*) => {
        $(contract!($trials, $mechanism, $rules, $provider, [
            a_new_segment_is_zeroed_and_exact,
            an_attachment_sees_the_same_bytes,
            a_read_only_attachment_sees_the_same_bytes_and_cannot_be_mprotected,
            less_may_be_attached_and_more_may_not,
            impossible_sizes_are_errors,
            ids_that_name_nothing_are_errors,
            ids_of_the_right_shape_that_name_nothing_are_errors,
            a_clone_is_another_mapping_and_another_holder,
            a_released_segment_is_empty_and_gone,
            the_last_holder_ends_it,
            values_are_placed_and_found,
            values_that_cannot_be_placed_are_errors,
            pointers_are_checked_for_size_and_alignment,
            others_may_write_while_it_is_accessed,
            segments_may_go_to_other_threads,
            a_hundred_segments_have_a_hundred_ids,
            large_and_odd_sizes_work,
            an_id_is_text_of_at_most_19_bytes,
        ]);)*
    };
}

fn main() {
    let mut arguments = Arguments::from_args();
    let directory = tempfile::tempdir().expect("there is room for a directory");
    #[cfg(unix)]
    // SAFETY: this program has a single thread so far.
    unsafe {
        std::env::set_var(ShMemService::ENV, directory.path().join("service"));
    }
    #[cfg(unix)]
    // SAFETY: as above.
    unsafe {
        std::env::set_var("TMPDIR", directory.path());
    }
    // Descriptors are counted before and after each test.
    arguments.test_threads = Some(1);
    let conclusion = libtest_mimic::run(&arguments, trials());
    let left = fs::read_dir(directory.path()).map(|entries| entries.flatten().count());
    assert_eq!(left.ok(), Some(0), "a socket or a file is left");
    drop(directory);
    conclusion.exit();
}

const KEPT: Rules = Rules {
    id_outlives_creator: true,
    rounded_to: 1,
    // Elsewhere the service hands out descriptors that can be mapped for writing.
    protects_readers: cfg!(any(
        all(target_os = "linux", not(shmem_freebsd_rules)),
        windows
    )),
};

/// A descriptor of `/dev/ashmem` cannot be opened again for reading only.
#[cfg(all(target_os = "linux", not(any(shmem_apple_rules, shmem_freebsd_rules))))]
const OF_A_DEVICE: Rules = Rules {
    protects_readers: false,
    ..KEPT
};

#[cfg(all(
    target_os = "linux",
    not(any(shmem_apple_rules, shmem_android_rules, shmem_freebsd_rules))
))]
fn trials() -> Vec<Trial> {
    use shmem_providers::Mechanism;

    let named = Rules {
        id_outlives_creator: false,
        ..KEPT
    };
    let mut trials = Vec::new();
    contracts! { trials:
        "default", KEPT => StdShMemProvider::new();
        "default_by_memfd", KEPT => Ok(StdShMemProvider::with_mechanism(Mechanism::Memfd));
        "default_by_system_v", KEPT => Ok(StdShMemProvider::with_mechanism(Mechanism::SystemV));
        "default_by_file", KEPT => Ok(StdShMemProvider::with_mechanism(Mechanism::File));
        "default_by_posix", named => Ok(StdShMemProvider::with_mechanism(Mechanism::Posix));
        "memfd", KEPT => MemfdShMemProvider::new();
        "system_v", KEPT => UnixShMemProvider::new();
        "posix", named => MmapShMemProvider::new();
        "file", KEPT => FileShMemProvider::new();
        "served_memfd", KEPT => ServedShMemProvider::<MemfdBackend>::new();
        "served_posix", KEPT => ServedShMemProvider::<PosixBackend>::new();
        "served_ashmem", OF_A_DEVICE => ServedShMemProvider::<AshmemBackend>::new();
        "counted", KEPT => RcShMemProvider::<StdShMemProvider>::new();
        "counted_served", KEPT => RcShMemProvider::<StdServedShMemProvider>::new();
        "posix_by_name", named => Ok(MmapShMemProvider::with_filename_as_id());
    }
    trials
}

/// The rules of Apple's systems, on Linux.
#[cfg(shmem_apple_rules)]
fn trials() -> Vec<Trial> {
    let named = Rules {
        id_outlives_creator: false,
        rounded_to: 16 << 10,
        ..KEPT
    };
    let mut trials = Vec::new();
    contracts! { trials:
        "default", KEPT => StdShMemProvider::new();
        "posix", named => MmapShMemProvider::new();
        "file", KEPT => FileShMemProvider::new();
        "system_v", KEPT => UnixShMemProvider::new();
        "served_memfd", KEPT => ServedShMemProvider::<MemfdBackend>::new();
        "served_posix", KEPT => ServedShMemProvider::<PosixBackend>::new();
        "counted_served", KEPT => RcShMemProvider::<StdServedShMemProvider>::new();
    }
    trials
}

/// The rules of FreeBSD, on Linux: the default is a served memfd.
#[cfg(shmem_freebsd_rules)]
fn trials() -> Vec<Trial> {
    let named = Rules {
        id_outlives_creator: false,
        ..KEPT
    };
    let mut trials = Vec::new();
    contracts! { trials:
        "default", KEPT => StdShMemProvider::new();
        "posix", named => MmapShMemProvider::new();
        "file", KEPT => FileShMemProvider::new();
        "system_v", KEPT => UnixShMemProvider::new();
        "served_posix", KEPT => ServedShMemProvider::<PosixBackend>::new();
        "counted_served", KEPT => RcShMemProvider::<StdServedShMemProvider>::new();
    }
    trials
}

/// Other systems. This was never run.
#[cfg(all(unix, not(target_os = "linux")))]
fn trials() -> Vec<Trial> {
    let rounded_to = match (cfg!(target_vendor = "apple"), cfg!(target_arch = "aarch64")) {
        (true, true) => 16 << 10,
        (true, false) => 4 << 10,
        (false, _) => 1,
    };
    let named = Rules {
        id_outlives_creator: false,
        rounded_to,
        protects_readers: true,
    };
    let removed = Rules {
        id_outlives_creator: false,
        ..KEPT
    };
    let mut trials = Vec::new();
    contracts! { trials:
        "default", KEPT => StdShMemProvider::new();
        "posix", named => MmapShMemProvider::new();
        "file", KEPT => FileShMemProvider::new();
        "system_v", removed => UnixShMemProvider::new();
        "served_posix", KEPT => ServedShMemProvider::<PosixBackend>::new();
        "counted_served", KEPT => RcShMemProvider::<StdServedShMemProvider>::new();
    }
    trials
}

/// The rules of Android, on Linux.
#[cfg(shmem_android_rules)]
fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    contracts! { trials:
        "default", KEPT => StdShMemProvider::new();
        "file", KEPT => FileShMemProvider::new();
        "served_memfd", KEPT => ServedShMemProvider::<MemfdBackend>::new();
        "served_posix", KEPT => ServedShMemProvider::<PosixBackend>::new();
        "served_ashmem", OF_A_DEVICE => ServedShMemProvider::<AshmemBackend>::new();
        "counted_served", KEPT => RcShMemProvider::<StdServedShMemProvider>::new();
    }
    trials.push(testkit::trial(
        "android::memory_is_of_the_expected_kind",
        || {
            // How the link of its descriptor is to start.
            let Ok(expected) = std::env::var("SHMEM_TEST_MEMORY") else {
                return testkit::skip("SHMEM_TEST_MEMORY does not name the kind of memory");
            };
            let before = open_files();
            let _segment = AshmemShMemProvider::new()?.new_shmem(4096)?;
            let now = open_files();
            let new = now.iter().filter(|link| !before.contains(link));
            let new: Vec<_> = new.map(|link| link.display().to_string()).collect();
            assert!(new.len() == 1 && new[0].starts_with(&expected), "{new:?}");
            Ok(())
        },
    ));
    trials
}

#[cfg(windows)]
fn trials() -> Vec<Trial> {
    let rounded = Rules {
        rounded_to: 4096,
        ..KEPT
    };
    let mut trials = Vec::new();
    contracts! { trials:
        "win32", rounded => StdShMemProvider::new();
        "counted", rounded => RcShMemProvider::<StdShMemProvider>::new();
    }
    trials
}

/// Runs a rule unless the host lacks the mechanism, and compares what is open before and after.
fn watched<P: ShMemProvider>(
    provider: Result<P, Error>,
    rule: impl FnOnce(&mut P) -> Outcome,
) -> Outcome {
    let mut provider = provider?;
    let probe = provider
        .new_shmem(1)
        .and_then(|made| provider.shmem_from_id(made.id()));
    if let Err(error) = probe {
        return if_lacking(error);
    }
    let open = || {
        (
            open_files(),
            system_v_segments(&[process::id()]),
            mappings(),
        )
    };
    // Another thread may still be closing what the probe has released.
    let mut before = open();
    loop {
        thread::sleep(Duration::from_millis(5));
        let now = open();
        if now == before {
            break;
        }
        before = now;
    }
    rule(&mut provider)?;
    // A service in this process closes what was released when it receives the request.
    let end = Instant::now() + Duration::from_secs(60);
    while open() != before && Instant::now() < end {
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(open(), before, "left open");
    Ok(())
}
