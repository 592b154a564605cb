//! The sizes that segments and mappings can have.

use crate::error::{Error, Result};

/// Returns how many bytes to map of a segment of `actual` bytes: the `asked` number, or all.
///
/// This decides the length of every mapping of an existing segment, whatever the mechanism.
/// `actual` is the size that the operating system reports. On 32-bit systems it can be larger than
/// a `usize` or a slice can be, if a 64-bit process created the segment.
pub(crate) fn mapped_len(actual: u64, asked: Option<usize>) -> Result<usize> {
    let saturated = usize::try_from(actual).unwrap_or(usize::MAX);
    match asked {
        Some(asked) if check_size(asked)? as u64 > actual => Err(Error::TooLarge {
            asked,
            actual: saturated,
        }),
        Some(asked) => Ok(asked),
        None if actual == 0 => Err(Error::Foreign {
            found: "it has no bytes",
        }),
        None => check_size(saturated),
    }
}

/// Returns the size if a segment can have it.
pub(crate) fn check_size(size: usize) -> Result<usize> {
    if size == 0 || isize::try_from(size).is_err() {
        return Err(Error::InvalidSize { size });
    }
    Ok(size)
}

#[cfg(test)]
mod tests {
    use super::mapped_len;
    use crate::error::Error;

    const MOST: usize = isize::MAX as usize;

    #[test]
    fn a_mapping_is_never_longer_than_the_segment_or_than_a_slice_can_be() {
        let invalid = |size| Err(Error::InvalidSize { size });
        let none = Err(Error::Foreign {
            found: "it has no bytes",
        });
        assert_eq!(mapped_len(0, None), none);
        assert_eq!(mapped_len(0, Some(0)), invalid(0));
        assert_eq!(mapped_len(5, Some(0)), invalid(0));
        assert_eq!(mapped_len(5, None), Ok(5));
        assert_eq!(mapped_len(5, Some(5)), Ok(5));
        let (asked, actual) = (6, 5);
        assert_eq!(
            mapped_len(5, Some(6)),
            Err(Error::TooLarge { asked, actual })
        );

        // A process with a larger address space can have these.
        assert_eq!(mapped_len(MOST as u64, None), Ok(MOST));
        assert_eq!(mapped_len(MOST as u64 + 1, None), invalid(MOST + 1));
        assert_eq!(mapped_len(MOST as u64 + 1, Some(MOST)), Ok(MOST));
        assert_eq!(
            mapped_len(MOST as u64 + 1, Some(MOST + 1)),
            invalid(MOST + 1)
        );
        assert_eq!(mapped_len(u64::MAX, None), invalid(usize::MAX));
        assert_eq!(mapped_len(u64::MAX, Some(1)), Ok(1));
        assert_eq!(mapped_len(u64::MAX, Some(usize::MAX)), invalid(usize::MAX));
        #[cfg(target_pointer_width = "32")]
        {
            assert_eq!(mapped_len(0x9800_0000, None), invalid(0x9800_0000));
            // The lower 32 bits are 4096.
            assert_eq!(mapped_len((1 << 32) + 4096, None), invalid(usize::MAX));
            assert_eq!(mapped_len((1 << 32) + 4096, Some(8192)), Ok(8192));
        }
    }
}
