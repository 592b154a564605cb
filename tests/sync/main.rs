//! Synchronisation between processes and channels, with real second processes: this program starts itself again
//! with the argument `peer`.

#[cfg(target_os = "linux")]
mod linux;

#[cfg(target_os = "linux")]
fn main() {
    linux::main();
}

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("skipped: tests/sync, which need the futexes of Linux");
}
