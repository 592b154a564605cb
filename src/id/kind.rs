//! [`IdKind`]: what an id names, by the form of its text. The only parser of ids.

use crate::id::ShMemId;
use crate::util::base64;

/// What an id names, by the form of its text: returned by [`ShMemId::kind`].
///
/// The kind says nothing about whether the segment exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum IdKind {
    /// A System V segment.
    SystemV {
        /// Its number, as returned by `shmget(2)`. Not negative.
        shmid: i32,
    },
    /// A POSIX shared memory object. The text is its name, with the slash.
    Posix,
    /// A memfd.
    Memfd(MemfdLocator),
    /// A segment of a [service](crate::ShMemProvider).
    Served,
    /// A file in the directory for temporary files.
    File,
    /// A Windows section. The text is `w` and a random number for a name in `Local\`, or the name itself.
    Section,
    /// Nothing: the id is empty.
    Empty,
    /// Nothing: the text has none of these forms.
    Invalid {
        /// What is wrong with it.
        problem: &'static str,
    },
}

/// What the id of a memfd tells: where to look for it, and how it is called.
///
/// The 18 characters behind the `m` are base64url. The first 7 are a number of 42 bits: the process
/// number in the upper 22 and the descriptor in the lower 20, or zero. The last 11 are the nonce, a number of
/// 64 bits, which is also the last part of the name of the memfd, `shmem-NONCE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemfdLocator {
    /// Process and descriptor, unless one of them does not fit or others cannot look there.
    hint: Option<(u32, u32)>,
    nonce: u64,
}

/// Linux has no process numbers beyond this (`PID_MAX_LIMIT`).
const PID_BITS: u32 = 22;
/// Larger descriptors need `fs.nr_open` to be raised far above its default, 2^20.
const FD_BITS: u32 = 20;
const HINT_CHARS: usize = 7;
const NONCE_CHARS: usize = 11;

impl IdKind {
    /// Returns the kind of an id with this text.
    pub(crate) fn of(text: &str) -> Self {
        let Some(&first) = text.as_bytes().first() else {
            return Self::Empty;
        };
        let parsed = match first {
            b'0'..=b'9' | b'-' => system_v(text),
            b'/' => posix(text),
            b'm' => MemfdLocator::parse(text)
                .map(Self::Memfd)
                .ok_or("the id of a memfd is `m` and 18 characters of base64url"),
            b's' if is_random(text) => Ok(Self::Served),
            b's' => Err("the id of a served segment is `s` and 18 characters of base64url"),
            b'f' if is_random(text) => Ok(Self::File),
            b'f' => Err("the id of a file is `f` and 18 characters of base64url"),
            b'w' if is_random(text) => Ok(Self::Section),
            b'w' => Err("the id of a section is `w` and 18 characters of base64url"),
            b'L' | b'G' => section(text),
            b'?' => Err(ShMemId::defect_of(text)),
            _ => Err(
                "an id starts with `f`, `m`, `s`, `w`, a digit, a slash, `Local\\` or `Global\\`",
            ),
        };
        parsed.unwrap_or_else(|problem| Self::Invalid { problem })
    }
}

fn system_v(text: &str) -> Result<IdKind, &'static str> {
    // One text for each number: neither a sign nor leading zeros.
    let is_canonical = text == "0" || !text.starts_with(['0', '-']);
    let is_decimal = text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(shmid) if is_canonical && is_decimal => Ok(IdKind::SystemV { shmid }),
        _ => Err("the id of a System V segment is a decimal number of 0 to 2147483647"),
    }
}

fn posix(text: &str) -> Result<IdKind, &'static str> {
    match text.strip_prefix('/') {
        Some("" | "." | "..") | None => Err("a POSIX name has a component after its slash"),
        Some(component) if component.contains('/') => Err("a POSIX name has only one slash"),
        Some(_) => Ok(IdKind::Posix),
    }
}

fn section(text: &str) -> Result<IdKind, &'static str> {
    let component = text
        .strip_prefix(r"Local\")
        .or_else(|| text.strip_prefix(r"Global\"));
    match component {
        Some(component) if !component.is_empty() && !component.contains('\\') => {
            Ok(IdKind::Section)
        }
        _ => Err("the name of a section is `Local\\` or `Global\\` and one component"),
    }
}

/// Returns `true` if one character and 18 of base64url make up the text.
fn is_random(text: &str) -> bool {
    text.get(1..).is_some_and(base64::is_digits::<18>)
}

impl MemfdLocator {
    /// Returns the locator of a memfd with this nonce. `hint` is the process and the descriptor that
    /// lead to it, where others can look.
    #[allow(dead_code, reason = "only Linux has such memfds")]
    pub(crate) fn new(hint: Option<(u32, u32)>, nonce: u64) -> Self {
        let fits = |&(pid, fd): &(u32, u32)| pid != 0 && pid >> PID_BITS == 0 && fd >> FD_BITS == 0;
        Self {
            hint: hint.filter(fits),
            nonce,
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let (hint, nonce) = text.strip_prefix('m')?.split_at_checked(HINT_CHARS)?;
        if nonce.len() != NONCE_CHARS {
            return None;
        }
        let hint = base64::number(hint)?;
        // 11 characters can hold 66 bits. This crate creates no larger numbers.
        let nonce = base64::number(nonce)?;
        let pid = u32::try_from(hint >> FD_BITS).ok()?;
        let fd = u32::try_from(hint & ((1 << FD_BITS) - 1)).ok()?;
        Some(Self {
            hint: (pid != 0).then_some((pid, fd)),
            nonce,
        })
    }

    /// Returns the process that created the memfd, as `/proc` numbers it, and the descriptor there.
    ///
    /// `None` if the id does not tell them: then the memfd is found by its name only.
    #[must_use]
    pub fn process_and_fd(&self) -> Option<(u32, u32)> {
        self.hint
    }

    /// Returns the random number in the id and in the name of the memfd.
    #[must_use]
    pub fn nonce(&self) -> u64 {
        self.nonce
    }

    /// Returns `true` if this id of a memfd contains a process and a descriptor. Faster than parsing it.
    #[allow(dead_code, reason = "only Linux has such memfds")]
    pub(crate) fn is_hint_in(id: &ShMemId) -> bool {
        let is_in = !id.as_array().starts_with(b"mAAAAAAA");
        debug_assert!(matches!(id.kind(), IdKind::Memfd(found) if found.hint.is_some() == is_in));
        is_in
    }

    /// Returns the id.
    #[allow(dead_code, reason = "only Linux has such memfds")]
    pub(crate) fn id(self) -> ShMemId {
        let (pid, fd) = self.hint.unwrap_or((0, 0));
        let hint = base64::digits::<HINT_CHARS>(u64::from(pid) << FD_BITS | u64::from(fd));
        ShMemId::joined(&[b"m", &hint, &self.nonce_digits()])
    }

    /// Returns the nonce as ids and names contain it.
    pub(crate) fn nonce_digits(self) -> [u8; NONCE_CHARS] {
        base64::digits(self.nonce)
    }
}
