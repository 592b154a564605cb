//! The [`Word`](super::Word) of `loom` and that of `shuttle`, for tests that explore schedules.
//!
//! A sleeper waits on a condition variable that every wake-up notifies. A schedule in which a wake-up is lost is
//! then a deadlock, which both tools report. A deadline never passes.

/// Defines a word on the atomics of a tool.
macro_rules! word {
    ($name:ident, $tool:ident, $pause:path, $fence:path) => {
        pub(crate) struct $name {
            value: $tool::sync::atomic::AtomicU32,
            /// Held between the comparison and the sleep, and by wakers, as the kernel's own lock is.
            lock: $tool::sync::Mutex<()>,
            woken: $tool::sync::Condvar,
        }

        impl $name {
            pub(crate) fn new(value: u32) -> Self {
                Self {
                    value: $tool::sync::atomic::AtomicU32::new(value),
                    lock: $tool::sync::Mutex::new(()),
                    woken: $tool::sync::Condvar::new(),
                }
            }
        }

        impl $crate::sync::word::Word for $name {
            type Deadline = ();

            fn load(&self, ordering: Ordering) -> u32 {
                self.value.load(ordering)
            }

            fn store(&self, value: u32, ordering: Ordering) {
                self.value.store(value, ordering);
            }

            fn swap(&self, value: u32, ordering: Ordering) -> u32 {
                self.value.swap(value, ordering)
            }

            fn fetch_add(&self, value: u32, ordering: Ordering) -> u32 {
                self.value.fetch_add(value, ordering)
            }

            fn fetch_or(&self, value: u32, ordering: Ordering) -> u32 {
                self.value.fetch_or(value, ordering)
            }

            fn fetch_and(&self, value: u32, ordering: Ordering) -> u32 {
                self.value.fetch_and(value, ordering)
            }

            fn compare_exchange(
                &self,
                current: u32,
                new: u32,
                success: Ordering,
                failure: Ordering,
            ) -> Result<u32, u32> {
                self.value.compare_exchange(current, new, success, failure)
            }

            fn fence(ordering: Ordering) {
                $fence(ordering);
            }

            fn pause() {
                $pause();
            }

            fn after(_timeout: Duration) -> Option<()> {
                None
            }

            fn sleep_while(&self, value: u32, _deadline: Option<&()>) -> Result<bool> {
                let guard = self.lock.lock().unwrap();
                if self.value.load(Ordering::SeqCst) == value {
                    drop(self.woken.wait(guard).unwrap());
                }
                Ok(true)
            }

            fn wake(&self, _most: u32) -> Result<()> {
                let _guard = self.lock.lock().unwrap();
                self.woken.notify_all();
                Ok(())
            }
        }
    };
}

use core::sync::atomic::Ordering;
use core::time::Duration;

use crate::error::Result;

word!(
    LoomWord,
    loom,
    loom::thread::yield_now,
    loom::sync::atomic::fence
);
word!(
    ShuttleWord,
    shuttle,
    shuttle::thread::yield_now,
    shuttle::sync::atomic::fence
);
// Without fences, to see that loom finds the wake-up that is lost.
word!(UnfencedWord, loom, loom::thread::yield_now, drop);

mod protocols;

mod tests {
    use core::sync::atomic::Ordering::Release;
    use std::boxed::Box;
    use std::sync::Arc;

    use super::{LoomWord, ShuttleWord};
    use crate::sync::waiters::Waiters;
    use crate::sync::word::Word;

    /// A waiter must see the change, whoever comes first.
    fn hand_over<W: Word + Send + Sync + 'static>(
        new: impl Fn(u32) -> W,
        spawn: impl FnOnce(Box<dyn FnOnce() + Send>),
    ) {
        let shared = Arc::new((new(0), Waiters::new(new(0))));
        let setter = shared.clone();
        spawn(Box::new(move || {
            let (word, waiters) = &*setter;
            word.store(1, Release);
            waiters.wake(word).unwrap();
        }));
        let (word, waiters) = &*shared;
        assert_eq!(waiters.wait_while(word, 0, 0, None).unwrap(), Some(1));
    }

    #[test]
    fn no_wake_up_is_lost_in_any_schedule() {
        loom::model(|| {
            hand_over(LoomWord::new, |body| {
                loom::thread::spawn(body);
            });
        });
    }

    #[test]
    fn no_wake_up_is_lost_in_random_schedules() {
        let body = || {
            hand_over(ShuttleWord::new, |body| {
                shuttle::thread::spawn(body);
            });
        };
        shuttle::check_random(body, 1000);
    }
}
