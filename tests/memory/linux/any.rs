//! [`Tuned`]: what the providers over all mechanisms have in common, for tests that run over each of them.

use std::ops::Range;

use shmem_providers::{
    CommonUnixShMemProvider, Error, MemfdBackend, MemfdShMemProvider, MmapShMemProvider,
    OptionReport, ServedShMemProvider, ShMemId, ShMemOptions, ShMemProvider, StdShMemProvider,
};

/// A provider over a mechanism.
pub(crate) trait Tuned: ShMemProvider {
    fn new_shmem_with(
        &mut self,
        size: usize,
        options: ShMemOptions,
    ) -> Result<(Self::ShMem, OptionReport), Error>;

    fn shmem_from_id_with(
        &mut self,
        id: ShMemId,
        size: Option<usize>,
        options: ShMemOptions,
    ) -> Result<(Self::ShMem, OptionReport), Error>;

    fn shmem_from_bytes(&mut self, bytes: &[u8]) -> Result<Self::ShMem, Error>;

    fn clear(segment: &mut Self::ShMem);

    fn data_ranges(segment: &Self::ShMem) -> Result<Vec<Range<usize>>, Error>;

    fn trim(segment: &mut Self::ShMem, range: Range<usize>) -> Result<(), Error>;

    fn freeze(segment: Self::ShMem) -> Result<(), Self::ShMem>;
}

macro_rules! tuned {
    ($($provider:ty),*) => {
        $(impl Tuned for $provider {
            fn new_shmem_with(
                &mut self,
                size: usize,
                options: ShMemOptions,
            ) -> Result<(Self::ShMem, OptionReport), Error> {
                <$provider>::new_shmem_with(self, size, options)
            }

            fn shmem_from_id_with(
                &mut self,
                id: ShMemId,
                size: Option<usize>,
                options: ShMemOptions,
            ) -> Result<(Self::ShMem, OptionReport), Error> {
                <$provider>::shmem_from_id_with(self, id, size, options)
            }

            fn shmem_from_bytes(&mut self, bytes: &[u8]) -> Result<Self::ShMem, Error> {
                <$provider>::shmem_from_bytes(self, bytes)
            }

            fn clear(segment: &mut Self::ShMem) {
                segment.clear();
            }

            fn data_ranges(segment: &Self::ShMem) -> Result<Vec<Range<usize>>, Error> {
                segment.data_ranges().collect()
            }

            fn trim(segment: &mut Self::ShMem, range: Range<usize>) -> Result<(), Error> {
                segment.trim(range)
            }

            fn freeze(segment: Self::ShMem) -> Result<(), Self::ShMem> {
                super::single_writer::freeze_or_keep(segment)
            }
        })*
    };
}

tuned!(
    StdShMemProvider,
    MemfdShMemProvider,
    CommonUnixShMemProvider,
    MmapShMemProvider,
    ServedShMemProvider<MemfdBackend>
);
