#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| seiops_native::fuzzing::batches(data));
