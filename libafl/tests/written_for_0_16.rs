//! Providers and segments that a program implements, as they were written for 0.16: with the methods that it
//! required, and no others.
#![cfg(target_os = "linux")]
#![allow(unsafe_code)]

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use shmem_providers::{
    Error, MmapShMemProvider, NopShMemProvider, RcShMemProvider, ShMem, ShMemDescription, ShMemId,
    ShMemProvider, StdShMemProvider, UnixShMemProvider,
};

/// Delegates to another provider, and counts the segments that it creates. `examples/libafl/src/counted.rs` uses
/// the same type with LLMP.
#[derive(Clone, Debug, Default)]
struct Counted<SP> {
    inner: SP,
    created: Arc<AtomicUsize>,
}

impl<SP: ShMemProvider> ShMemProvider for Counted<SP> {
    type ShMem = SP::ShMem;

    fn new() -> Result<Self, Error> {
        Ok(Self {
            inner: SP::new()?,
            created: Arc::default(),
        })
    }

    fn new_shmem(&mut self, map_size: usize) -> Result<Self::ShMem, Error> {
        self.created.fetch_add(1, Ordering::Relaxed);
        self.inner.new_shmem(map_size)
    }

    fn shmem_from_id_and_size(&mut self, id: ShMemId, size: usize) -> Result<Self::ShMem, Error> {
        self.inner.shmem_from_id_and_size(id, size)
    }
}

/// Delegates every method that 0.16 had. Its segments are wrapped as well.
#[derive(Clone, Debug, Default)]
struct Wrapping<SP> {
    inner: SP,
}

#[derive(Debug)]
struct Wrapped<S> {
    inner: S,
}

impl<S: ShMem> Deref for Wrapped<S> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.inner
    }
}

impl<S: ShMem> DerefMut for Wrapped<S> {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.inner
    }
}

// SAFETY: the memory is that of `S`, which keeps the contract.
unsafe impl<S: ShMem> ShMem for Wrapped<S> {
    fn id(&self) -> ShMemId {
        self.inner.id()
    }
}

impl<SP: ShMemProvider> ShMemProvider for Wrapping<SP> {
    type ShMem = Wrapped<SP::ShMem>;

    fn new() -> Result<Self, Error> {
        Ok(Self { inner: SP::new()? })
    }

    fn new_shmem(&mut self, map_size: usize) -> Result<Self::ShMem, Error> {
        let inner = self.inner.new_shmem(map_size)?;
        Ok(Wrapped { inner })
    }

    fn shmem_from_id_and_size(&mut self, id: ShMemId, size: usize) -> Result<Self::ShMem, Error> {
        let inner = self.inner.shmem_from_id_and_size(id, size)?;
        Ok(Wrapped { inner })
    }

    fn new_on_shmem<T: Sized + 'static>(&mut self, value: T) -> Result<Self::ShMem, Error> {
        let inner = self.inner.new_on_shmem(value)?;
        Ok(Wrapped { inner })
    }

    fn uninit_on_shmem<T: Sized + 'static>(&mut self) -> Result<Self::ShMem, Error> {
        let inner = self.inner.uninit_on_shmem::<T>()?;
        Ok(Wrapped { inner })
    }

    fn shmem_from_description(
        &mut self,
        description: ShMemDescription,
    ) -> Result<Self::ShMem, Error> {
        let inner = self.inner.shmem_from_description(description)?;
        Ok(Wrapped { inner })
    }

    fn clone_ref(&mut self, mapping: &Self::ShMem) -> Result<Self::ShMem, Error> {
        let inner = self.inner.clone_ref(&mapping.inner)?;
        Ok(Wrapped { inner })
    }

    fn existing_from_env(&mut self, env_name: &str) -> Result<Self::ShMem, Error> {
        let inner = self.inner.existing_from_env(env_name)?;
        Ok(Wrapped { inner })
    }

    fn pre_fork(&mut self) -> Result<(), Error> {
        self.inner.pre_fork()
    }

    fn post_fork(&mut self, is_child: bool) -> Result<(), Error> {
        self.inner.post_fork(is_child)
    }

    fn release_shmem(&mut self, shmem: &mut Self::ShMem) {
        self.inner.release_shmem(&mut shmem.inner);
    }
}

/// Creates segments on the heap, which no other process can open.
#[derive(Clone, Copy, Debug, Default)]
struct Private;

