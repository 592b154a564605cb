//! ashmem: the real device, and real processes that share its regions through the service.
//!
//! Few machines have the device. `make ashmem` runs these tests on an emulated one, where
//! `SHMEM_TEST_MACHINE` is set: the machine runs nothing else, so that tests may rename the device.

#[cfg(target_os = "linux")]
mod regions;

#[cfg(target_os = "linux")]
fn main() {
    use libtest_mimic::Arguments;

    if std::env::args().nth(1).as_deref() == Some("peer") {
        return regions::serve();
    }
    let mut arguments = Arguments::from_args();
    // One of the tests renames the device.
    arguments.test_threads = Some(1);
    let trials = testkit::trials! {
        regions: [
            an_id_alone_opens_nothing,
            a_region_has_its_size_and_is_close_on_exec,
            a_child_shares_what_its_parent_made,
            ids_outlive_their_creator,
            regions_beyond_31_bits_work,
            more_than_a_region_has_is_refused,
            device_named_after_the_boot_id_is_found,
        ]
    };
    libtest_mimic::run(&arguments, trials).exit();
}

#[cfg(not(target_os = "linux"))]
fn main() {}
