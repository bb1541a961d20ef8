//! Black-box tests live in `tests/tests`; this library starts the binary for them.