#[derive(Debug)]
struct PrivateShMem {
    words: Vec<u64>,
    len: usize,
}

impl Deref for PrivateShMem {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the words have at least `len` bytes, all of them initialised.
        unsafe { std::slice::from_raw_parts(self.words.as_ptr().cast(), self.len) }
    }
}

impl DerefMut for PrivateShMem {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and borrowed for writing.
        unsafe { std::slice::from_raw_parts_mut(self.words.as_mut_ptr().cast(), self.len) }
    }
}

// SAFETY: words are aligned to 8 bytes, and the vector is never changed.
unsafe impl ShMem for PrivateShMem {
    fn id(&self) -> ShMemId {
        ShMemId::from_int(1)
    }
}

impl ShMemProvider for Private {
    type ShMem = PrivateShMem;

    fn new() -> Result<Self, Error> {
        Ok(Self)
    }

    fn new_shmem(&mut self, map_size: usize) -> Result<PrivateShMem, Error> {
        Ok(PrivateShMem {
            words: vec![0; map_size.div_ceil(8)],
            len: map_size,
        })
    }

    fn shmem_from_id_and_size(
        &mut self,
        _id: ShMemId,
        _size: usize,
    ) -> Result<PrivateShMem, Error> {
        Err(Error::unsupported("no other process can open it"))
    }
}

/// Uses a provider as programs do.
fn work<SP: ShMemProvider>(mut provider: SP) {
    let mut created = provider.new_shmem(100).unwrap();
    created[99] = 7;
    assert_eq!((created.len(), created.is_empty()), (100, false));
    let mut attached = provider
        .shmem_from_description(created.description())
        .unwrap();
    assert_eq!(attached[99], 7);
    assert_eq!(provider.clone_ref(&created).unwrap()[99], 7);
    provider.release_shmem(&mut attached);
    let value = provider.new_on_shmem(0x1234_u64).unwrap();
    // SAFETY: the value was written there.
    assert_eq!(unsafe { *value.as_ptr_of::<u64>().unwrap() }, 0x1234);
    provider.pre_fork().unwrap();
    provider.post_fork(false).unwrap();
    // 0.16 did not have this method: the default returns an error.
    match provider.shmem_from_id(created.id()) {
        Ok(all) => assert_eq!(all[99], 7),
        Err(error) => assert!(
            error.to_string().contains("shmem_from_id_and_size"),
            "{error}"
        ),
    }
}

#[test]
fn a_provider_that_delegates_what_was_demanded() {
    work(Counted::<StdShMemProvider>::new().unwrap());
    work(Counted::<UnixShMemProvider>::new().unwrap());
    work(Counted::<MmapShMemProvider>::new().unwrap());
    let provider = Counted::<StdShMemProvider>::new().unwrap();
    let counts = provider.clone();
    work(provider);
    assert_eq!(counts.created.load(Ordering::Relaxed), 2);
}

#[test]
fn a_provider_that_delegates_all_that_there_was() {
    work(Wrapping::<StdShMemProvider>::new().unwrap());
    work(Wrapping::<Counted<MmapShMemProvider>>::new().unwrap());
}

#[test]
fn they_can_be_counted() {
    work(RcShMemProvider::<Counted<StdShMemProvider>>::new().unwrap());
    work(RcShMemProvider::<Wrapping<UnixShMemProvider>>::new().unwrap());
}

#[test]
fn a_provider_over_memory_of_its_own() {
    let mut provider = RcShMemProvider::<Private>::new().unwrap();
    let mut created = provider.new_shmem(12).unwrap();
    created[11] = 1;
    assert!(created.as_ptr_of::<[u64; 2]>().is_none());
    assert!(provider.shmem_from_id(created.id()).is_err());
    let mut provider = Counted::<NopShMemProvider>::new().unwrap();
    assert_eq!(provider.new_shmem(8).unwrap().len(), 8);
}

/// The variables are those of 0.16: one for the id, one for the size.
#[test]
fn the_environment() {
    let mut provider = Counted::<StdShMemProvider>::new().unwrap();
    let mut created = provider.new_shmem(100).unwrap();
    created[5] = 5;
    let name = "SHMEM_WRITTEN_FOR_0_16";
    // SAFETY: the other tests of this program do not use the environment.
    unsafe { created.write_to_env(name) }.unwrap();
    assert_eq!(provider.existing_from_env(name).unwrap()[5], 5);
}
