#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| seiops_native::fuzzing::state_log(data));
