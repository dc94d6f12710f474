//! `storegen memiavl|flatkv DIR ROWS BLOCKS WRITES`: a store of about ROWS leaves at height 1,000,000 and BLOCKS blocks of WRITES
//! writes behind it. The same arguments give the same bytes, and both kinds of store the same state.
//!
//! `storegen sha256 ROWS THREADS`: plain SHA-256 over as many messages of 97 bytes, the yardstick of a scan.

mod flatkv;
mod memiavl;
mod pebble;
mod state;
mod wire;

use std::path::PathBuf;
use std::process::ExitCode;

use sha2::{Digest, Sha256};
use state::Shape;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [command, rows, threads] = arguments.as_slice()
        && command == "sha256"
    {
        return hash(rows.parse().unwrap_or(0), threads.parse().unwrap_or(1));
    }
    let numbers: Vec<u64> = arguments.iter().skip(2).filter_map(|text| text.parse().ok()).collect();
    let ([kind, root, ..], [rows, blocks, writes]) = (arguments.as_slice(), numbers.as_slice()) else {
        eprintln!("usage: storegen memiavl|flatkv DIR ROWS BLOCKS WRITES");
        return ExitCode::from(2);
    };
    let (root, shape, blocks) = (PathBuf::from(root), Shape::new(*rows), *blocks as u32);
    let written = match kind.as_str() {
        "memiavl" => memiavl::write(&root, &shape, blocks, *writes),
        "flatkv" => flatkv::write(&root, &shape, blocks, *writes),
        other => {
            eprintln!("storegen: no kind of store {other:?}");
            return ExitCode::from(2);
        }
    };
    match written {
        Ok(()) => {
            println!(
                "{{\"leaves\": {}, \"accounts\": {}, \"slots\": {}}}",
                shape.leaves(),
                shape.accounts,
                shape.slots()
            );
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("storegen: {}: {error}", root.display());
            ExitCode::FAILURE
        }
    }
}

/// One stream of messages a thread, each hashed by itself.
fn hash(rows: u64, threads: u64) -> ExitCode {
    let work = |thread: u64| {
        let mut message = [0u8; 97];
        let mut sum = 0u64;
        for row in 0..rows / threads.max(1) {
            message[8..16].copy_from_slice(&(row ^ thread << 48).to_be_bytes());
            let hash = Sha256::digest(message);
            sum ^= u64::from_be_bytes(hash[..8].try_into().expect("eight bytes"));
        }
        sum
    };
    let sum = std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|thread| scope.spawn(move || work(thread))).collect();
        running.into_iter().fold(0, |sum, thread| sum ^ thread.join().unwrap_or(0))
    });
    println!("{{\"rows\": {rows}, \"sum\": {sum}}}");
    ExitCode::SUCCESS
}
