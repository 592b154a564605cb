//! Which mechanism bears the `Std` and the `Unix` names where. The second of the two tables of
//! platforms; the other is `providers/mod.rs`.

#[cfg(target_os = "linux")]
pub use crate::providers::ladder::{StdShMem, StdShMemProvider};
#[cfg(not(any(target_os = "android", target_os = "haiku")))]
pub use crate::providers::sysv::{
    CommonUnixShMem as UnixShMem, CommonUnixShMemProvider as UnixShMemProvider,
};

// Apple and Android get their defaults with the service that they need, the others with their rows
// of the platform table.
