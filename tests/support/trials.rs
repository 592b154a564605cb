//! The list of a test program's tests.

/// A trial for each function named.
macro_rules! trials {
    ($($module:ident: [$($test:ident),* $(,)?])*) => {
        vec![$($(::libtest_mimic::Trial::ignorable_test(
            concat!(stringify!($module), "::", stringify!($test)),
            $module::$test,
        ),)*)*]
    };
}
